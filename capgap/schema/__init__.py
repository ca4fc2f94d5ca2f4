"""The tables that the two halves of capgap share: their columns, and how to read, check, write and pair them.

``models ──▶ ledger ──▶ outcomes ──▶ estimates ──▶ report``: everything left of `outcomes` needs torch, nothing right
of it does. Any of the tables may come from elsewhere; `validate` fills what has a documented default and names what
is missing or wrong. What is unknown is null (NaN, NA), never zero.
"""

from capgap.schema.columns import (
    CAPABILITIES,
    CELL,
    ESTIMATES,
    FORMATS,
    GUARD,
    ITEMS,
    LABELS,
    MODELS,
    OUTCOME_KEY,
    OUTCOMES,
    STATUSES,
    TABLES,
    Column,
    Table,
    covariate_names,
    empty,
)
from capgap.schema.frames import concat, from_rows, objects, read, validate, whole, write, write_json, write_object
from capgap.schema.pairing import Pairs, Roles, labelled, pair, undeclared_items

__all__ = [
    "CAPABILITIES",
    "CELL",
    "ESTIMATES",
    "FORMATS",
    "GUARD",
    "ITEMS",
    "LABELS",
    "MODELS",
    "OUTCOMES",
    "OUTCOME_KEY",
    "STATUSES",
    "TABLES",
    "Column",
    "Pairs",
    "Roles",
    "Table",
    "concat",
    "covariate_names",
    "empty",
    "from_rows",
    "labelled",
    "objects",
    "pair",
    "read",
    "undeclared_items",
    "validate",
    "whole",
    "write",
    "write_json",
    "write_object",
]
