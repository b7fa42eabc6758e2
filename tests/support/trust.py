"""The server's trust parts on disk, and how a device fetches from them."""

import atexit
import functools
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

from wavegate_server.adapters.trust.image_repository import ImageRepository
from wavegate_server.adapters.trust.keystore import KeyStore
from wavegate_shared.errors import TransferError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def make_repository(directory: Path) -> ImageRepository:
    """A fresh repository with all keys, signed at `NOW`: a copy of one that is made once, because making it syncs files."""
    shutil.copytree(_template(), directory)
    return ImageRepository(directory / "tuf", KeyStore(directory / "keys"))


@functools.cache
def _template() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="wavegate-trust-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    keys = KeyStore(directory / "keys")
    keys.init()
    ImageRepository(directory / "tuf", keys).init(NOW)
    return directory


def fetch_from(repository: ImageRepository, name: str, max_bytes: int) -> bytes:
    """What a carrier does with `ImageRepository.read`."""
    data = repository.read(name)
    if data is None:
        raise TransferError("document_missing", name)
    return data[:max_bytes]


class RepositoryFetcher(FetcherInterface):
    """Lets the library's own client read a repository: `repo:metadata/...`, `repo:targets/...`."""

    def __init__(self, repository: ImageRepository) -> None:
        self.repository = repository

    def _fetch(self, url: str) -> Iterator[bytes]:
        data = self.repository.read(url.removeprefix("repo:"))
        if data is None:
            raise DownloadHTTPError(url, 404)
        return iter((data,))


def stock_updater(repository: ImageRepository, directory: Path, now: datetime = NOW) -> Updater:
    """The library's updater, unchanged, over a repository; starts from root 1."""
    directory.mkdir(parents=True, exist_ok=True)
    root = repository.read("metadata/1.root.json")
    assert root is not None
    updater = Updater(
        str(directory),
        "repo:metadata/",
        str(directory),
        "repo:targets/",
        fetcher=RepositoryFetcher(repository),
        bootstrap=root,
    )
    updater._trusted_set.reference_time = now
    return updater


def make_csr(common_name: str = "anything", key: ec.EllipticCurvePrivateKey | None = None) -> str:
    """A device's certificate request (PEM)."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name)
    signed = request.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(Encoding.PEM).decode()
