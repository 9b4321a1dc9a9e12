"""Go from nothing to a model that talks: `tinygpt quickstart`, in minutes, on a laptop, with no network.

Writes the embedded corpus, trains a tokenizer and a model on it, and measures the model on what it has never seen: do its
stories hold together, does it find right sentences likelier than wrong ones, and are its answers right? The stories, sentences
and questions belong to combinations of names, things and events that the training text leaves out.
"""

from collections.abc import Callable
from pathlib import Path

from tinygpt_hf.settings.arguments import DataArguments, TrainingArguments

STORIES, PAIRS, QUESTIONS = 200, 1000, 200
STORY_TOKENS, ANSWER_TOKENS = 200, 40
CONVERSATION = (
    "Hello!",
    "Who are you?",
    "Nina went to the farm with Grandpa. Nina found a green feather behind the barn. Where did Nina find the feather?",
    "What color was the feather?",
    "How old was Nina?",
    "What is the opposite of big?",
    "Thank you!",
)


def quickstart(
    data: DataArguments, training: TrainingArguments, train: Callable[[], None], say: Callable[[str], None]
) -> None:
    """Train by `train()` as the settings say, then measure the model and `say` what came out."""
    from tinygpt_hf.evaluation.memorization import first_rows
    from tinygpt_hf.model.loading import load_model
    from tinygpt_hf.reading.sources import training_sources
    from tinygpt_hf.rows.preparation import rows_folder
    from tinygpt_hf.toyland import corpus as toyland

    train()
    folder = training.output_dir
    model, tokenizer = load_model(folder)
    source = training_sources(data, training.seed)[0]
    heard = {
        (message["role"], message["content"])
        for document in toyland.documents(source.seed, source.max_samples)
        for message in document.get("messages", ())
    }
    rows = first_rows(rows_folder(data.rows or folder) / "train")
    stories, measures = measure_stories(model, tokenizer, rows)
    say("\nStories it goes on telling from beginnings it has never seen:\n")
    for story in stories[:3]:
        say(f"    {story}\n")
    say("A conversation:\n")
    for question, answer in converse(model, tokenizer, CONVERSATION):
        say(f"    > {question}\n    {answer}")
    grammar = measure_grammar(model, tokenizer)
    answers = measure_answers(model, tokenizer, heard)
    say("\nMeasured on what it was not trained on, each with its 95 % interval:\n")
    least = f"the right one is likelier than the same with one fault (least: {grammar['hardest']})"
    lines = (
        (f"coherent stories, of {STORIES}", measures["coherent"], "hero, pronouns and thing stay the same to the end"),
        (f"grammar, {grammar['pairs']} pairs of sentences", grammar["right"], least),
        (
            f"right answers to {answers['questions']} questions",
            answers["right"],
            f"({answers['heard']:.0%} of the answers were given in the training text too)",
        ),
    )
    for number, line in enumerate(lines):
        say(figure(*line))
        if number == 0:
            cut = f"; {measures['cut_off']} were cut off, and count up to their last full sentence"
            copied = f"{measures['copied']:.0%} of their sequences of 32 characters stand in the training text"
            say(
                f"{'':56}({copied}, at most {measures['longest']} characters on end{cut if measures['cut_off'] else ''})"
            )
    record_measures(Path(folder), [(name, *measured) for name, measured, _ in lines])
    say(
        f"\nThe model is {folder}: a Transformers model. Next:\n\n"
        f"    tinygpt chat {folder}\n"
        f'    tinygpt generate {folder} --prompt "One day, Mia" --show_steps\n'
        f"    tinygpt train --train_file my.txt"
    )


def figure(name: str, measured: tuple[float, float, float], words: str) -> str:
    """Lay out a line of the last screen; `measured`: a share and its interval."""
    share, low, high = measured
    between = f"{low:.0%} to {high:.0%}"
    return f"    {name:<33}{share:6.1%}{between:>12}   {words}"


def record_measures(folder: Path, measures: list[tuple[str, float, float, float]]) -> None:
    """Write the measures into run.json, and the card anew, which shows them."""
    from tinygpt_hf import storage
    from tinygpt_hf.cards.render import write_card

    kept = [dict(zip(("name", "share", "low", "high"), measured, strict=True)) for measured in measures]
    path = folder / "run.json"
    facts = storage.read_json(path)
    if facts.get("measures") != kept:
        storage.write_json(path, facts | {"measures": kept})
        write_card(folder)


