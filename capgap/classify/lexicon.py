"""Words that say something about what an item asks for, by kind. English; other languages have their symbols only."""

__all__ = ["FUNCTION_WORDS", "KINDS", "RECALL_VERBS", "TASK_VERBS"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FUNCTION_WORDS = _words(
    """a about after all also an and any are as at be because been before being between both but by can could did do
    does each either every for from had has have he her here him his how i if in into is it its many me more most much
    my no nor not of on one only or other our out over she should so some such than that the their them then there
    these they this those to under up was we were what when where which while who whom whose why will with would you
    your i'm it's don't doesn't during per since through until upon us may might must shall"""
)

KINDS: dict[str, frozenset[str]] = {
    "number words": _words(
        """two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
        eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand dozen half twice thrice
        third quarter double triple single pair couple"""
    ),
    "truth words": _words(
        """true false truth lie lies lying liar liars valid invalid truthful follows follow entails contradiction
        contradicts consistent inconsistent assume assumed suppose supposed premise premises conclusion conclude
        concluded argument statement statements imply implies implied deduce inferred infer derived"""
    ),
    "negations": _words(
        """not no none never neither nor nobody nothing cannot without except unless isn't doesn't don't didn't won't
        can't wasn't aren't"""
    ),
    "conditionals": _words("if unless whenever otherwise provided then therefore hence else given whether"),
    "quantifiers": _words(
        """each every all any both either exactly everyone everything anyone whoever whichever least most only same
        different other others another remaining respectively some"""
    ),
    "comparatives": _words(
        """more less fewer than older younger taller shorter faster slower larger smaller bigger longer heavier lighter
        higher lower cheaper earlier later nearer farther further closer warmer colder richer poorer stronger weaker
        greater better worse newer wider deeper"""
    ),
    "ordinals": _words(
        """first second third fourth fifth sixth seventh eighth ninth tenth last final finally next previous
        consecutive"""
    ),
    "places in an order": _words(
        """left right between behind ahead above below front top bottom middle leftmost rightmost beside adjacent
        immediately directly north south east west northeast northwest southeast southwest forward backward backwards
        forwards clockwise opposite row order arranged alphabetical alphabetically ascending descending"""
    ),
    "time spans": _words(
        """today tomorrow yesterday ago later earlier before after until since day days week weeks month months hour
        hours minute minutes monday tuesday wednesday thursday friday saturday sunday am pm daily weekly morning
        evening noon midnight o'clock"""
    ),
    "changes": _words(
        """gives gave gets got takes took taken adds added removes remove removed moves moved puts put swaps swap
        swapped trades trade switches switch exchanges exchange buys bought sells sold spends spent eats ate loses lost
        starts started returns returned leaves left becomes turns turn picks picked doubles receives received brings
        passes passed replaced replace increases decreased pays paid earns earned drops dropped gains gained shares
        shared divided split saves saved walks walked travels flips uses used"""
    ),
    "totals": _words(
        """altogether total sum difference product remain remains remaining left average ratio percent percentage rate
        each per cost costs profit price combined together share fraction equal equally times difference value"""
    ),
    "setting": _words(
        """following above below given passage paragraph sequence list table input output rule rules definition defined
        instructions conditions constraints subject information based according expression equation function operation
        variable string letters words sentence sentences step steps starting result process series item items"""
    ),
}

TASK_VERBS = _words(
    """compute calculate evaluate simplify solve sort arrange rearrange reverse count add subtract multiply divide
    complete continue convert determine decide deduce derive apply follow translate encode decode replace remove
    rewrite reorder order find fill trace execute run check prove compare work assume suppose imagine consider let
    take start put write spell repeat append concatenate delete insert merge rotate shift swap transform turn
    estimate"""
)

RECALL_VERBS = _words("name identify state recall recite define who whose whom describe tell mention give explain")
