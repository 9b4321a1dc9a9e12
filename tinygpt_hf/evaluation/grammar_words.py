"""The closed-class words of English, and what one word can be in a sentence.

Nouns, verbs, adjectives and adverbs come from the lexicon a caller passes in; everything here is a list that a
grammar book prints in full: pronouns, determiners, prepositions, conjunctions, auxiliaries, numerals, and the verbs
with a construction of their own ("let him go", "make it red", "go swimming").

    Lexicon({"dog": frozenset({"noun:sg"})}).word("dog", capital=False, first=False).sg   -> True
"""

import re

# A determiner says which nouns may follow: singular count, plural, mass; and whether a superlative may ("the best").
SG, PL, MASS, DEF = 1, 2, 4, 8
POSSESSIVES = frozenset("my your his her its our their".split())
DETERMINERS = {
    **dict.fromkeys(POSSESSIVES | {"the"}, SG | PL | MASS | DEF),
    "a": SG, "an": SG, "this": SG | MASS | DEF, "that": SG | MASS | DEF, "these": PL | DEF, "those": PL | DEF,
    "some": PL | MASS, "any": SG | PL | MASS, "no": SG | PL | MASS, "every": SG, "each": SG, "another": SG,
    "many": PL, "few": PL, "several": PL, "much": MASS, "more": PL | MASS, "most": PL | MASS, "enough": PL | MASS,
    "all": PL | MASS, "both": PL, "one": SG, "either": SG, "neither": SG, "such": PL | MASS,
}  # fmt: skip
QUANTITIES = {
    ("a", "lot", "of"): PL | MASS, ("lots", "of"): PL | MASS, ("plenty", "of"): PL | MASS, ("a", "few"): PL,
    ("a", "little"): MASS, ("a", "bit", "of"): MASS, ("a", "couple", "of"): PL, ("a", "hundred"): PL,
    ("a", "thousand"): PL, ("such", "a"): SG, ("such", "an"): SG, ("so", "many"): PL, ("so", "much"): MASS,
    ("too", "many"): PL, ("too", "much"): MASS, ("very", "many"): PL, ("as", "many"): PL, ("one", "more"): SG,
    ("a", "few", "more"): PL, ("some", "more"): PL | MASS, ("no", "more"): PL | MASS, ("any", "more"): PL | MASS,
    ("not", "many"): PL, ("not", "much"): MASS, ("a", "little", "more"): MASS, ("hundreds", "of"): PL,
    ("quite", "a"): SG, ("half", "a"): SG, ("half", "an"): SG, ("many", "more"): PL, ("all", "sorts", "of"): PL | MASS,
    ("all", "kinds", "of"): PL | MASS, ("every", "single"): SG, ("just", "one"): SG, ("only", "one"): SG,
    ("a", "dozen"): PL, ("a", "whole"): SG, ("not", "a"): SG, ("not", "one"): SG, ("no", "other"): SG | PL,
}  # fmt: skip
PREDETERMINERS = frozenset("all both half".split())

SMALL = "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen".split()
SMALL += "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand".split()
NUMBERS = frozenset(SMALL)
ORDINALS = frozenset("first second third fourth fifth sixth seventh eighth ninth tenth".split())
CLOSED_ADJECTIVES = ORDINALS | frozenset("next last other same only own whole following".split())

