"""The settings of data, tokenizer, model and training, as dataclass fields with type, default, help and rules.

The same spelling works in a YAML section (`training: {learning_rate: 3e-4}`), as a flag (`--learning_rate 3e-4`) and in
Python (`TrainingArguments(learning_rate=3e-4)`), with the same checks (checks.py). A flag overrides YAML, YAML the default.
A setting that is None is computed from the others by defaults.py or by the model's configuration.
"""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, TypeAlias

from tinygpt_hf.settings.dialects import accepts_aliases

PathText: TypeAlias = Annotated[str, "path"]  # `~` and `$VARIABLES` in it are expanded (conversion.py)


def setting(default, help: str, **metadata):
    """Make a dataclass field with a line of help. Each instance gets its own copy of a list or dict.

    `metadata`, besides `positional` (parsing.py):
    at_least, above, at_most, below    bounds of a number (checks.py)
    means      names of values in other trainers: {theirs: ours} (dialects.py)
    excludes   settings that cannot be given with it; "name=value": only this value; "*": all others of its class (layering.py)
    needs      settings of which one must be given; if an override removes it, this one is removed too (layering.py)
    follows    the setting it belongs to; if an override removes that, this one is removed too (layering.py)
    resume     for a resumed run: "free" may change silently, "fixed" may not change; default: a change prints a note
    """
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata={"help": help, **metadata})
    return field(default=default, metadata={"help": help, **metadata})


@accepts_aliases
@dataclass
class ModelArguments:
    """Settings of the model: the fields of TinyGPTConfig, under the same names."""

    section: ClassVar[str] = "model"
    aliases: ClassVar[dict[str, str]] = {
        "n_embd": "hidden_size",
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "n_positions": "max_position_embeddings",
    }

    model_name_or_path: PathText | None = setting(
        None, "start from the weights of this model (folder or Hub id); default: train from scratch", excludes=("*",)
    )
    hidden_size: int | None = setting(None, "width of the model; default 128", at_least=1)
    num_hidden_layers: int | None = setting(None, "number of layers; default 3", at_least=1)
    num_attention_heads: int | None = setting(None, "attention heads per layer; default hidden_size / 64", at_least=1)
    num_key_value_heads: int | None = setting(
        None, "key/value heads; fewer than attention heads: grouped-query attention", at_least=1
    )
    head_dim: int | None = setting(None, "width of one head; default hidden_size / num_attention_heads", at_least=1)
    intermediate_size: int | None = setting(
        None, "width of the MLP; default about 8/3 hidden_size gated, 4 hidden_size plain", at_least=1
    )
    hidden_act: str | None = setting(None, "activation of the MLP, by its name in Transformers")
    max_position_embeddings: int | None = setting(None, "longest context; default block_size", at_least=1)
    position_embedding_type: Literal["rope", "learned"] = setting("rope", "rotary or learned positions")
    norm_type: Literal["rmsnorm", "layernorm"] = setting("rmsnorm", "kind of normalization")
    mlp_type: Literal["gated", "plain"] = setting("gated", "gated as in Llama, or plain as in GPT-2")
    attention_bias: bool = setting(False, "use biases in the attention projections")
    mlp_bias: bool = setting(False, "use biases in the MLP")
    qk_norm: bool = setting(True, "normalize queries and keys per head, as in Qwen3")
    tie_word_embeddings: bool | None = setting(None, "use one matrix for input and output embeddings; default false")
    attention_dropout: float = setting(0.0, "dropout on attention weights", at_least=0, below=1)
    hidden_dropout: float = setting(0.0, "dropout on embeddings and residual branches", at_least=0, below=1)
    initializer_range: float = setting(0.02, "standard deviation of the initial weights", at_least=0)
    embedding_initializer_range: float | None = setting(
        None,
        "standard deviation of the initial embeddings; default 0.3, with tie_word_embeddings initializer_range",
    )
    rms_norm_eps: float = setting(1e-6, "epsilon of RMSNorm or LayerNorm", above=0)
    rope_parameters: dict | None = setting(None, 'rotary settings, e.g. {"rope_theta": 1e4, "rope_type": "default"}')


DATASETS = ("dataset_name", "sources")


