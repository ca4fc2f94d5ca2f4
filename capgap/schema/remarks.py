"""Reason codes of estimates, and the one place where codes become prose.

Estimators and analysis attach `Remark` values (a code and its figures) to their numbers; the column ``reason`` holds
the first code that refuses or qualifies, ``note`` the rendered text of all. Programs read codes, never notes.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from string import Formatter
from typing import Any, Self

__all__ = ["INFORMATIONAL_REASONS", "Reason", "Remark", "count_text", "first_limiting_reason", "remark", "render"]

_IS_INFO = True


class Reason(StrEnum):
    """Why a number is refused or open, what qualifies it, or what else stands beside it; each with its sentence.

    A sentence is a format string over the remark's figures; `_SentenceFormatter` has the specifications that are not
    Python's own.
    """

    sentence: str
    is_informational: bool
    _value_: str

    def __new__(cls, code: str, sentence: str = "", is_informational: bool = False) -> Self:
        """A member that is the string `code` and carries its sentence, and whether it only informs."""
        member = str.__new__(cls, code)
        member._value_, member.sentence, member.is_informational = code, sentence, is_informational
        return member

    # fmt: off
    # --- too little data ---
    NO_ITEMS = "no_items", "no scored item"
    NO_COMMON_ITEMS = "no_common_items", "no item was answered by all the models that are compared"
    FEW_ITEMS = "few_items", "{n} independent items or clusters are too few, {least} are needed"
    FEW_ANSWERED_ITEMS = ("few_answered_items",
        "{n} items were answered by half of the students or more, {least} are needed")
    FEW_VARYING_ITEMS = ("few_varying_items",
        "only {n} items were answered differently by different students, {least} are needed")
    FEW_CANDIDATES = "few_candidates", "{n} items could have been {direction}, {least} are needed to learn how often"
    FEW_CLUSTERS = "few_clusters", "only {n} clusters: coverage of the interval is untested below {least}"
    TOO_FEW_CLUSTERS = "too_few_clusters", "{n} clusters are too few for {n_coefficients} coefficients: no interval"
    ONE_CLUSTER = "one_cluster", "all items stand in one cluster: no interval"
    ONE_CLUSTER_IN_TASK = "one_cluster_in_task", "{n} of {of} strata have all their items in one cluster: no interval"
    DOMINANT_CLUSTER = "dominant_cluster", "{share:.0f} % of the items' weight stand in one cluster: no interval"
    NO_COVARIANCE = "no_covariance", "all items of a task stand in one cluster: no covariance, no curve"
    FEW_STUDENTS = "few_students", "{n} students are too few, {least} are needed"
    ONE_STUDENT = ("one_student",
        "one student only: there is nothing to compare; intervals of one checkpoint are those of accuracy")
    TOO_FEW_STUDENTS = ("too_few_students",
        "{n} students with both capabilities are too few for {n_coefficients} coefficients")
    ONE_ITEM = "one_item", "one item only"
    FEW_SEEDS = "few_seeds", "{n} training seeds are too few to tell the recipe from its seeds, {least} are needed"
    FEW_SIZES = "few_sizes", "{n} distinct sizes: a curve with four parameters needs {enough}, at least {least}"
    FEW_TEACHER_ERRORS = "few_teacher_errors", "{n} wrong answers of the teacher are too few ({least} are needed)"
    FEW_OUTCOMES = "few_outcomes", "{n} {kind} of {of} are too few ({least} are needed)"
    TOO_MANY_COVARIATES = ("too_many_covariates",
        "{n} outcomes of the rarer kind allow no more covariates ({least} for each)")
    FEW_TASKS = ("few_tasks",
        "fewer than {least} tasks in a capability: no sample, their effects are fixed, numbers are about these tasks")
    ONE_TASK_IN_CAPABILITY = "one_task_in_capability", "a capability has one task only"
    UNLIKE_ITEMS = ("unlike_items",
        "only {share:.0f} % of {counted} were answered by all of {who:list} ({least:.0f} % are needed)")
    NO_CAPABILITY = "no_capability", "no task of this capability"
    ONE_CAPABILITY = "one_capability", "there is one capability only"
    NO_OUTCOME = "no_outcome", "there is no outcome"
    NO_COMPLETE_ROW = "no_complete_row", "no row has a score and all covariates"
    NO_COVARIATE = "no_covariate", "there is no covariate"
    NO_VARYING_COVARIATE = "no_varying_covariate", "no covariate of the students varies"
    ANSWERS_NOT_RECORDED = ("answers_not_recorded",
        "the answers were recorded for {share:.0f} % of the items only ({least:.0f} % are needed)")
    FRACTIONAL_SCORES = ("fractional_scores",
        "scores between 0 and 1 (or means over repeats) neither lose nor gain an item")
    NOT_BINARY = ("not_binary",
        "{score}: a logistic model needs scores of 0 or 1, or shares of successes beside a column of trials; scores "
        "in between were found")
    # --- a role or fact that is not known ---
    NO_BASE = "no_base", "there is no base"
    NO_BASE_ANSWERS = "no_base_answers", "the base's answers to these items are not there"
    NO_CONTROL = "no_control", "there is no control"
    CHANCE_UNKNOWN = "chance_unknown", "chance is not known for every item"
    # --- a number that does not exist, or cannot be told ---
    DENOMINATOR_NEAR_ZERO = ("denominator_near_zero",
        "{denominator} is {value:.3f} [{low:.3f}, {high:.3f}] in score, not clearly above zero")
    TEACHER_NOT_ABOVE = ("teacher_not_above",
        "the teacher ({teacher:.3f}) is not clearly above {floor} ({level:.3f}): difference {room:.3f} ± {half:.3f}")
    NO_CLOSURE_SCALE = "no_closure_scale", "no student of size zero: no closure scale"
    NOT_IDENTIFIED = "not_identified", "the fixed effects are not identified by these outcomes"
    CONSTANT_OUTCOME = "constant_outcome", "every answer is {kind}: no finite estimate exists"
    SEPARATION = ("separation",
        "separation: {names:list} split right from wrong answers, so that no finite estimate exists")
    CONSTANT_COVARIATE = "constant_covariate", "{name} does not vary and was left out"
    ALIASED_TERM = "aliased_term", "{name} cannot be told apart from {others:list} in these data"
    NO_CONTRAST_VARIANCE = ("no_contrast_variance",
        "the contrast has no variance: it is zero, or of nothing that was estimated")
    NO_RESIDUAL = "no_residual", "nothing is left to estimate an error from"
    NO_DRAW_VARIANCE = "no_draw_variance", "no draw has a variance"
    NO_FORM_FITS = "no_form_fits", "no law fits ({p_values:p})"
    FORM_REJECTED = "form_rejected", "rejected: does not fit (p = {p:.2g})"
    NOT_WITHIN_HORIZON = ("not_within_horizon",
        "the curve does not meet the target within {times:g} times the largest size, {largest:examples}; of larger "
        "sizes nothing is said")
    BEYOND_HORIZON = ("beyond_horizon",
        "{size:examples} examples are more than {times:g} times the largest size, {largest:examples}: nothing is said "
        "so far out")
    NEVER_REACHED = ("never_reached",
        "neither capability reaches the target within four times the largest size: their data costs have no ratio")
    RATIO_OPEN = ("ratio_open",
        "neither end of the ratio is known ({first}: {low1:examples} to {high1:examples} examples; {second}: "
        "{low2:examples} to {high2:examples} examples)")
    CONFIDENCE_TOO_LOW = "confidence_too_low", "equivalence needs an interval of more than 50 %, asked were {level:g} %"
    VARIES_WITHIN_STUDENTS = ("varies_within_students",
        "a covariate that is crossed with capability varies within students")
    NO_SUCH_EFFECT = "no_such_effect", "the formula's columns are no such effect"
    NOT_SPARABLE = "not_sparable", "without one of the {groups} a coefficient cannot be estimated"
    TASKS_NO_SAMPLE = "tasks_no_sample", "numbers are about these tasks, which are no sample to leave one out of"
    NO_MAXIMUM = "no_maximum", "not converged: no maximum was found"
    TOO_MANY_OUTCOMES = ("too_many_outcomes",
        "more than {most:,} outcomes: fit_mixed(…, link='chance') has no such limit")
    CHANCE_NEEDS_GRID = ("chance_needs_grid",
        "a link with chance needs covariates that are constant within student and task")
    BELOW_CHANCE = ("below_chance",
        "{student} is right on {share:.3g} % of {task}, significantly less than guessing gives ({chance:.3g} %): no "
        "link with chance fits")
    PATTERN_TOO_SMALL = "pattern_too_small", "the pattern has less than two items, or all of them"
    DRAWS_REFUSED = "draws_refused", "{n} of {of} draws of the labels gave no interval, the first because {why}"
    NOT_IN_DRAW = "not_in_draw", "not in this draw"
    NO_ESTIMATE = "no_estimate", "no estimate was given"
    ESTIMATION_FAILED = "estimation_failed", "{error}"
    POWER_OUT_OF_REACH = ("power_out_of_reach",
        "with {largest:,} the power is {power:.2f}: what they do not reduce hides it")
    # --- a random term that the data cannot carry ---
    ITEMS_ANSWERED_ONCE = ("items_answered_once",
        "items were answered once each: their difficulty cannot be told from the outcome")
    ONE_ITEM_PER_TASK = "one_item_per_task", "every task has one item, so that items stand for tasks"
    NO_TASK_OF_TWO_ITEMS = "no_task_of_two_items", "no task has two items"
    EXPLAINED_BY_FIXED_EFFECTS = ("explained_by_fixed_effects",
        "the fixed effects explain every difference between {groups} (fewer {groups} than coefficients?)")
    SLOPES_NOT_ASKED = "slopes_not_asked", "not asked for: where tasks differ in slopes, intervals are too narrow"
    CONSTANT_WITHIN_TASKS = ("constant_within_tasks",
        "{name} takes one value within each task, or one slope in each capability is all there is")
    ONE_OUTCOME_PER_CELL = "one_outcome_per_cell", "one outcome for each student and task"
    NO_CROSSED_CELLS = "no_crossed_cells", "needs two students and two tasks"
    NO_SHARED_BASE = "no_shared_base", "no two students share a base: it is the same as student"
    # --- what qualifies a number ---
    ONE_BASE = "one_base", "all students have one base: numbers are about students of this base"
    UNREADABLE_ANSWERS = ("unreadable_answers",
        "set aside, since more than {most:.0f} % of the teacher's answers could not be read: {tasks:list}")
    UNREADABLE_TASKS_COUNTED = ("unreadable_tasks_counted",
        "with tasks in which the teacher's answers could not be read: {tasks:list}")
    NO_VARIATION_EXACT_BOUND = "no_variation_exact_bound", "no variation between items: exact bound"
    EXACT_RATIO = "exact_ratio", "no item tells it from an exact ratio: exact bound"
    BORROWED_VARIANCE = ("borrowed_variance",
        "tasks of few items count much, and their variance is mostly that of the other tasks")
    AT_BOUNDARY = "at_boundary", "the estimate is at the boundary: zero"
    STANDS_FOR = "stands_for", "{name} cannot be told apart from {others:list}: it stands for both"
    GUESSES_COUNT_AS_ABILITY = ("guesses_count_as_ability",
        "takes guesses for ability: read the effects in score points, or use a link with chance")
    FEW_ANSWERS_PER_ITEM = ("few_answers_per_item",
        "{n:g} answers per item: below {least}, coefficients are drawn towards zero by 8-18 %, about half of which "
        "the bias correction restores")
    SPARSE_STUDENTS = "sparse_students", "fewer than half of the usual number of outcomes: {students:some}"
    NOT_CONVERGED = "not_converged", "not converged: Newton's method for the random effects did not settle"
    VARIANCE_AT_UPPER_BOUND = "variance_at_upper_bound", "not converged: a variance ran into its upper bound"
    SEARCH_STOPPED = ("search_stopped",
        "not converged: the search for the variances stopped on a slope, {distance:.2g} standard errors from its end")
    FLAT_LIKELIHOOD = "flat_likelihood", "the likelihood is flat or curves upwards at the optimum in some variance"
    EM_NOT_CONVERGED = "em_not_converged", "EM did not come to rest"
    SOME_DRAWS_REFUSED = "some_draws_refused", "{n} of {of} draws of the labels gave no number"
    FEW_SIZES_UNTESTED = "few_sizes_untested", "{n} distinct sizes: coverage of the intervals is untested below {least}"
    NO_SIZE_ZERO = "no_size_zero", "no student of size zero: the base's level is extrapolated"
    ONE_SEED_PER_SIZE = "one_seed_per_size", "one seed per size: misfit cannot be told from seeds, no form is rejected"
    SUBSETS_NOT_REDRAWN = ("subsets_not_redrawn",
        "every seed had the same subsets: the interval is for these subsets, not for others of their size")
    MAY_LIE_BEYOND_HORIZON = ("may_lie_beyond_horizon",
        "the target may not be met within {times:g} times the largest size, {largest:examples}: no upper end")
    BASE_MEETS_TARGET = "base_meets_target", "the base already meets the target"
    BASE_MAY_MEET_TARGET = "base_may_meet_target", "the base may meet the target already: no lower end"
    EXTRAPOLATED = "extrapolated", "the {what} is extrapolated beyond the largest size, {largest:examples}"
    FORMS_REJECTED = "forms_rejected", "rejected as not fitting: {forms:list}"
    NOT_MONOTONE = "not_monotone", "the means do not rise with size (p = {p:.2g})"
    EXACT_TEST_DESIGN = ("exact_test_design",
        "so few items are judged by an exact test, which finds a gap less often: plan for half as many again")
    MORE_PATTERNS_NOT_TRIED = "more_patterns_not_tried", "more than {most} patterns were not tried"
    OPPOSITE_SIGN = "opposite_sign", "{sure:words} is clear of zero, {other:words} lies on the other side"
    OUTSIDE_INTERVAL = "outside_interval", "{other:words} lies outside the interval of the {first:words}"
    UNEQUAL_CERTAINTY = "unequal_certainty", "{sure:words} clear of zero, {unsure:words} not"
    ONE_ESTIMATOR = "one_estimator", "fewer than two estimators gave a number"
    # --- of analysis: what refuses or qualifies ---
    NO_COMPARABLE_ITEMS = ("no_comparable_items",
        "no {capabilities:and} item with scores of 0 or 1 that could be compared")
    CHANCE_UNKNOWN_FOR_ITEMS = "chance_unknown_for_items", "chance is unknown for {n} of {of} items ({tasks:some})"
    STRAY_ITEMS = "stray_items", "left out as too few of their task: {n} of {capability}"
    SEEDS_UNKNOWN = "seeds_unknown", "{n} students may be seeds of one recipe: the models table names no seed of each"
    SEEDS_SHARED = "seeds_shared", "{n} students may be seeds of one recipe, but two of them have one seed"
    UNEQUAL_SEED_NOISE = ("unequal_seed_noise",
        "seeds of some recipes vary more than those of others: each pair has the noise of its own seeds")
    NO_SIGNAL = "no_signal", "these recipes differ by no more than their seeds do: the task cannot tell them apart"
    NO_SEED_NOISE = "no_seed_noise", "seeds of one recipe do not differ at all: there is no noise to divide by"
    LIST_OF_CHANCE = ("list_of_chance",
        "{n} items, but {null:.1f} would be flipped with another seed in the base's place: over a tenth, no list")
    EXPLORATORY = "exploratory", "exploratory: not among the comparisons that were planned"
    PROMPTED_DIFFERENTLY = "prompted_differently", "{roles:and} were prompted differently"
    FORMAT_ALIASED = "format_aliased", "format and capability are aliased, the difference may be one of format"
    SINGLE_TASK = "single_task", "{capability} is a single task: what is told of it may be that task's own"
    UNPARSED_OFTEN = ("unparsed_often",
        "the answers hold nothing that the score can read: change `extract`, the prompt or the chat template")
    CUT_OFF_OFTEN = "cut_off_often", "the answers were cut off: raise `max_tokens` or add a `stop`"
    SIGN_RESTS_ON_ANSWERS = ("sign_rests_on_answers",
        "the sign rests on {what:and} answers: with all of them right or wrong between {low:.3f} and {high:.3f}")
    NUMBER_RESTS_ON_ANSWERS = ("number_rests_on_answers",
        "rests on {what:and} answers: with all of them right or wrong there may be no such number")
    FORMAT_LEARNT = ("format_learnt",
        "closure holds format learnt: answers of the base that cannot be read make {share:.0f} % of teacher − base")
    TEACHER_BELOW_BASE = ("teacher_below_base",
        "the teacher is below the base in {tasks:list}, which makes closure larger: without {value:.3f} "
        "[{low:.3f}, {high:.3f}]")
    TEACHER_BELOW_BASE_ALONE = ("teacher_below_base_alone",
        "the teacher is below the base in {tasks:list}, which makes closure larger: there is no number without")
    NEARLY_MATCHING_ITEMS = ("nearly_matching_items",
        "{n} items of {model} match those of {other} but for case, blanks or leading zeros (such as {example})")
    NAMES_LOOK_ALIKE = "names_look_alike", "the name of {model} looks like that of another model: {other}"
    ANSWERS_EQUAL_TEACHER = ("answers_equal_teacher",
        "every one of {n} answers equals the teacher's, wrong ones too: is it the same model?")
    WRONG_ANSWERS_DROPPED = ("wrong_answers_dropped",
        "{model} is right on all of its {n} items and has no score on {missing} that others answered: were wrong "
        "answers left out of the table?")
    UNDECLARED_LABELS = "undeclared_labels", "labels of {n:,} of {of:,} items were not declared"
    ESTIMATORS_DIFFER_IN_CERTAINTY = "estimators_differ_in_certainty", "several estimators: differ in certainty ({why})"
    ESTIMATORS_DISAGREE = "estimators_disagree", "several estimators: disagree ({why})"
    NO_ABLE_MODEL = "no_able_model", "no model that can do the task was asked {ways}"
    FEW_MODEL_SIZES = ("few_model_sizes",
        "{n} model sizes: {least} that span a factor of {span:g} are needed, one of them able")
    SOLVED_BY_SMALLEST = "solved_by_smallest", "the smallest model solves {share:.0f} % of the items already"
    NO_LOGARITHM = "no_logarithm", "left out, since zero has no logarithm: {students:some}"
    FACTOR_UNKNOWN = "factor_unknown", "{factor} is no part of the model: unknown of {students:some}"
    # --- what only informs ---
    GUESS_DECLARED = ("guess_declared",
        "a guess counts {low:.3g} to {high:.3g} for {n} of {of} generated items ({tasks:some})", _IS_INFO)
    SEEDS_POPULATION = "seeds_population", "{n} training seeds; population: this recipe, items like these", _IS_INFO
    ONE_SEED = ("one_seed",
        "one training seed: counts for this checkpoint; another seed would lose and gain other items", _IS_INFO)
    BASE_AS_SEED = "base_as_seed", "seen as the base that it is and as one more seed: the wider interval", _IS_INFO
    JITTER_EXCLUDED = "jitter_excluded", "{n} flips within numerical jitter ({nats:g} nats) are not counted", _IS_INFO
    INCOMPLETE_ROWS = "incomplete_rows", "{n} of {of} rows lack an outcome or a covariate and were left out", _IS_INFO
    REPEATED_OUTCOMES = ("repeated_outcomes",
        "{n} outcomes repeat a student and an item and count as further trials", _IS_INFO)
    ITEMS_LEFT_OUT = ("items_left_out",
        "{n} of {of} items left out: not every student and the teacher answered them", _IS_INFO)
    SPARSE_ITEMS = "sparse_items", "{n} items answered by less than half of the students were left out", _IS_INFO
    BRACKETED = ("bracketed",
        "if accuracy rises with data, the target lies between {low:examples} and {high:examples} examples", _IS_INFO)
    BRACKETED_BELOW = ("bracketed_below",
        "if accuracy rises with data, the target lies above {low:examples} examples", _IS_INFO)
    ALL_LAWS_SATURATE = "all_laws_saturate", "all laws behind the gain level off", _IS_INFO
    ONE_LAW_GROWS = "one_law_grows", "one of the laws behind the gain does not level off", _IS_INFO
    CHOSEN_ON_SAMPLE = ("chosen_on_sample",
        "K was chosen and halves were compared on {n} items drawn at random", _IS_INFO)
    MEMBERSHIPS_AS_KNOWN = "memberships_as_known", "memberships taken as known", _IS_INFO
    ALL_CLEAR_OF_ZERO = "all_clear_of_zero", "all clear of zero on one side", _IS_INFO
    NONE_CLEAR_OF_ZERO = "none_clear_of_zero", "none is clear of zero", _IS_INFO
    SCORED_SHARE = "scored_share", "scored: {share:.1f} % of its items", _IS_INFO
    COMMON_SHARE = "common_share", "of {counted} all of {who:list} answered {share:.1f} %", _IS_INFO
    BOUNDS_WITHOUT_SAMPLING = ("bounds_without_sampling",
        "without sampling error between {low:.3f} and {high:.3f}", _IS_INFO)
    WORST_CASES = ("worst_cases",
        "with all {what:and} answers right or wrong between {low:.3f} and {high:.3f}", _IS_INFO)
    RECORDED_SHARE = "recorded_share", "both answers recorded: {share:.1f} %", _IS_INFO
    FIRST_REPEAT = "first_repeat", "answers of the first repeat", _IS_INFO
    TASKS_WITH_ERRORS = "tasks_with_errors", "{n} of {of} tasks have enough wrong answers of the teacher", _IS_INFO
    FLIP_COUNTS = "flip_counts", "{lost} lost, {gained} gained of {of}", _IS_INFO
    EQUIVALENT = "equivalent", "as good as the teacher within {points:g} points", _IS_INFO
    NOT_INFERIOR = "not_inferior", "at most {points:g} points short of the teacher", _IS_INFO
    INFERIOR = "inferior", "more than {points:g} points short of the teacher", _IS_INFO
    NOT_EQUIVALENT = "not_equivalent", "not shown to be within {points:g} points, nor beyond", _IS_INFO
    NOT_TESTED = "not_tested", "not tested", _IS_INFO
    ONE_FORMAT = "one_format", "both capabilities come only as {format} tasks", _IS_INFO
    ONE_FORMAT_OF_CAPABILITY = "one_format_of_capability", "comes only as {format}", _IS_INFO
    EARLIER_CHECKPOINTS = ("earlier_checkpoints",
        "of each training run the last checkpoint counts, {n} earlier left out", _IS_INFO)
    SEED_DISAGREEMENT = "seed_disagreement", "two seeds differ by {share:.1f} % of the items in one direction", _IS_INFO
    LISTED_ITEMS = ("listed_items",
        "at most 10 % of the listed expected to be false; items: {items:list}{more}", _IS_INFO)
    SEED_IN_BASES_PLACE = ("seed_in_bases_place",
        "{n:.0f} of {of} {direction} by a seed on average, {null:.0f} with another seed in the base's place", _IS_INFO)
    LIST_NULL = "list_null", "{null:.1f} of {n} expected with another seed in the base's place", _IS_INFO
    EXPECTED_FLIPS = "expected_flips", "of one answer of each model, from shares over {n} repeats", _IS_INFO
    BEYOND_REPEATS = ("beyond_repeats",
        "beyond what two answers of this student flip against each other ({share:.1f} % of the items)", _IS_INFO)
    NO_SURE_ITEM = "no_sure_item", "no item is sure", _IS_INFO
    ESTIMATORS_AGREE = "estimators_agree", "several estimators: agree ({why})", _IS_INFO
    ESTIMATORS_NOT_JUDGED = "estimators_not_judged", "several estimators: not judged ({why})", _IS_INFO
    FORMULA = "formula", "{formula}", _IS_INFO
    FRACTIONAL_ITEMS = "fractional_items", "{n} items with scores between 0 and 1 left out", _IS_INFO
    LAWS = "laws", "average of the laws by likelihood: {weights:shares}", _IS_INFO
    WITHIN_TRIED_SIZES = ("within_tried_sizes",
        "p = {p:.2g} that the target is met within the largest size, {largest:examples} (small: it costs more)",
        _IS_INFO)
    ERROR_MEANING = "error_meaning", "{meaning}", _IS_INFO
    SAMPLED_ANSWERS = "sampled_answers", "{n:,} of {of:,} {among:words}, drawn at random", _IS_INFO
    HELD_OUT_STUDENTS = "held_out_students", "by held-out students", _IS_INFO
    PATTERNS_COMPARED = "patterns_compared", "{n} against {fewer} patterns: p = {p:.2g}", _IS_INFO
    PATTERN_SLOPES = ("pattern_slopes",
        "logits per standard deviation of a student's covariate: {slopes:signed}", _IS_INFO)
    HALF_TESTED = "half_tested", "tested on the other half of the students: p = {p:.2g} (Holm)", _IS_INFO
    PATTERN_FAILURE = "pattern_failure", "students fail {share:.0f} % of it", _IS_INFO
    EXAMPLE_ITEMS = "example_items", "to read: {items:list}", _IS_INFO
    LABEL_DRAWS = "label_draws", "{n} draws of the labels of {of} items", _IS_INFO
    LABEL_VARIANCE = "label_variance", "labels make {share:.0f} % of the variance", _IS_INFO
    SELECTED_IN_TREE = "selected_in_tree", "selected down the tree of groups", _IS_INFO
    SELECTION_INTERVAL = ("selection_interval",
        "selected down the tree of groups, the interval that pays for it ({level:.2f} %): {low:.3f} to "
        "{high:.3f}", _IS_INFO)
    # fmt: on


INFORMATIONAL_REASONS: frozenset[Reason] = frozenset(reason for reason in Reason if reason.is_informational)
"""Codes that inform and neither refuse nor qualify: they never stand in the column ``reason``."""

MAX_LISTED = 5
"""Names that the specification ``some`` lists."""


class _SentenceFormatter(Formatter):
    """Python's formatter with further specifications: see `format_field`."""

    def format_field(self, value: Any, format_spec: str) -> str:
        """Names between commas, all or the first few; codes as words; counts of examples; p-values by name."""
        match format_spec:
            case "list":
                return ", ".join(map(str, value))
            case "some":
                return ", ".join(map(str, value[:MAX_LISTED])) + (" and others" if len(value) > MAX_LISTED else "")
            case "and":
                return " and ".join(map(str, value))
            case "signed":
                return ", ".join(f"{name} {number:+.2f}" for name, number in value.items())
            case "words":
                return ", ".join([value] if isinstance(value, str) else value).replace("_", " ")
            case "examples":
                return count_text(value)
            case "shares":
                return ", ".join(f"{name} {share:.2f}" for name, share in value.items())
            case "p":
                return ", ".join(f"{name} p = {p:.2g}" for name, p in value.items())
        return str(super().format_field(value, format_spec))


