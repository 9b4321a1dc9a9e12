"""The checker of sentences, held to sentences written by hand: good ones, errors, and good ones broken on purpose."""

import ast
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from tinygpt_hf.evaluation import wellformed
from tinygpt_hf.evaluation.wellformed import Checker, corrupt

# base (past participle): the frames it has
VERBS = """
arrive: intr pp | ask: intr trans ditrans transto transclause clause | bark: intr prep-at | blow blew blown: intr
transpp | begin began begun: intr trans to ing | break broke broken: intr trans | brush: trans | buy bought bought:
trans ditrans | call: intr trans | carry: trans transpp | clean: trans | climb: intr trans pp | close: intr trans |
come came come: intr pp prt-in prt-over | cook: intr trans | count: intr prep-to | cover: trans | cry: intr clause |
dance: intr pp | drink drank drunk: intr trans | eat ate eaten: intr trans | enjoy: trans ing | fall fell fallen: intr
pp prt-down | feed fed fed: trans | find found found: trans | fix: trans | fly flew flown: intr pp | get got gotten:
adj trans pp | give gave given: trans ditrans | go went gone: intr pp | hear heard heard: trans clause | help: intr
trans | hide hid hidden: intr pp trans | hurt hurt hurt: intr trans | jump: intr pp | kick: trans transpp | knock:
intr prep-on | know knew known: intr trans clause | laugh: intr prep-at | leave left left: intr trans transpp | lift:
trans | like: trans to ing | listen: intr prep-to | live: intr pp | look: adj intr prep-at prep-for prt-around pp |
lose lost lost: trans | make made made: trans ditrans | meet met met: intr trans | name: trans | need: trans to |
open: intr trans | paint: intr trans | pick: trans transprt-up | play: intr trans prep-with | point: intr prep-at
prep-to | rain: intr | ring rang rung: intr trans | put put put: transpp transprt-on transprt-away | roll: intr pp
prt-away | run ran run: intr pp prt-away | say said said: clause trans prep-to | see saw seen: trans clause intr |
shine shone shone: intr | shout: intr clause | show showed shown: trans ditrans transclause | sing sang sung: intr
trans | sit sat sat: intr pp prt-down | sleep slept slept: intr pp | smile: intr prep-at | stand stood stood: intr pp
prt-up | start: intr trans to ing | stop: intr trans ing | swim swam swum: intr pp | take took taken: trans transpp
ditrans transprt-off | tell told told: trans ditrans transclause transto | thank: trans | think thought thought: intr
clause prep-about | throw threw thrown: trans transpp ditrans | touch: trans | try: intr trans to | turn: intr pp adj
| use: trans | wag: trans | wait: intr prep-for | wake woke woken: prt-up transprt-up intr trans | walk: intr pp |
want: trans to | wash: intr trans | whisper: intr clause prep-to | wish: intr clause to prep-for | wonder: intr clause
| fight fought fought: intr
"""
NOUNS = """
animal apple baby back ball balloon basket bath beach bear bed bird birthday blanket book boot bridge brother bush
cake car castle cat chair circus clock coat coin color cookie cousin cow cup day dog doll door duck egg elephant eye
farmer father fence fire flower forest fox friend frog game garden gate girl glove hand hat hill horse hour house idea
jar joke key kind king kitchen kite ladder lake letter life lion man mom morning mother name night nose orange owl
park pear pencil phone picnic pig pilot plate pond present queen rabbit rainbow ring rooster rope sandwich saw school
sea shell shop sister sock spider stone story stove sun table tail teacher tooth toy train tree umbrella wall week
window wolf year zoo bus box mouse child person berry boy library party puppy city shelf shoe gold home knife foot
grandpa grandma dad bell water moon mat bike
"""
PLURALS = {"man": "men", "wolf": "wolves", "mouse": "mice", "child": "children", "person": "people", "shelf": "shelves",
           "tooth": "teeth", "knife": "knives", "foot": "feet"}  # fmt: skip
