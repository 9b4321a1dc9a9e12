"""LoRA adapters through PEFT: add them to a model, merge their weights, save and load them.

LoRA (Hu et al. 2021, https://arxiv.org/abs/2106.09685) trains low-rank matrices A and B of W + alpha/r B A, with W frozen.
PEFT adds them to the linear layers of the model, which keeps its class. The model is saved with merged weights, so it needs
neither PEFT nor the base. The adapter is also saved alone in PEFT's format, and in every checkpoint, since merged weights
cannot be separated again.

For conversations the embeddings of the control tokens are trained as well. Otherwise a base that has never seen an
end-of-turn token could not learn to write it.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from tinygpt_hf.errors import UsageError
from tinygpt_hf.settings.arguments import TrainingArguments

_NAME = "default"  # PEFT's name for a single adapter


def attach(net: torch.nn.Module, training: TrainingArguments, base: str, tokens: list[int]) -> None:
    """Add adapters to all linear layers of `net` except the head, and freeze the other weights.

    The outputs of `net` do not change. `base`: the base model's name or path, stored in the adapter's configuration.
    `tokens`: token ids whose embeddings are trained as well.
    """
    from peft import LoraConfig, inject_adapter_in_model

    tied = net.config.tie_word_embeddings
    rows = dict.fromkeys(["embed_tokens"] if tied else ["embed_tokens", "lm_head"], tokens)
    config = LoraConfig(
        r=training.lora_r,
        lora_alpha=2 * training.lora_r if training.lora_alpha is None else training.lora_alpha,
        lora_dropout=training.lora_dropout,
        target_modules="all-linear",  # PEFT excludes the head
        trainable_token_indices=rows if tokens else None,
        base_model_name_or_path=base,
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(training.seed)  # PEFT initializes A randomly
    inject_adapter_in_model(config, net, _NAME)
    net.train()


def has_adapters(net: torch.nn.Module) -> bool:
    """Return True if `attach` was called on `net`."""
    return bool(getattr(net, "peft_config", None))


@torch.no_grad()
def merged_weights(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights of a plain model equal to `net`: name -> tensor.

    `net` is not changed: merging in place and unmerging would not restore the base weights bit for bit.
    """
    weights = {}
    for name, tensor in net.state_dict().items():
        module, has_adapter, kind = name.rpartition(".base_layer.")
        if has_adapter and kind == "weight":
            layer = net.get_submodule(module)
            if hasattr(layer, "trainable_tokens_delta"):
                tensor = layer.get_merged_weights([_NAME])
            else:
                tensor = layer.get_base_layer().weight + layer.get_delta_weight(_NAME)
        if has_adapter:
            name = f"{module.removesuffix('.token_adapter')}.{kind}"
        elif ".lora_" in name or ".trainable_tokens_" in name:
            continue
        weights[name] = tensor
    return weights


def trainable_parameters(net: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return the trainable parameters under their names in PEFT's adapter_model.safetensors."""
    trainable = ((name, parameter) for name, parameter in net.named_parameters() if parameter.requires_grad)
    # PEFT omits the adapter's name, so that it can be loaded under another
    return {f"base_model.model.{name.replace(f'.{_NAME}', '')}": parameter for name, parameter in trainable}


def files(net: torch.nn.Module) -> dict[str, bytes]:
    """Return the files `PeftModel.from_pretrained(base, folder)` reads besides the weights: name -> content.

    Parameter names are TinyGPT's. Qwen3 and Llama have the same ones; a GPT-2 base must be converted by `from_stock` first.
    """
    facts = {**net.peft_config[_NAME].to_dict(), "inference_mode": True}
    text = json.dumps(facts, indent=2, sort_keys=True, default=sorted) + "\n"  # sets have no order
    return {"adapter_config.json": text.encode()}


@torch.no_grad()
def load(path: Path, net: torch.nn.Module) -> None:
    """Load a saved adapter into `net`. Raises UsageError if any name differs."""
    found, wanted = load_file(path), trainable_parameters(net)
    if found.keys() != wanted.keys():
        different = min(found.keys() ^ wanted.keys())
        raise UsageError(f"{path} does not fit this model ({different})", "the same adapters", "check the settings")
    for name, parameter in wanted.items():
        parameter.copy_(found[name])
