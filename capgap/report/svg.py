"""Matplotlib figures as inline SVG: same input, same bytes; text stays text; colours follow the page's theme."""

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from markupsafe import Markup

from capgap.report import text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "INK", "LINE", "MUTED", "PAPER", "canvas", "inline", "points", "style"]

# Figures are drawn in stand-in colours, each replaced by the page's CSS variable, so that one drawing serves light,
# dark and print.
INK, MUTED, LINE, PAPER = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04"
COLOURS = {"knowledge": "#0a0b05", "reasoning": "#0a0b06", "mixed": "#0a0b07", "unlabelled": "#0a0b08"}
"""The stand-in of each capability; what it stands for is defined once, in report.css."""

_VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", PAPER: "paper"} | {c: name for name, c in COLOURS.items()}
_STAND_IN = re.compile("|".join(_VARIABLES))
_TAGS = frozenset(("svg", "g", "path", "defs", "clipPath", "use", "text", "tspan", "rect", "circle", "line"))
_ATTRIBUTES = frozenset(
    (
        *("id", "d", "x", "y", "width", "height", "viewBox", "style", "transform", "clip-path", "href"),
        *("cx", "cy", "r", "x1", "y1", "x2", "y2", "preserveAspectRatio"),
    )
)
"""What is taken over from a drawing; anything else is left out."""
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "capgap",
    "font.size": 11.5,
    "font.family": ["DejaVu Sans"],
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.labelcolor": MUTED,
    "axes.labelsize": 11.5,
    "axes.titlesize": 12.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.grid": True,
    "axes.grid.axis": "x",
    "axes.axisbelow": True,
    "axes.linewidth": 1.0,
    "figure.facecolor": "none",
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "path.simplify": False,
}


@contextmanager
def style() -> Iterator[None]:
    """The look of every figure, for the time of a ``with`` block; nothing global changes."""
    import matplotlib
    import seaborn

    settings: Any = {**seaborn.axes_style("ticks"), **_SETTINGS}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # Text stays text: glyphs that the measuring font lacks are the browser's to draw.
        warnings.filterwarnings("ignore", message=r".*[Gg]lyph.*missing.*", category=UserWarning)
        yield


def canvas(
    width: float, height: float, *, title: str, left: float, right: float, top: float, bottom: float
) -> "tuple[Figure, Axes]":
    """A figure with one pair of axes under a bold title; all lengths in CSS pixels, margins from each side."""
    import seaborn
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 72, height / 72))
    frame = (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    axes = figure.add_axes(frame)
    seaborn.despine(ax=axes, left=True)
    figure.text(0.01, 1 - 14 / height, title, fontsize=12, fontweight="bold", va="center")
    return figure, axes


def points(axes: "Axes", x: Any, y: Any, *, colour: Any, size: Any, zorder: float) -> None:
    """Filled marks with a rim in the colour of the paper; `colour` and `size` (their area) one for all or one each."""
    axes.scatter(x, y, s=size, color=colour, edgecolor=PAPER, linewidth=1.0, zorder=zorder)


def inline(figure: "Figure", *, prefix: str, label: str) -> Markup:
    """The figure as an ``<svg>`` element for the middle of a page.

    Parameters
    ----------
    figure
        Drawn under `style`; one point becomes one CSS pixel.
    prefix
        Begins every id, so that several figures live in one page.
    label
        What it shows, in words.

    Returns
    -------
    Markup
        Rebuilt element by element from those that figures need: no style sheet, metadata, comment or link.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    written = io.BytesIO()
    with matplotlib.rc_context(_SETTINGS):
        backend: Any = FigureCanvasSVG(figure)
        backend.print_svg(written, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    # Drawn by us, but labels are foreign: nothing is trusted that is not rebuilt.
    root = ElementTree.fromstring(written.getvalue())
    box = root.get("viewBox", "0 0 1 1")
    rebuilt = _rebuild(root, prefix)
    rebuilt.attrib = {"viewBox": box, "width": box.split()[2], "role": "img", "aria-label": text.clean(label)}
    return Markup(ElementTree.tostring(rebuilt, encoding="unicode"))


def _rebuild(element: ElementTree.Element, prefix: str) -> ElementTree.Element:
    """A copy that holds nothing but `_TAGS` and `_ATTRIBUTES`."""
    copy = ElementTree.Element(_local(element.tag), _attributes(element.attrib, prefix))
    copy.text = element.text if element.text and element.text.strip() else None
    for child in element:
        if isinstance(child.tag, str) and _local(child.tag) in _TAGS:
            copy.append(_rebuild(child, prefix))
    return copy


def _local(name: str) -> str:
    """A tag or attribute without its XML namespace."""
    return name.rpartition("}")[2]


def _attributes(attributes: Mapping[str, str], prefix: str) -> dict[str, str]:
    """The attributes that stay, ids and references prefixed; a reference to anything outside the drawing goes."""
    by_name = {_local(name): value for name, value in attributes.items() if _local(name) in _ATTRIBUTES}
    if not by_name.get("href", "#").startswith("#"):
        del by_name["href"]
    rewritten = {
        "id": lambda value: f"{prefix}-{value}",
        "href": lambda value: f"#{prefix}-{value[1:]}",
        "clip-path": lambda value: value.replace("url(#", f"url(#{prefix}-"),
        "style": _themed,
    }
    return {name: rewritten[name](value) if name in rewritten else value for name, value in by_name.items()}


def _themed(declarations: str) -> str:
    """The page's variables for the stand-in colours, and the page's own typeface for text."""
    parts = [part.strip() for part in declarations.split(";")]
    without_family = ";".join(part for part in parts if part and not part.startswith("font-family"))
    sized = re.sub(r"\bfont: ([^;]*?px) [^;]*", r"font-size: \1", without_family)
    return _STAND_IN.sub(lambda match: f"var(--{_VARIABLES[match.group()]})", sized)
