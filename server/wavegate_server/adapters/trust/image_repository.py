"""The image repository (TUF): which versions exist and are valid.

Roles: `root` (2 of 3) -> `targets` (delegations, director's keys, `min_seq`) -> `release/<model>` (paths `<model>/*`) and
`bench/<class>` (paths `bench/<class>/*`, candidates that never go live); `snapshot` and `timestamp` are online. The target of
a version is its manifest. `system/director.json` is a target too, but devices read it from its `custom` field in targets.json
and fetch nothing more.

Not here: files and crash safety (`adapters/trust/repository_files`), signing one change (`adapters/trust/repository_change`), key rotation (`adapters/trust/key_rotation`).
Source: TUF specification 1.0.34; Uptane standard 2.0 for the split between this repository and the director.
"""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Root, TargetFile, Targets

from wavegate_server.adapters.trust.keystore import ROOT_ROLES, KeyStore
from wavegate_server.adapters.trust.repository_change import EXPIRY, Change, expiry_of, sign
from wavegate_server.adapters.trust.repository_files import RepositoryFiles
from wavegate_shared.errors import TrustError, UsageError
from wavegate_shared.manifest import MODEL_NAME, Manifest, decode_manifest, target_path

__all__ = ["DIRECTOR_TARGET", "RESERVED_MODELS", "RESIGN_EVERY", "ImageRepository"]

DIRECTOR_TARGET = "system/director.json"
RESERVED_MODELS = frozenset({"system", "bench", "targets", "metadata"})
"""Names that stand for other things in target paths."""
RESIGN_EVERY = timedelta(hours=6)
"""How often the timestamp is signed anew: an installation that is off for less than 42 hours never expires."""
_ROOT_THRESHOLD = 2


