"""LoRA through PEFT: pairs of small matrices beside the frozen ones of a base, and what of them is saved.

LoRA (Hu et al. 2021, https://arxiv.org/abs/2106.09685) learns W + alpha/r B A with W left as it is. PEFT puts the pairs into
the layers of the model, which keeps its class. What is saved under the model's name are the merged weights: a plain model,
which needs neither PEFT nor the base. The pairs alone are saved beside it, in PEFT's format, and in every checkpoint: merged
weights cannot be taken apart again.

A conversation's control tokens are learned with them, as rows of the embeddings: a base that has never seen an end of turn
could otherwise not be taught to write one.
"""

import json
from pathlib import Path

import torch

from tinygpt_hf.errors import UsageError
from tinygpt_hf.settings.arguments import TrainingArguments

_NAME = "default"  # PEFT's name for the only adapter


def attach(net: torch.nn.Module, training: TrainingArguments, base: str, tokens: list[int]) -> None:
    """Put adapters into every matrix of the layers of `net`, which does what it did before; all else is frozen.

    `base`: the name the adapter is told its base by; `tokens`: ids whose rows of the embeddings are learned as well.
    """
    from peft import LoraConfig, inject_adapter_in_model

    tied = net.config.tie_word_embeddings
    rows = dict.fromkeys(["embed_tokens"] if tied else ["embed_tokens", "lm_head"], tokens)
    config = LoraConfig(
        r=training.lora_r,
        lora_alpha=2 * training.lora_r if training.lora_alpha is None else training.lora_alpha,
        lora_dropout=training.lora_dropout,
        target_modules="all-linear",  # the head is left out
        trainable_token_indices=rows if tokens else None,
        base_model_name_or_path=base,
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(training.seed)  # the first matrices of the pairs are random
    inject_adapter_in_model(config, net, _NAME)
    net.train()


def are_in(net: torch.nn.Module) -> bool:
    """Has `net` adapters?"""
    return bool(getattr(net, "peft_config", None))


@torch.no_grad()
def merged(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights of the plain model that computes what `net` does now, which is left as it is: name -> tensor.

    Adding and taking away would not give back the base to the bit.
    """
    weights = {}
    for name, tensor in net.state_dict().items():
        place, inside, kind = name.rpartition(".base_layer.")
        if inside and kind == "weight":
            tensor = _merged_weight(net.get_submodule(place))
        if inside:
            name = f"{place.removesuffix('.token_adapter')}.{kind}"
        elif ".lora_" in name or ".trainable_tokens_" in name:
            continue
        weights[name] = tensor
    return weights


def _merged_weight(layer) -> torch.Tensor:
    if hasattr(layer, "trainable_tokens_delta"):
        return layer.get_merged_weights([_NAME])
    return layer.get_base_layer().weight + layer.get_delta_weight(_NAME)


def parameters(net: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """What is learned, under the names PEFT saves it by."""
    learned = ((name, parameter) for name, parameter in net.named_parameters() if parameter.requires_grad)
    # the adapter's own name is left out, so that it can be loaded under another
    return {f"base_model.model.{name.replace(f'.{_NAME}', '')}": parameter for name, parameter in learned}


def description(net: torch.nn.Module) -> str:
    """The text of PEFT's adapter_config.json."""
    facts = {**net.peft_config[_NAME].to_dict(), "inference_mode": True}
    return json.dumps(facts, indent=2, sort_keys=True, default=sorted) + "\n"  # sets have no order


@torch.no_grad()
def load(path: Path, net: torch.nn.Module) -> None:
    """Put saved adapters back, every one of them."""
    from safetensors.torch import load_file

    found, wanted = load_file(path), parameters(net)
    if found.keys() != wanted.keys():
        other = min(found.keys() ^ wanted.keys())
        raise UsageError(f"{path} does not fit this model ({other})", "the same adapters", "check the settings")
    for name, parameter in wanted.items():
        parameter.copy_(found[name])
