"""The open-class words of toyland, the embedded corpus, and their grammar: one table for the generator and
            its judges.

`lexicon()` maps a lower-case word form to its tags; words of the closed classes (determiners, pronouns, be/have/do,
modals, prepositions, conjunctions, numerals) are not in it. Forms come from spelling rules; exceptions are
            written out.

    name:m name:f | noun:sg noun:pl noun:mass | verb:<base|3sg|past|part|ing>:<frame> | adj adj:er adj:est
    adv adv:place adv:time adv:deg | interj

>>> sorted(lexicon()["mice"]), sorted(lexicon()["biggest"])
(['noun:pl'], ['adj:est'])
"""

from functools import cache

NAMES_M = """ben tom max sam leo jack finn noah adam luke oscar peter david henry paul simon felix hugo milo
            toby oliver
james john mark carl eric frank george ivan jacob kevin martin nick robert theo victor walter alex dan fred""".split()
NAMES_F = """anna mia lily emma zoe ella lucy sara nora ruby alice clara daisy eva grace hannah ivy julia kate laura
molly nina olivia polly rosa sophie tina vera wendy amy bella carol diana fiona gina helen jane maya lisa
susan""".split()
KIN_F = "mom grandma".split()  # used as names: Mom, Grandma
KIN_M = "dad grandpa".split()

# Count nouns by what one can do with them: the classes the stories choose from, so that one eats food, rides bikes.
NOUNS: dict[str, list[str]] = {
    key: words.split()
    for key, words in {
        "toy": """ball kite doll drum robot balloon puppet train boat car truck plane puzzle whistle rocket toy
            game block""",
        "ride": "bike scooter sled wagon",
        "clothes": "hat coat scarf sweater jacket shirt dress cap ring crown ribbon necklace watch",
        "pair": "shoe sock boot mitten glove",
        "treasure": "key coin shell feather stone button map bell letter gem",
        "thing": """book box basket bag cup bottle spoon fork knife bowl plate pot jar pencil crayon umbrella lamp
            candle clock blanket pillow towel mirror camera card phone""",
        "tool": "hammer broom brush bucket rope ladder net shovel rake saw tool",
        "instrument": "piano guitar trumpet violin flute",
        "fruit": "apple banana orange pear plum peach cherry grape berry lemon melon",
        "vegetable": "carrot potato tomato onion pea bean pumpkin",
        "food": "cookie sandwich egg muffin bun pancake nut pie cake pizza",
        "farm": "cow horse pig sheep goat hen duck goose rooster donkey",
        "pet": "cat dog puppy kitten hamster parrot turtle fish rabbit",
        "wild": """fox wolf bear deer squirrel mouse owl frog hedgehog lion tiger elephant monkey zebra giraffe
            camel""",
        "bird": "bird robin crow eagle penguin swan",
        "bug": "bee ant butterfly spider snail ladybug worm",
        "sea": "whale dolphin crab seal shark",
        "place": """park zoo farm beach school library market shop lake pond river forest garden museum bakery
            playground castle village city town hill station barn field circus fair harbor island bridge sea
            desert jungle mountain""",
        "room": "kitchen bedroom attic cellar garage hall bathroom room house home yard",
        "furniture": """bed table chair sofa shelf door window desk rug curtain drawer closet bench fence
            gate wall roof
            floor""",
        "kin": "friend brother sister uncle aunt mother father baby boy girl man woman child neighbor family",
        "job": """teacher baker farmer doctor nurse driver pilot sailor painter singer cook king queen vet
            gardener dentist person""",
        "body": """hand head foot leg arm nose eye ear tail tooth wing face mouth back knee finger trunk neck heart
            voice body""",
        "nature": """sun moon star storm cloud sky tree flower leaf rock hole puddle nest cave web log bush path road
            street branch seed plant rainbow wave snowman hive stick shadow""",
        "vehicle": "bus ship tractor engine wheel taxi seat",
        "time": "day morning afternoon evening night week winter spring summer autumn year minute hour time",
        "weekday": "monday tuesday wednesday thursday friday saturday sunday",
        "event": """party race picnic trip birthday present surprise song story picture noise mess secret plan idea
            prize joke""",
        "talk": """word name color number letter animal fruit vegetable question model language thing shape circle
            square triangle opposite plural sentence order lot bath fight front ground store sword straw
            teapot truth gold place side end way kind instrument season bug bird tower ticket cover step drop
            food wind fire help work light paint""",
    }.items()
}
MASS = {
    "food": """cake pie pizza fruit pumpkin carrot onion sugar bread cheese soup rice honey jam butter corn popcorn
        salad food lunch dinner breakfast""",
    "drink": "milk water juice tea lemonade cocoa",
    "stuff": """sun grass hay sand mud snow ice rain wind fire wood metal glass paper wool paint glue hair fur
        skin help work air light music money time fun sleep school bed home""",
    "color": "red blue green yellow orange purple pink brown black white gray",
}
PLURAL = {
    "mouse": "mice", "goose": "geese", "sheep": "sheep", "deer": "deer", "fish": "fish", "foot": "feet",
    "tooth": "teeth",
    "child": "children", "man": "men", "woman": "women", "snowman": "snowmen", "person": "people", "leaf": "leaves",
    "wolf": "wolves", "knife": "knives", "shelf": "shelves", "potato": "potatoes", "tomato": "tomatoes",
}  # fmt: skip

