"""Other people's results to outcomes: lm-eval's files, inspect's logs, any table. Importing this loads no torch.

Each importer reads files into a `Batch`; `store` merges it into a directory that `capgap analyze` reads. What cannot
be understood is listed in the batch, never skipped in silence.
"""

from capgap.importers.batch import Batch, Part, Skipped
from capgap.importers.inspect_logs import import_inspect
from capgap.importers.lm_eval import import_lm_eval
from capgap.importers.settings import Settings, assignments
from capgap.importers.store import Stored, store
from capgap.importers.table import import_table

__all__ = [
    "Batch",
    "Part",
    "Settings",
    "Skipped",
    "Stored",
    "assignments",
    "import_inspect",
    "import_lm_eval",
    "import_table",
    "store",
]
