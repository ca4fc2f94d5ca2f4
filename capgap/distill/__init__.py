"""Distillation: from a file to one student.

`distill` is the whole; the modules below are its parts in the order of their work: `config` reads the file, `identity`
tells whether a directory holds this student, `pool` and `jsonl` bring examples, `data` chooses among them, `targets`
and `teacher` say what to answer, `students` loads, `tokens` encodes, `plan` orders, `lesson` holds the result, `train`
trains, `record` writes what is known of it, `run` does it all. `world_models` makes the models of the microworld.

Nothing heavy is imported before it is needed.
"""

from capgap.distill.config import ADAPTATIONS, NOT_YET, SUPERVISIONS, Config, load_config
from capgap.distill.run import distill

__all__ = ["ADAPTATIONS", "NOT_YET", "SUPERVISIONS", "Config", "distill", "load_config"]