# word -> (cases, agreement): agreement "1" takes am, "s" takes is, "p" takes are; "sp" may take either.
PRONOUNS = {
    "i": ("n", "1"), "he": ("n", "s"), "she": ("n", "s"), "we": ("n", "p"), "they": ("n", "p"),
    "me": ("a", "s"), "him": ("a", "s"), "her": ("a", "s"), "us": ("a", "p"), "them": ("a", "p"),
    "you": ("na", "p"), "it": ("na", "s"), "mine": ("na", "sp"), "yours": ("na", "sp"), "hers": ("na", "sp"),
    "ours": ("na", "sp"), "theirs": ("na", "sp"), "this": ("na", "s"), "that": ("na", "s"),
    "these": ("na", "p"), "those": ("na", "p"),
    **dict.fromkeys("myself yourself himself herself itself ourselves yourselves themselves".split(), ("a", "s")),
}  # fmt: skip
ANTECEDENTS = {  # reflexive -> the pronouns it may go back to
    "myself": {"i", "me"}, "yourself": {"you", "your"}, "himself": {"he", "him"}, "herself": {"she", "her"},
    "itself": {"it"}, "ourselves": {"we", "us"}, "yourselves": {"you"}, "themselves": {"they", "them", "and"},
}  # fmt: skip
INDEFINITES = frozenset(
    a + b for a in ("some", "any", "every", "no") for b in ("one", "body", "thing") if a + b != "noone"
)
QUANTIFIER_PRONOUNS = {  # stand without a noun: "I want two", "some of them"
    **dict.fromkeys(NUMBERS - {"hundred", "thousand"}, "p"),
    **dict.fromkeys("both many several few".split(), "p"), **dict.fromkeys("one another each much".split(), "s"),
    **dict.fromkeys("some all most none more enough any half".split(), "sp"),
}  # fmt: skip

PREPOSITIONS = frozenset(
    """
    in on at to from with for about under over behind beside near between into onto through across around up down
    off along past by after before during without inside outside above below against toward towards like until till
    since among beneath underneath beyond within round except throughout opposite
    """.split()
)
# These can be followed by an -ing phrase: "without looking", "good at swimming".
GERUND_PREPOSITIONS = frozenset("by for of after before without about from at like with".split())
BARE_PLACES = frozenset("bed school home town church work class sea hospital college shore jail land court".split())
BARE_TIMES = frozenset(
    "breakfast lunch dinner supper tea bedtime noon night midnight sunset sunrise dawn dusk lunchtime dinnertime "
    "daytime nightfall playtime teatime breakfast".split()
)
BARE_MEANS = frozenset(
    "bike bus car train plane boat foot ship bicycle taxi truck scooter sled tractor tram hand mistake accident".split()
)

TIME_NOUNS = frozenset(
    """
    day morning afternoon evening night week month year summer winter spring autumn fall weekend minute hour moment
    time second while birthday sunday monday tuesday wednesday thursday friday saturday
    """.split()
)
TIME_NOUNS_PLURAL = frozenset(
    "days nights weeks months years minutes hours seconds times moments mornings summers winters".split()
)
SEASONS = frozenset("winter summer spring autumn".split())
DAYS = frozenset("monday tuesday wednesday thursday friday saturday sunday".split())
MONTHS = frozenset("january february march april may june july august september october november december".split())
PROPER = DAYS | MONTHS | frozenset("christmas easter halloween english".split())
KIN = frozenset(
    "mum mom dad mommy mummy daddy mama papa grandma grandpa granny grandad granddad nana mother father "
    "grandmother grandfather auntie aunt uncle teacher".split()
)
TITLES = frozenset("mr mrs miss ms dr king queen prince princess uncle aunt auntie captain doctor grandma".split())
TITLES |= frozenset("grandpa granny officer professor old farmer".split())
# Those who can be given something: "gave the dog a bone", but not "found the jacket the window".
_BEINGS = """
    friend brother sister cousin uncle aunt teacher neighbor neighbour baby son daughter mother father mom mum dad
    grandma grandpa boy girl kid guest stranger baker farmer doctor nurse driver pilot sailor painter singer cook
    king queen prince princess vet gardener dentist captain police pirate giant fairy witch wizard hero animal pet
    dog cat puppy kitten hamster parrot turtle fish rabbit bear rooster hen cow horse pig goat duck donkey fox frog
    hedgehog lion tiger elephant monkey zebra giraffe camel bird robin crow eagle penguin swan owl bee ant butterfly
    spider snail ladybug worm whale dolphin crab seal shark squirrel bat lamb chick cub pony dragon snake bunny
    duckling beetle dinosaur unicorn lizard doll snowman robot sun moon star wind tree family class team crowd man
    lady woman visitor builder clown officer student winner plant
    """.split()
LIVING = (
    frozenset(_BEINGS)
    | frozenset(being + "s" for being in _BEINGS)
    | frozenset(
        """
    mice mouse goose geese sheep deer wolf wolves child children men women people person snowmen foxes fishes
    bunnies puppies butterflies ponies monkeys donkeys babies ladies pirates everyone everybody each ones class
    """.split()
    )
)
COLORS = frozenset("red blue green yellow orange purple pink brown black white gray grey golden silver".split())
UNITS = frozenset("year years month months week weeks day days meter meters metre metres foot feet inch inches".split())

