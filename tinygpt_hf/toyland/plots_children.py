"""Plots about children and their things, as plain lines a person can read and mend. `toyland_stories` reads the lines.

    = name | cast | choices     A B C children (B never of A's gender), K Mom, Dad, Grandma or Grandpa; X=pool others
    + frame | frame             a step every telling has, in one of these words; // parts sentences
    - frame | frame             a step a long telling may have
    @name                       a shared ending (`SHARED`), optional
    ? kind: question / the same inside a sentence -> answer [what a right answer must contain]

Every frame of a "+" step states what the questions ask about.
"""

CHILDREN = """
= lost | A B | T=own spot=indoor when=when
+ {A} <have> {an:T}. | {A} <get> {an:T} from {his:A} aunt. | {A} <have> {an:T} and <like> {him:T} very much.
+ {when}, {he:A} <cannot> find {the:T}. | {when}, {the:T} <be> gone. | {when}, {he:A} <lose> {the:T}.
- {he:A} <look> in every room. | {he:A} <look> in the bag and on the table. | {he:A} <search> the whole house.
    | {A} <hurry> from room to room.
+ {A} <be> sad because {the:T} <be> lost.
- "Where <be!:T> my {n:T}?" <ask:A> {A}. | "I want my {n:T} back," <say:A> {A}.
    | "I cannot find my {n:T}," <say:A> {A}. | {A} <wonder> where {the:T} <be>.
- "Do not cry, {A}," <say:B> {B}. | "I will help you," <say:B> {B}. | {B} <want> to help {A}.
    | "We can look for {him:T} together," <say:B> {B}.
+ {B} <look> {spot} and <find> {the:T}. | {B} <find> {the:T} {spot}. | Then {B} <find> {the:T} {spot}.
@thanksB
@happyA
- Now {A} always <put> {the:T} in a safe place. | After that, {A} always <know> where {the:T} <be>.
    | {A} <promise> to be more careful.
? color: What color <be:T> {A's} {n:T}? / what color {A's} {n:T} <be> -> {A's} {n:T} <be> {c:T}. [{c:T}]
? why: Why <be:A> {A} sad? / why {A} <be> sad -> {A} <be> sad because {the:T} <be> lost. [lost]
? where: Where <be:T> {the:T}? / where {the:T} <be> -> {the:T} <be> {spot}. [{spot}]
? who: Who <find:s> {the:T}? / who <find:s> {the:T} -> {B} <find> {the:T}. [{B}]

= broken | A K | T=breakable when=when
+ {A} <have> {an:T}. | {A} <get> {an:T} for {his:A} birthday. | {A} <love> {his:A} {cn:T}.
+ {when}, {the:T} <fall> and <break>. | {when}, {A} <drop> {the:T}, and {he:T} <break:T>.
+ {A} <be> sad because {his:A} {n:T} <be> broken.
- {he:A} <cry> and <cry>. | {he:A} <sit> down and <cry>. | {he:A} <put> {his:A} hands over {his:A} face.
    | {he:A} <pick> up {the:T} sadly.
- "Can you fix my {n:T}?" <ask:A> {A}. | "Please help me," <say:A> {A}. | {he:A} <bring> {the:T} to {K}.
+ {K} <fix> {the:T} with some glue. | {K} <take> some glue and <fix> {the:T}. | {K} <fix> {the:T} in the garage.
- Soon {the:T} <be> as good as new. | Now {the:T} <look> like new. | {A} <help> a little, too.
    | {K} <work> carefully and slowly.
@thanksK
@happyA
- "Next time I will be more careful," <say:A> {A}. | After that, {A} <be> very careful with {the:T}.
? color: What color <be:T> {A's} {n:T}? / what color {A's} {n:T} <be> -> {A's} {n:T} <be> {c:T}. [{c:T}]
? why: Why <be:A> {A} sad? / why {A} <be> sad -> {A} <be> sad because {his:A} {n:T} <be> broken. [broken]
? who: Who <fix:s> {the:T}? / who <fix:s> {the:T} -> {K} <fix> {the:T}. [{K}]
? whose: Whose {n:T} <break:T>? / whose {n:T} <break:T> -> {A's} {n:T} <break>. [{A's}]

= stuck | A B | T=flying P=outdoor when=warm high=high L=reachtool
+ {when}, {AB} <play> {at:P} with {an:T}. | {when}, {AB} <go> {to:P} and <play> with {an:T}.
- The sun <shine:s>, and the sky <be:s> blue. | They <laugh:p> and <run:p> around. | They <have:p> a lot of fun.
    | They <throw:p> {the:T} high into the air.
+ Suddenly, {the:T} <get> stuck {high}. | Then the wind <blow:s>, and {the:T} <get> stuck {high}.
- "Oh no, my {n:T}!" <shout:A> {A}. | {A} <jump> and <jump>, but {the:T} <be> too high. | {he:A} <jump> up and down.
    | {A} <jump> up, but {he:A} <slip>.
+ {A} <be> sad because {he:A} <cannot> reach {the:T}.
- "I have an idea," <say:B> {B}. | "Wait here," <say:B> {B}. | {B} <think> for a minute.
    | "We need something long," <say:B> {B}.
+ {B} <run> home and <get> {an:L}. | {B} <bring> {an:L} from home.
+ With {the:L}, {he:B} <get> {the:T} down.
@thanksB
@friends
? where: Where <do:p> {AB} play? / where {AB} <play> -> {AB} <play> {at:P}. [{the:P}]
? where: Where <be:T> {the:T} stuck? / where {the:T} <be> stuck -> {the:T} <be> stuck {high}. [{high}]
? why: Why <be:A> {A} sad? / why {A} <be> sad -> {A} <be> sad because {he:A} <cannot> reach {the:T}. [reach]
? what: What <do:B> {B} bring? / what {B} <bring> -> {B} <bring> {an:L}. [{n:L}]
? color: What color <be:T> {the:T}? / what color {the:T} <be> -> {the:T} <be> {c:T}. [{c:T}]

= found | A B | T=treasure P=outdoor spot=outside when=when
+ {when}, {A} <play> {at:P}. | {when}, {A} <go> {to:P} to play.
+ {he:A} <find> {an:T} {spot}. | There {he:A} <find> {an:T} {spot}.
- "Who lost this {n:T}?" <ask:A> {A}. | {A} <want> to keep {him:T}. | {A} <look> at {him:T} for a long time.
    | {A} <pick> {him:T} up carefully.
- Then {A} <see> {B}. {B} <look> sad. | Then {B} <come> and <look> around. | {B} <run> to {A} and <stop>.
    | A little later, {B} <arrive> and <look> around sadly.
+ "That is my {n:T}," <say:B> {B}. | "I lost my {n:T}," <say:B> {B}. | "This {n:T} is mine," <say:B> {B}.
+ {A} <give> {the:T} to {B}. | So {A} <give> {the:T} to {B}. | {A} <smile> and <give> {the:T} to {B}.
- "Thank you, {A}," <say:B> {B}. | {B} <thank> {A} and <smile>. | "You are very kind, {A}," <say:B> {B}.
- {A} <be> proud because {he:A} <do> the right thing. | {A} <feel> good, too. | It <feel:s> good to be kind.
    | {AB} <become> good friends.
? what: What <do:A> {A} find? / what {A} <find> -> {A} <find> {an:T}. [{n:T}]
? where: Where <do:A> {A} find {the:T}? / where {A} <find> {the:T} -> {A} <find> {the:T} {spot}. [{spot}]
? where: Where <do:A> {A} play? / where {A} <play> -> {A} <play> {at:P}. [{the:P}]
? whose: Whose {n:T} <be:T> it? / whose {n:T} it <be:s> -> It <be:s> {B's} {n:T}. [{B's}]
? who: Who <do:A> {A} give {the:T} to? / who {A} <give> {the:T} to -> {A} <give> {the:T} to {B}. [{B}]

= present | A B | T=gift day=day
+ It <be:s> {A's} birthday on {day}. | {A} <have> a birthday party on {day}.
+ Many friends <come:p> to the party. | There <be:s> a big cake with candles.
    | The children <sing:p> a song for {him:A}. | Finally {A} <invite> all {his:A} friends to a party.
+ {B} <give> {A} {an:T}. | {B} <give> {an:T} to {A}. | {B} <come> to the party and <give> {A} {an:T}.
- "I like this {n:T} very much," <say:A> {A}. | "What a nice surprise!" <say:A> {A}.
    | {A} <open> the box with a big smile. | {the:T} <be> wrapped in red paper.
- "Thank you, {B}," <say:A> {A}. | {A} <thank> {B} and <hug> {him:B}. | "It is the best present," <say:A> {A}.
- Then {AB} <play> together. | {AB} <dance> and <sing>. | They <eat:p> cake and <drink:p> juice.
    | Everybody <enjoy:s> the music and the games.
- {A} <go> to bed tired but happy. | It <be:s> a very good day. | {A} <put> {the:T} near {his:A} bed that night.
? when: When <be:s> {A's} birthday? / when {A's} birthday <be:s> -> {A's} birthday <be:s> on {day}. [{day}]
? who: Who <give:s> {A} {the:T}? / who <give:s> {A} {the:T} -> {B} <give> {A} {the:T}. [{B}]
? what: What <do:A> {A} get? / what {A} <get> -> {A} <get> {an:T}. [{n:T}]
? color: What color <be:T> {the:T}? / what color {the:T} <be> -> {the:T} <be> {c:T}. [{c:T}]

= newfriend | A B | T=toy P=outdoor
+ {A} <be> new at school. | {A} <come> to a new school.
+ {he:A} <be> sad because {he:A} <have> no friends.
- {A} <sit> alone on a bench. | {A} <stand> alone near the wall. | Nobody <talk:s> to {him:A}.
    | {A} <be> too shy to talk.
+ Then {B} <come> with {an:T}. | One day, {B} <come> with {an:T}. | After lunch, {B} <come> with {an:T}.
- "Do you want to play with me?" <ask:B> {B}. | "Come and play," <say:B> {B}. | "Hello, I am {B}," <say:B> {B}.
    | "You can join me," <say:B> {B}.
- {A} <smile> and <nod>. | "Yes, I do," <say:A> {A}. | "Oh yes, please," <say:A> {A}.
+ {AB} <play> with {the:T} {at:P}. | {AB} <play> {at:P} with {the:T}.
- {A} <be> not alone now. | {A} <be> happy because {he:A} <have> a friend now.
    | {A} quickly <forget> that {he:A} <be> sad.
@friends
? why: Why <be:A> {A} sad? / why {A} <be> sad -> {A} <be> sad because {he:A} <have> no friends. [friends]
? what: What <do:B> {B} bring? / what {B} <bring> -> {B} <bring> {an:T}. [{n:T}]
? color: What color <be:T> {the:T}? / what color {the:T} <be> -> {the:T} <be> {c:T}. [{c:T}]
? where: Where <do:p> {AB} play? / where {AB} <play> -> {AB} <play> {at:P}. [{at:P}]

= quarrel | A B K | T=toy
+ {AB} <have> {an:T}. | {AB} <play> with {an:T}.
- "It is my turn," <say:A> {A}. | "I want to play with {him:T}," <say:B> {B}. | "Give {him:T} to me," <say:B> {B}.
    | "I had {him:T} first," <say:A> {A}.
+ {A} <be> angry because {B} <take> {the:T}. | Soon {A} <be> angry because {B} <take> {the:T}.
- {A} <pull>, and {B} <pull>. | {he:A} <shout> at {B}. | "That is not fair," <say:A> {A}.
+ {K} <tell> them to share {the:T}. | Then {K} <come> and <tell> them to share {the:T}.
- "Good friends share," <say:K> {K}. | {K} <smile> at them kindly. | "You can both play," <say:K> {K}.
    | "Do not fight," <say:K> {K}. | "You can share it," <say:K> {K}.
+ First {B} <play> with {the:T}, and then {A} <play> with {him:T}. | {B} <go> first, and {A} <go> next.
- "I am sorry," <say:A> {A}. | "I am sorry, too," <say:B> {B}. | Nobody <be:s> angry now. | Both children <agree:p>.
@friends
? why: Why <be:A> {A} angry? / why {A} <be> angry -> {A} <be> angry because {B} <take> {the:T}. [{B}]
? who: Who <tell:s> them to share? / who <tell:s> them to share -> {K} <tell> them to share. [{K}]
? color: What color <be:T> {the:T}? / what color {the:T} <be> -> {the:T} <be> {c:T}. [{c:T}]
? who: Who <go:s> first? / who <go:s> first -> {B} <go> first. [{B}]

= hide | A B | T=own spot=hideout count=count
+ {AB} <play> a game at home. // {B} <hide>, and {A} <count> to {count}.
- Then {A} <look> in every room. | {A} <look> under the beds, but nobody <be:s> there.
    | "Where are you?" <shout:A> {A}. | {A} quickly <open> every door.
- It <be:s> very quiet. | {B} <not move>. | {B} <be> as quiet as a mouse. | {A} <guess>, but {he:A} <be> wrong.
+ {A} <see> {B's} {cn:T} {spot}. | Then {A} <see> {B's} {cn:T} {spot}.
- {A} <come> closer and <laugh>. | "Now I know where you are," <say:A> {A}. | {A} <smile> and <look> again.
+ {B} <be> there, too. | So {A} <find> {B} there.
- "I can see you," <say:A> {A}. | "I found you," <say:A> {A}. | "Now it is your turn," <say:B> {B}.
@friends
? where: Where <do:B> {B} hide? / where {B} <hide> -> {B} <hide> {spot}. [{spot}]
? what: What <do:A> {A} see? / what {A} <see> -> {A} <see> {B's} {cn:T}. [{n:T}]
? color: What color <be:T> {B's} {n:T}? / what color {B's} {n:T} <be> -> {B's} {n:T} <be> {c:T}. [{c:T}]
? count: How far <do:A> {A} count? / how far {A} <count> -> {A} <count> to {count}. [{count}]

= attic | A B K | T=treasure R=room spot=indoor
+ {AB} <find> an old box {at:R}. | One rainy day, {AB} <find> an old box {at:R}.
- The box <be:s> closed. | They <cannot:p> open the box. | "What is in the box?" <ask:B> {B}.
    | The heavy box <be:s> hidden in a dark place.
+ {A} <look> for the key and <find> it {spot}. | {A} <find> the key {spot}.
+ In the box, they <find:p> {an:T}. | They <open:p> the box and <find:p> {an:T}.
- "Look at this {n:T}!" <shout:A> {A}. | "How pretty!" <say:B> {B}. | They <show:p> {him:T} to {K}.
    | "Wow, it is beautiful!" <say:A> {A}.
+ "That is my {n:T}," <say:K> {K}. | "This was my {n:T} long ago," <say:K> {K}.
- {K} <tell> them a long story about {the:T}. | "You can keep {him:T}," <say:K> {K}.
    | {K} <be> happy to see {him:T} again. | {K} <remember> everything.
? where: Where <be:s> the box? / where the box <be:s> -> The box <be:s> {at:R}. [{at:R}]
? where: Where <do:A> {A} find the key? / where {A} <find> the key -> {A} <find> the key {spot}. [{spot}]
? what: What <be:s> in the box? / what <be:s> in the box -> {an:T} <be> in the box. [{n:T}]
? whose: Whose {n:T} <be:T> it? / whose {n:T} it <be:s> -> It <be:s> {K's} {n:T}. [{K's}]

= cold | A K B | W=wear spot=outside when=cold E=hotdrink
+ {when}, {A} <lose> {his:A} {cn:W}. | {when}, {A} <go> out and <lose> {his:A} {cn:W}.
- The wind <blow:s>, and the snow <fall:s>. | White snow <be:s> everywhere. | The snow <be:s> very deep.
    | It <snow:s>, and the road <be:s> white.
+ {A} <be> cold because {he:A} <have> no {n:W}.
- {he:A} <shiver> and <run> home. | "I am so cold," <say:A> {A}. | {his:A} nose <be:s> red.
+ {K} <give> {A} some hot {n:E}. | {K} <make> {A} a cup of hot {n:E}.
+ {B} <find> {the:W} {spot}. | Then {B} <come> and <say>, "I found {the:W} {spot}."
@thanksB
- Now {A} <be> warm again. | Soon {he:A} <be> warm and happy. | {he:A} <sit> near the fire and <smile>.
    | "I will be more careful," <say:A> {A}.
? why: Why <be:A> {A} cold? / why {A} <be> cold -> {A} <be> cold because {he:A} <have> no {n:W}. [{n:W}]
? where: Where <be:W> {the:W}? / where {the:W} <be> -> {the:W} <be> {spot}. [{spot}]
? color: What color <be:W> {A's} {n:W}? / what color {A's} {n:W} <be> -> {A's} {n:W} <be> {c:W}. [{c:W}]
? who: Who <find:s> {the:W}? / who <find:s> {the:W} -> {B} <find> {the:W}. [{B}]
? what: What <do:K> {K} give to {A}? / what {K} <give> to {A} -> {K} <give> {A} some hot {n:E}. [{n:E}]

= ride | A K | R=ride P=outdoor part=part
+ {A} <get> {an:R} from {K}. | {K} <give> {A} {an:R}.
+ {A} <try> to ride {him:R} {at:P}. | {he:A} <go> {to:P} and <try> to ride {him:R}.
+ But {he:A} <fall> off and <hurt> {his:A} {part}.
- "This is too hard," <say:A> {A}. | {A} <want> to stop. | {A} <sit> on the ground and <cry> a little.
    | "Ouch, that hurt!" <say:A> {A}.
- "Try again," <say:K> {K}. | "You can do it," <say:K> {K}. | {K} <help> {him:A} to stand up.
    | "You nearly did it," <say:K> {K}.
- {A} <try> again and again. | {A} <be> brave and <try> again. | {K} <hold> {the:R} and <run> with {him:A}.
+ At last {A} <can> ride {the:R} alone. | In the end, {A} <ride> {the:R} alone.
- {A} <be> very proud. | "Look at me!" <shout:A> {A}. | {K} <clap> happily and <smile>.
    | "Hooray, I can ride!" <shout:A> {A}.
- It <be:s> good to try again. | {A} <ride> every day now. | Now {A} <ride> fast like the wind.
    | {A} <ride> happily up and down the street.
? who: Who <give:s> {A} {the:R}? / who <give:s> {A} {the:R} -> {K} <give> {A} {the:R}. [{K}]
? color: What color <be:R> {the:R}? / what color {the:R} <be> -> {the:R} <be> {c:R}. [{c:R}]
? where: Where <do:A> {A} ride? / where {A} <ride> -> {A} <ride> {at:P}. [{the:P}]
? what: What <do:A> {A} hurt? / what {A} <hurt> -> {A} <hurt> {his:A} {part}. [{part}]

= race | A B C | G=goal part=part day=day
+ {AB} <run> a race to {the:G}. | On {day}, {AB} <run> a race to {the:G}.
- {C} <run>, too. | "One, two, three, go!" <shout:C> {C}. | They all <run:p> as fast as they <can:p>.
    | They all <start:p> at the same time.
+ {A} <fall> and <hurt> {his:A} {part}. | {A} <be> fast, but {he:A} <fall> and <hurt> {his:A} {part}.
- "Ouch!" <shout:A> {A}. | {A} <begin> to cry. | {A} <cannot> run any more. | {A} <lie> on the ground.
+ {B} <stop> and <help> {A}. | {B} <come> back and <help> {A}.
+ So {C} <win> the race. | In the end, {C} <win> the race.
- "A friend is better than a prize," <say:B> {B}. | "You are a real friend," <say:A> {A}.
    | {C} <share> the prize with them.
@thanksB
? what: What <do:A> {A} hurt? / what {A} <hurt> -> {A} <hurt> {his:A} {part}. [{part}]
? who: Who <help:s> {A}? / who <help:s> {A} -> {B} <help> {A}. [{B}]
? who: Who <win:s> the race? / who <win:s> the race -> {C} <win> the race. [{C}]
? where: Where <do:p> {AB} run to? / where {AB} <run> to -> {AB} <run> to {the:G}. [{the:G}]

= cave | A B | T=treasure P=water
+ {AB} <find> a dark cave {at:P}. | One day, {AB} <find> a dark cave {at:P}.
- "We can look inside," <say:B> {B}. | A cold wind <come:s> out of the cave. | It <be:s> very quiet there.
    | It <be:s> cool and wet inside.
+ {A} <be> scared because the cave <be:s> dark.
- "I do not want to go in," <say:A> {A}. | {A} <stop> and <not want> to go on. | {his:A} heart <go:s> fast.
+ {B} <hold> {A's} hand. | So {B} <hold> {A's} hand.
+ In the cave, they <find:p> {an:T}. | They <walk:p> into the cave and <find:p> {an:T}.
- "The cave is not so bad," <say:A> {A}. | "You are very brave," <say:B> {B}. | {A} <be> not scared any more.
    | They <go:p> on bravely.
- They <run:p> home and <tell:p> everybody. | They <take:p> {him:T} home.
    | It <be:s> easy to be brave with a friend. | Finally they <return:p> home, tired and proud.
? where: Where <be:s> the cave? / where the cave <be:s> -> The cave <be:s> {at:P}. [{at:P}]
? why: Why <be:A> {A} scared? / why {A} <be> scared -> {A} <be> scared because the cave <be:s> dark. [dark]
? who: Who <hold:s> {A's} hand? / who <hold:s> {A's} hand -> {B} <hold> {A's} hand. [{B}]
? what: What <do:p> they find in the cave? / what they <find:p> in the cave -> They <find:p> {an:T}. [{n:T}]
"""
