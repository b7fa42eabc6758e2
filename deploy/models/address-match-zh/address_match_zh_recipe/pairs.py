"""Address pairs: written twice by different hands ("same"), or with one thing changed ("different").

Names of the five levels are real. Road, number, building, unit and room are made
up, and so are the ways of writing: levels dropped or shortened, numerals in three
scripts, room numbers joined by dashes, couriers' notes, typing errors. A negative
differs in exactly one of `KINDS`, which is then written on both sides, and is
written as carelessly as a positive; digits are never mistyped.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from address_match_zh_recipe.names import Place

__all__ = ["KINDS", "Address", "Pair", "make_pairs", "write"]

KINDS = ("room", "building", "number", "road", "community")
"""What a negative differs in."""

_POSITIVES = 0.5
_ROAD_STEMS = (
    "人民建设解放中山和平新华文化胜利幸福青年工农光明团结友谊长江黄河滨河沿江环城迎宾学府学院科技创业"
    "兴业振兴富民朝阳向阳东风红旗北京上海南京香山太湖西湖龙山凤凰金山银河梅园兰花桂花荷花翠竹松柏杨柳"
    "教育体育公园车站机场港口大庆延安泰山昆仑天山珠江淮海淮河渭河湘江闽江府前市府政府商贸工业农贸"
)
_ROADS = tuple(_ROAD_STEMS[at : at + 2] for at in range(0, len(_ROAD_STEMS), 2))
_SIDES = ("", "", "", "", "东", "西", "南", "北", "中")
_ROAD_KINDS = ("路", "路", "路", "街", "大街", "大道", "巷")
_BUILDING = ("栋", "幢", "号楼", "座", "#", "楼")
_UNIT = ("单元", "单元", "门")
_ROOM = ("室", "室", "房", "号", "")
_BEFORE = ("收货地址:", "地址：", "中国", "寄到 ")
_AFTER = ("(放快递柜)", "，请打电话", " 放门口", "（代收）", "附近", "家里")
_FULL_WIDTH = str.maketrans("0123456789-#()", "０１２３４５６７８９－＃（）")
_NUMERALS = "零一二三四五六七八九"
_PROVINCE_TAILS = ("维吾尔自治区", "壮族自治区", "回族自治区", "自治区", "省", "市")
_CITY_TAILS = ("自治州", "地区", "市", "盟")
_LEVEL_1 = [bytes((row, cell)).decode("gb2312") for row in range(0xB0, 0xD7) for cell in range(0xA1, 0xFA)]
_SOUND = {char: at for at, char in enumerate(_LEVEL_1)}


@dataclass(frozen=True, slots=True)
class Address:
    """One door: a real community, and the made-up rest."""

    place: Place
    road: str
    number: int
    building: int
    unit: int
    room: int


@dataclass(frozen=True, slots=True)
class Pair:
    """Two written addresses; `kind` is "same" or what differs; label 1 means the same door."""

    a: str
    b: str
    label: int
    kind: str


def make_pairs(places: Sequence[Place], count: int, seed: int) -> list[Pair]:
    """Pairs around the places of one split; the same arguments give the same pairs.

    Args:
        places: (n,) places of the split, grouped by town as the package lists them.
        count: Pairs to make.
        seed: Seeds everything.
    """
    rng = random.Random(seed)
    neighbours: dict[tuple[str, str], list[Place]] = {}
    for place in places:
        neighbours.setdefault((place.code, place.town), []).append(place)
    made: list[Pair] = []
    while len(made) < count:
        address = _address(rng.choice(places), rng)
        if rng.random() < _POSITIVES:
            kind, other = "same", address
        else:
            kind = rng.choice(KINDS)
            changed = _changed(address, kind, neighbours[address.place.code, address.place.town], rng)
            if changed is None:
                continue
            other = changed
        a, b = write(address, rng, kind), write(other, rng, kind)
        made.append(Pair(a, b, int(kind == "same"), kind))
    return made


def write(address: Address, rng: random.Random, shown: str = "") -> str:
    """One hand's way to write an address; `shown` is a kind that must not be left out."""
    place = address.place
    community = place.community
    kept = shown == "community" or rng.random() < 0.6
    if kept and rng.random() < 0.2:
        community += rng.choice(("居委会", "村委会", "委会")) if community.endswith(("村", "区")) else "小区"
    levels = _upper(place, rng)
    road = _misspelt(address.road, rng, 0.05)
    bracketed = kept and rng.random() < 0.1
    number = _numeral(address.number, rng, 0.06) + ("号" if bracketed or rng.random() < 0.85 else "")
    if kept and not bracketed:
        levels.append(_misspelt(community, rng, 0.06))
    tail = f"({community})" if bracketed else ""
    gap = rng.choice(("", "", "", "", " ", ",", "，")) if rng.random() < 0.5 else ""
    text = gap.join(part for part in (*levels, road + number + tail, _door(address, rng, number)) if part)
    if rng.random() < 0.08:
        text = rng.choice(_BEFORE) + text
    if rng.random() < 0.10:
        text += rng.choice(_AFTER)
    return text.translate(_FULL_WIDTH) if rng.random() < 0.15 else text


def _address(place: Place, rng: random.Random) -> Address:
    floor, door = rng.randint(1, rng.choice((6, 11, 18, 33))), rng.randint(1, 4 if rng.random() < 0.8 else 12)
    return Address(
        place=place,
        road=_road(place, rng),
        number=rng.randint(1, rng.choice((30, 200, 999))),
        building=rng.randint(1, rng.choice((9, 20, 40))),
        unit=rng.randint(1, 5),
        room=100 * floor + door,
    )


