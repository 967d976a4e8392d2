"""What must be so of the documents. Each check goes over a folder, and returns what is wrong there.

A test of a check plants a fault in a copy of the documents, and the check must name it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from itertools import takewhile
from pathlib import Path

from tests.docs.known import (
    HANDING_ON,
    OF_FLASK,
    OPTIONS_OF_OTHERS,
    Commands,
    Known,
    command_in,
)
from tests.docs.markdown import Page, is_french, pages
from tests.server import ROOT

#: README is read by who wants to try it.
README_LINES = 250
#: Readers need not write types into their own functions; what is in these is checked. It stands in
#: each file: as an option of the run, it would make mypy's cache of all our modules worthless.
USERS_NEED_NOT = (
    "# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls\n"
    "# mypy: allow-subclassing-any\n"
)
#: The history names what there was.
_HISTORY = "CHANGELOG.md"
#: Languages of blocks, so that a new one is a decision.
LANGUAGES = frozenset(
    {"sh", "env", "python", "text", "sql", "html", "ini", "toml", "yaml", "json"}
    | {"dockerfile", "procfile", "caddy", "nginx"}
)
#: Where paths in documents may begin, beside the project's folder.
_ROOMS = (
    *("receiver", "receiver/store", "receiver/web", "receiver/web/dashboard"),
    *("receiver/providers", "tests"),
)
#: Other files of ours that send their readers to a page.
_SENDING = ("*", "deploy/*", "receiver/**/*.*", "handlers/*.py", "examples/**/*.*", "benchmarks/*")
_PAGE = re.compile(r"\bdocs/[\w./-]+\.(?:md|yaml|json|png)\b")
_FILE = re.compile(r"(?:[a-z_][\w-]*/)+(?:[a-z_][\w-]*/|[\w-]+\.(?:py|md|yaml|json|txt))")
#: Words before our commands in a shell.
_PROGRAM = r"(?:[\w./]*venv/bin/)?(flask(?: zimsend)?|zimsend-receiver)"
_COMMAND = re.compile(rf"(?<![\w/.-]){_PROGRAM}((?: +[^\s|&;)]+)*)")
_CAPITALS = re.compile(r"(?<![\w$/.-])[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+(?![\w-])")
_ASSIGNED = re.compile(r"(?<![\w?&-])([A-Z][A-Z0-9_]{2,})=")


def dead_links(root: Path) -> list[str]:
    """Links to files that are not there, and to anchors that a page does not have."""
    by_path = {page.path: page for page in pages(root)}
    wrong = []
    for page in by_path.values():
        for target in page.links:
            if re.match(r"(https?|mailto):", target):
                continue
            file, _, anchor = target.partition("#")
            linked = (page.path.parent / file).resolve() if file else page.path
            if not linked.exists() or not linked.is_relative_to(root.resolve()):
                wrong.append(f"{page.name} links to {target}, which is not there")
            elif anchor and (linked not in by_path or anchor not in by_path[linked].anchors):
                wrong.append(f"{page.name} links to {target}, an anchor that is not there")
    return wrong


def not_in_the_index(root: Path) -> list[str]:
    """Pages that docs/README.md does not lead to; the French ones have an index of their own."""
    wrong = []
    for index in ("docs/README.md", "docs/fr/README.md"):
        page = Page(root, root / index)
        linked = {(page.path.parent / link.partition("#")[0]).resolve() for link in page.links}
        wrong += [
            f"{index} does not lead to {below.name}"
            for below in pages(root)
            if below.name.startswith("docs/")
            and below.name != index
            and is_french(below) == is_french(page)
            and below.path.resolve() not in linked
        ]
    return wrong


def _code(page: Page, *but: str) -> Iterator[str]:
    """Each piece of code; of a block each line, unless its language is one of `but`."""
    yield from page.spans
    for block in page.blocks:
        if block.language not in but:
            yield from block.text.replace("\\\n", " ").splitlines()


def unknown_settings(root: Path, known: Known) -> list[str]:
    """Variables that are set, and names in capitals, that nothing has."""
    wrong = []
    for page in pages(root):
        if page.name == _HISTORY:
            continue
        for code in _code(page):
            assigned = set(_ASSIGNED.findall(code))
            unknown = {name for name in assigned if not known.is_variable(name)}
            unknown |= {
                name for name in {*_CAPITALS.findall(code)} - assigned if not known.is_name(name)
            }
            wrong += [f"{page.name} names {name}, which is no setting" for name in sorted(unknown)]
    return wrong


def unknown_commands(root: Path, known: Known) -> list[str]:
    """Commands, options and targets of make that there are not."""
    every_option = frozenset().union(*known.package.values()) | OPTIONS_OF_OTHERS
    wrong = []
    for page in pages(root):
        if page.name == _HISTORY:
            continue
        for code in _code(page, "python"):
            for program, arguments in _COMMAND.findall(code):
                commands = known.package if program == "zimsend-receiver" else known.flask
                told = _misused(arguments, commands)
                wrong += [f"{page.name}: {program}: {misuse}" for misuse in told]
            for target in re.findall(r"(?<![\w-])make ([a-z][a-z-]*)", code):
                if target not in known.targets:
                    wrong.append(f"{page.name}: make {target} is no target")
        for span in page.spans:
            if span.startswith("--") and (option := re.split(r"[ =]", span)[0]) not in every_option:
                wrong.append(f"{page.name}: {option} is an option of no command")
    return wrong


def _misused(arguments: str, commands: Commands) -> Iterator[str]:
    """What is wrong with what stands behind `flask`, or behind the package's command."""
    words = arguments.replace("[", " ").replace("]", " ").split()
    names = [*takewhile(re.compile(r"[a-z][a-z-]*").fullmatch, words[:2])]
    if not names or names[0] in OF_FLASK:
        return
    command = command_in(names, commands)
    if command is None:
        yield f"{' '.join(names)} is no command"
    elif command not in HANDING_ON:
        for word in takewhile(lambda word: word != "#", words):
            option = word.partition("=")[0]
            if option.startswith("--") and option not in {*commands.get(command, ()), "--help"}:
                yield f"{command} has no option {option}"


