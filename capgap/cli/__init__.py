"""The command line: one module a command, thin, loaded only when its command is called.

Results go to stdout, progress to stderr. Exit status: 0 done, 2 the user can mend it (a message, no traceback),
1 a bug (a traceback).
"""

import errno
import importlib
import keyword
import sys
from collections.abc import Sequence
from typing import Any

import click

from capgap import __version__
from capgap.errors import CapgapError, suggestion
from capgap.printable_text import make_printable

__all__ = ["COMMANDS", "cli", "main"]

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("capgap.cli.demo", "The whole path on the embedded microworld, students distilled live."),
    "evaluate": ("capgap.cli.evaluate", "Evaluate students, teacher and base on batteries; write the report."),
    "distill": ("capgap.cli.distill", "Train one student from a YAML file."),
    "analyze": ("capgap.cli.analyze", "Statistics and report from tables alone."),
    "classify": ("capgap.cli.classify", "Knowledge or reasoning: each item with a probability and reasons."),
    "power": ("capgap.cli.power", "What a design can see: items, clusters, tasks and seeds that a finding needs."),
    "import": ("capgap.cli.import_", "Bring results of lm-eval, inspect or any table in."),
    "report": ("capgap.cli.report", "Write the report of a run again."),
    "battery": ("capgap.cli.battery", "List, show, check, begin and fetch batteries."),
    "microworld": ("capgap.cli.microworld", "Rebuild the embedded world and its models from a seed."),
    "doctor": ("capgap.cli.doctor", "What this machine has, and whether capgap can use it."),
}
"""Command → (module that holds it under its own name, one line of help)."""


class _LazyCommandGroup(click.Group):
    """Loads a command's module when the command is called, so that ``--help`` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        # A command that is a word of Python's own (import) is called as such words are: with an underscore.
        command_attribute = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        command: click.Command = getattr(importlib.import_module(COMMANDS[cmd_name][0]), command_attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"no command {args[0]!r}.{suggestion(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=_LazyCommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="capgap")
def cli() -> None:
    """Tell what a distilled student got from its teacher, what it did not, and why.

    \b
    First:  capgap demo
    Then:   capgap evaluate --student CKPT --teacher CKPT
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    sys.exit(_status(list(sys.argv[1:] if arguments is None else arguments)))


def _status(arguments: list[str]) -> int:
    try:
        result: Any = cli.main(args=arguments, prog_name="capgap", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return 2
    except CapgapError as error:
        click.echo(f"capgap: {make_printable(str(error))}", err=True)
        return 2
    except click.exceptions.Abort:  # what click makes of Ctrl-C
        click.echo("\ncapgap: interrupted. The same command goes on where it stopped.", err=True)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, `capgap … | head`
        sys.stderr.close()
        return 0
    except OSError as error:
        if error.errno != errno.ENOSPC:  # a full disk is no bug: stdout may be a file there
            raise
        click.echo(
            f"capgap: {error.filename or 'output'}: cannot be written: {error.strerror}. Free some space.", err=True
        )
        return 2
    return result if isinstance(result, int) else 0