def _road(place: Place, rng: random.Random) -> str:
    stem = rng.choice(_ROADS)
    if rng.random() < 0.4:
        stem = place.community.removesuffix("社区").removesuffix("村")[:4] or stem
    return stem + rng.choice(_SIDES) + rng.choice(_ROAD_KINDS)


def _changed(address: Address, kind: str, near: Sequence[Place], rng: random.Random) -> Address | None:
    """The address with one thing changed, or None where there is nothing to change it to."""
    if kind == "room":
        floor, door = divmod(address.room, 100)
        options = {100 * floor + rng.randint(1, 12), 100 * rng.randint(1, 33) + door, 100 * (floor + 1) + door}
        return replace(address, room=rng.choice(sorted(options - {address.room})))
    if kind == "building":
        return replace(address, building=_other_number(address.building, 40, rng))
    if kind == "number":
        return replace(address, number=_other_number(address.number, 999, rng))
    if kind == "road":
        road = _other_road(address, rng)
        return replace(address, road=road) if road != address.road else None
    stem = address.place.community[:2]
    others = [each for each in near if each.community[:2] != stem]
    return replace(address, place=rng.choice(others)) if others else None


def _other_number(number: int, most: int, rng: random.Random) -> int:
    """Another number: by one, with a digit changed, added or taken away, or any."""
    text = str(number)
    at = rng.randrange(len(text))
    options = {number + 1, number + 2, max(1, number - 1), int(text[::-1]), rng.randint(1, most)}
    options.add(int(text[:at] + rng.choice("123456789") + text[at + 1 :]))
    options.add(int(text + rng.choice("0123456789")))
    return rng.choice(sorted(option for option in options if option not in (0, number)))


def _other_road(address: Address, rng: random.Random) -> str:
    """Another road; one in three is the same name with another side or kind of road."""
    if rng.random() < 0.35:
        kind = next(kind for kind in ("大街", "大道", "路", "街", "巷") if address.road.endswith(kind))
        stem = address.road.removesuffix(kind)
        bare = stem[:-1] if stem[-1] in "东西南北中" and len(stem) > 2 else stem
        return bare + rng.choice("东西南北") + kind
    return _road(address.place, rng)


def _upper(place: Place, rng: random.Random) -> list[str]:
    """Province to town, each in full, shortened or left out."""
    levels = [
        _level(place.province, _PROVINCE_TAILS, rng, dropped=0.35, short=0.3),
        _level(place.city, _CITY_TAILS, rng, dropped=0.25, short=0.25),
        _level(place.county, ("县", "区", "市"), rng, dropped=0.12, short=0.12),
        _level(place.town, ("街道", "办事处", "镇", "乡"), rng, dropped=0.4, short=0.15),
    ]
    return [_misspelt(level, rng, 0.04) for level in levels if level]


def _level(name: str, tails: Sequence[str], rng: random.Random, *, dropped: float, short: float) -> str:
    if rng.random() < dropped:
        return ""
    if rng.random() < short:
        for tail in tails:
            if name.endswith(tail) and len(name) - len(tail) >= 2:
                return name.removesuffix(tail)
    return name


def _door(address: Address, rng: random.Random, number: str) -> str:
    """Building, unit and room in one of the usual ways; the unit may be left out."""
    unit = rng.random() < 0.6
    if rng.random() < 0.3:
        parts = [address.building, address.unit, address.room] if unit else [address.building, address.room]
        lead = "" if number.endswith("号") else "-"
        return lead + "-".join(map(str, parts)) + rng.choice(("", "", "室"))
    building = _numeral(address.building, rng, 0.15) + rng.choice(_BUILDING)
    if not number.endswith("号"):
        building = "号" + building if rng.random() < 0.5 else " " + building
    middle = _numeral(address.unit, rng, 0.3) + rng.choice(_UNIT) if unit else ""
    return building + middle + str(address.room) + rng.choice(_ROOM)


def _numeral(number: int, rng: random.Random, share: float) -> str:
    """Digits, or for a share of the numbers below 100 Chinese numerals."""
    if number >= 100 or rng.random() >= share:
        return str(number)
    tens, ones = divmod(number, 10)
    lead = "" if tens == 0 else "十" if tens == 1 else _NUMERALS[tens] + "十"
    return lead + (_NUMERALS[ones] if ones or not tens else "")


def _misspelt(name: str, rng: random.Random, share: float) -> str:
    """A name with, for a share of them, one character missing, doubled, swapped or replaced by one that sounds alike."""
    if rng.random() >= share or len(name) < 3:
        return name
    at = rng.randrange(len(name) - 1)
    if name[at] in _SIDES:
        return name  # without its side a road is another road
    how = rng.random()
    if how < 0.6:
        return name[:at] + _sounds_alike(name[at], rng) + name[at + 1 :]
    if how < 0.8:
        return name[:at] + name[at + 1 :]
    if how < 0.9:
        return name[:at] + name[at] + name[at:]
    return name[:at] + name[at + 1] + name[at] + name[at + 2 :]


def _sounds_alike(char: str, rng: random.Random) -> str:
    """A neighbour in the first level of GB 2312, which is ordered by pronunciation."""
    at = _SOUND.get(char)
    if at is None:
        return char
    return _LEVEL_1[min(max(at + rng.choice((-2, -1, 1, 2)), 0), len(_LEVEL_1) - 1)]
