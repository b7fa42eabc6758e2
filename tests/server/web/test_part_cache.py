"""Rendered once per (what is shown, revision)."""

from wavegate_server.web.part_cache import PartCache


class Maker:
    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> str:
        self.made += 1
        return f"text {self.made}"


def test_the_same_view_of_the_same_revision_is_made_once() -> None:
    cache, maker = PartCache(clock=lambda: 0.0), Maker()
    assert [cache.get("a", 1, maker) for _ in range(3)] == ["text 1"] * 3
    assert cache.get("a", 2, maker) == "text 2"
    assert cache.get("b", 2, maker) == "text 3"


def test_an_old_text_is_made_anew() -> None:
    now = [0.0]
    cache, maker = PartCache(keep_s=4, clock=lambda: now[0]), Maker()
    cache.get("a", 1, maker)
    now[0] = 3.9
    assert cache.get("a", 1, maker) == "text 1"
    now[0] = 4.0
    assert cache.get("a", 1, maker) == "text 2"


def test_it_does_not_grow_without_end() -> None:
    cache, maker = PartCache(clock=lambda: 0.0), Maker()
    for revision in range(200):
        cache.get("a", revision, maker)
    assert cache.get("a", 199, maker) == "text 200"
    assert cache.get("a", 0, maker) == "text 201"
