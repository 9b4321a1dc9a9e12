"""Convert a command line word, a YAML value or a Python value to the type of a setting's field.

convert("3e-4", float, "--learning_rate")        # 0.0003
convert("fast", float, "--learning_rate")        # UsageError: --learning_rate is 'fast' (expected a number). ...
convert("~/x", PathText, "--output_dir")         # x in your home folder
"""

import contextlib
import dataclasses
import difflib
import json
import math
import os
import re
import types
import typing

from tinygpt_hf.errors import UsageError

MAX_INTEGER = 2**63 - 1  # the limit of the libraries used
POWER = re.compile(r"-?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+")
VARIABLE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})")
DURATION = re.compile(r"(\d+(?:\.\d+)?h)?(\d+(?:\.\d+)?m)?(\d+(?:\.\d+)?s)?", re.ASCII)
BOOLEANS = dict.fromkeys(("true", "yes", "1", "on"), True) | dict.fromkeys(("false", "no", "0", "off"), False)


def seconds_of(duration: str) -> float | None:
    """Return the seconds of a duration such as 90s, 8m or 1h30m, or None if it is not one."""
    parts = DURATION.fullmatch(duration.strip().lower())
    if parts is None:
        return None
    return sum(float(part[:-1]) * {"h": 3600, "m": 60, "s": 1}[part[-1]] for part in parts.groups() if part)


def shown(value) -> str:
    """Return the repr of a value for an error message, cut after 100 characters."""
    return words if len(words := repr(value)) <= 100 else f"{words[:100]}…"


