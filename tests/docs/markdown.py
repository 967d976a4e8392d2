"""The documents, read: pages with their sections, code, links and anchors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

_FENCE = re.compile(r"^( *)```(.*)$")
_HEADING = re.compile(r"^(#{1,6}) (.+)$")
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
#: A stamp of a translation, see `translations.py`.
STAMP = re.compile(r"^<!-- en:([0-9a-f]{8}) fr:([0-9a-f]{8}) -->$")


@dataclass(frozen=True)
class Block:
    """A block of code: what stands behind its fence, its text, the number of its first line."""

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Section:
    """A heading with all that stands below it, up to the next heading of any level."""

    level: int
    title: str
    lines: tuple[str, ...]


class Page:
    """One Markdown file.

    :param root: the folder that the project lies in; `name` is the path from there.
    """

    def __init__(self, root: Path, path: Path) -> None:
        self.root, self.path = root, path
        self.name = path.relative_to(root).as_posix()
        self.text = path.read_text("utf-8")

    @cached_property
    def _marked(self) -> list[tuple[str, bool]]:
        """Each line, and whether it is code; the fences are."""
        marked, inside = [], False
        for line in self.text.splitlines():
            fence = _FENCE.match(line) is not None
            marked.append((line, inside or fence))
            inside ^= fence
        return marked

    @cached_property
    def blocks(self) -> list[Block]:
        found, opened, lines = [], None, []
        for number, line in enumerate(self.text.splitlines(), 1):
            fence = _FENCE.match(line)
            if fence and opened is None:
                opened, lines = (number, *fence.groups()), []
            elif fence and opened is not None:
                start, indent, language = opened
                text = "".join(f"{one.removeprefix(str(indent))}\n" for one in lines)
                found.append(Block(str(language).strip(), text, int(start)))
                opened = None
            else:
                lines.append(line)
        return found

    @cached_property
    def prose(self) -> str:
        """All that is no block of code."""
        return "\n".join(line for line, is_code in self._marked if not is_code)

    @cached_property
    def raw_spans(self) -> list[str]:
        """What stands between backticks, with the lines' ends in it."""
        return _SPAN.findall(self.prose)

    @cached_property
    def spans(self) -> list[str]:
        return [" ".join(span.split()) for span in self.raw_spans]

    @cached_property
    def links(self) -> list[str]:
        prose = _SPAN.sub("", self.prose)
        return re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r'src="([^"]+)"', prose)

    @cached_property
    def sections(self) -> list[Section]:
        found: list[tuple[int, str, list[str]]] = []
        for line, is_code in self._marked:
            heading = None if is_code else _HEADING.match(line)
            if heading:
                found.append((len(heading[1]), heading[2], []))
            elif found:
                found[-1][2].append(line)
        return [Section(level, title, tuple(lines)) for level, title, lines in found]

    @cached_property
    def anchors(self) -> set[str]:
        """Where a link may lead to, as GitHub makes anchors of headings."""
        found: set[str] = set()
        for section in self.sections:
            anchor = re.sub(r"[^\w\- ]", "", section.title.lower()).replace(" ", "-")
            again = 0
            while (unique := f"{anchor}-{again}" if again else anchor) in found:
                again += 1
            found.add(unique)
        return found

    def section(self, title: str) -> str:
        """The text below a heading, up to the next one of its level or above."""
        for index, section in enumerate(self.sections):
            if section.title == title:
                below = [*section.lines]
                for later in self.sections[index + 1 :]:
                    if later.level <= section.level:
                        break
                    below += [f"{'#' * later.level} {later.title}", *later.lines]
                return "\n".join(below)
        raise AssertionError(f"{self.name} has no section {title!r}")

    def table(self, title: str = "") -> list[list[str]]:
        """The cells of the first table, of the page or of a section, without its head."""
        rows: list[list[str]] = []
        for line in (self.section(title) if title else self.text).splitlines():
            if line.startswith("|"):
                rows.append([cell.strip("| ") for cell in line.strip("|").split(" | ")])
            elif rows:
                break
        assert len(rows) > 2, f"{self.name} has no table {title!r}"
        return rows[2:]


def pages(root: Path) -> Iterator[Page]:
    """Every page of the project: those beside README, and all below docs/."""
    for path in sorted([*root.glob("*.md"), *root.glob("docs/**/*.md")]):
        yield Page(root, path)


def is_french(page: Page) -> bool:
    return page.name.startswith("docs/fr/") or page.name.endswith(".fr.md")
