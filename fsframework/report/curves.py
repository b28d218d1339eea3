"""Draw training curves as inline SVG: pale values and a strong running mean."""

import io
import re
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from fsframework.report.html import render

WIDTH, HEIGHT = 360, 180
LEFT, RIGHT, TOP, BOTTOM = 46, 352, 8, 158  # of the drawing, in SVG units
BINS = 300  # maximum number of drawn points; more would not be visible
WINDOW = 25  # the running mean spans 1/25 of the curve
LARGEST = 1e30  # larger values are omitted, like NaN
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
SETTINGS = {"svg.fonttype": "none", "path.simplify": False, "font.size": 11, "font.sans-serif": ["DejaVu Sans"]}
COLOURS = {"soft": "#000001", "line": "#000002", "raw": "#000003", "accent": "#000004"}  # placeholders of CSS variables


def curve(title: str, steps: Sequence[float], values: Sequence[float], note: str = "") -> Markup:
    """Draw one curve, and return an HTML figure.

    The y axis is logarithmic if all values are positive and span more than two decades.

    Parameters
    ----------
    title, note:
        Texts above and below the curve.
    steps, values:
        Sequences of equal length. NaN, infinite and extremely large values are omitted, with a note.
    """
    points = np.array([steps, values], dtype=np.float64).reshape(2, -1)  # (2, n)
    drawable = (np.abs(points) < LARGEST).all(axis=0)  # False for NaN
    omitted = int((~drawable).sum())
    points = points[:, drawable]
    if omitted:
        note = f"{note}{'; ' if note else ''}{omitted} not finite, omitted"
    last, label, drawing = "no values", "", None
    if points.size:
        (first_step, first), (last_step, final) = [[short(number) for number in points[:, end]] for end in (0, -1)]
        last = f"last {final}"
        label = f"{title}: {first} at step {first_step}, {final} at step {last_step}"
        drawing = _drawing(*points)
    return render(
        "curve.html", title=title, last=last, note=note, label=label, drawing=drawing, width=WIDTH, height=HEIGHT
    )


def _drawing(steps: np.ndarray, values: np.ndarray) -> Markup:
    """Draw finite steps and values, (n,) each, and return the content of an SVG element."""
    from matplotlib import style  # imported here: slow, and only reports need it
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator

    groups = np.array_split(np.arange(len(steps)), min(BINS, len(steps)))
    middle = np.array([[steps[group].mean(), values[group].mean()] for group in groups]).T  # (2, groups)
    with style.context(SETTINGS, after_reset=True):  # excludes the user's matplotlib settings
        figure = Figure((WIDTH / 72, HEIGHT / 72), frameon=False)
        size = ((RIGHT - LEFT) / WIDTH, (BOTTOM - TOP) / HEIGHT)
        axes = figure.add_axes((LEFT / WIDTH, 1 - BOTTOM / HEIGHT, *size), frameon=False)
        is_log = values.max() > 100 * values.min() > 0
        axes.set_yscale("log" if is_log else "linear")
        lines = [(*middle[:1], running_mean(middle[1]), COLOURS["accent"], 2)]
        if len(values) >= WINDOW:  # otherwise the mean equals the values
            ends = np.unique([group[pick(values[group])] for group in groups for pick in (np.argmin, np.argmax)])
            lines.insert(0, (steps[ends], values[ends], COLOURS["raw"], 1))
        for x, y, colour, width in lines:
            if len(x) == 1:  # a line from a point to itself is visible as a dot
                x, y = x.repeat(2), y.repeat(2)
            axes.plot(x, y, color=colour, linewidth=width, solid_capstyle="round", clip_on=False)
        axes.set_xlim(min(0.0, float(steps.min())), max(1.0, float(steps.max())))
        nice = MaxNLocator(5, steps=[1, 2, 5, 10])
        for axis, locator in ((axes.xaxis, nice), (axes.yaxis, LogLocator(numticks=6) if is_log else nice)):
            low, high = axis.get_view_interval()
            ticks = [tick for tick in locator.tick_values(low, high) if low <= tick <= high]
            axis.set_ticks(ticks, labels(ticks))
        axes.minorticks_off()
        axes.tick_params(bottom=False, left=False, labelcolor=COLOURS["soft"])
        axes.grid(axis="y", color=COLOURS["line"], linewidth=1, clip_on=False)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata=dict.fromkeys(["Creator", "Date", "Format", "Type"]))
    inside = re.sub(r"^.*?<svg.*?>|<defs>.*?</defs>|</svg>\s*$", "", text.getvalue(), flags=re.DOTALL)
    inside = re.sub(r' id="[^"]*"', "", inside)  # identifiers must be unique in a page
    for name, colour in COLOURS.items():
        inside = inside.replace(colour, f"var(--{name})")
    return Markup(inside)


def short(value: float) -> str:
    """Return a number as a short text: 0.31, 12, 3400, 50k, 2·10⁻⁷."""
    size = abs(value)
    if value == 0:
        return "0"
    if 1e-3 <= size < 1e4:
        return f"{value:.0f}" if size >= 100 else f"{value:.3g}"
    if 1e4 <= size < 1e6:
        return f"{value / 1e3:.4g}k"
    factor, _, exponent = f"{value:.1e}".partition("e")
    power = f"10{str(int(exponent)).translate(SUPERSCRIPTS)}"
    return power if factor == "1.0" else f"{factor.removesuffix('.0')}·{power}"


def labels(ticks: Sequence[float]) -> list[str]:
    """Return short texts of ticks, with enough digits to be distinct."""
    texts = [short(tick) for tick in ticks]
    digits = 4
    while len(set(texts)) < len(ticks) and digits < 17:
        texts = [f"{tick:.{digits}g}" for tick in ticks]
        digits += 1
    return texts


def running_mean(values: np.ndarray) -> np.ndarray:
    """Return the running mean (n,) of values (n,); the window is cut off at the ends."""
    window = len(values) // WINDOW // 2 * 2 + 1
    weights = np.ones(window)
    return np.convolve(values, weights, "same") / np.convolve(np.ones(len(values)), weights, "same")
