"""Fill in the settings of a run that were not given, by simple rules from the other settings.

    model, training = filled(ModelArguments(hidden_size=512), TrainingArguments())
    training.learning_rate                    # 0.004: half of that of a model of width 256

The default model is small and shallow. In a few minutes on one core it reaches fewer bits per byte than a larger model that
sees less text (figures in benchmarks/README.md). Existing weights are trained with a lower learning rate. Settings that are
given are never changed. planning/plan.py computes the number of steps.
"""

from dataclasses import fields, replace
from pathlib import Path

from tinygpt_hf.settings.arguments import DataArguments, ModelArguments, TrainingArguments

VOCABULARY = 2048
WIDTH, LAYERS, HEAD = 128, 3, 64
EMBEDDING_RANGE = 0.3  # standard deviation of untied input embeddings: large ones train faster
# Learning rate of AdamW next to Muon at width 256. It is inversely proportional to the width (Yang et al. 2022,
# https://arxiv.org/abs/2203.03466); Muon's updates do not depend on the width. Widths below 64 were not measured.
RATE, RATE_WIDTH, MIN_RATE_WIDTH = 8e-3, 256, 64
LOW_RATE = 3e-3  # of AdamW alone, and for existing weights
LENGTHS = ("max_steps", "num_train_epochs", "max_train_tokens", "time_budget")
TIME_BUDGET = "8m"  # if none of LENGTHS is given

FROM_SCRATCH = {
    "per_device_train_batch_size": 8,  # with the same text, many small steps reach a lower loss than few large ones
    "weight_decay": 0.0,
    "adam_beta1": 0.8,  # short runs need a short momentum
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
    """Fill in the shape of a model. Existing weights (`model_name_or_path`) have their own shape."""
    if model.model_name_or_path:
        return model
    width = WIDTH if model.hidden_size is None else model.hidden_size
    heads = max(1, width // (model.head_dim or HEAD))
    if model.head_dim is None:
        heads = next(number for number in range(heads, 0, -1) if width % number == 0)
    tied = bool(model.tie_word_embeddings)
    shape = {
        "hidden_size": width,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": heads,
        "tie_word_embeddings": tied,
        "embedding_initializer_range": None if tied else EMBEDDING_RANGE,
    }
    return _with(model, shape)


def filled(
    model: ModelArguments, training: TrainingArguments, before: dict | None = None
) -> tuple[ModelArguments, TrainingArguments]:
    """Fill in the settings of both except length and warmup. `before`: the settings of the run to resume, which win."""
    known = {name: value for name, value in (before or {}).items() if name in OPEN}
    if any(getattr(training, name) is not None for name in LENGTHS):
        known = {name: value for name, value in known.items() if name not in LENGTHS}
    model, training = _with(model, known), _with(training, known)
    if all(getattr(training, name) is None for name in LENGTHS):
        training = replace(training, time_budget=TIME_BUDGET)
    embeddings = model.embedding_initializer_range
    model = shaped(model)
    if before:  # runs of older versions have no default for it
        model = replace(model, embedding_initializer_range=embeddings)
    continued = model.model_name_or_path is not None
    rate = LOW_RATE
    if not continued and training.optim == "muon":
        rate = float(f"{RATE * RATE_WIDTH / max(MIN_RATE_WIDTH, model.hidden_size):.3g}")
    return model, _with(training, {"learning_rate": rate, **(CONTINUED if continued else FROM_SCRATCH)})


def _with(group, values: dict):
    """Replace settings of the group that are None by `values`."""
    names = [field.name for field in fields(group)]
    return replace(group, **{n: v for n, v in values.items() if n in names and getattr(group, n) is None})


def run_folder(data: DataArguments) -> str | None:
    """Return the default run folder runs/<name of the first text>, or None if no text has a name."""
    first = (data.sources or [{}])[0]
    texts = data.train_file or first.get("train_file") or [data.dataset_name or first.get("dataset_name") or ""]
    text = texts if isinstance(texts, str) else str(texts[0])
    if "://" in text:
        text = text.partition("://")[2].partition("?")[0]
    for part in reversed(Path(text).parts):
        stem = part.split(".")[0]
        if stem and not set(stem) & set("*?[]~/\\:"):
            return str(Path("runs") / stem)
    return None
