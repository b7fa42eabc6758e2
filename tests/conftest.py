"""What holds for every test: nothing is read from or left in the home of who runs it."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def _no_cache_of_the_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Finished compression steps of this run only: an earlier run's would hide what a change broke."""
    before = os.environ.get("WAVEGATE_CACHE")
    os.environ["WAVEGATE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["WAVEGATE_CACHE"]
    else:
        os.environ["WAVEGATE_CACHE"] = before