MASS = """rain bread cheese dinner fun grass help home honey juice life lunch milk money music school snow soup tea
time wind dark water orange fire"""
ADJECTIVES = """
afraid angry asleep big black blue broken brown careful clean closed cold deep early fast full funny glad good happy
heavy hot hungry kind late left little lost lovely new nice old open pretty quiet red right round sad safe shiny short
small smooth soft sorry sunny sweet tall tired warm wet white wrong yellow ready dark best
"""
OTHER = {
    "adv": "fast happily later only quickly slowly softly suddenly together well deep hard",
    "adv:time": "again already always early late later never once soon then yesterday",
    "adv:place": "around away back down here home outside over up",
    "adv:deg": "so too very", "interj": "hello no oh yes",
    "name:f": "alice anna ella emma grandma lily mia mom nora ruby sara zoe", "adj:er": "better bigger taller colder",
    "name:m": "ben dad grandpa jack leo max noah sam tom", "adj:est": "best biggest fastest tallest",
}  # fmt: skip

GOOD = """The dog ran to the park. / Once upon a time there was a little girl. /
Once upon a time, there lived a king in a big castle. / One day, Tom went to the beach with his mother. /
Anna has a red ball and a blue kite. / The cat sat on the soft blanket. / Ben and Mia played in the garden all day. /
She gave him an apple. / He gave the apple to his sister. / The children were very happy. / It was a sunny day. /
It rained all night. / The baby was sleeping in her bed. / Mom put the book on the table. /
They walked home together. / I am hungry. / You are my best friend. / We do not like cold soup. /
He didn't want to go to bed. / She can't find her shoes. / The bird flew away. / The bird flew up into the tree. /
Tom picked up the coin. / Tom picked it up. / Lily woke up early in the morning. /
The sun was shining and the birds were singing. / Max looked for his hat under the bed. /
The big brown bear was not angry. / The fox was too tired to run. / The box was so heavy that Leo could not lift it. /
The ball is as big as an orange. / An elephant is bigger than a mouse. / Sara is the fastest girl in the school. /
The mouse hid behind the clock because it was afraid of the cat. / When the rain stopped, the children ran outside. /
If you are cold, put on your coat. / After lunch they went for a walk. / Before he went to bed, he brushed his teeth. /
The farmer has two cows, three pigs and a horse. / Grandma made a cake for Alice. / Grandpa told us a funny story. /
My brother wants to be a pilot. / Nora likes swimming. / Nora likes to swim in the lake. / Zoe started crying. /
He stopped at the gate and looked around. / She opened the door slowly. / Suddenly, the wind blew his hat away. /
Then the wolf went back to the forest. / At last they found the key. / In the box there were five shiny shells. /
There is a spider on the wall! / There are no cookies in the jar. / There was nobody at home. /
Nobody knew where the ball was. / Everyone laughed. / Everybody was glad to see him. /
Something was hiding in the bush. / He had never seen the sea. / They have lost their dog. /
She has already eaten her dinner. / The window was broken. / The cake was eaten by the dog. /
Ella was given a new bike. / The boy who lost his kite was sad. / The kite that Sam made was yellow. /
The girl with the red hat is my cousin. / Tom's dog is brown. / The dog's tail is short. / It is Mia's turn. /
This is my house. / These are my toys. / That is not your pencil. / Those apples are sweet. /
Each child had a balloon. / Every morning the rooster wakes the farmer. / Some birds cannot fly. /
All the animals came to the party. / Both boys were wet. / Many people live in the city. /
A few ducks swam in the pond. / He drank a lot of water. / She ate a little honey. / I have no money. /
Do you like cheese? / Does he live here? / Did you see the rainbow? / Is it raining? / Are you ready? /
Was the soup hot? / Can I come in? / Will you help me? / May I have a cookie, please? / Have you seen my glove? /
What is your name? / What did you find? / What are you doing? / Who is there? / Who broke the cup? /
Where is my sock? / Where are you going? / When is your birthday? / Why are you crying? / How are you? /
How old are you? / How many apples do you have? / Which hat do you want? / Whose bike is this? /
What color is the car? / What time is it? / Don't you know him? / Why didn't you call me? / Shall we play a game? /
Would you like some tea? / Could you open the window? / Come here! / Look at the moon! / Please sit down. /
Don't touch the stove. / Do not run in the house. / Let's go to the zoo. / Let's not fight. / Let me help you. /
Be quiet! / Be careful, Tom! / Close the door and wash your hands. / Give me the rope, please. /
Go and ask your father. / What a nice day! / What a big nose you have! / What lovely flowers! / How pretty you are! /
How nice! / Hello, Tom! / Thank you, Mom. / Thank you for the present. / Good night, Dad. / Yes, please. /
No, thank you. / Oh no! / Yes, I do. / No, he isn't. / Yes, it is red. / "Where is my ball?" asked Tom. /
"I am tired," said the little bear. / "Help!" cried the mouse. / "Stop!" shouted Ben. /
"Can we go to the park?" Lily asked her mother. / "You are very kind," he said to the old man. /
Mia said, "I want to play." / Dad smiled and said, "Well done!" / The owl asked, "Why are you sad?" /
"Yes," said Anna, "I will help you." / "Look! A rainbow!" said Leo. /
"I lost my key. Can you help me?" asked the fox. / "Thank you," Noah whispered softly. /
"Good morning, everyone," said the teacher. / "Let's go home," said Mom and took his hand. /
"Don't be afraid," the lion told the mouse. / "I know where it is," she said, pointing to the shelf. /
"Hello," they both said. / "What is in the box?" the children asked. / "Of course," said Grandpa. /
"Me too!" said Jack. / "In the garden," said Ruby. / Tom thought it was a good idea. / She said that she was sorry. /
He told his mother that he was hungry. / I think you are right. / I don't know what to do. /
Do you know where he lives? / He asked if he could come too. / She wondered why the bird was so quiet. /
He showed me how to make a kite. / She saw a frog jump into the water. / We heard the wind blowing. /
The rope made the box heavy. / He painted the fence white. / They named the puppy Max. / She let the bird go. /
He helped her carry the basket. / It took him an hour to fix the bike. / It is fun to play in the snow. /
It is not safe to swim here. / She was happy to see her friend again. / He is good at singing. /
She is afraid of the dark. / The jar was full of honey. / Tom is taller than his brother. /
This is the best day of my life. / He ran as fast as he could. / She danced more slowly than her sister. /
The snow was cold, wet and deep. / The small, round stone was very smooth. / Two weeks later, the eggs opened. /
Every day he fed the ducks. / On Monday we go to the library. / He came by bus. / They were at school. /
She went to bed at night and slept well. / He sat in front of the fire. / The cat jumped on top of the car. /
The shop is next to the school. / She looked out of the window. / He walked across the bridge and into the forest. /
Two plus three is five. / I have two hats, but you have only one. / The red one is mine. / Is this book yours? /
He hurt himself. / They looked at each other and laughed. / He fell down, but he did not cry. /
She wanted to help, so she got a ladder. / You can have milk or juice. / While she was cooking, the phone rang. /
He waited until the bus came. / As soon as he saw the dog, he ran away. / "I can do it myself," said Emma. /
I'm six years old. / It's time to go home. / We're going to have a picnic. / They'll be late. / He'd like a sandwich. /
You've got a letter. / The wolf, who was very hungry, knocked on the door. / His friend Tom was there. /
My sister and I like music. / He took Anna and me to the circus. / So he climbed the tree. / But the door was closed. /
And they all lived happily. / Swimming is fun. / Tom used to be afraid of spiders. / You must not eat the berries. /
We should clean the kitchen before Mom comes home. / The queen was about to leave. /
The little boy wished he had a dog. / She has more books than her brother. / Which of the boys is your friend? /
One of the ducks was white. / Most of the children were asleep. / None of them could swim. /
Nothing is better than a warm bath. / There was something shiny in the grass. / I need something to eat. /
Is there any milk left? / It was Tom who broke the plate. / The man went into the shop to buy some bread. /
She covered her eyes and counted to ten. / Put your boots on, please. / Take off your wet coat. /
The puppy wagged its tail. / A mouse and a cat can be friends. / Look, a rabbit is hiding over there! /
Up went the kite! / Here comes the train! / Here is your book."""
BAD = """He go home. / She have a dog. / They was happy. / I is tired. / The dogs barks. / The dog bark at the cat. /
Tom and Mia is friends. / We was in the garden. / He don't like milk. / She doesn't likes soup. /
He didn't went home. / They didn't saw him. / She can swims. / He will goes to school. / I want to went home. /
He wanted go home. / She tried to found the key. / Him went to the shop. / Her is my sister. / Them are in the house. /
Me am happy. / Us played outside. / He saw she in the park. / She gave he a book. / They looked at we. / Come with I. /
This is for he. / Tom and me went home. / She told Ben and I a story. / A dogs ran away. / Two cat sat on the wall. /
These ball is red. / This balls are red. / That shoes are wet. / Those hat is blue. / Many child came. /
Much toys were there. / Every children laughed. / Each boys had a hat. / An ball rolled down the hill. /
She ate a apple. / He has a umbrella. / It took a hour. / Dog ran to the park. / He has dog. / She sat on chair. /
Cat is black. / I saw bird in tree. / They live in big house. / She is teacher. / He went to park. / The the dog ran. /
The my dog ran. / A the cat slept. / My the ball is red. / Dog the ran home. / The ran dog home. / Ran the dog home. /
The dog home ran the. / Home the ran dog. / He the ball kicked. / Kicked he the ball. / The boy the ball threw. /
Threw the ball the. / The park to dog ran. / The dog ran to the. / The dog ran the park. / The dog to the park. /
The dog park. / Tom the ball. / She happy. / He very tired. / They in the garden. / It raining. /
The cat sleeping on the bed. / I going home. / He is go home. / She was sleeps. / They were played ball. /
He has went away. / She had ate the cake. / They have saw it. / He was broke the cup. / The cup was break. /
The cake was eat by the dog. / The ball was kicked it. / He put the ball. / He put. / The girl likes. / She wants. /
He gave. / She found quickly. / The boy carried to the house. / He slept the bed. / She arrived the school. /
He looked the moon. / She listened the music. / They waited the bus. / He said Tom a story. / She smiled the baby. /
He laughed the joke. / She told that she was sorry. / There is two cats. / There are a dog. /
There were a mouse in the house. / There was three birds. / There a cat on the bed. / Is a cat there was. /
What you are doing? / What you did see? / Where he is going? / Where the ball is? / Why you are sad? /
Who did broke the cup? / Do he like milk? / Does they live here? / Did he went home? / Did you saw it? /
Is they happy? / Are he ready? / Can he swims? / Can she to come? / You do like it? / How old you are? /
How many apple do you have? / What color the car is? / What is it. / Where are you going. / The dog ran to the park? /
Don't touches it. / Don't to run! / Let's goes home. / Let's to play. / Let he go. / Please to come here. /
To come here! / What nice day! / What a nice days! / What a old house! / How a nice day! / He is more big than me. /
She is tallest than her brother. / He is biggest boy. / He is as tall than her. / She is taller as him. /
He runs more fast that I. / This is the most big house. / She is too tired for run. / He is very. /
The ball is very big the. / The red is ball. / The ball red rolled away. / A big the dog barked. / A dog big barked. /
She has eyes blue. / He runs quickly very. / Very he runs fast. / Quickly the he ran. / He always is go there. /
She not likes it. / She likes not soup. / He not is happy. / They no want to play. / I no have a ball. /
He never not goes. / He can not to swim. / When he came home he slept and. / When the rain stopped. /
Because he was tired. / And the dog. / If you are cold, put. / When he comes home, she was happy. /
While she was cooking, the phone rings. / Yesterday he goes to school. / Two days ago she sees a fox. /
He went home and eats dinner. / She sat down and crying. / He ran and jump. / They sing and danced. /
He wants to eat and slept. / He saw the dog and. / Tom and went home. / Tom, Mia went home. / He ran, she walked. /
The dog ran it was late. / He was tired he went to bed. / I like apples I like pears. / The boy who lost his kite. /
The boy lost his kite was sad. / The boy who he lost his kite was sad. / The kite that Sam made it was yellow. /
The girl which has the hat she is nice. / The book of is red. / The top of was wet. /
In front the house stood a tree. / He sat next the fire. / She looked out the of window. /
He walked at across the bridge. / He came by the with bus. / He ran in to from. / To the he went shop. /
She with played the doll. / With she played the. / He hurt herself. / She did it himself. / They hurt himself. /
We saw yourself. / tom went home. / Tom went home / the dog ran. / Tom Went home. / He met anna. / i am happy. /
He and i ran. / On monday he ran. / The Dog ran. / The dog  ran. / The dog ran . / The dog ran.. / The dog,ran. /
"Hello, said Tom. / "Hello," said Tom / "Hello." said Tom. / "Hello" said Tom. / "hello," said Tom. /
"Hello," Said Tom. / "Hello," said. / "Hello," Tom. / "Hello," said Tom Mia. / "Hello," say Tom. / "Hello," said him. /
"Hello," ran Tom. / "I is happy," said Tom. / "Where my ball is?" asked Tom. / "Him is here," said Mia. /
"The dog a," said Mia. / Tom said, "He go home." / Tom said, "I am happy," / Tom said "I am happy." /
Tom said, I am happy. / Tom, "I am happy." / Said Tom, "I am happy." / Thank you Tom for. / Thank for the cake. /
Yes, I does. / No, he aren't. / Yes, am. / Hello the. / Oh the! / Good the night. / Go home Tom the! /
The dog ran zxq. / The dog flurped home. / The dog dog ran. / He he ran. / She ran ran. / He is is happy. /
The cat and and the dog slept. / It was was cold. / They to to went. / Of the. / The. / A. / And. / He. / Ball. /
Ball dog. / Dog cat bird. / Happy the. / Sat on. / Is red. / Was a king. / Went to the shop. / Has a ball. /
Likes the dog. / Was happy and sad. / Under the bed. / A big red ball. / My friend Tom. / The tall man with the hat. /
Apple the eat boy a. / Garden in flowers the are. / House big a lives he in. / Bed to time go. /
Milk some drinks cat the. / On sat mat cat the the. / Of full was jar the honey. / And ran the he dog. / I you see. /
You me like. / She him saw. / He her ball her gave. / The dog's is brown ball. / Tom dog is brown. / Tom's is dog. /
His the dog ran. / He gave to Mia. / He gave to Mia the. / She made him to go. / He let her to play. /
She let him goes. / He helped her carries the box. / She saw him to run. / He enjoys to swim. /
He stopped to swimming. / He likes swims. / He began ran. / She was happy see him. / She was afraid the dark. /
The jar was full the honey. / He is good at sing. / He thanked for her the cake. / Without to look, he ran. /
He left without look. / It is time go home. / It is fun play here. / It was an. / She is my the best friend. /
I have three of dogs. / A lot dogs ran. / Lot of dogs ran. / Some of dogs were white. / One of the duck was white. /
One of the ducks were white. / Each of the boys have a hat. / All animal came to the party. / Both boy were wet. /
Several of boy ran. / Nobody know where it is. / Everyone were happy. / Something are wrong. / Here are your book. /
Here is your books. / Here come the train. / Here comes he."""


