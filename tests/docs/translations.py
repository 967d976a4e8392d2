"""French pages beside the English ones, and what of them has gone stale.

`README.fr.md` follows `README.md`, and `docs/fr/…` follows `docs/…`, section by section. Below each
French heading stands which text it belongs to:

    <!-- en:1a2b3c4d fr:5e6f7a8b -->

These are digests of the English section and of the French one. So a section whose English text has
changed since, or that was edited without a look at the English text, is named:

    python -m tests.docs.translations                     what is stale or missing
    python -m tests.docs.translations --stamp FILE …      these French pages are right as they stand
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.docs.markdown import STAMP, Page, Section, is_french, pages

#: Folders and pages of docs/ that have a French page each.
TRANSLATED = ("README.md", "start/", "how-to/", "reference/dashboard.md")
_ROOT = Path(__file__).parents[2]


def french_path(name: str) -> str | None:
    """Where the French page of an English one is; None if it has none."""
    if name == "README.md":
        return "README.fr.md"
    inner = name.removeprefix("docs/")
    if inner == name or inner.startswith("fr/") or not inner.startswith(TRANSLATED):
        return None
    return f"docs/fr/{inner}"


def pairs(root: Path) -> Iterator[tuple[Page, Path]]:
    """Each English page that is translated, and where its French page belongs."""
    for page in pages(root):
        french = french_path(page.name)
        if french is not None:
            yield page, root / french


def missing(root: Path) -> list[str]:
    """English pages that have no French page yet."""
    return [page.name for page, french in pairs(root) if not french.exists()]


def faults(root: Path) -> list[str]:
    """What is wrong with the French pages that there are."""
    wrong = []
    followed = set()
    for english, path in pairs(root):
        followed.add(path)
        if path.exists():
            french = Page(root, path)
            wrong += [f"{french.name}: {fault}" for fault in _of_page(english, french)]
            wrong += [f"{french.name}: {fault}" for fault in _links(root, english, french)]
    wrong += [
        f"{page.name} follows no English page"
        for page in pages(root)
        if is_french(page) and page.path not in followed
    ]
    return wrong


def _links(root: Path, english: Page, french: Page) -> Iterator[str]:
    """Links that leave French although there is a French page."""
    for link in french.links:
        linked = (french.path.parent / link.partition("#")[0]).resolve()
        if linked == english.path.resolve() or not linked.is_relative_to(root.resolve()):
            continue
        own = french_path(linked.relative_to(root.resolve()).as_posix())
        if own is not None and (root / own).exists():
            yield f"links to {link}, and there is {own}"


def _of_page(english: Page, french: Page) -> Iterator[str]:
    yield from _structure(english, french)
    if [section.level for section in english.sections] == [s.level for s in french.sections]:
        for original, translated in zip(english.sections, french.sections, strict=True):
            yield from _of_section(original, translated)
    codes = [(block.language, block.text) for block in english.blocks]
    for block in french.blocks:
        if (block.language, block.text) not in codes:
            yield f"the block at line {block.line} is not in {english.name}"
    if len(codes) != len(french.blocks):
        yield f"{len(french.blocks)} blocks of code, and {english.name} has {len(codes)}"


def _structure(english: Page, french: Page) -> Iterator[str]:
    """Sections that one of the two does not have, found by the digests and by their places."""
    originals = {digest(section): section for section in english.sections}
    seen = {stamp[0] for section in french.sections if (stamp := stamp_of(section))}
    if len(english.sections) > len(french.sections):
        for mark, section in originals.items():
            if mark not in seen:
                yield f"the section {section.title!r} of {english.name} is missing"
    if len(english.sections) < len(french.sections):
        for section in french.sections:
            found = stamp_of(section)
            if found is None or found[0] not in originals:
                yield f"the section {section.title!r} follows none of {english.name}"


def _of_section(original: Section, translated: Section) -> Iterator[str]:
    stamp = stamp_of(translated)
    if stamp is None:
        yield f"{translated.title!r} has no stamp"
        return
    if stamp[0] != digest(original):
        yield f"{translated.title!r} is stale: {original.title!r} has changed in English"
    if stamp[1] != digest(translated):
        yield f"{translated.title!r} was edited after its stamp: compare, and stamp it again"


def digest(section: Section) -> str:
    """Of what a section says: without its stamp, and without regard to how lines are broken."""
    words = [section.title]
    for line in section.lines:
        if not STAMP.match(line):
            words += line.split()
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:8]


def stamp_of(section: Section) -> tuple[str, str] | None:
    """The digests below a heading, of the English section and of its own; None without any."""
    found = STAMP.match(section.lines[0]) if section.lines else None
    return (found[1], found[2]) if found else None


def stamp(root: Path, path: Path) -> None:
    """Write into a French page that each of its sections is right as it stands.

    :raises ValueError: if it has other sections than the English page.
    """
    french = Page(root, path)
    english = next((page for page, own in pairs(root) if own == path), None)
    if english is None:
        raise ValueError(f"{french.name} follows no English page")
    if [s.level for s in english.sections] != [s.level for s in french.sections]:
        raise ValueError(
            f"{french.name} has {len(french.sections)} sections and {english.name} "
            f"{len(english.sections)}: they must be the same, level by level"
        )
    written = [*french.text[: french.text.index("# ")].splitlines()]
    for original, translated in zip(english.sections, french.sections, strict=True):
        lines = [line for line in translated.lines if not STAMP.match(line)]
        written += [
            f"{'#' * translated.level} {translated.title}",
            f"<!-- en:{digest(original)} fr:{digest(translated)} -->",
            *([] if not lines or not lines[0].strip() else [""]),
            *lines,
        ]
    path.write_text("\n".join(written).rstrip("\n") + "\n", "utf-8")


def main(arguments: list[str]) -> int:
    """The command: 0 if all is right, 1 if something is stale, 2 for what cannot be stamped."""
    if arguments[:1] == ["--stamp"]:
        for name in arguments[1:]:
            try:
                stamp(_ROOT, (_ROOT / name).resolve())
            except ValueError as error:
                print(error)
                return 2
            print(f"stamped {name}")
        return 0
    wrong = faults(_ROOT)
    print(*wrong, *(f"{name} has no French page" for name in missing(_ROOT)), sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
