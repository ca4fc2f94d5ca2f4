"""What a user permits the files of models to do: nothing, unless it is said."""

import functools
from collections.abc import Callable
from typing import Any

import click

__all__ = ["allow_options"]

_CODE = click.option(
    "--allow-code", is_flag=True, help="Run Python code that models bring with them (auto_map). Read it first."
)
_PICKLE = click.option("--allow-pickle", is_flag=True, help="Load weights that are only there as pickles (*.bin).")


def allow_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--allow-code`` and ``--allow-pickle``; it takes both as one tuple of model keys, ``allow``.

    One model alone is permitted by its word: ``CKPT,allow_code=on``.
    """

    @functools.wraps(command)  # click's parameters of the command move on with it
    def run(*args: Any, allow_code: bool, allow_pickle: bool, **kwargs: Any) -> Any:
        given = {"allow_code": allow_code, "allow_pickle": allow_pickle}
        return command(*args, allow=tuple(key for key, said in given.items() if said), **kwargs)

    return _CODE(_PICKLE(run))
