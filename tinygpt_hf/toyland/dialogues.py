"""Dialogues: questions about a story the user tells, small tasks, small talk, and stories on request.

Every answer is one short full sentence. What the story does not say, the assistant does not know.
"""

from random import Random

from tinygpt_hf.toyland.grammar import article, frame
from tinygpt_hf.toyland.stories import Story, child, is_held_out, pick, tell
from tinygpt_hf.toyland.tasks import CLOSINGS, GREETINGS, IDENTITY, MOODS, STRANGE, Turn, introduction, said, task
from tinygpt_hf.toyland.world import BOYS, COLORS, GIRLS, TOYS

SPOTS = """in the kitchen|in the hall|in the garden|in the attic|in the cellar|in the garage|under the bed|behind the door|
near the gate|on the table|under a tree|in the yard""".replace("\n", "").split("|")
UNKNOWN = "I do not know. The story does not say."
# Clauses no story answers (a prelude may answer the first two; then they are asked as what is known).
NEVER_TOLD = {
    "age": ("How old <be:A> {A}?", "how old {A} <be>"),
    "home": ("Where <do:A> {A} live?", "where {A} <live>"),
    "breakfast": ("What <do:A> {A} eat for breakfast?", "what {A} <eat> for breakfast"),
    "brother": ("What <be:s> the name of {A's} brother?", "what the name of {A's} brother <be:s>"),
    "teacher": ("Who <be:s> {A's} teacher?", "who {A's} teacher <be:s>"),
    "house": ("What color <be:s> {A's} bed?", "what color {A's} bed <be:s>"),
}
ASKED = (
    "{clause_question}",
    "Tell me {clause}.",
    "Please tell me {clause}.",
    "Can you tell me {clause}?",
    "Do you know {clause}?",
)


def worded(rng: Random, question: str, clause: str) -> str:
    """The question itself, mostly; else one of the polite ways around it."""
    return question if rng.random() < 0.6 else pick(rng, ASKED[1:]).format(clause=clause)


def _answerable(rng: Random, story: Story) -> list[Turn]:
    turns = []
    for ask in story.asks:
        question, clause = story.say(ask.question), story.say(ask.clause, capital=False)
        accept = tuple(story.say(words, capital=False) for words in ask.accept)
        turns.append(Turn(worded(rng, question, clause), story.say(ask.answer), ask.kind, accept))
    return turns


def _unanswerable(rng: Random, story: Story) -> Turn:
    """Asked about what the story does not tell, or about somebody who is not in it."""
    told, telling = {"age", "home"} - set(story.unsaid), story.telling
    if "A" not in telling.cast:
        question, clause = frame("Where <do:D> {the:D} live?"), frame("where {the:D} <live>")
        return Turn(
            worded(rng, story.say(question), story.say(clause, capital=False)), UNKNOWN, "unknown", ("I do not know",)
        )
    if rng.random() < 0.35 and story.plot.about_a:
        ask = pick(rng, story.plot.about_a)
        cast = telling.cast
        present = [member for member in cast.values() if member.gender in "mf"]
        while is_held_out((stranger := child(rng, *present, cast["A"])).word, story.key[1]):
            pass
        telling.cast = {**cast, "A": stranger}
        question, clause = story.say(ask.question), story.say(ask.clause, capital=False)
        telling.cast = cast
    else:
        question, clause = NEVER_TOLD[pick(rng, [name for name in NEVER_TOLD if name not in told])]
        question, clause = story.say(frame(question)), story.say(frame(clause), capital=False)
    return Turn(worded(rng, question, clause), UNKNOWN, "unknown", ("I do not know",))


def about_story(rng: Random, held_out: bool) -> tuple[Story, list[Turn]]:
    """A story and four to seven questions; the first turn brings the story with it."""
    story = tell(rng, held_out, short=True)
    turns = _answerable(rng, story)
    rng.shuffle(turns)
    turns = turns[: 4 + int(rng.random() * 3)]
    if rng.random() < 0.45:
        place = int(rng.random() * (len(turns) + 1))
        turns = [*turns[:place], _unanswerable(rng, story), *turns[place:]]
    lead = pick(rng, ("", "", "", "", "Here is a story. ", "Read this story. "))
    first = turns[0]
    turns[0] = Turn(f"{lead}{story.text()} {first.user}", first.assistant, first.kind, first.accept)
    return story, turns


