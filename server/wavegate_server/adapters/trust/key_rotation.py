"""Replacing keys, so that devices follow by themselves and a crash in the middle leaves a valid repository.

Keys that root names (targets, snapshot, timestamp) take two roots: one that trusts the old key and the new, then, once
everything is signed with the new one, one that trusts only the new. A root key takes one root, signed by two keys that both
the old and the new root trust. Director, time, release and bench keys are named in `targets`: one commit. Repeating a
rotation that was cut short completes it.

Not here: ceremonies where the root keys are on several machines.
"""

from datetime import datetime

from tuf.api.metadata import Metadata, Root

from wavegate_server.adapters.trust.image_repository import ImageRepository
from wavegate_server.adapters.trust.keystore import ROOT_ROLES
from wavegate_server.adapters.trust.repository_change import Change, expiry_of, sign
from wavegate_shared.dsse import Key, Signer
from wavegate_shared.errors import UsageError

__all__ = ["renew_root", "rotate"]

_TOP_ROLES = ("targets", "snapshot", "timestamp")


def rotate(repository: ImageRepository, role: str, now: datetime) -> Key:
    """Replace the key of a role; the new public key. The old private file, when it is here, is destroyed.

    A running server signs with the key it started with: restart it after rotating `director` or `time`; devices refuse what
    the old director key signed as soon as they have refreshed.

    Raises:
        UsageError: `key_missing`: no such role, or not enough keys here (two root keys for roles that root names, the
            targets key for the others).
    """
    if role in _TOP_ROLES:
        return _rotate_top(repository, role, now)
    if role in ROOT_ROLES:
        return _rotate_root(repository, role, now)
    repository.keys.signer("targets")  # asked before anything changes
    key = repository.keys.pending(role)
    repository.keys.promote(role)
    repository.sync_keys(now)
    return key


def renew_root(repository: ImageRepository, now: datetime) -> int:
    """A new root with the same keys and a year to live; its version. Raises UsageError `key_missing`."""
    with repository.store.changing():
        root = repository.store.root()
        _publish(repository, root, now)
        return root.signed.version


def _rotate_top(repository: ImageRepository, role: str, now: datetime) -> Key:
    keys = repository.keys
    _root_signers(repository)  # asked before anything changes
    key = keys.pending(role)
    with repository.store.changing():
        root = repository.store.root()
        if key.keyid not in root.signed.roles[role].keyids:
            root.signed.add_key(key, role)
            _publish(repository, root, now)
        keys.promote(role)
        change = Change(repository.store, keys, now)
        if role == "targets":
            change.edit(role)
        change.commit()  # signs snapshot and timestamp in any case
        for keyid in list(root.signed.roles[role].keyids):
            if keyid != key.keyid:
                root.signed.revoke_key(keyid, role)
        _publish(repository, root, now)
    return key


def _rotate_root(repository: ImageRepository, role: str, now: datetime) -> Key:
    keys = repository.keys
    old = keys.public(role)
    _root_signers(repository, without=role)
    key = keys.pending(role)
    with repository.store.changing():
        root = repository.store.root()
        if key.keyid not in root.signed.roles["root"].keyids:
            root.signed.revoke_key(old.keyid, "root")
            root.signed.add_key(key, "root")
            _publish(repository, root, now, without=role)
        keys.promote(role)
    return key


def _publish(repository: ImageRepository, root: Metadata[Root], now: datetime, *, without: str = "") -> None:
    root.signed.version += 1
    root.signed.expires = expiry_of("root", now)
    sign(root, *_root_signers(repository, without=without))
    repository.store.write_root(root)


def _root_signers(repository: ImageRepository, *, without: str = "") -> list[Signer]:
    """As many root signers as the threshold asks for, of those whose keys are here."""
    threshold = repository.store.root().signed.roles["root"].threshold
    found: list[Signer] = []
    for role in ROOT_ROLES:
        if role == without or len(found) == threshold:
            continue
        try:
            found.append(repository.keys.signer(role))
        except UsageError:
            continue  # it may lie in a safe; two others will do
    if len(found) < threshold:
        raise UsageError("key_missing", f"{threshold} of the root keys are needed, {len(found)} are on this machine")
    return found
