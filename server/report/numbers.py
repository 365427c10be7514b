"""How numbers are written: `.86`, `−.03`, `.82–.90`; what does not exist is a dash, never a zero."""

from __future__ import annotations

__all__ = ["DASH", "at_most", "count", "decimal", "duration", "interval", "mean", "precision_for", "signed", "span"]

from collections.abc import Iterable

DASH = "–"
_MINUS = "−"


def decimal(value: float | None, *, places: int = 2) -> str:
    """`.86`, `1.00`, `−.12`; a dash for None. No leading zero, and never a negative zero."""
    if value is None:
        return DASH
    text = f"{abs(value):.{places}f}"
    shown = text[1:] if text.startswith("0.") else text
    return (_MINUS if value < 0 and float(text) > 0 else "") + shown


def signed(value: float | None, *, places: int = 2) -> str:
    """A difference: `+.06`, `−.01`, `.00`."""
    text = decimal(value, places=places)
    return f"+{text}" if value is not None and value > 0 and float(f"{value:.{places}f}") > 0 else text


def interval(low: float | None, high: float | None, *, places: int = 2) -> str:
    """`.82–.90`; a dash where either bound does not exist."""
    if low is None or high is None:
        return DASH
    return f"{decimal(low, places=places)}–{decimal(high, places=places)}"


def span(low: float, high: float, *, places: int = 2) -> str:
    """The interval of a difference: `−.03 to .01`."""
    return f"{decimal(low, places=places)} to {decimal(high, places=places)}"


def precision_for(*values: float | None) -> int:
    """Decimal places, 2 to 4, at which no non-zero value is shown as zero: the sign of a bound must be readable."""
    shown = [abs(value) for value in values if value]
    return next((places for places in (2, 3) if all(round(value, places) > 0 for value in shown)), 4)


def at_most(error: float) -> str:
    """A largest error: `± .18`, `± .0004`, `± < .0001`."""
    places = precision_for(error)
    return f"± {decimal(error, places=places)}" if round(error, places) > 0 or error == 0 else "± < .0001"


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the values that exist; None where none does."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def count(number: int | float | None) -> str:
    """`12 800`, with narrow spaces; a dash for None."""
    return DASH if number is None else f"{round(number):,}".replace(",", "\u202f")


def duration(seconds: float) -> str:
    """`4 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
