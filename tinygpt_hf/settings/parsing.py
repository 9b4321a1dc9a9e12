"""YAML and flags -> dataclasses, through one converter (Python's values: checks.py); every problem reported at once.

settings = parse((ModelArguments, TrainingArguments), ["--config", "x.yaml", "--learning_rate", "3e-4"])
settings[TrainingArguments].learning_rate           # 0.0003; the file said something else, the flag wins
settings.given["learning_rate"]                     # "--learning_rate": who set it; absent where nobody did
"""

import dataclasses
import difflib
import json
import math
import re
import types
import typing

from tinygpt_hf.errors import UsageError, UsageErrors, redacted

LARGEST = 2**63 - 1  # the largest whole number the libraries below take
LARGEST_FILE, MOST_VALUES = 2**18, 10_000  # bytes and values of a settings file; reading them takes less than a second
WHOLE = re.compile("0|-?[1-9][0-9]*")
BROKEN = re.compile(
    r"-?[0-9]+\.[0-9]*([eE][-+][0-9]+)?|-?\.[0-9]+([eE][-+][0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
QUOTED = re.compile("^[-+.0-9]|[\r\x85\u2028\u2029\ufeff]")
POWER = re.compile(r"-?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+")


class Settings(dict):
    """Dataclass type -> instance, and `given`: setting name -> what set it (a flag, or a file and section)."""

    def __init__(self, values: dict, given: dict[str, str], config: str | None):
        super().__init__(values)
        self.given, self.config = given, config


def fields_of(groups: tuple[type, ...]) -> dict[str, tuple[type, dataclasses.Field]]:
    """Flat name -> (dataclass, field). Names are unique over all groups; a second field of one name is our mistake."""
    flat: dict[str, tuple[type, dataclasses.Field]] = {}
    for group in groups:
        for field in dataclasses.fields(group):
            if field.name in flat:
                raise AssertionError(f"two settings are called {field.name}")
            flat[field.name] = (group, field)
    return flat


def parse(groups: tuple[type, ...], argv: list[str], *, uses_config: bool = True) -> Settings:
    """Read `argv` (and the file after --config) into one instance of each dataclass of `groups`.

    Raises `UsageErrors` with every problem found. A first word without dashes fills the field marked `positional`.
    """
    flat = fields_of(groups)
    aliases = {old: new for group in groups for old, new in getattr(group, "aliases", {}).items()}
    errors: list[UsageError] = []
    _refuse_broken_words(argv)
    flags, config = _read_flags(argv, flat, aliases, errors, uses_config)
    file_values = _read_yaml(config, groups, flat, aliases, errors) if config else {}
    values, given = {}, {}
    for origin in (file_values, flags):  # the flag comes last and wins
        for name, (raw, where) in origin.items():
            try:
                values[name] = convert(raw, flat[name][1].type, where)
                given[name] = where
            except UsageError as error:
                errors.append(error)
    if errors:
        raise errors[0] if len(errors) == 1 else UsageErrors(errors)
    instances = {group: group(**{n: v for n, v in values.items() if flat[n][0] is group}) for group in groups}
    return Settings(instances, given, config)


def _refuse_broken_words(argv: list[str]) -> None:
    """Words whose bytes are no UTF-8 could be neither saved nor shown."""
    for word in argv:
        if any("\ud800" <= c <= "\udfff" for c in word):
            raise UsageError(f"{word!r} is no UTF-8", "text", "rename the file or retype the word")


def _read_flags(argv, flat, aliases, errors, uses_config) -> tuple[dict, str | None]:
    flags: dict[str, tuple[object, str]] = {}
    positional = next((n for n, (_, f) in flat.items() if f.metadata.get("positional")), None)
    config, words = None, list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("--") or word == "--":
            if positional and positional not in flags and not word.startswith("-"):
                flags[positional] = (word, positional.upper())
            else:
                errors.append(UsageError(f"unexpected word {word!r}", "settings, which begin with --", "see --help"))
            continue
        flag, has_value, value = word[2:].partition("=")
        name = flag.replace("-", "_")
        name = aliases.get(name, name)
        negated = name.removeprefix("no_") if name.startswith("no_") else None
        if name == "config" and uses_config:
            value = value if has_value else (words.pop(0) if words and not words[0].startswith("--") else "")
            if not value:
                errors.append(UsageError("--config has no value", "a YAML file", "try --config configs/x.yaml"))
            elif config:
                errors.append(UsageError(f"--config is given twice ({config}, {value})", "one file", "remove one"))
            config = value or config
            continue
        if name not in flat and negated in flat and base_type(flat[negated][1].type)[0] is bool:
            if has_value:
                errors.append(
                    UsageError(f"{word} has a value", f"--{flag} alone, which means no", f"write --{negated} {value}")
                )
            name, has_value, value = negated, "=", "false"
        if name not in flat:
            known = ["config", *flat, *aliases] if uses_config else [*flat, *aliases]
            errors.append(UsageError(f"unknown setting --{flag}", "one that --help lists", _hint(name, known, "--")))
            while words and not words[0].startswith("--"):
                words.pop(0)  # its values are no words of their own
            continue
        kind, _ = base_type(flat[name][1].type)
        if kind is list and not has_value:
            value = []
            while words and not words[0].startswith("--"):
                value.append(words.pop(0))
            if not value:
                errors.append(UsageError(f"--{flag} has no value", "one or more words", "see --help"))
                continue
        elif kind is bool and not has_value:
            follows = bool(words) and words[0].lower() in ("true", "false", "yes", "no", "1", "0", "on", "off")
            value = words.pop(0) if follows else "true"
        elif not has_value:
            if not words or words[0].startswith("--"):
                hint = f"if {words[0]} is meant, write --{flag}={words[0]}" if words else "see --help"
                errors.append(UsageError(f"--{flag} has no value", "one", hint))
                continue
            value = words.pop(0)
        if name in flags:
            errors.append(UsageError(f"--{flag} is given twice ({flags[name][1]})", "one value", "remove one"))
        flags[name] = (value, f"--{flag}")
    return flags, config


def load_yaml(path: str, bounded: bool = True) -> dict:
    """A YAML mapping, read safely: no tags, no aliases, no merge keys, no duplicate keys, `bounded` in size.

    Only what looks like a number to everybody is one (not 010, 1:30 or 2024-01-01, which YAML 1.1 would rewrite): all other
    words reach the converter as they are written, like those of the command line.
    """
    import yaml

    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST_FILE + 1 if bounded else -1)
        if bounded and len(data) > LARGEST_FILE:
            wanted = f"at most {LARGEST_FILE} bytes"
            raise UsageError(f"--config {path} is no settings file: it is too large", wanted, "check the path")
        text = data.decode("utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"--config {path} does not exist", "a YAML file", "check the path") from None
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a NUL in the name
        raise UsageError(f"--config {path} cannot be read ({error})", "a YAML file", "check the file") from None

    class Loader(yaml.SafeLoader):
        values = 0

        def compose_node(self, parent, index):
            event = self.peek_event()
            line, self.values = f"line {event.start_mark.line + 1}", self.values + 1
            if isinstance(event, yaml.events.AliasEvent):
                raise yaml.YAMLError(f"{line}: aliases (*name) are not read")
            if event.tag is not None:
                raise yaml.YAMLError(f"{line}: tags ({shown(event.tag)}) are not read")
            if bounded and self.values > MOST_VALUES:
                raise yaml.YAMLError(f"{line}: more than {MOST_VALUES} values")
            return super().compose_node(parent, index)

        def construct_mapping(self, node, deep=False):
            seen = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise yaml.YAMLError(f"line {key.start_mark.line + 1}: a key is no word")
                if key.tag == tag + "merge":
                    raise yaml.YAMLError(f"line {key.start_mark.line + 1}: merge keys (<<) are not read")
                if key.value in seen:
                    raise yaml.YAMLError(f"line {key.start_mark.line + 1}: the key {shown(key.value)} is given twice")
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    tag = "tag:yaml.org,2002:"
    words = {tag + kind for kind in ("int", "float", "timestamp")}
    Loader.yaml_implicit_resolvers = {
        first: [(known, pattern) for known, pattern in resolvers if known not in words]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver(tag + "int", re.compile(f"^(?:{WHOLE.pattern})$"), list("-0123456789"))
    Loader.add_implicit_resolver(tag + "float", re.compile(f"^(?:{BROKEN.pattern})$"), list("-+.0123456789"))
    try:
        loaded = yaml.load(text, Loader=Loader)  # noqa: S506 - a SafeLoader, made stricter
        json.dumps(loaded, ensure_ascii=False).encode()  # "\ud800" could be neither saved nor shown
    except RecursionError:
        raise UsageError(f"{path} is nested too deeply", "sections with settings", "see configs/") from None
    except (yaml.YAMLError, TypeError, ValueError) as error:
        line = " ".join(str(error).split())[:300]
        raise UsageError(f"{path} is no readable YAML: {line}", "`key: value` lines", "fix that line") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise UsageError(f"{path} holds a {type(loaded).__name__}", "a mapping with sections", "see configs/")
    return loaded


def _read_yaml(path, groups, flat, aliases, errors) -> dict[str, tuple[object, str]]:
    try:
        loaded = load_yaml(path)
    except UsageError as error:
        errors.append(error)
        return {}
    # A file may hold sections another command reads (train-tokenizer meets `model:`); what is in them is checked there.
    from tinygpt_hf.settings import arguments, corpus

    all_sections = {
        a.section
        for a in (*vars(arguments).values(), *vars(corpus).values())
        if isinstance(a, type) and dataclasses.is_dataclass(a) and hasattr(a, "section")
    }
    sections: dict[str, list[type]] = {}
    for group in groups:
        if hasattr(group, "section"):
            sections.setdefault(group.section, []).append(group)
    values: dict[str, tuple[object, str]] = {}
    for section, content in loaded.items():
        if section not in sections:
            if section not in all_sections:
                hint = _hint(str(section), sorted(all_sections), "")
                if section in flat:
                    hint = f"move it under `{flat[section][0].section}:`"
                known = ", ".join(sorted(all_sections))
                errors.append(UsageError(f"{path}: unknown section `{section}`", f"one of {known}", hint))
            continue
        if content is None:
            continue
        if not isinstance(content, dict):
            errors.append(UsageError(f"{path}: `{section}` is {shown(content)}", "a mapping", "see configs/"))
            continue
        here = {n for n, (g, _) in flat.items() if g in sections[section]}
        here_old = {old for old, new in aliases.items() if new in here}
        for key, raw in content.items():
            name = aliases.get(str(key), str(key)) if key in here_old else str(key)
            where = f"{path}: {section}.{key}"
            if name not in here:
                if _known_elsewhere(name, section, arguments):
                    continue
                hint = _hint(name, [*here, *here_old], "")
                if name in flat:
                    hint = f"move it under `{flat[name][0].section}:`"
                errors.append(UsageError(f"{where} is no setting", f"a setting of `{section}:`", hint))
            elif name in values:
                errors.append(UsageError(f"{where} repeats {values[name][1]}", "one of the two names", "remove one"))
            elif raw is not None:
                values[name] = (raw, where)
    return values


def _known_elsewhere(name: str, section: str, arguments) -> bool:
    """train-tokenizer reads a training config: settings of `training:` it has no use for are not unknown."""
    return any(
        getattr(a, "section", None) == section and name in {f.name for f in dataclasses.fields(a)}
        for a in vars(arguments).values()
        if isinstance(a, type) and dataclasses.is_dataclass(a)
    )


def _hint(name: str, known: list[str], prefix: str) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {prefix}{close[0]}?" if close else "see --help"


def shown(value) -> str:
    """A value as an error shows it: the first words of a long one."""
    return words if len(words := repr(value)) <= 100 else f"{words[:100]}…"


def base_type(annotation) -> tuple[type, object]:
    """(int | None) -> (int, int); list[str] -> (list, list[str]); Literal[...] -> (Literal, ...)."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
    origin = typing.get_origin(annotation)
    return (origin or annotation), annotation


def _choices(annotation) -> list[str]:
    """The words a field takes: (float | Literal["off"] | None) -> ["off"]."""
    parts = (annotation, *typing.get_args(annotation))
    return [word for part in parts if typing.get_origin(part) is typing.Literal for word in typing.get_args(part)]


def convert(raw, annotation, where: str):
    """A YAML value or a word of the command line as the type of a field; `UsageError` says what instead."""
    optional = type(None) in typing.get_args(annotation)
    kind, inner = base_type(annotation)
    if optional and (raw is None or (isinstance(raw, str) and raw.lower() in ("none", "null"))):
        return None
    choices = _choices(annotation)
    if raw is None:
        wanted = f"one of {', '.join(choices)}" if kind is typing.Literal else kind.__name__
        raise UsageError(f"{where} is empty", wanted, "give a value or remove it")
    if choices and isinstance(raw, bool):  # YAML reads a bare `no` or `off` as false
        raw = next((word for word in choices if word == ("on" if raw else "off")), "yes" if raw else "no")
    if raw in choices:
        return raw
    if kind is typing.Literal:
        close = difflib.get_close_matches(str(raw), choices, n=1)
        hint = f"did you mean {close[0]}?" if close else "choose one of them"
        raise UsageError(f"{where} is {shown(raw)}", f"one of {', '.join(choices)}", hint)
    if kind is list:
        items = raw if isinstance(raw, list) else [raw]
        if (
            len(items) == 1
            and isinstance(items[0], str)
            and items[0].startswith("[")
            and base_type(*typing.get_args(inner))[0] is dict
        ):
            items = _json(items[0])
        (entry,) = typing.get_args(inner)
        return [_mapping(item, where) if entry is dict else convert(item, entry, where) for item in items]
    if kind is dict:
        return _numbers(_mapping(raw, where))
    if isinstance(raw, (list, dict)):
        raise UsageError(f"{where} is {shown(raw)}", f"one {kind.__name__}", "give a single value")
    if kind is bool:
        words = dict.fromkeys(("true", "yes", "1", "on"), True) | dict.fromkeys(("false", "no", "0", "off"), False)
        if str(raw).lower() not in words:
            raise UsageError(f"{where} is {shown(raw)}", "true or false", "write true or false")
        return words[str(raw).lower()]
    if kind in (int, float):
        return _number(raw, kind, where)
    if isinstance(raw, (bool, float)):  # `no`, `1.10`: the word that was written is lost
        raise UsageError(f"{where} is {str(raw).lower()}", "text", "put it in quotes")
    return str(raw)


def _mapping(raw, where: str) -> dict:
    raw = _json(raw) if isinstance(raw, str) else raw
    if not isinstance(raw, dict):
        raise UsageError(f"{where} is {shown(raw)}", "a mapping (JSON on the command line)", "try '{\"a\": 1}'")
    return raw


def _json(word: str):
    """A word of the command line as JSON, or the word itself."""
    try:
        return json.loads(word)
    except (ValueError, RecursionError):
        return word


def _numbers(value):
    """`1e6` inside a mapping of numbers is a number too; PyYAML reads it as a word."""
    if isinstance(value, dict):
        return {name: _numbers(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_numbers(inner) for inner in value]
    return float(value) if isinstance(value, str) and POWER.fullmatch(value) else value


def _number(raw, kind: type, where: str):
    wanted = "a whole number" if kind is int else "a number"
    try:
        if isinstance(raw, bool):
            raise ValueError
        number = int(str(raw)) if kind is int and not isinstance(raw, float) else float(str(raw))
    except ValueError:
        try:
            number = float(str(raw)) if not isinstance(raw, bool) else math.nan
        except ValueError:
            number = math.nan
    if isinstance(number, float) and not math.isfinite(number):
        raise UsageError(f"{where} is {shown(raw)}", wanted, "try 3e-4, 0.1 or 1000")
    if kind is int and isinstance(number, float):
        if not number.is_integer():
            raise UsageError(f"{where} is {shown(raw)}", "a whole number", f"try {round(number)}")
        number = int(number)
    if kind is int and abs(number) > LARGEST:
        raise UsageError(f"{where} is {shown(raw)}", f"{wanted} up to {LARGEST}", "give a smaller one")
    return number


def to_yaml(instances: list) -> str:
    """Dataclass instances as the YAML that `--config` reads back. Unset (None) and empty values are left out, secrets hidden."""
    import yaml

    sections: dict[str, dict] = {}
    for instance in instances:
        section = sections.setdefault(instance.section, {})
        for field in dataclasses.fields(instance):
            value = getattr(instance, field.name)
            if value is not None and value != []:
                section[field.name] = redacted(value)

    class Dumper(yaml.SafeDumper):
        """Text that would be read back as something else is quoted: numbers, and line ends of Unicode, which become spaces."""

    def represent(dumper, word: str):
        return dumper.represent_scalar("tag:yaml.org,2002:str", word, '"' if QUOTED.search(word) else None)

    Dumper.add_representer(str, represent)
    return yaml.dump(sections, Dumper=Dumper, sort_keys=False, allow_unicode=True)


def help_text(usage: str, summary: str, groups: tuple[type, ...], uses_config: bool = True, example: str = "") -> str:
    """`--help`: the settings grouped by dataclass, each with its type, help and default."""
    lines = [f"usage: {usage}", "", summary]
    if example:
        lines += ["", f"  {example}"]
    if uses_config:
        lines += [
            "",
            "  --config FILE",
            "      YAML with the sections below; a flag wins over the file, the file over the default",
        ]
    for group in groups:
        title = (group.__doc__ or group.__name__).strip().splitlines()[0]
        section = f"  [{group.section}:]" if uses_config and hasattr(group, "section") else ""
        lines += ["", f"{title}{section}"]
        other = {new: old for old, new in getattr(group, "aliases", {}).items()}
        for field in dataclasses.fields(group):
            lines += _help_lines(field, other.get(field.name))
    return "\n".join(lines)


def _help_lines(field: dataclasses.Field, alias: str | None) -> list[str]:
    kind, _ = base_type(field.type)
    sign = {int: "N", float: "X", str: "TEXT", bool: "[true|false]", list: "A [B ...]", dict: "JSON"}.get(kind, "")
    sign = "|".join(filter(None, [sign, *_choices(field.type)]))
    default = field.default if field.default is not dataclasses.MISSING else None
    after = "" if default is None or default is False or default == "" else f" (default {default})"
    after += f" (also --{alias})" if alias else ""
    name = field.name.upper() if field.metadata.get("positional") else f"--{field.name} {sign}"
    return [f"  {name}", f"      {field.metadata['help']}{after}"]
