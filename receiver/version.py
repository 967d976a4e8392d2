"""The version of this release, for the package as well (`pyproject.toml`)."""

__version__ = "1.0.0"
