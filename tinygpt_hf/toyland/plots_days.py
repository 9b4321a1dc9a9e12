"""Plots about days at home, at school and on the way: food, work, visits. Written as in `toyland_plots_children`."""

DAYS_OUT = """
= picnic | A B K | F=food E=colddrink P=outdoor when=warm
+ {when}, {AB} <have> a picnic {at:P}. | {when}, {AB} <go> {to:P} for a picnic.
+ {A} <bring> {a:F}, and {B} <bring> {a:E}.
- They <sit:p> on the grass and <talk:p>. | They <sit:p> under a big tree.
    | The sun <be:s> warm, and the birds <sing:p>. | They <finish:p> their food slowly.
+ Then {AB} <run> home because it <begin:s> to rain. | But soon {AB} <run> home because it <begin:s> to rain.
- "Our picnic is over," <say:B> {B}. | They <be:p> wet and cold. | "Oh no, we are wet!" <say:A> {A}.
    | Big drops of rain <land:p> on their heads.
+ {K} <put> a blanket on the floor. | At home, {K} <put> a blanket on the floor.
- They <eat:p> and <drink:p> there. | So they <have:p> a picnic inside. | "We can eat here," <say:K> {K}.
- It <be:s> the best picnic of the year. | They <laugh:p> and <listen:p> to the rain.
    | It <be:s> warm and nice inside. | "This is even better," <say:A> {A}.
? what: What <do:A> {A} bring? / what {A} <bring> -> {A} <bring> {a:F}. [{n:F}]
? what: What <do:B> {B} bring? / what {B} <bring> -> {B} <bring> {a:E}. [{n:E}]
? why: Why <do:p> {AB} run home? / why {AB} <run> home -> {AB} <run> home because it <begin:s> to rain. [rain]
? who: Who <put:s> a blanket on the floor? / who <put:s> a blanket on the floor
    -> {K} <put> a blanket on the floor. [{K}]

= spill | A K | E=drink spot=surface
+ {A} <have> a cup of {n:E}. | {A} <carry> a cup of {n:E}.
+ {he:A} <trip> and <spill> {the:E} {spot}. | {he:A} <fall> and <spill> {the:E} {spot}.
- "Oh no, what a mess!" <say:A> {A}. | {A} <look> at the mess and <not know> what to do. | The cup <be:s> empty now.
+ {A} <be> worried because there <be:s> a big mess.
- "I am sorry," <say:A> {A}. | {he:A} <want> to hide. | {he:A} <tell> {K} about the mess.
+ {K} <help> {A} to clean up.
- "It is only {n:E}," <say:K> {K}. | {K} <smile> and <hug> {A} gently. | {K} <be> not angry.
    | "We can clean it together," <say:K> {K}.
- Soon everything <be:s> clean again. | Then {K} <give> {A} a new cup of {n:E}. | In a minute the mess <be:s> gone.
    | {A} <carry> the cup back carefully.
- Next time {A} <walk> slowly. | {A} <be> glad because {he:A} <tell> the truth. | {A} <say>, "I will be more careful."
? what: What <do:A> {A} spill? / what {A} <spill> -> {A} <spill> {the:E}. [{n:E}]
? where: Where <do:A> {A} spill {the:E}? / where {A} <spill> {the:E} -> {A} <spill> {the:E} {spot}. [{spot}]
? why: Why <be:A> {A} worried? / why {A} <be> worried -> {A} <be> worried because there <be:s> a big mess. [mess]
? who: Who <help:s> {A}? / who <help:s> {A} -> {K} <help> {A}. [{K}]

= share | A B | F=food P=trip when=when
+ {when}, the children <go:p> {to:P}. | {when}, {AB} <go> {to:P} with their teacher.
- They <look:p> at many new things. | They <walk:p> around all morning. | It <be:s> a long way.
    | Everybody <be:s> busy and glad.
+ {B} <be> sad because {he:B} <have> no lunch.
- "I forgot my lunch," <say:B> {B}. | {his:B} bag <be:s> empty. | "I am so hungry," <say:B> {B}.
    | {B} <look> at the others sadly.
+ {A} <have> {a:F}. | But {A} <have> {a:F} in {his:A} bag.
+ {A} <share> {the:F} with {B}. | So {A} <share> {the:F} with {B}.
- "It is good to share," <say:A> {A}. | They <eat:p> and <smile:p>. | "Now we can both eat," <say:A> {A}.
    | "There is enough for two," <say:A> {A}.
- "Thank you, {A}," <say:B> {B}. | {B} <be> not hungry any more. | {B} <thank> {A}.
@friends
? where: Where <do:p> the children go? / where the children <go:p> -> The children <go:p> {to:P}. [{the:P}]
? why: Why <be:B> {B} sad? / why {B} <be> sad -> {B} <be> sad because {he:B} <have> no lunch. [lunch]
? what: What <do:A> {A} have? / what {A} <have> -> {A} <have> {a:F}. [{n:F}]
? who: Who <share:s> {the:F}? / who <share:s> {the:F} -> {A} <share> {the:F}. [{A}]

= sick | A B | T=gift day=day
+ {B} <be> sick and <stay> in bed.
- The doctor <tell:s> {him:B} to rest. | {B} <be> lonely and sad. | {his:B} head <be:s> hot.
    | {B} <feel> ill and weak.
+ On {day}, {A} <visit> {B}. | {A} <visit> {B} on {day}.
- "How are you?" <ask:A> {A}. | {A} <knock> on the door. | {A} <sit> near the bed and <tell> a funny story.
    | {A} <sit> down quietly near the bed.
+ {A} <bring> {B} {an:T}. | {he:A} <bring> {B} {an:T}.
- {B} <smile> for the first time. | "I feel better now," <say:B> {B}. | {B} <look> at {the:T} and <laugh>.
    | "You are a great friend," <say:B> {B}.
- "Get well soon," <say:A> {A}. | They <talk:p> until the evening. | They <play:p> until the sun <go:s> down.
    | {A} <stay> until dinner.
- After a few days, {B} <be> well again. | Soon {B} <can> run and play again.
    | A good friend <be:s> like a good doctor.
? why: Why <do:B> {B} stay in bed? / why {B} <stay> in bed -> {B} <stay> in bed because {he:B} <be> sick. [sick]
? when: When <do:A> {A} visit {B}? / when {A} <visit> {B} -> {A} <visit> {B} on {day}. [{day}]
? what: What <do:A> {A} bring? / what {A} <bring> -> {A} <bring> {an:T}. [{n:T}]
? color: What color <be:T> {the:T}? / what color {the:T} <be> -> {the:T} <be> {c:T}. [{c:T}]

= garden | A K | V=garden few=few
+ In spring, {A} <plant> {a:V} seed in the garden. | {A} <plant> {a:V} seed in the garden.
- "Will it grow?" <ask:A> {A}. | The seed <be:s> very small. | {A} <put> a little stick near the seed.
    | {A} <dig> a small hole with a shovel.
+ {K} <help> {A} to water it. | Every day {K} <help> {A} to water it.
- The sun <shine:s>, and the rain <fall:s>. | {A} <look> at the place every morning. | At first nothing <happen:s>.
    | The bees <buzz:p>, and the birds <sing:p>.
+ {A} <wait> for {few} weeks.
- "You must wait," <say:K> {K}. | It <be:s> hard to wait. | One day, {he:A} <see> a little green leaf.
+ Then {A} <have> a big {n:V}. | At last {A} <have> a big {n:V}.
- {A} <dance> around it. | {AK} <be> very proud of it. | {A} <show> it to all {his:A} friends.
    | {A} <fill> a basket with fruit and vegetables.
- Good things <need!:p> time. | {A} <learn> that good things need time. | "I will plant more seeds," <say:A> {A}.
    | "Well done!" <say:K> {K}.
? what: What <do:A> {A} plant? / what {A} <plant> -> {A} <plant> {a:V} seed. [{n:V}]
? who: Who <help:s> {A}? / who <help:s> {A} -> {K} <help> {A}. [{K}]
? count: How many weeks <do:A> {A} wait? / how many weeks {A} <wait> -> {A} <wait> for {few} weeks. [{few}]
? where: Where <do:A> {A} plant the seed? / where {A} <plant> the seed -> {A} <plant> the seed in the garden. [garden]

= bake | A K B | F=baked N=filling few=few day=day
+ {AK} <bake> {an:F} for {B}. | One day, {AK} <bake> {an:F} for {B}.
- {K} <mix> butter, eggs and milk. | There <be:s> sugar on the table. | {A} <wash> {his:A} hands first.
    | {A} <pour> some milk into a bowl.
+ They <use:p> {few} {ns:N}. | They <cut:p> and <use:p> {few} {ns:N}.
- "Can I taste it now?" <ask:A> {A}. | The kitchen <smell:s> sweet. | {A} <wait> near the kitchen door.
    | They <add:p> a little sugar.
+ {A} <take> {the:F} to {B} on {day}. | On {day}, {A} <take> {the:F} to {B}.
- "It tastes so good," <say:B> {B}. | {B} <eat> it all up. | {B} <be> very surprised.
    | "May I have more?" <ask:B> {B}.
@thanksA
- "Next time we bake for you," <say:B> {B}. | It <be:s> fun to make things for a friend.
? what: What <do:p> {AK} bake? / what {AK} <bake> -> {AK} <bake> {an:F}. [{n:F}]
? who: Who <be:s> {the:F} for? / who {the:F} <be> for -> {the:F} <be> for {B}. [{B}]
? count: How many {ns:N} <do:p> they use? / how many {ns:N} they <use:p> -> They <use:p> {few} {ns:N}. [{few}]
? when: When <do:A> {A} take {the:F} to {B}? / when {A} <take> {the:F} to {B}
    -> {A} <take> {the:F} to {B} on {day}. [{day}]

= snowman | A B | W=wear V=snownose P=outdoor when=cold
+ {when}, {AB} <make> a snowman {at:P}.
- The snow <be:s> white and soft. | They <roll:p> three big balls of snow.
    | Their hands <be:p> cold, but they <be:p> happy. | They <use:p> a bucket and a shovel.
+ {A} <bring> {an:W} for the snowman. | {A} <run> home and <bring> {an:W}.
+ {B} <bring> {a:V} for its nose. | {B} <bring> {a:V} to make a nose.
- "He looks like a king," <say:A> {A}. | They <dance:p> around the snowman. | "Hello, snowman!" <say:B> {B}.
    | "He needs a broom, too," <say:A> {A}.
- Then they <drink:p> hot cocoa at home. | {AB} <go> home with red noses.
    | In the evening they <be:p> tired and happy. | They <throw:p> snow and <laugh:p> loudly.
- The next day the sun <come:s> out, and the snowman <melt:s>. | The snowman <stay:s> there all winter.
? where: Where <do:p> {AB} make a snowman? / where {AB} <make> a snowman -> {AB} <make> a snowman {at:P}. [{at:P}]
? what: What <do:A> {A} bring? / what {A} <bring> -> {A} <bring> {an:W}. [{n:W}]
? what: What <do:B> {B} bring? / what {B} <bring> -> {B} <bring> {a:V}. [{n:V}]
? color: What color <be:W> {the:W}? / what color {the:W} <be> -> {the:W} <be> {c:W}. [{c:W}]

= shop | A K | N=fruit few=few P=shop J=job
+ {A} <go> {to:P} with {K}. | One day, {A} <go> {to:P} with {K}.
- There <be:p> many people. | {K} <look> at the bread and the cheese. | {A} <carry> a big bag.
    | A woman <sell:s> fresh fish and eggs.
+ {A} <buy> {few} {ns:N}. | {he:A} <buy> {few} {ns:N}.
- Then {A} <drop> the bag. | But then the bag <break:s>. | "I can carry the bag," <say:A> {A}.
    | {A} <slip> on a wet leaf.
+ {A} <be> sad because one {n:N} <roll:s> away. | Then {A} <be> sad because one {n:N} <roll:s> away.
+ {an:J} <find> it. | {an:J} <run> after it and <find> it.
- "Here it is," <say:J> {J}. | "This is yours," <say:J> {J}. | "Thank you very much," <say:A> {A}.
    | {A} <thank> {the:J} kindly.
- {AK} <go> home and <eat> the fruit. | At home, {K} <make> a sweet pie.
    | On the way home {A} <hold> the bag with two hands.
? who: Who <do:A> {A} go with? / who {A} <go> with -> {A} <go> with {K}. [{K}]
? where: Where <do:A> {A} go? / where {A} <go> -> {A} <go> {to:P}. [{the:P}]
? what: What <do:A> {A} buy? / what {A} <buy> -> {A} <buy> {few} {ns:N}. [{ns:N}]
? count: How many {ns:N} <do:A> {A} buy? / how many {ns:N} {A} <buy> -> {A} <buy> {few} {ns:N}. [{few}]
? why: Why <be:A> {A} sad? / why {A} <be> sad
    -> {A} <be> sad because one {n:N} <roll:s> away. [rolled away; rolls away]
? who: Who <find:s> the {n:N}? / who <find:s> the {n:N} -> {an:J} <find> the {n:N}. [{n:J}]

= music | A B | I=instrument day=day
+ {A} <want> to play {the:I}.
- At first it <sound:s> very bad. | {A's} brother <close:s> the door. | The cat <run:s> out of the room.
    | The dog <begin:s> to bark.
+ {A} <be> sad because the song <be:s> too hard.
- "I will never learn it," <say:A> {A}. | {he:A} <want> to stop. | {A} <put> the music away. | {A} <look> down sadly.
+ {B} <teach> {A} the song. | Then {B} <teach> {A} the song.
- {A} <play> the song every day. | "Play slowly at first," <say:B> {B}. | {AB} <play> together every afternoon.
    | {A} <play> better and better.
+ On {day}, {A} <play> at a party. | {A} <play> at a party on {day}.
- Everybody <clap:s> and <cheer:s>. | All the people <clap:p> for a long time. | {his:A} family <be:s> very proud.
    | "You played so well," <say:B> {B}.
- "I am glad that I did not stop," <say:A> {A}. | {A} <smile> at {B}. | It <be:s> good to try again.
? what: What <do:A> {A} want to play? / what {A} <want> to play -> {A} <want> to play {the:I}. [{n:I}]
? why: Why <be:A> {A} sad? / why {A} <be> sad -> {A} <be> sad because the song <be:s> too hard. [hard]
? who: Who <teach:s> {A} the song? / who <teach:s> {A} the song -> {B} <teach> {A} the song. [{B}]
? when: When <do:A> {A} play at a party? / when {A} <play> at a party -> {A} <play> at a party on {day}. [{day}]

= letter | A G | T=paper F=food day=day
+ {A} <want> to see {G}. // So {he:A} <make> {G} {an:T}. | {A} <make> {an:T} for {G}.
- {he:A} <draw> a big heart and a yellow sun. | "Please come soon," <write:A> {A}.
    | {A} <write> {his:A} name with a red pencil. | {A} <work> all afternoon.
- {G} <read> it and <smile>. | {A} <send> it the same day. | It <take:s> three days to get there.
    | {A} <wrap> it in yellow paper.
+ On {day}, {G} <come> to visit. | {G} <come> to visit on {day}.
- {A} <run> to the door. | "Here I am," <say:G> {G}. | {A} <hug> {G} for a long time.
    | "You have grown so much," <say:G> {G}.
+ {G} <bring> {a:F}. | {G} <bring> {a:F} for {A}.
- They <talk:p> about many things. | {G} <read> a story to {A}. | They <sit:p> near the fire and <talk:p>.
    | They <enjoy:p> the whole day.
- "Come again soon," <say:A> {A}. | {A} <be> very happy that day. | {A} <not want> the day to end.
? color: What color <be:T> {the:T}? / what color {the:T} <be> -> {the:T} <be> {c:T}. [{c:T}]
? who: Who <be:s> {the:T} for? / who {the:T} <be> for -> {the:T} <be> for {G}. [{G}]
? when: When <do:G> {G} come? / when {G} <come> -> {G} <come> on {day}. [{day}]
? what: What <do:G> {G} bring? / what {G} <bring> -> {G} <bring> {a:F}. [{n:F}]

= paint | A K | D=seen R=room c=color
+ {A} <paint> a picture of {an:D}. | One rainy day, {A} <paint> a picture of {an:D}.
+ {he:A} <use> {c} paint for the sky. | {A} <use> {c} paint for the sky.
- {A} <paint> two trees and a house, too. | There <be:s> paint on {his:A} nose and hands. | It <take:s> a long time.
    | {A} <spill> a little water on the table.
- "Is it a cloud?" <ask:K> {K}. | "What is it?" <ask:K> {K}. | {K} <come> and <look> at it.
    | "May I see it?" <ask:K> {K}.
- "It is {a:D}," <say:A> {A}. | {A} <laugh> because everybody <ask:s> about the animal.
+ {K} <hang> the picture {at:R}. | Then {K} <hang> the picture {at:R}.
- {A} <look> at it every day. | {A} <be> proud of {his:A} picture. | "You paint very well," <say:K> {K}.
    | "It is a special picture," <say:K> {K}.
? what: What <do:A> {A} paint? / what {A} <paint> -> {A} <paint> a picture of {an:D}. [{n:D}]
? color: What color <be:s> the sky in the picture? / what color the sky <be:s> -> The sky <be:s> {c}. [{c}]
? who: Who <hang:s> the picture {at:R}? / who <hang:s> the picture {at:R} -> {K} <hang> the picture {at:R}. [{K}]
? where: Where <be:s> the picture? / where the picture <be:s> -> The picture <be:s> {at:R}. [{at:R}]

= learn | A K | S=skill day=day
+ {A} <want> to {S}. | {A} <want> to {S} like {his:A} big sister.
+ {he:A} <be> sad because it <be:s> too hard.
- "I cannot do it," <say:A> {A}. | "Will you help me?" <ask:A> {A}. | {he:A} <try> once and <stop>.
    | "It looks so easy," <say:A> {A}.
+ {K} <teach> {A} every {day}. | Every {day} {K} <teach> {A}.
- "Do it slowly," <say:K> {K}. | "That was better," <say:K> {K}. | They <laugh:p> a lot together.
    | "Watch me first," <say:K> {K}.
- It <get:s> easier every week. | {A} <not stop> now. | {A} <try> and <try>. | {A} <get> a little better every time.
+ Now {A} <can> {S} very well. | At last {A} <can> {S} very well.
@thanksK
@happyA
? what: What <do:A> {A} want to learn? / what {A} <want> to learn -> {A} <want> to learn to {S}. [{S}]
? why: Why <be:A> {A} sad? / why {A} <be> sad -> {A} <be> sad because it <be:s> too hard. [hard]
? who: Who <teach:s> {A}? / who <teach:s> {A} -> {K} <teach> {A}. [{K}]
? when: When <do:K> {K} teach {A}? / when {K} <teach> {A} -> {K} <teach> {A} every {day}. [{day}]
"""
