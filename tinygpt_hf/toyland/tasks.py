"""Small tasks and small talk: what the assistant does without a story.

A `Turn` is one exchange. `task(rng, held_out)` draws one. Closed knowledge (sums, opposites, days) is the same
everywhere; open combinations (which words to repeat, to turn around, to count) are held out like the stories' are.
"""

from dataclasses import dataclass
from random import Random

from tinygpt_hf.toyland.facts import KNOWN
from tinygpt_hf.toyland.grammar import article
from tinygpt_hf.toyland.lexicon import NOUNS, plural
from tinygpt_hf.toyland.stories import is_held_out, pick
from tinygpt_hf.toyland.world import BOYS, COLORS, DAYS, GIRLS, NUMBERS, TOYS


@dataclass(frozen=True)
class Turn:
    user: str
    assistant: str
    kind: str
    accept: tuple[str, ...]


OPPOSITES = """big small|hot cold|happy sad|long short|old new|fast slow|up down|open closed|full empty|
hard soft|wet dry|clean dirty|high low|loud quiet|strong weak|light dark|good bad|inside outside|
early late|black white|rich poor|thick thin|awake asleep|right wrong|sweet sour|summer winter|
young old"""
PAIRS = [tuple(pair.split()) for pair in OPPOSITES.replace("\n", "").split("|")]
# Which word answers "the opposite of" each: the first pair a word is found in counts.
OPPOSITE = {one: other for pair in reversed(PAIRS) for one, other in (pair, pair[::-1])}
GROUPS = {
    "a fruit": "apple banana orange pear plum peach cherry grape lemon melon",
    "a vegetable": "carrot potato onion pea bean",
    "a toy": "doll kite puppet robot puzzle",
    "a bird": "duck goose hen robin eagle penguin swan crow parrot owl",
    "a farm animal": "cow pig sheep goat horse donkey",
    "a wild animal": "fox wolf bear deer lion tiger elephant monkey zebra giraffe",
    "an instrument": "piano guitar trumpet violin flute drum",
    "a bug": "bee ant butterfly ladybug",
    "a color": "red blue green yellow purple pink brown",
    "a day": "monday tuesday wednesday thursday friday saturday sunday",
}
GROUP = {word: group for group, words in GROUPS.items() for word in words.split()}
PLURALS = """mouse goose sheep foot tooth child man woman leaf wolf knife cherry berry puppy city box dress peach
cat dog book tree ball house flower bird star friend egg apple shoe fish""".split()
SPELLED = """ball bear bee book boy car cat cow doll dog duck egg fish flower fox girl goat hat hen
horse house king kite leaf lion milk moon mouse nest nose nut owl pig rain rabbit ring sea ship
snow star sun tiger tree water wolf""".split()
THINGS = NOUNS["toy"][:14] + NOUNS["treasure"] + NOUNS["fruit"] + NOUNS["thing"] + NOUNS["clothes"]
WORDS = THINGS + NOUNS["farm"] + NOUNS["pet"] + NOUNS["wild"] + NOUNS["bird"] + COLORS
ANIMALS = NOUNS["farm"] + NOUNS["wild"][:10] + NOUNS["pet"]
SIZES = "big little old young brown black white gray happy hungry sleepy clever".split()
DEEDS = """sleeps in the sun|eats in the garden|runs to the river|sits under a tree|looks at the moon|
plays in the snow|drinks water|lives on a farm|hides behind a rock|jumps over the fence|
walks in the forest|waits at the gate|swims in the lake|likes the rain|sings a song|finds a nut""".replace(
    "\n", ""
).split("|")

NAME = "I am TinyGPT, a small language model."
MODEL = "No, I am a small language model."
CALLED, ABLE = "My name is TinyGPT.", "I can tell stories and answer small questions."
IDENTITY = [
    ("Who are you?", NAME), ("What are you?", NAME), ("Tell me who you are.", NAME),
    ("Please tell me about yourself.", NAME), ("Can you tell me who you are?", NAME),
    ("What is your name?", CALLED), ("Tell me your name.", CALLED), ("Do you have a name?", "Yes, my name is TinyGPT."),
    ("Are you a person?", MODEL), ("Are you a robot?", MODEL), ("Are you a real person?", MODEL),
    ("Are you a boy or a girl?", "I am a small language model."),
    ("What can you do?", ABLE), ("How can you help me?", ABLE),
]  # fmt: skip
GREETINGS = [(hello, "Hello! How can I help you?") for hello in
             ("Hello!", "Hi!", "Hello, TinyGPT!", "Good morning!", "Good evening!", "Hi, TinyGPT!")]  # fmt: skip
MOODS = [
    ("How are you?", "I am fine, thank you."), ("How are you today?", "I am fine, thank you."),
    ("I am happy today.", "I am glad to hear that."), ("I am sad today.", "I am sorry to hear that."),
    ("I am tired.", "You can rest a little."), ("I am hungry.", "You can eat something good."),
    ("I am cold.", "You can wear a warm coat."), ("I am thirsty.", "You can drink some water."),
]  # fmt: skip
CLOSINGS = [
    ("Thank you.", "You are welcome."), ("Thank you very much.", "You are welcome."), ("Thanks!", "You are welcome."),
    ("Goodbye!", "Goodbye! Come back soon."), ("Bye!", "Goodbye! Come back soon."),
    ("Good night!", "Good night! Sleep well."), ("Well done!", "Thank you."),
]  # fmt: skip
UNTOLD = "I do not know. You did not tell me."
STRANGE = [(question, UNTOLD) for question in (
    "What is my name?", "How old am I?", "Where do I live?", "What is in my bag?", "What color is my hat?",
    "Where is my key?", "Who is my teacher?", "What did I eat today?", "Where is my brother?", "What is in my hand?",
    "Who is my best friend?", "What did I dream of?",
)]  # fmt: skip


