"""plan(): predict the settings, time, memory and loss of `train` with the same arguments, without training.

forecast = plan(data="my.txt", training=TrainingArguments(time_budget="8m"))
forecast.bits_per_byte, forecast.seconds             # expected
print(forecast.table)                                # each choice with its reason
print(forecast.to_yaml())                            # settings for `train --config`
"""

import copy
import tempfile
from dataclasses import dataclass, fields, replace
from typing import Any

from tinygpt_hf.planning.choice import Choice
from tinygpt_hf.reading.corpus import Corpus
from tinygpt_hf.reading.python_text import data_arguments
from tinygpt_hf.settings.arguments import ModelArguments, TokenizerArguments, TrainingArguments
from tinygpt_hf.settings.parsing import to_yaml
from tinygpt_hf.training.budget import plan_run
from tinygpt_hf.training.run import Run


@dataclass(frozen=True)
class Forecast:
    """The expected figures of a run, and its settings.

    `bits_per_byte`: of the final model on the validation set, between `low` and `high` in nine of ten runs. `operations`: FLOP
    of all steps. `settings`: those chosen by the plan. `groups`: all settings. `asked`: names of the settings that were given.
    """

    max_steps: int
    seconds: float
    memory_bytes: int
    disk_bytes: int
    parameters: int
    train_tokens: int
    epochs: float
    operations: float
    bits_per_byte: float
    low: float
    high: float
    settings: dict[str, Any]
    choice: Choice
    groups: tuple
    asked: frozenset[str]

    @property
    def table(self) -> str:
        """Return the plan as text, one line per choice with its reason."""
        return self.choice.table

    def to_dict(self) -> dict:
        """Return the figures and the chosen settings as a dict for JSON."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("choice", "groups", "asked")}

    def to_yaml(self) -> str:
        """Return a YAML file for `--config` with the settings that were given or chosen, and reasons as comments."""
        import yaml

        reasons = {name: why for _, _, why, names in self.choice.lines for name in names[:1]}
        lines = ["# Made by `tinygpt plan`. Other settings have their defaults, or follow from these."]
        for section, values in yaml.safe_load(to_yaml(list(self.groups))).items():
            kept = {name: value for name, value in values.items() if name in self.asked or name in self.settings}
            lines += [f"{section}:"] if kept else []
            for name, value in kept.items():
                line, *more = yaml.safe_dump({name: value}, allow_unicode=True).splitlines()
                why = f"  # {reasons[name]}" if name in reasons and name in self.settings else ""
                lines += [f"  {line}{why}", *(f"  {other}" for other in more)]
        return "\n".join(lines) + "\n"


def plan(
    model: ModelArguments | None = None,
    data=None,
    tokenizer: TokenizerArguments | None = None,
    training: TrainingArguments | None = None,
    hardware: str | None = None,
) -> Forecast:
    """Plan a run: survey its text, time a few steps on this machine, and choose the settings that were not given.

    `hardware`: the name of another machine from a table, instead of timing steps. No files are written. Raises UsageError in
    the same cases as `train`.
    """
    training = training or TrainingArguments()
    groups = model or ModelArguments(), data_arguments(data), tokenizer or TokenizerArguments(), training
    asked = frozenset(name for group in groups for name in getattr(group, "given", ()))
    with tempfile.TemporaryDirectory() as folder:  # an empty output_dir, so that no earlier run is resumed
        elsewhere = copy.copy(training)
        elsewhere.output_dir = f"{folder}/run"
        run = Run((*groups[:3], elsewhere), quiet=True, is_here=hardware is None)
        run.corpus = Corpus(run.data, run.training.seed)
        settled, facts, choice = plan_run(run, run.groups, hardware, advised=True)
        run.close()
    settled = *settled[:3], replace(settled[3], output_dir=training.output_dir)
    names = {f.name for f in fields(Forecast)}
    figures = {name: value for name, value in facts.items() if name in names}
    return Forecast(**figures, max_steps=facts["steps"], choice=choice, groups=settled, asked=asked)
