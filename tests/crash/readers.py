"""Somebody loads the model again and again while it is trained: from the first save on it works at every moment."""

import signal

from runs import Bench, newest_step, words_of


def beside_a_run(bench: Bench, mode: str, steps: int) -> None:
    """`from_pretrained` of D and D/best in a loop, beside a run that evaluates and saves every step; so many steps, or longer
    where we read slowly."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import tinygpt_hf  # noqa: F401 - makes the model known to Transformers

    folder = bench.new("read")
    words = words_of(mode, folder, max_steps=100_000, save_steps=1, eval_steps=1, sample_tokens=0)
    started = bench.start(words)
    seen, reads, ended = set(), 0, None
    while ended is None:
        if newest_step(folder) >= steps and reads >= 4:
            started.kill(signal.SIGTERM)
            ended = bench.wait(started)  # and once more when it has ended
        else:
            assert bench._ask({"wait": started.process, "seconds": 0}) is None, started.output.read_text()
        for place in (folder, folder / "best"):
            if not (place / "config.json").is_file():
                assert place.name not in seen, f"{place} was a model and is none now"
                continue
            seen.add(place.name)
            model, tokenizer = AutoModelForCausalLM.from_pretrained(place), AutoTokenizer.from_pretrained(place)
            assert model.config.vocab_size == len(tokenizer) == model.lm_head.weight.shape[0]
            reads += 1
    assert ended.status == 143, ended.said
    bench.figures.add(reads=reads)
