"""Cutting transformers: tensors really shrink, the dearest parts stay, and the smaller vocabulary gives the same answers."""

import pytest

from tests.support.distil import needs_distil

needs_distil()

import torch  # noqa: E402

from tests.support import tiny_bert  # noqa: E402
from wavegate_server.compress.distil import transformer  # noqa: E402
from wavegate_server.core.compress.structures import Facts, Structure  # noqa: E402

OPTIONS = {"vocab": 60, "layers": 6, "hidden": 32, "heads": 4, "ffn": 64, "positions": 64}


@pytest.fixture
def module() -> tiny_bert.TinyBert:
    torch.manual_seed(1)
    made = tiny_bert.build(**OPTIONS)
    made.eval()
    return made


def feed(limit: int = 60) -> dict[str, torch.Tensor]:
    torch.manual_seed(2)
    ids = torch.randint(0, limit, (8, 16))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}


def answers(module: torch.nn.Module, given: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.inference_mode():
        out: torch.Tensor = module(*given.values()).clone()
    return out


def test_structures_go_from_light_to_heavy_and_predict_what_is_left(module: tiny_bert.TinyBert) -> None:
    found = transformer.propose(module, Facts(tokens=30))
    assert [each.work for each in found] == sorted((each.work for each in found), reverse=True)
    assert found[0].work == 1.0
    assert found[-1].work < 0.1
    assert "layers2-heads2-ffn32" in [each.name for each in found]
    whole = sum(each.numel() for each in module.parameters())
    batches = [(feed(), answers(module, feed()))]
    for structure in found:
        small = transformer.apply(module, structure, batches)
        transformer.keep_tokens(small, range(30), before=60)
        left = sum(each.numel() for each in small.parameters()) / whole
        assert left == pytest.approx(structure.parameters, abs=0.1)  # biases and norms are not predicted


def test_tensors_really_shrink_and_the_original_stays(module: tiny_bert.TinyBert) -> None:
    before = answers(module, feed())
    structure = next(s for s in transformer.propose(module, Facts()) if s.name == "layers2-heads2-ffn32")
    small = transformer.apply(module, structure, [(feed(), before)])
    assert len(small.layer) == 2
    attention = small.layer[0].attention
    assert attention.self.query.weight.shape == (16, 32)
    assert attention.output.dense.weight.shape == (32, 16)
    assert small.layer[1].intermediate.dense.weight.shape == (32, 32)
    assert small.layer[1].output.dense.weight.shape == (32, 32)
    assert answers(small, feed()).shape == before.shape
    assert len(module.layer) == 6
    assert torch.equal(answers(module, feed()), before)


def test_two_of_six_layers_are_the_second_and_the_fifth() -> None:
    assert transformer.spaced(6, 2) == [1, 4]
    assert transformer.spaced(6, 3) == [1, 3, 5]
    assert transformer.spaced(4, 4) == [0, 1, 2, 3]
    assert transformer.spaced(3, 1) == [1]


def test_parts_that_do_nothing_are_worth_nothing_and_go_first(module: tiny_bert.TinyBert) -> None:
    layer = module.layer[0]
    with torch.no_grad():
        layer.attention.output.dense.weight[:, 8:16] = 0  # head 1 reaches nothing
        layer.output.dense.weight[:, :32] = 0  # nor do the first 32 FFN units
    wanted = answers(module, feed()) + 1
    worth = transformer.importance(module, [(feed(), wanted)])
    assert worth[0].heads[1] == 0
    assert (worth[0].heads[[0, 2, 3]] > 0).all()
    assert (worth[0].ffn[:32] == 0).all()
    before = answers(module, feed())
    del module.layer[1:]
    shallow = answers(module, feed())
    transformer.prune(module, worth[:1], heads=3, ffn=32)
    assert torch.allclose(answers(module, feed()), shallow, atol=1e-5)
    assert not torch.allclose(before, shallow)


def test_a_smaller_vocabulary_gives_the_same_answers_under_new_ids(module: tiny_bert.TinyBert) -> None:
    kept = [0, *range(20, 45)]
    given = feed()
    given["input_ids"] = torch.tensor(kept)[torch.randint(0, len(kept), (8, 16))]
    before = answers(module, given)
    transformer.keep_tokens(module, kept, before=60, positions=16)
    assert module.embeddings.word_embeddings.weight.shape == (26, 32)
    assert module.embeddings.position_embeddings.weight.shape == (16, 32)
    new = {old: at for at, old in enumerate(kept)}
    given["input_ids"] = given["input_ids"].apply_(lambda old: new[old])
    assert torch.equal(answers(module, given), before)


def test_a_vocabulary_that_is_not_the_modules_is_refused(module: tiny_bert.TinyBert) -> None:
    with pytest.raises(ValueError, match="no word embedding for 61 tokens"):
        transformer.keep_tokens(module, [0], before=61)


def test_other_networks_have_no_proposal() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU())
    assert transformer.propose(net, Facts()) == []
    with pytest.raises(AssertionError):
        transformer.apply(net, Structure("transformer", "x", {"layers": [0]}), [])
