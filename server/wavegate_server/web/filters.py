"""The fleet page's filters: from the URL, and back to the shortest URL that says the same. Pure.

A filter that does not parse is left out rather than refused: a hand-edited link still shows devices.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from wavegate_server.adapters.reads.fleet import DeviceFilter, Health

__all__ = ["FleetView", "fleet_view"]

_TEXT_MAX = 100


@dataclass(frozen=True, slots=True)
class FleetView:
    """What the fleet page shows: a filter and a position in the list."""

    chosen: DeviceFilter
    cursor: str | None = None

    @property
    def active(self) -> bool:
        """Whether any filter is set."""
        return self.chosen != DeviceFilter()

    def url(self, **changes: object) -> str:
        """The page's URL with some filters changed; the list then starts at its beginning. `cursor=` moves in it."""
        cursor = changes.pop("cursor", None)
        chosen = replace(self.chosen, **changes)  # type: ignore[arg-type]  # templates name fields of DeviceFilter
        version = f"{chosen.model}:{chosen.version or ''}".rstrip(":") if chosen.model else None
        values = {
            "q": chosen.text,
            "health": chosen.health.value if chosen.health else None,
            "class": chosen.hardware_class,
            "site": chosen.site,
            "version": version,
            "cursor": cursor,
        }
        query = urlencode({name: value for name, value in values.items() if value})
        return f"/fleet?{query}" if query else "/fleet"

    def here(self) -> str:
        """The shortest URL of exactly this view."""
        return self.url(cursor=self.cursor)


def fleet_view(query: Mapping[str, str]) -> FleetView:
    """Read the URL's query: q, health, class, site, version (`model` or `model:number`), cursor."""
    model, _, number = query.get("version", "").partition(":")
    health = query.get("health", "")
    chosen = DeviceFilter(
        text=query.get("q", "").strip()[:_TEXT_MAX],
        health=Health(health) if health in set(Health) else None,
        hardware_class=query.get("class") or None,
        site=query.get("site") or None,
        model=model or None,
        version=int(number) if number.isdecimal() and len(number) < 10 else None,
    )
    return FleetView(chosen, query.get("cursor") or None)
