"""Settings -> a model: from scratch in the shape asked for, or from weights that are there."""

import contextlib
import dataclasses
from collections.abc import Sequence

import torch

from tinygpt_hf.errors import UsageError
from tinygpt_hf.model.validation import checked_folder
from tinygpt_hf.settings.arguments import DataArguments, ModelArguments

CONTINUED = ("tinygpt", "qwen3", "llama", "gpt2")


def check_model(model: ModelArguments, data: DataArguments) -> None:
    """Refuse an impossible shape, or weights that are not there, before the text is read."""
    from transformers import AutoConfig
    from transformers.activations import ACT2FN

    from tinygpt_hf.model.conversion import refuse_other_arithmetic

    name = model.model_name_or_path
    if name:
        with readable(name):
            config = AutoConfig.from_pretrained(checked_folder(name), trust_remote_code=False)
        if config.model_type not in CONTINUED:
            wanted = f"training goes on from {', '.join(CONTINUED)}"
            raise UsageError(f"{name} is a {config.model_type}", wanted, "name a model of these kinds")
        if config.model_type != "tinygpt":
            refuse_other_arithmetic(config)
        opened(name, device_map="meta")  # names and shapes only: nothing is read yet
    elif model.hidden_act is not None and model.hidden_act not in ACT2FN:
        raise UsageError(
            f"--hidden_act is {model.hidden_act!r}", f"one of {', '.join(ACT2FN)} was wanted", "choose one of them"
        )
    else:
        config_for(model, data, vocab_size=256)


@contextlib.contextmanager
def readable(name: str):
    """Errors of loading a model, as one line."""
    try:
        yield
    except Exception as error:  # on damaged files safetensors raises a bare class of its own
        known = isinstance(error, (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError))
        if not known and not type(error).__module__.startswith("safetensors"):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        wanted = "a model folder or Hub id was wanted"
        raise UsageError(f"{name} cannot be loaded ({reason})", wanted, "check --model_name_or_path") from error


def config_for(model: ModelArguments, data: DataArguments, vocab_size: int, **token_ids):
    """The configuration of a model from scratch; a shape that cannot be is a UsageError in the words of the config."""
    from tinygpt_hf.model.configuration_tinygpt import TinyGPTConfig

    shape = {f.name: getattr(model, f.name) for f in dataclasses.fields(model) if f.name != "model_name_or_path"}
    shape = {name: value for name, value in shape.items() if value is not None}
    try:
        return TinyGPTConfig(
            **{"max_position_embeddings": data.block_size, **shape, "vocab_size": vocab_size, **token_ids}
        )
    except Exception as error:  # the strict dataclass wraps ValueErrors in several types of its own
        reason = " ".join(str(error.__cause__ or error).split())
        raise UsageError(
            f"the model's shape is impossible ({reason})", "see model: in the settings", "mend it"
        ) from error


def build_model(model: ModelArguments, data: DataArguments, tokenizer, seed: int, new_tokens: Sequence[int] = ()):
    """A new model, or the named one to go on with; stock Qwen3, Llama and GPT-2 are converted.

    `new_tokens`: ids that the named model's tokenizer was given now; their rows of the embeddings begin as the mean of the
    others. The tokenizer's `model_max_length` is made the model's context.
    """
    from transformers import GenerationConfig

    from tinygpt_hf.model.modeling_tinygpt import TinyGPTForCausalLM

    torch.manual_seed(seed)
    if model.model_name_or_path:
        net = load_weights_of(model.model_name_or_path)
        known, longest = net.get_input_embeddings().num_embeddings, net.config.max_position_embeddings
        if len(tokenizer) - len(new_tokens) > known:
            raise UsageError(
                f"the tokenizer has {len(tokenizer)} tokens",
                f"{model.model_name_or_path} knows {known}",
                "use the model's own tokenizer",
            )
        if data.block_size > longest:
            raise UsageError(
                f"--block_size is {data.block_size}",
                f"the context of {model.model_name_or_path} is {longest}",
                "use a smaller one",
            )
        if new_tokens:
            add_rows(net, list(new_tokens))
    else:
        ids = {
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        net = TinyGPTForCausalLM(config_for(model, data, len(tokenizer), **ids))
        turn_end = tokenizer.get_vocab().get("<|im_end|>")
        ends = [tokenizer.eos_token_id] + ([turn_end] if turn_end is not None else [])
        net.generation_config = GenerationConfig(**{**ids, "eos_token_id": ends})
    tokenizer.model_max_length = net.config.max_position_embeddings
    return net


@torch.no_grad()
def add_rows(net, tokens: list[int]) -> None:
    """Make rows of the embeddings, and of the head, for new tokens: the mean of those before them.

    Random ones would be large or small beside the others, and change every probability at once.
    """
    if max(tokens) >= net.get_input_embeddings().num_embeddings:
        net.resize_token_embeddings(max(tokens) + 1, mean_resizing=False)
    for layer in (net.get_input_embeddings(), net.get_output_embeddings()):
        layer.weight[tokens] = layer.weight[: min(tokens)].mean(0)


def stop_at(net, token: int) -> None:
    """Make `generate` end at this token as well."""
    ends = net.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends] if ends is not None else []
    if token not in ends:
        net.generation_config.eos_token_id = [*ends, token]


def load_weights_of(name: str):
    """The model to continue from, in float32; stock Qwen3, Llama and GPT-2 as the TinyGPT model equal to them."""
    from tinygpt_hf.model.conversion import from_stock

    net = opened(name, dtype=torch.float32)
    return net if net.config.model_type == "tinygpt" else from_stock(net)


def opened(name: str, **options):
    """The whole model in a folder or on the Hub; one that lacks a weight is refused, and neither code nor pickles are run."""
    from transformers import AutoModelForCausalLM

    with quiet(), readable(name):
        net, report = AutoModelForCausalLM.from_pretrained(
            checked_folder(name), trust_remote_code=False, use_safetensors=True, output_loading_info=True, **options
        )
    refuse_missing(name, report)
    return net


def refuse_missing(name: str, report: dict) -> None:
    """A UsageError where the library's loading report says that a weight was not there: it filled it with random numbers."""
    missing = sorted(report["missing_keys"])
    if missing:
        raise UsageError(
            f"{name} lacks {len(missing)} of the model's weights, {missing[0]} first",
            "the complete weights of a causal LM were wanted",
            "get the folder again, or name a text-generation model",
        )


@contextlib.contextmanager
def quiet():
    """No progress bars and no advice from the library while it loads; its errors become ours."""
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
