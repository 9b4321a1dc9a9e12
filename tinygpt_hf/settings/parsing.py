"""Read YAML and flags into dataclasses, through one converter (conversion.py); report every problem at once.

settings = parse((ModelArguments, TrainingArguments), ["--config", "x.yaml", "--learning_rate", "3e-4"])
settings[TrainingArguments].learning_rate           # 0.0003; the file said something else, the flag wins
settings.given["learning_rate"]                     # "--learning_rate": who set it; absent if nobody did
settings.note                                       # "x.yaml: max_steps gives way to --num_train_epochs", or None
"""

import dataclasses
import json
import re
import time
from pathlib import Path
from typing import Annotated, Any

from tinygpt_hf.errors import UsageError, UsageErrors, redacted
from tinygpt_hf.settings.conversion import BOOLEANS, base_type, choices_of, convert, expanded, meant, shown
from tinygpt_hf.settings.dialects import SAME, TURNED, hint, turned
from tinygpt_hf.settings.layering import conflicts, laid_over

LARGEST_FILE, MOST_VALUES = 2**18, 10_000  # bytes and values of a settings file; reading them takes less than a second
WHOLE = re.compile("0|-?[1-9][0-9]*")
BROKEN = re.compile(
    r"-?[0-9]+\.[0-9]*([eE][-+][0-9]+)?|-?\.[0-9]+([eE][-+][0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
QUOTED = re.compile("^[-+.0-9]|[\r\x85\u2028\u2029\ufeff]")
YAML_TAG = "tag:yaml.org,2002:"


class Settings(dict):
    """Map dataclass types to instances, and in `given` setting names to what set them (a flag, or a file and section).

    `note` says what of the file gave way to which flag; `began`: when they were read, by the monotonic clock.
    """

    def __init__(self, values: dict, given: dict[str, str], config: str | None, note: str | None):
        super().__init__(values)
        self.given, self.config, self.note = given, config, note
        self.began = time.monotonic()


def fields_of(groups: tuple[type, ...]) -> dict[str, tuple[type, dataclasses.Field]]:
    """Map flat names to (dataclass, field); names are unique over all groups."""
    flat: dict[str, tuple[type, dataclasses.Field]] = {}
    for group in groups:
        for field in dataclasses.fields(group):
            if field.name in flat:
                raise AssertionError(f"two settings are called {field.name}")
            flat[field.name] = (group, field)
    return flat


def parse(groups: tuple[type, ...], argv: list[str], *, uses_config: bool = True) -> Settings:
    """Read `argv` (and the file after --config) into one instance of each dataclass of `groups`.

    Raise `UsageErrors` with every problem. A first word without dashes fills the field marked `positional`, a list all of them.
    """
    for word in argv:
        if any("\ud800" <= c <= "\udfff" for c in word):  # it could be neither saved nor shown
            raise UsageError(f"{word!r} is no UTF-8", "text", "rename the file or retype the word")
    flat = fields_of(groups)
    aliases = SAME | {old: new for group in groups for old, new in getattr(group, "aliases", {}).items()}
    errors: list[UsageError] = []
    flags = _Flags(argv, flat, aliases, uses_config)
    errors += flags.errors
    file_values = _read_sections(flags.config, groups, flat, aliases, errors) if flags.config else {}
    layers: list[dict] = []
    given: dict[str, str] = {}
    for origin in (file_values, flags.values):
        layer, where = {}, {}
        for theirs, (raw, place) in origin.items():
            try:
                name, value = turned(theirs, raw, place) or ("", None)
                if name in layer:
                    raise UsageError(f"{place} repeats {where[name]}", "one of the two names", "remove one")
                if name in flat:
                    where[name] = place
                    layer[name] = convert(meant(value, flat[name][1]), flat[name][1].type, place)
            except UsageError as error:
                errors.append(error)
        if origin is file_values and Path(flags.config or "").name == "run.yaml" and "model_name_or_path" in layer:
            # 0.1.0 wrote the shape of models from scratch beside it
            layer, _ = laid_over(layer, {"model_name_or_path": layer["model_name_or_path"]}, flat)
        errors += conflicts(layer, flat, where)
        layers.append(layer)
        given |= where
    raise_together(errors)
    values, gone = laid_over(layers[0], layers[1], flat)  # the flag comes last and wins
    instances = {group: group(**{n: v for n, v in values.items() if flat[n][0] is group}) for group in groups}
    given = {name: where for name, where in given.items() if name not in gone}
    return Settings(instances, given, flags.config, _note(flags.config, gone, given))


def _note(config: str | None, gone: dict[str, str], given: dict[str, str]) -> str | None:
    """Say in one line what of a file gave way to which flags."""
    words = []
    for flag in dict.fromkeys(gone.values()):
        *names, last = [name for name, other in gone.items() if other == flag]
        left = f"{', '.join(names)} and {last} give" if names else f"{last} gives"
        words.append(f"{left} way to {given[flag]}")
    return f"{config}: {'; '.join(words)}" if words else None


def raise_together(errors: list[UsageError]) -> None:
    """Raise the errors as one, if there are any."""
    if errors:
        raise errors[0] if len(errors) == 1 else UsageErrors(errors)


class _Flags:
    """Read the words of a command line: `values` by setting, each with its flag; `config`; and the `errors`."""

    def __init__(self, argv: list[str], flat: dict, aliases: dict[str, str], uses_config: bool):
        self.values: dict[str, tuple[object, str]] = {}
        self.config: str | None = None
        self.errors: list[UsageError] = []
        self._words, self._flat, self._aliases, self._uses_config = list(argv), flat, aliases, uses_config
        self._positional = next((n for n, (_, f) in flat.items() if f.metadata.get("positional")), None)
        while self._words:
            word = self._words.pop(0)
            if word.startswith("--") and word != "--":
                self._read(word)
            elif self._positional and not word.startswith("-") and (found := self._positional_value(word)):
                self.values[self._positional] = (found, self._positional.upper())
            else:
                self._complain(f"unexpected word {word!r}", "settings, which begin with --", "see --help")

    def _positional_value(self, word: str) -> str | list[str] | None:
        """Return what a word without a flag makes of the positional setting: of a list one more; None: it has its one."""
        before: Any = self.values.get(self._positional, ([], ""))[0]
        if base_type(self._flat[self._positional][1].type)[0] is list:
            return [*before, word]
        return None if self._positional in self.values else word

    def _complain(self, problem: str, expected: str, action: str) -> None:
        self.errors.append(UsageError(problem, expected, action))

    def _read(self, word: str) -> None:
        flag, has_value, text = word[2:].partition("=")
        name = flag.replace("-", "_")
        name = self._aliases.get(name, name)
        negated = name.removeprefix("no_")
        if name == "config" and self._uses_config:
            self._read_config(text if has_value else self._next_word())
            return
        if name in TURNED and "max_steps" in self._flat:  # they are of training
            self._take(name, text if has_value else self._next_word() or "true", f"--{flag}")
            return
        if name not in self._flat and self._is_bool(negated):
            if has_value:
                self._complain(f"{word} has a value", f"--{flag} alone, which means no", f"write --{negated} {text}")
            name, has_value, text = negated, "=", "false"
        if name not in self._flat:
            known = [*(["config"] if self._uses_config else []), *self._flat, *self._aliases]
            self._complain(f"unknown setting --{flag}", "one that --help lists", hint(name, known, "--"))
            while self._next_word() is not None:
                pass  # its values are no words of their own
            return
        value = text if has_value else self._value(base_type(self._flat[name][1].type)[0])
        if value is None:
            next_flag = self._words[0] if self._words else None
            action = f"if {next_flag} is meant, write --{flag}={next_flag}" if next_flag else "see --help"
            self._complain(f"--{flag} has no value", "one", action)
            return
        self._take(name, value, f"--{flag}")

    def _take(self, name: str, value, flag: str) -> None:
        if name in self.values:
            self._complain(f"{flag} is given twice ({self.values[name][1]})", "one value", "remove one")
        self.values[name] = (value, flag)

    def _is_bool(self, name: str) -> bool:
        return name in self._flat and base_type(self._flat[name][1].type)[0] is bool

    def _next_word(self) -> str | None:
        """Take the next word unless it is a flag."""
        return self._words.pop(0) if self._words and not self._words[0].startswith("--") else None

    def _value(self, kind: type) -> object:
        """Take what belongs to a flag: several words of a list, perhaps one of a boolean, else one; None: nothing is there."""
        if kind is list:
            words: list[str] = []
            while (word := self._next_word()) is not None:
                words.append(word)
            return words or None
        if kind is bool:
            return self._words.pop(0) if self._words and self._words[0].lower() in BOOLEANS else "true"
        return self._next_word()

    def _read_config(self, path: str | None) -> None:
        if not path:
            self._complain("--config has no value", "a YAML file", "try --config configs/x.yaml")
        elif self.config:
            self._complain(f"--config is given twice ({self.config}, {path})", "one file", "remove one")
        try:
            self.config = expanded(path, "--config") if path else self.config
        except UsageError as error:
            self.errors.append(error)


def load_yaml(path: str, bounded: bool = True) -> dict:
    """Read a YAML mapping safely: no tags, no aliases, no merge keys, no duplicate keys, `bounded` in size."""
    import yaml

    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST_FILE + 1 if bounded else -1)
        if bounded and len(data) > LARGEST_FILE:
            expected = f"at most {LARGEST_FILE} bytes"
            raise UsageError(f"--config {path} is no settings file: it is too large", expected, "check the path")
        text = data.decode("utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"--config {path} does not exist", "a YAML file", "check the path") from None
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a NUL in the name
        raise UsageError(f"--config {path} cannot be read ({error})", "a YAML file", "check the file") from None
    try:
        loaded = yaml.load(text, Loader=_strict_loader(bounded))  # noqa: S506 - a SafeLoader, made stricter
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


def _strict_loader(bounded: bool) -> type:
    """Make a SafeLoader for which only what looks like a number to everybody is one.

    010, 1:30 and 2024-01-01, which YAML 1.1 would rewrite, reach the converter as they are written, like words of the command
    line.
    """
    import yaml

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
            keys = set()
            for key, _ in node.value:
                line = f"line {key.start_mark.line + 1}"
                if not isinstance(key, yaml.ScalarNode):
                    raise yaml.YAMLError(f"{line}: a key is no word")
                if key.tag == YAML_TAG + "merge":
                    raise yaml.YAMLError(f"{line}: merge keys (<<) are not read")
                if key.value in keys:
                    raise yaml.YAMLError(f"{line}: the key {shown(key.value)} is given twice")
                keys.add(key.value)
            return super().construct_mapping(node, deep)

    words = {YAML_TAG + kind for kind in ("int", "float", "timestamp")}
    Loader.yaml_implicit_resolvers = {
        first: [(known, pattern) for known, pattern in resolvers if known not in words]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver(YAML_TAG + "int", re.compile(f"^(?:{WHOLE.pattern})$"), list("-0123456789"))
    Loader.add_implicit_resolver(YAML_TAG + "float", re.compile(f"^(?:{BROKEN.pattern})$"), list("-+.0123456789"))
    return Loader


def _read_sections(path: str, groups, flat, aliases, errors: list[UsageError]) -> dict[str, tuple[object, str]]:
    """Map the settings in a file to (value, where it stands).

    A file may hold sections and settings another command reads (train-tokenizer meets `model:`); they are checked there.
    """
    try:
        loaded = load_yaml(path)
    except UsageError as error:
        errors.append(error)
        return {}
    elsewhere = _all_sections()
    own: dict[str, set[str]] = {}
    for name, (group, _) in flat.items():
        if hasattr(group, "section"):
            own.setdefault(group.section, set()).add(name)
    values: dict[str, tuple[object, str]] = {}
    for section, content in loaded.items():
        if section not in elsewhere:
            known = ", ".join(sorted(elsewhere))
            action = _place(str(section), flat) or hint(str(section), sorted(elsewhere))
            errors.append(UsageError(f"{path}: unknown section `{section}`", f"one of {known}", action))
        elif section in own and content is not None and not isinstance(content, dict):
            errors.append(UsageError(f"{path}: `{section}` is {shown(content)}", "a mapping", "see configs/"))
        elif section in own:
            for key, raw in (content or {}).items():
                name, where = aliases.get(str(key), str(key)), f"{path}: {section}.{key}"
                if name in own[section] and name in values:
                    errors.append(
                        UsageError(f"{where} repeats {values[name][1]}", "one of the two names", "remove one")
                    )
                elif (name in own[section] or name in TURNED) and raw is not None:
                    values[name] = (raw, where)
                elif name not in own[section] and name not in elsewhere[section]:
                    known = [*own[section], *(old for old, new in aliases.items() if new in own[section])]
                    action = _place(name, flat) or hint(name, known)
                    errors.append(UsageError(f"{where} is no setting", f"a setting of `{section}:`", action))
    return values


def _all_sections() -> dict[str, set[str]]:
    """Map every section that a settings file may have to the settings of all commands in it."""
    from tinygpt_hf.settings import arguments, corpus

    sections: dict[str, set[str]] = {}
    for group in (*vars(arguments).values(), *vars(corpus).values()):
        if isinstance(group, type) and dataclasses.is_dataclass(group) and hasattr(group, "section"):
            sections.setdefault(group.section, set()).update(field.name for field in dataclasses.fields(group))
    return sections


def _place(name: str, flat) -> str | None:
    """Say under which section a setting belongs."""
    return f"move it under `{flat[name][0].section}:`" if name in flat else None


def to_yaml(instances: list) -> str:
    """Write dataclass instances as the YAML that `--config` reads back, without unset and empty values, secrets hidden."""
    import yaml

    sections: dict[str, dict] = {}
    for instance in instances:
        section = sections.setdefault(instance.section, {})
        for field in dataclasses.fields(instance):
            value = getattr(instance, field.name)
            if value is not None and value != []:
                section[field.name] = redacted(value)

    class Dumper(yaml.SafeDumper):
        """Quote text that would be read back as something else: numbers, and Unicode line ends, which become spaces."""

    def represent(dumper, word: str):
        return dumper.represent_scalar(YAML_TAG + "str", word, '"' if QUOTED.search(word) else None)

    Dumper.add_representer(str, represent)
    return yaml.dump(sections, Dumper=Dumper, sort_keys=False, allow_unicode=True)


def help_text(usage: str, summary: str, groups: tuple[type, ...], uses_config: bool = True, example: str = "") -> str:
    """Return what `--help` prints: the settings grouped by dataclass, each with its type, help and default."""
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
        for field in sorted(dataclasses.fields(group), key=lambda field: not field.metadata.get("positional")):
            lines += _help_lines(field, other.get(field.name))
    return "\n".join(lines)


def _help_lines(field: dataclasses.Field, alias: str | None) -> list[str]:
    kind, _ = base_type(field.type)
    sign = {
        int: "N",
        float: "X",
        str: "TEXT",
        Annotated: "PATH",
        bool: "[true|false]",
        list: "A [B ...]",
        dict: "JSON",
    }.get(kind, "")
    sign = "|".join(filter(None, [sign, *choices_of(field.type)]))
    default = field.default if field.default is not dataclasses.MISSING else None
    after = "" if default is None or default is False or default == "" else f" (default {default})"
    after += f" (also --{alias})" if alias else ""
    name = f"--{field.name} {sign}"
    if field.metadata.get("positional"):
        name = field.name.upper() + (f" [{field.name.upper()} ...]" if kind is list else "")
    return [f"  {name}", f"      {field.metadata['help']}{after}"]
