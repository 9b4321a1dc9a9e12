"""A model that takes two seconds to train and has something to say: what the serving tests talk to."""

import torch

from tinygpt_hf import TinyGPTConfig, TinyGPTForCausalLM
from tinygpt_hf.model.conversion import DIALECTS
from tinygpt_hf.tokenizing.tokenizer import train_tokenizer

STORY = (
    "One day a small dog named Pip found a red ball in the park. Pip took the ball to Anna. Anna was happy, and they "
    "played until the sun went down. Then Pip ran home, ate a bone and slept in his bed.\n"
)
ANSWERS = {
    "Hello!": "Hi, I am Pip.",
    "Who are you?": "I am a small dog; I live near the park.",
    "Where is the ball?": "It is under the old tree. Let us play!",
}
CONTEXT = 192
SHAPES = {"modern": {"num_key_value_heads": 1}, "gpt2": DIALECTS["gpt2"]}


def train_talker(folder, dialect: str = "modern"):
    """(model, tokenizer), saved to `folder`: knows STORY and ANSWERS by heart. Heads of 64, the least vLLM has on a CPU."""
    tokenizer = train_tokenizer([STORY, *ANSWERS, *ANSWERS.values()] * 3, "bpe", vocab_size=400, max_length=CONTEXT)
    rows = [tokenizer(STORY)["input_ids"] + [tokenizer.eos_token_id]]
    for question, answer in ANSWERS.items():
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        rows.append(tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False))
    ids = torch.full((len(rows), max(map(len, rows))), tokenizer.pad_token_id)
    for row, values in zip(ids, rows, strict=True):
        row[: len(values)] = torch.tensor(values)
    torch.manual_seed(0)
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    shape = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 256}
    model = TinyGPTForCausalLM(
        TinyGPTConfig(vocab_size=len(tokenizer), max_position_embeddings=CONTEXT, **shape, **tokens, **SHAPES[dialect])
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    labels = ids.masked_fill(ids == tokenizer.pad_token_id, -100)
    for _ in range(60):
        optimizer.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
    model.eval().generation_config.eos_token_id = [
        tokenizer.eos_token_id,
        tokenizer.convert_tokens_to_ids("<|im_end|>"),
    ]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def greedy(model, ids: list[int], max_new_tokens: int) -> tuple[list[int], float]:
    """(new ids, by how much the closest choice was made in logits): `generate` of Transformers, the oracle."""
    done = model.generate(
        torch.tensor([ids]), max_new_tokens=max_new_tokens, do_sample=False, return_dict_in_generate=True,
        output_scores=True,
    )  # fmt: skip
    best = torch.stack(done.scores)[:, 0].topk(2).values
    return done.sequences[0][len(ids) :].tolist(), float((best[:, 0] - best[:, 1]).min())
