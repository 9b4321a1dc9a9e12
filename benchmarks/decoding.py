"""Measure milliseconds of processor time per token: ours, the library's `generate` on the equal Qwen3, and llama.cpp if installed.

    python benchmarks/decoding.py --core 0 --rounds 3
    python benchmarks/decoding.py --core 0 --llama_cpp path/to/python     # one that has `pip install xllamacpp`

Random weights, one pinned core and one thread, sampling at temperature 0.8 among the 50 likeliest tokens, texts decoded on
our side. Both sides take turns; the least time of each counts, for another program can only add to it. `first token`: after a
prompt of 512. llama.cpp's figures are those its server reports: wall time, one text at a time, the exported GGUF in float32.
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
LLAMA_CPP = """
import json, sys, urllib.request, xllamacpp
settings = xllamacpp.CommonParams()
settings.model.path, settings.n_ctx, settings.n_parallel, settings.cpuparams.n_threads = sys.argv[1], 1024, 1, 1
settings.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(settings)
for question in json.load(sys.stdin):
    request = urllib.request.Request(server.listening_address + "/completion", json.dumps(question).encode(),
                                     {"Content-Type": "application/json"})
    print(json.dumps(json.load(urllib.request.urlopen(request))["timings"]))
"""


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


def llama_cpp(python: str, model, tokenizer, rounds: int) -> dict[str, float]:
    """Measure the same model as GGUF in llama.cpp's server, run by a `python` that has xllamacpp: least milliseconds."""
    from tinygpt_hf.export.export import export

    with tempfile.TemporaryDirectory() as tmp:
        model.save_pretrained(f"{tmp}/model")
        tokenizer.save_pretrained(f"{tmp}/model")
        export(model, tokenizer, f"{tmp}/model", "gguf", f"{tmp}/gguf")
        file = next(Path(tmp, "gguf").glob("*.gguf"))
        questions = [
            {"prompt": torch.randint(300, V, (length,)).tolist(), "n_predict": new, "ignore_eos": True, "temperature": 0.8,
             "top_k": 50, "cache_prompt": False}
            for _ in range(rounds) for length, new in ((8, 256), (512, 1))
        ]  # fmt: skip
        command = [python, "-c", LLAMA_CPP, str(file)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, input=json.dumps(questions))
    times = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    written, read = times[::2], times[1::2]
    assert all(time["predicted_n"] == 256 for time in written) and all(time["prompt_n"] == 512 for time in read)
    return {
        "one text, per token": min(time["predicted_per_token_ms"] for time in written),
        "first token after 512": min(time["prompt_ms"] for time in read),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--llama_cpp", help="a Python that has xllamacpp")
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
        others = llama_cpp(args.llama_cpp, model, tokenizer, args.rounds) if args.llama_cpp else {}
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
