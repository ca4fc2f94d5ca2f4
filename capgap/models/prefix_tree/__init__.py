"""Prefix-tree scoring: lm-eval's log-likelihoods without computing a common beginning twice.

All requests of a task form a tree of tokens. `plan` cuts it into rows of bounded size, each one forward pass; `forward`
runs a row with a mask that shows every token its ancestors alone, behind the keys and values of beginnings that several
rows share; `scorer` puts the log-likelihoods together, `decode` writes on behind prompts; `support` says which models
can be asked so, and `proof` compares the requests_to_prove requests with the plain way before any result counts.
"""

from capgap.models.prefix_tree.row_plan import RowPlan, ScoredContinuation, TreeRow, plan_rows
from capgap.models.prefix_tree.tree_decoder import Continuation, TreeDecoder
from capgap.models.prefix_tree.tree_proof import TreeProof, disagreement, requests_to_prove
from capgap.models.prefix_tree.tree_scorer import Answer, TreeScorer
from capgap.models.prefix_tree.tree_support import AttentionLayout, attention_of, fitting_row, unsupported

__all__ = [
    "Answer",
    "AttentionLayout",
    "TreeDecoder",
    "ScoredContinuation",
    "RowPlan",
    "TreeProof",
    "TreeRow",
    "TreeScorer",
    "Continuation",
    "attention_of",
    "disagreement",
    "fitting_row",
    "requests_to_prove",
    "plan_rows",
    "unsupported",
]