# base past participle : frames. One word before the colon means a regular verb.
VERBS = """
add : trans prep-to
agree : intr to clause prep-with
answer : intr trans clause
arrive : intr pp
ask : intr trans clause prep-for ditrans transto transclause
bake : intr trans ditrans
bark : intr prep-at
become became become : adj trans
begin began begun : intr to ing trans
bite bit bitten : intr trans prep-into
blow blew blown : intr pp trans transpp transprt-out transprt-away transprt-up
break broke broken : intr trans
bring brought brought : trans ditrans transpp transprt-back transprt-home
brush : trans
build built built : trans ditrans
burn : intr trans
buy bought bought : trans ditrans
buzz : intr pp
call : intr trans ditrans clause prep-for transprt-back
carry : trans transpp transprt-away
catch caught caught : trans
cheer : intr prep-for clause transprt-up
clap : intr trans
clean : intr trans transprt-up prt-up
climb : intr trans pp prt-up prt-down
close : intr trans
collect : trans
come came come : intr pp to prt-in prt-back prt-out prt-over prt-home
cook : intr trans ditrans
count : intr trans prep-to
cover : trans
cry : intr clause
cut cut cut : trans transpp
dance : intr pp
dig dug dug : intr trans pp transprt-up
draw drew drawn : intr trans ditrans
dream dreamed dreamed : intr trans clause prep-of prep-about
drink drank drunk : intr trans
drive drove driven : intr trans pp transpp
drop : trans intr transpp
dry : intr trans
eat ate eaten : intr trans transprt-up
end : intr trans
enjoy : trans ing
fall fell fallen : intr pp prt-down prt-over prt-off prt-asleep adj
feed fed fed : trans
feel felt felt : adj clause trans
fight fought fought : intr trans prep-with prep-for
fill : trans transpp
find found found : trans ditrans transpp
finish : intr trans ing
fix : trans
float : intr pp prt-away
fly flew flown : intr pp trans prt-away prt-up
follow : intr trans
forget forgot forgotten : trans to clause prep-about intr
get got gotten : adj trans pp ditrans to prt-up prt-down prt-out prt-home
give gave given : trans ditrans transprt-back transprt-away
go went gone : intr pp ing prt-back prt-home prt-out prt-in prt-away prt-on prt-outside to
grow grew grown : intr trans adj prt-up pp
guess : intr trans clause
hang hung hung : intr pp trans transpp transprt-up
happen : intr pp prep-to
hear heard heard : trans clause intr prep-about
help : intr trans transto prep-with transpp
hide hid hidden : intr pp trans transpp prep-from
hold held held : trans transpp transprt-up
hop : intr pp
hope : clause to intr prep-for
hug : intr trans
hunt : intr trans prep-for
hurry : intr pp prt-home prt-up
hurt hurt hurt : intr trans
invite : trans transpp transto
join : trans intr
jump : intr pp prep-over prt-up prt-down prt-in
keep kept kept : trans ing transpp adj
kick : trans transpp intr
kiss : trans
knock : intr prep-on transprt-over transprt-down
know knew known : intr trans clause prep-about
land : intr pp
laugh : intr prep-at clause
lay laid laid : trans transpp
lead led led : trans pp transpp
learn learned learned : intr trans to clause prep-about
leave left left : intr trans transpp prep-for
lick : trans
lie lay lain : pp intr prt-down
lift : trans transpp transprt-up
like : trans to ing transto
listen : intr prep-to
live : intr pp
look : adj pp intr prep-at prep-for prep-like prep-in prep-under prep-behind prt-up prt-down prt-around
lose lost lost : trans intr
love : trans to ing
make made made : trans ditrans
meet met met : intr trans
melt : intr trans
mix : trans intr
move : intr pp trans transpp prt-away
name : trans
need : trans to transto
nod : intr prep-at
open : intr trans
paint : intr trans
pay paid paid : intr trans prep-for
pick : trans transprt-up transpp
plant : trans transpp
plan : intr trans to prep-for
play : intr trans pp prep-with prep-in
point : intr prep-at prep-to
pour : intr trans transpp
promise : intr trans to clause transclause
pull : intr trans transpp prep-on transprt-out transprt-up
push : intr trans transpp prep-on
put put put : transpp transprt-on transprt-away transprt-down transprt-back transprt-out
race : intr trans pp
rain : intr
reach : trans intr prep-for
read read read : intr trans ditrans prep-about
remember : intr trans clause to prep-about
repeat : intr trans
rest : intr pp
return : intr trans pp prep-to
ride rode ridden : intr trans pp prep-on
ring rang rung : intr trans
roar : intr prep-at
roll : intr pp trans transpp prt-away
run ran run : intr pp prt-away prt-home prt-out prt-off prt-back
say said said : clause trans prep-to
search : intr trans prep-for pp
see saw seen : trans clause intr
sell sold sold : trans ditrans
send sent sent : trans ditrans transpp
sew sewed sewn : trans intr transprt-on
shake shook shaken : intr trans
share : intr trans transpp prep-with
shine shone shone : intr pp
shiver : intr
shout : intr clause prep-at prep-for
show showed shown : trans ditrans transclause transpp
sing sang sung : intr trans ditrans prep-to
sit sat sat : intr pp prt-down prt-up
skate : intr pp
sleep slept slept : intr pp
slip : intr prep-on
smell smelled smelled : adj trans intr prep-of prep-like
smile : intr prep-at clause
snow : intr
sound : adj prep-like
spill spilled spilled : intr trans transpp
splash : intr pp trans
stand stood stood : intr pp prt-up
start : intr trans to ing
stay : intr pp adj prt-home prt-inside
stop : intr trans ing to
swim swam swum : intr pp prt-away
take took taken : trans transpp ditrans transprt-off transprt-away transprt-back transprt-home transprt-out
talk : intr prep-to prep-about prep-with
taste : adj trans intr prep-like prep-of
teach taught taught : intr trans ditrans transto
tell told told : trans ditrans transclause transto transpp prep-about
thank : trans transpp
think thought thought : intr clause prep-about prep-of
throw threw thrown : trans transpp ditrans transprt-away
tie tied tied : trans transpp
touch : trans
travel : intr pp
trip : intr prep-over prep-on
try : intr trans to prt-on
turn : intr pp adj trans prt-around prt-back transprt-on transprt-off
use : trans transto
visit : intr trans
wag : trans intr
wait : intr prep-for pp
wake woke woken : prt-up transprt-up intr trans
walk : intr pp trans prt-home prt-away prt-back transpp
want : trans to transto
wash : intr trans transpp
watch : intr trans clause
water : trans
wave : intr trans prep-to prep-at
wear wore worn : trans
whisper : intr clause prep-to
win won won : intr trans
wish : intr clause to prep-for
wonder : intr clause prep-about
work : intr pp prep-on prep-with
worry : intr prep-about
wrap : trans transpp
write wrote written : intr trans ditrans clause transprt-down prep-to prep-about
yawn : intr
"""
# Present tense -ie verbs and the like that no rule covers.
ING = {"lie": "lying", "tie": "tying"}
DOUBLING = """stop drop hug hop run swim sit get put cut dig win begin nod clap trip slip wrap forget wag""".split()