def _lexicon() -> dict[str, frozenset[str]]:
    tags: dict[str, set[str]] = {}

    def tag(words: str, name: str) -> None:
        for word in words.split():
            tags.setdefault(word, set()).add(name)

    def s_form(word: str) -> str:
        if word.endswith("y") and word[-2] not in "aeiou":
            return word[:-1] + "ies"
        return word + ("es" if word.endswith(("s", "x", "z", "ch", "sh", "go")) else "s")

    def ed_or_ing(word: str, ending: str) -> str:
        if word.endswith("e"):
            return word[:-1] + ending
        if ending == "ed" and word.endswith("y") and word[-2] not in "aeiou":
            return word[:-1] + "ied"
        double = word in ("begin", "get", "hit", "put", "run", "sit", "stop", "swim", "wag")
        return word + (word[-1] if double else "") + ending

    for entry in VERBS.split("|"):
        if entry.strip():
            forms, frames = entry.split(":", 1)
            base, *irregular = forms.split()
            past, participle = irregular or [ed_or_ing(base, "ed")] * 2
            spelled = (base, s_form(base), past, participle, ed_or_ing(base, "ing"))
            for form, word in zip(("base", "3sg", "past", "part", "ing"), spelled, strict=True):
                for frame in frames.split():
                    tag(word, f"verb:{form}:{frame}")
    tag(NOUNS, "noun:sg")
    for noun in NOUNS.split():
        tag(PLURALS.get(noun, s_form(noun)), "noun:pl")
    tag(MASS, "noun:mass")
    tag(ADJECTIVES, "adj")
    for name, words in OTHER.items():
        tag(words, name)
    return {word: frozenset(some) for word, some in tags.items()}


