"""Who imports whom, and that the right half of capgap never loads torch."""

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import capgap

PACKAGE = Path(capgap.__file__).parent

# Left to right: each may import what stands before it; names in one group do not import each other.
ORDER = [
    {"errors", "events", "user_cache", "printable_text", "default_folders"},
    {"schema"},
    {"store"},
    {"battery"},
    {"stats", "microworld"},
    {"models"},
    {"evaluation"},
    {"importers", "distillation", "classification"},
    {"analysis"},
    {"report"},
    {"results"},
    {"cli"},
    {"__main__"},
]
ONLY = {
    "analysis": {"errors", "printable_text", "schema", "store", "stats"},
    "report": {"errors", "printable_text", "schema", "store", "stats"},
    "stats": {"errors", "schema"},
}
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


@cache
def _imports(path: Path) -> frozenset[str]:
    """Modules of capgap that a module imports, at its top or inside a function; not those for type checkers alone."""
    found = set()
    tree = ast.parse(path.read_text())
    typing_only = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in (node for node in ast.walk(tree) if node not in typing_only):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "capgap":
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (submodules & set(MODULES)) | ({node.module} if submodules - set(MODULES) else set())
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("capgap.")}
    return frozenset(found - {"capgap"})


def _part(module: str) -> str:
    return module.split(".")[1]


def test_parts_import_only_what_stands_before_them() -> None:
    level = {name: n for n, group in enumerate(ORDER) for name in group}
    wrong = []
    for module, path in MODULES.items():
        if module == "capgap":
            continue
        part = _part(module)
        assert part in level, f"{path}: which layer is {part!r}?"
        for other in {_part(name) for name in _imports(path)} - {part}:
            allowed = other in ONLY[part] if part in ONLY else level[other] < level[part]
            if not allowed:
                wrong.append(f"{module} imports capgap.{other}")
    assert not wrong, "\n".join(wrong)


def test_what_needs_no_model_imports_nothing_heavy_and_configures_no_logger() -> None:
    """In one process, what imports the least first."""
    code = """
import importlib, logging, sys
heavy = {"torch", "transformers", "lm_eval", "datasets", "sklearn"}
for name, more in (
    ("capgap.microworld", {"pandas", "matplotlib"}),
    ("capgap.battery", {"matplotlib"}),
    ("capgap.classification", {"matplotlib"}),
    ("capgap.report", {"matplotlib", "seaborn", "capgap.analysis"}),
    ("capgap.stats", set()),
    ("capgap.analysis", set()),
):
    importlib.import_module(name)
    print(name, sorted((heavy | more) & set(sys.modules)))
logger = logging.getLogger("capgap")
print(logger.handlers, logger.level)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *imports, logger = done.stdout.splitlines()
    assert len(imports) == 6
    assert [line for line in imports if not line.endswith(" []")] == []
    assert logger == "[] 0"


def test_no_modules_of_a_package_import_each_other_in_a_circle() -> None:
    """Imports inside functions count: they hide a circle, they don't cut it."""
    graph = {
        module: {name for name in _imports(path) if name != module and _part(name) == _part(module)}
        for module, path in MODULES.items()
        if module != "capgap"
    }
    # A package's surface imports its modules; a module that reads its own package's surface would close the circle.
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" → ".join(error.args[1])) from None


def test_the_architecture_names_every_part_in_this_order() -> None:
    text = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    (block,) = re.findall(r"## Layers\n\n((?:    .*\n)+)", text)
    groups = [set(re.findall(r"\w+", group)) for group in block.split("\u2192")]
    assert groups == ORDER[:-1]
    cells = " ".join(re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE))
    assert set.union(*groups) <= set(re.findall(r"\w+", cells))
    assert set.union(*groups) == {_part(module) for module in MODULES if module != "capgap"} - {"__main__"}
