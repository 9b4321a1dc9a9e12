"""Settings -> a model: from scratch in the shape asked for, or from weights that are there."""

import contextlib
import dataclasses

import torch

from tinygpt_hf.errors import UsageError
from tinygpt_hf.settings.arguments import DataArguments, ModelArguments


def check_model(model: ModelArguments, data: DataArguments) -> None:
    """Refuse an impossible shape, or weights that are not there, before the text is read."""
    from transformers import AutoConfig
    from transformers.activations import ACT2FN

    if model.model_name_or_path:
        with readable(model.model_name_or_path):
            AutoConfig.from_pretrained(model.model_name_or_path)
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
    except (OSError, ValueError, KeyError) as error:
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


def build_model(model: ModelArguments, data: DataArguments, tokenizer, seed: int):
    """A new model, or the named one to go on with; stock Qwen3, Llama and GPT-2 are converted.

    The tokenizer's `model_max_length` is made the model's context.
    """
    from transformers import GenerationConfig

    from tinygpt_hf.model.modeling_tinygpt import TinyGPTForCausalLM

    torch.manual_seed(seed)
    if model.model_name_or_path:
        net = load_weights_of(model.model_name_or_path)
        known, longest = net.get_input_embeddings().num_embeddings, net.config.max_position_embeddings
        if len(tokenizer) > known:
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


def load_weights_of(name: str):
    """The model to continue from, in float32."""
    from transformers import AutoModelForCausalLM

    from tinygpt_hf.model.conversion import from_stock

    with readable(name):
        net = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
    return net if net.config.model_type == "tinygpt" else from_stock(net)
