"""Every number of the report, declared once: title, question, formula, unit, roles, levels, multiplicity, claim word.

`analyze` takes from here which roles a quantity needs and which family its p-values join, the report its titles,
units and explanations, the grammar of claims its words, and `docs/glossary.md` all of it. A new quantity is one entry.
"""

from dataclasses import dataclass, field
from typing import Literal

from capgap.schema.remarks import Reason

__all__ = ["AGGREGATION_LEVELS", "QUANTITIES", "AggregationLevel", "Quantity", "QuantityUnit"]

AggregationLevel = Literal["battery", "capability", "domain", "task", "slice"]
QuantityUnit = Literal["percent", "points", "ratio", "examples", "logit", "odds ratio", "count"]
"""How a number is written: ``percent`` of a share, ``points`` of a difference (both times 100), or as it is."""
AdjustmentFamily = Literal["students", "pairs", "none"]
"""Multiplicity: over the students or recipes that are asked the same question, and down the tree; over all pairs that
are compared, by what compares them; or not."""

AGGREGATION_LEVELS: tuple[AggregationLevel, ...] = ("battery", "capability", "domain", "task", "slice")
_HEADLINE: tuple[AggregationLevel, ...] = ("battery", "capability")


@dataclass(frozen=True)
class Quantity:
    """One kind of number."""

    name: str
    """Its code, the column ``quantity``."""
    title: str
    """What it is called where people read."""
    question: str
    """What it answers, one sentence."""
    definition: str
    """Its formula, in roles and probabilities."""
    unit: QuantityUnit
    """How it is written."""
    roles: tuple[str, ...] = ("student",)
    """Roles that must be taken."""
    levels: tuple[AggregationLevel, ...] = AGGREGATION_LEVELS
    """Levels at which it stands."""
    contrasts: dict[str, str] = field(default_factory=dict)
    """Codes of the column ``contrast`` and their labels, where they are a fixed list."""
    is_capability_contrast: bool = False
    """Whether it sets reasoning against knowledge, so that it rests on the labels of both."""
    family: AdjustmentFamily = "students"
    """Which p-values it is adjusted with."""
    refusal_reasons: tuple[Reason, ...] = ()
    """The usual reasons why there is no number."""
    claim: str = ""
    """Its word in claims (``closure(capability=reasoning) > 0.5``); empty where no claim can be about it."""
    needs: str = ""
    """What data it asks for, where most tables do not have them; said where it is missing from a report."""
    estimator: str = ""
    """Code of the estimator that answers; rows of any other are sensitivity analyses. Empty: there is one only."""
    null_value_name: str = ""
    """What its null value is called, where it is a number of its own."""
    axis: str = ""
    """What stands under an axis of it; empty: it is not drawn by group."""
    guidance: str = ""
    """How to read it, in sentences, for who meets it in a report; empty where question and definition are enough."""
    summary_column: int = 0
    """Its place among the columns of the page's first table, one row a student and capability; 0: not there."""


def _index_by_name(*quantities: Quantity) -> dict[str, Quantity]:
    return {quantity.name: quantity for quantity in quantities}


_PAIRED_REFUSALS = (Reason.NO_COMMON_ITEMS, Reason.UNLIKE_ITEMS, Reason.UNREADABLE_ANSWERS)
_NO_INTERVAL = (Reason.ONE_CLUSTER, Reason.ONE_CLUSTER_IN_TASK, Reason.DOMINANT_CLUSTER)
_RATIO_REFUSALS = (Reason.DENOMINATOR_NEAR_ZERO, *_NO_INTERVAL, *_PAIRED_REFUSALS)
_FIT_FAILURE_REASONS = (Reason.NOT_IDENTIFIED, Reason.SEPARATION, Reason.CONSTANT_OUTCOME, Reason.NO_MAXIMUM)
_CURVE_FAILURE_REASONS = (Reason.FEW_SIZES, Reason.NO_FORM_FITS, Reason.NO_COVARIANCE, Reason.TEACHER_NOT_ABOVE)
_DEFICIT_STATES = {
    "cut_off": "Cut off at the limit of tokens",
    "stopped_early": "Unreadable, ended by a stop string",
    "unreadable": "Unreadable",
    "wrong": "Wrong",
}
_CAPABILITY_CONTRASTS = {
    "gap_closure": "Share of the gap closed, knowledge minus reasoning",
    "gap": "Gap to the teacher, reasoning minus knowledge",
    "retention": "Retention, knowledge minus reasoning",
}

