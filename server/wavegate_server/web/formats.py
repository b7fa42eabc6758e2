"""Numbers as people read them: three significant digits, one unit, a dash for what was not measured. Pure."""

from wavegate_shared.metrics import Metric

__all__ = ["NONE", "count", "metric", "milliseconds", "number", "percent", "points", "rate", "signed", "size"]

NONE = "–"
_SIZES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def number(value: float | None) -> str:
    """Three significant digits, never an exponent."""
    if value is None:
        return NONE
    if value == 0:
        return "0"
    for limit, digits in ((0.0995, 3), (9.995, 2), (99.95, 1)):
        if abs(value) < limit:
            return f"{value:.{digits}f}"
    return f"{value:,.0f}"


def milliseconds(value: float | None) -> str:
    """A latency given in ms."""
    if value is None:
        return NONE
    return f"{number(value)} ms" if value < 9_999.5 else f"{number(value / 1000)} s"


def percent(value: float | None, digits: int = 1) -> str:
    """A share as per cent; one digit more below 2 %, where error shares live."""
    if value is None:
        return NONE
    return f"{100 * value:.{digits + (0 < abs(value) < 0.02)}f} %"


def points(value: float | None) -> str:
    """A difference of shares, in percentage points, with its sign."""
    return NONE if value is None else f"{100 * value:+.2f}".replace("-", "−") + " pt"


def signed(value: float | None) -> str:
    """A number with its sign."""
    return NONE if value is None else ("+" if value >= 0 else "−") + number(abs(value))


def count(value: int | None) -> str:
    """A whole number with thousands."""
    return NONE if value is None else f"{value:,}"


def rate(value: float | None) -> str:
    """Something per second."""
    return NONE if value is None else f"{number(value)}/s"


def size(value: float | None) -> str:
    """Bytes in decimal units."""
    if value is None:
        return NONE
    for unit, name in _SIZES:
        if value >= unit:
            return f"{number(value / unit)} {name}"
    return f"{value:.0f} B"


def metric(value: float | None, kind: Metric | None) -> str:
    """A metric's value in its unit; shares as per cent."""
    if value is None:
        return NONE
    return percent(value) if kind is None or kind.unit == "share" else f"{number(value)} {kind.unit}"
