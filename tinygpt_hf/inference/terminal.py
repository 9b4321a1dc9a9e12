"""What a model says never drives the terminal: every character that could is shown as a visible sign instead.

    safe_text("\\x1b[31mred\\x07")     # '␛[31mred␇': nothing turns red, nothing beeps

The filter looks at one character at a time and keeps no memory. A control sequence acts only through its first
character (ESC, or a C1 control standing for ESC and a letter), and that character never passes; so a sequence cut
across the pieces of a stream is disarmed wherever the cut lies. Newline and tab pass; bidirectional overrides, which
make text read otherwise than it is stored, do not.

    explained(" kitten", 5.2, color=False)   # ' kitten₅': a token and what it cost
"""

import bisect
import io
import os
import re

_PICTURES = 0x2400  # U+2400.. are pictures of the control characters 0..31

_TABLE: dict[int, str] = {code: chr(_PICTURES + code) for code in range(0x20) if chr(code) not in "\n\t"}
_TABLE[0x7F] = "\u2421"  # the picture of DEL
_TABLE |= dict.fromkeys(range(0x80, 0xA0), "\ufffd")  # C1: CSI, OSC, DCS and friends as single characters
_TABLE |= dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x2070)], "\ufffd")  # bidi overrides, old and new
_TABLE |= dict.fromkeys([0x061C, 0x200E, 0x200F], "")  # bidi marks: invisible, and honest text has them
_TABLE |= dict.fromkeys([0x2028, 0x2029], "\n")  # line and paragraph separators
_TABLE |= dict.fromkeys(range(0xD800, 0xE000), "\ufffd")  # half characters, which no stream can encode


def safe_text(text: str) -> str:
    """`text` with every character that could drive a terminal replaced by a visible sign."""
    return text.translate(_TABLE)


SHADES = (
    None,
    230,
    223,
    216,
    209,
    203,
)  # of 256 colors, pale to red, with black letters: they read on dark and on light
SHADE_FROM = (0, 1, 2, 4, 6, 8)  # bits
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
NOTE = "the number below a token is its surprisal in bits, where it is 1 or more"


class Explainer:
    """Show tokens as they come, `explained`: a character of several tokens, with what they cost together, at the last."""

    def __init__(self, color: bool):
        self._color, self._bits = color, 0.0

    def add(self, text: str, bits: float) -> str:
        """Show what became visible with one more token."""
        self._bits += bits
        if not text:
            return ""
        shown, self._bits = explained(text, self._bits, self._color), 0.0
        return shown


def wrapped(text: str, width: int) -> list[str]:
    """Break a text into lines of at most so many columns of a terminal, between words where there are any."""
    from rich.console import Console
    from rich.text import Text

    lines = Text(text).wrap(Console(file=io.StringIO(), width=width, _environ={}), width)
    return [line.plain.rstrip() for line in lines] or [""]


def fitted(line: str, width: int) -> str:
    """Break a line that is too long for a terminal; what stands in its second column goes on in that column."""
    from rich.cells import cell_len

    if cell_len(line) <= width:
        return line
    first = re.match(r".{1,24}? {2,}", line)
    indent = first.end() if first and first.end() <= width // 2 else 0
    return line[:indent] + f"\n{'':{indent}}".join(wrapped(line[indent:], width - indent))


def takes_color(stream) -> bool:
    """Tell whether a stream shows color: a terminal that is not dumb, of somebody who did not ask for none."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def explained(text: str, bits: float | None, color: bool) -> str:
    """Show a token as safe text with its surprisal: in whole bits behind it from 1 bit on, and in color the more, the redder."""
    text = safe_text(text)
    if bits is None or bits < 1:
        return text
    words, ends = text.rstrip("\n"), len(text) - len(text.rstrip("\n"))
    words += "↵" * ends + str(int(bits)).translate(SUBSCRIPTS)
    if color:
        begin = f"\x1b[38;5;16;48;5;{SHADES[bisect.bisect_right(SHADE_FROM, bits) - 1]}m"
        # a space before a word is not shaded: a line may end there
        lines = [(len(line) - len(line.lstrip(" ")), line) for line in words.split("\n")]
        words = "\n".join(f"{line[:lead]}{begin}{line[lead:]}\x1b[0m" for lead, line in lines)
    return words + "\n" * ends
