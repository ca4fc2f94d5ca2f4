import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from capgap.cli import COMMANDS, cli
from tests.conftest import ROOT


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_stands_in_the_readme(name: str) -> None:
    _, line = COMMANDS[name]
    command = cli.get_command(click.Context(cli), name)
    assert isinstance(command, click.Command)
    assert command.name == name
    assert line.endswith(".")
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    assert "Usage: " in result.output
    assert f"capgap {name}" in (ROOT / "README.md").read_text()
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"{name} {option.name} explains nothing"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom capgap.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'numpy', 'pandas', 'lm_eval', 'pydantic', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert all(name in done.stdout for name in COMMANDS)


def test_the_help_of_every_command_answers_without_torch() -> None:
    code = (
        "import sys\nfrom capgap.cli import COMMANDS, main\n"
        "for name in COMMANDS:\n"
        "    try:\n        main([name, '--help'])\n    except SystemExit:\n        pass\n"
        "    print('heavy:', name, sorted({'torch', 'transformers', 'lm_eval', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = [line for line in done.stdout.splitlines() if line.startswith("heavy: ")]
    assert loaded == [f"heavy: {name} []" for name in COMMANDS]


def test_the_help_of_distill_lists_every_way_of_supervision_and_adaptation() -> None:
    from capgap.distillation import ADAPTATION_DESCRIPTIONS, SUPERVISIONS

    shown = CliRunner().invoke(cli, ["distill", "--help"]).output
    assert f"# {', '.join(SUPERVISIONS)}\n" in shown
    assert f"# {', '.join(ADAPTATION_DESCRIPTIONS)}\n" in shown
