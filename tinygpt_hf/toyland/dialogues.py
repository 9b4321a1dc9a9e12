"""Generate dialogues: questions about the user's story, small tasks, small talk, and stories on request.

Every answer is one short full sentence. The answer is "I do not know" if the story does not contain it.
"""

from random import Random

from tinygpt_hf.toyland.grammar import article, frame
from tinygpt_hf.toyland.stories import BOYS, COLORS, GIRLS, TOYS, Story, child, is_held_out, listed, pick, tell
from tinygpt_hf.toyland.tables import Exchange, entries, exchange, table
from tinygpt_hf.toyland.tasks import fixed_exchange, introduction, task, worded_exchange

SPOTS = listed("spot")
POLITE = table("talk")["polite"]
BELONGINGS = [exchange(line) for line in table("talk")["belongings"]]
UNKNOWN = "I do not know. The story does not say."
# Questions that no story answers, except age and home, which a prelude may answer.
NEVER_TOLD = {name: tuple(map(frame, text.split(" / "))) for name, text in entries("shared", "never told")}


def politely(rng: Random, question: str, clause: str) -> str:
    """Return the question itself in 60 % of the cases, else a polite form with the clause."""
    return question if rng.random() < 0.6 else pick(rng, POLITE).format(clause=clause)


def _answerable(rng: Random, story: Story) -> list[Exchange]:
    turns = []
    for ask in story.asks:
        question, clause = story.say(ask.question), story.say(ask.clause, capital=False)
        accept = tuple(story.say(words, capital=False) for words in ask.accept)
        turns.append(Exchange(ask.kind, politely(rng, question, clause), clause, story.say(ask.answer), accept))
    return turns


def _unanswerable(rng: Random, story: Story) -> Exchange:
    """Generate a question that the story does not answer, or one about somebody who is not in it."""
    telling = story.telling
    cast = telling.cast
    if "A" not in cast:
        question, clause = frame("Where <do:D> {the:D} live?"), frame("where {the:D} <live>")
    elif rng.random() < 0.35 and story.plot.about_a:
        _, question, clause, *_ = pick(rng, story.plot.about_a)
        present = [member for member in cast.values() if member.gender in "mf"]
        while is_held_out((stranger := child(rng, *present, cast["A"])).word, story.key[1]):
            pass
        telling.cast = {**cast, "A": stranger}
    else:
        answered = {"age", "home"} - set(story.unsaid)
        question, clause = NEVER_TOLD[pick(rng, [name for name in NEVER_TOLD if name not in answered])]
    asked = politely(rng, story.say(question), story.say(clause, capital=False))
    telling.cast = cast
    return Exchange("unknown", asked, clause, UNKNOWN, ("I do not know",))


def about_story(rng: Random, held_out: bool) -> list[Exchange]:
    """Generate four to seven questions about a story, which is part of the first turn."""
    story = tell(rng, held_out, short=True)
    turns = _answerable(rng, story)
    rng.shuffle(turns)
    turns = turns[: 4 + int(rng.random() * 3)]
    if rng.random() < 0.45:
        turns.insert(int(rng.random() * (len(turns) + 1)), _unanswerable(rng, story))
    lead = pick(rng, ("", "", "", "", "Here is a story. ", "Read this story. "))
    return _after(f"{lead}{story.text()}", turns)


def _after(text: str, turns: list[Exchange]) -> list[Exchange]:
    return [turns[0]._replace(question=f"{text} {turns[0].question}"), *turns[1:]]


def belongings(rng: Random) -> list[Exchange]:
    """Generate statements of who has what and where it is, and questions about them. Used for training only."""
    count = 2 + int(rng.random() * 3)
    tense = ("had", "did", "was") if rng.random() < 0.5 else ("has", "does", "is")
    verbs = dict(zip(("have", "do", "be"), tense, strict=True))
    while True:
        owners = rng.sample(BOYS + GIRLS, count)
        things = rng.sample(TOYS, count)
        if not any(is_held_out(owner.word, thing) for owner in owners for thing in things):
            break
    statements, turns = [], []
    drawn = zip(owners, things, rng.sample(COLORS, count), rng.sample(SPOTS, count), strict=True)
    for owner, thing, color, spot in drawn:
        words = {"owner": owner.forms[""], "thing": thing, "color": color, "spot": spot, **verbs}
        words["whole"] = article(f"{color} {thing}")
        asks = BELONGINGS[: 3 + (rng.random() < 0.5)]  # only some have a place
        statements.append(" ".join(ask.answer.format_map(words) for ask in asks[1::2]))
        for ask in rng.sample(asks, 2):
            question = politely(rng, ask.question, ask.clause)
            turns.append(Exchange(ask.kind, question, "", ask.answer, ask.accept).filled(words))
    rng.shuffle(statements)
    rng.shuffle(turns)
    return _after(" ".join(statements), turns[:6])


def story_on_request(rng: Random, held_out: bool) -> list[Exchange]:
    """Generate a request for a story about a child and a thing, answered with the story."""
    while True:
        story = tell(rng, held_out)
        hero, thing = (story.telling.cast[key] for key in story.plot.key)
        if "A" in story.telling.cast and "a" in thing.forms:
            values = {"hero": hero.forms[""], "thing": thing.forms["a"], "story": story.text()}
            return [worded_exchange(rng, "request", values)]


def small_talk(rng: Random, held_out: bool) -> list[Exchange]:
    """Generate a greeting or introduction, then questions on who the assistant is, on feelings, or on unknown things."""
    turns = introduction(rng) if rng.random() < 0.35 else [fixed_exchange(rng, "greeting")]
    named = turns[0].kind == "name"
    for _ in range(1 + int(rng.random() * 3)):
        chance = rng.random()
        if chance < 0.5:
            turn = fixed_exchange(rng, "identity")
        elif chance < 0.7:
            turn = fixed_exchange(rng, "talk")
        elif chance < 0.85:
            turn = fixed_exchange(rng, "unknown", skip=named)  # the first asks for the name that was just said
        else:
            turn = task(rng, held_out)
        turns.append(turn)
    return _once(turns if named or rng.random() < 0.7 else turns[1:])


def tasks(rng: Random, held_out: bool) -> list[Exchange]:
    """Generate two to five small tasks."""
    turns = [task(rng, held_out) for _ in range(2 + int(rng.random() * 4))]
    return _once([fixed_exchange(rng, "greeting"), *turns] if rng.random() < 0.15 else turns)


def _once(turns: list[Exchange]) -> list[Exchange]:
    """Remove turns with a repeated question."""
    return list({turn.question: turn for turn in turns}.values())


def dialogue(rng: Random, held_out: bool) -> list[Exchange]:
    """Generate one conversation of a random kind."""
    chance = rng.random()
    if chance < 0.55 or (held_out and chance < 0.77):
        turns = about_story(rng, held_out)
        if rng.random() < 0.06:
            turns.append(fixed_exchange(rng, "identity"))
    elif chance < 0.77:
        turns = belongings(rng)
    elif chance < 0.81:
        turns = story_on_request(rng, held_out)
    elif chance < 0.93:
        turns = tasks(rng, held_out)
    else:
        turns = small_talk(rng, held_out)
    return [*turns, fixed_exchange(rng, "closing")] if rng.random() < 0.12 else turns