# Adverbs by place in the clause. Adverbs in -ly may stand in the middle too.
MIDDLE = frozenset(
    """
    always never often sometimes usually also just still already only really almost nearly even ever soon then both
    all once now first finally suddenly quickly slowly rarely seldom hardly probably certainly surely maybe somehow
    simply together quite secretly not-used
    """.split()
)
NOT_FINAL = frozenset("only nearly almost just never even really also very quite so ever always hardly not".split())
OPENERS = frozenset(
    """
    suddenly then now soon today yesterday tomorrow later sometimes finally luckily maybe perhaps first next once
    again afterwards afterward often usually tonight sadly happily still instead meanwhile there here outside inside
    upstairs downstairs nearby only even just overhead everywhere somewhere
    """.split()
)
DEGREES = frozenset("very too so really quite pretty rather much just almost all as more most still even not".split())
PARTICLES = frozenset("away back up down out around along over off in on through by past about apart forward".split())
PLACE_WORDS = frozenset("here there home everywhere somewhere anywhere nowhere inside outside".split())

COORDINATORS = frozenset("and but so or yet".split())

PREDICATIVE_ONLY = frozenset("well asleep awake alone afraid alive ashamed aware glad alike ill sorry able".split())
OF_ADJECTIVES = frozenset(
    "afraid scared proud full tired fond sure kind nice sick good sweet clever silly brave frightened careful glad "
    "ashamed aware mean bad rude thoughtful smart wise".split()
)
TO_ADJECTIVES = frozenset(
    """
    happy sad glad ready able sorry easy hard nice good bad excited afraid scared fun kind careful proud surprised
    lucky free eager likely brave important dangerous safe best better wonderful great lovely difficult impossible
    possible delighted pleased sure quick slow silly clever smart wrong right rude fair polite wise strange funny
    welcome curious unable shy ashamed sweet generous frightened old young strong tall late early amazing exciting
    interesting foolish thrilled worried thankful grateful nervous beautiful scary pretty sleepy special healthy
    harder easier nicer safer first last next keen determined relaxing boring comfortable relieved cozy delicious
    excellent helpful necessary pleasant tasty terrible bold busy enough
    """.split()
)
THAT_ADJECTIVES = frozenset(
    """
    happy sad glad sorry sure afraid scared proud surprised lucky excited certain worried angry upset good nice
    pleased thankful delighted grateful clear true strange funny thrilled amazed sorry important frightened relieved
    great wonderful possible hopeful bad
    """.split()
)
TO_NOUNS = frozenset(
    """
    time way place chance plan thing things food water toys friend friends book books one ones game games idea turn
    home house reason need wish right work room space lot job everything anything something nothing someone somebody
    somewhere anyone nobody song story stories day money bed box ways places animals plans seat person people treat
    nest spot milk bread string fun energy courage key tool tools stick rope basket bag shop clothes hat
    """.split()
)
COLLECTIVES = frozenset("family team pair group mess gift present problem surprise couple treat joy help band".split())
PEOPLE = frozenset(
    """
    friend brother sister cousin uncle aunt teacher dog cat puppy kitten baby neighbor neighbour bear rabbit horse
    pony bird fish duck mouse son daughter pet doll toy robot dragon fox wolf lion tiger owl frog hen cow pig sheep
    goat goose bee ant snail spider turtle squirrel monkey elephant whale crab sir king queen doctor farmer boy girl
    man lady child children kids moon sun star snowman butterfly
    """.split()
)

