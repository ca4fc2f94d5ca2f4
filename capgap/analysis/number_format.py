"""Number formats of sentences: intervals in percent or points, minus signs."""

import math


def format_with_interval(value: float, low: float, high: float, unit: str = "%") -> str:
    """``92 % [88, 95]`` from shares; a decimal where the interval would vanish without it."""
    half_width = (high - low) / 2
    digits = 0 if not math.isfinite(half_width) or half_width >= 0.01 else 1
    end_texts = [format_share_hundredths(end, digits) if math.isfinite(end) else "open" for end in (low, high)]
    return f"{format_share_hundredths(value, digits)} {unit} [{', '.join(end_texts)}]"


def format_share_hundredths(share: float, digits: int) -> str:
    """A share in hundredths, with a minus that is one, and none before a zero."""
    text = f"{100 * share:.{digits}f}"
    text = text.removeprefix("-") if float(text) == 0 else text
    return text.replace("-", "−")


def format_points(points: float) -> str:
    """A number of points without digits that say nothing."""
    return f"{points:.0f}" if points >= 9.5 else f"{points:.1f}".removesuffix(".0")
