"""How people write durations, waves, margins and device filters on the command line, and what that means in the API.

Pure: text in, values out. A text that does not fit raises UsageError `invalid` with an example of one that does.
"""

import math
import re
from typing import Any

from wavegate_shared.errors import UsageError

__all__ = ["parse_baseline", "parse_devices", "parse_duration", "parse_labels", "parse_margins", "parse_waves"]

_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(ms|s|min|m|h|d)")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def parse_duration(text: str, *, bare: str = "") -> float:
    """Seconds of `15m`, `2s`, `1h30m`, `500ms`, `2d`: the one grammar of every option that takes a duration.

    Args:
        text: what was written; blanks around it do not matter.
        bare: the unit of a number without one, as `m`; empty: such a number is refused.

    Raises:
        UsageError: `invalid`, with examples.
    """
    compact = text.strip()
    if bare and _NUMBER.fullmatch(compact):
        compact += bare
    parts = _DURATION.findall(compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact:
        raise UsageError("invalid", f"invalid duration {text!r}: use 90s, 10m, 1h30m or 2d")
    return math.fsum(float(number) * _UNIT_S[unit] for number, unit in parts)


def parse_baseline(text: str, block_s: float) -> int:
    """Number of baseline blocks of `96` (blocks) or `24h` (as many blocks as cover it)."""
    return int(text) if text.isdecimal() else math.ceil(parse_duration(text) / block_s)


def parse_waves(text: str) -> list[dict[str, Any]]:
    """Waves of `canary=1,10%,half=50%,rest`: devices more, or per cent of all reached so far; `rest` is everybody else."""
    waves: list[dict[str, Any]] = []
    for item in _items(text):
        name, equals, size = item.rpartition("=")
        if not equals and item == "rest":
            waves.append({"name": "rest", "percent": 100.0})
        elif size.endswith("%") and _NUMBER.fullmatch(size[:-1]):
            waves.append(_named(name, {"percent": float(size[:-1])}))
        elif size.isdecimal():
            waves.append(_named(name, {"count": int(size)}))
        else:
            raise UsageError("invalid", f"{item!r} is no wave; write canary=1,10%,rest")
    return waves


def parse_margins(items: list[str]) -> dict[str, float]:
    """Margins of `accuracy=0.5pt`, `errors=1%` or `mean_absolute_error=0.2`: points and per cent are hundredths."""
    margins = {}
    for item in items:
        name, equals, size = item.partition("=")
        number, share = (size[:-2], True) if size.endswith("pt") else (size.removesuffix("%"), size.endswith("%"))
        if not (equals and name and _NUMBER.fullmatch(number)):
            raise UsageError("invalid", f"{item!r} is no margin; write accuracy=0.5pt")
        margins[name] = round(float(number) / 100, 12) if share else float(number)
    return margins


def parse_labels(items: list[str]) -> dict[str, str]:
    """Labels of `ring=early`."""
    labels = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not (key and equals and value):
            raise UsageError("invalid", f"{item!r} is no label; write ring=early")
        labels[key] = value
    return labels


def parse_devices(text: str) -> dict[str, Any]:
    """A rollout's selection of `all`, `kiosk-1,kiosk-2` (ids) or `class=edge-a,site=berlin,label.ring=early,version=m:3`."""
    if text == "all":
        return {"all": True}
    items = _items(text)
    if not any("=" in item for item in items):
        return {"ids": items}
    chosen: dict[str, Any] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if equals and value and key in ("class", "site"):
            chosen[key] = value
        elif equals and value and key.startswith("label."):
            chosen.setdefault("labels", {})[key.removeprefix("label.")] = value
        elif key == "version" and re.fullmatch(r"[^:]+:\d+", value):
            model, _, number = value.partition(":")
            chosen |= {"model": model, "version": int(number)}
        else:
            raise UsageError(
                "invalid", f"{item!r} is no filter; write all, or class=edge-a,site=berlin,label.ring=early"
            )
    return {"filter": chosen}


def _items(text: str) -> list[str]:
    items = [item.strip() for item in text.split(",")]
    if not all(items):
        raise UsageError("invalid", f"{text!r} has an empty part between commas")
    return items


def _named(name: str, size: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, **size} if name else size
