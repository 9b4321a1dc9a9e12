"""Put settings over each other, default < file < flags: a later choice replaces the earlier layer's alternatives.

What is an alternative to what, and what means nothing without what, stands on the fields (`excludes`, `needs`, `follows`:
arguments.py). Within one layer alternatives are an error. A setting is chosen where it has another value than its default.
"""

import dataclasses
from collections.abc import Iterator

from tinygpt_hf.errors import UsageError

Fields = dict[str, tuple[type, dataclasses.Field]]  # setting -> (its dataclass, its field)


def alternatives(flat: Fields) -> Iterator[tuple[str, str]]:
    """List every declared pair of alternatives; the second may be "name=value"."""
    for name, (group, field) in flat.items():
        for other in field.metadata.get("excludes", ()):
            others = [f.name for f in dataclasses.fields(group) if f.name != name] if other == "*" else [other]
            yield from ((name, other) for other in others if other.partition("=")[0] in flat)


def default_of(field: dataclasses.Field):
    """Return the value that a field has by itself."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def holds(condition: str, values: dict, flat: Fields) -> bool:
    """Is the setting chosen among `values`, or, of "name=value", does it have that value there?"""
    name, _, word = condition.partition("=")
    value = values.get(name, default_of(flat[name][1]))
    return value == (word or value) and (bool(word) or value != default_of(flat[name][1]))


def conflicts(values: dict, flat: Fields, where: dict[str, str]) -> list[UsageError]:
    """Return an error for each two alternatives that are chosen together. `where`: what a setting is called."""
    errors = []
    for one, condition in alternatives(flat):
        if holds(one, values, flat) and holds(condition, values, flat):
            names = (one, condition.partition("=")[0])
            said = [f"{where.get(name, f'--{name}')} {str(values.get(name))[:50]}" for name in names]
            errors.append(UsageError(f"{' and '.join(said)} are both given", "one of them", "remove the other"))
    return errors


def _unmet(name: str, values: dict, flat: Fields) -> list[str]:
    """Name what a chosen setting needs one of, where none is chosen."""
    needs = [need for need in flat[name][1].metadata.get("needs", ()) if need.partition("=")[0] in flat]
    met = not holds(name, values, flat) or any(holds(need, values, flat) for need in needs)
    return [] if met else needs


def lonely(values: dict, flat: Fields) -> list[UsageError]:
    """Return an error for each setting that is chosen without what gives it a meaning."""
    errors = []
    for name in values:
        if needs := [need.replace("=", " ") for need in _unmet(name, values, flat)]:
            problem = f"--{name} is given without --{' or --'.join(needs)}"
            errors.append(UsageError(problem, "both or neither", f"add --{needs[0]}, or remove --{name}"))
    return errors


def laid_over(earlier: dict, later: dict, flat: Fields) -> tuple[dict, dict[str, str]]:
    """Lay a layer over an earlier one; return what is in force, and what gave way to which setting of the later layer."""
    gone: dict[str, str] = {}
    for pair in alternatives(flat):
        for new, old in (pair, pair[::-1]):
            name = old.partition("=")[0]
            if name not in later and holds(new, later, flat) and holds(old, earlier, flat):
                gone.setdefault(name, new.partition("=")[0])
    values = {name: value for name, value in earlier.items() if name not in gone} | later

    def without(name: str) -> list[str]:
        """Name what the setting meant something with and is there no longer."""
        needed = [need.partition("=")[0] for need in _unmet(name, values, flat) if holds(need, earlier, flat)]
        return needed + [other for other in (flat[name][1].metadata.get("follows"),) if other in gone]

    while leaving := [name for name in earlier if name in values and name not in later and without(name)]:
        for name in leaving:  # it may have been needed in its turn
            lost = without(name)[0]
            gone[name] = gone.get(lost, lost)
        values = {name: value for name, value in values.items() if name not in gone}
    return values, gone


def open_settings(*groups) -> frozenset[str]:
    """Name the settings nobody gave: neither a file, nor a flag, nor Python."""
    return frozenset(
        f.name for group in groups for f in dataclasses.fields(group) if f.name not in getattr(group, "given", ())
    )


def chosen(groups: tuple, settings: dict) -> tuple:
    """Return the groups with these values; they still know which settings somebody gave."""
    changed = [
        dataclasses.replace(
            group, **{f.name: settings[f.name] for f in dataclasses.fields(group) if f.name in settings}
        )
        for group in groups
    ]
    for new, old in zip(changed, groups, strict=True):
        new.given = getattr(old, "given", frozenset())
    return tuple(changed)
