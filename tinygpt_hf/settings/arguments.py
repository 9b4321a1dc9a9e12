"""Every setting of preparing, training and exporting: a dataclass field with its name, type, default and one line of help.

The same spelling works in a YAML section (`training: {learning_rate: 3e-4}`), as a flag (`--learning_rate 3e-4`) and in
Python (`TrainingArguments(learning_rate=3e-4)`), and is checked alike (checks.py). Default < YAML < flag. What is None
here follows from the others by a rule of settings/defaults.py, or of the model's configuration.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal


def setting(default, help: str, **metadata):
    """A dataclass field with a line of help; lists and dicts get a fresh copy each. `free`: a run that goes on may have another
    value without a word."""
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata={"help": help, **metadata})
    return field(default=default, metadata={"help": help, **metadata})


@dataclass
class ModelArguments:
    """The shape of the model: every field of TinyGPTConfig, under the same name."""

    section: ClassVar[str] = "model"
    aliases: ClassVar[dict[str, str]] = {
        "n_embd": "hidden_size",
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "n_positions": "max_position_embeddings",
    }

    model_name_or_path: str | None = setting(
        None, "continue from these weights (folder or Hub id) instead of from scratch"
    )
    hidden_size: int | None = setting(None, "width of the model; default 128")
    num_hidden_layers: int | None = setting(None, "number of layers; default 3")
    num_attention_heads: int | None = setting(None, "attention heads per layer; default hidden_size / 64")
    num_key_value_heads: int | None = setting(None, "key/value heads (fewer than heads: grouped-query attention)")
    head_dim: int | None = setting(None, "width of one head; default hidden_size / num_attention_heads")
    intermediate_size: int | None = setting(
        None, "width of the MLP; default about 8/3 hidden_size gated, 4 hidden_size plain"
    )
    hidden_act: str | None = setting(None, "activation of the MLP, any name Transformers knows")
    max_position_embeddings: int | None = setting(None, "longest context; default block_size")
    position_embedding_type: Literal["rope", "learned"] = setting("rope", "rotary or learned positions")
    norm_type: Literal["rmsnorm", "layernorm"] = setting("rmsnorm", "kind of normalisation")
    mlp_type: Literal["gated", "plain"] = setting("gated", "gated as in Llama, or plain as in GPT-2")
    attention_bias: bool = setting(False, "biases in the attention projections")
    mlp_bias: bool = setting(False, "biases in the MLP")
    qk_norm: bool = setting(True, "normalise queries and keys per head, as in Qwen3")
    tie_word_embeddings: bool | None = setting(None, "one matrix for input and output embeddings; default false")
    attention_dropout: float = setting(0.0, "dropout on attention weights")
    hidden_dropout: float = setting(0.0, "dropout on embeddings and residual branches")
    initializer_range: float = setting(0.02, "standard deviation of the initial weights")
    embedding_initializer_range: float | None = setting(
        None,
        "the same for the embeddings; default 0.3, which learns sooner, with tie_word_embeddings initializer_range",
    )
    rms_norm_eps: float = setting(1e-6, "epsilon of either normalisation")
    rope_parameters: dict | None = setting(
        None, 'rotary settings, e.g. {"rope_theta": 10000.0, "rope_type": "default"}'
    )


@dataclass
class DataArguments:
    """Which text goes in, and how it is cut into rows."""

    section: ClassVar[str] = "data"

    train_file: list[str] = setting(
        [], "text files, globs, folders or URLs (.txt .md .py .jsonl .csv .parquet, also .gz .zst)"
    )
    validation_file: list[str] = setting([], "validation text; default: split off the training text")
    dataset_name: str | None = setting(None, "Hub dataset, or `toyland`, the embedded corpus")
    dataset_config_name: str | None = setting(None, "configuration of the Hub dataset; of toyland: text or dialogues")
    dataset_split: str = setting("train", "split of the Hub dataset")
    dataset_revision: str | None = setting(None, "commit, tag or branch of the Hub dataset")
    sources: list[dict] | None = setting(
        None, "a weighted mix: list of the settings above plus `weight` (how often each document is used)"
    )
    text_column: str | None = setting(
        None,
        "column with the text; default the first of `messages`, `conversations`, `prompt` + `completion`, "
        "`instruction` + `output`, `text`, `content`",
    )
    encoding_errors: Literal["strict", "replace"] = setting(
        "strict", "bytes that are no UTF-8: refuse the file, or replace them by U+FFFD and count them"
    )
    document_separator: str | None = setting(
        None,
        "splits .txt files into documents: `blank_line`, or a marker such as `<|endoftext|>`; default: a file is one",
    )
    streaming: bool = setting(
        False,
        "train while the text is still being read; a Hub dataset, or parquet behind URLs, is not downloaded first",
    )
    stream_window: int | None = setting(
        None, "with streaming: rows of at most this many tokens on the disk at a time; default: all rows are kept"
    )
    max_train_samples: int | None = setting(None, "use only the first N documents (for toyland: how many to write)")
    validation_split: Literal["hash", "tail"] | None = setting(
        None,
        "choose validation documents by a hash, or take the tail of each text; default hash, tail for fewer than 64 texts",
    )
    validation_split_percentage: float = setting(5.0, "share of the text held out for validation, in percent")
    block_size: int = setting(256, "tokens per row: the context the model is trained on")
    packing: Literal["wrap", "bestfit"] = setting(
        "wrap", "wrap: documents end to end, cut anywhere; bestfit: those that fit a row whole, with padding at its end"
    )
    shift_rows: bool = setting(
        True, "cut the text into rows at another offset in every epoch (with packing wrap, without streaming)"
    )
    document_mask: bool = setting(False, "no attention across the documents of a row; positions restart at each")
    rows: str | None = setting(None, "use the rows in this folder, made by `tinygpt tokenize` or an earlier run")
    num_proc: int | None = setting(
        None, "processes that tokenize or clean; default one per core; the result is the same", free=True
    )
    show_rows: int = setting(0, "print this many rows as text before training", free=True)

    @property
    def sliding(self) -> bool:
        """Is the text cut at another offset in every epoch? Whole documents have no offset, nor has text without a known end."""
        return self.shift_rows and self.packing == "wrap" and not self.streaming


@dataclass
class TokenizerArguments:
    """Which tokenizer: one that exists, or one trained from the text."""

    section: ClassVar[str] = "tokenizer"

    tokenizer_name: str | None = setting(None, "an existing tokenizer (folder or Hub id)")
    tokenizer_type: Literal["bpe", "char", "byte"] | None = setting(
        None, "train one: byte-level BPE, characters or bytes"
    )
    vocab_size: int | None = setting(None, "vocabulary of the BPE tokenizer to train; default 2048")
    min_frequency: int = setting(2, "a pair of symbols must occur this often to be merged")
    max_train_bytes: int = setting(
        100_000_000, "train the tokenizer on about this many bytes, taken evenly from the text"
    )

    @property
    def wanted(self) -> bool:
        """Do these settings ask for a tokenizer to be trained?"""
        return self.tokenizer_type is not None or self.vocab_size is not None


@dataclass
class OutputArguments:
    """Where results go."""

    section: ClassVar[str] = "training"

    output_dir: str | None = setting(
        None, "folder to write; default runs/<name of the config file, else of the first text>", free=True
    )
    overwrite: bool = setting(False, "move an existing output folder aside (never deleted) and start afresh", free=True)
    seed: int = setting(42, "seed of everything random: toyland, weights, order, dropout")


@dataclass
class TrainingArguments(OutputArguments):
    """How the model is trained. The effective batch is per_device_train_batch_size x accumulation x processes rows."""

    section: ClassVar[str] = "training"

    max_steps: int | None = setting(
        None,
        "optimizer steps to take; with no length given: 3 million tokens, at most 8 epochs (3 with model_name_or_path)",
    )
    num_train_epochs: float | None = setting(None, "times to go through the rows")
    max_train_tokens: int | None = setting(None, "tokens to train on")
    per_device_train_batch_size: int | None = setting(
        None, "rows per micro-batch and process; default 8, with model_name_or_path 16", free=True
    )
    per_device_eval_batch_size: int | None = setting(
        None, "rows per batch of evaluation; default as in training", free=True
    )
    gradient_accumulation_steps: int = setting(1, "micro-batches per optimizer step", free=True)
    optim: Literal["muon", "adamw"] = setting(
        "muon", "muon: hidden matrices by Muon, the rest by AdamW; adamw: all by AdamW"
    )
    learning_rate: float | None = setting(
        None,
        "peak learning rate of AdamW; default 0.008, times 256/width if wider; 0.003 with model_name_or_path or optim adamw",
    )
    muon_learning_rate: float = setting(0.02, "peak learning rate of Muon")
    weight_decay: float | None = setting(
        None,
        "decoupled, on matrices, not on norms, biases and embeddings; default 0, with model_name_or_path 0.1",
    )
    adam_beta1: float | None = setting(None, "AdamW's beta1; default 0.8, with model_name_or_path 0.9")
    adam_beta2: float = setting(0.95, "AdamW's beta2")
    adam_epsilon: float = setting(1e-8, "AdamW's epsilon")
    muon_momentum: float | None = setting(None, "Muon's momentum; default 0.9, with model_name_or_path 0.95")
    lora_r: int | None = setting(
        None,
        "rank of LoRA adapters: only they are learnt, beside the frozen --model_name_or_path; default: all is learnt",
    )
    lora_alpha: float | None = setting(None, "adapters count alpha/r times; default twice lora_r")
    lora_dropout: float = setting(0.0, "dropout before the adapters")
    lora_merge: bool = setting(
        False,
        "leave out adapter/, the adapters alone as PEFT reads them; the run folder is the merged model in any case",
    )
    lr_scheduler_type: Literal["cosine", "linear", "warmup_stable_decay", "constant"] | None = setting(
        None, "learning rate over the steps; default linear, with model_name_or_path cosine"
    )
    warmup_steps: int | None = setting(
        None,
        "steps over which the rate rises to its peak; default 20, at most a tenth of the run; 0 with model_name_or_path",
    )
    decay_steps: int | None = setting(
        None, "warmup_stable_decay: length of the final decay; default a fifth of the steps"
    )
    min_learning_rate_ratio: float = setting(0.0, "where the decay ends, as a share of the peak")
    max_grad_norm: float = setting(1.0, "clip the gradient to this norm; 0: do not")
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = setting(
        "auto", "auto: the launcher's choice, else bf16 where the device computes it fast, else no"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = setting("auto", "where to train", free=True)
    torch_compile: bool = setting(
        False, "compile the model (worth its minute of start-up on GPUs and long runs)", free=True
    )
    gradient_checkpointing: bool = setting(False, "trade time for memory", free=True)
    nonfinite: str = setting(
        "stop",
        "a loss or gradient that is not finite: `stop`, or `skip:N` to leave out and log up to N such steps",
        free=True,
    )
    dataloader_num_workers: int = setting(0, "threads that read that many steps ahead", free=True)
    logging_steps: int = setting(10, "steps between lines of log.jsonl", free=True)
    eval_steps: int | None = setting(
        None, "steps between evaluations; default a tenth of the run; 0: at the end only", free=True
    )
    eval_rows: int | None = setting(
        None,
        "validation rows of an evaluation before the last; default what keeps them below a tenth of the time; 0: all",
        free=True,
    )
    save_steps: int | None = setting(
        None, "steps between checkpoints; default as eval_steps; 0: at the end only", free=True
    )
    save_total_limit: int = setting(2, "complete checkpoints to keep besides the best weights (2 or more)", free=True)
    resume_from_checkpoint: str = setting(
        "auto", "auto: the newest sound one of the folder; none: start again; or a folder", free=True
    )
    sample_prompts: list[str] = setting(
        [], "continued at every evaluation; default: the beginnings of validation documents", free=True
    )
    sample_tokens: int | None = setting(
        None, "length of those samples in tokens; default 48, before the end of a short run fewer; 0: none", free=True
    )
    license: str | None = setting(
        None, "licence of the model, for its card: as the Hub calls it, e.g. apache-2.0", free=True
    )
    language: list[str] = setting([], "languages of the text, for the card: ISO 639 codes, e.g. en", free=True)
    data_license: str | None = setting(None, "licence of the training text, for the card, in your words", free=True)
    push_to_hub: bool = setting(
        False, "push the last weights while training goes on, and the best to the branch `best`", free=True
    )
    hub_model_id: str | None = setting(None, "where to: user/name", free=True)
    hub_private_repo: bool = setting(False, "only you can see it", free=True)