def _sentences(block: str) -> list[str]:
    return [sentence.strip() for sentence in block.replace("/\n", "/ ").split(" / ") if sentence.strip()]


LEXICON = _lexicon()
GOOD_SENTENCES, BAD_SENTENCES = _sentences(GOOD), _sentences(BAD)


@pytest.fixture(scope="module")
def checker() -> Checker:
    return Checker(LEXICON)


def test_good_sentences_are_accepted(checker):
    refused = {sentence: why for sentence in GOOD_SENTENCES if (why := checker.explain(sentence))}
    assert len(set(GOOD_SENTENCES)) >= 250
    assert len(refused) <= 0.02 * len(GOOD_SENTENCES), refused


def test_bad_sentences_are_refused(checker):
    assert len(set(BAD_SENTENCES)) >= 300
    assert [sentence for sentence in BAD_SENTENCES if checker.is_wellformed(sentence)] == []
    assert sum("unknown word" in checker.explain(sentence) for sentence in BAD_SENTENCES) <= 2


def test_broken_sentences_are_refused(checker):
    rng, made, passed = random.Random(1), Counter(), []
    for sentence in GOOD_SENTENCES:
        for _ in range(6):
            broken = corrupt(sentence, rng, LEXICON)
            if broken:
                made[broken[0]] += 1
                passed += [broken[1]] if checker.is_wellformed(broken[1]) else []
    assert set(made) == {"swap", "drop", "disagree"} and min(made.values()) >= 150
    assert len(passed) <= 0.01 * sum(made.values()), passed


