"""True everyday facts, as plain lines: topic | first sentence | further sentences
    | ... A document is two topics, told in part.

`ANSWERS` are questions that need no story: what everybody knows.
"""

from random import Random

from tinygpt_hf.toyland.grammar import unfold
from tinygpt_hf.toyland.stories import is_held_out

FACTS = """
cow | A cow is a farm animal. | Cows eat grass and hay. | Cows give milk. | A cow has four legs.
horse | A horse is a big animal. | Horses eat grass and apples. | A horse can run very fast. | People ride on horses.
pig | A pig is a farm animal. | Pigs like mud. | A pig has a short tail. | Pigs eat many kinds of food.
    | Pigs are clever.
sheep | A sheep is a farm animal. | Sheep give us wool. | Sheep eat grass. | We make warm sweaters from wool.
goat | A goat is a farm animal. | Goats can climb on rocks. | Goats give milk. | People make cheese from the milk.
hen | A hen is a bird. | Hens lay eggs. | Hens eat corn and seeds. | A hen has two legs and two wings.
    | A hen cannot fly far.
duck | A duck is a bird. | Ducks swim on ponds and lakes. | Ducks can fly, too.
    | A young duck swims behind its mother.
goose | A goose is a big bird. | Geese are often white or gray. | Geese fly away in autumn. | Geese can be very loud.
donkey | A donkey looks like a small horse. | Donkeys have long ears. | A donkey can carry heavy bags.
    | Donkeys eat grass and hay.
cat | A cat is a small animal. | Cats like to sleep in the sun. | Cats catch mice. | A young cat is a kitten.
    | Cats have soft fur.
dog | A dog is a good friend. | Dogs can bark. | Happy dogs wag their tails. | A young dog is called a puppy.
    | Dogs have a very good nose.
rabbit | A rabbit has long ears. | Rabbits eat grass and carrots. | Rabbits live in holes.
    | Rabbits can hop very well.
mouse | A mouse is a very small animal. | Mice have long tails. | Mice eat seeds and nuts. | Cats and owls hunt mice.
parrot | A parrot is a bird. | Parrots can be red, green and yellow. | Some parrots can say words.
    | Parrots eat nuts and fruit.
hamster | A hamster is a small animal. | Hamsters sleep in the day and wake up at night.
    | Hamsters eat seeds and nuts.
fish | A fish lives in water. | Fish can swim very well. | A fish has no legs. | Many fish live in the sea.
    | Some fish live in rivers.
turtle | A turtle has a hard shell. | Turtles walk slowly. | Some turtles live in the sea.
    | Turtles can be very old. | Turtles lay eggs.
fox | A fox is a wild animal. | Foxes are often red. | A fox has a long tail. | Foxes hunt mice and rabbits.
    | Foxes live in forests.
wolf | A wolf is a wild animal. | Wolves look like big dogs. | Wolves live and hunt together.
    | Wolves have sharp teeth.
bear | A bear is a big wild animal. | Bears sleep in winter. | Bears eat fish, berries and honey.
    | A bear can climb trees.
deer | A deer is a wild animal. | Deer live in the forest. | Deer eat leaves and grass. | Deer can run fast.
squirrel | A squirrel lives in a tree. | Squirrels eat nuts. | Squirrels hide nuts for the winter.
    | A squirrel can jump far.
owl | An owl is a bird. | Owls hunt at night. | Owls have big round eyes. | An owl can fly very quietly.
frog | A frog is a small animal. | Frogs live near ponds. | Frogs can jump and swim. | Many frogs are green.
    | Frogs eat bugs.
hedgehog | A hedgehog is a small animal. | A hedgehog has a sharp back. | Hedgehogs sleep in winter.
    | Hedgehogs eat worms and bugs.
lion | A lion is a big wild cat. | Lions can roar very loudly. | Lions live together in a family.
    | Lions sleep a lot in the day.
tiger | A tiger is a big wild cat. | Tigers are orange and black. | A tiger can swim very well. | Tigers hunt alone.
elephant | An elephant is a very big animal. | Elephants are gray. | An elephant has a long trunk.
    | Elephants eat leaves and grass.
monkey | A monkey can climb very well. | Monkeys eat fruit and leaves. | Many monkeys have long tails.
    | Monkeys live in warm places.
zebra | A zebra is black and white. | Zebras look like horses. | Zebras eat grass. | Zebras can run fast.
    | Lions hunt zebras.
giraffe | A giraffe is a very tall animal. | A giraffe has a long neck. | Giraffes eat leaves from high trees.
camel | A camel lives in the desert. | Camels can live for days without water. | A camel can carry people.
    | Camels have long legs.
bird | A bird has two wings. | Birds lay eggs. | Many birds build nests. | Birds have feathers. | Most birds can fly.
robin | A robin is a small bird. | A robin has a red front. | Robins eat worms. | Robins sing in the morning.
eagle | An eagle is a big bird. | Eagles fly very high. | Eagles can see very well. | Eagles hunt mice and fish.
penguin | A penguin is a bird. | Penguins cannot fly. | Penguins swim very well. | Penguins are black and white.
    | Penguins eat fish.
swan | A swan is a big bird. | Most swans are white. | Swans live on lakes and rivers. | A swan has a long neck.
crow | A crow is a black bird. | Crows are very clever. | Crows eat many kinds of food. | Crows are loud.
bee | A bee is a small bug. | Bees fly from flower to flower. | Bees make honey. | Bees live together in a hive.
ant | An ant is a very small bug. | Ants live and work together. | Ants are strong. | An ant has six legs.
butterfly | A butterfly is a beautiful bug. | Butterflies have four wings. | Butterflies drink from flowers.
spider | A spider has eight legs. | Spiders make webs. | Spiders catch bugs in their webs. | Most spiders are small.
snail | A snail has a shell on its back. | Snails move very slowly. | Snails like wet places. | Snails eat leaves.
ladybug | A ladybug is a small bug. | Many ladybugs are red and black. | Ladybugs can fly. | A ladybug has six legs.
worm | A worm is long and thin. | Worms have no legs. | Worms live under the ground. | Many birds eat worms.
whale | A whale is a very big animal. | Whales live in the sea. | Whales are not fish. | Whales come up for air.
dolphin | A dolphin lives in the sea. | Dolphins are very clever. | Dolphins can jump out of the water.
    | Dolphins eat fish.
crab | A crab lives near the sea. | Crabs walk to the side. | A crab has a hard shell. | Crabs have ten legs.
seal | A seal lives near the sea. | Seals eat fish. | Seals swim very well. | Seals rest on rocks and ice.
shark | A shark is a big fish. | Sharks live in the sea. | Sharks have many sharp teeth. | Sharks swim fast.
apple | An apple is a fruit. | Apples grow on trees. | Apples can be red, green or yellow.
    | We make juice from apples.
banana | A banana is a fruit. | Bananas are long and yellow. | Bananas grow in warm places. | Monkeys like bananas.
orange | An orange is a round fruit. | Oranges grow on trees. | Oranges are full of juice.
    | Oranges grow in warm places.
lemon | A lemon is a yellow fruit. | Lemons taste sour. | We make lemonade from lemons. | Lemons grow on trees.
grape | A grape is a small round fruit. | Grapes can be green or black. | Grapes are sweet.
    | We make juice from grapes.
pear | A pear is a sweet fruit. | Pears grow on trees. | Many pears are green or yellow.
    | Pears are soft and good to eat.
cherry | A cherry is a small red fruit. | Cherries grow on trees. | Many birds eat cherries.
    | A cherry tree has white flowers.
peach | A peach is a soft fruit. | Peaches grow on trees. | A peach is sweet. | There is a hard stone in a peach.
melon | A melon is a big round fruit. | Melons grow on the ground. | Melons are full of water.
    | We eat melons in summer.
carrot | A carrot is a vegetable. | Carrots are orange. | Carrots grow under the ground. | Rabbits like carrots.
potato | A potato is a vegetable. | Potatoes grow under the ground. | We cook potatoes.
    | Potatoes are brown on the outside.
tomato | A tomato is red and round. | Tomatoes grow in gardens. | We make soup and salad with tomatoes.
    | Tomatoes need a lot of sun.
onion | An onion is a vegetable. | Onions grow in the ground. | Many people cry when they cut onions.
    | We put onions in soup.
pea | A pea is small and green. | Peas are vegetables. | Peas are round. | We put peas in soup.
pumpkin | A pumpkin is big and orange. | Pumpkins grow on the ground. | We make soup and pie from pumpkins.
bread | Bread is a food. | A baker makes bread. | We eat bread with butter, cheese or jam. | Fresh bread smells good.
cheese | Cheese is made from milk. | Most cheese is yellow or white. | We eat cheese with bread.
    | Mice like cheese in stories.
honey | Honey is sweet. | Bees make honey. | Bears like honey, too. | We put honey in tea.
milk | Milk is white. | Cows and goats give milk. | We make butter and cheese from milk. | Children drink milk.
sun | The sun is a star. | The sun gives light. | The sun is very hot. | Plants need the sun.
    | We see the sun in the day.
moon | The moon shines at night. | The moon is far away. | The moon is smaller than the sun.
    | Sometimes the moon looks round.
star | A star is very far away. | We see the stars at night. | There are many stars in the sky.
    | Stars are hot and bright.
rain | Rain falls from clouds. | Rain is water. | Plants need rain. | After the rain we sometimes see a rainbow.
snow | Snow is white and cold. | Snow falls in winter. | Snow melts in the sun. | Children make snowmen from snow.
wind | Wind is air that moves. | The wind can push a boat. | Kites need wind. | A storm has a strong wind.
rainbow | A rainbow has many colors. | We see a rainbow when there is sun and rain.
    | Red and blue are colors of the rainbow.
ice | Ice is cold and hard. | Ice is made of water. | Ice melts when it is warm. | We can skate on ice.
fire | Fire is hot. | Fire gives light. | Wood can burn. | Never play with fire. | Water can stop a fire.
sea | The sea is very big. | The water in the sea is not sweet. | Ships travel on the sea.
    | Whales and fish live in the sea.
river | A river is full of water. | Rivers run to the sea. | Fish live in rivers. | A bridge goes over a river.
forest | A forest has many trees. | Deer and foxes live in the forest. | It is quiet in the forest.
    | Trees give us wood.
desert | A desert is a very dry place. | There is a lot of sand in many deserts. | Camels live in the desert.
    | It rains very little there.
tree | A tree is a tall plant. | Trees have branches and leaves. | Birds build nests in trees.
    | Trees give us wood and fruit.
flower | A flower is a plant. | Flowers have many colors. | Bees visit flowers. | Many flowers smell sweet.
    | Flowers need water.
seed | A seed is small. | A plant grows from a seed. | A seed needs water and sun. | Birds like to eat seeds.
spring | Spring comes after winter. | In spring, flowers grow. | In spring, many birds build nests.
    | The days get warm in spring.
summer | Summer comes after spring. | Summer is warm. | In summer, we swim and play outside.
    | The days are long in summer.
autumn | Autumn comes after summer. | In autumn, leaves fall. | In autumn, many leaves are red and yellow.
    | Autumn is often windy.
winter | Winter comes after autumn. | Winter is cold. | In winter, there is often snow.
    | The nights are long in winter.
week | A week has seven days. | Monday comes after Sunday. | Many people rest on Sunday.
    | Saturday comes before Sunday.
day | A day has a morning and an evening. | We eat breakfast in the morning. | We sleep at night.
    | The sun goes down in the evening.
clock | A clock tells the time. | A clock has a round face. | An hour has sixty minutes. | A watch is a small clock.
teacher | A teacher works at school. | A teacher helps children to learn. | Teachers know many things.
    | A teacher reads books.
doctor | A doctor helps sick people. | A nurse works with a doctor. | A vet is a doctor for animals.
    | A dentist looks at teeth.
farmer | A farmer works on a farm. | A farmer has cows, pigs and hens. | A farmer drives a tractor.
    | Farmers plant corn and potatoes.
baker | A baker makes bread and cakes. | A baker gets up very early. | A cook makes soup and other food.
    | A baker works in a bakery.
pilot | A pilot flies a plane. | A sailor works on a ship. | A driver drives a bus or a truck. | Planes are very fast.
painter | A painter paints pictures. | A singer sings songs. | A gardener works in a garden.
    | A painter uses many colors.
king | A king wears a crown. | A king lives in a castle. | In stories, a queen is often kind.
    | A castle has high walls.
school | Children learn at school. | At school, we read, write and count. | A school has many rooms.
    | Children meet friends at school.
library | A library has many books. | It is quiet in a library. | We can take books home.
    | We read books in a library.
market | We buy food at a market. | Farmers sell fruit at the market. | A shop sells many things.
    | People pay with money.
zoo | A zoo has many animals. | We can see lions and tigers at the zoo. | The animals come from far away.
house | A house has walls and a roof. | We cook in the kitchen. | We sleep in the bedroom.
    | A house has doors and windows.
bike | A bike has two wheels. | A car has four wheels. | A bike has no engine. | We ride bikes on the road.
train | A train is long. | A train stops at a station. | Many people travel by train. | A bus is slower than a train.
boat | A boat floats on water. | A ship is a big boat. | A boat can be made of wood. | Some boats have an engine.
plane | A plane flies in the sky. | A plane has two wings. | A plane is faster than a train. | A plane needs a pilot.
piano | A piano is an instrument. | A piano has black and white keys. | We play the piano with our fingers.
    | Songs are music.
drum | A drum is an instrument. | Drums are loud. | A guitar is an instrument, too. | A flute makes a soft sound.
hand | A hand has five fingers. | We have two hands and two feet. | We hold things with our hands.
    | We wear gloves on our hands.
eye | We see with our eyes. | We hear with our ears. | We smell with our nose. | We have two eyes and two ears.
tooth | Teeth are hard and white. | We bite with our teeth. | We brush our teeth in the morning and in the evening.
hat | We wear hats on our heads. | We wear shoes on our feet. | Socks keep our feet warm. | A scarf is good in winter.
umbrella | An umbrella is good in the rain. | A coat is good in winter. | Boots are good in the mud.
    | We wear mittens in the snow.
book | A book is made of paper. | Books tell stories. | We read books. | A library has many books.
    | Paper is made of wood.
glass | Glass is hard, but it can break. | Windows are made of glass. | A mirror is made of glass.
    | Be careful with glass.
wood | Wood comes from trees. | Tables and chairs are made of wood. | Paper is made of wood.
    | Wood can float on water.
metal | Metal is hard. | Keys and bells are made of metal. | Some metal is very heavy. | Coins are made of metal.
circle | A circle is round. | A square has four sides. | A triangle has three sides. | A ball is round, too.
size | A whale is the biggest animal. | An elephant is bigger than a horse. | A mouse is smaller than a cat.
    | An ant is tiny.
tall | A giraffe is the tallest animal. | A tree is taller than a house. | A mountain is higher than a hill.
    | A dog is shorter than a cow.
fast | A plane is faster than a car. | A car is faster than a bike. | A snail is one of the slowest animals.
    | A horse runs faster than a dog.
old | Some turtles are older than people. | A puppy is younger than a dog.
    | A baby is the youngest child in a family. | Old trees are very tall.
strong | An elephant is stronger than a horse. | Metal is harder than wood. | A storm is louder than the rain.
    | A lion is one of the strongest cats.
shovel | We dig with a shovel. | A broom cleans the floor. | We carry water in a bucket.
    | A rake is good for leaves. | A hammer is a heavy tool.
sea animals | Seals and dolphins live in the sea. | A young bird sleeps in a nest.
    | A rooster is loud in the morning. | A young bear stays with its mother.
family | A family lives together. | An uncle is the brother of a mother or a father. | A baby sleeps a lot.
    | Good families help each other.
body | We taste with our mouth. | Skin covers the body. | The heart never stops. | We think with our head.
    | We sing with our voice.
shape | A circle is a shape. | A square is a shape, too. | A plate has the shape of a circle.
    | A window is often a square.
rice | Rice is a food. | Many people eat rice for dinner. | Pizza is a food, too. | We eat hot pizza with cheese.
shadow | A shadow is dark. | We see shadows when the sun shines. | In the evening, shadows are long.
    | At night, the sky is dark.
joke | A joke is a short funny story. | People laugh at jokes. | A song has words and music.
    | Many people sing when they are happy.
season | A year has four seasons. | Summer is the warmest season. | Winter is the coldest season.
    | In autumn, the days get shorter.
red | Red is a color. | Tomatoes and cherries are red. | Grass is green. | The sky is blue. | Lemons are yellow.
"""

