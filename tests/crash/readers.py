"""Somebody loads the model again and again while it is trained: from the first save on it works at every moment."""

from runs import Bench, words_of


def beside_a_run(bench: Bench, mode: str, steps: int) -> None:
    """`from_pretrained` of D and D/best in a loop, beside a run that evaluates and saves every step."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import tinygpt_hf  # noqa: F401 - makes the model known to Transformers

    folder = bench.new("read")
    words = words_of(mode, folder, max_steps=steps, save_steps=1, eval_steps=1, sample_tokens=0)
    started = bench.start(words)
    seen, reads = set(), 0
    while f"checkpoint-{steps}" not in seen:
        ended = bench._ask({"wait": started.process, "seconds": 0})
        for place in (folder, folder / "best"):
            if not (place / "config.json").is_file():
                assert place.name not in seen, f"{place} was a model and is none now"
                continue
            seen.add(place.name)
            model, tokenizer = AutoModelForCausalLM.from_pretrained(place), AutoTokenizer.from_pretrained(place)
            assert model.config.vocab_size == len(tokenizer) == model.lm_head.weight.shape[0]
            reads += 1
        if ended is not None:
            break
    assert ended == 0 and reads >= 4, started.output.read_text()
    bench.figures.add(reads=reads)
