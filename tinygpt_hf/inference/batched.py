"""Many prompts at once, by the library's own `generate`: for measuring, where single steps need not be seen."""

import torch

from tinygpt_hf.inference.generation import stop_ids


@torch.inference_mode()
def complete_all(
    model, tokenizer, prompts: list[list[int]], max_new_tokens: int, *, temperature: float = 0.0, top_k: int = 0,
    batch_size: int = 100, seed: int = 0,
) -> list[str]:  # fmt: skip
    """The continuation of each of `prompts` (token ids) as text; temperature 0 takes the likeliest token.

    Prompts of like length share a batch, padded on the left; the order of the answers is that of the prompts.
    """
    if temperature:
        chances = {"do_sample": True, "temperature": temperature, "top_k": top_k}
    else:
        chances = {"do_sample": False, "temperature": None, "top_k": None}
    order = sorted(range(len(prompts)), key=lambda k: len(prompts[k]))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    device = model.get_input_embeddings().weight.device
    answers = [""] * len(prompts)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            longest = max(len(prompts[k]) for k in chosen)
            ids = torch.full((len(chosen), longest), pad)  # (B, T)
            mask = torch.zeros_like(ids)
            for row, k in enumerate(chosen):
                ids[row, longest - len(prompts[k]) :] = torch.tensor(prompts[k])
                mask[row, longest - len(prompts[k]) :] = 1
            made = model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                max_new_tokens=max_new_tokens,
                eos_token_id=sorted(stop_ids(model, tokenizer)),
                pad_token_id=pad,
                **chances,
            )
            for row, k in enumerate(chosen):
                answers[k] = tokenizer.decode(made[row, longest:], skip_special_tokens=True)
    return answers