@pytest.mark.parametrize(
    ("sentence", "kind", "broken"),
    [
        ("A dog slept.", "disagree", "An dog slept."),
        ("He barked at the moon.", "disagree", "Him barked at the moon."),
        ("She plays well.", "disagree", "She play well."),
        ("The dog barked.", "drop", "Dog barked."),
        ("The dog barked.", "swap", "Dog the barked."),
        ("They didn't touch it.", "disagree", "They didn't touches it."),
        ("Two ducks slept.", "disagree", "Two duck slept."),
    ],
)
def test_corrupt_breaks_what_english_requires(sentence, kind, broken):
    assert (kind, broken) in {corrupt(sentence, random.Random(seed), LEXICON) for seed in range(80)}


def test_corrupt_leaves_alone_what_may_vary():
    for sentence in ("Hello, Tom!", "Tom and Mia laughed.", "Big dogs bark.", "Milk is good."):
        assert {corrupt(sentence, random.Random(seed), LEXICON) for seed in range(20)} == {None}
    first, second = (corrupt("The dog barked.", random.Random(5), LEXICON) for _ in range(2))
    assert first == second


SUBJECTS = {"I": "1", "You": "p", "He": "s", "It": "s", "We": "p", "They": "p", "The dog": "s", "The dogs": "p",
            "Tom": "s", "Tom and Mia": "p", "My mother": "s", "These boys": "p", "Everyone": "s", "Two cats": "p",
            "One of the cows": "s", "The dog in the cars": "s", "The boys with the ball": "p",
            "The man who likes dogs": "s"}  # fmt: skip
