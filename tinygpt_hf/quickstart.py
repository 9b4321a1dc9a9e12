"""Train and evaluate a small chat model in minutes, on a laptop and without a network: `tinygpt quickstart`.

It generates the toyland corpus, and trains a tokenizer and a model on it. On held-out text it measures how many stories are
coherent, how many correct sentences are more likely than incorrect ones, and how many answers are right. Held-out stories,
sentences and questions use combinations of names, things and events that are not in the training text.
"""

from collections.abc import Callable
from pathlib import Path

from tinygpt_hf.cards.render import write_card
from tinygpt_hf.evaluation import intervals
from tinygpt_hf.evaluation.answers import is_right
from tinygpt_hf.evaluation.memorization import copies, first_rows
from tinygpt_hf.evaluation.minimal_pairs import minimal_pairs
from tinygpt_hf.inference.generation import complete_all
from tinygpt_hf.inference.sampling import Sampling
from tinygpt_hf.inference.session import Session
from tinygpt_hf.model.loading import load_model
from tinygpt_hf.reading.sources import training_sources
from tinygpt_hf.rows.preparation import rows_folder
from tinygpt_hf.settings.arguments import DataArguments, TrainingArguments
from tinygpt_hf.settings.inference import ChatArguments
from tinygpt_hf.tokenizing.chat_template import encode_chat
from tinygpt_hf.toyland import corpus as toyland
from tinygpt_hf.toyland.coherence import incoherence
from tinygpt_hf.toyland.pairs import pairs
from tinygpt_hf.training.run_folder import update

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
    """Call `train()`, then evaluate the model it trained and `say` the results."""
    train()
    folder = training.output_dir
    model, tokenizer = load_model(folder)
    source = training_sources(data, training.seed)[0]
    seen = {
        (message["role"], message["content"])
        for document in toyland.documents(source.seed, source.max_samples)
        for message in document.get("messages", ())
    }
    rows = first_rows(rows_folder(data.rows or folder) / "train")
    stories, measures = measure_stories(model, tokenizer, rows)
    say("\nStories continued from openings that are not in the training text:\n")
    for story in stories[:3]:
        say(f"    {story}\n")
    say("A conversation:\n")
    for question, answer in converse(model, tokenizer, CONVERSATION):
        say(f"    > {question}\n    {answer}")
    grammar = measure_grammar(model, tokenizer)
    answers = measure_answers(model, tokenizer, seen)
    say("\nMeasured on held-out text, with 95 % intervals:\n")
    cut = (
        f"; {measures['cut_off']} were cut off, and count up to their last full sentence" if measures["cut_off"] else ""
    )
    copied = f"{measures['copied']:.0%} of their sequences of 32 characters stand in the training text"
    lines = (
        (
            f"coherent stories, of {STORIES}",
            measures["coherent"],
            "hero, pronouns and thing stay the same to the end\n"
            f"{'':56}({copied}, at most {measures['longest']} characters on end{cut})",
        ),
        (
            f"grammar, {grammar['pairs']} pairs of sentences",
            grammar["right"],
            f"the right one is likelier than the same with one fault (least: {grammar['hardest']})",
        ),
        (
            f"right answers to {answers['questions']} questions",
            answers["right"],
            f"({answers['seen']:.0%} of the answers were given in the training text too)",
        ),
    )
    records = []
    for name, (share, low, high), words in lines:
        interval = f"{low:.0%} to {high:.0%}"
        say(f"    {name:<33}{share:6.1%}{interval:>12}   {words}")
        records.append({"name": name, "share": share, "low": low, "high": high})
    update(Path(folder), {"measures": records})
    write_card(Path(folder))
    say(
        f"\nThe model is {folder}: a Transformers model. Next:\n\n"
        f"    tinygpt chat {folder}\n"
        f'    tinygpt generate {folder} --prompt "One day, Mia" --show_steps\n'
        f"    tinygpt train --train_file my.txt"
    )


def measure_stories(model, tokenizer, rows: Path) -> tuple[list[str], dict]:
    """Continue held-out openings; returns (stories, measures: coherence, cut-off stories, text copied from training rows)."""
    openings = toyland.story_openings(2, STORIES)
    before = [tokenizer.eos_token_id]  # as before every document; without it, a story could be taken for an answer
    prompts = [before + tokenizer(opening, add_special_tokens=False)["input_ids"] for opening in openings]
    sampling = Sampling(temperature=0.7, top_k=50)
    endings = complete_all(model, tokenizer, prompts, sampling, max_new_tokens=STORY_TOKENS)
    stories = [opening + ending for opening, ending in zip(openings, endings, strict=True)]
    cut_off = [len(tokenizer(ending, add_special_tokens=False)["input_ids"]) >= STORY_TOKENS for ending in endings]
    coherent = [not incoherence(story, cut) for story, cut in zip(stories, cut_off, strict=True)]
    counts = copies(endings, [], tokenizer, rows)
    return stories, {
        "coherent": intervals.share({"": coherent}),
        "cut_off": sum(cut_off),
        "copied": counts["copied"] / max(counts["sequences"], 1),
        "longest": counts["longest"],
    }


def measure_grammar(model, tokenizer) -> dict:
    """Measure the accuracy on minimal pairs, and find the paradigm with the lowest one."""
    measured = minimal_pairs(model, tokenizer, pairs(4, PAIRS))
    name, share = min(measured["by_paradigm"].items(), key=lambda paradigm: paradigm[1])
    hardest = f"{name.replace('_', ' ')} {share:.1%}"
    right = measured["accuracy"], measured["low"], measured["high"]
    return {"right": right, "pairs": measured["pairs"], "hardest": hardest}


def measure_answers(model, tokenizer, seen: set[tuple[str, str]]) -> dict:
    """Measure the share of held-out questions answered correctly by greedy decoding, and of answers seen in training.

    `seen` holds (role, content) of every training message. Questions in it are left out, since small tasks such as "What is
    the opposite of big?" occur in any corpus.
    """
    candidates = toyland.questions(3, 2 * QUESTIONS)
    questions = [q for q in candidates if ("user", q["messages"][0]["content"]) not in seen][:QUESTIONS]
    prompts = [encode_chat(tokenizer, question["messages"], add_generation_prompt=True)[0] for question in questions]
    answers = complete_all(model, tokenizer, prompts, Sampling(temperature=0), max_new_tokens=ANSWER_TOKENS)
    answers = [answer.strip() for answer in answers]
    right = [
        is_right(answer, q["answer"], q["accept"], " ".join(message["content"] for message in q["messages"]))
        for answer, q in zip(answers, questions, strict=True)
    ]
    return {
        "right": intervals.share({"": right}),
        "questions": len(questions),
        "seen": sum(("assistant", answer) in seen for answer in answers) / len(questions),
    }


def converse(model, tokenizer, questions) -> list[tuple[str, str]]:
    """Ask the questions in one conversation, with greedy decoding; returns (question, answer) pairs."""
    session = Session(model, tokenizer, ChatArguments(temperature=0.0, seed=0))
    return [(question, "".join(step.text for step in session.ask(question)).strip()) for question in questions]
