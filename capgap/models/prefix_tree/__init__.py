"""Prefix-tree scoring and generation: lm-eval's numbers without computing a common prefix twice.

All requests of a task form a tree of tokens. `row_plan` cuts it into rows of bounded size, each one forward pass;
`tree_forward` runs a row with a mask that shows every token its ancestors alone, behind the keys and values of
prefixes that several rows share; `tree_scorer` puts the log-likelihoods together, `tree_decoder` generates behind
prompts; `tree_support` says which models can be run so, and `tree_proof` compares the hardest requests with the plain
way before any result counts.
"""

from capgap.models.prefix_tree.row_plan import RowPlan, ScoredContinuation, plan_rows
from capgap.models.prefix_tree.tree_decoder import Continuation, TokenChooser, TreeDecoder
from capgap.models.prefix_tree.tree_proof import disagreement
from capgap.models.prefix_tree.tree_scorer import LogLikelihood, TreeScorer
from capgap.models.prefix_tree.tree_support import AttentionLayout, fitting_row_tokens, tree_unsupported_reason

__all__ = [
    "LogLikelihood",
    "AttentionLayout",
    "TokenChooser",
    "TreeDecoder",
    "ScoredContinuation",
    "RowPlan",
    "TreeScorer",
    "Continuation",
    "disagreement",
    "fitting_row_tokens",
    "plan_rows",
    "tree_unsupported_reason",
]
