"""Default folders of what commands write, below ``capgap-out``: students beside evaluations, never among them."""

from pathlib import Path

DEFAULT_ROOT = Path("capgap-out")
CLASSIFY_WORK_FOLDER = DEFAULT_ROOT / "classify"
MICROWORLD_FOLDER = DEFAULT_ROOT / "microworld"


def evaluation_folder(student: str) -> Path:
    """The run directory of an evaluation, by the name of its first student."""
    return DEFAULT_ROOT / student.replace("/", "-")


def student_folder(name: str) -> Path:
    """The folder of a distilled student."""
    return DEFAULT_ROOT / "students" / name


def analysis_folder(source: Path) -> Path:
    """Where the analysis of a first table or run goes: a run directory keeps its own."""
    return source if source.is_dir() else DEFAULT_ROOT / source.stem