ADJ = """reverse red blue green yellow orange purple pink brown black white gray happy sad angry proud scared afraid
tired hungry thirsty sick cold hot warm cool wet dry dirty clean big small little tall short long old new
young fast slow loud quiet soft hard heavy light strong weak brave kind nice good bad funny pretty beautiful
lovely shiny bright dark deep high low sweet sour fresh empty full open closed broken lost stuck safe sorry
alone lonely shy friendly gentle careful clever surprised excited worried glad fine great best last other
next same special right fair wrong late early round square sunny rainy windy snowy cloudy stormy free sleepy busy
lazy thick thin sharp wild tiny huge rich poor easy ill real hidden wooden golden gold magic whole more many
few dear welcome true gone asleep awake""".split()
COMPARED = {  # adjective: comparative and superlative; the regular ones by rule
    "good": "better best",
    **{
        word: ""
        for word in """big small tall short old young fast slow loud strong high warm close easy cold hard""".split()
    },
}

ADVERBS = {
    "adv": """slowly quickly loudly quietly softly happily sadly gently carefully suddenly kindly well hard fast
        high together alone only almost even bravely brightly deep finally first later once nearly""",
    "adv:place": "here home outside inside downstairs away back up down everywhere far around off over",
    "adv:time": """ago today tomorrow soon again then now never always often sometimes later still already early late
        finally once""",
    "adv:deg": "very too so",
}
INTERJ = "hello hi yes no oh thanks goodbye bye wow hooray ouch welcome".split()


