"""What the server of `tests.processes` holds when it forks: imported once, and left alone by garbage collection."""

import gc

import transformers.models.llama.modeling_llama  # noqa: F401

import capgap.battery.lm_eval_tasks
import capgap.evaluation.run
import capgap.models.tree_generation
import capgap.models.tree_hflm
import capgap.models.tree_scoring  # noqa: F401

gc.freeze()  # or each forked process walks through (and copies) half a million objects behind every model
