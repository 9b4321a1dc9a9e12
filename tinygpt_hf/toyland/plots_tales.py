"""Plots of tales and small adventures: kings, wishes, trips, bugs in need. Written as in `toyland_plots_children`."""

TALES = """
= royal | A | T=royal R=ruler few=few spot=outside
+ {the:R} <live> in a big castle and <have> {an:T}. | Long ago, {the:R} <have> {an:T}.
    | In an old castle, {the:R} <have> {an:T}.
+ One day, {the:R} <be> angry because {the:T} <be> gone. | Then {the:R} <be> angry because {the:T} <be> gone.
- All the people <look:p> for {him:T}. | Nobody in the castle <can> find {him:T}.
    | "Find my {n:T}!" <shout:R> {the:R}. | {the:R} <not eat> and <not sleep>.
+ A poor {kid:A} named {A} <find:s> {the:T} {spot}. | A clever {kid:A} named {A} <find:s> {the:T} {spot}.
- "A crow took it there," <say:A> {A}. | {A} <walk> to the castle. | {A} <knock> on the castle door.
    | {A} <carry> {him:T} carefully to the castle.
+ {the:R} <give> {A} {few} gold coins. | So {the:R} <give> {A} {few} gold coins.
- "You are welcome in my castle," <say:R> {the:R}. | There <be:s> music in the castle that night.
    | {A} <buy> bread for {his:A} family.
- {the:R} <be> never angry again. | After that, {A} often <visit> the castle. | {A} and {the:R} <stay:p> good friends.
? why: Why <be:R> {the:R} angry? / why {the:R} <be> angry -> {the:R} <be> angry because {the:T} <be> gone. [gone]
? where: Where <do:A> {A} find {the:T}? / where {A} <find> {the:T} -> {A} <find> {the:T} {spot}. [{spot}]
? who: Who <find:s> {the:T}? / who <find:s> {the:T} -> {A} <find> {the:T}. [{A}]
? count: How many coins <do:A> {A} get? / how many coins {A} <get> -> {A} <get> {few} gold coins. [{few}]

= bug | A B | D=bug P=water when=warm F=raft
+ {when}, {A} <sit> {at:P} and <see> {an:D}. | {when}, {A} <see> {an:D} {at:P}.
+ {the:D} <be> scared because {he:D} <be> in the water.
- The waves <be:p> high for a small bug. | {the:D} <cannot> swim. | "Look, {B}!" <shout:A> {A}.
    | A bird <fly:s> near, and {the:D} <be> afraid.
+ {B} <bring> {a:F}. | {A} <call>, and {B} <bring> {a:F}. | Then {B} <run> and <bring> {a:F}.
+ {the:D} <climb> onto {the:F}.
- {A} <put> {him:D} on a flower. | {the:D} <dry> its legs in the sun. | They <wait:p> until it <be:s> dry.
    | {A} <lift> {the:F} out of the water.
- "Goodbye, little {n:D}," <say:B> {B}. | {AB} <be> glad. | {AB} <wave> at {the:D}. | {the:D} <be> safe now.
? what: What <do:A> {A} see? / what {A} <see> -> {A} <see> {an:D}. [{n:D}]
? where: Where <do:A> {A} see {the:D}? / where {A} <see> {the:D} -> {A} <see> {the:D} {at:P}. [{at:P}]
? why: Why <be:D> {the:D} scared? / why {the:D} <be> scared
    -> {the:D} <be> scared because it <be:s> in the water. [in the water]
? what: What <do:B> {B} bring? / what {B} <bring> -> {B} <bring> {a:F}. [{n:F}]

= tower | A B | T=block R=room few=count
+ {AB} <build> a tower {at:R}. | One rainy day, {AB} <build> a tower {at:R}.
+ They <use:p> {few} {ns:T}. | For the tower, they <use:p> {few} {ns:T}.
- It <get:s> higher and higher. | {A} <stand> on a chair. | "It is higher than you," <say:B> {B}.
    | It <be:s> the tallest tower of all.
+ Then {A} <be> angry because {B} <run> into the tower. | Soon {A} <be> angry because {B} <run> into the tower.
- The tower <fall:s> with a loud noise. | Everything <lie:s> on the floor. | "Look what you did!" <shout:A> {A}.
    | {A} <kick> the wall.
- "I am very sorry," <say:B> {B}. | {B} <look> down and <not say> a word. | {A} <turn> around and <not answer>.
+ {B} <help> {A} to build a new tower. | So {B} <help> {A} to build a better one.
- The new tower <be:s> even better. | {A} <forget> that {he:A} <be> angry. | "We work well together," <say:A> {A}.
? where: Where <do:p> {AB} build a tower? / where {AB} <build> a tower -> {AB} <build> a tower {at:R}. [{at:R}]
? count: How many {ns:T} <do:p> they use? / how many {ns:T} they <use:p> -> They <use:p> {few} {ns:T}. [{few}]
? why: Why <be:A> {A} angry? / why {A} <be> angry -> {A} <be> angry because {B} <run> into the tower. [{B}]
? who: Who <help:s> {A}? / who <help:s> {A} -> {B} <help> {A}. [{B}]

= tooth | A K | T=gift F=hard day=day
+ On {day}, {A} <eat> {a:F} and <lose> a tooth. | {A} <lose> a tooth on {day} when {he:A} <eat> {a:F}.
- There <be:s> a hole in {his:A} smile. | "My tooth is gone!" <shout:A> {A}. | It <not hurt> very much.
    | {A} <run> to the mirror.
+ {A} <be> worried because {he:A} <look> funny. | {he:A} <be> worried because {he:A} <look> funny.
- "A new tooth will grow," <say:K> {K}. | "You look lovely," <say:K> {K}. | {A} <put> the tooth under the pillow.
    | "Everybody loses teeth," <say:K> {K}.
+ The next morning, {K} <give> {A} {an:T}. | In the morning, {K} <give> {A} {an:T}.
- "What a nice surprise!" <say:A> {A}. | {A} <show> {him:T} to all {his:A} friends. | {A} <smile> with an open mouth.
- Soon the new tooth <be:s> there. | Now {A} <not worry> any more. | After some weeks, {A} <have> a new tooth.
? what: What <do:A> {A} eat? / what {A} <eat> -> {A} <eat> {a:F}. [{n:F}]
? why: Why <be:A> {A} worried? / why {A} <be> worried -> {A} <be> worried because {he:A} <look> funny. [funny]
? what: What <do:K> {K} give to {A}? / what {K} <give> to {A} -> {K} <give> {A} {an:T}. [{n:T}]
? when: When <do:A> {A} lose a tooth? / when {A} <lose> a tooth -> {A} <lose> a tooth on {day}. [{day}]

= journey | A K | T=own V=bus P=trip J=job
+ {A} <go> {to:P} by {V} to meet {K}. | One day, {A} <go> {to:P} by {V} to meet {K}.
- {he:A} <look> out of the window. | {A} <see> hills, rivers and small villages. | It <be:s> a long way.
    | {A} <show> {his:A} ticket to the driver.
+ {he:A} <forget> {his:A} {cn:T} on the seat. | But {A} <forget> {his:A} {cn:T} on the seat.
+ {an:J} <run> after {A} with {the:T}. | Then {an:J} <run> after {A} with {the:T}.
- "Is this yours?" <ask:J> {the:J}. | "You lost this," <say:J> {the:J}. | {A} <be> very surprised.
    | "Please wait!" <shout:J> {the:J}.
- "Thank you so much," <say:A> {A}. | {A} <thank> {the:J}. | "You are very kind," <say:A> {A}.
- {K} <be> already there and <wave>. | Then {A} <hug> {K}. | {A} <tell> {K} about the trip.
? where: Where <do:A> {A} go? / where {A} <go> -> {A} <go> {to:P}. [{the:P}]
? who: Who <do:A> {A} want to meet? / who {A} <want> to meet -> {A} <want> to meet {K}. [{K}]
? what: What <do:A> {A} forget? / what {A} <forget> -> {A} <forget> {his:A} {cn:T}. [{n:T}]
? color: What color <be:T> {A's} {n:T}? / what color {A's} {n:T} <be> -> {A's} {n:T} <be> {c:T}. [{c:T}]
? who: Who <run:s> after {A}? / who <run:s> after {A} -> {an:J} <run> after {A}. [{n:J}]

= wish | A B | T=magic S=wonder P=wild
+ {A} <find> {an:T} {at:P}. | One day, {A} <find> {an:T} {at:P}.
+ It <be:s> magic, and {A} <wish> to {S}. | {the:T} <be> magic, and {A} <wish> to {S}.
- There <be:s> a bright light. | Nothing <happen:s> at first. | "Please, please," <whisper:A> {A}.
    | {A} <close> {his:A} eyes and <count> to three.
+ Suddenly {A} <can> {S}. | The next minute {A} <can> {S}.
- {A} <laugh> and <shout>. | "It is true!" <say:A> {A}. | {A} <laugh> and <dance>.
    | "Wow, I can do it!" <shout:A> {A}.
+ Then {he:A} <give> {the:T} to {B}. | In the evening, {A} <give> {the:T} to {B}.
- "Now you can make a wish," <say:A> {A}. | {B} <wish> for a good friend. | {B} <hold> {him:T} with both hands.
- It <be:s> better to share a wish. | They <keep:p> the secret for many years. | {AB} never <tell> anybody.
? what: What <do:A> {A} find? / what {A} <find> -> {A} <find> {an:T}. [{n:T}]
? where: Where <do:A> {A} find {the:T}? / where {A} <find> {the:T} -> {A} <find> {the:T} {at:P}. [{at:P}]
? what: What <do:A> {A} wish to do? / what {A} <wish> to do -> {A} <wish> to {S}. [{S}]
? who: Who <get:s> {the:T}? / who <get:s> {the:T} -> {B} <get> {the:T}. [{B}]

= photo | A K | D=seen T=camera when=warm wall=wall
+ {K} <give> {A} {an:T}. | {A} <get> {an:T} from {K}.
+ {when}, {A} <take> a picture of {an:D}. | {when}, {he:A} <take> a picture of {an:D}.
- {the:D} <not move>. | {the:D} <look> at {A} and <wait>. | "Please stand still," <say:A> {A}.
    | {A} <stand> very still.
+ {A} <hang> the picture {wall}. | Then {A} <hang> the picture {wall}. | At home, {A} <hang> the picture {wall}.
- "That is a good picture," <say:K> {K}. | {K} <like> the picture very much. | {A} <be> proud of {his:A} work.
    | "That is great," <say:K> {K}.
- {A} <want> to take pictures every day. | Now {A} <look> for more animals. | It <be:s> the first of many pictures.
? who: Who <give:s> {A} {the:T}? / who <give:s> {A} {the:T} -> {K} <give> {A} {the:T}. [{K}]
? color: What color <be:T> {the:T}? / what color {the:T} <be> -> {the:T} <be> {c:T}. [{c:T}]
? what: What animal <be:s> in the picture? / what animal <be:s> in the picture -> {an:D} <be> in the picture. [{n:D}]
? where: Where <be:s> the picture? / where the picture <be:s> -> The picture <be:s> {wall}. [{wall}]

= fishing | A K | F=seacatch P=fishing day=day few=few
+ On {day}, {A} <go> to the {n:P} with {K}. | {A} <go> to the {n:P} with {K} on {day}.
- They <sit:p> in a small boat. | The water <be:s> quiet and blue. | They <get:p> up before the sun.
    | They <sit:p> on a wooden bridge.
+ {A} <wait> for {few} hours. | They <be:p> very quiet, and {A} <wait> for {few} hours.
- "Be very quiet," <whisper:K> {K}. | {A} almost <fall> asleep.
+ Then {he:A} <pull> {an:F} out of the water. | At last {A} <pull> {an:F} out of the water.
- {K} <laugh> so hard that the boat <shake:s>. | "That is not a fish," <say:K> {K}. | {A} <be> very surprised.
    | It <be:s> very heavy.
- {A} <put> {him:F} on a shelf at home. | They <come:p> home without a fish, but happy.
    | "I caught it myself," <say:A> {A}.
? when: When <do:A> {A} go to the {n:P}? / when {A} <go> to the {n:P} -> {A} <go> to the {n:P} on {day}. [{day}]
? who: Who <do:A> {A} go with? / who {A} <go> with -> {A} <go> with {K}. [{K}]
? count: How many hours <do:A> {A} wait? / how many hours {A} <wait> -> {A} <wait> for {few} hours. [{few}]
? what: What <do:A> {A} pull out of the water? / what {A} <pull> out of the water
    -> {A} <pull> {an:F} out of the water. [{n:F}]
"""
