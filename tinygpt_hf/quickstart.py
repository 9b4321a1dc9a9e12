"""`tinygpt quickstart`: from nothing to a model that talks, in minutes, on a laptop, with no network.

Writes the embedded corpus, trains a tokenizer and a model on it, and measures the model on what it has never seen: do its
stories hold together, does it find right sentences likelier than wrong ones, and are its answers right? The stories, sentences
and questions belong to combinations of names, things and events that the training text leaves out.
"""

from collections.abc import Callable

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
    """The whole way. `train` trains as the settings say, `say` prints a line."""
    from tinygpt_hf.inference.generation import load_model
    from tinygpt_hf.reading.sources import training_sources
    from tinygpt_hf.toyland import corpus as toyland

    train()
    folder = training.output_dir
    model, tokenizer = load_model(folder)
    source = training_sources(data, training.seed)[0]
    training_documents = list(toyland.documents(source.seed, source.max_samples))

    stories, numbers = measure_stories(model, tokenizer, training_documents)
    say("\nStories it goes on telling from beginnings it has never seen:\n")
    for story in stories[:3]:
        say(f"    {story}\n")
    say("A conversation:\n")
    for question, answer in converse(model, tokenizer, CONVERSATION):
        say(f"    > {question}\n    {answer}")
    numbers |= measure_grammar(model, tokenizer)
    numbers |= measure_answers(model, tokenizer, training_documents)
    cut = (
        f"; {numbers['cut_off']} were cut off, and count up to their last whole sentence" if numbers["cut_off"] else ""
    )
    least = f"least: {numbers['hardest']}"
    say(
        "\nMeasured on what it was not trained on:\n\n"
        + figure(
            f"coherent stories, of {STORIES}", numbers["coherent"], "hero, pronouns and thing stay the same to the end"
        )
        + f"{'':49}({numbers['story_copies']:.0%} of their 8-word sequences stand in the training text{cut})\n"
        + figure(
            f"grammar, {numbers['pairs']} pairs of sentences",
            numbers["grammar"],
            f"the right one is likelier than the same with one fault ({least})",
        )
        + figure(
            f"right answers to {numbers['questions']} questions",
            numbers["right"],
            f"({numbers['answer_copies']:.0%} of the answers were given in the training text too)",
        )
        + f"\nThe model is {folder}: a Transformers model. Next:\n\n"
        f"    tinygpt chat {folder}\n"
        f'    tinygpt generate {folder} --prompt "One day, Mia" --show_steps\n'
        f"    tinygpt train --train_file my.txt"
    )


def figure(name: str, share: float, words: str) -> str:
    """A line of the last screen."""
    return f"    {name:<36}{share:6.1%}   {words}\n"


def text_of(document: dict) -> str:
    """A document as plain text."""
    return document["text"] if "text" in document else "\n".join(message["content"] for message in document["messages"])


def measure_stories(model, tokenizer, training_documents: list[dict]) -> tuple[list[str], dict[str, float]]:
    """(stories, measures): continuations of held-out openings, and the share of them that hold together to the end."""
    from tinygpt_hf.evaluation.answers import copy_rate
    from tinygpt_hf.inference.generation import complete_all
    from tinygpt_hf.inference.sampling import Sampling
    from tinygpt_hf.toyland import corpus as toyland
    from tinygpt_hf.toyland.coherence import incoherence

    openings = toyland.story_openings(2, STORIES)
    before = [
        tokenizer.eos_token_id
    ]  # what stands before every document: without it, this could be the end of an answer
    prompts = [before + tokenizer(opening, add_special_tokens=False)["input_ids"] for opening in openings]
    made = complete_all(model, tokenizer, prompts, Sampling(temperature=0.7, top_k=50), max_new_tokens=STORY_TOKENS)
    stories = [opening + rest for opening, rest in zip(openings, made, strict=True)]
    cut_off = [len(tokenizer(rest, add_special_tokens=False)["input_ids"]) >= STORY_TOKENS for rest in made]
    coherent = [not incoherence(story, cut) for story, cut in zip(stories, cut_off, strict=True)]
    return stories, {
        "coherent": sum(coherent) / len(stories),
        "cut_off": sum(cut_off),
        "story_copies": copy_rate(made, map(text_of, training_documents)),
    }


def measure_grammar(model, tokenizer) -> dict:
    """The share of minimal pairs whose right sentence the model finds likelier, and the paradigm with the smallest share."""
    from tinygpt_hf.evaluation.minimal_pairs import minimal_pairs
    from tinygpt_hf.toyland.pairs import pairs

    measured = minimal_pairs(model, tokenizer, pairs(4, PAIRS))
    name, share = min(measured["by_paradigm"].items(), key=lambda paradigm: paradigm[1])
    return {
        "grammar": measured["accuracy"],
        "pairs": measured["pairs"],
        "hardest": f"{name.replace('_', ' ')} {share:.1%}",
    }


def measure_answers(model, tokenizer, training_documents: list[dict]) -> dict[str, float]:
    """The share of held-out questions answered rightly, by the likeliest answer, and of answers heard in training.

    Small tasks ("What is the opposite of big?") recur in any corpus: a question counts only if nobody asked it there.
    """
    from tinygpt_hf.evaluation.answers import is_right
    from tinygpt_hf.inference.generation import complete_all
    from tinygpt_hf.inference.sampling import Sampling
    from tinygpt_hf.tokenizing.chat_template import encode_chat
    from tinygpt_hf.toyland import corpus as toyland

    heard = {
        (message["role"], message["content"])
        for document in training_documents
        for message in document.get("messages", ())
    }
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
        "right": sum(right) / len(questions),
        "questions": len(questions),
        "answer_copies": sum(("assistant", answer) in heard for answer in answers) / len(questions),
    }


def converse(model, tokenizer, questions) -> list[tuple[str, str]]:
    """(question, answer) pairs of one conversation; the likeliest answers."""
    from tinygpt_hf.inference.session import Session
    from tinygpt_hf.settings.inference import ChatArguments

    session = Session(model, tokenizer, ChatArguments(temperature=0.0, seed=0))
    return [(question, "".join(step.text for step in session.ask(question)).strip()) for question in questions]
