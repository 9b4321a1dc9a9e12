"""Render model cards and dataset cards (README.md) from the Jinja templates in this folder.

    write_card(Path("runs/mine"), "me/my-model")     # README.md and loss_curve.svg, unless a person edited README.md
    text = corpus_card(facts)                        # from the facts of a corpus.json

Values of a run cannot inject Markdown or HTML into a card. Numbers print as numbers, everything else as a code span or a
code block (`| block`). Its fence is longer than any run of backticks in it.
"""

import hashlib
import math
import re
import unicodedata
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import DatasetCard, DatasetCardData, EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tinygpt_hf import storage
from tinygpt_hf.cards.facts import SOURCE, Run, conform, is_hub_name
from tinygpt_hf.cards.loss_curve import loss_curve
from tinygpt_hf.errors import presentable, printable, redacted
from tinygpt_hf.model.conversion import STOCK_CLASSES
from tinygpt_hf.settings.checks import LANGUAGE, LICENSE

README, CURVE = "README.md", "loss_curve.svg"
# The license identifiers that the Hub accepts. Any other needs `license: other` with a `license_name`.
LICENSES = frozenset(
    """afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0 bigscience-openrail-m bsd
    bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0
    cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0
    cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m ecl-2.0
    epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 gemma gfdl gpl gpl-2.0 gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3
    llama3.1 llama3.2 llama3.3 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openrail openrail++ osl-3.0 other pddl
    postgresql unknown unlicense wtfpl zlib""".split()
)
METRICS = {"loss": "Loss (nats per token)", "perplexity": "Perplexity", "bits_per_byte": "Bits per byte"}
LONGEST_NAME, LONGEST_BLOCK = 200, 20_000
BAR = 40  # characters of the longest bar
_OWN_LINE = "<!-- tinygpt_hf made this card from the run; change anything, and it is yours: {} -->"


def write_card(folder: Path, model_id: str | None = None, into: Path | None = None) -> bool:
    """Write README.md and loss_curve.svg of a run folder into it or `into`. `model_id` is its name on the Hub, if any.

    Writes nothing and returns False if a person edited README.md, if the folder is no run, or if its run.json is missing
    while a card exists.
    """
    run = Run(folder)
    has_facts = run.is_recorded or run.settings and not (folder / README).exists()
    if not is_generated(folder) or not has_facts:
        return False
    picture = _picture(run)
    if picture:
        storage.write_file((into or folder) / CURVE, picture)
    storage.write_file((into or folder) / README, model_card(run, model_id))
    return True


def is_generated(folder: Path) -> bool:
    """Tell whether README.md may be overwritten: it is missing, or its last line holds the hash of the text above."""
    path = folder / README
    if path.is_symlink():
        return False
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False
    above, _, line = text.rstrip("\n").rpartition("\n")
    return line == _own_line(above)


def _own_line(text: str) -> str:
    return _OWN_LINE.format(hashlib.sha256(text.encode()).hexdigest()[:16])


def _picture(run: Run) -> str | None:
    return loss_curve({"": run.lines}, {name: baseline["loss"] for name, baseline in run.baselines.items()})


def model_card(run: Run, model_id: str | None = None) -> str:
    """Render the model card of a run. It shows loss_curve.svg, which `write_card` writes, if the log has a loss."""
    hub_name = next((name for name in (model_id, run.hub_model_id) if is_hub_name(name)), None)
    name = hub_name or run.name
    title = Markup(name) if re.fullmatch("[A-Za-z0-9/-]+", name) else name
    values = {"run": run, "title": title, "model": Markup(hub_name or "MODEL"), "has_name": bool(hub_name)}
    values |= {"stock_class": STOCK_CLASSES.get(run.equal_to), "has_curve": _picture(run) is not None}
    text = _render_card(ModelCard, metadata(run, hub_name), "model_card.md.jinja", values)
    return f"{text}\n{_own_line(text)}\n"


def metadata(run: Run, model_id: str | None = None) -> ModelCardData:
    """Return the metadata of a model card: library, task, tags, license, languages, datasets, base model and results."""
    result, base = run.record["result"], run.record["base_model"]
    about: dict[str, Any] = {"task_type": "text-generation", "task_name": "Text generation", **_held_out(run)}
    values = {kind: result[f"eval_{kind}"] for kind in METRICS if result[f"eval_{kind}"] is not None}
    results = [
        EvalResult(metric_type=kind, metric_name=METRICS[kind], metric_value=round(value, 4), **about)
        for kind, value in values.items()
    ]
    languages = run.setting("training", "language") or (["en"] if run.is_toyland else [])
    return ModelCardData(
        **_license_and_languages(run.setting("training", "license"), languages),
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["tinygpt", "tinygpt_hf", *(["conversational"] if run.record["chat"] else [])],
        datasets=_hub_datasets(run) or None,
        base_model=base["name"] if base["hub"] and is_hub_name(base["name"]) else None,
        metrics=["perplexity"] if results else None,
        model_name=line(model_id or run.hub_model_id or run.name) if results else None,
        eval_results=results or None,
    )


def _license_and_languages(license, languages) -> dict:
    """Return a license and languages as card metadata, without values that the Hub would refuse."""
    stated = {}
    if isinstance(license, str) and LICENSE.fullmatch(license):
        stated = {"license": license} if license in LICENSES else {"license": "other", "license_name": license}
    languages = languages if isinstance(languages, list) else [languages]
    codes = [word for word in languages if isinstance(word, str) and LANGUAGE.fullmatch(word)]
    return stated | ({"language": codes} if codes else {})


def _hub_datasets(run: Run) -> list[str]:
    names = [source["dataset_name"] for source in run.sources if source["hub"]]
    return list(dict.fromkeys(name for name in names if is_hub_name(name)))


