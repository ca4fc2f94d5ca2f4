"""Models × batteries → outcomes, kept in a run directory (`capgap.store`)."""

from capgap.evaluation.plan import (
    EvaluationPlan,
    RoleModels,
    cast_roles,
    default_batteries,
    parse_devices,
    parse_shard,
    plan_evaluation,
)
from capgap.evaluation.requests import quiet
from capgap.evaluation.run import describe_plan, evaluate
from capgap.evaluation.scoring import outcome_rows

__all__ = [
    "EvaluationPlan",
    "RoleModels",
    "cast_roles",
    "default_batteries",
    "describe_plan",
    "evaluate",
    "outcome_rows",
    "parse_devices",
    "parse_shard",
    "plan_evaluation",
    "quiet",
]
