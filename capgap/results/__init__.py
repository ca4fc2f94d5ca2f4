"""From outcomes, models, labels and roles to results: estimates, sentence, next step, page and files; free of torch.

The last layer below the command line: `capgap.analyze`, `evaluate`, `distill` and `load` live here; `capgap.classify`
is `capgap.classification`'s own.
"""

from capgap.results.comparison import compare
from capgap.results.library import DistilledStudent, analyze, distill, evaluate
from capgap.results.results import Results
from capgap.results.run import Run, load

__all__ = ["DistilledStudent", "Results", "Run", "analyze", "compare", "distill", "evaluate", "load"]
