"""Names of settings in other trainers: accept those that mean exactly the same here, and give advice on the others.

This works in YAML, as a flag and in Python. Names of values are on the fields themselves (`setting(..., means=...)`).
"""

import dataclasses
import difflib
import functools
from typing import Any, TypeVar

from tinygpt_hf.errors import UsageError
from tinygpt_hf.settings.conversion import shown

Group = TypeVar("Group", bound=type)

ALIASES = {  # names in Transformers, TRL, Axolotl, LLaMA-Factory and nanoGPT
    "max_seq_length": "block_size", "sequence_len": "block_size",
    "base_model": "model_name_or_path", "dataset_text_field": "text_column", "dataset_train_split": "dataset_split",
    "dataset_num_proc": "num_proc", "preprocessing_num_workers": "num_proc", "overwrite_output_dir": "overwrite",
    "epochs": "num_train_epochs", "num_epochs": "num_train_epochs", "max_iters": "max_steps",
    "micro_batch_size": "per_device_train_batch_size", "lr": "learning_rate", "optimizer": "optim",
    "lr_scheduler": "lr_scheduler_type", "warmup_iters": "warmup_steps", "grad_clip": "max_grad_norm",
    "eval_interval": "eval_steps", "log_interval": "logging_steps", "lora_rank": "lora_r",
}  # fmt: skip
# name -> {value: (our name, our value)}; None: it is always so here, and the setting is ignored
TRANSLATIONS: dict[str, dict[str, tuple[str, str] | None]] = {
    "bf16": {"true": ("mixed_precision", "bf16")},
    "fp16": {"true": ("mixed_precision", "fp16")},
    **dict.fromkeys(("use_cpu", "no_cuda"), {"true": ("device", "cpu"), "false": ("device", "auto")}),
    **dict.fromkeys(("eval_strategy", "evaluation_strategy", "save_strategy", "logging_strategy"), {"steps": None}),
    **dict.fromkeys(("do_train", "do_eval", "save_safetensors"), {"true": None}),
    "trust_remote_code": {"false": None},
}
ADVICE = {
    **dict.fromkeys(("bf16", "fp16", "torch_dtype", "dtype", "tf32"), "say mixed_precision: auto, no, bf16 or fp16"),
    **dict.fromkeys(("eval_strategy", "evaluation_strategy"), "say eval_steps: a number of steps, or 0 for the end only"),
    "save_strategy": "say save_steps: a number of steps, or 0 for the end only",
    "logging_strategy": "say logging_steps, a number of steps",
    "warmup_ratio": "say warmup_steps, a number of steps",
    "logging_dir": "leave it out: log.jsonl is in output_dir",
    "run_name": "say output_dir: its name is the run's",
    **dict.fromkeys(("max_length", "cutoff_len"), "say block_size; longer texts continue in the next row"),
    **dict.fromkeys(("batch_size", "train_batch_size"), "say per_device_train_batch_size, rows per micro-batch"),
    **dict.fromkeys(("load_best_model_at_end", "metric_for_best_model"), "leave it out: best/ holds the best weights"),
    **dict.fromkeys(("attn_implementation", "flash_attention", "use_flash_attention_2"), "leave it out: the fastest is used"),
    **dict.fromkeys(("fsdp", "fsdp_config", "deepspeed"), "configure the launcher: see docs/distributed.md"),
    **dict.fromkeys(("val_set_size", "val_size", "test_size"), "say validation_split_percentage, in percent"),
    **dict.fromkeys(("use_peft", "finetuning_type", "adapter"), "say lora_r for adapters, nothing for all weights"),
    "trust_remote_code": "leave it out: code that comes with a model is never run",
    "hub_token": "log in with `hf auth login`, or set HF_TOKEN",
    "gradient_checkpointing_kwargs": "leave it out: gradient_checkpointing has no options",
    "lr_scheduler_kwargs": "say min_learning_rate_ratio or decay_steps",
    **dict.fromkeys(("sample_packing", "neat_packing"), "say packing: wrap or bestfit"),
    "data_seed": "say seed: it covers the order too",
    "dropout": "say hidden_dropout or attention_dropout",
    }  # fmt: skip


def translated(name: str, value, where: str) -> tuple[str, Any] | None:
    """Translate (name, value) by `TRANSLATIONS`; None if the setting is to be ignored. Others are returned unchanged."""
    if name not in TRANSLATIONS:
        return name, value
    if (word := str(value).lower()) in TRANSLATIONS[name]:
        return TRANSLATIONS[name][word]
    raise UsageError(f"{where} is {shown(value)}", " or ".join(TRANSLATIONS[name]), ADVICE.get(name, "leave it out"))


def hint(name: str, known, prefix: str = "") -> str:
    """Return advice on an unknown setting name."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return ADVICE.get(name) or (f"did you mean {prefix}{close[0]}?" if close else "see --help")


def accepts_aliases(group: Group) -> Group:
    """Decorate a dataclass of settings so that it accepts names of other trainers and rejects unknown ones with a hint.

    Instances get an attribute `given` with the names passed to the constructor. A plan does not change these settings.
    """
    cls: Any = group
    original_init, names = cls.__init__, [field.name for field in dataclasses.fields(group)]
    aliases = {**ALIASES, **getattr(group, "aliases", {})}

    @functools.wraps(original_init)
    def init(self, *values, **named):
        ours = {}
        for theirs, value in named.items():
            pair = (theirs, value) if theirs in names else translated(aliases.get(theirs, theirs), value, theirs)
            if pair is None:
                continue
            if pair[0] not in names:
                problem = f"{group.__name__} has no setting {theirs}"
                raise UsageError(problem, "one listed by `tinygpt train --help`", hint(pair[0], names))
            if pair[0] in ours or (pair[0] != theirs and pair[0] in named):
                raise UsageError(f"{theirs} repeats {pair[0]}", "one of the two names", "remove one")
            ours[pair[0]] = pair[1]
        original_init(self, *values, **ours)
        self.given = frozenset(ours)

    cls.__init__ = init
    return group
