"""The card of a prepared corpus: README.md made from the facts of its corpus.json, opening with metadata the Hub understands."""

import unicodedata
from typing import Any

from tinygpt_hf.cards.markdown import block, code, front_matter
from tinygpt_hf.cards.numbers import count, exact
from tinygpt_hf.cards.render import LICENSES
from tinygpt_hf.settings.checks import LANGUAGE, LICENSE

BAR = 40  # characters of the longest bar
TOKENS_PER_PARAMETER = 20  # Hoffmann et al. 2022
GOOD_EPOCHS = 4  # repeating data so often is nearly as good as new data: Muennighoff et al. 2023
BYTES_PER_TOKEN = 4  # of English with a vocabulary of thousands, where no tokenizer was given


def corpus_card(facts: dict) -> str:
    """The whole card, as Markdown."""
    parts = [_front(facts), f"# {code(facts['name'])}", _sizes(facts), _rights(facts), _lengths(facts), _scripts(facts)]
    parts += [_dropped(facts), _duplicates(facts), _personal(facts), _extremes(facts), _tokenizer(facts)]
    parts += ["## What to expect\n\n" + advice(facts), _sources(facts), _reading(facts)]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _kinds(facts: dict) -> list[str]:
    names = [name.removeprefix("data/") for name in facts["files"] if name.startswith("data/")]
    return [kind for kind in ("text", "messages") if any(name.startswith(f"{kind}-") for name in names)]


def _front(facts: dict) -> str:
    kinds = _kinds(facts)
    configs: list[dict[str, Any]] = [
        {
            "config_name": "default" if len(kinds) == 1 else kind,
            "data_files": [{"split": "train", "path": f"data/{kind}-*"}],
        }
        for kind in kinds
    ]
    configs[0]["default"] = True
    if any(name.startswith("excluded/") for name in facts["files"]):
        configs.append({"config_name": "excluded", "data_files": [{"split": "train", "path": "excluded/*"}]})
    meta = {"pretty_name": facts["name"]}
    license = facts["license"] or ""
    if license in LICENSES:
        meta["license"] = license
    elif LICENSE.fullmatch(license):
        meta |= {"license": "other", "license_name": license}
    if languages := [word for word in facts["language"] if LANGUAGE.fullmatch(word)]:  # the Hub refuses others
        meta["language"] = languages
    return front_matter(meta | {"task_categories": ["text-generation"], "configs": configs})


def _sizes(facts: dict) -> str:
    read, kept = facts["read"], facts["kept"]
    copies = f" ({exact(kept['with_copies'])} with copies)" if kept["with_copies"] != kept["documents"] else ""
    tokens = f", {exact(kept['tokens'])} tokens" if "tokens" in kept else ""
    return (
        f"{exact(kept['documents'])} documents{copies}, {exact(kept['bytes'])} bytes{tokens}, of "
        f"{exact(read['documents'])} documents and {exact(read['bytes'])} bytes read. Prepared by "
        f"`tinygpt prepare-corpus` with the preset {code(facts['settings']['corpus']['preset'])}."
    )


def _rights(facts: dict) -> str:
    stated = f"Licence, as stated by who prepared it: {code(facts['license'])}." if facts["license"] else (
        "Licence: **not stated**. Set `--license` once you know it."
    )  # fmt: skip
    rights = f" Rights, in their words: {code(facts['rights'])}." if facts["rights"] else ""
    return (
        f"## Licence and rights\n\n{stated}{rights}\n\nTrain on, and pass on, only text you may use for that: yours, in the "
        "public domain, or under a licence that allows it. A model can repeat what it was trained on, so private text does "
        "not become public by training, but it can leak by it. The rules below look for shapes, not for rights."
    )


def _lengths(facts: dict) -> str:
    most = max(facts["lengths"].values())
    rows = [
        f"{exact(int(least)):>14} {'#' * max(1, round(BAR * number / most)):<{BAR}} {exact(number)}"
        for least, number in facts["lengths"].items()
    ]
    return "## Lengths\n\nDocuments by bytes, from the number on the left to below the next one:\n\n" + block(
        "\n".join(rows)
    )


