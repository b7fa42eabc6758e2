"""Chart data."""

from fastapi.testclient import TestClient


def test_columns_are_of_one_length_and_the_swap_is_marked(client: TestClient) -> None:
    series = client.get("/series/device/locker-hz-01?range=1h").json()
    assert {len(series[name]) for name in ("t", "p50_ms", "p95_ms", "p99_ms", "score", "rate_per_s", "rss_mb")} == {
        len(series["t"])
    }
    assert [(swap["version"], swap["kind"]) for swap in series["swaps"]] == [(5, "swap")]
    assert 0 < len(series["t"]) <= 1500


def test_an_unknown_range_is_an_hour_and_an_unknown_device_a_404(client: TestClient) -> None:
    series = client.get("/series/device/locker-hz-01?range=century").json()
    assert series["end"] - series["start"] == 3600
    assert client.get("/series/device/nope").status_code == 404