def _held_out(run: Run) -> dict[str, Any]:
    """Return the dataset of the results for the model index: the held-out part of the training text."""
    datasets = _hub_datasets(run)
    if len(datasets) == len(run.sources) == 1:
        config, commit = (
            run.sources[0][name] and line(run.sources[0][name]) for name in ("dataset_config_name", "commit")
        )
        name = f"{datasets[0]}, held-out part"
        return {"dataset_type": datasets[0], "dataset_name": name, "dataset_config": config, "dataset_revision": commit}
    if run.is_toyland:
        return {"dataset_type": "toyland", "dataset_name": "Toyland of tinygpt_hf, held-out part"}
    names = [file["name"] or "" for source in run.sources for file in source["files"]]
    shown = ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")
    return {"dataset_type": "text", "dataset_name": line(f"held-out part of {shown or 'the training text'}")}


def corpus_card(facts: dict) -> str:
    """Render the dataset card of a prepared corpus from the facts of its corpus.json."""
    kinds = [
        kind
        for kind in ("text", "messages", "turns")
        if any(name.startswith(f"data/{kind}-") for name in facts["files"])
    ]
    paths = {"default" if len(kinds) == 1 else kind: f"data/{kind}-*" for kind in kinds}
    if any(name.startswith("excluded/") for name in facts["files"]):
        paths["excluded"] = "excluded/*"
    configs: list[dict[str, Any]] = [
        {"config_name": name, "data_files": [{"split": "train", "path": path}]} for name, path in paths.items()
    ]
    configs[0]["default"] = True
    data = DatasetCardData(
        **_license_and_languages(facts["license"], facts["language"]),
        pretty_name=line(facts["name"]),
        task_categories=["text-generation"],
        configs=configs,
    )
    most = max(facts["lengths"].values())
    bars = [
        f"{int(least):>14,} {'#' * max(1, round(BAR * number / most)):<{BAR}} {number:,}"
        for least, number in facts["lengths"].items()
    ]
    values = {"facts": facts, "sources": conform(facts["sources"], [SOURCE]), "kinds": kinds, "bars": "\n".join(bars)}
    return _render_card(DatasetCard, data, "corpus_card.md.jinja", values)


def advice(facts: dict) -> str:
    """Return the paragraph of a corpus's card on what a model can learn from it."""
    template = _environment().get_template("corpus_card.md.jinja")
    return "".join(template.blocks["advice"](template.new_context({"facts": facts}))).strip()


def _render_card(card: type[ModelCard] | type[DatasetCard], data, template: str, values: dict) -> str:
    """Render a template, and parse the result with the Hub's card class to check its metadata."""
    text = _environment().get_template(template).render(values, card_data=Markup(data.to_yaml()))
    return str(card(text.rstrip() + "\n"))


@cache
def _environment() -> Environment:
    env = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # so that macros and joined lists are Markup
        finalize=to_markup,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    env.filters.update(md=md, block=block, number=number, count=count, character=character)
    env.filters["size"] = lambda value: Markup(storage.format_size(value))
    env.filters["duration"] = lambda seconds: Markup(timedelta(seconds=round(seconds)))
    env.filters["perplexity"] = lambda nats: number(math.exp(nats), ",.2f") if nats < 700 else ""
    env.filters["yaml"] = lambda value: yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip("\n")
    return env


def to_markup(value) -> Markup:
    """Convert a value of a template: Markup stays, a number is written out, None becomes "?", the rest a code span."""
    if isinstance(value, Markup):
        return value
    if value is None:
        return Markup("?")
    return exact(value) if type(value) in (int, float) else md(value)


def md(value) -> Markup:
    """Write a value as a code span."""
    text = line(value) or " "
    pad = " " if text[0] in "` " or text[-1] in "` " else ""
    return Markup(f"{_fence(text, 1)}{pad}{text}{pad}{_fence(text, 1)}")


def line(value) -> str:
    """Write a value as one line, with secrets redacted and unprintable characters escaped."""
    return printable(_cut(redacted(str(value)), LONGEST_NAME))


def block(text: str | None, language: str = "") -> Markup:
    """Write a text as a code block, with secrets redacted and control characters escaped."""
    text = presentable(_cut(redacted(text or ""), LONGEST_BLOCK).replace("\r\n", "\n"))
    return Markup(f"{_fence(text, 3)}{language}\n{text}\n{_fence(text, 3)}")


def _fence(text: str, least: int) -> str:
    """Return a fence of backticks longer than any in the text."""
    return "`" * max(least, 1 + max(map(len, re.findall("`+", text)), default=0))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + "…"


def character(name: str) -> Markup:
    """Write `U+03A9` as the character and its name; as the name alone if it is invisible or a combining mark."""
    sign = chr(int(name.removeprefix("U+"), 16))
    is_visible = sign.isprintable() and not unicodedata.combining(sign)
    return Markup(f"{md(sign)} " if is_visible else "") + name


def number(value: float | None, form: str) -> Markup:
    """Format a number; None becomes an empty string."""
    return Markup("" if value is None else format(value, form))


def count(value: float) -> Markup:
    """Shorten a count: 1234567 -> '1.23 million'."""
    for size, word in ((1e12, " trillion"), (1e9, " billion"), (1e6, " million")):
        if value >= 0.9995 * size:  # 999.96 million would be 1e+03 million
            return Markup(f"{value / size:.3g}{word}")
    return exact(value)


def exact(value: float) -> Markup:
    """Write a number with separators: 1234567 -> '1,234,567'; fractions to three digits."""
    if isinstance(value, int):
        return Markup(format(value, ","))
    return Markup(format(value, ",.3g" if abs(value) < 1000 else ",.0f"))
