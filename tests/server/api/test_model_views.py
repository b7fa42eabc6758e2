"""What goes in and out about models."""

import pytest
from pydantic import ValidationError

from tests.support.api_server import Api
from wavegate_server.adapters.database.connection import read
from wavegate_server.adapters.reads.models import model_detail
from wavegate_server.api.model_views import AliasBody, ModelView


def test_an_alias_names_a_version_or_null_but_not_nothing() -> None:
    assert AliasBody(version=None).version is None
    for wrong in ({}, {"version": 0}, {"version": 1, "more": 2}):
        with pytest.raises(ValidationError):
            AliasBody.model_validate(wrong)


def test_a_model_is_read_whole_from_the_read_model(api: Api) -> None:
    with read(api.context.engine) as session:
        view = ModelView.model_validate(model_detail(session, "pairs").row)
    assert view.newest is not None
    assert (view.name, view.versions, view.newest.metric.direction) == ("pairs", 2, "up")
