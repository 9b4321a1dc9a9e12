"""Load a model and its tokenizer from a folder or the Hub, or build a new model from settings.

    model, tokenizer = load_model("runs/quickstart")            # any causal LM of Transformers
    model = build_model(model_arguments, data_arguments, tokenizer, seed=42)

A model's own code is never run, and weights are read only from safetensors.
"""

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from tinygpt_hf.errors import UsageError
from tinygpt_hf.model.conversion import config_from_stock, from_stock
from tinygpt_hf.model.memory import check_fits
from tinygpt_hf.model.validation import checked_folder
from tinygpt_hf.reading.decoding import first_words
from tinygpt_hf.settings.arguments import DataArguments, ModelArguments
from tinygpt_hf.tokenizing.tokenizer import TOKENIZER_FILES, open_tokenizer

CONTINUED = ("tinygpt", "qwen3", "llama", "gpt2")


def load_model(name_or_path: str | None, device: str = "auto", dtype: str = "auto"):
    """Load a causal language model, in evaluation mode on its device, and its tokenizer.

    `dtype` "auto" means float32 on the CPU, where half precision is slow, and the saved dtype elsewhere; "saved" always
    means the saved one. Raises a `UsageError` if the model or the tokenizer cannot be loaded.
    """
    name, local_only = _locate(name_or_path)
    device = choose_device(device)
    if dtype == "auto" and device == "cpu":
        dtype = "float32"
    elif dtype == "saved":
        dtype = "auto"  # its name in Transformers
    folder, model = open_pretrained(name, local_only, dtype=dtype)
    with silent_transformers():
        tokenizer = open_tokenizer(folder)
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise UsageError(
            f"the tokenizer of {name} has {len(tokenizer)} tokens and the model only {rows} embeddings",
            "an embedding for every token",
            "use the tokenizer with which the model was trained",
        )
    if device == "cuda":
        check_fits(Path(folder), model.dtype, device)
    return model.to(device).eval(), tokenizer


def open_pretrained(name: str, local_only: bool = False, **options):
    """Return (folder, causal LM) of a folder or Hub id; raise a `UsageError` if it is invalid or lacks a weight.

    `options` are those of `from_pretrained`.
    """
    from transformers import AutoModelForCausalLM

    try:
        with silent_transformers():
            folder = checked_folder(name, local_only)
            if options.get("device_map") != "meta":
                dtype = options.get("dtype", "auto")
                named = dtype in ("float32", "bfloat16", "float16")
                check_fits(Path(folder), getattr(torch, dtype) if named else dtype)
            model, report = AutoModelForCausalLM.from_pretrained(
                folder, trust_remote_code=False, use_safetensors=True, output_loading_info=True, **options
            )
    except Exception as error:  # safetensors has its own class for damaged files
        known = (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError, ImportError)
        if not isinstance(error, known) and not type(error).__module__.startswith(("safetensors", "builtins")):
            raise
        reason, action = first_words(error).rstrip("."), "check the name, or get the folder again"
        raise UsageError(f"{name} cannot be loaded ({reason})", "a causal LM of Transformers", action) from error
    missing = sorted(report["missing_keys"])  # Transformers has initialized them randomly
    if missing:
        raise UsageError(
            f"{name} lacks {len(missing)} of the model's weights, {missing[0]} first",
            "the complete weights of a causal LM",
            "get the folder again, or name a text-generation model",
        )
    return folder, model


def load_weights_of(name: str):
    """Load a model to continue training in float32; stock Qwen3, Llama and GPT-2 models are converted to TinyGPT."""
    _, model = open_pretrained(name, dtype=torch.float32)
    return model if model.config.model_type == "tinygpt" else from_stock(model)


def choose_device(requested: str) -> str:
    """Return the device to use; `auto` prefers cuda, then mps, then cpu. Raises a `UsageError` for a missing device."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if requested == "auto":
        if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("true", "1", "yes"):
            return "cpu"
        return next(name for name in ("cuda", "mps", "cpu") if available[name])
    if not available.get(requested):
        devices = ", ".join(name for name in available if available[name])
        raise UsageError(f"--device is {requested}", f"a device of this machine: {devices}", "choose one, or auto")
    return requested


def check_model(model: ModelArguments, data: DataArguments, vocab_size: int = 256):
    """Return the configuration of the model to train; raise a `UsageError` for an impossible shape or missing weights."""
    from transformers.activations import ACT2FN

    if name := model.model_name_or_path:
        _, net = open_pretrained(name, device_map="meta")  # names and shapes only, without reading weights
        if net.config.model_type not in CONTINUED:
            expected = f"one of {', '.join(CONTINUED)}, whose training can be continued"
            raise UsageError(f"{name} is a {net.config.model_type}", expected, "name a model of these kinds")
        return net.config if net.config.model_type == "tinygpt" else config_from_stock(net.config)
    if model.hidden_act is not None and model.hidden_act not in ACT2FN:
        raise UsageError(f"--hidden_act is {model.hidden_act!r}", f"one of {', '.join(ACT2FN)}", "choose one of them")
    return config_for(model, data, vocab_size)


def config_for(model: ModelArguments, data: DataArguments, vocab_size: int, **token_ids):
    """Return the configuration of a new model; raise a `UsageError` with the config's reason for an impossible shape."""
    from tinygpt_hf.model.configuration_tinygpt import TinyGPTConfig

    shape = {"max_position_embeddings": data.block_size}
    shape |= {name: value for name, value in dataclasses.asdict(model).items() if value is not None}
    shape.pop("model_name_or_path", None)
    try:
        return TinyGPTConfig(**shape, vocab_size=vocab_size, **token_ids)
    except Exception as error:  # the strict dataclass wraps ValueErrors in its own types
        reason = " ".join(str(error.__cause__ or error).split())
        problem = f"the model's shape is impossible ({reason})"
        raise UsageError(problem, "a shape that TinyGPTConfig takes", "fix it") from error


