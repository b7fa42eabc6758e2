"""What holds for every test: nothing is read from or left in the home of who runs it, nor in the logging of the next test."""

import logging
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


@pytest.fixture(autouse=True)
def _logging_of_its_own() -> Iterator[None]:
    """A command that a test runs in this process sets logging up; its handler would write to a stream that is closed later."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    for handler in list(root.handlers):
        if type(handler) is logging.StreamHandler and handler not in before:
            root.removeHandler(handler)
    root.setLevel(level)
