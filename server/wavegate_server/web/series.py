"""Chart data as JSON: the same columns as the read model, rounded to what a chart can show."""

import msgspec
from fastapi import APIRouter, Request, Response

from wavegate_server.adapters.reads.series import RANGES, DeviceSeries, device_series
from wavegate_server.web.page_context import PageContext
from wavegate_server.web.render import packed

__all__ = ["add_series"]

_DIGITS = 4


def add_series(router: APIRouter, desk: PageContext) -> None:
    """`GET /series/device/{id}?range=1h`."""

    @router.get("/series/device/{device_id}")
    def device(request: Request, device_id: str) -> Response:
        desk.principal(request)
        range_s = RANGES.get(request.query_params.get("range", ""), RANGES["1h"])
        with desk.session() as session:
            series = device_series(
                session, desk.now(), device_id, range_s=range_s, model=request.query_params.get("model") or None
            )
        return packed(request, series_json(series), "application/json")


def series_json(series: DeviceSeries) -> bytes:
    """The columns a chart draws, floats to four significant digits."""
    columns = {
        name: _rounded(getattr(series, name))
        for name in ("p50_ms", "p95_ms", "p99_ms", "score", "rate_per_s", "rss_mb", "anon_mb")
    }
    body = {
        "start": series.start_s,
        "end": series.end_s,
        "step": series.step_s,
        "t": series.t,
        **columns,
        "swaps": [{"t": round(swap.at_s, 1), "version": swap.version, "kind": swap.kind} for swap in series.swaps],
    }
    return msgspec.json.encode(body)


def _rounded(column: tuple[float | None, ...]) -> list[float | None]:
    return [None if value is None else float(f"{value:.{_DIGITS}g}") for value in column]
