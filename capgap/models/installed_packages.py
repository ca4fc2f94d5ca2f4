"""Whether optional packages are installed, without importing them."""

from importlib.util import find_spec


def is_installed(module: str) -> bool:
    """Whether a module, dotted or not, can be imported."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a package around it is missing
        return False