def _scripts(facts: dict) -> str:
    shares = [f"- {code(name)}: {share:.2%} of the letters" for name, share in list(facts["scripts"].items())[:12]]
    known = sorted(facts["languages"].items(), key=lambda e: -e[1]["bytes"])[:12]
    size = max(1, sum(entry["bytes"] for entry in facts["languages"].values()))
    told = [
        f"- {code(name)}: {exact(entry['documents'])} documents, {entry['bytes'] / size:.2%} of the bytes"
        for name, entry in known
    ]
    if told:
        shares = ["Languages, as py3langid tells them:\n", *told, "\nScripts:\n", *shares]
    stated = f"\nLanguages, as stated: {', '.join(map(code, facts['language']))}." if facts["language"] else ""
    return "## Languages and scripts\n\n" + "\n".join(shares or ["There is no letter in it."]) + "\n" + stated


def _dropped(facts: dict) -> str:
    lines = [
        f"- {code(rule)}: {exact(entry['documents'])} documents, {exact(entry['bytes'])} bytes"
        for rule, entry in sorted(facts["dropped"].items(), key=lambda e: -e[1]["documents"])
    ]
    mended = [f"- {code(name)}: {exact(number)} texts changed" for name, number in facts["mended"].items()]
    masked = facts["settings"]["corpus"]["mask"]
    mended += [
        f"- {code(f'mask {kind}')}: {exact(number)} masked in the documents kept"
        for kind, number in facts["personal_data"].items()
        if kind in masked
    ]
    if faults := facts["read"]["encoding_errors"]:
        mended.append(f"- {exact(faults)} bytes that were no UTF-8 became U+FFFD, in all that was read")
    text = "Each stands under `excluded/` with its rule, reason and origin." if lines else "Nothing was dropped."
    return "\n".join(["## What was dropped or changed\n", text, "", *lines, *mended])


def _duplicates(facts: dict) -> str:
    near, leak, split = facts["duplicates"], facts["leakage"], facts["split"]
    corpus = facts["settings"]["corpus"]
    paragraphs = corpus["max_seen_paragraphs"]
    lines = [
        f"- {words}: "
        + (f"{exact(facts['dropped'].get(rule, {'documents': 0})['documents'])} dropped" if on else "off")
        for rule, words, on in (
            ("exact_duplicate", "same text as an earlier document", corpus["exact_duplicates"]),
            ("seen_paragraphs", "mostly paragraphs of earlier documents", paragraphs is not None and paragraphs < 1),
            ("near_duplicate", "nearly an earlier or a held-out document", near["setting"] == "drop"),
        )
    ]
    if leak["why_not_measured"]:
        lines.append(
            f"- near-duplicate leakage between training and validation: not measured ({leak['why_not_measured']})"
        )
    else:
        held_out = f"the {exact(split['held_out'])} held out, " + (
            "those of the validation files"
            if split["by"] == "validation files"
            else f"{split['percentage']:g} % of the documents by their hash"
        )
        found = f"; {exact(leak['dropped'])} such were dropped" if leak["dropped"] else ""
        lines.append(
            f"- near-duplicate leakage: **{exact(leak['documents'])}** training documents have a near duplicate (similarity "
            f"{near['threshold']:g} or more) among {held_out}: all were compared{found}"
        )
    if leak["near_duplicates_kept"]:
        lines.append(
            f"- near duplicates kept: {exact(leak['near_duplicates_kept'])}; `--near_duplicates drop` leaves one of each"
        )
    return "## Duplicates\n\n" + "\n".join(lines)


def _personal(facts: dict) -> str:
    masked = set(facts["settings"]["corpus"]["mask"])
    lines = [
        f"- {code(kind)}: {exact(number)} found, {'masked' if kind in masked else 'not masked'}"
        for kind, number in facts["personal_data"].items()
    ]
    return (
        "## Personal data\n\nFound by shape (e-mail, phone, public IP address, card number, key) in the documents kept; names "
        "and addresses of persons have no shape and were not looked for.\n\n" + "\n".join(lines or ["- none found"])
    )


def _extremes(facts: dict) -> str:
    longest = [f"- {code(entry['origin'])}: {exact(entry['bytes'])} bytes" for entry in facts["longest"]]
    strange = [f"- {code(entry['origin'])}: {entry['share']:.1%}" for entry in facts["strangest"]]
    return "\n".join(
        ["## Longest and strangest documents\n", *longest, "\nLargest share of characters that are neither letter nor space:\n"]
        + strange
    )  # fmt: skip


