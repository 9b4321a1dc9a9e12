"""Print model output on a terminal: replace control characters, mark tokens with their surprisal, wrap lines.

    safe_text("\\x1b[31mred\\x07")             # '␛[31mred␇': no color, no beep
    explained(" kitten", 5.2, color=False)   # ' kitten₅': a token with its surprisal in bits

The filter replaces single characters and keeps no state. Every control sequence begins with ESC or a C1 control, which
is always replaced. So a sequence that is split between pieces of a stream has no effect either. Newlines and tabs pass.
Bidirectional overrides are replaced, since they change the order in which text is displayed.
"""

import bisect
import io
import os
import re

_PICTURES = 0x2400  # U+2400.. are symbols for the control characters 0..31

_TABLE: dict[int, str] = {code: chr(_PICTURES + code) for code in range(0x20) if chr(code) not in "\n\t"}
_TABLE[0x7F] = "\u2421"  # the symbol for DEL
_TABLE |= dict.fromkeys(range(0x80, 0xA0), "\ufffd")  # C1: single-character CSI, OSC, DCS and others
_TABLE |= dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x2070)], "\ufffd")  # bidi overrides and isolates
_TABLE |= dict.fromkeys([0x061C, 0x200E, 0x200F], "")  # bidi marks: invisible, common in ordinary text
_TABLE |= dict.fromkeys([0x2028, 0x2029], "\n")  # line and paragraph separators
_TABLE |= dict.fromkeys(range(0xD800, 0xE000), "\ufffd")  # unpaired surrogates, which cannot be encoded


def safe_text(text: str) -> str:
    """Replace every character that could control a terminal by a visible symbol."""
    return text.translate(_TABLE)


# Background colors of the 256-color palette, from pale to red, each from a number of bits on. The text on them is black.
SHADES = (None, 230, 223, 216, 209, 203)
SHADE_FROM = (0, 1, 2, 4, 6, 8)
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
NOTE = "the number below a token is its surprisal in bits, where it is 1 or more"


class Explainer:
    """A stream of tokens marked with their surprisal. A character made of several tokens gets their sum."""

    def __init__(self, color: bool):
        self._color, self._bits = color, 0.0

    def add(self, text: str, bits: float) -> str:
        """Return the marked text that became final with one more token."""
        self._bits += bits
        if not text:
            return ""
        shown, self._bits = explained(text, self._bits, self._color), 0.0
        return shown


def wrapped(text: str, width: int) -> list[str]:
    """Wrap a text into lines of at most `width` terminal columns, at spaces where possible."""
    from rich.console import Console
    from rich.text import Text

    lines = Text(text).wrap(Console(file=io.StringIO(), width=width, _environ={}), width)
    return [line.plain.rstrip() for line in lines] or [""]


def fitted(line: str, width: int) -> str:
    """Wrap a line that is too long for a terminal; text after a gap of two spaces is indented to that column."""
    from rich.cells import cell_len

    if cell_len(line) <= width:
        return line
    first = re.match(r".{1,24}? {2,}", line)
    indent = first.end() if first and first.end() <= width // 2 else 0
    return line[:indent] + f"\n{'':{indent}}".join(wrapped(line[indent:], width - indent))


def takes_color(stream) -> bool:
    """Tell whether a stream is a terminal with color: TERM is not "dumb" and NO_COLOR is not set."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def explained(text: str, bits: float | None, color: bool) -> str:
    """Return a token as safe text, followed by its surprisal in whole bits if that is 1 or more, and shaded with `color`."""
    text = safe_text(text)
    if bits is None or bits < 1:
        return text
    words = text.rstrip("\n")
    newlines = len(text) - len(words)
    words += "↵" * newlines + str(int(bits)).translate(SUBSCRIPTS)
    if color:
        shade = f"\x1b[38;5;16;48;5;{SHADES[bisect.bisect_right(SHADE_FROM, bits) - 1]}m"
        # leading spaces are not shaded, since a line may be wrapped there
        lines = [(len(line) - len(line.lstrip(" ")), line) for line in words.split("\n")]
        words = "\n".join(f"{line[:lead]}{shade}{line[lead:]}\x1b[0m" for lead, line in lines)
    return words + "\n" * newlines
