"""Distillation: from a distillation file to one trained student.

`distill` (in `run`) goes through the parts in their order; each imports only those before it:

==================  ====================================================================================
`supervision`       ways of supervision: texts, signal, teachers and keys of each
`config`            the distillation file, its checks, canonical form and hash; `config_keys`: its parts
`data`              training examples: read, selected, kept apart from evaluation items, tokenised
`students`          the student before it learns: loaded or constructed, and adapted
`teacher`           the teacher's texts, and its distributions, cached or online
`training`          micro-batches, divergences, losses, step sources and the training loop
`identity`          whether a directory holds this student; `record`: what is written beside the weights
`selftest`          the trainer's own tests, which `capgap doctor` runs
==================  ====================================================================================

Progress is told as events (`capgap.events`); nothing here prints. Torch is not imported before it is needed.
"""

from capgap.distillation.config import ADAPTATION_DESCRIPTIONS, UNSUPPORTED, DistillConfig, load_config
from capgap.distillation.run import distill
from capgap.distillation.supervision import SUPERVISIONS

__all__ = ["ADAPTATION_DESCRIPTIONS", "UNSUPPORTED", "SUPERVISIONS", "DistillConfig", "distill", "load_config"]
