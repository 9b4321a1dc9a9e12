"""Read the tables of `data/*.txt`, from which all of toyland is made. Each file is plain text in one format:

    # a comment
    [section]
    key: value
        an indented line continues the one before

Some sections hold lines without a key. Spaces part single words, " | " parts phrases and sentences. What a person asks
is one line; the kind, the part between / and ->, and the brackets can be missing:

    kind: question / the same inside a sentence -> answer [what a right answer contains; or this]

>>> entries("words", "plurals")[0]
('mouse', 'mice')
"""

import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

DATA = Path(__file__).parent / "data"
EXCHANGE = re.compile(r"(?:(\w+): )?(.*?)(?: / (.*))? -> (.*?)(?: \[(.*)\])?")


class Exchange(NamedTuple):
    """One question and its answer, as texts, frames or templates."""

    kind: str
    question: Any
    clause: Any  # the question as part of a sentence
    answer: Any
    accept: tuple  # a right answer contains one of these

    def filled(self, values: dict[str, str]) -> "Exchange":
        """Put values into the {holes} of a template; the answer begins with a capital letter."""
        question, clause, answer, *accept = [text.format_map(values) for text in (*self[1:4], *self.accept)]
        return Exchange(self.kind, question, clause, answer[0].upper() + answer[1:], tuple(accept))


def exchange(line: str, kind: str = "") -> Exchange:
    """Read one line of what a person asks. Without brackets a right answer contains the whole answer."""
    named, question, clause, answer, accept = EXCHANGE.fullmatch(line).groups()
    return Exchange(named or kind, question, clause or "", answer, tuple((accept or answer.rstrip(".")).split("; ")))


def parsed(text: str) -> dict[str, list[str]]:
    """Read a table: section -> its lines. A section that stands twice raises ValueError."""
    sections: dict[str, list[str]] = {}
    for line in re.sub(r"\n +", " ", text).splitlines():
        if line.startswith("["):
            if line[1:-1] in sections:
                raise ValueError(f"section {line} stands twice")
            sections[line[1:-1]] = lines = []
        elif line and not line.startswith("#"):
            lines.append(line)
    return sections


@cache
def table(name: str) -> dict[str, list[str]]:
    """Read `data/<name>.txt` once."""
    return parsed((DATA / f"{name}.txt").read_text(encoding="utf-8"))


def entries(name: str, section: str) -> list[tuple[str, str]]:
    """List the (key, value) lines of a section."""
    return [(key, value) for key, value in (line.split(": ", 1) for line in table(name)[section])]
