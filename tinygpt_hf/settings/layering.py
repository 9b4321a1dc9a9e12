"""Override settings in layers: defaults, then the file, then flags. A later setting also removes its alternatives.

The fields declare alternatives and dependencies (`excludes`, `needs`, `follows`: arguments.py). Two alternatives within one
layer are an error. A setting counts as chosen if its value is not the default.
"""

import dataclasses
from collections.abc import Iterator

from tinygpt_hf.errors import UsageError

Fields = dict[str, tuple[type, dataclasses.Field]]  # setting -> (its dataclass, its field)


def alternatives(flat: Fields) -> Iterator[tuple[str, str]]:
    """Yield each declared pair of alternatives; the second may be "name=value"."""
    for name, (group, field) in flat.items():
        for other in field.metadata.get("excludes", ()):
            others = [f.name for f in dataclasses.fields(group) if f.name != name] if other == "*" else [other]
            yield from ((name, other) for other in others if other.partition("=")[0] in flat)


def default_of(field: dataclasses.Field):
    """Return the default value of a field."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def holds(condition: str, values: dict, flat: Fields) -> bool:
    """Return True if the setting `condition` is chosen in `values`, or for "name=value" has that value."""
    name, _, word = condition.partition("=")
    value = values.get(name, default_of(flat[name][1]))
    return value == (word or value) and (bool(word) or value != default_of(flat[name][1]))


def conflicts(values: dict, flat: Fields, where: dict[str, str]) -> list[UsageError]:
    """Return an error for each pair of alternatives that are both chosen. `where`: setting -> its name in the message."""
    errors = []
    for one, condition in alternatives(flat):
        if holds(one, values, flat) and holds(condition, values, flat):
            names = (one, condition.partition("=")[0])
            said = [f"{where.get(name, f'--{name}')} {str(values.get(name))[:50]}" for name in names]
            errors.append(UsageError(f"{' and '.join(said)} are both given", "one of them", "remove the other"))
    return errors


def _unmet(name: str, values: dict, flat: Fields) -> list[str]:
    """Return the settings of which `name` needs one, if it is chosen and none of them is."""
    needs = [need for need in flat[name][1].metadata.get("needs", ()) if need.partition("=")[0] in flat]
    met = not holds(name, values, flat) or any(holds(need, values, flat) for need in needs)
    return [] if met else needs


def unmet_needs(values: dict, flat: Fields) -> list[UsageError]:
    """Return an error for each chosen setting without one that it needs."""
    errors = []
    for name in values:
        if needs := [need.replace("=", " ") for need in _unmet(name, values, flat)]:
            problem = f"--{name} is given without --{' or --'.join(needs)}"
            errors.append(UsageError(problem, "both or neither", f"add --{needs[0]}, or remove --{name}"))
    return errors


def override(earlier: dict, later: dict, flat: Fields) -> tuple[dict, dict[str, str]]:
    """Override an earlier layer by a later one. Returns (values, removed setting -> the later setting that removed it)."""
    removed: dict[str, str] = {}
    for pair in alternatives(flat):
        for new, old in (pair, pair[::-1]):
            name = old.partition("=")[0]
            if name not in later and holds(new, later, flat) and holds(old, earlier, flat):
                removed.setdefault(name, new.partition("=")[0])
    values = {name: value for name, value in earlier.items() if name not in removed} | later

    def lost(name: str) -> list[str]:
        """Return the removed settings that `name` needs or follows."""
        needed = [need.partition("=")[0] for need in _unmet(name, values, flat) if holds(need, earlier, flat)]
        return needed + [other for other in (flat[name][1].metadata.get("follows"),) if other in removed]

    while dependent := [name for name in earlier if name in values and name not in later and lost(name)]:
        for name in dependent:  # others may depend on these, so loop until nothing more is removed
            cause = lost(name)[0]
            removed[name] = removed.get(cause, cause)
        values = {name: value for name, value in values.items() if name not in removed}
    return values, removed


def open_settings(*groups) -> frozenset[str]:
    """Return the names of settings that were not given by a file, a flag or in Python."""
    return frozenset(
        f.name for group in groups for f in dataclasses.fields(group) if f.name not in getattr(group, "given", ())
    )


def chosen(groups: tuple, settings: dict) -> tuple:
    """Return copies of the groups with the values `settings`; their `given` names stay the same."""
    changed = [
        dataclasses.replace(
            group, **{f.name: settings[f.name] for f in dataclasses.fields(group) if f.name in settings}
        )
        for group in groups
    ]
    for new, old in zip(changed, groups, strict=True):
        new.given = getattr(old, "given", frozenset())
    return tuple(changed)
