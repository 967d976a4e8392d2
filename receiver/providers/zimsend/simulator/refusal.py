"""What the simulated API says no with."""

from __future__ import annotations


class ApiRefusal(Exception):
    """An answer in ZimSend's error shape."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(code)
        self.status, self.code, self.message = status, code, message or code
