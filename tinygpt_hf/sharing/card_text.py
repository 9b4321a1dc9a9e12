"""The words of a model card, section by section. Values of the run stand in code spans and blocks only."""

import math
from pathlib import Path

from tinygpt_hf.model.conversion import STOCK_CLASSES
from tinygpt_hf.sharing.data_card import data_card
from tinygpt_hf.sharing.figures import count, duration, exact
from tinygpt_hf.sharing.quoting import block, code
from tinygpt_hf.sharing.run_record import SECTIONS, RunRecord, finite

SAMPLES_SHOWN = 4
TRUST = "trust_remote_code" + "=True"  # words for a reader: nothing here sets it
OPTIMAL = 20  # tokens per parameter: Hoffmann et al. 2022, section 3
PLACES = {"output_dir", "overwrite", "resume_from_checkpoint"}  # of the machine it ran on, not of the model
NAMES = {
    "rope": "rotary positions", "learned": "learned positions", "rmsnorm": "RMSNorm", "layernorm": "LayerNorm",
    "gated": "gated MLPs", "plain": "plain MLPs",
}  # fmt: skip


def body(run: RunRecord, model_id: str | None, has_curve: bool) -> str:
    """The card without its metadata. `model_id`: its name on the Hub, where it has one."""
    name = model_id or run.name
    is_plain = name.isascii() and name.replace("-", "").replace("/", "").isalnum()
    shown = name if is_plain else code(name)
    parts = [
        f"# {shown}",
        _introduction(run),
        _architecture(run),
        _use(run, model_id),
        data_card(run),
        _training(run, has_curve),
        _results(run),
        _samples(run),
        _limits(run),
        _machine(run),
        _versions(run),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _introduction(run: RunRecord) -> str:
    size = f" of {count(run.parameters)} parameters" if run.parameters else ""
    base = run.value("base_model", "name")
    began = f", trained on from the weights of {code(base)}" if isinstance(base, str) else ", trained from scratch"
    made = f"{began} with [tinygpt_hf](https://pypi.org/project/tinygpt_hf/)" if run.facts else ""
    learnt = "was trained on conversations" if run.chats else "continues text; it was not trained to converse"
    return f"A small language model{size}{made}. It {learnt}. This card was made from the files of the run, by no hand."


def _architecture(run: RunRecord) -> str:
    numbers = {
        "parameters": run.parameters,
        "layers": run.config.get("num_hidden_layers"),
        "width": run.config.get("hidden_size"),
        "attention heads": run.config.get("num_attention_heads"),
        "key/value heads": run.config.get("num_key_value_heads"),
        "width of a head": run.config.get("head_dim"),
        "width of the MLP": run.config.get("intermediate_size"),
        "context in tokens": run.config.get("max_position_embeddings"),
        "vocabulary": run.config.get("vocab_size"),
        "bytes per token": run.bytes_per_token,
    }
    rows = [f"| {name} | {exact(value)} |" for name, value in numbers.items() if finite(value) is not None]
    if not rows:
        return ""
    kinds = [run.config.get(name) for name in ("position_embedding_type", "norm_type", "mlp_type")]
    words = [NAMES[kind] for kind in kinds if isinstance(kind, str) and kind in NAMES]
    words += ["normalised queries and keys"] if run.config.get("qk_norm") is True else []
    if type(run.config.get("tie_word_embeddings")) is bool:
        words.append(
            f"{'one matrix' if run.config['tie_word_embeddings'] else 'two matrices'} for input and output embeddings"
        )
    sentences = [f"A decoder-only transformer with {', '.join(words)}."] if words else []
    if run.equal_to:
        sentences.append(
            f"It computes exactly what `{STOCK_CLASSES[run.equal_to]}` of Transformers computes and can be exported as one."
        )
    elif run.is_ours and run.config:
        sentences.append("No stock architecture of Transformers computes the same.")
    if run.tokenizer_kind:
        sentences.append(f"Its tokenizer knows {_kind_words(run)}.")
    return "\n".join(
        ["## What it is\n", *([" ".join(sentences) + "\n"] if sentences else []), "| | |", "|---|---|", *rows]
    )


def _kind_words(run: RunRecord) -> str:
    kinds = {
        "characters": "characters, and bytes for those it never saw",
        "bytes": "bytes",
        "byte-level BPE": "pieces of words (byte-level BPE)",
    }
    return kinds.get(run.tokenizer_kind, f"pieces of words ({run.tokenizer_kind})")


def _use(run: RunRecord, model_id: str | None) -> str:
    model = model_id or "MODEL"
    ask = '[{"role": "user", "content": "Hello!"}]' if run.chats else '"Once upon a time"'
    answer = '["generated_text"][-1]["content"]' if run.chats else '["generated_text"]'
    lines = ["## How to use it\n"]
    if not model_id:
        lines.append("`MODEL` is the id of this repository on the Hub, or a folder with its files.\n")
    with_us = "import tinygpt_hf  # pip install tinygpt_hf; no code of this repository runs\n" if run.is_ours else ""
    lines.append(
        f"```python\n{with_us}from transformers import pipeline\n\n"
        f'generator = pipeline("text-generation", model="{model}")\n'
        f"print(generator({ask}, max_new_tokens=100)[0]{answer})\n```\n"
    )
    if run.is_ours:
        lines.append(
            f'Without that package, `pipeline("text-generation", model="{model}", {TRUST})` runs the two Python files of this '
            "repository, `configuration_tinygpt.py` and `modeling_tinygpt.py`: read them, and name the `revision` you read.\n"
        )
    commands = [
        f"tinygpt chat {model}     # a conversation in the terminal",
        f"tinygpt serve {model}    # for clients of OpenAI's interface",
    ]
    if not run.chats:
        commands[0] = f"tinygpt chat {model}     # in the terminal; it goes on with what you type"
    lines.append("```bash\npip install 'tinygpt_hf[serve]'\n" + "\n".join(commands))
    if run.equal_to:
        lines[-1] += (
            f"\ntinygpt export {model} --to {run.equal_to} --output_dir exported    # then nothing of tinygpt_hf is needed"
        )
    lines[-1] += "\n```"
    if run.is_ours and run.equal_to:
        lines.append(
            f"\nThe exported folder is a `{STOCK_CLASSES[run.equal_to]}`: Transformers, vLLM and others load it with neither "
            "the package nor `trust_remote_code`. `--to gguf` serves llama.cpp and Ollama, `--to onnx` ONNX Runtime."
        )
    return "\n".join(lines)


def _training(run: RunRecord, has_curve: bool) -> str:
    changed, rest = _settings(run)
    steps, tokens = run.number("result", "steps"), run.number("result", "tokens")
    lines = ["## Training\n"]
    if steps and tokens:
        learnt = run.number("text", "train", "num_target_tokens")
        seen = f", each token of the text about {tokens / learnt:.2g} times" if learnt else ""
        lines.append(f"{exact(steps)} steps on {exact(tokens)} predicted tokens{seen}.\n")
    if has_curve:
        lines.append("![training and validation loss over the steps](loss_curve.svg)\n")
    if changed:
        lines.append(f"Settings that differ from the defaults:\n\n{block(_yaml(changed), 'yaml')}\n")
    if rest:
        lines.append(f"<details>\n<summary>All other settings</summary>\n\n{block(_yaml(rest), 'yaml')}\n\n</details>")
    return "\n".join(lines).rstrip() if len(lines) > 1 else ""


def _settings(run: RunRecord) -> tuple[dict, dict]:
    """(settings other than the default, the others), by section; places on the machine it ran on are left out."""
    changed, rest = {}, {}
    for section, group in SECTIONS.items():
        given, defaults = run.settings.get(section), group()
        for name, value in given.items() if isinstance(given, dict) else ():
            if name in PLACES or not hasattr(defaults, str(name)):
                continue
            where = rest if value == getattr(defaults, name) else changed
            where.setdefault(section, {})[name] = _without_place(value)
    return changed, rest


def _without_place(value):
    """A path that begins at the root or the home of a machine tells about the machine: its last part is enough."""
    if isinstance(value, list):
        return [_without_place(inner) for inner in value]
    if isinstance(value, dict):
        return {key: _without_place(inner) for key, inner in value.items()}
    if isinstance(value, str) and "://" not in value and (value.startswith(("/", "~", "..")) or ":\\" in value):
        return Path(value.replace("\\", "/")).name
    return value


def _yaml(value: dict) -> str:
    import yaml

    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip("\n")


def _results(run: RunRecord) -> str:
    loss = run.number("result", "eval_loss")
    part = finite(run.evaluation.get("eval_rows")) if loss is None else None
    loss = finite(run.evaluation.get("eval_loss")) if loss is None else loss
    if loss is None:
        return ""
    bits = finite(run.number("result", "eval_bits_per_byte") or run.evaluation.get("eval_bits_per_byte"))
    rows = [("**this model**", loss, bits)]
    where = f"{exact(part)} rows" if part else "all"
    whose = ", the assistant's words only" if run.chats else ""
    titles = {"trigram": "counting trigrams", "unigram": "counting tokens", "uniform": "every token alike"}
    rows += [(titles[name], *run.baselines[name]) for name in titles if name in run.baselines]
    lines = [
        "## Results\n",
        f"On {where} of the text held out from training{whose}:\n",
        "| | nats per token | perplexity | bits per byte |",
        "|---|---|---|---|",
    ]
    for title, nats, per_byte in rows:
        perplexity = f"{math.exp(nats):,.2f}" if nats < 700 else ""
        lines.append(f"| {title} | {nats:.4f} | {perplexity} | {f'{per_byte:.4f}' if per_byte is not None else ''} |")
    notes = []
    accuracy = finite(run.evaluation.get("eval_accuracy"))
    if accuracy is not None:
        notes.append(f"Its first choice was the right token in {accuracy:.1%} of the cases.")
    if "trigram" in run.baselines and loss > run.baselines["trigram"][0]:
        notes.append("It predicts the text worse than counting trigrams does: it has not learnt much yet.")
    best, step = run.number("result", "best_loss"), run.number("result", "best_step")
    if best is not None and step is not None and best < loss:
        notes.append(
            f"These are the last weights; the best of the run, {best:.4f} after step {exact(step)}, are other ones."
        )
    notes.append("Nothing else was measured: no benchmark, no knowledge, no safety.")
    return "\n".join([*lines, "", " ".join(notes)])


def _samples(run: RunRecord) -> str:
    if not run.samples:
        return ""
    lines = [
        "## Samples\n",
        "Beginnings, and how the finished model goes on (temperature 0.8, top 50, first try, not chosen):",
    ]
    for sample in run.samples[:SAMPLES_SHOWN]:
        lines += ["", block(sample["prompt"]), "", "goes on:", "", block(sample["text"])]
    return "\n".join([*lines, "", _copies(run)])


def _copies(run: RunRecord) -> str:
    """How much of the samples stands word for word in the training text, beside how much recurs anyway."""
    number, copied, short, short_copied, held, held_copied, length, searched, tokens = (
        run.number("copies", name) or 0
        for name in ("sequences", "copied", "short", "short_copied", "held_out_sequences", "held_out_copied", "length",
                     "searched_tokens", "tokens")
    )  # fmt: skip
    if not (number or short) or not searched:
        return "Whether they are copied from the training text was not checked."
    said = []
    if number:
        said.append(
            f"{copied / number:.1%} of the {exact(number)} sequences of {exact(length)} characters in all samples stand word "
            "for word in the training text"
        )
        if held:
            said[-1] += f"; of held-out text, which nobody copied, {held_copied / held:.1%} do"
    if short:
        said.append(
            f"{exact(short_copied)} of the {exact(short)} samples shorter than {exact(length)} characters stand there whole"
        )
    if searched < tokens:
        said.append(f"{searched / tokens:.0%} of the text was searched, spread evenly: in all of it there may be more")
    return f"Copied? {'. '.join(said)}."


def _limits(run: RunRecord) -> str:
    tokens, context = run.number("result", "tokens"), finite(run.config.get("max_position_embeddings"))
    lines = [
        "## Limits and intended use\n",
        "For learning, for experiments, and for text like the text it was trained on.",
    ]
    if run.parameters and tokens:
        ratio = tokens / run.parameters
        little = f", far from the {OPTIMAL} or so that a model of its size could use" if ratio < OPTIMAL / 2 else ""
        lines.append(
            f"It has {count(run.parameters)} parameters and was trained on {count(tokens)} tokens "
            f"({ratio:.2g} per parameter{little})."
        )
    if not run.parameters or run.parameters < 1e8:
        lines.append(
            "A model this small writes sentences that look right; it knows next to nothing and does not reason."
        )
    else:
        lines.append(
            "A model of this size repeats facts of its training text, often wrongly, and says what is false as calmly."
        )
    lines.append("Do not rely on what it says, and do not let it decide about people.")
    if context:
        lines.append(f"It sees at most {exact(context)} tokens.")
    lines.append(
        "It was not made safe: whatever is in its training text, prejudice and personal data too, it may say, also word for word. "
        "It knows no other language than its training text does."
    )
    return "\n".join(lines[:1]) + "\n" + " ".join(lines[1:])


def _machine(run: RunRecord) -> str:
    device, processor = run.text("hardware", "device"), run.text("hardware", "processor")
    if device is None:
        return ""
    threads, processes = run.number("hardware", "threads"), run.number("hardware", "processes")
    words = [f"device {code(device)}"] + ([f"processor {code(processor)}"] if processor else [])
    words += [f"{exact(threads)} thread{'s' if threads != 1 else ''}"] if threads else []
    words += [f"{exact(processes)} processes"] if processes and processes > 1 else []
    precision = run.text("hardware", "mixed_precision")
    words += [f"mixed precision {code(precision)}"] if precision else []
    lines = ["## Hardware and time\n", f"Trained on {', '.join(words)}."]
    if run.seconds:
        lines.append(f"The steps took about {duration(run.seconds)}; evaluating and saving come on top.")
    lines.append("The energy it took was not measured.")
    return f"{lines[0]}\n{' '.join(lines[1:])}"


def _versions(run: RunRecord) -> str:
    found = run.value("versions")
    versions = {k: v for k, v in found.items() if isinstance(v, str)} if isinstance(found, dict) else {}
    lines = ["## Versions, and how to reproduce it\n"]
    if versions:
        lines.append(", ".join(f"{code(name)} {code(version)}" for name, version in versions.items()) + "\n")
    if not run.settings:
        return "\n".join(lines).rstrip() if versions else ""
    seed = finite(run.setting("training", "seed"))
    lines.append("```bash\ntinygpt train --config run.yaml --output_dir runs/again\n```\n")
    holds = "`run.yaml` holds every setting" + (f", the seed {exact(seed)} among them." if seed is not None else ".")
    if any("files" in source for source in run.sources):
        holds += " It names the training files, which must lie where it says."
    lines.append(
        f"{holds} With these versions and the same kind of processor, a run on a CPU comes out the same to the bit."
    )
    hashes = [(name, run.text(name)) for name in ("data", "tokenizer")]
    shown = [f"{name} {code(value)}" for name, value in hashes if value]
    if shown:
        lines.append(f"\nsha256, as in `run.json`: {', '.join(shown)}.")
    return "\n".join(lines)
