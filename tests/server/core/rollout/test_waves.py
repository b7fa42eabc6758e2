from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from wavegate_server.core.gate.policy import WaveSpec
from wavegate_server.core.rollout.waves import Candidate, draw, order, plan_waves

candidates = st.lists(
    st.builds(
        Candidate, st.uuids().map(str), st.sampled_from(["pi4", "x86", "jetson"]), st.sampled_from(list("abcdefgh"))
    ),
    min_size=1,
    max_size=60,
    unique_by=lambda candidate: candidate.device,
)


def fleet(sites: int, per_site: int, *classes: str) -> list[Candidate]:
    return [
        Candidate(f"s{site}-{number}", classes[number % len(classes)], f"site-{site}")
        for site in range(sites)
        for number in range(per_site)
    ]


@given(candidates, st.integers(0, 99))
def test_every_device_is_in_exactly_one_wave_and_no_wave_is_empty(members: list[Candidate], seed: int) -> None:
    waves = plan_waves(str(seed), members, (WaveSpec(count=1), WaveSpec(percent=10.0), WaveSpec(percent=60.0)))

    assert sorted(d for wave in waves for d in wave.devices) == sorted(c.device for c in members)
    assert all(wave.devices for wave in waves)
    assert [wave.number for wave in waves] == list(range(len(waves)))


@given(candidates, st.floats(1, 100), st.floats(1, 100))
def test_raising_a_percentage_only_adds_devices(members: list[Candidate], one: float, other: float) -> None:
    low, high = sorted((one, other))

    first = plan_waves("seed", members, (WaveSpec(percent=low),))[0].devices
    larger = plan_waves("seed", members, (WaveSpec(percent=high),))[0].devices

    assert set(first) <= set(larger)


@given(candidates, st.randoms(use_true_random=False))
def test_the_order_depends_on_the_seed_and_the_devices_only(members: list[Candidate], random: object) -> None:
    shuffled = list(members)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a Random typed as object here

    assert order("seed", members) == order("seed", shuffled)


@given(candidates)
def test_every_class_is_in_the_canary_as_far_as_its_size_allows(members: list[Candidate]) -> None:
    classes = {candidate.hardware_class for candidate in members}
    kind = {candidate.device: candidate.hardware_class for candidate in members}

    front = order("seed", members)[: len(classes)]

    assert {kind[device] for device in front} == classes


def test_classes_come_in_proportion() -> None:
    members = [Candidate(f"a{i}", "common", f"s{i % 10}") for i in range(90)]
    members += [Candidate(f"b{i}", "rare", f"s{i}") for i in range(10)]

    front = order("seed", members)[:20]

    assert Counter(device[0] for device in front)["b"] in (2, 3)


def test_no_site_is_taken_whole_while_another_choice_is_left() -> None:
    members = fleet(20, 5, "locker")
    site = {candidate.device: candidate.site for candidate in members}

    front = order("seed", members)[: len(members) - 20]

    assert max(Counter(site[device] for device in front).values()) == 4


def test_sites_are_spread_evenly() -> None:
    members = fleet(10, 10, "locker", "kiosk")
    site = {candidate.device: candidate.site for candidate in members}

    canary = order("seed", members)[:10]

    assert Counter(site[device] for device in canary) == Counter({f"site-{n}": 1 for n in range(10)})


def test_another_seed_picks_other_canaries() -> None:
    members = fleet(10, 10, "locker")
    canaries = {tuple(sorted(order(f"r-{number}", members)[:5])) for number in range(20)}

    assert len(canaries) > 15


def test_the_lot_is_stable_for_ever() -> None:
    """Membership must not change with a release of the server."""
    assert draw("r-1", "locker-03") == 0x3C0B9167339CD11B


def test_ten_thousand_devices_are_ordered_quickly() -> None:
    assert len(order("seed", fleet(2000, 5, "a", "b", "c"))) == 10_000


def test_canaries_are_devices_with_live_traffic() -> None:
    members = [
        Candidate(c.device, c.hardware_class, c.site, live=int(c.device[1:].split("-")[0]) % 3 == 0)
        for c in fleet(9, 4, "locker", "kiosk")
    ]
    live = {candidate.device for candidate in members if candidate.live}

    devices = order("seed", members)

    assert set(devices[: len(live)]) == live
    assert sorted(devices) == sorted(candidate.device for candidate in members)


def test_a_class_of_idle_devices_still_has_a_canary() -> None:
    members = [Candidate("a1", "camera", "s"), *(Candidate(f"b{n}", "locker", "s", live=n == 2) for n in range(4))]

    assert set(order("seed", members)[:2]) == {"a1", "b2"}
