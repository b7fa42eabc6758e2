"""Channel pruning on tiny nets: residual sums, concatenation, depthwise convolutions, heads that must not change."""

from typing import Any

import pytest

from tests.support.distil import needs_distil

needs_distil()
pytest.importorskip("torch_pruning", reason="the extra [distil] is not installed")

import torch  # noqa: E402
from torch import nn  # noqa: E402

from wavegate_server.compress.distil import channels  # noqa: E402
from wavegate_server.core.compress.structures import Facts, Structure  # noqa: E402


class Residual(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.bn = nn.BatchNorm2d(width)
        self.a = nn.Conv2d(width, width, 3, padding=1)
        self.b = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Linear(width, 5)

    def forward(self, image: Any) -> Any:
        x = torch.relu(self.bn(self.stem(image)))
        x = x + self.b(torch.relu(self.a(x)))
        return self.head(x.mean((2, 3)))


class Joined(nn.Module):
    """Concatenation, a depthwise convolution, two outputs made by convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(3, 16, 1)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.mix = nn.Conv2d(32, 16, 1)
        self.boxes, self.scores = nn.Conv2d(16, 4, 1), nn.Conv2d(16, 7, 1)

    def forward(self, image: Any) -> Any:
        x = torch.relu(torch.cat([self.left(image), self.right(image)], 1))
        x = torch.relu(self.mix(torch.relu(self.depthwise(x))))
        return self.boxes(x), self.scores(x)


class Fixed(Residual):
    """Its code holds the number of channels in one place."""

    def forward(self, image: Any) -> Any:
        x = self.b(self.a(self.stem(image)))
        return self.head(x.reshape(x.shape[0], 32, -1).mean(2))


class Rigid(Residual):
    """Its code holds it everywhere."""

    def forward(self, image: Any) -> Any:
        x = image
        for layer in (self.stem, self.a, self.b):
            x = layer(x).reshape(x.shape[0], 32, x.shape[2], x.shape[3])
        return self.head(x.mean((2, 3)))


def batch(channels_in: int) -> list[Any]:
    return [({"image": torch.randn(4, channels_in, 8, 8)}, torch.zeros(4, 1))]


def count(module: Any) -> int:
    return sum(each.numel() for each in module.parameters())


def half(**changed: Any) -> Structure:
    return Structure("channels", "channels50", {"amount": 0.5, "n": 2, "dim": 0, **changed})


def test_structures_go_from_light_to_heavy_and_predict_what_is_left() -> None:
    torch.manual_seed(1)
    net = Residual(64).eval()
    found = channels.propose(net, Facts())
    assert [each.sizes["amount"] for each in found] == list(channels.AMOUNTS)
    assert [each.parameters for each in found] == sorted((each.parameters for each in found), reverse=True)
    for each in found:
        small = channels.apply(net, each, batch(1))
        assert count(small) / count(net) == pytest.approx(each.parameters, abs=0.08)


def test_tensors_shrink_and_the_answer_keeps_its_shape() -> None:
    net = Residual().eval()
    before = count(net)
    small = channels.apply(net, half(), batch(1))
    assert small.a.weight.shape == (16, 16, 3, 3)
    assert small.bn.num_features == 16
    assert small(torch.randn(2, 1, 8, 8)).shape == (2, 5)
    assert count(net) == before, "the module itself stays as it was"


def test_the_channels_of_the_least_norm_go() -> None:
    torch.manual_seed(2)
    net = Residual().eval()
    with torch.no_grad():
        net.a.weight[::2] *= 0.001
        net.a.bias.zero_()
        net.b.weight[:, ::2] *= 0.001
    kept = net.a.weight[1::2].detach()
    small = channels.apply(net, half(), batch(1))
    sums = sorted(kept.abs().amax((1, 2, 3)).tolist())
    assert small.a.weight.abs().amax((1, 2, 3)).min() > 0.01
    assert len(sums) == small.a.weight.shape[0]


def test_concatenated_and_depthwise_channels_go_together() -> None:
    small = channels.apply(Joined().eval(), half(), batch(3))
    assert small.depthwise.groups == small.depthwise.weight.shape[0] == 16
    assert [tuple(out.shape) for out in small(torch.randn(2, 3, 8, 8))] == [(2, 4, 8, 8), (2, 7, 8, 8)]


def test_a_cut_net_learns_and_exports() -> None:
    small = channels.apply(Residual().eval(), half(), batch(1)).train()
    loss = nn.functional.cross_entropy(small(torch.randn(8, 1, 8, 8)), torch.zeros(8, dtype=torch.long))
    torch.autograd.backward(loss)
    assert all(each.grad is not None for each in small.parameters())


@pytest.mark.parametrize("changed", [{"amount": 0}, {"amount": 1.0}, {"dim": 1}])
def test_only_a_share_of_output_channels_can_go(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="output channels"):
        channels.apply(Residual().eval(), half(**changed), batch(1))


def test_where_code_holds_a_number_of_channels_only_the_others_go() -> None:
    small = channels.apply(Fixed().eval(), half(), batch(1))
    assert small.b.weight.shape[:2] == (32, 16)


def test_code_that_holds_it_everywhere_cannot_be_cut() -> None:
    with pytest.raises(ValueError, match=r"[a-z]"):
        channels.apply(Rigid().eval(), half(), batch(1))


def test_nets_without_convolutions_are_not_for_this() -> None:
    assert channels.propose(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), Facts()) == []
    assert channels.propose(Residual(), Facts(tokens=100)) == []