ANSWERS = """
What do cows eat? | Cows eat grass and hay. | grass; hay
What do rabbits eat? | Rabbits eat grass and carrots. | grass; carrots
What do squirrels eat? | Squirrels eat nuts. | nuts
What do bees make? | Bees make honey. | honey
What do hens lay? | Hens lay eggs. | eggs
What do sheep give us? | Sheep give us wool. | wool
What do cows give us? | Cows give us milk. | milk
What do monkeys eat? | Monkeys eat fruit and leaves. | fruit; leaves
Where do fish live? | Fish live in water. | water
Where do whales live? | Whales live in the sea. | sea
Where do camels live? | Camels live in the desert. | desert
Where do deer live? | Deer live in the forest. | forest
Where do bees live? | Bees live in a hive. | hive
When do owls hunt? | Owls hunt at night. | night
When does snow fall? | Snow falls in winter. | winter
Can penguins fly? | No, penguins cannot fly. | cannot
Can birds fly? | Yes, most birds can fly. | yes
Can fish swim? | Yes, fish can swim. | yes
How many legs does a spider have? | A spider has eight legs. | eight
How many legs does a horse have? | A horse has four legs. | four
How many legs does a bird have? | A bird has two legs. | two
How many days does a week have? | A week has seven days. | seven
How many wheels does a bike have? | A bike has two wheels. | two
How many fingers does a hand have? | A hand has five fingers. | five
How many sides does a square have? | A square has four sides. | four
What color is the sky? | The sky is blue. | blue
What color is grass? | Grass is green. | green
What color is snow? | Snow is white. | white
What color is a banana? | A banana is yellow. | yellow
What color is a tomato? | A tomato is red. | red
What color is a carrot? | A carrot is orange. | orange
What color is an elephant? | An elephant is gray. | gray
Who makes bread? | A baker makes bread. | baker
Who helps sick people? | A doctor helps sick people. | doctor
Who flies a plane? | A pilot flies a plane. | pilot
Who works on a farm? | A farmer works on a farm. | farmer
Who wears a crown? | A king wears a crown. | king
What comes after winter? | Spring comes after winter. | spring
What comes after summer? | Autumn comes after summer. | autumn
What is a young cat called? | A young cat is a kitten. | kitten
What is a young dog called? | A young dog is called a puppy. | puppy
What do we do at night? | We sleep at night. | sleep
"""

TOPICS = [[part.strip() for part in line.split("|")][1:] for line in unfold(FACTS)]
KNOWN = [tuple(part.strip() for part in line.split("|")) for line in unfold(ANSWERS)]


def facts(rng: Random, held_out: bool) -> str:
    """A short text of facts about two topics: the first sentence of each and some of the others, in their order."""
    while True:
        first, second = rng.sample(range(len(TOPICS)), 2)
        if is_held_out(TOPICS[first][0], TOPICS[second][0]) == held_out:
            break
    told = []
    for topic, skip in ((TOPICS[first], 0.2), (TOPICS[second], 0.4)):
        told += [sentence for i, sentence in enumerate(topic) if i == 0 or rng.random() >= skip]
    return " ".join(told)