@accepts_aliases
@dataclass
class DataArguments:
    """Settings of the text and of the rows it is cut into."""

    section: ClassVar[str] = "data"

    train_file: list[PathText] = setting(
        [], "text files, globs, folders, URLs (.txt .md .py .jsonl .csv .parquet, .gz .zst)",
        excludes=("dataset_name", "sources")
    )  # fmt: skip
    validation_file: list[PathText] = setting([], "validation text; default: split off the training text")
    dataset_name: PathText | None = setting(
        None, "Hub dataset, or `toyland`, the built-in corpus", excludes=("sources",)
    )
    dataset_config_name: str | None = setting(
        None, "configuration of the Hub dataset; for toyland: text or dialogues", needs=DATASETS
    )
    dataset_split: str = setting("train", "split of the Hub dataset", needs=DATASETS)
    dataset_revision: str | None = setting(None, "commit, tag or branch of the Hub dataset", needs=DATASETS)
    sources: list[dict] | None = setting(
        None, "a weighted mix: list of the settings above plus `weight` (how often each document is used)"
    )
    text_column: str | None = setting(
        None,
        "column with the text; default the first of `messages`, `conversations`, `prompt` + `completion`, "
        "`instruction` + `output`, `text`, `content`",
    )
    encoding_errors: Literal["strict", "replace"] = setting(
        "strict", "for bytes that are not UTF-8: strict rejects the file, replace puts U+FFFD and counts them"
    )
    document_separator: str | None = setting(
        None,
        "splits .txt files into documents: `blank_line`, or a marker such as `<|endoftext|>`; default `whole_file`: no split",
    )
    streaming: bool = setting(
        False,
        "train while the text is still being read; Hub datasets and parquet files at URLs are not downloaded first",
        excludes=("rows", "num_train_epochs"),
    )
    stream_window: int | None = setting(
        None, "with streaming: keep rows of at most this many tokens on the disk; default: keep all rows",
        needs=("streaming",)
    )  # fmt: skip
    max_train_samples: int | None = setting(
        None, "use only the first N documents; for toyland: how many to generate", at_least=1, follows="dataset_name"
    )
    validation_split: Literal["hash", "tail"] | None = setting(
        None,
        "choose validation documents by a hash, or take the tail of each text; default hash, tail for fewer than 64 texts",
    )
    validation_split_percentage: float = setting(
        5.0, "share of the text held out for validation, in percent", at_least=0, below=100
    )
    block_size: int = setting(256, "tokens per row: the context the model is trained on", at_least=1, resume="fixed")
    packing: Literal["wrap", "bestfit"] = setting(
        "wrap",
        "wrap: concatenate documents and cut them anywhere; bestfit: pack whole documents that fit a row, and pad it",
        resume="fixed",
    )
    shift_rows: bool = setting(
        True, "cut rows at a different offset in each epoch (packing wrap, no streaming)", resume="fixed"
    )
    document_mask: bool = setting(
        False, "mask attention between the documents of a row; positions restart at each document", resume="fixed"
    )
    rows: PathText | None = setting(None, "use the rows in this folder, made by `tinygpt tokenize` or an earlier run")
    num_proc: int | None = setting(
        None, "processes that tokenize or clean; default one per core", at_least=1, resume="free"
    )
    show_rows: int = setting(0, "print this many rows as text before training", at_least=0, resume="free")

    @property
    def sliding(self) -> bool:
        """Return True if rows are cut at a different offset in each epoch: not with bestfit packing or streaming."""
        return self.shift_rows and self.packing == "wrap" and not self.streaming


NO_MERGES = ("tokenizer_type=char", "tokenizer_type=byte")


@accepts_aliases
@dataclass
class TokenizerArguments:
    """Settings of the tokenizer: an existing one, or one trained on the text."""

    section: ClassVar[str] = "tokenizer"

    tokenizer_name: PathText | None = setting(None, "an existing tokenizer (folder or Hub id)", excludes=("*",))
    tokenizer_type: Literal["bpe", "char", "byte"] | None = setting(
        None, "train a tokenizer: byte-level BPE, characters, or bytes"
    )
    vocab_size: int | None = setting(None, "vocabulary of the BPE tokenizer to train; default 2048", excludes=NO_MERGES)
    min_frequency: int = setting(
        2, "BPE merges pairs of symbols that occur at least this often", at_least=1, excludes=NO_MERGES
    )
    max_train_bytes: int = setting(
        100_000_000, "train on about this many bytes, taken evenly from the text", at_least=1
    )

    @property
    def wanted(self) -> bool:
        """Return True if these settings ask to train a tokenizer."""
        return self.tokenizer_type is not None or self.vocab_size is not None