def _sum(rng: Random, held_out: bool) -> Turn:
    first = 1 + int(rng.random() * 9)
    second = 1 + int(rng.random() * (10 - first))
    total, phrase = NUMBERS[first + second], f"{NUMBERS[first]} plus {NUMBERS[second]}"
    return Turn(f"What is {phrase}?", f"{phrase.capitalize()} is {total}.", "task", (f"is {total}",))


def _next_number(rng: Random, held_out: bool) -> Turn:
    number = 1 + int(rng.random() * 9)
    before, after = NUMBERS[number], NUMBERS[number + 1]
    return Turn(f"What number comes after {before}?", f"{after.capitalize()} comes after {before}.", "task", (after,))


def _next_day(rng: Random, held_out: bool) -> Turn:
    day = int(rng.random() * 7)
    after = DAYS[(day + 1) % 7]
    return Turn(f"What day comes after {DAYS[day]}?", f"{after} comes after {DAYS[day]}.", "task", (after,))


def _opposite(rng: Random, held_out: bool) -> Turn:
    word, other = pick(rng, list(OPPOSITE.items()))
    question = pick(rng, (f"What is the opposite of {word}?", f"Tell me the opposite of {word}."))
    return Turn(question, f"It is {other}.", "task", (f"is {other}",))


def _group(rng: Random, held_out: bool) -> Turn:
    word, group = pick(rng, list(GROUP.items()))
    if group == "a color":
        written = word
    else:
        written = word.capitalize() if group == "a day" else article(word)
    return Turn(f"What is {written}?", f"{written[0].upper()}{written[1:]} is {group}.", "task", (f"is {group}",))


def _plural(rng: Random, held_out: bool) -> Turn:
    word, number = pick(rng, PLURALS), pick(rng, NUMBERS[2:6])
    question = f"I had one {word}, but now I have {number}. What do I have?"
    return Turn(question, f"You have {number} {plural(word)}.", "task", (f"{number} {plural(word)}",))


def _letter(rng: Random, held_out: bool) -> Turn:
    word = pick(rng, SPELLED)
    letter = word[0].upper()
    return Turn(f"What is the first letter of {word}?", f"The first letter is {letter}.", "task", (f"is {letter}",))


def _drawn(rng: Random, held_out: bool, words: list[str], count: int) -> list[str]:
    """So many different words whose first two are held out together, or are not."""
    while True:
        found = rng.sample(words, count)
        if is_held_out(*found[:2]) == held_out:
            return found


def _listed(words: list[str]) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1]


def _count(rng: Random, held_out: bool) -> Turn:
    things = [article(word) for word in _drawn(rng, held_out, THINGS, 2 + int(rng.random() * 3))]
    number = NUMBERS[len(things)]
    return Turn(
        f"I have {_listed(things)}. How many things do I have?", f"You have {number} things.", "task", (number,)
    )


def _reverse(rng: Random, held_out: bool) -> Turn:
    one, two = _drawn(rng, held_out, WORDS, 2)
    question = pick(
        rng, (f"Say the words {one} and {two} in reverse order.", f"Turn around the words {one} and {two}.")
    )
    return Turn(question, f"The words are {two} and {one}.", "task", (f"{two} and {one}",))


def _repeat(rng: Random, held_out: bool) -> Turn:
    while True:
        animal, deed = pick(rng, ANIMALS), pick(rng, DEEDS)
        if is_held_out(animal, deed) == held_out:
            break
    sentence = f"The {pick(rng, SIZES)} {animal} {deed}."
    question = pick(rng, ("Please repeat this sentence.", "Say this after me.", "Repeat after me."))
    return Turn(f"{question} {sentence}", sentence, "task", (sentence.rstrip("."),))


def _mine(rng: Random, held_out: bool) -> Turn:
    one, two = _drawn(rng, held_out, TOYS.split(), 2)
    first, second = rng.sample(COLORS, 2)
    asked, color = pick(rng, ((one, first), (two, second)))
    told = f"I have {article(f'{first} {one}')} and {article(f'{second} {two}')}."
    return Turn(f"{told} What color is my {asked}?", f"Your {asked} is {color}.", "color", (color,))


def _known(rng: Random, held_out: bool) -> Turn:
    question, answer, accept = pick(rng, KNOWN)
    return Turn(question, answer, "fact", tuple(accept.split("; ")))


TASKS = (
    _sum,
    _next_number,
    _next_day,
    _opposite,
    _group,
    _plural,
    _letter,
    _count,
    _reverse,
    _repeat,
    _mine,
    _known,
    _known,
)


def task(rng: Random, held_out: bool) -> Turn:
    return pick(rng, TASKS)(rng, held_out)


def said(rng: Random, exchanges: list[tuple[str, str]], kind: str) -> Turn:
    """One of these fixed exchanges."""
    user, assistant = pick(rng, exchanges)
    accept = {NAME: ("TinyGPT",), UNTOLD: ("I do not know",)}.get(assistant, (assistant.rstrip("."),))
    if "name is TinyGPT" in assistant:
        accept = ("TinyGPT",)
    elif "language model" in assistant:
        accept = ("language model",)
    return Turn(user, assistant, kind, accept)


def introduction(rng: Random) -> list[Turn]:
    """The user says a name, and may ask for it again."""
    name = pick(rng, BOYS + GIRLS).forms[""]
    turns = [
        Turn(
            f"{pick(rng, ('Hello!', 'Hi!'))} My name is {name}.", f"Hello, {name}! How can I help you?", "name", (name,)
        )
    ]
    if rng.random() < 0.7:
        turns.append(Turn("What is my name?", f"Your name is {name}.", "name", (name,)))
    return turns
