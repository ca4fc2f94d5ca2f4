"""Who imports whom, and that the right half of capgap never loads torch."""

import ast
import subprocess
import sys
from pathlib import Path

import capgap

PACKAGE = Path(capgap.__file__).parent

# Left to right: each may import what stands before it; names in one group do not import each other.
ORDER = [
    {"errors"},
    {"schema"},
    {"battery"},
    {"stats", "microworld"},
    {"models"},
    {"evaluate"},
    {"importers", "distill", "classify"},
    {"analyze"},
    {"report"},
    {"study"},
    {"cli"},
    {"__main__"},
]
ONLY = {"analyze": {"errors", "schema", "stats"}, "report": {"errors", "schema", "stats"}, "stats": {"errors"}}


def _imports(path: Path) -> set[str]:
    """Parts of capgap that a module imports, at its top or inside a function."""
    parts = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "capgap":
            inside = node.module.split(".")[1:]
            parts |= {inside[0]} if inside else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            parts |= {a.name.split(".")[1] for a in node.names if a.name.startswith("capgap.")}
    return parts - {"__version__"}


def test_parts_import_only_what_stands_before_them() -> None:
    level = {name: n for n, group in enumerate(ORDER) for name in group}
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        assert part in level, f"{path}: which layer is {part!r}?"
        for other in _imports(path) - {part}:
            allowed = other in ONLY[part] if part in ONLY else level[other] < level[part]
            if not allowed:
                wrong.append(f"{path.relative_to(PACKAGE)} imports capgap.{other}")
    assert not wrong, "\n".join(wrong)


def test_statistics_and_report_leave_torch_unloaded() -> None:
    code = (
        "import sys, capgap, capgap.stats, capgap.analyze, capgap.report;"
        "print(sorted({'torch', 'transformers', 'lm_eval', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
