"""Words that say something about what an item asks for, by kind. English; other languages have their symbols only."""

__all__ = [
    "AUXILIARIES",
    "FUNCTION_WORDS",
    "GIVEN_NAMES",
    "KINDS",
    "MONTHS",
    "NO_NAMES",
    "PRONOUNS",
    "RECALL_VERBS",
    "TASK_VERBS",
    "VERDICTS",
]


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
    "letters and digits": _words(
        """letter letters vowel vowels consonant consonants alphabet alphabetical alphabetically backwards digit digits
        string strings character code coded cipher anagram palindrome list lists sequence binary output input
        expression parentheses bracket brackets"""
    ),
    "words for names and terms": _words(
        """called named known famous name term termed meaning means mean stands symbol abbreviation synonym nickname
        title definition phrase proverb idiom describes represents associated considered
        defined identify plural translation acronym derived grammar grammatical grammatically
        adjective adverb noun verb preposition pronoun spelling spelled spelt pronounced pronunciation syllable tense
        language"""
    ),
    "world and its people": _words(
        """president king queen emperor prime minister author novel poem play film movie actor actress singer band
        album song composer painter painting artist capital river mountain ocean sea continent island war battle
        treaty revolution century empire dynasty religion god saint country countries nation city language currency
        flag born died invented inventor discovered discovery founded founder wrote written won award prize team
        league sport olympic championship university scientist theory law act constitution court party company brand
        museum church castle historical history ancient medieval american british french german greek roman
        series founder leader ruler native citizenship genre"""
    ),
    "how things usually are": _words(
        """usually typically commonly generally often normally mostly mainly likely best main primary purpose function
        example type kind cause causes caused used made characteristic found occurs occur common important
        major responsible contains produce produces helps"""
    ),
}

PRONOUNS = _words(
    "i he she it they we you his her their my him them me us our your its hers theirs mine himself herself"
)

MONTHS = _words(
    """january february march april may june july august september october november december jan feb mar apr jun jul aug
    sep sept oct nov dec"""
)

AUXILIARIES = _words("is are was were do does did can could will would has have had should may might must am shall")

VERDICTS = _words("yes no true false valid invalid plausible implausible ambiguous")

# Capitalised inside sentences, and yet no proper names.
NO_NAMES = MONTHS | _words("i monday tuesday wednesday thursday friday saturday sunday true false yes no mr mrs ms dr")

TASK_VERBS = _words(
    """compute calculate evaluate simplify solve sort arrange rearrange reverse count add subtract multiply divide
    complete continue convert determine decide deduce derive apply follow translate encode decode replace remove
    rewrite reorder order find fill trace execute run check prove compare work assume suppose imagine consider let
    take start put write spell repeat append concatenate delete insert merge rotate shift swap transform turn
    estimate"""
)

RECALL_VERBS = _words("name identify state recall recite define who whose whom describe tell mention give explain")

GIVEN_NAMES = _words(
    """adam ada alan albert alex alexis alice amanda amy ana andrea andrew andy angela ann anna anne anthony arthur
    ashley barbara ben benjamin beth betty bill bob bonnie brad brenda brian bruce carl carla carlos carol
    caroline cathy charles charlie charlotte chloe chris christine cindy claire clara craig cynthia daniel
    danny dan dave david dean debbie deborah dennis diana diane donald donna dorothy doug dylan ed eddie
    edward elena elizabeth ella ellen emily emma eric erica erin ethan eva eve evelyn fiona frances frank fred
    gary george gerald gina gloria grace greg hannah harold harry heather helen henry holly ian irene isaac
    isabel ivan jack jackie jacob jake james jamie jane janet jasmine jason jay jean jeff jen jennifer jenny
    jeremy jerry jesse jessica jill jim jimmy joan joe joel john johnny jon jordan jose joseph josh joshua
    juan judy julia julie justin karen karl kate katie kathy keith kelly ken kevin kim kyle larry laura lauren
    leah lee leo leon leslie lily linda lisa liz lola lou louis lucas lucy luis luke lynn marcus margaret
    maria marie mark martha martin mary matt matthew max megan melissa mia michael michelle mike miguel molly
    monica nancy natalie nathan neil nick nicole nina noah nora olga oliver olivia oscar pam pamela pat
    patricia patrick paul paula pedro peggy pete peter phil philip rachel ralph randy ray rebecca rick rita
    rob robert robin roger ron rosa rose roy russell ruth ryan sally sam samantha samuel sandra sara sarah
    scott sean seth shannon sharon sheila simon sofia sophia sophie stella stephanie stephen steve steven sue
    susan tanya tara ted teresa terry theo thomas tim tina todd tom tommy tony tracy tyler valerie vanessa
    vera victor victoria vincent virginia walter wanda wayne wendy will william zach zoe"""
)
