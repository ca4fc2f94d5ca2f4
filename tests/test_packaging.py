"""What is declared is imported and the reverse; what is shipped is in the wheel; a version stands once."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from functools import cache
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import capgap
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

# Declared without an import of ours: another declared package imports it where capgap calls that package. The module
# of theirs that says so stands beside it; a test looks there.
IMPORTED_BY_OTHERS = {
    "accelerate": "transformers.trainer",
    "aiohttp": "lm_eval.models.api_models",
    "tenacity": "lm_eval.models.api_models",
    "bitsandbytes": "transformers.quantizers.quantizer_bnb_4bit",
    "compressed-tensors": "transformers.quantizers.quantizer_compressed_tensors",
    "vllm": "lm_eval.models.vllm_causallms",
}


def _declared(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


@cache
def _third_party_imports() -> dict[str, set[str]]:
    """Distribution (its canonical name: pyyaml for yaml) → modules of capgap that import it, anywhere in them."""
    distributions = packages_distributions()
    importers: dict[str, set[str]] = {}
    for path in sorted((ROOT / "capgap").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                modules = [node.module]
            else:
                continue
            for top in {module.split(".")[0] for module in modules} - set(sys.stdlib_module_names) - {"capgap"}:
                name = canonicalize_name(distributions.get(top, [top])[0])
                importers.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    return importers


DEPENDENCIES = _declared(PROJECT["project"]["dependencies"])
EXTRAS = {name: _declared(texts) for name, texts in PROJECT["project"]["optional-dependencies"].items()}


def test_what_is_imported_is_declared() -> None:
    undeclared = {
        name: sorted(paths)
        for name, paths in _third_party_imports().items()
        if name not in DEPENDENCIES.union(*EXTRAS.values())
    }
    assert not undeclared


def test_what_is_declared_is_imported() -> None:
    imported = set(_third_party_imports()) | set(IMPORTED_BY_OTHERS)
    assert not DEPENDENCIES.union(*EXTRAS.values()) - imported


@pytest.mark.parametrize("name", IMPORTED_BY_OTHERS)
def test_others_import_what_is_declared_for_them(name: str) -> None:
    assert name not in _third_party_imports(), f"capgap imports {name} itself"
    package, *rest = IMPORTED_BY_OTHERS[name].split(".")
    spec = find_spec(package)  # of the top alone: a submodule's would import its parents
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).parent.joinpath(*rest).with_suffix(".py").read_text()
    assert re.search(rf"\b{name.replace('-', '_')}\b", source)


def test_an_extra_is_imported_only_where_its_absence_is_met() -> None:
    imports = _third_party_imports()
    for name in set().union(*EXTRAS.values()) & set(imports):
        for path in imports[name]:
            tree = ast.parse((ROOT / path).read_text())
            at_top = {ast.unparse(node) for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))}
            assert not any(re.search(rf"\b{name}\b", line) for line in at_top), f"{path} imports {name} at its top"


def test_the_lock_holds_what_is_declared() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    locked = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines if "==" in line}
    for text in [*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["dev"]]:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        assert name in locked, f"requirements.lock lacks {name}"
        assert locked[name] in requirement.specifier, f"{name}=={locked[name]} is not {requirement.specifier}"


def test_a_version_stands_once_and_is_cited() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == capgap.__version__
    assert citation["license"] == PROJECT["project"]["license"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "capgap/__init__.py"
    assert "version" in PROJECT["project"]["dynamic"]


def test_the_classifiers_begin_with_the_oldest_python_that_installs() -> None:
    minors = [
        int(match[1]) for text in PROJECT["project"]["classifiers"] if (match := re.search(r":: 3\.(\d+)$", text))
    ]
    assert PROJECT["project"]["requires-python"] == f">=3.{min(minors)}"
    assert minors == list(range(min(minors), max(minors) + 1))
    assert sys.version_info.minor in minors


def test_a_wheel_holds_types_data_and_licences(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        shipped = set(archive.namelist())
    assert wheel.name == f"capgap-{capgap.__version__}-py3-none-any.whl"
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "capgap", "batteries"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        pytest.skip("no clone: what should be shipped is not known")
    for name in filter(None, tracked.stdout.split("\0")):
        if (ROOT / name).exists():
            assert (f"capgap/{name}" if name.startswith("batteries/") else name) in shipped
    assert "capgap/py.typed" in shipped
    licences = {name.split("/licenses/")[1] for name in shipped if "/licenses/" in name}
    assert licences == set(PROJECT["project"]["license-files"])
    assert {name.split("/")[0] for name in shipped} == {"capgap", f"capgap-{capgap.__version__}.dist-info"}
