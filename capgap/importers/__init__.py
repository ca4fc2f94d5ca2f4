"""Other people's results to outcomes: lm-eval's files, inspect's logs, any table. Importing this loads no torch.

Each importer reads files into an `ImportBatch`; `merge_batch` merges it into a directory that `capgap analyze` reads.
What cannot be understood is listed in the batch, never skipped in silence.
"""

from capgap.importers.import_batch import ImportBatch, SkippedFile, TaskResults
from capgap.importers.inspect_logs import import_inspect
from capgap.importers.lm_eval import import_lm_eval
from capgap.importers.merging import MergedImport, merge_batch
from capgap.importers.settings import ImportSettings, assignments
from capgap.importers.table import import_table

__all__ = [
    "ImportBatch",
    "TaskResults",
    "ImportSettings",
    "SkippedFile",
    "MergedImport",
    "assignments",
    "import_inspect",
    "import_lm_eval",
    "import_table",
    "merge_batch",
]
