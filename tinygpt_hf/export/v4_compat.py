"""Add the configuration keys that Transformers 4 and the converters of other runtimes read, next to those of Transformers 5.

Transformers 5 accepts both. With these keys, Transformers 4.57 gives the same logits and token ids.
"""

from pathlib import Path

from tinygpt_hf import storage


def add_older_names(folder: Path) -> None:
    """Add the older keys to config.json and tokenizer_config.json, if `folder` has them."""
    for name, complete in (("config.json", _complete_config), ("tokenizer_config.json", _complete_tokenizer_config)):
        if (folder / name).is_file():
            values = storage.read_json(folder / name)
            complete(values)
            storage.write_json(folder / name, values)


def _complete_config(config: dict) -> None:
    rope = config.get("rope_parameters")
    if rope:
        config["rope_theta"] = rope["rope_theta"]
        if rope["rope_type"] != "default":
            config["rope_scaling"] = {name: value for name, value in rope.items() if name != "rope_theta"}
    if config.get("model_type") == "gpt2":
        config["n_ctx"] = config["n_positions"]


def _complete_tokenizer_config(config: dict) -> None:
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(config.get("extra_special_tokens"), list):  # Transformers 4 requires a mapping there
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    for name in ("is_local", "local_files_only"):  # how the tokenizer was loaded
        config.pop(name, None)
