"""Milliseconds of processor time per token: ours beside the library's `generate` on the equal Qwen3 and, if it is there, llama.cpp.

    python benchmarks/decoding.py --core 0 --rounds 3
    python benchmarks/decoding.py --core 0 --llama_bench path/to/llama-bench

Random weights, one pinned core and one thread, sampling at temperature 0.8 among the 50 likeliest tokens, texts decoded on
our side. Both sides take turns; the least time of each counts, for another program can only add to it. `first token`: after a
prompt of 512. llama.cpp's figures are its own: time of the clock, greedy, no tokenizer, the exported GGUF in float32.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from measuring import Results, arguments_of
from transformers import GenerationConfig

from tinygpt_hf import TinyGPTConfig, TinyGPTForCausalLM
from tinygpt_hf.inference.engine import open_engine
from tinygpt_hf.inference.generation import generate_rows
from tinygpt_hf.inference.sampling import Sampling
from tinygpt_hf.model.conversion import to_stock
from tinygpt_hf.tokenizing.tokenizer import train_tokenizer

SHAPES = {"4 layers of 128": (4, 128, 4), "6 layers of 384": (6, 384, 6)}
CASES = {  # prompts, their length, new tokens
    "one text, per token": (1, 8, 256),
    "32 texts, per token": (32, 64, 128),
    "first token after 512": (1, 512, 1),
}
V = 4096


def spent(work) -> float:
    began = time.process_time()
    work()
    return (time.process_time() - began) * 1e3


def case_times(sides, shape: tuple[int, int], new: int, rounds: int) -> tuple[float, ...]:
    """Measure the least milliseconds per token (or until the first one) of each side; no side reads a prompt twice."""
    times = []
    for _ in range(rounds):
        prompts = torch.randint(300, V, shape).tolist()
        times.append([spent(lambda side=side, prompts=prompts: side(prompts, new)) for side in sides])
    return tuple(min(column) / (new * shape[0]) for column in zip(*times, strict=True))


def ours(model, tokenizer):
    engine, sampling = open_engine(model), Sampling(temperature=0.8, top_k=50)

    def write(prompts, new):
        steps = generate_rows(model, tokenizer, prompts, sampling, max_new_tokens=new, engine=engine)
        assert sum(1 for _ in steps) == new * len(prompts)

    return write


def librarys(stock):
    def write(prompts, new):
        ids = torch.tensor(prompts)
        settings = GenerationConfig(
            do_sample=True, temperature=0.8, top_k=50, max_new_tokens=new, pad_token_id=0, eos_token_id=None
        )
        made = stock.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        assert made.shape[1] == ids.shape[1] + new

    return write


def llama_bench(program: str, model, tokenizer) -> dict[str, float]:
    """Milliseconds per token of the same model as GGUF."""
    from tinygpt_hf.export.export import export
    from tinygpt_hf.settings.inference import ExportArguments

    with tempfile.TemporaryDirectory() as tmp:
        model.save_pretrained(f"{tmp}/model")
        tokenizer.save_pretrained(f"{tmp}/model")
        export(ExportArguments(model=f"{tmp}/model", to="gguf", output_dir=f"{tmp}/gguf"))
        file = next(Path(tmp, "gguf").glob("*.gguf"))
        command = [program, "-m", str(file), "-t", "1", "-p", "512", "-n", "256", "-o", "json"]
        tests = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    written = next(test for test in tests if test["n_gen"])
    read = next(test for test in tests if test["n_prompt"])
    return {"one text, per token": 1e3 / written["avg_ts"], "first token after 512": 512e3 / read["avg_ts"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--llama_bench", help="llama.cpp's program of this name")
    args = arguments_of(parser, "decoding.jsonl")
    torch.set_num_threads(1)

    tokenizer = train_tokenizer(["the cat sat on the mat "], "bpe", vocab_size=300)
    results = Results(args.results)
    for name, (layers, width, heads) in SHAPES.items():
        torch.manual_seed(0)
        shape = {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads}
        # ids the tokenizer has no text for end nothing, so that every text has its full length
        config = TinyGPTConfig(**shape, vocab_size=V, max_position_embeddings=1024, tie_word_embeddings=False)
        model = TinyGPTForCausalLM(config).eval()
        with torch.no_grad():
            model.lm_head.weight[: len(tokenizer)] = model.lm_head.weight[:1] * 0
        sides = ours(model, tokenizer), librarys(to_stock(model).eval())
        others = llama_bench(args.llama_bench, model, tokenizer) if args.llama_bench else {}
        for case, (count, length, new) in CASES.items():
            if results.has(model=name, case=case):
                continue
            new = min(new, 4) if args.fast else new
            mine, stock = case_times(sides, (count, length), new, 1 if args.fast else args.rounds)
            results.add({"model": name, "case": case, "ours": mine, "library": stock, "llama.cpp": others.get(case)})
    print("| model | case | ours, ms | `generate` on Qwen3, ms | ratio | llama.cpp, ms |\n|---|---|---|---|---|---|")
    for line in results.lines:
        mine, stock, other = line["ours"], line["library"], line["llama.cpp"]
        figures = f"{mine:.2f} | {stock:.2f} | {mine / stock:.2f} | {f'{other:.2f}' if other else '-'}"
        print(f"| {line['model']} | {line['case']} | {figures} |")


if __name__ == "__main__":
    main()
