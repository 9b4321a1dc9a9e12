"""Find personal data in text by pattern (e-mail, card, IP, phone, secret key), and mask it.

find_personal_data("mail anna@example.org")              # [(5, 21, "email")]
mask_personal_data("mail anna@example.org", ["email"])    # "mail <email>"

Patterns are not proof: a version number may look like an IP address, and names are not found at all. Sources: e-mail and
public IP addresses as in FineWeb (Penedo et al. 2024), card numbers by their check digit (Luhn, ISO/IEC 7812), keys by their
documented prefixes.
"""

import ipaddress
import re
from collections.abc import Collection

from tinygpt_hf.errors import KEYS

# Latin, Greek and Cyrillic beyond ASCII; no Han, since Chinese text has no space before an address
_LETTERS = "\u00c0-\u024f\u0300-\u036f\u0370-\u052f"
_DOUBLED = [0, 2, 4, 6, 8, 1, 3, 5, 7, 9]  # digit sum of twice the digit
_PATTERNS = {
    "key": (
        rf"(?<![A-Za-z0-9])(?:{'|'.join(f'(?:{beginning}){rest}' for beginning, rest in KEYS)})"
        r"|-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[^-]*(?:-----END [A-Z ]{0,40}PRIVATE KEY-----)?"
    ),
    "email": (
        rf"(?<![A-Za-z0-9._%+{_LETTERS}-])[A-Za-z0-9._%+{_LETTERS}-]{{1,64}}@"
        rf"(?:[A-Za-z0-9{_LETTERS}-]{{1,63}}\.){{1,8}}[A-Za-z{_LETTERS}]{{2,24}}(?![A-Za-z0-9])"
    ),
    "card": r"(?<![\w.-])[2-6]\d{3}(?:[ -]?\d){9,15}(?![\w-])",
    "ip": (
        r"(?<![\w.:])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\d)"
        r"|(?<![\w.:])[23][0-9A-Fa-f]{3}(?:::?[0-9A-Fa-f]{1,4}){1,7}(?![\w:])"  # all public ones: 2000::/3, RFC 4291
    ),
    "phone": (
        r"(?<![\w.+])\+\d{1,3}(?:[ .-]?\(\d{1,4}\))?(?:[ .-]?\d{2,5}){2,5}(?!\w)"
        r"|(?<![\w.-])(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[.-])[2-9]\d\d[.-]\d{4}(?![\w-])"
    ),
}
_ANY = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _PATTERNS.items()), re.ASCII)
_HINT = re.compile(
    r"\d[\d.:]|@|PRIVATE KEY|eyJ|sk-|k_live_|k_test_|hf_|gh[pousr]_|npm_|github_pat_|glpat-|AIza|AKIA|ASIA|xox",
    re.ASCII,
)


def find_personal_data(text: str) -> list[tuple[int, int, str]]:
    """Return (start, end, kind) of each match, in order and without overlaps."""
    matches: list[tuple[int, int, str]] = []
    if not _HINT.search(text):
        return matches
    start = 0
    while match := _ANY.search(text, start):
        if _is_valid(match.lastgroup, match[0]):
            matches.append((match.start(), match.end(), match.lastgroup))
            start = match.end()
        else:
            start = match.start() + 1
    return matches


def mask_personal_data(text: str, kinds: Collection[str], matches: list[tuple[int, int, str]] | None = None) -> str:
    """Replace each match of the given kinds by `<kind>`."""
    pieces, done = [], 0
    for start, end, kind in find_personal_data(text) if matches is None else matches:
        if kind in kinds:
            pieces += [text[done:start], f"<{kind}>"]
            done = end
    return "".join([*pieces, text[done:]])


def luhn(digits: str) -> bool:
    """Check a card number with the Luhn algorithm: every second digit from the right is doubled."""
    values = [*map(int, reversed(digits))]
    return (sum(values[::2]) + sum(_DOUBLED[value] for value in values[1::2])) % 10 == 0


def _is_valid(kind: str, words: str) -> bool:
    if kind == "card":
        return luhn(words.replace(" ", "").replace("-", ""))
    if kind == "phone":
        return 8 <= len(re.sub(r"\D", "", words)) <= 15
    if kind == "ip":
        try:
            return ipaddress.ip_address(words).is_global
        except ValueError:
            return False
    return True
