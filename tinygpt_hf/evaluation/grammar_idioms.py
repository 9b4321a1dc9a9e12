"""Fixed phrases of ordinary English that are no sum of their words: "once upon a time", "in front of"."""

LONG_PREPOSITIONS = tuple(
    tuple(p.split())
    for p in """
    in front of;next to;on top of;out of;because of;instead of;away from;far from;close to;back to;back from;up
    to;down to;over to;out to;out from;down from;up from;all over;all around;in the middle of;at the top of; at the
    bottom of;at the end of;on the back of;inside of;outside of;off of;as for;along with;together with;thanks to;
    far away from;back into;back in;back on;back under;up into;down into;out into;up on;up in;down on;down in;out
    in; out on;out at;over by;away with;away to;away into;in between;to the top of;all through;all across;all
    along;all about;right in front of;ahead of;due to;according to;as well as;back with;back for;back at;up at;down
    at;high above; deep in;deep into;high in;high into;high up in;half past;up onto;down onto;out through;in
    through;up through; out over;back through;over the top of;out with;in with;up with;over and over;from
    behind;from under;from above; from inside;along to;around in;off to;off into;on to;in to;off with;outside
    in;home to;home from;home with; past;up by;down by;out by;over in;over on;over near;out of the way of;at the
    back of;at the front of;at the edge of;on the other side of;by the side of;at the side of;in the back of
    """.split(";")
)

SET_PREPOSITIONAL = frozenset(
    tuple(p.split())
    for p in """
    at first;at last;at once;at all;in time;on time;of course;for a while;for ever;for sure;in fact;for example;in a
    hurry;by mistake;on purpose;in bed;at home;at night;in front;on top;in between;at least;at most;in all; in
    there;in here;up there;down there;out there;over there;over here;up here;down here;out here;back here;back
    there; back home;right here;right there;right away;right now;far away;just now;just then;in trouble;on fire;in
    tears;in secret;in line;on board;for now;so far;by far;on foot;by heart;for long;before long;in need;by
    chance;in pieces;in half;in two;in place;in sight;in love;in silence;in return;in turn;on holiday;on vacation;at
    sea;at play; at work;at peace;at rest;on stage;in surprise;in fear;with joy;with care;on land;in hand;inside
    out;upside down;as usual;for free;for fun;in public;in danger;in order;in space;one by one;side by side;hand in
    hand;again and again;up and down;back and forth;round and round;on and on;by and by;over and over;as well;a
    lot;very much;so much;too much;a little;a bit;no more;any more;once more;one more time;no longer;all around;all
    over;all alone;all together;step by step;here and there;in and out;face to face;once again;over and over again;a
    little bit;any longer;in the end;more and more;quite a lot;day and night;all along;way up;way down;from then
    on;from now on;out loud;any time;to and fro; up high;down low;up above;down below;far below;high above;high
    up;just in time;just right;ever after;ever since;little by little;for good;after all;all by myself;all by
    himself;all by herself;all by itself;all by themselves;most of all; best of all;the most;the best;first of
    all;at the same time;over again;in no time;just fine;with all his heart; upside down;long ago;on the outside;on
    the inside;like new;in the distance
    """.split(";")
)

OPENERS_LONG = frozenset(
    tuple(p.split())
    for p in """
    once upon a time;at last;at first;of course;in the end;all of a sudden;at once;just then;right then;after
    that;after this;before that;by then;by now;from then on;from that day on;from that day;from now on;and then;long
    ago;a long time ago;once again;once more;one by one;most of all;best of all;first of all;far away;up above;down
    below;just now;right now;every now and then;now and then;day after day;night after night;as usual;over and
    over;again and again;before long;for a moment;for a while;in no time;little by little;step by step;later on;soon
    after;soon after that;not long after;from time to time;up and down;round and round;after all;for example;even
    better;even now;this time;by and by;and so;but then;so then;over there;over here;right away;in fact;some time
    later;the day before;ever since then;since then;ever since that day;until then;that way;this way;once there;a
    little later;a bit later;a little while later;a while later;soon afterwards;not long ago
    """.split(";")
)

TEMPORAL = (("when",), ("while",), ("until",), ("till",), ("before",), ("after",), ("as",), ("as", "soon", "as"),
            ("just", "as"), ("once",), ("every", "time"), ("whenever",), ("just", "when"), ("just", "before"),
            ("right", "after"), ("by", "the", "time"), ("the", "moment"), ("as", "long", "as"),
            ("even", "when"))  # fmt: skip

CAUSAL = (("because",), ("if",), ("since",), ("so", "that"), ("although",), ("though",), ("even", "though"),
          ("where",), ("as", "if"), ("as", "though"), ("unless",), ("in", "case"), ("even", "if"), ("wherever",),
          ("just", "because"), ("only", "if"), ("like",))  # fmt: skip

INTERJECTIONS_LONG = frozenset(
    tuple(p.split())
    for p in """
    oh no;thank you;thank you very much;thank you so much;good night;good morning;good afternoon;good evening; well
    done;no thank you;yes please;of course;all right;never mind;me too;good luck;good job;good idea;good work;happy
    birthday;no problem;not yet;not now;not really;not at all;oh dear;my goodness;hello there;see you soon;see you
    later;see you tomorrow;ha ha;yes indeed;oh yes;oh well;many thanks;how about it;no way;sweet dreams;good
    boy;good girl; good dog;come on;excuse me;uh oh;thanks a lot;thank you all;right away;not me;you too;so what;you
    see;and you;not today;at last;oh my;merry christmas;bye bye;hi there;why not;good for you;nice to meet you;maybe
    later;maybe tomorrow;of course not;very well;just in time;very good;ready steady go;great idea;what fun;i
    see;not so fast;be careful;good catch;nice work;my turn;your turn;safe and sound;here you are;here you go;here
    we go;here we are;there you are;there you go;here i am;here it is;there it is;once more;one more time;yes of
    course;what else;hold on;watch out;look out
    """.split(";")
)