class ImageRepository:
    """TUF metadata and targets below one directory; safe between threads and processes (file lock)."""

    def __init__(self, directory: Path, keystore: KeyStore) -> None:
        self.store = RepositoryFiles(directory)
        self.keys = keystore
        self._versions: tuple[bytes, dict[str, int]] = (b"", {})

    def init(self, now: datetime) -> None:
        """Create root (2 of 3), targets, snapshot and timestamp; a repeated call changes nothing.

        Raises:
            UsageError: `key_missing`.
        """
        with self.store.changing():
            if self.store.ready:
                return
            if self.store.root_version() == 0:
                self.store.write_root(self._first_root(now))
            change = Change(self.store, self.keys, now)
            change.edit("targets").delegations = Delegations(keys={}, roles={})
            set_director(change, director_document(self.keys, {}))
            change.commit()

    def ensure_model(self, model: str, now: datetime) -> None:
        """Delegate `<model>/*` to role `release/<model>`, unless it is; a new key of the role is taken over.

        Raises:
            UsageError: `invalid` for a name that cannot be a model's, `key_missing`.
        """
        if MODEL_NAME.fullmatch(model) is None or model in RESERVED_MODELS:
            raise UsageError("invalid", f"{model!r} cannot be a model's name")
        role = f"release/{model}"
        self._change(now, lambda change: delegate(change, self.keys, role, paths_of(role)))

    def ensure_bench(self, hardware_class: str, now: datetime) -> None:
        """Delegate `bench/<class>/*` to role `bench/<class>`, with a key of its own that is made when there is none."""
        if MODEL_NAME.fullmatch(hardware_class) is None:
            raise UsageError("invalid", f"{hardware_class!r} cannot be a hardware class")
        role = f"bench/{hardware_class}"
        self.keys.create(role)
        self._change(now, lambda change: delegate(change, self.keys, role, paths_of(role)))

    def publish(self, model: str, number: int, manifest: bytes, now: datetime) -> None:
        """Sign a version in; the model is delegated when it was not. Publishing the same bytes again changes nothing.

        Raises:
            TrustError: `manifest_invalid`.
            UsageError: `conflict` (other bytes under this number, revoked number, a bench candidate), `key_missing`.
        """
        decoded = decode_manifest(manifest)
        if (decoded.model, decoded.version) != (model, number):
            raise TrustError("manifest_invalid", f"the manifest is {decoded.model} {decoded.version}")
        if decoded.bench_only:
            raise UsageError("conflict", f"{model} {number} is for benching only; it cannot be released")
        self.ensure_model(model, now)
        with self.store.changing():
            change = Change(self.store, self.keys, now)
            floor = _min_seq(change.look("targets")).get(model, 0)
            if number < floor:
                raise UsageError("conflict", f"{model}: everything below {floor} is revoked; use a higher number")
            if add_target(change, f"release/{model}", target_path(model, number), manifest):
                change.commit()

    def publish_bench(self, hardware_class: str, name: str, manifest: bytes, now: datetime) -> str:
        """Sign a candidate for benching on one hardware class; its target path.

        Raises:
            TrustError: `manifest_invalid` or `bench_only` (the manifest does not say it is for benching).
            UsageError: `invalid`, `conflict`, `key_missing`.
        """
        decoded: Manifest = decode_manifest(manifest)
        if not decoded.bench_only:
            raise TrustError("bench_only", "a candidate's manifest must be marked for benching only")
        if MODEL_NAME.fullmatch(name) is None:
            raise UsageError("invalid", f"{name!r} cannot be a candidate's name")
        self.ensure_bench(hardware_class, now)
        path = f"bench/{hardware_class}/{name}.json"
        with self.store.changing():
            change = Change(self.store, self.keys, now)
            if add_target(change, f"bench/{hardware_class}", path, manifest):
                change.commit()
        return path

    def withdraw_bench(self, hardware_class: str, names: list[str], now: datetime) -> bool:
        """Take candidates off the list; whether any was on it. Repeatable. Raises UsageError `key_missing`."""
        role = f"bench/{hardware_class}"
        with self.store.changing():
            change = Change(self.store, self.keys, now)
            listed = change.look(role).targets if change.has(role) else {}
            gone = [path for name in names if (path := f"{role}/{name}.json") in listed]
            for path in gone:
                del change.edit(role).targets[path]
            if gone:
                change.commit()
        return bool(gone)

    def revoke(self, model: str, number: int, now: datetime, min_seq: int | None = None) -> None:
        """Drop a version from the list; with `min_seq` also refuse every version of the model below it, for ever.

        Dropping needs the release key and stops installs. `min_seq` needs the targets key too and also covers devices that
        already hold the version: no director's key can undo it on a device that has seen it. Repeatable.

        Raises:
            UsageError: `not_found` (no such model), `key_missing`.
        """
        role = f"release/{model}"
        with self.store.changing():
            change = Change(self.store, self.keys, now)
            if not change.has(role):
                raise UsageError("not_found", f"no model {model!r} was ever published")
            floors = _min_seq(change.look("targets"))
            floor = max(floors.get(model, 0), min_seq or 0)
            healed = delegate(change, self.keys, role, paths_of(role))
            gone = [
                path for path in change.look(role).targets if path == target_path(model, number) or _seq(path) < floor
            ]
            for path in gone:
                del change.edit(role).targets[path]
            if floor > floors.get(model, 0):
                set_director(change, director_document(self.keys, {**floors, model: floor}))
            if healed or gone or floor > floors.get(model, 0):
                change.commit()

    def resign_online(self, now: datetime) -> bool:
        """Sign timestamp (6-hourly) and snapshot (half-way to its end) anew when due; whether anything was signed.

        Cheap to call often. Raises UsageError `key_missing`.
        """
        if not self._due(now):
            return False
        with self.store.changing():
            if not self._due(now):
                return False
            Change(self.store, self.keys, now).commit(snapshot=self._snapshot_due(now))
        return True

    def resign(self, roles: list[str], now: datetime) -> None:
        """Renew the expiry of `targets` and release roles, for `wavegate keys resign`. UsageError `key_missing`, `not_found`."""
        with self.store.changing():
            change = Change(self.store, self.keys, now)
            for role in roles:
                if not change.has(role):
                    raise UsageError("not_found", f"no role {role!r} in the release list")
                if role != "targets":
                    delegate(change, self.keys, role, paths_of(role))
                change.edit(role)
            change.commit()

    def sync_keys(self, now: datetime) -> bool:
        """Enter the key store's director, time and release keys where the signed metadata still name others.

        The second half of a key's replacement, and what completes one that a crash cut short. Whether anything was signed.

        Raises:
            UsageError: `key_missing`.
        """
        return self._change(now, lambda change: _sync_keys(change, self.keys))

    def read(self, name: str) -> bytes | None:
        """A document for devices: `metadata/<file>` or `targets/<dir>/<sha256>.<file>`; None when there is none."""
        return self.store.document(name)

    def root_bytes(self) -> bytes:
        """The newest root, which an enrolling device starts from. UsageError `setup` before `init`."""
        data = self.store.document(f"metadata/{self.store.root_version()}.root.json")
        if data is None:
            raise UsageError("setup", "there is no signed release list yet; run `wavegate keys init`")
        return data

    def versions(self) -> dict[str, int]:
        """Role -> metadata version: root, timestamp, snapshot, targets and every delegated role."""
        raw = self.store.document("metadata/timestamp.json") or b""
        key = raw + str(self.store.root_version()).encode()
        if self._versions[0] != key:
            snapshot = self.store.snapshot().signed
            roles = {name.removesuffix(".json"): meta.version for name, meta in snapshot.meta.items()}
            top = {"root": self.store.root_version(), "timestamp": self.store.timestamp().signed.version}
            self._versions = (key, {**top, "snapshot": snapshot.version, **roles})
        return dict(self._versions[1])

    def meta_min(self, model: str) -> dict[str, int]:
        """The part of `versions` that an assignment of this model asks for."""
        versions = self.versions()
        return {role: versions[role] for role in ("root", "targets", f"release/{model}") if role in versions}

    def bench_min(self, hardware_class: str) -> dict[str, int]:
        """The part of `versions` that an order to bench on this class asks for."""
        versions = self.versions()
        return {role: versions[role] for role in ("root", "targets", f"bench/{hardware_class}") if role in versions}

    def expiries(self) -> dict[str, datetime]:
        """Role -> when its metadata end."""
        snapshot = self.store.snapshot().signed
        roles = {name.removesuffix(".json"): meta.version for name, meta in snapshot.meta.items()}
        return {
            "root": self.store.root().signed.expires,
            "timestamp": self.store.timestamp().signed.expires,
            "snapshot": snapshot.expires,
            **{role: self.store.targets(role, version).signed.expires for role, version in roles.items()},
        }

    def min_seq(self, model: str) -> int:
        """Lowest release number of the model that is not revoked; 0 when nothing was."""
        version = self.store.snapshot().signed.meta["targets.json"].version
        return _min_seq(self.store.targets("targets", version).signed).get(model, 0)

    def _change(self, now: datetime, edit: Callable[[Change], bool]) -> bool:
        with self.store.changing():
            change = Change(self.store, self.keys, now)
            changed = edit(change)
            if changed:
                change.commit()
        return changed

    def _first_root(self, now: datetime) -> Metadata[Root]:
        root = Root(expires=expiry_of("root", now), consistent_snapshot=True)
        for role in ROOT_ROLES:
            root.add_key(self.keys.public(role), "root")
        root.roles["root"].threshold = _ROOT_THRESHOLD
        for role in ("targets", "snapshot", "timestamp"):
            root.add_key(self.keys.public(role), role)
        metadata = Metadata(root)
        sign(metadata, *[self.keys.signer(role) for role in ROOT_ROLES[:_ROOT_THRESHOLD]])
        return metadata

    def _due(self, now: datetime) -> bool:
        left = self.store.timestamp().signed.expires - now
        return left < EXPIRY["timestamp"] - RESIGN_EVERY or self._snapshot_due(now)

    def _snapshot_due(self, now: datetime) -> bool:
        return self.store.snapshot().signed.expires - now < EXPIRY["snapshot"] / 2


