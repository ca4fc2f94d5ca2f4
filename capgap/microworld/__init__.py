"""The embedded microworld: its facts, questions, pretraining texts, and the models that were trained on them.

Everything comes from a seed, and every item is knowledge, reasoning or both by construction. Nothing here imports
torch; the models are trained in `capgap.distillation.students.microworld_models`.
"""

from capgap.microworld.pretraining_text import PretrainingText
from capgap.microworld.question_sets import evaluation, training, write_data
from capgap.microworld.questions import Q_FAMILIES, WorldQuestion
from capgap.microworld.shipped_models import checkpoint_folder, model_names
from capgap.microworld.world import World, WorldFact, make_world
from capgap.microworld.world_tokenizer import write_tokenizer

__all__ = [
    "Q_FAMILIES",
    "WorldFact",
    "WorldQuestion",
    "PretrainingText",
    "World",
    "checkpoint_folder",
    "evaluation",
    "make_world",
    "model_names",
    "training",
    "write_data",
    "write_tokenizer",
]