def plural(noun: str) -> str:
    """The plural of a count noun: mouse -> mice, berry -> berries, bus -> buses, ball -> balls."""
    if noun in PLURAL:
        return PLURAL[noun]
    return _add_s(noun)


def _add_s(word: str) -> str:
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "z", "ch", "sh", "go")) else "s")


def _with_suffix(word: str, suffix: str) -> str:
    """Regular -ed, -er, -est: baked, carried, stopped, bigger, nicest."""
    if word.endswith("e"):
        return word + suffix[1:]
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "i" + suffix
    return (word + word[-1] if word in DOUBLING or word == "big" else word) + suffix


def _ing(word: str) -> str:
    if word in ING:
        return ING[word]
    if word.endswith("e") and not word.endswith("ee"):
        return word[:-1] + "ing"
    return (word + word[-1] if word in DOUBLING else word) + "ing"


@cache
def verbs() -> dict[str, dict[str, str]]:
    """base -> its five forms by name: verbs()["go"]["past"] == "went"."""
    table = {}
    for line in VERBS.strip().splitlines():
        base, *past = line.split(":")[0].split()
        regular = _with_suffix(base, "ed")
        table[base] = {
            "base": base, "3sg": _add_s(base), "ing": _ing(base),
            "past": past[0] if past else regular, "part": past[1] if past else regular,
        }  # fmt: skip
    return table


def frames() -> dict[str, list[str]]:
    """base -> the sentence frames it allows."""
    return {line.split()[0]: line.split(":")[1].split() for line in VERBS.strip().splitlines()}


@cache
def lexicon() -> dict[str, frozenset[str]]:
    """Lower-case word form -> its tags, for every open-class word of toyland."""
    tags: dict[str, set[str]] = {}

    def tag(words: str | list[str], name: str) -> None:
        for word in words.split() if isinstance(words, str) else words:
            tags.setdefault(word, set()).add(name)

    tag(NAMES_M + KIN_M, "name:m")
    tag(NAMES_F + KIN_F, "name:f")
    tag("tinygpt", "name:m")
    tag("tinygpt", "name:f")
    tag(list("bcdefghklmnoprstw"), "name:m")  # letters are written as names: The first letter is B.
    tag(KIN_F + KIN_M, "noun:sg")
    for words in NOUNS.values():
        tag(words, "noun:sg")
        tag([plural(word) for word in words], "noun:pl")
    for words in MASS.values():
        tag(words, "noun:mass")
    for base, allowed in frames().items():
        for form, word in verbs()[base].items():
            for frame in allowed:
                tag(word, f"verb:{form}:{frame}")
    tag(ADJ, "adj")
    for word, irregular in COMPARED.items():
        comparative, superlative = irregular.split() or (_with_suffix(word, "er"), _with_suffix(word, "est"))
        tag(comparative, "adj:er")
        tag(superlative, "adj:est")
    for name, words in ADVERBS.items():
        tag(words, name)
    tag(INTERJ, "interj")
    return {word: frozenset(names) for word, names in tags.items()}
