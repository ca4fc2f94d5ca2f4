"""The models that were trained on the world and travel with the package."""

from pathlib import Path

from capgap.errors import ModelError, suggestion

__all__ = ["checkpoint", "names"]

_FOLDER = Path(__file__).parent / "checkpoints"


def names() -> tuple[str, ...]:
    """The names behind ``microworld:`` in model words, in alphabetical order."""
    return tuple(sorted(path.parent.name for path in _FOLDER.glob("*/config.json")))


def checkpoint(name: str) -> Path:
    """Folder of the model that ``microworld:NAME`` means.

    Raises
    ------
    ModelError
        There is no such model.
    """
    known = names()
    if name not in known:
        raise ModelError(f"microworld:{name}: the microworld has no model of this name.{suggestion(name, known)}")
    return _FOLDER / name
