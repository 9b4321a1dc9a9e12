"""Read YAML and command line flags into dataclasses of settings, and report all problems at once.

settings = parse((ModelArguments, TrainingArguments), ["--config", "x.yaml", "--learning_rate", "3e-4"])
settings[TrainingArguments].learning_rate           # 0.0003: a flag overrides the file
settings.given["learning_rate"]                     # "--learning_rate": what set it; absent for a default
settings.note                                       # "x.yaml: max_steps gives way to --num_train_epochs", or None
"""

import dataclasses
import json
import re
import time
from pathlib import Path
from typing import Annotated, Any

from tinygpt_hf.errors import UsageError, UsageErrors, redacted
from tinygpt_hf.settings.conversion import BOOLEANS, base_type, choices_of, convert, expanded, shown, translated_value
from tinygpt_hf.settings.dialects import ALIASES, TRANSLATIONS, hint, translated
from tinygpt_hf.settings.layering import conflicts, override

LARGEST_FILE, MAX_VALUES = 2**18, 10_000  # bytes and values of a settings file, so that reading it takes under a second
INTEGER = re.compile("0|-?[1-9][0-9]*")
FLOAT = re.compile(
    r"-?[0-9]+\.[0-9]*([eE][-+][0-9]+)?|-?\.[0-9]+([eE][-+][0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
NEEDS_QUOTES = re.compile("^[-+.0-9]|[\r\x85\u2028\u2029\ufeff]")
YAML_TAG = "tag:yaml.org,2002:"


class Settings(dict):
    """A dict from dataclass types to instances.

    `given`: setting name -> what set it (a flag, or file and section). `config`: the YAML file. `note`: which settings of the
    file were replaced by flags. `began`: time of reading, by `time.monotonic`.
    """

    def __init__(self, values: dict, given: dict[str, str], config: str | None, note: str | None):
        super().__init__(values)
        self.given, self.config, self.note = given, config, note
        self.began = time.monotonic()


def fields_of(groups: tuple[type, ...]) -> dict[str, tuple[type, dataclasses.Field]]:
    """Return setting name -> (dataclass, field). Names are unique over all groups."""
    return {field.name: (group, field) for group in groups for field in dataclasses.fields(group)}


def parse(groups: tuple[type, ...], argv: list[str], *, uses_config: bool = True) -> Settings:
    """Read `argv` and the file named by --config into one instance of each dataclass in `groups`.

    Words without dashes fill the field marked `positional`: one word, or for a list all of them. Raises UsageErrors with all
    problems.
    """
    for word in argv:
        if any("\ud800" <= c <= "\udfff" for c in word):  # surrogates can be neither saved nor printed
            raise UsageError(f"{word!r} is not valid UTF-8", "text", "rename the file or retype the word")
    flat = fields_of(groups)
    aliases = ALIASES | {old: new for group in groups for old, new in getattr(group, "aliases", {}).items()}
    errors: list[UsageError] = []
    flags = _Flags(argv, flat, aliases, uses_config)
    errors += flags.errors
    file_values = _read_sections(flags.config, flat, aliases, errors) if flags.config else {}
    layers: list[dict] = []
    given: dict[str, str] = {}
    for origin in (file_values, flags.values):
        layer, where = {}, {}
        for theirs, (raw, place) in origin.items():
            try:
                name, value = translated(theirs, raw, place) or ("", None)
                if name in layer:
                    raise UsageError(f"{place} repeats {where[name]}", "one of the two names", "remove one")
                if name in flat:
                    where[name], field = place, flat[name][1]
                    # a positional `none` is a name, not the absence of one
                    annotation = base_type(field.type)[1] if field.metadata.get("positional") else field.type
                    layer[name] = convert(translated_value(value, field), annotation, place)
            except UsageError as error:
                errors.append(error)
        if origin is file_values and Path(flags.config or "").name == "run.yaml" and "model_name_or_path" in layer:
            # version 0.1.0 also wrote default shapes, which exclude model_name_or_path
            layer, _ = override(layer, {"model_name_or_path": layer["model_name_or_path"]}, flat)
        errors += conflicts(layer, flat, where)
        layers.append(layer)
        given |= where
    raise_together(errors)
    values, removed = override(layers[0], layers[1], flat)
    instances = {group: group(**{n: v for n, v in values.items() if flat[n][0] is group}) for group in groups}
    given = {name: where for name, where in given.items() if name not in removed}
    return Settings(instances, given, flags.config, _note(flags.config, removed, given))


def _note(config: str | None, removed: dict[str, str], given: dict[str, str]) -> str | None:
    """Return one line about the settings of a file that were replaced by flags, or None."""
    words = []
    for flag in dict.fromkeys(removed.values()):
        *names, last = [name for name, other in removed.items() if other == flag]
        left = f"{', '.join(names)} and {last} give" if names else f"{last} gives"
        words.append(f"{left} way to {given[flag]}")
    return f"{config}: {'; '.join(words)}" if words else None


def raise_together(errors: list[UsageError]) -> None:
    """Raise the errors, if any, as one exception."""
    if errors:
        raise errors[0] if len(errors) == 1 else UsageErrors(errors)


class _Flags:
    """The parsed command line: `values` as setting -> (value, flag), the path `config`, and the `errors`."""

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
                self._add_error(f"unexpected word {word!r}", "settings, which begin with --", "see --help")

    def _positional_value(self, word: str) -> str | list[str] | None:
        """Return the positional setting's value with `word`, appended if it is a list; None if it already has its one."""
        before: Any = self.values.get(self._positional, ([], ""))[0]
        if base_type(self._flat[self._positional][1].type)[0] is list:
            return [*before, word]
        return None if self._positional in self.values else word

    def _add_error(self, problem: str, expected: str, action: str) -> None:
        self.errors.append(UsageError(problem, expected, action))

    def _read(self, word: str) -> None:
        flag, has_value, text = word[2:].partition("=")
        name = flag.replace("-", "_")
        name = self._aliases.get(name, name)
        negated = name.removeprefix("no_")
        if name == "config" and self._uses_config:
            self._read_config(text if has_value else self._next_word())
            return
        if name in TRANSLATIONS and "max_steps" in self._flat:  # only training commands have these
            self._set(name, text if has_value else self._next_word() or "true", f"--{flag}")
            return
        if name not in self._flat and self._is_bool(negated):
            if has_value:
                self._add_error(f"{word} has a value", f"--{flag} alone, which means no", f"write --{negated} {text}")
            name, has_value, text = negated, "=", "false"
        if name not in self._flat:
            known = [*(["config"] if self._uses_config else []), *self._flat, *self._aliases]
            self._add_error(f"unknown setting --{flag}", "one that --help lists", hint(name, known, "--"))
            while self._next_word() is not None:
                pass  # skip the values of the unknown flag
            return
        value = text if has_value else self._value(self._flat[name][1].type)
        if value is None:
            next_flag = self._words[0] if self._words else None
            action = f"if {next_flag} is the value, write --{flag}={next_flag}" if next_flag else "see --help"
            self._add_error(f"--{flag} has no value", "one", action)
            return
        self._set(name, value, f"--{flag}")

    def _set(self, name: str, value, flag: str) -> None:
        if name in self.values:
            self._add_error(f"{flag} is given twice ({self.values[name][1]})", "one value", "remove one")
        self.values[name] = (value, flag)

    def _is_bool(self, name: str) -> bool:
        return name in self._flat and base_type(self._flat[name][1].type)[0] is bool

    def _next_word(self) -> str | None:
        """Take the next word unless it is a flag."""
        return self._words.pop(0) if self._words and not self._words[0].startswith("--") else None

    def _value(self, annotation) -> object:
        """Take the value of a flag: all words of a list, an optional one of a boolean, else one. None if it is missing."""
        kind = base_type(annotation)[0]
        if kind is list:
            words: list[str] = []
            while (word := self._next_word()) is not None:
                words.append(word)
            return words or None
        if kind is bool:
            if self._positional and self._words and self._words[0].lower() not in BOOLEANS:
                return "true"  # the word after the flag is a positional one
            return self._next_word() or "true"
        return self._next_word()

    def _read_config(self, path: str | None) -> None:
        if not path:
            self._add_error("--config has no value", "a YAML file", "try --config configs/x.yaml")
        elif self.config:
            self._add_error(f"--config is given twice ({self.config}, {path})", "one file", "remove one")
        try:
            self.config = expanded(path, "--config") if path else self.config
        except UsageError as error:
            self.errors.append(error)


def load_yaml(path: str, bounded: bool = True) -> dict:
    """Read a YAML mapping without tags, aliases, merge keys or duplicate keys; `bounded` limits its size."""
    import yaml

    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST_FILE + 1 if bounded else -1)
        if bounded and len(data) > LARGEST_FILE:
            expected = f"at most {LARGEST_FILE} bytes"
            raise UsageError(f"--config {path} is too large for a settings file", expected, "check the path")
        text = data.decode("utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"--config {path} does not exist", "a YAML file", "check the path") from None
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a NUL in the name
        raise UsageError(f"--config {path} cannot be read ({error})", "a YAML file", "check the file") from None
    try:
        loaded = yaml.load(text, Loader=_strict_loader(bounded))  # noqa: S506 - a SafeLoader, made stricter
        json.dumps(loaded, ensure_ascii=False).encode()  # fails for lone surrogates, which cannot be saved
    except RecursionError:
        raise UsageError(f"{path} is nested too deeply", "sections with settings", "see configs/") from None
    except (yaml.YAMLError, TypeError, ValueError) as error:
        line = " ".join(str(error).split())[:300]
        raise UsageError(f"{path} is not valid YAML: {line}", "`key: value` lines", "fix that line") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise UsageError(f"{path} holds a {type(loaded).__name__}", "a mapping with sections", "see configs/")
    return loaded


def _strict_loader(bounded: bool) -> type:
    """Make a SafeLoader that reads only plain decimal notation as a number.

    YAML 1.1 also converts 010, 1:30 and 2024-01-01. These stay strings, as on the command line.
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
            if bounded and self.values > MAX_VALUES:
                raise yaml.YAMLError(f"{line}: more than {MAX_VALUES} values")
            return super().compose_node(parent, index)

        def construct_mapping(self, node, deep=False):
            keys = set()
            for key, _ in node.value:
                line = f"line {key.start_mark.line + 1}"
                if not isinstance(key, yaml.ScalarNode):
                    raise yaml.YAMLError(f"{line}: a key is not a word")
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
    Loader.add_implicit_resolver(YAML_TAG + "int", re.compile(f"^(?:{INTEGER.pattern})$"), list("-0123456789"))
    Loader.add_implicit_resolver(YAML_TAG + "float", re.compile(f"^(?:{FLOAT.pattern})$"), list("-+.0123456789"))
    return Loader


def _read_sections(path: str, flat, aliases, errors: list[UsageError]) -> dict[str, tuple[object, str]]:
    """Return setting name -> (value, place in the file), and append problems to `errors`.

    Sections and settings of other commands are skipped, such as `model:` in train-tokenizer.
    """
    try:
        loaded = load_yaml(path)
    except UsageError as error:
        errors.append(error)
        return {}
    all_sections = _all_sections()
    own: dict[str, set[str]] = {}
    for name, (group, _) in flat.items():
        if hasattr(group, "section"):
            own.setdefault(group.section, set()).add(name)
    values: dict[str, tuple[object, str]] = {}
    for section, content in loaded.items():
        if section not in all_sections:
            known = ", ".join(sorted(all_sections))
            action = _section_hint(str(section), flat) or hint(str(section), sorted(all_sections))
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
                elif (name in own[section] or name in TRANSLATIONS) and raw is not None:
                    values[name] = (raw, where)
                elif name not in own[section] and name not in all_sections[section]:
                    known = [*own[section], *(old for old, new in aliases.items() if new in own[section])]
                    action = _section_hint(name, flat) or hint(name, known)
                    errors.append(UsageError(f"{where} is not a setting", f"a setting of `{section}:`", action))
    return values


def _all_sections() -> dict[str, set[str]]:
    """Return section -> setting names of all commands."""
    from tinygpt_hf.settings import arguments, corpus

    sections: dict[str, set[str]] = {}
    for group in (*vars(arguments).values(), *vars(corpus).values()):
        if isinstance(group, type) and dataclasses.is_dataclass(group) and hasattr(group, "section"):
            sections.setdefault(group.section, set()).update(field.name for field in dataclasses.fields(group))
    return sections


def _section_hint(name: str, flat) -> str | None:
    """Return advice on the section a setting belongs to, or None for an unknown name."""
    return f"move it under `{flat[name][0].section}:`" if name in flat else None


def to_yaml(instances: list) -> str:
    """Return dataclass instances as YAML for `--config`, without unset and empty values, and with secrets redacted."""
    import yaml

    sections: dict[str, dict] = {}
    for instance in instances:
        section = sections.setdefault(instance.section, {})
        for field in dataclasses.fields(instance):
            value = getattr(instance, field.name)
            if value is not None and value != []:
                section[field.name] = redacted(value)

    class Dumper(yaml.SafeDumper):
        """A dumper that quotes text that would be read back differently: numbers, and Unicode line ends."""

    def represent(dumper, word: str):
        return dumper.represent_scalar(YAML_TAG + "str", word, '"' if NEEDS_QUOTES.search(word) else None)

    Dumper.add_representer(str, represent)
    return yaml.dump(sections, Dumper=Dumper, sort_keys=False, allow_unicode=True)


def help_text(usage: str, summary: str, groups: tuple[type, ...], uses_config: bool = True, example: str = "") -> str:
    """Return the text of `--help`: the settings by dataclass, each with its type, help and default."""
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
        aliases = {new: old for old, new in getattr(group, "aliases", {}).items()}
        for field in sorted(dataclasses.fields(group), key=lambda field: not field.metadata.get("positional")):
            lines += _help_lines(field, aliases.get(field.name))
    return "\n".join(lines)


def _help_lines(field: dataclasses.Field, alias: str | None) -> list[str]:
    kind, _ = base_type(field.type)
    placeholder = {
        int: "N",
        float: "X",
        str: "TEXT",
        Annotated: "PATH",
        bool: "[true|false]",
        list: "A [B ...]",
        dict: "JSON",
    }.get(kind, "")
    placeholder = "|".join(filter(None, [placeholder, *choices_of(field.type)]))
    default = field.default if field.default is not dataclasses.MISSING else None
    after = "" if default is None or default is False or default == "" else f" (default {default})"
    after += f" (also --{alias})" if alias else ""
    name = f"--{field.name} {placeholder}"
    if field.metadata.get("positional"):
        name = field.name.upper() + (f" [{field.name.upper()} ...]" if kind is list else "")
    return [f"  {name}", f"      {field.metadata['help']}{after}"]
