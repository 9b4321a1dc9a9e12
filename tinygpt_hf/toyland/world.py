"""What there is in toyland: people, things, animals and places, grouped by what can be done with them.

A pool is a list of choices; a choice is the tuple of cast members it brings, so that things that belong together are
chosen together (a rabbit and the carrot it eats). Pools are written as tables:

    own = *: ball kite; old: map coin; pl *: shoes; mass: milk     adjectives: nouns (* is every color; a
    kind may lead)
    room @ in: kitchen hall; at: farm                              preposition: places
    spot ~ under the bed, behind the door                          phrases as they stand
"""

from tinygpt_hf.toyland.grammar import Member, person, phrase, place, thing, unfold
from tinygpt_hf.toyland.lexicon import KIN_F, KIN_M, NAMES_F, NAMES_M

COLORS = "red blue green yellow orange purple pink brown black white gray".split()
NUMBERS = "zero one two three four five six seven eight nine ten".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()

BOYS = [person(name, "m") for name in NAMES_M]
GIRLS = [person(name, "f") for name in NAMES_F]
KIN = [person(name, "f") for name in KIN_F] + [person(name, "m") for name in KIN_M]

TOYS = "ball kite doll drum robot puppet train boat car truck plane puzzle whistle rocket"
FRUIT = "apple banana orange pear plum peach cherry"

TABLE = f"""
own = *: {TOYS} hat coat scarf sweater jacket shirt cap ribbon necklace watch ring book box basket bag cup bottle
    spoon umbrella blanket pillow towel pencil crayon camera bell flute; pl *: shoes socks boots mittens gloves
toy = *: {TOYS}
breakable = *: doll drum robot puppet train boat car truck plane whistle rocket kite umbrella lamp clock
flying = *: kite ball balloon plane hat cap scarf ribbon
ride = *: bike scooter sled wagon
wear = *: hat coat scarf sweater jacket cap; pl *: boots mittens gloves
gift = *: {TOYS} book hat scarf sweater watch necklace camera umbrella flute guitar violin trumpet
paper = *: card letter picture book
camera = *: camera
dryer = *: towel blanket sweater scarf
instrument = : piano guitar trumpet violin flute drum
treasure = shiny: key coin shell stone button bell gem ring necklace watch whistle; old: key coin map bell letter
    book box watch ring lamp; little: key bell shell feather stone box doll mirror; pretty: shell feather stone ring
    necklace button flower
royal = golden old shiny: crown ring necklace watch bell flute key sword cup mirror
magic = old: lamp ring bottle coin flute key shell; shiny: stone gem ring shell button star; little: bell bottle gem
    shell stone key
block = : block box book cup pot stone button coin potato basket

food = : apple banana orange pear plum peach cookie sandwich muffin bun pancake egg carrot; mass: bread cheese
    popcorn salad; pl: grapes cherries berries nuts
fruit = big: apple banana orange pear plum peach melon; sweet: {FRUIT}
filling = : {FRUIT}
baked = big round small sweet warm: cake pie; small sweet warm: bun muffin
drink = mass cold: milk juice lemonade water; mass hot: tea cocoa milk
hotdrink = mass hot: tea cocoa milk soup
colddrink = mass cold: milk juice lemonade water tea
garden = : carrot potato tomato onion pea bean pumpkin melon
store = : nut berry seed apple cherry pear plum
hard = hard: apple carrot nut pear cookie

pet = little small young brown white black gray: cat dog puppy kitten hamster rabbit; green little: parrot turtle
runaway = little small young brown white black: cat dog puppy kitten hamster rabbit goat hen pig
seen = big brown wild: bear horse; little gray: mouse squirrel owl donkey; green little: frog turtle parrot; white
    little: swan duck goose sheep rabbit hen; big: elephant lion tiger giraffe camel; funny: monkey penguin seal
    goat pig; big gray: whale shark dolphin; red little: fox ladybug robin bird
small = little small young shy: rabbit mouse squirrel frog hedgehog turtle duck bird hen kitten
strong = big strong old kind huge friendly: bear horse cow elephant lion tiger wolf donkey fox goat deer
bug = little tiny: bee ant butterfly spider snail ladybug worm
noisy = little small: cat owl mouse dog squirrel hedgehog frog kitten
fable = little small young: fox bear rabbit mouse squirrel frog hedgehog turtle duck lion elephant monkey penguin
    wolf deer owl goat pig zebra giraffe tiger camel
cub = little young: bear elephant lion tiger fox wolf deer penguin seal monkey duck owl horse sheep camel zebra

reachtool = long: ladder stick rope net; tall: ladder chair; big: net box
light = little: lamp candle light; old: lamp candle; bright: lamp light
goal = big: tree gate bush rock; old: bridge barn wall tree gate; red: gate fence bench; white: fence house bench
snownose = : carrot button potato stone apple pear
raft = : leaf stick feather spoon straw cup
seacatch = old: shoe boot hat bottle chair umbrella box bike sock teapot; big: crab boot pot basket shell; long:
    rope scarf
job = who kind: teacher baker farmer doctor nurse driver pilot sailor painter singer cook vet gardener neighbor

outdoor @ in: park garden playground yard field; at: playground farm
water @ at: lake pond river beach harbor; near: river pond lake sea
fishing @ at: lake pond river harbor sea
wild @ in: forest jungle field city; near: river lake
trip @ at: zoo farm circus beach museum fair lake castle harbor; in: forest park village city
shop @ at: market shop store bakery
room @ in: kitchen bedroom attic cellar garage hall bathroom
indoor ~ under the bed, behind the sofa, behind the door, under the table, in the closet, under the chair, in the
    basket, under the rug, in the drawer, behind the curtain, on the shelf, under the blanket, in the box, on the
    desk, in the kitchen, in the attic, in the cellar, in the garage, in the hall, near the window
hideout ~ under the bed, behind the sofa, behind the door, under the table, in the closet, under the desk, behind
    the curtain, under the blanket, in the kitchen, in the attic, in the cellar, in the garage, in the hall, behind
    the chair
outside ~ under a bench, behind a tree, in the grass, behind a rock, under a bush, near the gate, behind the fence,
    near the path, under a log, beside the road, in a puddle, near the wall, under the leaves, behind the barn,
    under a tree, near the bridge
meeting ~ behind a rock, under a tree, near the path, behind a bush, in the grass, near a log, on the hill, near the
    river, at the pond, behind the trees
high ~ in a tree, on the roof, on a high branch, on the wall
trap ~ in the mud, in a hole, in a net, in the fence, under a branch, under a rock
surface ~ on the rug, on the floor, on the table, on the bed, on the sofa, on the desk, on the chair
wall ~ on the wall, over the bed, over the sofa, near the window, in the hall, on the door, over the desk

when ~ One day, One day, One day, One day, One morning, One afternoon, One Monday, One Tuesday, One Wednesday, One
    Thursday, One Friday, One Saturday, One Sunday
warm ~ One sunny day, One warm day, One summer day, One hot day, One spring morning, One sunny morning, One warm
    afternoon
cold ~ One cold day, One winter day, One snowy day, One cold morning, One winter morning
wet ~ One rainy day, One stormy evening, One rainy evening, One cloudy day, One windy day, One wet autumn day
night ~ One night, One dark night, One windy night, One winter night, Late one evening
day ~ {", ".join(DAYS)}
color ~ {", ".join(COLORS)}
count ~ two, three, four, five, six, seven, eight, nine, ten
few ~ two, three, four, five

part ~ leg, arm, hand, foot, knee, head, nose, finger
bus ~ bus, train, car, taxi
skill ~ swim, skate, read, write, sew, dance, sing, cook soup, bake bread, ride a horse, ride a bike, draw a cat,
    draw a horse, climb a tree, catch a ball, catch a fish, play the piano, play the drum, make a kite
dreamact ~ fly, sing, dance, talk, read, drive a car, cook, play the piano, paint, skate, sew, write
wonder ~ fly, sing like a bird, swim like a fish, run like the wind, dance, talk with animals, play the piano,
    paint, skate, jump over a house
"""

