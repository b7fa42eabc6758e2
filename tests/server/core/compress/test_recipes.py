"""The table of recipes and what decides between them."""

import pytest

from wavegate_server.core.compress.recipes import RECIPES, Facts, named, plan

FAMILIES = ("cnn", "detector", "transformer", "recurrent", "mlp", "other")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_recipe_is_tried_or_skipped_with_a_reason(family: str) -> None:
    tried, skipped = plan(Facts(family))
    assert sorted(p.recipe for p in (*tried, *skipped)) == sorted(recipe.name for recipe in RECIPES)
    assert all(planned.why for planned in (*tried, *skipped))
    assert tried


def test_the_priors() -> None:
    first = {family: plan(Facts(family))[0][0].recipe for family in ("cnn", "detector", "transformer")}
    assert first == {
        "cnn": "int8-static-per-channel",
        "detector": "int8-static-per-channel",
        "transformer": "int8-dynamic-per-channel",
    }


def test_what_ruins_or_slows_a_family_is_not_tried() -> None:
    reasons = {p.recipe: p.why for p in plan(Facts("cnn"))[1]}
    assert "slower" in reasons["int8-dynamic-per-channel"]
    reasons = {p.recipe: p.why for p in plan(Facts("transformer"))[1]}
    assert "ruins" in reasons["int8-static-per-channel"]


def test_histograms_are_not_tried_on_variable_shapes() -> None:
    tried = {p.recipe for p in plan(Facts("cnn", fixed_shapes=False))[0]}
    assert not tried & {"int8-static-entropy", "int8-static-percentile"}
    assert "int8-static-per-channel" in tried


def test_names_are_unique_and_found() -> None:
    assert all(named(recipe.name) is recipe for recipe in RECIPES)
