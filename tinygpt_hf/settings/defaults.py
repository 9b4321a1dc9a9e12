"""Fill in what the settings of a run leave open, by rules from the other settings, each a line of arithmetic.

    model, training = filled(ModelArguments(hidden_size=512), TrainingArguments())
    training.learning_rate                    # 0.004: half of what a model of 256 takes

A model from scratch is small and shallow and trains fast: in minutes on one core that reaches fewer bits per byte than a larger
one that reads less text (benchmarks/README.md has the figures). Existing weights are treated gently. Whatever is given wins.
The length of a run follows from its number of tokens: see planning/plan.py.
"""

from dataclasses import fields, replace
from pathlib import Path

from tinygpt_hf.settings.arguments import DataArguments, ModelArguments, TrainingArguments

VOCABULARY = 2048
WIDTH, LAYERS, HEAD = 128, 3, 64  # heads of 64 tell tokens apart sharply from the start
EMBEDDINGS = 0.3  # untied, the input embeddings may be large: the model learns faster
# Of AdamW beside Muon at a width of 256. It falls with the width, as the head's inputs add up (Yang et al. 2022,
# https://arxiv.org/abs/2203.03466); Muon's updates have the same size at any width. Nothing narrower than 64 was measured.
RATE, AT, NARROWEST = 8e-3, 256, 64
GENTLE_RATE = 3e-3  # of AdamW alone, and of existing weights
LENGTHS = ("max_steps", "num_train_epochs", "max_train_tokens", "time_budget")
TIME_BUDGET = "8m"  # of a run without a length

FROM_SCRATCH = {
    "per_device_train_batch_size": 8,  # many small steps learn more from the same text than few large ones
    "weight_decay": 0.0,
    "adam_beta1": 0.8,  # a short run has no time for a long memory
    "muon_momentum": 0.9,
    "lr_scheduler_type": "linear",
}
CONTINUED = {
    "per_device_train_batch_size": 16,
    "weight_decay": 0.1,
    "adam_beta1": 0.9,
    "muon_momentum": 0.95,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0,
}
SHAPE = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "tie_word_embeddings",
    "embedding_initializer_range",
)
OPEN = {*SHAPE, *LENGTHS, *CONTINUED, "learning_rate"}


def shaped(model: ModelArguments) -> ModelArguments:
    """Fill in the shape of a model; one that continues from weights has theirs."""
    if model.model_name_or_path:
        return model
    width = WIDTH if model.hidden_size is None else model.hidden_size
    heads = max(1, width // (model.head_dim or HEAD))
    if model.head_dim is None:
        heads = next(number for number in range(heads, 0, -1) if width % number == 0)
    tied = bool(model.tie_word_embeddings)
    rules = {
        "hidden_size": width,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": heads,
        "tie_word_embeddings": tied,
        "embedding_initializer_range": None if tied else EMBEDDINGS,
    }
    return _with(model, rules)


def filled(
    model: ModelArguments, training: TrainingArguments, before: dict | None = None
) -> tuple[ModelArguments, TrainingArguments]:
    """Fill in what both leave open, except length and warm-up: as the run had it `before`, else by the rules."""
    known = {name: value for name, value in (before or {}).items() if name in OPEN}
    if any(getattr(training, name) is not None for name in LENGTHS):
        known = {name: value for name, value in known.items() if name not in LENGTHS}
    model, training = _with(model, known), _with(training, known)
    if all(getattr(training, name) is None for name in LENGTHS):
        training = replace(training, time_budget=TIME_BUDGET)
    embeddings = model.embedding_initializer_range
    model = shaped(model)
    if before:  # older runs leave it open
        model = replace(model, embedding_initializer_range=embeddings)
    continued = model.model_name_or_path is not None
    rate = GENTLE_RATE
    if not continued and training.optim == "muon":
        rate = float(f"{RATE * AT / max(NARROWEST, model.hidden_size):.3g}")
    return model, _with(training, {"learning_rate": rate, **(CONTINUED if continued else FROM_SCRATCH)})


def _with(group, values: dict):
    """Replace settings that are None by these values."""
    here = [field.name for field in fields(group)]
    return replace(group, **{n: v for n, v in values.items() if n in here and getattr(group, n) is None})


def run_folder(data: DataArguments) -> str | None:
    """Choose the folder of a run without a name: runs/<name of its first text>; None if no text has a name."""
    first = (data.sources or [{}])[0]
    named = data.train_file or first.get("train_file") or [data.dataset_name or first.get("dataset_name") or ""]
    text = named if isinstance(named, str) else str(named[0])
    if "://" in text:
        text = text.partition("://")[2].partition("?")[0]
    for part in reversed(Path(text).parts):
        stem = part.split(".")[0]
        if stem and not set(stem) & set("*?[]~/\\:"):
            return str(Path("runs") / stem)
    return None