PREDICATES = {"am happy": "1", "is happy": "s", "are happy": "p", "was wet": "1s", "were wet": "p", "has slept": "s",
              "have slept": "1p", "sleeps": "s", "sleep": "1p", "slept": "1sp", "does not run": "s", "don't run": "1p",
              "will run": "1sp"}  # fmt: skip


def test_every_subject_takes_its_own_verbs(checker):
    wrong = [
        f"{subject} {predicate}."
        for subject, agreement in SUBJECTS.items()
        for predicate, taken in PREDICATES.items()
        if checker.is_wellformed(f"{subject} {predicate}.") != (agreement in taken)
    ]
    assert wrong == []


def test_every_determiner_takes_its_own_nouns(checker):
    taken = {"a": "s", "the": "spm", "this": "sm", "these": "p", "two": "p", "many": "p", "much": "m", "every": "s",
             "his": "spm", "some": "pm", "Tom's": "spm", "a lot of": "pm", "": "pm", "another": "s", "all the": "pm",
             "a few": "p"}  # fmt: skip
    for determiner, allowed in taken.items():
        for noun, number in (("cat", "s"), ("cats", "p"), ("milk", "m")):
            sentence = " ".join(f"He likes {determiner} {noun}.".split())
            if (determiner, noun) != ("all the", "cat"):
                assert checker.is_wellformed(sentence) == (number in allowed), sentence