def count_text(size: float) -> str:
    """A number of examples to three digits, for sentences; infinity stands for a number that nobody knows."""
    if math.isinf(size):
        return "an unknown number of"
    return f"{float(f'{size:.3g}'):,.0f}" if size >= 1 or size == 0 else f"{size:.2g}"


@dataclass(frozen=True)
class Remark:
    """A code with the figures that its sentence needs."""

    code: Reason
    """What is said."""
    values: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Figures and names, by the fields of the code's sentence; a remark among them stands for its sentence."""
    part_name: str = ""
    """Which part of a composed number it speaks of (``reasoning``, ``first``); empty: the whole."""

    @property
    def text(self) -> str:
        """The sentence, without a full stop; a part's name and a colon before it."""
        text = _SentenceFormatter().vformat(self.code.sentence, (), self.values)
        return f"{self.part_name}: {text}" if self.part_name else text

    def __str__(self) -> str:
        return self.text

    def of(self, part_name: str) -> "Remark":
        """The same remark as one about a part of a composed number."""
        return replace(self, part_name=f"{part_name}: {self.part_name}" if self.part_name else part_name)


def remark(code: Reason, **values: Any) -> Remark:
    """A remark with its figures as keywords."""
    return Remark(code, values)


def render(remarks: Iterable[Remark]) -> str:
    """The note: all sentences in order, each once, separated by semicolons."""
    return "; ".join(dict.fromkeys(text for remark in remarks if (text := remark.text)))


def first_limiting_reason(remarks: Iterable[Remark]) -> Reason | None:
    """The first code that refuses or qualifies; None where every remark only informs."""
    return next((remark.code for remark in remarks if remark.code not in INFORMATIONAL_REASONS), None)
