"""The part of a model card that tells of its text: sources, sizes, licences, what was dropped."""

from tinygpt_hf.cards.facts import RunRecord, finite, objects
from tinygpt_hf.cards.markdown import code
from tinygpt_hf.cards.numbers import exact

FILES_SHOWN = 20


def data_card(run: RunRecord) -> str:
    """The section, as Markdown."""
    if not run.sources and run.value("text") is None:
        return "## Training text\n\nThe run does not say what it was trained on: find out before you publish it."
    lines = ["## Training text\n"]
    for source in run.sources:
        lines += _source_lines(source)
    apart = run.value("text", "validation_source")
    if isinstance(apart, dict):
        lines += ["\nFor validation, apart from it:\n", *_source_lines(apart)]
    lines.append("\nWhat became of it:\n")
    for part, title in (("train", "training"), ("validation", "held out for validation")):
        known = [(run.number("text", part, f"num_{name}"), name) for name in ("documents", "tokens", "bytes")]
        shown = [f"{exact(number)} {name}" for number, name in known if number]
        if shown:
            lines.append(f"- {title}: {', '.join(shown)}" + (" (bytes of what is learnt)" if run.chats else ""))
    licence = run.setting("training", "data_license")
    if isinstance(licence, str):
        lines.append(f"- licence of the text, as stated by who trained the model: {code(licence)}")
    lines += [_prepared(corpus) for corpus in objects(run.value("text", "corpora"))]
    lines.append(_dropped(run))
    return "\n".join(lines)


def _source_lines(source: dict) -> list[str]:
    name, details = source.get("dataset_name"), []
    if finite(source.get("max_samples")):
        details.append(f"at most {exact(source['max_samples'])} documents")
    if finite(source.get("weight")) is not None:
        details.append(f"each document used {source['weight']:g} times")
    if name == "toyland":
        what = "Toyland, the simple English stories and dialogues that tinygpt_hf writes itself (Apache-2.0)"
        return [f"- {', '.join([what, *details])}"]
    if isinstance(name, str):
        for word, key in (
            ("configuration", "dataset_config_name"),
            ("split", "dataset_split"),
            ("revision", "dataset_revision"),
        ):
            if isinstance(source.get(key), str):
                details.append(f"{word} {code(source[key])}")
        if isinstance(source.get("commit"), str):
            details.append(f"commit {code(source['commit'])}")
        where = "dataset of the Hub" if source.get("hub") is True else "dataset"
        return [f"- {where} {code(name)}{', ' if details else ''}{', '.join(details)}; licence: {_licence(source)}"]
    files = objects(source.get("files"))
    number, size = finite(source.get("num_files")) or len(files), finite(source.get("size"))
    of = f" of {exact(size)} bytes" if size else ""
    more = f"; the first {FILES_SHOWN}:" if number > FILES_SHOWN else ":"
    lines = [
        f"- {exact(number)} file{'s' if number != 1 else ''}{of}{', ' if details else ''}{', '.join(details)}{more}"
    ]
    for file in files[:FILES_SHOWN]:
        size = f", {exact(file['size'])} bytes" if finite(file.get("size")) else ""
        lines.append(f"  - {code(file.get('name'))}{size}")
    return [*lines, f"  - licence: {_licence(source)}"]


def _licence(source: dict) -> str:
    known = source.get("license")
    return f"{code(known)}, says its own card" if isinstance(known, str) else "not stated: find out before you publish"


def _prepared(corpus: dict) -> str:
    """What its corpus.json says was left out before the training."""

    def part(name: str) -> dict:
        return corpus[name] if isinstance(corpus.get(name), dict) else {}

    def amount(found, name: str) -> str:
        return exact(finite(found.get(name)) or 0) if isinstance(found, dict) else "0"

    read, kept = part("read"), part("kept")
    rules = [f"{code(rule)} {amount(entry, 'documents')}" for rule, entry in part("dropped").items()]
    changed = [f"{code(step)} {amount(part('mended'), step)}" for step in part("mended")]
    licence = f"; its licence, as stated there: {code(corpus['license'])}" if corpus.get("license") else ""
    return (
        f"- {code(corpus.get('name'))} was prepared by `tinygpt prepare-corpus`, preset {code(corpus.get('preset'))}. As its "
        f"corpus.json says, {amount(kept, 'documents')} of {amount(read, 'documents')} documents stayed, "
        f"{amount(kept, 'bytes')} of {amount(read, 'bytes')} bytes. Documents dropped: {', '.join(rules) or 'none'}; texts "
        f"changed: {', '.join(changed) or 'none'}{licence}"
    )


def _dropped(run: RunRecord) -> str:
    split = run.value("text", "split")
    share = finite(split.get("percentage")) if isinstance(split, dict) else None
    known = objects(run.value("text", "corpora"))
    before = "" if known or run.is_toyland else " What was left out before, the run does not say."
    held = f" Held out for validation: {share:g} % of the text." if share is not None else ""
    return (
        "- dropped by the training: nothing. No document was filtered, cleaned or deduplicated, and every token stands in exactly "
        "one row; of conversations longer than a row the turns that did not fit were left out; special tokens written in the "
        f"text were spelt out as plain text.{before}{held}"
    )
