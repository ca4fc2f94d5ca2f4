"""capgap: what a distilled language model got from its teacher, what it did not, why, and what would close the gap.

What the command line does, Python does by the same word; each name is loaded when it is first asked for::

    evaluate, distill      models to outcomes, files to students                 (need torch)
    analyze, load          outcomes or a run directory to `Results`
    classify               knowledge or reasoning, item by item
    load_battery           a battery and its tasks
    Results, Roles         what a comparison came to, and who is who in it
    CapgapError            everything that the user can mend
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from capgap.battery import load_battery
    from capgap.classification import classify
    from capgap.errors import CapgapError
    from capgap.results import Results, analyze, distill, evaluate, load
    from capgap.schema import Roles

__all__ = [
    "CapgapError", "Results", "Roles", "__version__", "analyze", "classify", "distill", "evaluate", "load",
    "load_battery",
]  # fmt: skip

__version__ = "0.1.0"

_MODULE_BY_NAME = {
    "CapgapError": "capgap.errors", "Roles": "capgap.schema", "load_battery": "capgap.battery",
    "classify": "capgap.classification",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'capgap' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_BY_NAME.get(name, "capgap.results")), name)
    globals()[name] = value  # asked for once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
