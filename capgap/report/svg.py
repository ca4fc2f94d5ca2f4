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

# Figures are drawn in stand-in colours, each replaced by the page's CSS variable, so that one drawing serves light,
# dark and print.
INK, MUTED_INK, LINE_INK, PAPER_INK = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04"
COLOURS = {"knowledge": "#0a0b05", "reasoning": "#0a0b06", "mixed": "#0a0b07", "unlabelled": "#0a0b08"}
"""The stand-in of each capability; what it stands for is defined once, in report.css."""

_CSS_VARIABLES = {INK: "ink", MUTED_INK: "muted", LINE_INK: "line", PAPER_INK: "paper"} | {
    c: name for name, c in COLOURS.items()
}
_STAND_IN_COLOUR = re.compile("|".join(_CSS_VARIABLES))
_SVG_TAGS = frozenset(("svg", "g", "path", "defs", "clipPath", "use", "text", "tspan", "rect", "circle", "line"))
_SVG_ATTRIBUTES = frozenset(
    (
        *("id", "d", "x", "y", "width", "height", "viewBox", "style", "transform", "clip-path", "href"),
        *("cx", "cy", "r", "x1", "y1", "x2", "y2", "preserveAspectRatio"),
    )
)
"""What is taken over from a drawing; anything else is left out."""
_MATPLOTLIB_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "capgap",
    "font.size": 11.5,
    "font.family": ["DejaVu Sans"],
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": LINE_INK,
    "axes.facecolor": "none",
    "axes.labelcolor": MUTED_INK,
    "axes.labelsize": 11.5,
    "axes.titlesize": 12.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.grid": True,
    "axes.grid.axis": "x",
    "axes.axisbelow": True,
    "axes.linewidth": 1.0,
    "figure.facecolor": "none",
    "grid.color": LINE_INK,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED_INK,
    "ytick.color": MUTED_INK,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "path.simplify": False,
}


@contextmanager
def plot_style() -> Iterator[None]:
    """The look of every figure, for the time of a ``with`` block; nothing global changes."""
    import matplotlib
    import seaborn

    settings: Any = {**seaborn.axes_style("ticks"), **_MATPLOTLIB_SETTINGS}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # Text stays text: glyphs that the measuring font lacks are the browser's to draw.
        warnings.filterwarnings("ignore", message=r".*[Gg]lyph.*missing.*", category=UserWarning)
        yield


def make_figure(
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
    axes.scatter(x, y, s=size, color=colour, edgecolor=PAPER_INK, linewidth=1.0, zorder=zorder)


def inline_svg(figure: "Figure", *, prefix: str, label: str) -> Markup:
    """The figure as an ``<svg>`` element for the middle of a page.

    Parameters
    ----------
    figure
        Drawn under `plot_style`; one point becomes one CSS pixel.
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
    with matplotlib.rc_context(_MATPLOTLIB_SETTINGS):
        backend: Any = FigureCanvasSVG(figure)
        backend.print_svg(written, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    # Drawn by us, but labels are foreign: nothing is trusted that is not rebuilt.
    root = ElementTree.fromstring(written.getvalue())
    view_box = root.get("viewBox", "0 0 1 1")
    sanitised_root = _sanitised_copy(root, prefix)
    sanitised_root.attrib = {
        "viewBox": view_box,
        "width": view_box.split()[2],
        "role": "img",
        "aria-label": text.sanitise_text(label),
    }
    return Markup(ElementTree.tostring(sanitised_root, encoding="unicode"))


def _sanitised_copy(element: ElementTree.Element, prefix: str) -> ElementTree.Element:
    """A copy that holds nothing but `_SVG_TAGS` and `_SVG_ATTRIBUTES`."""
    copied_element = ElementTree.Element(_local_name(element.tag), _sanitise_attributes(element.attrib, prefix))
    copied_element.text = element.text if element.text and element.text.strip() else None
    for child in element:
        if isinstance(child.tag, str) and _local_name(child.tag) in _SVG_TAGS:
            copied_element.append(_sanitised_copy(child, prefix))
    return copied_element


def _local_name(name: str) -> str:
    """A tag or attribute without its XML namespace."""
    return name.rpartition("}")[2]


def _sanitise_attributes(attributes: Mapping[str, str], prefix: str) -> dict[str, str]:
    """The attributes that stay, ids and references prefixed; a reference to anything outside the drawing goes."""
    by_name = {_local_name(name): value for name, value in attributes.items() if _local_name(name) in _SVG_ATTRIBUTES}
    if not by_name.get("href", "#").startswith("#"):
        del by_name["href"]
    value_rewriters = {
        "id": lambda value: f"{prefix}-{value}",
        "href": lambda value: f"#{prefix}-{value[1:]}",
        "clip-path": lambda value: value.replace("url(#", f"url(#{prefix}-"),
        "style": _themed_style,
    }
    return {name: value_rewriters[name](value) if name in value_rewriters else value for name, value in by_name.items()}


def _themed_style(declarations: str) -> str:
    """The page's variables for the stand-in colours, and the page's own typeface for text."""
    css_rules = [css_rule.strip() for css_rule in declarations.split(";")]
    without_family = ";".join(css_rule for css_rule in css_rules if css_rule and not css_rule.startswith("font-family"))
    with_font_size = re.sub(r"\bfont: ([^;]*?px) [^;]*", r"font-size: \1", without_family)
    return _STAND_IN_COLOUR.sub(lambda match: f"var(--{_CSS_VARIABLES[match.group()]})", with_font_size)
