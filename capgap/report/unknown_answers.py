"""Tables about unreadable and missing answers: parts of the gap, bounds, shifts, closures without inverted tasks."""

from capgap.report.display_labels import declaration, heading
from capgap.report.tables import EstimateIndex, EstimateView, ShownTable, estimate_table
from capgap.schema import Roles

__all__ = ["unknown_answer_tables"]

_LEVELS = ("capability", "battery", "domain", "task")


def unknown_answer_tables(lookup: EstimateIndex, roles: Roles) -> tuple[ShownTable, ...]:
    """Parts of the gap by what became of the answers, bounds, the shift by missing answers, inverted tasks left out."""
    variants = [view for view in lookup.variants if view.model in roles.students]
    captioned_rows = {
        heading(declaration("gap_part").question): _at_levels(lookup.of("gap_part")),
        "Bounds, with all unreadable and missing answers of each model right or wrong": _at_levels(
            [view for view in variants if view.estimator == "bounds"]
        ),
        heading(declaration("common_items_shift").question): _at_levels(lookup.of("common_items_shift")),
        "Gap closure without the tasks where the teacher is below the base": _at_levels(
            [view for view in variants if view.estimator == "without_inverted_tasks"]
        ),
    }
    return tuple(
        estimate_table(rows, caption=caption, models=roles.students) for caption, rows in captioned_rows.items() if rows
    )


def _at_levels(views: list[EstimateView]) -> list[EstimateView]:
    return [view for level in _LEVELS for view in views if view.level == level]
