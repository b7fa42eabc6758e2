"""ResNet-18 for 28x28 grey images: 11.2 M parameters, 122 M multiply-adds.

Self-contained on purpose: the bench's bundle carries this file as its `source`, so that the compressor can prune and distil.

Source: He et al. 2015, arXiv:1512.03385; the stem is 3x3 with stride 2 and no pooling, since the images are small.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Block", "ResNet18", "build"]


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """A shortcut with other channels or stride is a 1x1 convolution."""
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut: nn.Module = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return functional.relu(y + self.shortcut(x))


class ResNet18(nn.Module):
    """Four stages of two blocks."""

    def __init__(self, *, classes: int = 10, width: int = 64) -> None:
        """`width`: channels of the first stage; each further stage has twice as many."""
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        plan = [(width, width, 1), (width, 2 * width, 2), (2 * width, 4 * width, 2), (4 * width, 8 * width, 2)]
        self.stages = nn.Sequential(
            *(nn.Sequential(Block(a, b, stride), Block(b, b, 1)) for a, b, stride in plan),
        )
        self.head = nn.Linear(8 * width, classes)

    def forward(self, image: Tensor) -> Tensor:
        """(n, 1, 28, 28) float32, scaled and normalised, to (n, classes) logits."""
        x = functional.relu(self.bn(self.stem(image)))
        x = self.stages(x)
        return self.head(torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1))  # type: ignore[no-any-return]


def build(**options: Any) -> nn.Module:
    """The net in eval mode, with random weights."""
    return ResNet18(**options).eval()
