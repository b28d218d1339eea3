"""Curves over training steps as inline SVG: the values pale, their running mean strong, on axes with round numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fsframework.report_html import Html, tag

WIDTH, HEIGHT = 360, 180
LEFT, RIGHT, TOP, BOTTOM = 46, 352, 8, 158  # of the drawing, in SVG units
BINS = 300  # groups of neighbouring values that are drawn; more would not be seen
WINDOW = 25  # a running mean spans a 25th of the curve
LARGEST = 1e30  # beyond it, a value is drawn no more than NaN is
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def curve(title: str, steps: Sequence[float], values: Sequence[float], note: str = "") -> Html:
    """A figure of one curve.

    The axis of the values is logarithmic where all are positive and span more than two decades.

    Parameters
    ----------
    title, note:
        Above the curve and below it.
    steps, values:
        As many of each. NaN, infinite and absurdly large values are left out, and the note says so.
    """
    found = np.array([steps, values], dtype=np.float64).reshape(2, -1)  # (2, n)
    drawable = (np.abs(found) < LARGEST).all(axis=0)  # False for NaN
    lost = int((~drawable).sum())
    found = found[:, drawable]
    if lost:
        note = f"{note}{'; ' if note else ''}{lost} not finite, left out"
    last = f"last {short(found[1, -1])}" if found.size else "no values"
    heading = tag("div", tag("strong", title), tag("span", last, class_="soft"), class_="chart-title")
    drawing = _svg(title, *found) if found.size else ""
    return tag("figure", heading, drawing, tag("figcaption", note) if note else "", class_="card")


@dataclass(frozen=True)
class Axis:
    """From values to SVG units, one way along."""

    low: float  # logarithms where `log`
    high: float
    start: float  # SVG units of low and of high
    end: float
    log: bool
    ticks: list[float]  # values

    def place(self, values: np.ndarray) -> np.ndarray:
        """SVG units of values (n,)."""
        scaled = np.log10(values) if self.log else values
        return self.start + (scaled - self.low) / (self.high - self.low) * (self.end - self.start)


def value_axis(values: np.ndarray) -> Axis:
    """The upright axis for finite values (n,), with a little room above and below."""
    least, most = float(values.min()), float(values.max())
    log = least > 0 and most / least > 100
    low, high = (math.log10(least), math.log10(most)) if log else (least, most)
    room = 0.05 * (high - low) or 0.1 * abs(low) or 1.0
    low, high = low - room, high + room
    ticks = decades(low, high) if log else round_steps(low, high, 5)
    return Axis(low, high, BOTTOM, TOP, log, ticks)


def decades(low: float, high: float) -> list[float]:
    """Powers of ten between two logarithms, six at most."""
    exponents = range(math.ceil(low), math.floor(high) + 1)
    return [10.0**exponent for exponent in exponents[:: -(-len(exponents) // 6) or 1]]


def round_steps(low: float, high: float, about: int) -> list[float]:
    """Round numbers from low to high: 1, 2 or 5 times a power of ten apart, about so many or fewer."""
    if high - low < 1e-300:  # too small to be divided
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step)
    return [(first + number) * step for number in range(math.floor(high / step) - first + 1)]


def short(value: float) -> str:
    """A number in few signs: 0.31, 12, 3400, 50k, 2·10⁻⁷."""
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
    """Ticks in few signs, but in enough to tell them apart."""
    written = [short(tick) for tick in ticks]
    digits = 4
    while len(set(written)) < len(ticks) and digits < 17:
        written = [f"{tick:.{digits}g}" for tick in ticks]
        digits += 1
    return written


def _svg(title: str, steps: np.ndarray, values: np.ndarray) -> Html:
    """The drawing of finite steps and values, (n,) each."""
    upright = value_axis(values)
    first, last = min(0.0, float(steps.min())), max(1.0, float(steps.max()))
    flat = Axis(first, last, LEFT, RIGHT, False, round_steps(first, last, 5))
    wanted = f"{title}: {short(values[0])} at step {short(steps[0])}, {short(values[-1])} at step {short(steps[-1])}"
    groups = np.array_split(np.arange(len(steps)), min(BINS, len(steps)))
    middle = np.array([[steps[group].mean(), values[group].mean()] for group in groups]).T  # (2, groups)
    mean = running_mean(middle[1])
    lines = [_path(flat, upright, middle[0], mean, "smooth")]
    if len(values) >= WINDOW:  # else the mean is the values
        ends = np.unique([group[pick(values[group])] for group in groups for pick in (np.argmin, np.argmax)])
        lines.insert(0, _path(flat, upright, steps[ends], values[ends], "raw"))
    return tag("svg", _grid(flat, upright), lines, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=wanted)


def running_mean(values: np.ndarray) -> np.ndarray:
    """The mean of each value (n,) and its neighbours, of fewer at the ends."""
    window = len(values) // WINDOW // 2 * 2 + 1
    weights = np.ones(window)
    return np.convolve(values, weights, "same") / np.convolve(np.ones(len(values)), weights, "same")


def _path(flat: Axis, upright: Axis, steps: np.ndarray, values: np.ndarray, look: str) -> Html:
    points = zip(flat.place(steps), upright.place(values), strict=True)
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return tag("path", d=f"M{line}{'h0' if len(steps) == 1 else ''}", class_=look)


def _grid(flat: Axis, upright: Axis) -> list[Html]:
    drawn = []
    for label, y in zip(labels(upright.ticks), upright.place(np.array(upright.ticks)), strict=True):
        drawn.append(tag("path", d=f"M{LEFT},{y:.1f}H{RIGHT}", class_="grid"))
        drawn.append(tag("text", label, x=LEFT - 6, y=f"{y + 4:.1f}", text_anchor="end"))
    for label, x in zip(labels(flat.ticks), flat.place(np.array(flat.ticks)), strict=True):
        anchor = "end" if x > RIGHT - 12 else "middle"
        drawn.append(tag("text", label, x=f"{x:.1f}", y=HEIGHT - 6, text_anchor=anchor))
    return drawn
