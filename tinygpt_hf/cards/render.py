"""The model card: README.md of a run folder, made from its run.json, run.yaml, log.jsonl and config.json alone.

    text = card("runs/mine")                         # Markdown that opens with metadata the Hub understands
    write_card(Path("runs/mine"), "me/my-model")     # README.md and loss_curve.svg, unless a person wrote that README.md

Whatever of the files is missing or damaged makes the card shorter. What stands in them is quoted (see quoting.py): a run
folder may come from anywhere.
"""

import hashlib
from pathlib import Path
from typing import Any

from tinygpt_hf import storage
from tinygpt_hf.cards.card_text import body
from tinygpt_hf.cards.facts import RunRecord, objects, read_run
from tinygpt_hf.cards.loss_curve import loss_curve
from tinygpt_hf.cards.markdown import front_matter
from tinygpt_hf.errors import redacted
from tinygpt_hf.settings.checks import LANGUAGE, LICENSE

README, CURVE = "README.md", "loss_curve.svg"
# The identifiers the Hub takes; it refuses a card with another one, unless that is the name of an `other` licence.
LICENSES = frozenset(
    """afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0 bigscience-openrail-m bsd
    bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0
    cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0
    cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m ecl-2.0
    epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 gemma gfdl gpl gpl-2.0 gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3
    llama3.1 llama3.2 llama3.3 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openrail openrail++ osl-3.0 other pddl
    postgresql unknown unlicense wtfpl zlib""".split()
)
_OWN_LINE = "<!-- tinygpt_hf made this card from the run; change anything, and it is yours: {} -->"


def write_card(folder: Path, model_id: str | None = None) -> bool:
    """Write README.md and loss_curve.svg into a run folder. `model_id` is its name on the Hub, where it has one.

    False, and nothing done, where a person wrote the README.md, where the folder is no run's, and where its record is gone
    but not the card that was made of it.
    """
    run = read_run(folder)
    if not is_ours(folder) or not (run.facts or run.settings and not (folder / README).exists()):
        return False
    picture = loss_curve({"": run.lines}, run.baseline_losses)
    if picture:
        storage.write_file(folder / CURVE, picture)
    storage.write_file(folder / README, _card(run, model_id, picture is not None))
    return True


def card(folder: str | Path, model_id: str | None = None) -> str:
    """The card of a run folder. It shows loss_curve.svg, which `write_card` writes beside it, if the log has a loss."""
    run = read_run(Path(folder))
    return _card(run, model_id, loss_curve({"": run.lines}, run.baseline_losses) is not None)


def is_ours(folder: Path) -> bool:
    """May README.md be written? It is not there, or as we wrote it: its last line holds the hash of what stands above."""
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


def _card(run: RunRecord, model_id: str | None, has_curve: bool) -> str:
    text = front_matter(metadata(run, model_id)) + "\n" + body(run, model_id or run.hub_model_id, has_curve)
    return f"{text}\n{_own_line(text)}\n"


def metadata(run: RunRecord, model_id: str | None = None) -> dict:
    """What the Hub reads: library, task, tags, licence, language, data sets, base model and results, where they are known."""
    from huggingface_hub import EvalResult, ModelCardData

    name = model_id or run.hub_model_id or run.name
    results, where = [], _dataset(run)
    for kind, title in (
        ("loss", "Loss (nats per token)"),
        ("perplexity", "Perplexity"),
        ("bits_per_byte", "Bits per byte"),
    ):
        value = run.number("result", f"eval_{kind}")
        if value is not None:
            results.append(
                EvalResult(
                    task_type="text-generation",
                    task_name="Text generation",
                    metric_type=kind,
                    metric_name=title,
                    metric_value=round(value, 4),
                    **where,
                )
            )
    languages = run.setting("training", "language") or (["en"] if run.is_toyland else [])
    languages = languages if isinstance(languages, list) else [languages]
    wanted = run.setting("training", "license")
    license = wanted if isinstance(wanted, str) and LICENSE.fullmatch(wanted) else None
    data = ModelCardData(
        language=[word for word in languages if isinstance(word, str) and LANGUAGE.fullmatch(word)] or None,
        license="other" if license and license not in LICENSES else license,
        license_name=license if license and license not in LICENSES else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["tinygpt", "tinygpt_hf", *(["conversational"] if run.chats else [])],
        datasets=run.hub_datasets or None,
        base_model=run.hub_base,
        metrics=["perplexity"] if results else None,
        model_name=name,
        eval_results=results or None,
    ).to_dict()
    if not results:
        data.pop("model_name", None)
    return redacted(data)


def _dataset(run: RunRecord) -> dict[str, Any]:
    """What the numbers were measured on, for the model index: the held-out part of the training text."""
    if len(run.hub_datasets) == 1 and len(run.sources) == 1:
        source = run.sources[0]
        found = {"dataset_type": run.hub_datasets[0], "dataset_name": f"{run.hub_datasets[0]}, held-out part"}
        for key, name in (("config", "dataset_config_name"), ("revision", "commit")):
            if isinstance(source.get(name), str):
                found[f"dataset_{key}"] = source[name]
        return found
    if run.is_toyland:
        return {"dataset_type": "toyland", "dataset_name": "Toyland of tinygpt_hf, held-out part"}
    names = [file.get("name") for source in run.sources for file in objects(source.get("files"))]
    shown = ", ".join(str(name) for name in names[:3]) + (" and others" if len(names) > 3 else "")
    return {"dataset_type": "text", "dataset_name": f"held-out part of {shown or 'the training text'}"}
