"""Distillation: from a file to one student.

`distill` is the whole; the modules below are its parts in the order of their work. `config` and `keys` read the file,
`identity` tells whether a directory holds this student, `pool` and `jsonl` bring examples, `data` chooses among them.
`targets`, `teacher`, `team` and `context` say what to answer; `students` and `made` bring the student; `tokens`,
`lesson` and `plan` encode and order. `signals`, `judge` and `cache` ask a teacher for its distributions, once;
`policy` has the student write. `rows`, `material` and `engine` run packed passes, `objectives` and `divergences` say
what is minimised, `train` trains, `record` writes what is known, `run` does it all. `selftest` is the doctor's;
`world_models` makes the models of the microworld.

Nothing heavy is imported before it is needed.
"""

from capgap.distillation.config import ADAPTATIONS, NOT_YET, SUPERVISIONS, DistillConfig, load_config
from capgap.distillation.run import distill

__all__ = ["ADAPTATIONS", "NOT_YET", "SUPERVISIONS", "DistillConfig", "distill", "load_config"]