def _tokenizer(facts: dict) -> str | None:
    known = facts.get("tokenizer")
    if not known:
        return "## Tokens\n\nNo tokenizer was given: `--tokenizer_name` counts tokens and characters outside of it."
    unknown = known["unknown_characters"]
    words = "none" if not unknown["distinct"] else (
        f"{exact(unknown['distinct'])}, which occur {exact(unknown['occurrences'])} times: "
        + ", ".join(f"{_glyph(name)}{name} ({exact(number)})" for name, number in unknown["commonest"].items())
    )  # fmt: skip
    return (
        f"## Tokens\n\n{code(known['name'])}, vocabulary {exact(known['vocabulary'])}: {exact(facts['kept']['tokens'])} tokens, "
        f"{known['tokens_per_byte']:.3f} per byte.\n\nCharacters outside the tokenizer: {words}."
    )


def _glyph(name: str) -> str:
    """`U+03A9` -> the character in a code span and a space; nothing for what shows nothing, or sits on its neighbour."""
    character = chr(int(name.removeprefix("U+"), 16))
    return f"{code(character)} " if character.isprintable() and not unicodedata.combining(character) else ""


def advice(facts: dict) -> str:
    """What a model can learn from this much text."""
    size = facts["kept"]["bytes"]
    tokens = facts["kept"].get("tokens") or size // BYTES_PER_TOKEN
    about = "" if "tokens" in facts["kept"] else "about "
    parameters = GOOD_EPOCHS * tokens / TOKENS_PER_PARAMETER
    size_words = (
        f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB" if size >= 1e6 else f"{size / 1e3:.3g} KB"
    )
    head = f"{size_words} of text, {about}{count(tokens)} tokens"
    if size < 3_000_000:
        return (
            f"{head}: a 1M-parameter model will memorise it; expect the training loss to fall on while the validation loss "
            "turns up after a few epochs, samples that quote the text, and good spelling rather than sense. Take a small "
            "vocabulary (`--tokenizer_type char` or `--vocab_size 512`), dropout, and the best weights rather than the last; "
            "or continue from a trained model (`--model_name_or_path`)."
        )
    body = (
        f"{head}: at {TOKENS_PER_PARAMETER} tokens per parameter and up to {GOOD_EPOCHS} epochs this feeds a model of about "
        f"{count(int(parameters))} parameters; a larger one will begin to memorise. "
    )
    if size < 100_000_000:
        return body + "Expect fluent sentences in the manner of the text, little knowledge, and no reasoning."
    return body + "Expect fluent text; knowledge grows with size. Use `--mixed_precision auto` and a GPU."


def _sources(facts: dict) -> str:
    lines = []
    for source in facts["sources"]:
        if source.get("dataset_name"):
            lines.append(f"- dataset {code(source['dataset_name'])}")
        files = source.get("files") or []
        for file in files[:20]:
            size = f", {exact(file['size'])} bytes" if file.get("size") is not None else ""
            known = f", sha256 {code(file['sha256'][:16])}" if file.get("sha256") else ""
            lines.append(f"- {code(file['name'])}{size}{known}")
        number = source.get("num_files", len(files))
        if number > 20:
            lines.append(f"- and {exact(number - 20)} more" + ("; all stand in corpus.json" if len(files) > 20 else ""))
    lines += [f"- {remark}" for remark in facts["source_remarks"]]
    return "## Sources\n\n" + "\n".join(lines)


def _reading(facts: dict) -> str:
    words = "text" if _kinds(facts) == ["text"] else "messages"
    code_lines = (
        f'from datasets import load_dataset\n\ndataset = load_dataset("FOLDER", split="train")  # column {words}'
    )
    if len(_kinds(facts)) > 1:
        code_lines = 'from datasets import load_dataset\n\ndataset = load_dataset("FOLDER", "text", split="train")'
    return (
        "## Reading it\n\n"
        + block(code_lines, "python")
        + "\n\n"
        + block("tinygpt train --train_file FOLDER ...", "bash")
    )