# Animals with what they like to eat: D and F are cast together.
DIET = """cat kitten: milk | dog puppy bird robin: bread | rabbit donkey: carrot | mouse: cheese
    | squirrel parrot hamster: nut | duck hen goose: corn | goat: grass | horse deer: apple
    | cow sheep: hay | pig: potato | hedgehog: pear | turtle: salad | crow: cherry"""
UNCOUNTED = "milk bread cheese corn grass hay salad".split()
# Places with the animals one sees there: P and D are cast together.
SIGHTS = """at zoo: lion tiger elephant monkey zebra giraffe camel bear penguin seal parrot wolf
    | at beach: crab seal dolphin | at farm: cow horse pig sheep goat hen duck goose donkey rooster
    | in forest: fox deer owl squirrel hedgehog rabbit wolf | at harbor: whale dolphin seal
    | at lake: frog duck swan fish turtle goose | at pond: frog duck fish swan turtle
    | in garden: bee butterfly ladybug snail worm robin spider
    | in field: horse cow crow rabbit mouse ant | at circus: elephant horse lion tiger dog"""

Choice = tuple[Member, ...]


def _things(entry: str) -> list[Choice]:
    """The choices of one "kind adjectives: nouns"; each adjective fits each noun."""
    adjectives, nouns = (part.split() for part in entry.split(":"))
    kind = adjectives.pop(0) if adjectives and adjectives[0] in ("pl", "mass", "who") else "sg"
    adjectives = COLORS if adjectives == ["*"] else adjectives or [""]
    plain, kind = ("x", "sg") if kind == "who" else ("n", kind)
    return [(thing(noun, adjective, kind, plain),) for noun in nouns for adjective in adjectives]


def _pool(line: str) -> tuple[str, list[Choice]]:
    name, sign, content = line.split(" ", 2)
    if sign == "~":
        return name, [(phrase(words.strip()),) for words in content.split(",")]
    entries = content.split(";")
    if sign == "@":
        heads = [entry.split(":") for entry in entries]
        return name, [(place(noun, preposition.strip()),) for preposition, nouns in heads for noun in nouns.split()]
    return name, [choice for entry in entries for choice in _things(entry)]


def _pairs(table: str) -> list[tuple[list[str], ...]]:
    return [tuple(side.split() for side in entry.split(":")) for entry in " ".join(unfold(table)).split("|")]


POOLS: dict[str, list[Choice]] = dict(_pool(line) for line in unfold(TABLE) if line)
POOLS["ruler"] = [(thing("king", "old", plain="m"),), (thing("queen", "old", plain="f"),)]
POOLS["diet"] = [
    (thing(animal, adjective), thing(food, kind="mass" if food in UNCOUNTED else "sg"))
    for animals, (food,) in _pairs(DIET)
    for animal in animals
    for adjective in ("little", "small", "young", "thin")
]
POOLS["sight"] = [
    (place(noun, preposition), thing(animal)) for (preposition, noun), animals in _pairs(SIGHTS) for animal in animals
]