def test_a_story_falls_into_sentences(checker):
    story = (
        'Tom ran. "Where is my ball?" asked Mia. "It is here." Tom smiled. "Run! Go!" Tom said. Mia said, "I see. '
        'Thank you!" "Yes," said Tom, "you can." The end'
    )
    assert checker.sentences(story) == [
        "Tom ran.", '"Where is my ball?" asked Mia.', '"It is here."', "Tom smiled.", '"Run! Go!" Tom said.',
        'Mia said, "I see. Thank you!"', '"Yes," said Tom, "you can."', "The end",
    ]  # fmt: skip
    assert checker.sentences("One dog.\n\nMr. Fox ran.") == ["One dog.", "Mr. Fox ran."]
    assert checker.sentences("") == []


def test_reasons_name_what_is_wrong(checker):
    assert checker.explain("The dog ran.") == ""
    assert 'unknown word "blorp"' in checker.explain("The blorp ran.")
    assert '"a" before "apple"' in checker.explain("She ate a apple.")
    assert "capital" in checker.explain("the dog ran.") and "end mark" in checker.explain("The dog ran")
    assert "not closed" in checker.explain('"Hello, said Tom.')
    assert 'up to "they"' in checker.explain("They runs home.")
    assert "himself" in checker.explain("She hurt himself.")


def test_share_counts_sentences(checker):
    texts = ["The dog ran. He go home. Tom slept.", "Mia ran. The cat was on"]
    report = checker.share(texts)
    assert (report.sentences, report.well_formed, report.share) == (5, 3, 0.6)
    assert [sentence for sentence, _ in report.rejected] == ["He go home.", "The cat was on"]
    assert checker.share(texts, skip_unfinished=True).sentences == 4
    assert checker.share([]).share == 0.0
    assert len(checker.share(["He go."] * 9, examples=2).rejected) == 2


def test_the_lexicon_decides_which_words_exist():
    tiny = Checker({"dog": frozenset({"noun:sg"}), "barked": frozenset({"verb:past:intr"})})
    assert tiny.is_wellformed("The dog barked.") and not tiny.is_wellformed("The cat barked.")


def test_any_text_gets_an_answer(checker):
    rng = random.Random(3)
    letters = "the dog a I . , ! ? \" ' - Tom's it's 5 é said and \n who don't"
    for _ in range(300):
        text = " ".join(rng.choice(letters.split(" ")) for _ in range(rng.randrange(12)))
        assert checker.share([text]).sentences >= 0
        assert isinstance(checker.explain(text), str)


def test_long_sentences_do_not_explode(checker):
    start = time.process_time()
    checker.explain("The dog ran " + "and the big red dog in the box on the table ran and hid " * 12 + "home.")
    assert time.process_time() - start < 10


def test_speed(checker):
    start = time.process_time()
    for sentence in GOOD_SENTENCES:
        checker.is_wellformed(sentence)
    assert len(GOOD_SENTENCES) / (time.process_time() - start) > 500  # 5800 on an idle machine


def test_it_shares_nothing_with_what_writes_the_stories():
    for path in Path(wellformed.__file__).parent.glob("grammar*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            module = getattr(node, "module", None) or ""
            names = [alias.name for alias in getattr(node, "names", [])] if isinstance(node, ast.Import) else []
            assert ".data" not in module and not any(".data" in name for name in names), path