# Constructions of single verbs: base, 3sg, past, participle, ing; then the frames English gives them.
SPECIAL_VERBS = tuple(
    (forms.split(), frozenset(frames.split()))
    for forms, frames in (
        ("let lets let let letting", "np-base transprt-in transprt-out transprt-go"),
        ("make makes made made making", "np-base np-adj np-np"),
        ("help helps helped helped helping", "np-base transto to base prep-with transpp intr trans"),
        ("see sees saw seen seeing", "np-base np-ing wh"),
        ("watch watches watched watched watching", "np-base np-ing wh"),
        ("hear hears heard heard hearing", "np-base np-ing prep-about"),
        ("feel feels felt felt feeling", "np-base np-ing like"),
        ("find finds found found finding", "np-ing np-adj transprt-out wh-out transpp"),
        ("keep keeps kept kept keeping", "np-ing np-adj transpp"),
        ("leave leaves left left leaving", "np-adj transpp trans intr"),
        ("get gets got got getting", "np-adj part transpp to"),
        ("turn turns turned turned turning", "np-adj"),
        ("paint paints painted painted painting", "np-adj"),
        ("color colors colored colored coloring", "np-adj"),
        ("push pushes pushed pushed pushing", "np-adj transpp"),
        ("pull pulls pulled pulled pulling", "np-adj transpp"),
        ("call calls called called calling", "np-np prep-to prep-for"),
        ("name names named named naming", "np-np"),
        ("go goes went gone going", "go-ing go-and"),
        ("come comes came come coming", "go-ing go-and"),
        ("run runs ran run running", "go-and"),
        ("look looks looked looked looking", "like wh"),
        ("sound sounds sounded sounded sounding", "like"),
        ("smell smells smelled smelled smelling", "like"),
        ("taste tastes tasted tasted tasting", "like"),
        ("know knows knew known knowing", "wh how-to prep-about"),
        ("learn learns learned learned learning", "how-to to prep-about"),
        ("remember remembers remembered remembered remembering", "wh how-to to"),
        ("forget forgets forgot forgotten forgetting", "wh how-to to prep-about"),
        ("wonder wonders wondered wondered wondering", "wh"),
        ("guess guesses guessed guessed guessing", "wh"),
        ("ask asks asked asked asking", "wh np-wh prep-for prep-about"),
        ("tell tells told told telling", "np-wh np-about"),
        ("show shows showed shown showing", "np-wh wh"),
        ("teach teaches taught taught teaching", "np-wh transto"),
        ("understand understands understood understood understanding", "wh"),
        ("say says said said saying", "wh sayto so"),
        ("think thinks thought thought thinking", "so prep-about prep-of"),
        ("hope hopes hoped hoped hoping", "so"),
        ("see sees saw seen seeing", "wh"),
        ("decide decides decided decided deciding", "wh how-to"),
        ("try tries tried tried trying", "ing"),
        ("sit sits sat sat sitting", "posture"),
        ("stand stands stood stood standing", "posture"),
        ("lie lies lay lain lying", "posture"),
        ("have has had had having", "trans to"),
        ("want wants wanted wanted wanting", "transto np-adj"),
        ("like likes liked liked liking", "transto"),
        ("need needs needed needed needing", "transto"),
        ("be is was been being", ""),
        ("spend spends spent spent spending", "np-ing"),
        ("use uses used used using", "transto"),
        ("become becomes became become becoming", "adj trans"),
        ("play plays played played playing", "prep-with prep-in"),
        ("thank thanks thanked thanked thanking", "trans"),
        ("stay stays stayed stayed staying", "friends"),
        ("become becomes became become becoming", "friends"),
        ("remain remains remained remained remaining", "friends adj"),
        ("run runs ran run running", "race"),
        ("wait waits waited waited waiting", "wait"),
    )
)
# What one does, as a noun: "a walk", "a big hug". The lexicon tags these as verbs.
DEEDS = frozenset(
    """
    walk swim run ride drive rest look drink break try hug kiss smile laugh dance jump climb hop bite shout cry
    splash roar wave nap turn wish dream fall play bark call sip lick bounce yawn push pull shake cheer visit trip
    knock sound smell taste touch spin slide swing peek hunt cut
    """.split()
)
# These take a quotation or a question, not "that ...".
QUOTE_ONLY = frozenset(
    """
    ask asks asked asking wonder wonders wondered wondering call calls called calling cheer cheers cheered cheering
    laugh laughs laughed laughing smile smiles smiled smiling watch watches watched watching sing sings sang
    """.split()
)
FORMS = ("base", "3sg", "past", "part", "ing")

