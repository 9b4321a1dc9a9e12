"""Plots about animals, tame and wild, and fables told by them. Written as in `toyland_plots_children`."""

ANIMALS = """
= hungry | A | DF=diet P=outdoor when=when
+ {when}, {A} <see> {an:D} {at:P}. | {A} <go> {to:P} and <see> {an:D} there.
+ {the:D} <be> hungry. | {the:D} <look> sad because {he:D} <be> hungry.
- "Are you hungry?" <ask:A> {A}. | {A} <look> into {his:A} bag. | {A} <stand> very still and <wait>.
    | {A} <think> for a minute.
+ {A} <give> {the:D} {a:F}.
- At first {the:D} <be> afraid. | {the:D} <come> slowly. | {the:D} <smell> the food first.
    | {the:D} <take> one small step.
+ {the:D} <eat> {the:F}. | {the:D} <eat> {the:F} and <look> at {A}.
- "You can have more tomorrow," <say:A> {A}. | Now {the:D} <be> full and happy. | {A} <touch> its soft head.
    | {the:D} <lick> {A's} hand.
- The next day {A} <come> back with more food. | From that day on, {the:D} <wait> for {A} every morning.
? what: What <do:A> {A} see? / what {A} <see> -> {A} <see> {an:D}. [{n:D}]
? where: Where <do:A> {A} see {the:D}? / where {A} <see> {the:D} -> {A} <see> {the:D} {at:P}. [{the:P}]
? what: What <do:A> {A} give to {the:D}? / what {A} <give> to {the:D} -> {A} <give> {the:D} {a:F}. [{n:F}]
? who: Who <eat:s> {the:F}? / who <eat:s> {the:F} -> {the:D} <eat> {the:F}. [{n:D}]

= runaway | A B | D=runaway spot=outside when=when
+ {A} <have> {an:D}. | {A} <love> {his:A} {cn:D}.
+ {when}, {the:D} <run> away. | {when}, the gate <be:s> open, and {the:D} <run> away.
+ {A} <be> sad because {his:A} {n:D} <be> gone.
- {he:A} <call> and <call>. | {he:A} <look> in the yard and on the road. | "Come back!" <shout:A> {A}.
    | {he:A} <search> everywhere.
- {A} <ask> {B} for help. | "I will help you," <say:B> {B}. | {AB} <walk> up and down the street.
+ {B} <find> {the:D} {spot}. | At last {B} <find> {the:D} {spot}. | {B} <look> {spot} and <find> {the:D}.
- {A} <hug> {the:D}. | {the:D} <be> happy, too. | {A} <carry> {him:D} home and <give> {him:D} some food.
    | {the:D} <jump> into {A's} arms.
@thanksB
- Now {A} always <close> the gate. | That night {the:D} <sleep> near {A's} bed.
    | "Please stay with me," <say:A> {A}. | {A} <fix> the gate with a hammer.
? what: What animal <do:A> {A} have? / what animal {A} <have> -> {A} <have> {an:D}. [{n:D}]
? why: Why <be:A> {A} sad? / why {A} <be> sad -> {A} <be> sad because {his:A} {n:D} <be> gone. [gone]
? where: Where <be:D> {the:D}? / where {the:D} <be> -> {the:D} <be> {spot}. [{spot}]
? who: Who <find:s> {the:D}? / who <find:s> {the:D} -> {B} <find> {the:D}. [{B}]

= rainpet | A K | D=pet spot=outside W=dryer when=wet
+ {when}, {A} <find> {an:D} {spot}.
+ {the:D} <be> cold because {he:D} <be> wet. | The poor {n:D} <be> cold because it <be:s> wet.
- "You cannot stay here," <say:A> {A}. | {the:D} <shiver> and <look> at {A}. | Nobody else <be:s> on the street.
    | The little {n:D} <look> very sad.
+ {A} <take> {the:D} home. | {A} <carry> {the:D} home under {his:A} coat.
+ {K} <bring> {an:W}. | At home, {K} <bring> {an:W}.
- They <put:p> {the:D} near the fire. | {A} <give> {him:D} some warm milk. | Soon {the:D} <be> warm and dry.
    | {A} gently <brush> {him:D}.
- "Can we keep {him:D}?" <ask:A> {A}. | {A} <sit> with {the:D} all evening. | {K} <smile> and <nod>.
    | "I will feed {him:D} every day," <say:A> {A}.
- Now {the:D} <have> a home. | {the:D} <sleep> in a box near the bed. | {A} <have> a new friend.
? what: What <do:A> {A} find? / what {A} <find> -> {A} <find> {an:D}. [{n:D}]
? where: Where <do:A> {A} find {the:D}? / where {A} <find> {the:D} -> {A} <find> {the:D} {spot}. [{spot}]
? why: Why <be:D> {the:D} cold? / why {the:D} <be> cold -> {the:D} <be> cold because it <be:s> wet. [wet]
? what: What <do:K> {K} bring? / what {K} <bring> -> {K} <bring> {an:W}. [{n:W}]

= noise | A K | D=noisy spot=indoor when=night L=light
+ {when}, {A} <hear> a noise. | {when}, {A} <wake> up and <hear> a noise.
+ {he:A} <be> scared because the noise <be:s> loud.
- "What is that?" <whisper:A> {A}. | {he:A} <hide> under the blanket. | {A} <sit> up in bed and <listen>.
    | {his:A} heart <jump:s>.
+ {K} <come> with {an:L}. | {A} <call>, and {K} <come> with {an:L}.
- "We can look together," <say:K> {K}. | They <walk:p> around the house. | {A} <hold> {K's} hand.
    | They <go:p> downstairs quietly.
+ They <find:p> {an:D} {spot}. | Then they <find:p> {an:D} {spot}.
- {A} <laugh> and <laugh>. | "It is only {a:D}," <say:K> {K}. | "Hello, little {n:D}," <say:A> {A}.
    | {the:D} <be> more scared than {A}.
- {A} <be> not scared any more. | Soon {A} <sleep> again. | {A} <go> back to bed and <sleep> well.
    | {A} <yawn> and <close> {his:A} eyes.
? why: Why <be:A> {A} scared? / why {A} <be> scared -> {A} <be> scared because the noise <be:s> loud. [loud]
? who: Who <come:s> with {the:L}? / who <come:s> with {the:L} -> {K} <come> with {the:L}. [{K}]
? what: What <do:p> they find? / what they <find:p> -> They <find:p> {an:D}. [{n:D}]
? where: Where <be:D> {the:D}? / where {the:D} <be> -> {the:D} <be> {spot}. [{spot}]

= trip | A K | PD=sight few=few F=food
+ {A} <go> {to:P} with {K}. | One day, {A} <go> {to:P} with {K}. | In summer, {A} <go> {to:P} with {K}.
- {A} <be> very excited. | They <go:p> there by bus. | "What will we see?" <ask:A> {A}.
    | They <arrive:p> early in the morning.
+ {A} <see> {few} {ns:D} there. | There {A} <see> {few} {ns:D}.
- "I like the {ns:D} best," <say:A> {A}. | {A} <wave> at them. | {A} <draw> a picture of the {ns:D}.
    | {A} <point> at them and <laugh>.
- "Do not go too near," <say:K> {K}. | They <watch:p> them for a long time. | {K} <know> a lot about animals.
    | "They are sleepy today," <say:K> {K}.
+ {K} <buy> {A} {a:F}. | Then {K} <buy> {A} {a:F}.
- In the evening they <be:p> tired. | {A} <dream> of the {ns:D} that night. | On the way home {A} <sleep>.
    | {A} <tell> everybody about the {ns:D}.
? where: Where <do:A> {A} go? / where {A} <go> -> {A} <go> {to:P}. [{the:P}]
? who: Who <do:A> {A} go with? / who {A} <go> with -> {A} <go> with {K}. [{K}]
? what: What <do:A> {A} see? / what {A} <see> -> {A} <see> {few} {ns:D}. [{ns:D}]
? count: How many {ns:D} <do:A> {A} see? / how many {ns:D} {A} <see> -> {A} <see> {few} {ns:D}. [{few}]
? what: What <do:K> {K} buy? / what {K} <buy> -> {K} <buy> {a:F}. [{n:F}]

= bath | A B | D=pet W=dryer when=when
+ {A} <have> {an:D}. | {A} <have> {an:D} and <like> {him:D} very much.
+ {when}, {the:D} <be> dirty because {he:D} <roll> in the mud.
- "You need a bath," <say:A> {A}. | {the:D} <not like> water. | There <be:s> mud everywhere.
    | The water <be:s> nice and warm.
+ {A} <wash> {the:D}, and {B} <hold> {him:D}. | {A} <wash> {the:D} with warm water, and {B} <hold> {him:D}.
- {the:D} <jump> out and <shake>. | Soon {AB} <be> wet, too. | Water <splash:s> everywhere.
    | {the:D} <try> to run away.
+ {A} <dry> {the:D} with {an:W}. | Then {A} <dry> {the:D} with {an:W}.
- "Now you smell good," <say:B> {B}. | Now {the:D} <be> clean and soft. | They <laugh:p> a lot.
    | {the:D} <look> beautiful.
- {the:D} <run> out and <find> a new puddle. | {the:D} <sleep> in the sun. | {A} <give> {the:D} some food.
? what: What animal <do:A> {A} have? / what animal {A} <have> -> {A} <have> {an:D}. [{n:D}]
? why: Why <be:D> {the:D} dirty? / why {the:D} <be> dirty -> {the:D} <be> dirty because it <roll:s> in the mud. [mud]
? who: Who <hold:s> {the:D}? / who <hold:s> {the:D} -> {B} <hold> {the:D}. [{B}]
? what: What <do:A> {A} use to dry {the:D}? / what {A} <use> to dry {the:D} -> {A} <use> {an:W}. [{n:W}]

= dream | A K | D=seen when=night c=dreamact
+ {when}, {A} <dream> of {an:D}. | {when}, {A} <sleep> and <dream> of {an:D}.
+ In the dream, {the:D} <can> {c}.
- "Come with me," <say:D> {the:D}. | They <play:p> together all night. | {A} <be> not afraid at all.
    | The moon <shine:s> brightly.
- They <travel:p> over the sea and the mountains. | There <be:p> stars everywhere.
    | "What a nice dream!" <say:A> {A}. | They <land:p> on an island.
+ In the morning, {A} <tell> {K} about the dream. | {A} <wake> up and <tell> {K} about the dream.
- "That is a funny dream," <say:K> {K}. | {K} <laugh> and <hug> {A}. | {A} <draw> a picture of the dream.
    | "You should write it down," <say:K> {K}.
- {A} <want> to dream it again. | The next night {A} <go> to bed early. | "I hope it comes back," <say:A> {A}.
? what: What <do:A> {A} dream of? / what {A} <dream> of -> {A} <dream> of {an:D}. [{n:D}]
? what: What <can> {the:D} do in the dream? / what {the:D} <can> do in the dream -> {the:D} <can> {c}. [{c}]
? who: Who <do:A> {A} tell about the dream? / who {A} <tell> about the dream -> {A} <tell> {K} about the dream. [{K}]

= trap | D E | D=small E=strong spot=trap when=when
+ {when}, {an:D} <get> stuck {spot}.
- {the:D} <pull> and <pull>. | "Help me, please!" <shout:D> {the:D}. | It <get:s> dark. | It <be:s> cold and late.
+ {the:D} <be> scared because {he:D} <cannot> move. | {he:D} <be> scared because {he:D} <cannot> move.
- {the:D} <call> and <call>. | Nobody <come:s> for a long time. | {the:D} <wait> for a long time.
    | {the:D} <begin> to cry softly.
+ Then {an:E} <help> {the:D}. | At last {an:E} <come> and <help> {the:D}.
- "Do not worry, little friend," <say:E> {the:E}. | {the:E} <be> big but gentle. | {the:E} <use> its strong legs.
    | "Hold on," <say:E> {the:E}.
- "How can I thank you?" <ask:D> {the:D}. | "Thank you," <say:D> {the:D}. | Soon {the:D} <be> free again.
    | {the:D} <promise> to help {the:E}, too.
- {DE} <become> good friends. | From that day on, they <help:p> each other. | Even a big animal <need!:s> a friend.
? where: Where <be:D> {the:D} stuck? / where {the:D} <be> stuck -> {the:D} <be> stuck {spot}. [{spot}]
? why: Why <be:D> {the:D} scared? / why {the:D} <be> scared -> {the:D} <be> scared because it <cannot:s> move. [move]
? who: Who <help:s> {the:D}? / who <help:s> {the:D} -> {the:E} <help> {the:D}. [{n:E}]

= winter | D E | D=fable E=fable N=store few=few
+ All summer, {an:D} <collect> {ns:N}. | All summer, {an:D} <work> hard and <collect> {ns:N}.
+ {an:E} <sleep> all day. | Near it, {an:E} <sleep> all day.
- "Come and help me," <say:D> {the:D}. | "Winter is far away," <say:E> {the:E}.
    | "Why do you work so much?" <ask:E> {the:E}. | "I am too lazy to work," <say:E> {the:E}.
- Then winter <come:s>. | Soon the wind <be:s> cold. | One morning, snow <cover:s> the forest.
    | Then the lakes <turn:p> to ice.
+ In winter, {the:E} <be> hungry because {he:E} <have> no food.
+ {the:D} <give> {the:E} {few} {ns:N}. | {the:D} <be> kind and <give> {the:E} {few} {ns:N}.
- "Next summer I will work, too," <say:E> {the:E}. | "Thank you, dear friend," <say:E> {the:E}.
    | They <eat:p> together. | "I will never be lazy again," <say:E> {the:E}.
- It <be:s> good to plan for winter. | They <stay:p> friends for a long time. | The next year they <work:p> together.
? what: What <do:D> {the:D} collect? / what {the:D} <collect> -> {the:D} <collect> {ns:N}. [{ns:N}]
? who: Who <sleep:s> all day? / who <sleep:s> all day -> {the:E} <sleep> all day. [{n:E}]
? why: Why <be:E> {the:E} hungry? / why {the:E} <be> hungry -> {the:E} <be> hungry because it <have:s> no food. [food]
? count: How many {ns:N} <do:E> {the:E} get? / how many {ns:N} {the:E} <get> -> {the:E} <get> {few} {ns:N}. [{few}]

= mother | D E | D=cub E=small P=wild spot=meeting
+ {an:D} <lose> its mother {at:P}. | One day, {an:D} <lose> its mother {at:P}.
+ {the:D} <be> sad because {he:D} <be> alone. | {he:D} <be> sad because {he:D} <be> alone.
- "Where is my mother?" <ask:D> {the:D}. | {the:D} <sit> down and <cry>.
    | It <walk:s> and <walk:s>, but the forest <be:s> big. | {the:D} <be> too small to live alone.
+ {an:E} <hear> {the:D} and <stop>. // "I saw your mother {spot}," <say:E> {the:E}.
- "Follow me," <say:E> {the:E}. | They <walk:p> there together. | {the:E} <know> the way. | {the:E} <lead> the way.
+ The mother <be:s> {spot}. | And yes, the mother <be:s> {spot}.
- The mother <kiss:s> {the:D}. | {the:D} <run> to its mother. | The mother <thank:s> {the:E}.
    | "I looked for you everywhere," <say:s> the mother.
- Now nobody <be:s> sad. | After that, {the:D} always <stay> near its mother. | {the:E} <smile> and <go> home.
? where: Where <do:D> {the:D} lose its mother? / where {the:D} <lose> its mother
    -> {the:D} <lose> its mother {at:P}. [{at:P}]
? why: Why <be:D> {the:D} sad? / why {the:D} <be> sad -> {the:D} <be> sad because it <be:s> alone. [alone]
? who: Who <help:s> {the:D}? / who <help:s> {the:D} -> {the:E} <help> {the:D}. [{n:E}]
? where: Where <be:s> the mother? / where the mother <be:s> -> The mother <be:s> {spot}. [{spot}]
"""