def blocks_of_no_language(root: Path) -> list[str]:
    """Blocks that do not say what they are, so that nobody knows how to check them."""
    return [
        f"{page.name}:{block.line} has a block of {block.language or 'no language'}"
        for page in pages(root)
        for block in page.blocks
        if block.language not in LANGUAGES
    ]


def unknown_files(root: Path) -> list[str]:
    """Files that are named as code, from the project's folder or a room's, and are not there."""
    wrong = []
    for page in pages(root):
        if page.name == _HISTORY:
            continue
        for span in page.spans:
            if _FILE.fullmatch(span):
                rooms = (ROOT, *(ROOT / folder for folder in _ROOMS), page.path.parent)
                if not any((room / span).exists() for room in rooms):
                    wrong.append(f"{page.name} names {span}, which is not there")
    return wrong


def unknown_pages(root: Path) -> list[str]:
    """Pages that code and settings for servers name, and that are not there."""
    wrong = []
    for path in sorted({path for pattern in _SENDING for path in root.glob(pattern)}):
        if path.is_file() and path.suffix not in (".md", ".db", ".pyc"):
            for named in _PAGE.findall(path.read_text("utf-8", "replace")):
                if not (root / named).exists():
                    wrong.append(f"{path.relative_to(root)} names {named}, which is not there")
    return wrong


def wrongly_indented_blocks(root: Path) -> list[str]:
    """Blocks in lists by less than four blanks, where some readers of Markdown end the list."""
    return [
        f"{page.name}: a block is indented by {len(line) - len(line.lstrip())} blanks, not by 4"
        for page in pages(root)
        for line in page.text.splitlines()
        if re.match(r" {1,3}```\w", line)
    ]


def broken_shell(root: Path) -> list[str]:
    """Blocks of shell that no shell reads. What stands for something of yours is in capitals."""
    wrong = []
    for page in pages(root):
        for block in page.blocks:
            if block.language == "sh":
                told = _told_by_bash(block.text)
                if told:
                    wrong.append(f"{page.name}:{block.line} {told}")
    return wrong


@cache
def _told_by_bash(text: str) -> str:
    """What is wrong with a block: nothing, most often. The French page has the same ones."""
    read = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    return read.stderr.strip() if read.returncode else ""


def broken_python(root: Path, folder: Path) -> list[str]:
    """Blocks of Python that do not compile, or that mypy finds fault with, in one run for all.

    :param folder: an empty one, for the files that mypy reads.
    """
    wrong, names, modules = [], {}, set()
    for page in pages(root):
        if is_french(page):
            continue  # its code is that of the English page
        modules |= {f'"{name}"' for name in re.findall(r"^# (\w+)\.py$", page.text, re.MULTILINE)}
        for block in page.blocks:
            if block.language != "python":
                continue
            place = f"{page.name}:{block.line}"
            try:
                compile(block.text, place, "exec")
            except SyntaxError as error:
                wrong.append(f"{place} {error.msg}")
                continue
            name = f"block_{len(names)}.py"
            (folder / name).write_text(block.text + USERS_NEED_NOT)
            names[name] = place
    told = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--no-error-summary"),
            *(str(folder / name) for name in names),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    for line in told.stdout.splitlines():
        file, _, rest = line.partition(":")
        if "import-not-found" in rest and any(name in rest for name in (*modules, '"shop.')):
            continue  # another block, or the reader's program, is this module
        if ": note: " in rest:
            continue  # a hint behind an error
        wrong.append(f"{names.get(Path(file).name, file)} {rest}")
    return wrong + told.stderr.splitlines()


def too_long(root: Path) -> list[str]:
    """README, beyond two screens of what one has to read."""
    return [
        f"{name} has {lines} lines, and may have {README_LINES}"
        for name in ("README.md", "README.fr.md")
        if (root / name).exists()
        and (lines := len((root / name).read_text().splitlines())) > README_LINES
    ]


def repeated_sentences(root: Path) -> list[str]:
    """Sentences of seven words or more that stand in two places of one language."""
    places: dict[tuple[bool, str], list[str]] = defaultdict(list)
    for page in pages(root):
        if page.name != _HISTORY:
            for sentence in _sentences(page):
                places[is_french(page), sentence].append(page.name)
    return [
        f"{' and '.join(names)}: {sentence}"
        for (_, sentence), names in places.items()
        if len(names) > 1
    ]


def _sentences(page: Page) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n|^\s*[-*|#] ?|\|", page.prose, flags=re.MULTILINE):
        plain = re.sub(r"\]\([^)]*\)", "", paragraph).replace("[", "").replace("**", "")
        for sentence in re.split(r"(?<=[.:!?])\s+", " ".join(plain.split())):
            if len(sentence.split()) >= 7 and sentence[-1] in ".:?!":
                yield sentence


def broken_spans(root: Path) -> list[str]:
    """Code that is broken over two lines: it cannot be searched for, nor copied."""
    return [
        f"{page.name}: `{span}`"
        for page in pages(root)
        for span in page.raw_spans
        if page.name != _HISTORY and "\n" in span
    ]