def measure_stories(model, tokenizer, rows: Path) -> tuple[list[str], dict]:
    """Continue held-out openings; return (stories, measures), among them the share that stays coherent to the end.

    `rows`: the folder of the training rows, in which copies are looked for.
    """
    from tinygpt_hf.evaluation.intervals import share
    from tinygpt_hf.evaluation.memorization import copies
    from tinygpt_hf.inference.generation import complete_all
    from tinygpt_hf.inference.sampling import Sampling
    from tinygpt_hf.toyland import corpus as toyland
    from tinygpt_hf.toyland.coherence import incoherence

    openings = toyland.story_openings(2, STORIES)
    before = [tokenizer.eos_token_id]  # as before every document: without it, this could be the end of an answer
    prompts = [before + tokenizer(opening, add_special_tokens=False)["input_ids"] for opening in openings]
    made = complete_all(model, tokenizer, prompts, Sampling(temperature=0.7, top_k=50), max_new_tokens=STORY_TOKENS)
    stories = [opening + rest for opening, rest in zip(openings, made, strict=True)]
    cut_off = [len(tokenizer(rest, add_special_tokens=False)["input_ids"]) >= STORY_TOKENS for rest in made]
    coherent = [not incoherence(story, cut) for story, cut in zip(stories, cut_off, strict=True)]
    counts = copies(made, [], tokenizer, rows)
    return stories, {
        "coherent": share({"": coherent}),
        "cut_off": sum(cut_off),
        "copied": counts["copied"] / max(counts["sequences"], 1),
        "longest": counts["longest"],
    }


def measure_grammar(model, tokenizer) -> dict:
    """Measure the share of pairs whose right sentence the model finds likelier, and name the paradigm with the smallest."""
    from tinygpt_hf.evaluation.minimal_pairs import minimal_pairs
    from tinygpt_hf.toyland.pairs import pairs

    measured = minimal_pairs(model, tokenizer, pairs(4, PAIRS))
    name, share = min(measured["by_paradigm"].items(), key=lambda paradigm: paradigm[1])
    hardest = f"{name.replace('_', ' ')} {share:.1%}"
    right = measured["accuracy"], measured["low"], measured["high"]
    return {"right": right, "pairs": measured["pairs"], "hardest": hardest}


def measure_answers(model, tokenizer, heard: set[tuple[str, str]]) -> dict:
    """Measure the share of held-out questions answered rightly, by the likeliest answer, and of answers heard in training.

    Small tasks ("What is the opposite of big?") recur in any corpus: a question counts only if nobody asked it there.
    `heard`: (role, content) of every message of the training text.
    """
    from tinygpt_hf.evaluation.answers import is_right
    from tinygpt_hf.evaluation.intervals import share
    from tinygpt_hf.inference.generation import complete_all
    from tinygpt_hf.inference.sampling import Sampling
    from tinygpt_hf.tokenizing.chat_template import encode_chat
    from tinygpt_hf.toyland import corpus as toyland

    candidates = toyland.questions(3, 2 * QUESTIONS)
    questions = [q for q in candidates if ("user", q["messages"][0]["content"]) not in heard][:QUESTIONS]
    prompts = [encode_chat(tokenizer, question["messages"], add_generation_prompt=True)[0] for question in questions]
    answers = complete_all(model, tokenizer, prompts, Sampling(temperature=0), max_new_tokens=ANSWER_TOKENS)
    answers = [answer.strip() for answer in answers]
    right = [
        is_right(answer, q["answer"], q["accept"], " ".join(message["content"] for message in q["messages"]))
        for answer, q in zip(answers, questions, strict=True)
    ]
    return {
        "right": share({"": right}),
        "questions": len(questions),
        "heard": sum(("assistant", answer) in heard for answer in answers) / len(questions),
    }


def converse(model, tokenizer, questions) -> list[tuple[str, str]]:
    """Hold one conversation; return (question, answer) pairs, with the likeliest answers."""
    from tinygpt_hf.inference.session import Session
    from tinygpt_hf.settings.inference import ChatArguments

    session = Session(model, tokenizer, ChatArguments(temperature=0.0, seed=0))
    return [(question, "".join(step.text for step in session.ask(question)).strip()) for question in questions]
