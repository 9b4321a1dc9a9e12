"""Inspect how a model reads a text (`tinygpt inspect`), and write the result as a page or as JSON.

inspection = inspect(InspectArguments("runs/quickstart", text="One day, Mia found a kitten.", lens=True))
inspection.tokens[5].bits, inspection.lens[2].ids, inspection.facts()
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch

from tinygpt_hf import storage
from tinygpt_hf.errors import UsageError, printable
from tinygpt_hf.inference.generation import check_length as check_tokens
from tinygpt_hf.inference.generation import check_prompt, generate_steps
from tinygpt_hf.inference.samples import check_output, read_prompt_file
from tinygpt_hf.inference.sampling import Sampling
from tinygpt_hf.inference.text_stream import TextDecoder
from tinygpt_hf.inspection.attention import attention_maps, check_size, pack_maps
from tinygpt_hf.inspection.history import StepScores, check_history, history, learned_at
from tinygpt_hf.inspection.lens import logit_lens, right_from
from tinygpt_hf.inspection.page import render_template
from tinygpt_hf.inspection.surprisal import Scores, Token, check_length, read_tokens, text_ids
from tinygpt_hf.model.loading import load_model
from tinygpt_hf.settings.checks import check_settings
from tinygpt_hf.settings.inference import InspectArguments


@dataclass
class Inspection:
    """The measurements of one text.

    `words` maps the ids that layers predict to their text. The first `prompt` tokens were given, the model wrote the others.
    """

    model: str
    tokens: list[Token]
    prompt: int
    lens: list[Scores] | None
    words: dict[int, str]
    maps: torch.Tensor | None
    moments: list[StepScores]

    @cached_property
    def measured(self) -> list[Token]:
        """Tokens with scores: all but the first."""
        return self.tokens[1:]

    @property
    def summary(self) -> str:
        """Summary of the whole text in a line."""
        bits, size = sum(token.bits for token in self.measured), sum(token.bytes for token in self.measured)
        first, count = sum(token.rank == 1 for token in self.measured), len(self.measured)
        per_byte = f", {bits / size:.2f} per byte" if size else ""
        return f"{count} tokens, {bits / count:.2f} bits each on average{per_byte}; {first / count:.0%} are its first choice"

    def facts(self) -> dict:
        """Return everything as JSON values, for the page and --output_file."""
        facts = {"model": self.model, "summary": self.summary, "prompt": self.prompt}
        facts["tokens"] = [_rounded(asdict(token)) for token in self.tokens]
        if self.lens:
            layers = [
                {
                    "bits": _rounded(layer.bits.tolist()),
                    "ids": layer.ids.tolist(),
                    "chances": _rounded(layer.probabilities.tolist()),
                }
                for layer in self.lens
            ]
            facts["lens"] = {"layers": layers, "words": self.words, "right_from": right_from(self.lens)}
        if self.maps is not None:
            layers, heads = self.maps.shape[:2]
            facts["attention"] = {"layers": layers, "heads": heads, "weights": pack_maps(self.maps)}
        if self.moments:
            moments = [{"step": m.step, "mean": m.mean, "bits": m.bits} for m in self.moments]
            facts["history"] = {"moments": _rounded(moments), "learned_at": learned_at(self.moments)}
        return facts


def inspect(arguments: InspectArguments) -> Inspection:
    """Score the text with the model, and write the requested page and JSON. A `UsageError` is raised before anything is written."""
    check_settings(arguments)
    given = [name for name in ("text", "file", "prompt") if getattr(arguments, name) is not None]
    if not given:
        raise UsageError("there is nothing to read", "--text, --file or --prompt", "try --text 'One day, Mia'")
    text = read_prompt_file("file", arguments.file) if arguments.file is not None else getattr(arguments, given[0])
    if not text:
        raise UsageError("the prompt or text is empty", "some text", "give --text, --file or --prompt some")
    check_prompt(text)
    check_tokens(arguments.max_new_tokens)
    requested = {name: getattr(arguments, name) for name in ("html", "output_file") if getattr(arguments, name)}
    outputs = {name: check_output(Path(path), name) for name, path in requested.items()}
    model, tokenizer = load_model(arguments.model, arguments.device, arguments.dtype)
    run = Path(arguments.model).expanduser()
    if arguments.checkpoints:
        check_history(run)
    ids = text_ids(tokenizer, text)
    prompt = len(ids)
    if arguments.prompt is not None:
        steps = generate_steps(model, tokenizer, ids, Sampling(temperature=0), max_new_tokens=arguments.max_new_tokens)
        ids = [*ids, *(step.id for step in steps)]
    check_length(model, len(ids))
    if arguments.attention:
        check_size(model, len(ids))

    lens = logit_lens(model, ids) if arguments.lens else None
    maps = attention_maps(model, ids) if arguments.attention else None
    tokens = read_tokens(model, tokenizer, ids)
    display = TextDecoder(tokenizer).display
    words = {id: display(id) for layer in lens or () for id in layer.ids.unique().tolist()}
    moments = list(history(run, ids, arguments.device, arguments.dtype)) if arguments.checkpoints else []
    inspection = Inspection(printable(arguments.model), tokens, prompt, lens, words, maps, moments)
    if "output_file" in outputs:
        storage.write_json(outputs["output_file"], inspection.facts())
    if "html" in outputs:
        storage.write_file(outputs["html"], render_template("inspect.html.jinja", facts=inspection.facts()))
    return inspection


def _rounded(value):
    """Round the floats of a JSON value to four significant digits."""
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_rounded(inner) for inner in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
