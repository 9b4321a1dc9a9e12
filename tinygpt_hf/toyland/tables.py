"""Read the tables in `data/*.txt` from which toyland is generated. All files have one plain-text format:

    # a comment
    [section]
    key: value
        an indented line continues the previous one

Some sections have lines without keys. Spaces separate words, " | " separates phrases and sentences. A question with its
answer is one line, in which the kind, the part between / and ->, and the brackets are optional:

    kind: question / the question as a clause -> answer [phrase of a right answer; another phrase]

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
    """A question and its answer, as texts, frames or templates."""

    kind: str
    question: Any
    clause: Any  # the question as part of a sentence
    answer: Any
    accept: tuple  # a right answer contains one of these

    def filled(self, values: dict[str, str]) -> "Exchange":
        """Fill the {placeholders} of a template; the answer is capitalized."""
        question, clause, answer, *accept = [text.format_map(values) for text in (*self[1:4], *self.accept)]
        return Exchange(self.kind, question, clause, answer[0].upper() + answer[1:], tuple(accept))


def exchange(line: str, kind: str = "") -> Exchange:
    """Parse one line with a question. Without brackets, a right answer must contain the whole answer."""
    named, question, clause, answer, accept = EXCHANGE.fullmatch(line).groups()
    return Exchange(named or kind, question, clause or "", answer, tuple((accept or answer.rstrip(".")).split("; ")))


def parsed(text: str) -> dict[str, list[str]]:
    """Parse a table into section -> lines; raise a ValueError if a section is repeated."""
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
    """Read `data/<name>.txt`."""
    return parsed((DATA / f"{name}.txt").read_text(encoding="utf-8"))


def entries(name: str, section: str) -> list[tuple[str, str]]:
    """Return the (key, value) lines of a section."""
    return [(key, value) for key, value in (line.split(": ", 1) for line in table(name)[section])]
