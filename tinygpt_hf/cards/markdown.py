"""Values in Markdown and YAML that cannot become anything else there: whatever a file, a dataset, a prompt or a sample is called.

A value stands in a code span, a code block, or a quoted YAML scalar: inside them there is no HTML, no link, no emphasis and no
end but the fence we choose, and `@user` or `www.` are plain characters. Values never stand in tables, where | would divide cells.
"""

import re

from tinygpt_hf.errors import presentable, printable, redacted

LONGEST_NAME = 200
LONGEST_BLOCK = 20_000
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9 _./-]*[A-Za-z0-9]")


def code(value) -> str:
    """A code span: one line, secrets hidden, what is not printable as an escape."""
    text = printable(_cut(redacted(str(value)), LONGEST_NAME)) or " "
    fence = "`" * (_longest_run(text) + 1)
    pad = " " if text[0] in "` " or text[-1] in "` " else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def block(text: str, language: str = "") -> str:
    """A code block: line ends stay, other control characters are written as escapes."""
    text = presentable(_cut(redacted(text), LONGEST_BLOCK).replace("\r\n", "\n"))
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def front_matter(data: dict) -> str:
    """The block of YAML that opens a card; `yaml.safe_load` gives `data` back. A text that is not plain is one quoted line."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data) -> bool:
            return True

    def represent(dumper, word: str):
        style = None if _PLAIN.fullmatch(word) else '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", word, style)

    Dumper.add_representer(str, represent)
    return f"---\n{yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=2**31)}---\n"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + "…"
