"""The tables that the two halves of capgap share: their columns, and how to read, check, write and pair them.

``models ──▶ ledger ──▶ outcomes ──▶ estimates ──▶ report``: everything left of `outcomes` needs torch, nothing right
of it does. Any of the tables may come from elsewhere; `validate` fills what has a documented default and names what
is missing or wrong. What is unknown is null (NaN, NA), never zero.
"""

from capgap.schema.columns import (
    ANSWER_FORMATS,
    CAPABILITIES,
    CELL_KEY,
    ESTIMATES,
    ITEMS,
    LABELS,
    MAX_UNREADABLE_SHARE,
    MODELS,
    OUTCOME_KEY,
    OUTCOMES,
    ColumnSpec,
    Table,
    covariate_names,
    empty,
)
from capgap.schema.frames import (
    atomic_write,
    concat,
    df_from_rows,
    json_records,
    read_df,
    validate,
    write_df,
    write_json,
    write_object,
)
from capgap.schema.pairing import PairedScores, Roles, join_labels, pair, undeclared_items
from capgap.schema.readability import STOP_REASONS, is_cut_off, is_unreadable, stop_reason_of

__all__ = [
    "CAPABILITIES",
    "CELL_KEY",
    "ESTIMATES",
    "ANSWER_FORMATS",
    "MAX_UNREADABLE_SHARE",
    "ITEMS",
    "LABELS",
    "MODELS",
    "OUTCOMES",
    "OUTCOME_KEY",
    "ColumnSpec",
    "PairedScores",
    "Roles",
    "STOP_REASONS",
    "Table",
    "concat",
    "covariate_names",
    "empty",
    "df_from_rows",
    "is_cut_off",
    "is_unreadable",
    "join_labels",
    "json_records",
    "pair",
    "read_df",
    "stop_reason_of",
    "undeclared_items",
    "validate",
    "atomic_write",
    "write_df",
    "write_json",
    "write_object",
]