def belongings(rng: Random) -> list[Turn]:
    """A few plain sentences about who has what and where it is, then questions: reading practice, for training only."""
    count = 2 + int(rng.random() * 3)
    past = rng.random() < 0.5
    have, do, be = ("had", "did", "was") if past else ("has", "does", "is")
    while True:
        owners = [member.forms[""] for member in rng.sample(BOYS + GIRLS, count)]
        things = rng.sample(TOYS.split(), count)
        if not any(is_held_out(owner.lower(), thing) for owner in owners for thing in things):
            break
    colors, spots = rng.sample(COLORS, count), rng.sample(SPOTS, count)
    told, turns = [], []
    for owner, thing, color, spot in zip(owners, things, colors, spots, strict=True):
        whole = article(f"{color} {thing}")
        sentence = f"{owner} {have} {whole}."
        is_placed = rng.random() < 0.5
        told.append(f"{sentence} The {thing} {be} {spot}." if is_placed else sentence)
        choices = [
            (f"Who {have} the {thing}?", f"who {have} the {thing}", f"{owner} {have} the {thing}.", "who", owner),
            (
                f"What {do} {owner} have?",
                f"what {owner} {have}",
                f"{owner} {have} {whole}.",
                "what",
                f"{color} {thing}",
            ),
            (
                f"What color {be} {owner}'s {thing}?",
                f"what color {owner}'s {thing} {be}",
                f"{owner}'s {thing} {be} {color}.",
                "color",
                color,
            ),
        ]
        if is_placed:
            choices.append(
                (f"Where {be} the {thing}?", f"where the {thing} {be}", f"The {thing} {be} {spot}.", "where", spot)
            )
        for question, clause, answer, kind, accept in rng.sample(choices, 2):
            turns.append(Turn(worded(rng, question, clause), answer, kind, (accept,)))
    rng.shuffle(told)
    rng.shuffle(turns)
    turns = turns[:6]
    turns[0] = Turn(f"{' '.join(told)} {turns[0].user}", turns[0].assistant, turns[0].kind, turns[0].accept)
    return turns


def story_on_request(rng: Random, held_out: bool) -> list[Turn]:
    """The user names a child and a thing; the assistant tells."""
    while True:
        story = tell(rng, held_out)
        hero, thing = (story.telling.cast[key] for key in story.plot.key)
        if "A" in story.telling.cast and "a" in thing.forms:
            break
    user = pick(rng, ("Tell me a story about {} and {}.", "Please tell me a story about {} and {}."))
    user = user.format(hero.forms[""], thing.forms["a"])
    return [Turn(user, story.text(), "story", (hero.forms[""],))]


def small_talk(rng: Random, held_out: bool) -> list[Turn]:
    """A greeting or an introduction, then who the assistant is, how one feels, what it cannot know."""
    turns = introduction(rng) if rng.random() < 0.35 else [said(rng, GREETINGS, "greeting")]
    named = turns[0].kind == "name"
    for _ in range(1 + int(rng.random() * 3)):
        chance = rng.random()
        if chance < 0.5:
            turn = said(rng, IDENTITY, "identity")
        elif chance < 0.7:
            turn = said(rng, MOODS, "talk")
        elif chance < 0.85:
            turn = said(rng, STRANGE[1:] if named else STRANGE, "unknown")
        else:
            turn = task(rng, held_out)
        turns.append(turn)
    return _once(turns if named or rng.random() < 0.7 else turns[1:])


def tasks(rng: Random, held_out: bool) -> list[Turn]:
    turns = [task(rng, held_out) for _ in range(2 + int(rng.random() * 4))]
    return _once([said(rng, GREETINGS, "greeting"), *turns] if rng.random() < 0.15 else turns)


def _once(turns: list[Turn]) -> list[Turn]:
    """Nobody says the same thing twice."""
    return list({turn.user: turn for turn in turns}.values())


def dialogue(rng: Random, held_out: bool) -> list[Turn]:
    """One conversation of some sort."""
    chance = rng.random()
    if chance < 0.55 or (held_out and chance < 0.77):
        turns = about_story(rng, held_out)[1]
        if rng.random() < 0.06:
            turns.append(said(rng, IDENTITY, "identity"))
    elif chance < 0.77:
        turns = belongings(rng)
    elif chance < 0.81:
        turns = story_on_request(rng, held_out)
    elif chance < 0.93:
        turns = tasks(rng, held_out)
    else:
        turns = small_talk(rng, held_out)
    return [*turns, said(rng, CLOSINGS, "closing")] if rng.random() < 0.12 else turns
