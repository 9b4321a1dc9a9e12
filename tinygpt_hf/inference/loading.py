"""A name -> (model, tokenizer): any Transformers folder or Hub id, through the Auto classes, never running its code.

model, tokenizer = load_model("runs/quickstart")
"""

import os
from pathlib import Path

import torch

from tinygpt_hf.errors import UsageError
from tinygpt_hf.model.loading import quiet, refuse_missing
from tinygpt_hf.model.validation import check_folder, checked_folder

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def load_model(name_or_path: str | None, device: str = "auto", dtype: str = "auto"):
    """(model in evaluation mode on its device, tokenizer). Everything a user can get wrong is a `UsageError`.

    `dtype` auto is float32 on the CPU, where half precision is slow, and as saved elsewhere; "saved" is as saved anywhere.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    name, only_local = _place(name_or_path)
    where = _device(device)
    if dtype == "auto" and where.type == "cpu":
        dtype = "float32"
    elif dtype == "saved":
        dtype = "auto"  # the library's word for it
    with quiet():
        folder = _opened(name, "model", lambda: checked_folder(name, only_local))
        options = {"trust_remote_code": False, "local_files_only": True}
        model, report = _opened(
            name,
            "model",
            lambda: AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
            ),
        )
        tokenizer = _opened(name, "tokenizer", lambda: AutoTokenizer.from_pretrained(folder, **options))
    refuse_missing(name, report)
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise UsageError(
            f"the tokenizer of {name} has {len(tokenizer)} tokens and its model knows {rows}",
            "a model that knows every token of its tokenizer was wanted",
            "put the tokenizer the model was trained with beside it",
        )
    return model.to(where).eval(), tokenizer


def context_length(model) -> int | None:
    """How many tokens the model can look at, or None where its configuration sets no bound."""
    config = model.config.get_text_config()
    return getattr(config, "max_position_embeddings", None) or None


def stop_ids(model, tokenizer) -> set[int]:
    """The tokens that end a text: those of generation_config.json, the tokenizer's end of text, and `<|im_end|>`."""
    named = getattr(model.generation_config, "eos_token_id", None)
    ids = set(named if isinstance(named, (list, tuple)) else [named])
    ids |= {tokenizer.eos_token_id, tokenizer.get_vocab().get("<|im_end|>")}
    return ids - {None}


def _place(name_or_path: str | None) -> tuple[str, bool]:
    """(folder or Hub id, must the network be left alone?), checked as far as that goes without loading."""
    if not name_or_path:
        raise UsageError("no MODEL is given", "a model folder or a Hub id was wanted", "e.g. runs/quickstart")
    folder = Path(os.path.expanduser(name_or_path))  # Path.expanduser fails where there is no such user
    if folder.is_dir():
        if (folder / "adapter_config.json").exists():
            check_folder(folder)  # says what to do with an adapter
        if not (folder / "config.json").is_file():
            inside = sorted(folder.glob("checkpoint-*"))
            hint = f"try {inside[-1]}" if inside else "name the --output_dir of a training run, or a downloaded model"
            raise UsageError(f"{folder} is no model folder: it holds no config.json", "a model was wanted", hint)
        if not any((folder / name).is_file() for name in TOKENIZER_FILES):
            # asked here because AutoTokenizer makes up an empty tokenizer for some model types
            raise UsageError(
                f"{folder} holds no tokenizer",
                "a model folder has its tokenizer beside the weights",
                "copy the tokenizer the model was trained with (tokenizer.json, tokenizer_config.json) into it",
            )
        return str(folder), True
    if folder.exists():
        raise UsageError(f"{folder} is a file", "a model folder or a Hub id was wanted", "name the folder it lies in")
    path_like = name_or_path.startswith((".", "/", "~", "runs/")) or "\\" in name_or_path or name_or_path.count("/") > 1
    if path_like:
        raise UsageError(f"the folder {name_or_path} does not exist", "a model folder was wanted", "check the path")
    return name_or_path, _hub_unreachable(name_or_path)


def _hub_unreachable(name: str) -> bool:
    """Ask the Hub once for `name`: False if it has it, True if only a copy on this machine can help.

    Without this question an unreachable Hub costs twenty seconds of repeated attempts.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    wanted = "a model folder or a Hub id (user/name) was wanted"
    try:
        HfApi().model_info(name, timeout=10)
        return False
    except HFValidationError:
        raise UsageError(f"{name} is no folder here and no possible Hub id", wanted, "check the spelling") from None
    except RepositoryNotFoundError:
        hint = "check the spelling; a private model needs `hf auth login`"
        raise UsageError(f"{name} is no folder here and no model on the Hub", wanted, hint) from None
    except Exception as error:  # offline mode, no network, a refusing server: each client version has errors of its own
        if isinstance(try_to_load_from_cache(name, "config.json"), str):
            return True
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        seen = f"{name} is no folder here and the Hub cannot be reached ({reason})"
        raise UsageError(seen, wanted, "check the path, or the network") from None


def _opened(name: str, part: str, load):
    try:
        return load()
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError, TypeError, ImportError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = (lines or [type(error).__name__])[0][:200].rstrip(".")
        hint = "check that the folder is complete"
        if "trust_remote_code" in str(error) or "custom code" in str(error):
            reason, hint = "it needs code of its own, which is not run", "use an architecture that Transformers has"
        seen = f"no {part} could be loaded from {name}: {reason}"
        raise UsageError(seen, "a causal language model of Transformers was wanted", hint) from error
    except Exception as error:  # safetensors and tokenizers raise bare classes of their own on damaged files
        if type(error).__module__.split(".")[0] not in ("safetensors", "safetensors_rust", "tokenizers", "builtins"):
            raise
        seen = f"the {part} in {name} is damaged ({error})"
        raise UsageError(seen, "a complete model was wanted", "get it again") from error


def _device(device: str) -> torch.device:
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if there[name]))
    if not there.get(device):
        have = ", ".join(name for name, yes in there.items() if yes)
        raise UsageError(f"--device is {device}", f"this machine has {have}", "use --device auto")
    return torch.device(device)