@accepts_aliases
@dataclass
class OutputArguments:
    """Settings of the output folder and the seed."""

    section: ClassVar[str] = "training"

    output_dir: PathText | None = setting(
        None, "folder to write; default runs/<name of the config, else of the first text>", resume="free"
    )
    overwrite: bool = setting(
        False, "move an existing output folder aside (it is not deleted) and start from scratch", resume="free"
    )
    seed: int = setting(42, "random seed of toyland, weights, order of rows, and dropout", at_least=0, resume="fixed")


# Schedules that depend on the number of steps, which is unknown at first under a time budget.
NO_PLATEAU = ("lr_scheduler_type=cosine", "lr_scheduler_type=linear", "lr_scheduler_type=constant")


@accepts_aliases
@dataclass
class TrainingArguments(OutputArguments):
    """Settings of training. A step has per_device_train_batch_size x gradient_accumulation_steps x processes rows."""

    section: ClassVar[str] = "training"

    time_budget: str | None = setting(
        None,
        "time the whole command may take (90s, 8m, 2h): other settings are chosen to fit it unless given; default 8m, if no "
        "steps, epochs or tokens are given",
        excludes=("max_steps", "num_train_epochs", "max_train_tokens", *NO_PLATEAU), resume="free"
    )  # fmt: skip
    max_steps: int | None = setting(
        None, "optimizer steps to take",
        at_least=1, means={"-1": None}, excludes=("num_train_epochs", "max_train_tokens")
    )  # fmt: skip
    num_train_epochs: float | None = setting(
        None, "passes over the rows; not with streaming, where their number is unknown", above=0,
        excludes=("max_train_tokens",)
    )  # fmt: skip
    max_train_tokens: int | None = setting(None, "tokens to train on", at_least=1)
    per_device_train_batch_size: int | None = setting(
        None, "rows per micro-batch and process; default 8, with model_name_or_path 16", at_least=1, resume="free"
    )
    per_device_eval_batch_size: int | None = setting(
        None, "rows per batch of evaluation; default as in training", at_least=1, resume="free"
    )
    gradient_accumulation_steps: int = setting(1, "micro-batches per optimizer step", at_least=1, resume="free")
    optim: Literal["muon", "adamw"] = setting(
        "muon", "muon: Muon for hidden matrices, AdamW for the rest; adamw: AdamW for all",
        means=dict.fromkeys(("adamw_torch", "adamw_torch_fused"), "adamw"), resume="fixed"
    )  # fmt: skip
    learning_rate: float | None = setting(
        None,
        "peak learning rate of AdamW; default 2.048/width, at most 0.032; 0.003 with model_name_or_path or optim adamw",
        at_least=0,
    )
    muon_learning_rate: float = setting(0.02, "peak learning rate of Muon", at_least=0)
    weight_decay: float | None = setting(
        None,
        "decoupled weight decay, not on norms, biases and embeddings; default 0, with model_name_or_path 0.1",
        at_least=0,
    )
    adam_beta1: float | None = setting(
        None, "beta1 of AdamW; default 0.8, with model_name_or_path 0.9", at_least=0, below=1
    )
    adam_beta2: float = setting(0.95, "AdamW's beta2", at_least=0, below=1)
    adam_epsilon: float = setting(1e-8, "AdamW's epsilon", at_least=0)
    muon_momentum: float | None = setting(
        None, "momentum of Muon; default 0.9, with model_name_or_path 0.95", at_least=0, below=1
    )
    lora_r: int | None = setting(
        None,
        "rank of LoRA adapters, trained with --model_name_or_path frozen; default: train all weights",
        at_least=1, needs=("model_name_or_path",), resume="fixed"
    )  # fmt: skip
    lora_alpha: float | None = setting(
        None,
        "adapters are scaled by lora_alpha / lora_r; default twice lora_r",
        above=0,
        needs=("lora_r",),
        resume="fixed",
    )
    lora_dropout: float = setting(
        0.0, "dropout before the adapters", at_least=0, below=1, needs=("lora_r",), resume="fixed"
    )
    lora_merge: bool = setting(
        False,
        "do not write adapter/, the adapter in PEFT's format; the run folder always holds the merged model",
        needs=("lora_r",),
    )
    lr_scheduler_type: Literal["cosine", "linear", "warmup_stable_decay", "constant"] | None = setting(
        None, "learning rate schedule; default linear, with model_name_or_path cosine",
        means={"constant_with_warmup": "constant", "wsd": "warmup_stable_decay"}
    )  # fmt: skip
    warmup_steps: int | None = setting(
        None,
        "steps of linear warmup; default 20, at most a tenth of the run; 0 with model_name_or_path",
        at_least=0,
    )
    decay_steps: int | None = setting(
        None, "warmup_stable_decay: length of the final decay; default a fifth of the steps", at_least=0,
        needs=("lr_scheduler_type=warmup_stable_decay",)
    )  # fmt: skip
    min_learning_rate_ratio: float = setting(
        0.0,
        "learning rate at the end of the decay, as a share of the peak",
        at_least=0,
        at_most=1,
        excludes=("lr_scheduler_type=constant",),
    )
    max_grad_norm: float = setting(1.0, "clip the gradient to this norm; 0: no clipping", at_least=0)
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = setting(
        "auto", "auto: the launcher's choice, else bf16 if the device computes it fast, else no",
        means={"fp32": "no", "float32": "no", "bfloat16": "bf16", "float16": "fp16"}
    )  # fmt: skip
    device: Literal["auto", "cpu", "cuda", "mps"] = setting(
        "auto", "device to train on", means={"gpu": "cuda"}, resume="free"
    )
    torch_compile: bool | Literal["auto"] = setting(
        False, "compile the layers; auto: if a trial in a long enough run shows that it is faster", resume="free"
    )
    gradient_checkpointing: bool = setting(False, "recompute activations to save memory; slower", resume="free")
    nonfinite: str = setting(
        "stop",
        "if a loss or gradient is not finite: `stop`, or `skip:N` to skip and log up to N such steps",
        resume="free",
    )
    dataloader_num_workers: int = setting(0, "threads, each reading one step ahead", at_least=0, resume="free")
    report_to: Literal["tensorboard", "trackio", "wandb"] | None = setting(
        None, "log the numbers of log.jsonl to this tracker too, offline, in boards/ of the run folder", means={"none": None},
        resume="free"
    )  # fmt: skip
    logging_steps: int = setting(10, "steps between lines of log.jsonl", at_least=1, resume="free")
    eval_steps: int | None = setting(
        None, "steps between evaluations; default a tenth of the run; 0: only at the end", at_least=0, resume="free"
    )
    eval_rows: int | None = setting(
        None,
        "validation rows of evaluations before the last; default: so many that they take less than a tenth of the time; 0: all",
        at_least=0,
        resume="free",
    )
    save_steps: int | None = setting(
        None, "steps between checkpoints; default as eval_steps; 0: only at the end", at_least=0, resume="free"
    )
    save_total_limit: int = setting(
        2, "complete checkpoints to keep besides the best weights (2 or more)", resume="free"
    )
    keep_snapshots: int = setting(
        0,
        "save the weights at this many steps, denser at first, in snapshots/ for `inspect --checkpoints`",
        at_least=0,
        resume="free",
    )
    explain: bool = setting(
        False,
        "print a batch, its loss and the modules before the first step; log gradient norms and updates by module",
        resume="free",
    )
    resume_from_checkpoint: PathText = setting(
        "auto", "auto: newest valid one in output_dir; none: start from scratch; or a path",
        means={"true": "auto", "false": "none"}, resume="free"
    )  # fmt: skip
    sample_prompts: list[str] = setting(
        [], "prompts to continue at every evaluation; default: openings of validation documents", resume="free"
    )
    sample_tokens: int | None = setting(
        None,
        "length of these samples in tokens; default 48, in a short run fewer before the last one; 0: none",
        at_least=0,
        resume="free",
    )
    license: str | None = setting(
        None, "license of the model, for its card: an identifier of the Hub, e.g. apache-2.0", resume="free"
    )
    language: list[str] = setting([], "languages of the text, for the card: ISO 639 codes, e.g. en", resume="free")
    data_license: str | None = setting(None, "license of the training text, for the card, in your words", resume="free")
    push_to_hub: bool = setting(
        False, "push the last weights during training, and the best to the branch `best`", resume="free"
    )
    hub_model_id: str | None = setting(None, "repository to push to: user/name", needs=("push_to_hub",), resume="free")
    hub_private_repo: bool = setting(False, "make the repository private", needs=("push_to_hub",), resume="free")


@dataclass
class PlanArguments:
    """Settings of `tinygpt plan`."""

    hardware: str | None = setting(
        None, "plan for h100, h200, a100 or rtx4090, with x8 for eight; default this machine"
    )
    write: PathText | None = setting(
        None, "write the planned settings with reasons to this new YAML file, for `train --config`"
    )
    output_file: PathText | None = setting(None, "write the figures to this JSON file")
