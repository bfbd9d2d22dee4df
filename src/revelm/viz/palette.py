"""Colours that mean something: the scale of reveal steps, and the distinct colours of chart series.

The step scale runs from dark to light, so that order survives greyscale printing and colour blindness. Chart
colours read on light and dark backgrounds alike.
"""

STEP_STOPS: tuple[str, ...] = ("#4b4a9e", "#3477a0", "#239a94", "#3fbc73", "#9ad83c", "#fde725")
SERIES_COLOURS: tuple[str, ...] = (
    "#3b7dd8",
    "#e0702f",
    "#2f9e66",
    "#a35bc9",
    "#c9476b",
    "#8a8f2f",
    "#2aa3b3",
    "#8c6d5a",
)


def step_fraction(step: int, num_steps: int) -> float:
    """Place of ``step`` (1-based) on the scale, in [0, 1]."""
    if num_steps <= 1:
        return 0.0
    return min(max((step - 1) / (num_steps - 1), 0.0), 1.0)


def step_colour(fraction: float) -> str:
    """Hex colour at ``fraction`` in [0, 1] of the step scale, linear in sRGB between the stops."""
    place = min(max(fraction, 0.0), 1.0) * (len(STEP_STOPS) - 1)
    left = min(int(place), len(STEP_STOPS) - 2)
    weight = place - left
    low, high = _channels(STEP_STOPS[left]), _channels(STEP_STOPS[left + 1])
    return "#" + "".join(f"{round(a + (b - a) * weight):02x}" for a, b in zip(low, high, strict=True))


def ink_on(colour: str) -> str:
    """The text colour, near black or white, with the higher WCAG contrast on hex ``colour``."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in _channels(colour))]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#ffffff" if (1.05 / (luminance + 0.05)) >= ((luminance + 0.05) / 0.058) else "#14181f"


def series_colour(index: int) -> str:
    """Hex colour of the ``index``-th series of a chart (repeats after the last)."""
    return SERIES_COLOURS[index % len(SERIES_COLOURS)]


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
