"""Train and load tokenizers. Trained ones are stock fast tokenizers of Transformers, lossless on any text:

- `bpe`   byte-level BPE with GPT-2's pattern and no normalizer (pre-tokenizer type "gpt-2" of llama.cpp)
- `char`  one token per character seen in training; other characters are encoded as UTF-8 bytes
- `byte`  one token per byte: 256 and the special tokens

The special tokens have ids 0 to 3. No token is prepended; `<|endoftext|>` ends a document.
"""

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from tinygpt_hf.errors import UsageError
from tinygpt_hf.reading.decoding import first_words
from tinygpt_hf.settings.checks import SMALLEST_BPE
from tinygpt_hf.tokenizing.chat_template import (
    CHAT_TEMPLATE,
    END_OF_TEXT,
    PAD,
    SPECIAL_TOKENS,
    TURN_END,
    TURN_START,
    encode_texts,
)

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def train_tokenizer(
    texts: Iterable[str],
    tokenizer_type: str = "bpe",
    vocab_size: int = 4096,
    min_frequency: int = 2,
    max_length: int = 1024,
):
    """Train a `PreTrainedTokenizerFast`. The texts are read once, in order, and not kept in memory.

    `vocab_size` and `min_frequency` are for `bpe`. Its vocabulary is smaller if fewer pairs occur `min_frequency` times.
    `max_length`: the tokenizer's `model_max_length`. Raises UsageError if there are no texts.
    """
    from transformers import PreTrainedTokenizerFast

    texts = iter(texts)
    first = next(texts, None)
    if first is None:
        raise UsageError("the text is empty", "text to train a tokenizer on", "name files that contain text")
    texts = itertools.chain([first], texts)
    if tokenizer_type == "char":
        core = _char_core(texts)
    else:
        core = _byte_core(texts, tokenizer_type, vocab_size, min_frequency)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=PAD,
        additional_special_tokens=[TURN_START, TURN_END],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=max_length,
    )


def _char_core(texts: Iterable[str]):
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    characters: Counter = Counter()
    for text in texts:
        characters.update(text)
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary = {token: k for k, token in enumerate([*SPECIAL_TOKENS, *byte_tokens, *sorted(characters)])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, fuse_unk=False))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    core.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    core.add_special_tokens(list(SPECIAL_TOKENS))
    return core


def _byte_core(texts: Iterator[str], tokenizer_type: str, vocab_size: int, min_frequency: int):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size if tokenizer_type == "bpe" else SMALLEST_BPE,
        min_frequency=min_frequency,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(texts if tokenizer_type == "bpe" else (next(texts),), trainer)
    for _ in texts:  # bytes need no training, but read all texts so that an unreadable source is an error
        pass
    return core


def open_tokenizer(name_or_path: str, action: str = "get the folder again"):
    """Load any Transformers tokenizer from a folder or the Hub, without running code from it. Raises UsageError."""
    from transformers import AutoTokenizer

    folder = Path(name_or_path)
    try:
        # AutoTokenizer would return an empty tokenizer for some model types
        if folder.is_dir() and not any((folder / name).is_file() for name in TOKENIZER_FILES):
            raise FileNotFoundError("it holds no tokenizer.json")
        # otherwise Transformers asks in the terminal whether it may run code from the folder
        return AutoTokenizer.from_pretrained(name_or_path, trust_remote_code=False)
    except BaseException as error:  # tokenizers raises plain Exceptions, and a Rust panic for broken JSON
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = first_words(error)
        raise UsageError(
            f"no tokenizer could be loaded from {name_or_path!r} ({reason})",
            "a folder with tokenizer.json or a Hub id",
            action,
        ) from error


def load_tokenizer(name_or_path: str):
    """Load a tokenizer for training. Raises UsageError unless it is fast and has an end-of-text token."""
    tokenizer = open_tokenizer(name_or_path, "check --tokenizer_name")
    for word in ("is_local", "local_files_only"):  # arguments of loading that would be saved with it
        tokenizer.init_kwargs.pop(word, None)
    largest = max(tokenizer.get_vocab().values(), default=0)
    # small gaps are common, but saving iterates over all ids up to the largest
    if largest >= 2 * len(tokenizer) + 1024:
        raise UsageError(
            f"{name_or_path!r} has {len(tokenizer)} tokens with ids up to {largest}",
            "ids without large gaps",
            "get the tokenizer again",
        )
    if not tokenizer.is_fast:
        raise UsageError(f"{name_or_path!r} has a slow tokenizer", "a fast one", "convert it to tokenizer.json")
    if tokenizer.eos_token_id is None:
        raise UsageError(
            f"the tokenizer {name_or_path!r} has no end-of-text token",
            "one, to separate documents",
            "set eos_token in its tokenizer_config.json",
        )
    return tokenizer


def tokenizer_hash(tokenizer) -> str:
    """Return the sha256 of all that determines the ids: the serialized tokenizer and the chat template."""
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    core["truncation"] = core["padding"] = None  # may be left from an earlier call
    return hashlib.sha256(f"{json.dumps(core)}\n{tokenizer.chat_template}".encode()).hexdigest()


def bytes_per_token(tokenizer, texts: list[str]) -> float:
    """Return the mean number of UTF-8 bytes per token of the texts."""
    tokens = sum(map(len, encode_texts(tokenizer, texts)))
    return sum(len(text.encode()) for text in texts) / max(tokens, 1)
