"""Other people's results to outcomes: lm-eval's files, inspect's logs, any table. Importing this loads no torch.

Each importer reads files into an `ImportResult`; `merge_batch` merges it into a directory that `capgap analyze` reads.
What cannot be understood is listed in the batch, never skipped in silence.
"""

from capgap.importers.import_batch import ImportResult, SkippedFile, TaskResults
from capgap.importers.inspect_logs import import_inspect
from capgap.importers.lm_eval import import_lm_eval
from capgap.importers.merging import MergedImport, merge_batch
from capgap.importers.settings import ImportSettings, parse_pairs
from capgap.importers.table import import_result_tables

__all__ = [
    "ImportResult",
    "TaskResults",
    "ImportSettings",
    "SkippedFile",
    "MergedImport",
    "parse_pairs",
    "import_inspect",
    "import_lm_eval",
    "import_result_tables",
    "merge_batch",
]
