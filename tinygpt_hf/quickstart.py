"""`tinygpt quickstart`: from nothing to a model that talks, in minutes, on a laptop, with no network.

Writes the embedded corpus, trains a tokenizer and a model on it, and measures the model on what it has never seen: are its
sentences English, and are its answers right? The stories and questions belong to combinations of names, things and events
that the training text leaves out; the grammar checker and the graders share nothing with the corpus's writer but the
dictionary.
"""

from collections.abc import Callable

from tinygpt_hf.settings.arguments import DataArguments, TrainingArguments

STORIES, QUESTIONS = 200, 200
STORY_TOKENS, ANSWER_TOKENS = 200, 40
QUESTIONS_SHOWN = (
    "Hello!",
    "Who are you?",
    "What is the opposite of big?",
    "What day comes after Monday?",
    "Thank you!",
)


def quickstart(
    data: DataArguments, training: TrainingArguments, train: Callable[[], None], say: Callable[[str], None]
) -> None:
    """The whole way. `train` trains as the settings say, `say` prints a line."""
    from tinygpt_hf.data import toyland
    from tinygpt_hf.data.sources import training_sources
    from tinygpt_hf.inference.generation import load_model

    train()
    folder = training.output_dir
    model, tokenizer = load_model(folder)
    source = training_sources(data, training.seed)[0]
    read = [text_of(document) for document in toyland.documents(source.seed, source.max_samples)]

    say("\nA story it has never seen the beginning of (the first words are given):\n")
    stories, numbers = measure_stories(model, tokenizer, read)
    for story in stories[:3]:
        say(f"    {story}\n")
    say("A conversation:\n")
    for question, answer in converse(model, tokenizer, QUESTIONS_SHOWN):
        say(f"    > {question}\n    {answer}")
    numbers |= measure_answers(model, tokenizer, read)
    say("\nMeasured on what it was not trained on:\n")
    say(
        f"    well-formed sentences in {STORIES} stories    {numbers['well_formed']:6.1%}   of {numbers['sentences']} sentences"
    )
    say(f"    right answers to {QUESTIONS} questions         {numbers['right']:6.1%}")
    say(f"    copied: 8-word sequences of the stories that stand in the training text  {numbers['story_copies']:.1%}")
    say(
        f"    copied: questions that stand in the training text                        {numbers['question_copies']:.1%}"
    )
    say(
        f"\nThe model is {folder}: a Transformers model. Next:\n\n"
        f"    tinygpt chat {folder}\n"
        f'    tinygpt generate {folder} --prompt "One day, Mia" --show_steps\n'
        f"    tinygpt train --train_file my.txt --vocab_size 2048 --num_train_epochs 3 --output_dir runs/mine"
    )


def text_of(document: dict) -> str:
    """A document as plain text."""
    return document["text"] if "text" in document else "\n".join(message["content"] for message in document["messages"])


def measure_stories(model, tokenizer, read: list[str]) -> tuple[list[str], dict[str, float]]:
    """(stories, measures): continuations of held-out openings, and the share of their sentences that are English."""
    from tinygpt_hf.data import toyland
    from tinygpt_hf.data.lexicon import lexicon
    from tinygpt_hf.evaluation.answers import copy_rate
    from tinygpt_hf.evaluation.wellformed import Checker
    from tinygpt_hf.inference.batched import complete_all

    openings = toyland.story_openings(2, STORIES)
    prompts = [tokenizer(opening, add_special_tokens=False)["input_ids"] for opening in openings]
    made = complete_all(model, tokenizer, prompts, STORY_TOKENS, temperature=0.7, top_k=50)
    stories = [opening + rest for opening, rest in zip(openings, made, strict=True)]
    report = Checker(lexicon()).share(stories, skip_unfinished=True)
    return stories, {
        "well_formed": report.share,
        "sentences": report.sentences,
        "story_copies": copy_rate(made, read),
    }


def measure_answers(model, tokenizer, read: list[str]) -> dict[str, float]:
    """The share of held-out questions answered rightly, by the likeliest answer."""
    from tinygpt_hf.data import toyland
    from tinygpt_hf.data.chat_format import encode_chat
    from tinygpt_hf.evaluation.answers import is_right, share_found
    from tinygpt_hf.inference.batched import complete_all

    questions = toyland.questions(3, QUESTIONS)
    asked = [" ".join(message["content"] for message in question["messages"]) for question in questions]
    prompts = [encode_chat(tokenizer, question["messages"], add_generation_prompt=True)[0] for question in questions]
    answers = complete_all(model, tokenizer, prompts, ANSWER_TOKENS)
    right = [
        is_right(answer, question["answer"], question["accept"], text)
        for answer, question, text in zip(answers, questions, asked, strict=True)
    ]
    opening = [question["messages"][0]["content"] for question in questions]
    return {"right": sum(right) / len(right), "question_copies": share_found(opening, read)}


def converse(model, tokenizer, questions) -> list[tuple[str, str]]:
    """(question, answer) pairs of one conversation; the likeliest answers."""
    from tinygpt_hf.inference.chat import Session
    from tinygpt_hf.settings.inference import ChatArguments

    session = Session(model, tokenizer, ChatArguments(temperature=0.0, seed=0))
    return [(question, "".join(step.text for step in session.ask(question)).strip()) for question in questions]