REPORTING = {  # word -> form; the verbs that go with a quotation
    form: name
    for forms in """
    say says said said saying;ask asks asked asked asking;shout shouts shouted shouted shouting;cry cries cried
    cried crying;call calls called called calling;whisper whispers whispered whispered whispering;answer answers
    answered answered answering;reply replies replied replied replying;yell yells yelled yelled yelling;think thinks
    thought thought thinking;add adds added added adding;beg begs begged begged begging;laugh laughs laughed laughed
    laughing;sing sings sang sung singing;tell tells told told telling;scream screams screamed screamed screaming;
    explain explains explained explained explaining;wonder wonders wondered wondered wondering;giggle giggles
    giggled giggled giggling;agree agrees agreed agreed agreeing;promise promises promised promised promising;warn
    warns warned warned warning;exclaim exclaims exclaimed exclaimed exclaiming;cheer cheers cheered cheered
    cheering;suggest suggests suggested suggested suggesting;sigh sighs sighed sighed sighing;read reads read read
    reading;write writes wrote written writing
    """.split(";")
    for form, name in zip(forms.split(), FORMS, strict=True)
    if name != "part" and name != "ing"
}

# Auxiliaries: word -> (kind, the forms it can be). Finite forms are tense (P past, N not past) + agreement.
_P, _N = frozenset(("P1", "Ps", "Pp")), frozenset(("N1", "Ns", "Np"))
AUXILIARIES = {
    "am": ("be", {"N1"}), "is": ("be", {"Ns"}), "are": ("be", {"Np"}), "was": ("be", {"P1", "Ps"}),
    "were": ("be", {"Pp"}), "be": ("be", {"base"}), "been": ("be", {"part"}), "being": ("be", {"ing"}),
    "'m": ("be", {"N1"}), "'re": ("be", {"Np"}), "have": ("have", {"base", "N1", "Np"}), "has": ("have", {"Ns"}),
    "had": ("have", _P | {"part"}), "having": ("have", {"ing"}), "'ve": ("perfect", {"N1", "Np"}),
    "do": ("do", {"base", "N1", "Np"}), "does": ("do", {"Ns"}), "did": ("do", _P), "done": ("do", {"part"}),
    "doing": ("do", {"ing"}), "can": ("modal", _N), "could": ("modal", _P | _N), "will": ("modal", _N),
    "would": ("modal", _P | _N), "shall": ("modal", _N), "should": ("modal", _P | _N), "may": ("modal", _N),
    "might": ("modal", _P | _N), "must": ("modal", _P | _N), "'ll": ("modal", _N), "ca": ("modal", _N),
    "wo": ("modal", _N), "cannot": ("modal", _N), "'s": ("s", {"Ns"}), "'d": ("d", _P | _N),
}  # fmt: skip

INTERJECTIONS = frozenset(
    """
    yes no oh hello hi hey wow hooray hurray ouch please thanks sorry goodbye bye okay ok well look right sure great
    welcome yum yay aha ah good wonderful stop wait help really ready hurrah ha oops hmm uh listen careful
    """.split()
)
WH = frozenset("what who whom which whose where when why how".split())

CONTRACTIONS = {"cannot": ("can", "not"), "can't": ("ca", "n't"), "won't": ("wo", "n't"), "let's": ("let", "'us")}
CONSONANT_SOUND = ("uni", "use", "usu", "one", "once", "eu", "uku", "ute")
VOWEL_SOUND = ("hour", "honest", "honor", "honour", "heir")


def one_syllable(adjective: str) -> bool:
    """Whether an adjective is compared with -er and -est only: big, nice; not tired, happy, beautiful."""
    if adjective.endswith("ed") or adjective in ("fun", "real", "wrong", "right", "lost", "scared", "often"):
        return False
    return len(re.findall(r"[aeiouy]+", adjective.removesuffix("e"))) <= 1


def vowel_sound(word: str) -> bool:
    """Whether the word takes "an": by its sound, not by its letter."""
    if word.startswith(VOWEL_SOUND):
        return True
    if word.startswith(CONSONANT_SOUND) and not word.startswith(("unin", "unim")):
        return False
    return word[0] in "aeiou" or word in ("8", "11", "18")