def build_model(model: ModelArguments, data: DataArguments, tokenizer, seed: int, new_tokens: Sequence[int] = ()):
    """Build a new model, or load the named one to continue its training (converted if it is a stock model).

    `new_tokens` are ids that were added to the named model's tokenizer; their embeddings are initialized with the mean of
    the others. Sets the tokenizer's `model_max_length` to the model's context.
    """
    from transformers import GenerationConfig

    from tinygpt_hf.model.modeling_tinygpt import TinyGPTForCausalLM

    torch.manual_seed(seed)
    if model.model_name_or_path:
        net = load_weights_of(model.model_name_or_path)
        known, longest = net.get_input_embeddings().num_embeddings, net.config.max_position_embeddings
        name, size = model.model_name_or_path, len(tokenizer)
        if size - len(new_tokens) > known:
            raise UsageError(
                f"the tokenizer has {size} tokens", f"at most the {known} of {name}", "use the model's own"
            )
        if data.block_size > longest:
            expected = f"at most {longest}, the context of {name}"
            raise UsageError(f"--block_size is {data.block_size}", expected, "use a smaller one")
        if new_tokens:
            add_rows(net, list(new_tokens))
    else:
        ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
        net = TinyGPTForCausalLM(config_for(model, data, len(tokenizer), **ids))
        turn_end = tokenizer.get_vocab().get("<|im_end|>")
        ends = [tokenizer.eos_token_id] + ([turn_end] if turn_end is not None else [])
        net.generation_config = GenerationConfig(**{**ids, "eos_token_id": ends})
    tokenizer.model_max_length = net.config.max_position_embeddings
    return net


@torch.no_grad()
def add_rows(net, tokens: list[int]) -> None:
    """Initialize the embeddings and head rows of new tokens with the mean of the rows before them.

    Random rows could be much larger than the others, and would change every probability.
    """
    if max(tokens) >= net.get_input_embeddings().num_embeddings:
        net.resize_token_embeddings(max(tokens) + 1, mean_resizing=False)
    for layer in (net.get_input_embeddings(), net.get_output_embeddings()):
        layer.weight[tokens] = layer.weight[: min(tokens)].mean(0)


def stop_at(net, token: int) -> None:
    """Add a token to those that end `generate`."""
    ends = net.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends] if ends is not None else []
    if token not in ends:
        net.generation_config.eos_token_id = [*ends, token]


def _locate(name_or_path: str | None) -> tuple[str, bool]:
    """Return (folder or Hub id, whether only local files may be used), after checks that need no loading."""
    if not name_or_path:
        raise UsageError("no MODEL is given", "a model folder or a Hub id", "try runs/quickstart")
    folder = Path(os.path.expanduser(name_or_path))  # Path.expanduser fails for an unknown user
    if folder.is_dir():
        if (folder / "adapter_config.json").exists():
            return str(folder), True  # checked_folder reports adapters
        if not (folder / "config.json").is_file():
            inside = sorted(folder.glob("checkpoint-*"))
            hint = f"try {inside[-1]}" if inside else "name the --output_dir of a training run, or a downloaded model"
            raise UsageError(f"{folder} is no model folder: it holds no config.json", "a model", hint)
        if not any((folder / name).is_file() for name in TOKENIZER_FILES):
            # checked here because AutoTokenizer creates an empty tokenizer for some model types
            raise UsageError(
                f"{folder} holds no tokenizer",
                "a tokenizer next to the weights",
                "copy the tokenizer the model was trained with (tokenizer.json, tokenizer_config.json) into it",
            )
        return str(folder), True
    if folder.exists():
        raise UsageError(f"{folder} is a file", "a model folder or a Hub id", "name its folder")
    if name_or_path.startswith((".", "/", "~", "runs/")) or "\\" in name_or_path or name_or_path.count("/") > 1:
        raise UsageError(f"the folder {name_or_path} does not exist", "a model folder", "check the path")
    return name_or_path, _hub_unreachable(name_or_path)


def _hub_unreachable(name: str) -> bool:
    """Ask the Hub once for `name`; return False if it is there, True if the Hub is unreachable but a copy is cached.

    Raises a `UsageError` if there is neither. Without this check, an unreachable Hub costs twenty seconds of retries.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    nowhere, expected = f"MODEL {name} is no local folder", "a model folder or a Hub id (user/name)"
    try:
        HfApi().model_info(name, timeout=10)
        return False
    except HFValidationError:
        raise UsageError(f"{nowhere} and no valid Hub id", expected, "check the spelling") from None
    except RepositoryNotFoundError:
        hint = "check the spelling; a private model needs `hf auth login`"
        raise UsageError(f"{nowhere} and no model on the Hub", expected, hint) from None
    except Exception as error:  # offline, no network, server errors: the classes differ between client versions
        if isinstance(try_to_load_from_cache(name, "config.json"), str):
            return True
        problem = f"{nowhere} and the Hub cannot be reached ({first_words(error)})"
        raise UsageError(problem, expected, "check the path, or the network") from None


@contextlib.contextmanager
def silent_transformers():
    """Silence Transformers' progress bars and warnings."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
