"""A program, not a module: does a folder hold the model that made the reference? Nothing of tinygpt_hf can be imported here.

python verify_stock.py FOLDER REFERENCE              prints one line of JSON, as export.py says
"""

import json
import sys
from pathlib import Path

sys.modules["tinygpt_hf"] = None


def main(folder: str, reference: str) -> None:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    wanted = json.loads(Path(reference, "reference.json").read_text(encoding="utf-8"))
    tensors = load_file(Path(reference, "reference.safetensors"))
    options = {"local_files_only": True, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval()
    model.generation_config = GenerationConfig()

    unequal, difference = [], torch.zeros(())
    with torch.no_grad():
        for name in [name for name in tensors if name.startswith("ids.")]:
            logits = tensors[name.replace("ids", "logits")]
            found = model(input_ids=tensors[name], use_cache=False).logits[:, -logits.shape[1] :]
            difference = torch.maximum(difference, (found - logits).abs().max())
        for ids, greedy in zip(wanted["prompts"], wanted["greedy"], strict=True):
            found = model.generate(torch.tensor([ids]), max_new_tokens=len(greedy), do_sample=False)[0, len(ids) :]
            if found.tolist() != greedy:
                unequal.append(f"the greedy tokens after {ids[:8]}")
    for text, ids in zip(wanted["texts"], wanted["token_ids"], strict=True):
        if tokenizer(text)["input_ids"] != ids:
            unequal.append(f"the token ids of {text!r}")
    if wanted["chat"] is not None:
        chat = tokenizer.apply_chat_template(wanted["messages"], tokenize=False, add_generation_prompt=True)
        if chat != wanted["chat"]:
            unequal.append("the text of a conversation")
    print(
        json.dumps(
            {
                "logit_difference": difference.item(),
                "prompts": len(wanted["prompts"]),
                "greedy_tokens": len(wanted["greedy"][0]),
                "texts": len(wanted["texts"]),
                "unequal": f"{len(unequal)} things differ, first {unequal[0]}" if unequal else None,
            }
        )
    )


main(*sys.argv[1:])
