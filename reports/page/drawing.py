"""The pen: figures as SVG that take their type and colours from the page they stand in.

Matplotlib is told colours that mean a role; in its output each becomes a CSS variable, so that one
drawing serves light, dark and print. The same figure gives the same bytes.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from poison_audit.reports.view.words import printable

INK, MUTED, RULE, BAND = "#0a0001", "#0a0002", "#0a0003", "#0a0004"
COLOURS = {"good": "#0a0005", "bad": "#0a0006", "unsure": "#0a0007", "worse": "#0a0008"}
VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", RULE: "var(--rule)", BAND: "var(--band)"}
VARIABLES |= {colour: f"var(--{tone})" for tone, colour in COLOURS.items()}
"""What each colour becomes in the page."""
COLOURS["plain"] = MUTED
"""By tone."""
MARKS = {"good": "o", "bad": "s", "worse": "^", "unsure": "D", "plain": "o"}
"""By tone: the shape says it where no colour does."""

WIDTH = 400
"""Of a chart, in its own units: text of size 11 is 11 pixels high where it is this wide."""


def short(name: str, most: int = 17) -> str:
    """Return a name for a chart: printable, of at most `most` characters."""
    shown = printable(name)
    return shown if len(shown) <= most else f"{shown[: most - 1]}\u2026"


@contextmanager
def page_style() -> Iterator[None]:
    """Draw with the page's type, whatever the user's matplotlibrc says."""
    # Everything starts from the defaults. They are one for the whole process, so two threads must
    # not draw at once.
    with matplotlib.rc_context(), warnings.catch_warnings():
        # The page has the fonts for a name that matplotlib's own font cannot draw.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "svg.fonttype": "none",
                "svg.hashsalt": "poison-audit",
                "font.size": 11,
                "axes.labelsize": 11,
                "xtick.labelsize": 10,
                "ytick.labelsize": 10,
                "legend.fontsize": 10,
                **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), RULE),
                **dict.fromkeys(("text.color", "axes.labelcolor"), INK),
                **dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor"), INK),
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.facecolor": "none",
            }
        )
        yield


def new_axes(
    *,
    height: float,
    left: float,
    width: float = WIDTH,
    top: float = 8,
    right: float = 12,
    bottom: float = 42,
) -> tuple[Figure, Axes]:
    """Return a figure and its axes; all sizes in the figure's own units."""
    figure = Figure(figsize=(width / 72, height / 72))
    area = (left / width, bottom / height)
    size = ((width - left - right) / width, (height - top - bottom) / height)
    return figure, figure.add_axes((*area, *size))


def legend(axes: Axes, *, left: float, ncols: int = 1) -> None:
    """Explain the marks above the axes, from `left` in widths of these; below 0 is left of them."""
    place = (left, 1.0)
    told = axes.legend(loc="lower left", bbox_to_anchor=place, ncols=ncols, frameon=False)
    for text in told.get_texts():
        text.set_color(INK)


def as_svg(figure: Figure, *, name: str, title: str, describe: str) -> str:
    """Return a figure as an `<svg>` element.

    Args:
        figure: what was drawn.
        name: unique on the page, letters, digits and hyphens.
        title: what it is.
        describe: what a reader who cannot see it is told; so it is of every chart.
    """
    out = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    drawn = out.getvalue()
    inside = drawn[drawn.index(">", drawn.index("<svg")) + 1 :]
    inside = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", inside, flags=re.DOTALL)
    # Sizes are kept; the family is the page's. Old versions write the shorthand `font:`.
    inside = re.sub(r'font: [^;"]*?([\d.]+px)[^;"]*', r"font-size: \1", inside)
    inside = re.sub(r'font-family: [^;"]*;\s*', "", inside)
    inside = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", inside)
    inside = inside.replace("xlink:href", "href")
    for colour, variable in VARIABLES.items():
        inside = inside.replace(colour, variable)
    width, height = (round(72 * size) for size in figure.get_size_inches())
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-labelledby="{name}-title {name}-text">'
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-text">{escape(printable(describe))}</desc>{inside}'
    )