# fmt: off
QUANTITIES: dict[str, Quantity] = _index_by_name(
    Quantity("accuracy", "accuracy", "How many of the items does the model answer rightly?",
        "mean score of the items, in [0, 1]; compared with chance, where it is known", "percent", family="none",
        claim="accuracy", refusal_reasons=(Reason.NO_ITEMS,),
        null_value_name="chance", axis="% right",
        guidance="Chance is what guessing would reach.", summary_column=5),
    Quantity("gap", "gap", "How far is the student behind its teacher?", "teacher - student, mean over the same items",
        "points", roles=("student", "teacher"), claim="gap",
        refusal_reasons=(*_PAIRED_REFUSALS, Reason.SEEDS_UNKNOWN, Reason.SEEDS_SHARED),
        axis="points; 0 is the teacher",
        guidance="In points out of 100. Positive: the teacher is better.", summary_column=3),
    Quantity("gap_part", "part of the gap", "What became of the answers that make the gap?",
        "mean of (1 - student's score) of answers in one state minus the same of the teacher's; the first state that "
        "fits counts, an answer that scored right has none; the parts sum to the gap", "points",
        roles=("student", "teacher"), levels=("battery", "capability", "task"), contrasts=_DEFICIT_STATES,
        family="none", refusal_reasons=_PAIRED_REFUSALS,
        guidance="In points, net of the teacher's: negative where the teacher has more answers in that state. "
        "Answers that are cut off or cannot be read count as wrong, which measures use and not ability."),
    Quantity("base_gap", "room (teacher \u2212 base)", "How much was there to learn?",
        "teacher - base, mean over the same items", "points", roles=("student", "teacher", "base"), family="none",
        claim="room", refusal_reasons=_PAIRED_REFUSALS,
        guidance="In points. Where it is not clearly above zero there was nothing to learn, and no share of it to "
        "close."),
    Quantity("gain", "gain over base", "How much better did distillation make the student?",
        "student - base, mean over the same items", "points", roles=("student", "base"), claim="gain",
        refusal_reasons=_PAIRED_REFUSALS,
        guidance="In points. Negative: distillation made the student worse."),
    Quantity("gap_closure", "gap closure", "How much of the way from base to teacher did the student go?",
        "(student - base) / (teacher - base), not clipped", "percent", roles=("student", "teacher", "base"),
        claim="closure", refusal_reasons=_RATIO_REFUSALS,
        axis="% of the gap between base and teacher",
        guidance="Above 100 % the student is better than its teacher, below 0 % worse than its base. Refused where "
        "teacher and base cannot be told apart: there was nothing to close.", summary_column=1),
    Quantity("retention", "retention", "How much of the teacher's ability above guessing does the student have?",
        "(student - chance) / (teacher - chance)", "percent", roles=("student", "teacher"), claim="retention",
        refusal_reasons=(Reason.CHANCE_UNKNOWN_FOR_ITEMS, *_RATIO_REFUSALS),
        axis="% of the teacher above chance",
        guidance="Learnt or not: what the base could do counts too. Refused where chance is unknown or the teacher is "
        "near it.", summary_column=2),
    Quantity("teacher_effect", "teacher effect", "How much came from the teacher, and not from the prompts alone?",
        "student - control, mean over the same items", "points", roles=("student", "control"), claim="teacher_effect",
        refusal_reasons=_PAIRED_REFUSALS,
        guidance="In points. The control is the same student trained on the same prompts with gold targets; what "
        "remains is the teacher's.", summary_column=4),
    Quantity("agreement", "agreement", "How often does the student give the teacher's answer, right or wrong?",
        "P(student's answer = teacher's answer); compared with what equal accuracies and chance would give",
        "percent", roles=("student", "teacher"), claim="agreement",
        refusal_reasons=(Reason.ANSWERS_NOT_RECORDED, *_PAIRED_REFUSALS),
        null_value_name="expected",
        guidance="A student may reach the teacher's accuracy with other answers."),
    Quantity("fidelity", "fidelity",
        "Does the student follow its teacher beyond what two models of these accuracies share by chance?",
        "agreement - expected agreement", "points", roles=("student", "teacher"), claim="fidelity",
        refusal_reasons=(Reason.ANSWERS_NOT_RECORDED, *_PAIRED_REFUSALS),
        guidance="Fidelity counts the same answer, right or wrong, beyond what two models of these accuracies share "
        "by chance."),
    Quantity("error_inheritance", "error inheritance",
        "How often does the student repeat a wrong answer of its teacher?",
        "P(teacher's wrong answer | teacher wrong); compared with the control's, where there is one", "percent",
        roles=("student", "teacher"), claim="error_inheritance",
        refusal_reasons=(Reason.FEW_TEACHER_ERRORS, Reason.ANSWERS_NOT_RECORDED, *_PAIRED_REFUSALS),
        null_value_name="control",
        guidance="Error inheritance looks only at items that the teacher gets wrong, and asks how often the student "
        "makes that very mistake; compare it with the control's."),
    Quantity("capability_contrast", "knowledge against reasoning",
        "Does reasoning transfer differently from knowledge?",
        "the measure of knowledge minus that of reasoning; gaps the other way round", "points",
        roles=("student", "teacher"), levels=("battery",), contrasts=_CAPABILITY_CONTRASTS,
        is_capability_contrast=True,
        refusal_reasons=(Reason.NO_CAPABILITY, Reason.STRAY_ITEMS, Reason.CHANCE_UNKNOWN_FOR_ITEMS, *_RATIO_REFUSALS)),
    Quantity("recipe_contrast", "difference of recipes", "Is one recipe better than another, whichever seed?",
        "first recipe - second recipe, mean over their seeds and common items", "points", levels=AGGREGATION_LEVELS[:4],
        family="pairs",
        refusal_reasons=(Reason.SEEDS_UNKNOWN, Reason.SEEDS_SHARED, *_PAIRED_REFUSALS, *_NO_INTERVAL),
        needs="two recipes or more of three students each that differ in a known seed alone",
        guidance="In points; positive: the first is better. All pairs up to 12 recipes, above that each against the "
        "best: the intervals hold together at battery and capability, finer levels are exploratory. An interval that "
        "holds zero says that these seeds and items cannot tell two recipes apart, never that they are equal."),
    Quantity("student_contrast", "difference of students", "Is one student better than another?",
        "first student - second student, mean over their common items", "points", levels=_HEADLINE, family="pairs",
        refusal_reasons=(*_PAIRED_REFUSALS, *_NO_INTERVAL),
        guidance="In points, of students that no recipe of three seeds holds: exploratory, since another seed may turn "
        "it."),
    Quantity("seed_signal", "signal against seeds", "Can this task tell the recipes apart?",
        "standard deviation of recipes / standard deviation of the seeds of one recipe, on these items", "ratio",
        levels=("battery", "capability", "domain", "task"), family="none",
        refusal_reasons=(Reason.NO_SEED_NOISE, Reason.NO_SIGNAL, *_PAIRED_REFUSALS),
        guidance="Below 1 a single student says little about its recipe; a task whose interval begins at 0 does not "
        "tell these recipes apart."),
    Quantity("unparsed", "unparsed", "How many answers could not be read?",
        "share of the items whose answer holds nothing that the score can read and was not cut off", "percent",
        levels=("task",), family="none", claim="unparsed"),
    Quantity("cut_off", "cut off", "How many answers were cut off before they were right?",
        "share of the items whose answer met its limit of tokens and scored 0", "percent", levels=("task",),
        family="none", claim="cut_off"),
    Quantity("common_items_shift", "shift by missing answers",
        "Are the items that all models answered easier than the others?",
        "accuracy on the items that all the compared models answered minus that on all items that the model answered",
        "points", roles=("student",), levels=_HEADLINE,
        contrasts={"teacher": "The teacher's accuracy", "base": "The base's accuracy"}, family="none",
        guidance="In points. Far from zero: what is missing is no random part, and paired numbers are about other "
        "items than those of the battery. Near zero proves nothing: bounds say what missing answers can change."),
    Quantity("lost", "lost", "What could the base do that the student cannot?",
        "P(base right, student wrong); of a recipe minus what its seeds lose against each other, over repeats "
        "what two answers of the student do", "percent",
        roles=("student", "base"), levels=AGGREGATION_LEVELS[:4], claim="lost",
        refusal_reasons=(Reason.FRACTIONAL_SCORES, Reason.FEW_SEEDS, *_PAIRED_REFUSALS),
        guidance="What a recipe lost and gained is told beyond what two seeds of it lose and gain against each other."),
    Quantity("gained", "gained", "What can the student do that its base could not?",
        "P(base wrong, student right); of a recipe minus what its seeds gain against each other, over repeats "
        "what two answers of the student do", "percent",
        roles=("student", "base"), levels=AGGREGATION_LEVELS[:4], claim="gained",
        refusal_reasons=(Reason.FRACTIONAL_SCORES, Reason.FEW_SEEDS, *_PAIRED_REFUSALS)),
    Quantity("equivalence", "equivalence", "Is the student as good as its teacher, within a margin?",
        "teacher - student against the margin, two one-sided tests; interval of level 1 - 2 alpha", "points",
        roles=("student", "teacher"), levels=_HEADLINE, refusal_reasons=(Reason.CONFIDENCE_TOO_LOW, *_PAIRED_REFUSALS)),
    Quantity("effect", "effect", "What made students better?",
        "average marginal effect of a factor on the score, by the mixed model over the cohort", "points",
        levels=_HEADLINE, family="none", claim="effect",
        refusal_reasons=(Reason.NO_COMPARABLE_ITEMS, Reason.ESTIMATION_FAILED, *_FIT_FAILURE_REASONS),
        needs="six students or more, and a models table that says how each was made",
        estimator="mixed_model",
        guidance="A crossed mixed-effects logistic regression over all students, items and tasks, in score points: "
        "what a factor brought in knowledge, in reasoning, and whether it brought the same; of a number such as "
        "n_examples, per unit of its natural logarithm (2.7 times as many). A note says whether other estimators "
        "(each student's own gap, leaving out one student or one task, a link that knows of guesses) agree."),
    Quantity("effect_difference", "effect, difference of capabilities",
        "Does what makes students better work differently in reasoning?",
        "average marginal effect of a factor in reasoning minus that in knowledge", "points", levels=("battery",),
        family="none", is_capability_contrast=True,
        refusal_reasons=(Reason.NO_RESIDUAL, Reason.NOT_SPARABLE, Reason.TASKS_NO_SAMPLE, Reason.ONE_TASK_IN_CAPABILITY,
            Reason.TOO_FEW_STUDENTS, Reason.NO_CONTRAST_VARIANCE, *_FIT_FAILURE_REASONS),
        estimator="mixed_model"),
    Quantity("coefficient", "coefficient", "What are the fixed effects of the mixed model?",
        "fixed effect on the log-odds of a right answer", "logit", levels=("battery",), family="none",
        refusal_reasons=(Reason.ALIASED_TERM, Reason.NO_CONTRAST_VARIANCE)),
    Quantity("spread", "standard deviation", "How much do students, tasks and items differ?",
        "standard deviation of a random term, on the log-odds", "logit", levels=("battery",), family="none"),
    Quantity("data_cost", "data cost", "How many unique examples does a share of the teacher cost?",
        "examples D at which the curve of accuracy, the laws' average by likelihood, meets the target; null with an "
        "open end: not within four times the largest size", "examples", roles=("student", "teacher"),
        levels=("capability",), family="none", claim="data_cost",
        refusal_reasons=(Reason.CHANCE_UNKNOWN, Reason.NO_CLOSURE_SCALE, Reason.NO_COMMON_ITEMS, Reason.UNLIKE_ITEMS,
            *_CURVE_FAILURE_REASONS),
        needs="a teacher, and students of one recipe at two sizes or more beside the base, with n_examples in "
        "the models table",
        estimator="learning_curve",
        guidance="The price of a target is an interval over all laws that the data do not reject; an end may be open. "
        "Of more than four times the largest size nothing is said."),
    Quantity("next_batch_gain", "gain of the next batch", "What would twice the examples bring?",
        "expected score at twice the largest size minus that at the largest", "points", roles=("student", "teacher"),
        levels=("capability",), family="none", claim="next_batch_gain", refusal_reasons=_CURVE_FAILURE_REASONS,
        estimator="learning_curve"),
    Quantity("doubling_rise", "rise with each doubling", "What did each doubling of the examples bring so far?",
        "expected score at the largest size minus that at the smallest above zero, over the doublings between them",
        "points", roles=("student", "teacher"), levels=("capability",), family="none",
        refusal_reasons=_CURVE_FAILURE_REASONS, estimator="learning_curve"),
    Quantity("next_size_score", "expected score at twice the examples",
        "How good will the recipe be with twice as many?",
        "the curve at twice the largest size, the average of the laws by their likelihood; a confidence interval, for "
        "the recipe's mean over seeds", "percent", roles=("student", "teacher"), levels=("capability",), family="none",
        refusal_reasons=_CURVE_FAILURE_REASONS, estimator="learning_curve"),
    Quantity("new_student_score", "score of a new student at twice the examples",
        "What will one more student score on these items, trained on twice as many examples?",
        "the curve at twice the largest size; a prediction interval, which holds the new student's seed and the noise "
        "of its answers too", "percent", roles=("student", "teacher"), levels=("capability",), family="none",
        refusal_reasons=_CURVE_FAILURE_REASONS, estimator="learning_curve"),
    Quantity("curve_point", "point of a curve", "How accurate is each student at its number of examples?",
        "mean score of one student, tasks weighted equally", "percent", levels=("capability",), family="none"),
    Quantity("curve", "fitted curve", "What do the laws say between the points, on average by their likelihood?",
        "average of c - (c - f) h(D) over the laws: f the base's accuracy, c the ceiling, h the share of room still "
        "left", "percent", levels=("capability",), family="none"),
    Quantity("relative_data_cost", "relative data cost",
        "How many times the examples does reasoning need that knowledge needs?",
        "data cost of reasoning / data cost of knowledge, by their joint profile", "ratio",
        roles=("student", "teacher"), levels=("battery",), family="none", claim="relative_data_cost",
        is_capability_contrast=True,
        refusal_reasons=(Reason.CHANCE_UNKNOWN, Reason.NEVER_REACHED, Reason.RATIO_OPEN, *_CURVE_FAILURE_REASONS)),
    Quantity("n_patterns", "patterns", "On how many kinds of items do students fail alike?",
        "number of response surfaces in the mixture, by held-out students", "count", levels=("battery",),
        family="none", needs="24 students or more that a models table tells apart",
        guidance="Patterns are groups of items on which students fail alike beyond how hard each item is. One "
        "pattern: nothing but how hard items are was found."),
    Quantity("pattern", "pattern", "Which items make up a pattern of failure?", "share of the items in one pattern",
        "percent", levels=("battery",), family="none",
        refusal_reasons=(Reason.FEW_ANSWERED_ITEMS, Reason.FEW_VARYING_ITEMS, Reason.FEW_STUDENTS,
            Reason.NO_VARYING_COVARIATE)),
    Quantity("pattern_excess", "excess failure over the base",
        "Do students fail on a pattern more than their base does?",
        "(students' failure - base's failure) here minus elsewhere", "points", roles=("student", "base"),
        levels=("battery",), family="none", refusal_reasons=(Reason.NO_BASE_ANSWERS, Reason.PATTERN_TOO_SMALL)),
    Quantity("items_lost", "items lost", "Which items does the recipe lose, whichever seed?",
        "number of items listed at an expected false share of 10 %, by their posterior and with each seed in the "
        "base's place", "count", roles=("student", "base"), levels=_HEADLINE, family="none",
        refusal_reasons=(Reason.LIST_OF_CHANCE,),
        guidance="The whole list stands in flipped_items.csv.",
        needs="three students or more of one recipe that differ in a known seed alone, and their base"),
    Quantity("items_gained", "items gained", "Which items does the recipe gain, whichever seed?",
        "number of items listed at an expected false share of 10 %, by their posterior and with each seed in the "
        "base's place", "count", roles=("student", "base"), levels=_HEADLINE, family="none",
        refusal_reasons=(Reason.LIST_OF_CHANCE,)),
    Quantity("error_type", "type of wrong answer", "In which way are answers wrong?",
        "share of the wrong answers (of right answers with a trace) that a rule puts into one type", "percent",
        levels=("capability",), family="none", needs="the texts of answers, and the capability of items"),
    Quantity("failure_odds", "odds of failure", "What goes with failure?",
        "odds ratio of a wrong answer, logistic regression on properties of the items", "odds ratio",
        levels=("battery",), family="none",
        refusal_reasons=(Reason.FEW_OUTCOMES, Reason.TOO_MANY_COVARIATES, Reason.NO_COVARIATE, Reason.NO_COMPLETE_ROW,
            Reason.ALIASED_TERM, Reason.SEPARATION), needs="a property x_\u2026 of the items, scores of 0 and 1"),
)
# fmt: on
"""Name → declaration, in the order in which reports and the glossary list them."""
