"""What a model says never drives the terminal: every character that could is shown as a visible sign instead.

    safe_text("\\x1b[31mred\\x07")     # '␛[31mred␇': nothing turns red, nothing beeps

The filter looks at one character at a time and keeps no memory. A control sequence acts only through its first
character (ESC, or a C1 control standing for ESC and a letter), and that character never passes; so a sequence cut
across the pieces of a stream is disarmed wherever the cut lies. Newline and tab pass; bidirectional overrides, which
make text read otherwise than it is stored, do not.
"""

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
