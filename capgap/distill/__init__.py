"""Distillation: from a file to one student.

`distill` is the whole; the modules below are its parts in the order of their work: `config` reads the file, `jsonl` and
`pool` bring examples, `data` chooses among them, `targets` and `teacher` say what to answer, `tokens` encodes,
`plan` orders, `students` loads, `train` trains, `run` does it all and leaves a checkpoint behind.

Nothing heavy is imported before it is needed.
"""

from capgap.distill.config import ADAPTATIONS, NOT_YET, SUPERVISIONS, Config, load_config
from capgap.distill.run import distill

__all__ = ["ADAPTATIONS", "NOT_YET", "SUPERVISIONS", "Config", "distill", "load_config"]