def base_type(annotation) -> tuple[type, object]:
    """Split an annotation: (int | None) -> (int, int); list[str] -> (list, list[str]); Literal[...] -> (Literal, ...)."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
    origin = typing.get_origin(annotation)
    return (origin or annotation), annotation


def choices_of(annotation) -> list[str]:
    """Return the literal words of an annotation: (float | Literal["off"] | None) -> ["off"]."""
    parts = (annotation, *typing.get_args(annotation))
    return [word for part in parts if typing.get_origin(part) is typing.Literal for word in typing.get_args(part)]


def convert(raw, annotation, where: str):
    """Convert a YAML value or a command line word to the type of a field. Raises UsageError if that is impossible."""
    optional = type(None) in typing.get_args(annotation)
    kind, inner = base_type(annotation)
    if optional and (raw is None or (isinstance(raw, str) and raw.lower() in ("none", "null"))):
        return None
    choices = choices_of(annotation)
    if raw is None:
        expected = (
            f"one of {', '.join(choices)}" if kind is typing.Literal else getattr(inner, "__origin__", kind).__name__
        )
        raise UsageError(f"{where} is empty", expected, "give a value or remove it")
    if choices and isinstance(raw, bool):  # YAML reads a bare `no` or `off` as false
        raw = next((word for word in choices if word == ("on" if raw else "off")), "true" if raw else "no")
    if raw in choices:
        return raw
    if kind is bool and str(raw).lower() in BOOLEANS:
        return BOOLEANS[str(raw).lower()]
    if kind in (bool, typing.Literal):
        words = ["true", "false", *choices] if kind is bool else choices
        close = difflib.get_close_matches(str(raw), words, n=1)
        hint = f"did you mean {close[0]}?" if close else "choose one of them"
        raise UsageError(f"{where} is {shown(raw)}", f"one of {', '.join(words)}", hint)
    if kind is list:
        (entry,) = typing.get_args(inner)
        items = raw if isinstance(raw, list) else [raw]
        if entry is dict and len(items) == 1 and isinstance(items[0], str) and items[0].startswith("["):
            items = _json(items[0])
        return [_mapping(item, where) if entry is dict else convert(item, entry, where) for item in items]
    if kind is dict:
        return _numbers(_mapping(raw, where))
    if isinstance(raw, (list, dict)):
        raise UsageError(f"{where} is {shown(raw)}", f"one {kind.__name__}", "give a single value")
    if kind in (int, float):
        return _number(raw, kind, where)
    if isinstance(raw, (bool, float)):  # YAML has converted a bare `no` or `1.10` already
        raise UsageError(f"{where} is {str(raw).lower()}", "text", "put it in quotes")
    text = raw if isinstance(raw, str) else str(raw)
    return expanded(text, where) if kind is typing.Annotated else text


def translated_value(raw, field: dataclasses.Field):
    """Translate a value that other trainers name differently (`setting(..., means=...)`); others are unchanged."""
    means = field.metadata.get("means", {})
    return means.get(str(raw).lower(), raw) if isinstance(raw, (str, int)) else raw


def expanded(path: str, where: str) -> str:
    """Expand `~`, `$NAME` and `${NAME}` in a path; URLs are unchanged.

    Raises UsageError for a variable that is not set, unless a file of that name exists.
    """
    if "://" in path:
        return path
    home, rest = re.match(r"(~[\w.-]*(?=/|\Z))?(.*)", path, re.DOTALL).groups("")
    home = os.path.expanduser(home)

    def value(match: re.Match) -> str:
        name = match[1] or match[2]
        end = rest.find("/", match.end())
        if name not in os.environ and not os.path.lexists(home + rest[: end if end >= 0 else None]):
            raise UsageError(
                f"{where} names ${name}, which is not set",
                "variables that are set",
                f"set {name}, or write the path out",
            )
        return os.environ.get(name, match[0])

    text = home + VARIABLE.sub(value, rest)
    return path if text == path else text  # keeps a str subclass with text from Python (python_text.py)


def check_types(group) -> list[UsageError]:
    """Convert every field of a dataclass instance to its type in place, and return the errors.

    A `Path` becomes a string, and a single value becomes a list where one is expected.
    """
    errors = []
    for field in dataclasses.fields(group):
        value = getattr(group, field.name)
        try:
            value = translated_value(_plain(value), field)
            setattr(group, field.name, _typed(value, field.type, f"--{field.name}"))
        except UsageError as error:
            errors.append(error)
    return errors


def _typed(value, annotation, where: str):
    """Convert a Python value to the type of a field, as `convert` does; text fields take only strings, unchanged."""
    kind, inner = base_type(annotation)
    if value is not None and kind is list and (entry := typing.get_args(inner)[0]) is not dict:
        return [_typed(item, entry, where) for item in (value if isinstance(value, list) else [value])]
    if value is not None and kind in (str, typing.Annotated):
        if not isinstance(value, str):
            raise UsageError(f"{where} is {shown(value)}", "text", "put it in quotes")
        return value if kind is str else expanded(value, where)
    return convert(value, annotation, where)


def _plain(value):
    """Replace paths by strings and tuples by lists, also inside lists and dicts."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _mapping(raw, where: str) -> dict:
    raw = _json(raw) if isinstance(raw, str) else raw
    if not isinstance(raw, dict):
        raise UsageError(f"{where} is {shown(raw)}", "a mapping (JSON on the command line)", "try '{\"a\": 1}'")
    return raw


def _json(word: str):
    """Parse a command line word as JSON, or return it unchanged."""
    try:
        return json.loads(word)
    except (ValueError, RecursionError):
        return word


def _numbers(value):
    """Convert strings such as `1e6` inside a mapping to floats, since PyYAML reads them as strings."""
    if isinstance(value, dict):
        return {name: _numbers(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_numbers(inner) for inner in value]
    return float(value) if isinstance(value, str) and POWER.fullmatch(value) else value


def _number(raw, kind: type, where: str):
    expected = "a whole number" if kind is int else "a number"
    number: int | float = math.nan
    if not isinstance(raw, bool):
        with contextlib.suppress(ValueError):
            number = float(str(raw))
        if kind is int and not isinstance(raw, float):
            with contextlib.suppress(ValueError):
                number = int(str(raw))
    if isinstance(number, float) and not math.isfinite(number):
        raise UsageError(f"{where} is {shown(raw)}", expected, "try 3e-4, 0.1 or 1000")
    if kind is float:
        return number
    if number != int(number):
        raise UsageError(f"{where} is {shown(raw)}", expected, f"try {round(number)}")
    if abs(number) > MAX_INTEGER:
        raise UsageError(f"{where} is {shown(raw)}", f"{expected} up to {MAX_INTEGER}", "give a smaller one")
    return int(number)
