"""The code that README, CONTRIBUTING and docs/ show: fenced blocks, the commands in them, and code in the prose."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))


@dataclass(frozen=True)
class Block:
    """A fenced block: its page and line, its language, its text, and the last file that the page named before it."""

    page: str
    line: int
    language: str
    text: str
    file: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str) -> Iterator[Block]:
    text = (ROOT / page).read_text()
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        named = re.findall(r"`([\w/]+\.\w+)`", text[: found.start()])
        yield Block(page, text.count("\n", 0, found.start()) + 2, found[1], found[2], named[-1] if named else "")


def spans(page: str) -> list[str]:
    """Code within the prose."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a shell text, without comments, variables before them, and the folder of the program."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("();<>|&"):
                if words:
                    yield [Path(words[0]).name, *words[1:]]
                words = []
            elif words or not re.fullmatch(r"\w+=.*", word):
                words.append(word)
