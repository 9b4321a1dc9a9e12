"""Describe how a text and its settings differ from those that earlier rows or a tokenizer were made from.

changes({"sources": [{"files": [...]}]}, {"sources": [{"files": [...]}]}, ["sources"])      # ["sources (a.txt)"]
"""

from collections.abc import Iterable

NAMED = 3  # files named in a message
SETTINGS = {"max_samples": "max_train_samples", "how": "validation_split", "percentage": "validation_split_percentage"}
UNREADABLE = ("files", "listing", "num_files")  # named without their values


def changes(known: dict, facts: dict, names: Iterable[str]) -> list[str]:
    """List the facts among `names` that differ between `known` and `facts`, with the file or setting that changed."""
    changed = []
    for name in names:
        before, now = known.get(name), facts.get(name)
        if before != now:
            details = _differences(before, now)
            changed.append(f"{name} ({', '.join(details)})" if details else name)
    return changed


def _differences(before, now) -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        return [_difference(n, before.get(n), now.get(n)) for n in sorted(before | now) if before.get(n) != now.get(n)]
    if not (isinstance(before, list) and isinstance(now, list)):
        return []
    if len(before) != len(now):
        return [f"{len(before)}, now {len(now)}"]
    pairs = enumerate(zip(before, now, strict=True), 1)
    place = "entry {}: " if len(now) > 1 else ""
    return [place.format(number) + words for number, (one, other) in pairs for words in _differences(one, other)]


def _difference(name: str, before, now) -> str:
    if name == "files" and before and now:
        names = sorted({file["name"] for file in [*before, *now] if file not in before or file not in now})
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        return ", ".join(names[:NAMED]) + more or "the order of the files"
    if name in UNREADABLE:
        return name
    values = ["not set" if value is None else str(value) for value in (before, now)]
    return f"{SETTINGS.get(name, name)} {values[0]}, now {values[1]}"