def paths_of(role: str) -> str:
    """The target paths a delegated role may list: `<model>/*` for `release/<model>`, `bench/<class>/*` for `bench/<class>`."""
    kind, _, name = role.partition("/")
    return f"{name}/*" if kind == "release" else f"{role}/*"


def director_document(keys: KeyStore, min_seq: dict[str, int]) -> dict[str, Any]:
    """What `system/director.json` says: who may direct, who may tell the time, what is revoked."""
    director, clock = keys.public("director"), keys.public("time")
    return {
        "schema": 1,
        "director": {director.keyid: director.to_dict()},
        "time": {clock.keyid: clock.to_dict()},
        "min_seq": min_seq,
    }


def set_director(change: Change, document: dict[str, Any]) -> None:
    """Put the director's document into targets: as a file, and whole in its `custom` field."""
    data = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    target = _target_file(DIRECTOR_TARGET, data, {"custom": document})
    change.edit("targets").targets[DIRECTOR_TARGET] = target
    change.add_file(DIRECTOR_TARGET, data)


def delegate(change: Change, keys: KeyStore, role: str, paths: str) -> bool:
    """Make sure targets delegates `paths` to `role` under the key the key store has for it; whether that changed it."""
    key = keys.public(role)
    known = (change.look("targets").delegations or Delegations({}, {})).roles or {}
    if change.has(role) and role in known and known[role].keyids == [key.keyid]:
        return False
    targets = change.edit("targets")
    if targets.delegations is None or targets.delegations.roles is None:
        targets.delegations = Delegations(keys={}, roles={})
    roles = targets.delegations.roles
    if roles is not None:
        roles[role] = DelegatedRole(role, [], 1, terminating=True, paths=[paths])
    targets.add_key(key, role)
    used = {keyid for known_role in (roles or {}).values() for keyid in known_role.keyids}
    targets.delegations.keys = {keyid: value for keyid, value in targets.delegations.keys.items() if keyid in used}
    change.edit(role)
    return True


