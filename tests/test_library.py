"""``import capgap``: its names, what they load, and every example that stands in a docstring or the README."""

import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pandas as pd
import pytest

import capgap
from capgap.cli import _status
from capgap.events import Note, StageBegun, StageFinished
from tests.cli.test_analyze import foreign
from tests.conftest import ROOT

CLASSES = ("CapgapError", "Results", "Roles")
FUNCTIONS = ("analyze", "classify", "distill", "evaluate", "load", "load_battery")
HEAVY = "{'torch', 'transformers', 'lm_eval', 'datasets', 'sklearn'}"


def run_python(code: str) -> list[str]:
    """The lines that code prints in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_package_offers_these_names_and_dir_shows_them() -> None:
    assert set(capgap.__all__) == {*CLASSES, *FUNCTIONS, "__version__"}
    assert set(capgap.__all__) <= set(dir(capgap))
    with pytest.raises(AttributeError, match="no attribute 'anlyze'"):
        capgap.anlyze  # noqa: B018


def test_no_submodule_shadows_a_name() -> None:
    """A package is a noun, a function a verb: whatever is imported before, the names are what they are."""
    missing = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in pkgutil.walk_packages(capgap.__path__, "capgap."):
            if module.name == "capgap.__main__":
                continue
            try:
                importlib.import_module(module.name)
            except ImportError as error:  # of an extra that is not installed
                missing.append(str(error.name))
    assert len(missing) <= 2
    assert not any(name.startswith("capgap") for name in missing)
    for name in CLASSES:
        assert isinstance(getattr(capgap, name), type), name
    for name in FUNCTIONS:
        function = getattr(capgap, name)
        assert callable(function), name
        assert function.__module__.startswith("capgap."), name


def test_importing_capgap_is_instant_and_brings_no_pandas() -> None:
    code = (
        "import sys, time; t = time.perf_counter(); import capgap; print(time.perf_counter() - t);"
        "print('pandas' in sys.modules)"
    )
    lines = [run_python(code) for _ in range(3)]
    assert min(float(seconds) for seconds, _ in lines) < 0.1
    assert {pandas for _, pandas in lines} == {"False"}


def test_what_needs_no_model_loads_no_torch(tmp_path: Path) -> None:
    table = foreign(tmp_path / "results.csv", n=20)
    code = f"""
import sys, capgap
results = capgap.analyze({str(table)!r}, teacher="big")
results.write({str(tmp_path / "out")!r})
results._repr_html_()
assert list(capgap.classify(["Who wrote Hamlet?", "7 + 8?"])["capability"]) == ["knowledge", "reasoning"]
capgap.load, capgap.load_battery
from capgap.cli import _status
assert _status(["analyze", {str(table)!r}, "--teacher", "big", "--out", {str(tmp_path / "page")!r}]) == 0
print(sorted({HEAVY} & set(sys.modules)))
"""
    assert run_python(code)[-1] == "[]"


def test_functions_print_nothing_and_tell_listeners(
    checkpoints: dict[str, Path], tiny_battery: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    events: list[object] = []
    run = capgap.evaluate(
        checkpoints["student"],
        teacher=checkpoints["teacher"],
        battery=tiny_battery,
        limit=6,
        out=tmp_path / "run",
        on_event=events.append,
    )
    assert capfd.readouterr() == ("", "")
    assert {StageBegun, StageFinished, Note} <= {type(event) for event in events}
    assert (run.path / "report.html").is_file()
    assert capgap.load(run.path).results.estimates.equals(run.results.estimates)


def test_the_command_line_and_python_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, out = foreign(tmp_path / "results.csv", n=60), tmp_path / "out"
    made = pd.DataFrame({"model": ["after"], "n_examples": [100]})
    made.to_csv(tmp_path / "models.csv", index=False)
    arguments = ["--teacher", "big", "--base", "before", "--margin", "5", "--models", str(tmp_path / "models.csv")]
    assert _status(["analyze", str(table), *arguments, "--out", str(out)]) == 0
    frame = pd.read_csv(table)
    results = capgap.analyze(frame, teacher="big", base={"after": "before"}, margin=5, models=made)
    pd.testing.assert_frame_equal(pd.read_parquet(out / "estimates.parquet"), results.estimates)
    assert capsys.readouterr().out == f"{results.sentence}\n{results.next_step}\n"


def test_signatures_follow_the_command_line() -> None:
    """Every option of a command is a parameter of its function, but for those that are about the terminal."""
    import click

    from capgap.cli import cli

    terminal = {"as_json", "quiet", "verbose", "threads", "tables", "out", "replace", "items"}
    for name in ("analyze", "classify", "distill", "evaluate"):
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        options = {str(parameter.name) for parameter in command.params} - terminal
        assert options <= set(inspect.signature(getattr(capgap, name)).parameters), name


MODULES_WITH_EXAMPLES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "capgap").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES_WITH_EXAMPLES)
def test_examples_of_docstrings_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.attempted
    assert not outcome.failed


def test_python_examples_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S | re.M)
    assert blocks
    monkeypatch.chdir(tmp_path)
    foreign(tmp_path / "results.csv", n=20)
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