def add_target(change: Change, role: str, path: str, data: bytes) -> bool:
    """List a target; False when it is listed with these bytes already. UsageError `conflict` for other bytes."""
    target = _target_file(path, data)
    listed = change.look(role).targets.get(path)
    if listed is not None and listed.hashes == target.hashes:
        return False
    if listed is not None:
        raise UsageError("conflict", f"{path} was published with other bytes; versions never change")
    change.edit(role).targets[path] = target
    change.add_file(path, data)
    return True


def _sync_keys(change: Change, keys: KeyStore) -> bool:
    targets = change.look("targets")
    document = director_document(keys, _min_seq(targets))
    changed = bool(targets.targets[DIRECTOR_TARGET].custom != document)
    if changed:
        set_director(change, document)
    known = (targets.delegations or Delegations({}, {})).roles or {}
    for role in list(known):
        changed = delegate(change, keys, role, paths_of(role)) or changed
    return changed


def _target_file(path: str, data: bytes, extra: dict[str, Any] | None = None) -> TargetFile:
    return TargetFile(len(data), {"sha256": sha256(data).hexdigest()}, path, extra)


def _min_seq(targets: Targets) -> dict[str, int]:
    custom = targets.targets[DIRECTOR_TARGET].custom
    return {str(model): int(seq) for model, seq in custom["min_seq"].items()}


def _seq(path: str) -> int:
    return int(path.rpartition("/")[2].removesuffix(".json"))
