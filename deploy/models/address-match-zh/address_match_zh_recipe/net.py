"""The model: which characters of one address stand where in the other, and do they agree?

Both addresses come packed into one row of token ids. Each character sees a few
neighbours, then looks for its counterpart in the other address. What guides it is
not learned but computed: the matrix of equal characters, and the same matrix
moved along its diagonals, which says whether the neighbours are equal too. So the
model has to learn how to read the matches, not that equal characters are equal.

Everything with weights is a matrix product (neighbours are put side by side first),
which is what dynamic int8 quantises well. ESIM-like: Chen et al. 2017, Enhanced
LSTM for Natural Language Inference; decomposable attention: Parikh et al. 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["DIAGONALS", "Matcher", "Shape", "neighbours"]

DIAGONALS = (-3, -2, -1, 0, 1, 2, 3)
"""How far the matrix of equal characters is moved along its diagonals."""

_REACH = 2  # neighbours on each side that one layer sees
_FAR = -1e4
_PRIOR = (0.3, 0.6, 1.0, 2.5, 1.0, 0.6, 0.3)  # runs of equal characters attract from the first step on


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes: characters, width, heads, layers before and after the comparison."""

    characters: int
    hidden: int = 64
    heads: int = 4
    before: int = 3
    after: int = 2


class Matcher(nn.Module):
    """Two logits, `different` and `same`, for each packed pair."""

    def __init__(self, shape: Shape, characters: Sequence[int], first_name: int) -> None:
        """Random weights.

        Args:
            shape: The sizes.
            characters: (tokens,) character of each token id; several tokens (a digit, its
                full-width form, its continuation piece) are one character.
            first_name: Characters from here on occur in names; the one before stands for
                all that are rare.
        """
        super().__init__()
        hidden = shape.hidden
        self.heads, self.first_name = shape.heads, first_name
        self.characters: Tensor
        self.register_buffer("characters", torch.tensor(list(characters), dtype=torch.int64))
        self.embedding = nn.Embedding(shape.characters, hidden)
        nn.init.normal_(self.embedding.weight, std=0.3)
        self.before = nn.ModuleList(Window(hidden) for _ in range(shape.before))
        self.query, self.key = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.prior = nn.Parameter(torch.tensor(_PRIOR)[:, None].repeat(1, shape.heads))
        self.compare = nn.Linear(3 * hidden + shape.heads * (len(DIAGONALS) + 1), hidden)
        self.after = nn.ModuleList(Window(hidden) for _ in range(shape.after))
        self.judge = nn.Linear(2 * hidden, hidden)
        self.head = nn.Linear(hidden, 2)
        self.hide = 0.0

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """(n, 2) float32 logits from three (n, width) int64 tensors."""
        characters = self.characters[input_ids]
        real = attention_mask.to(torch.float32)
        x = self.embedding(self._hidden(characters)) * real[:, :, None]
        for layer in self.before:
            x = layer(x, real)
        second = token_type_ids.to(torch.float32) * real
        first = real - second
        across = first[:, :, None] * second[:, None, :] + second[:, :, None] * first[:, None, :]
        equal = (characters[:, :, None] == characters[:, None, :]).to(torch.float32) * across
        # (n, i, j, diagonal): are the characters beside i and j equal as well?
        moved = torch.stack([_moved(equal, by) for by in DIAGONALS], dim=-1) * across[..., None]
        x = functional.relu(self.compare(self._compared(x, moved, across))) * real[:, :, None]
        for layer in self.after:
            x = layer(x, real)
        x = x * real[:, :, None]
        mean = x.sum(1) / real.sum(1, keepdim=True)
        strongest = (x + (real[:, :, None] - 1) * 1e4).amax(1)
        logits: Tensor = self.head(functional.relu(self.judge(torch.cat([mean, strongest], dim=-1))))
        return logits

    def _compared(self, x: Tensor, moved: Tensor, across: Tensor) -> Tensor:
        """Each character beside its counterpart: vectors, products, and how well the places match."""
        rows, width, hidden = x.shape
        split = (rows, width, self.heads, hidden // self.heads)
        query, key, value = (layer(x).reshape(split).transpose(1, 2) for layer in (self.query, self.key, self.value))
        scores = query @ key.transpose(2, 3) * (hidden // self.heads) ** -0.5
        scores = scores + (moved @ self.prior).permute(0, 3, 1, 2)
        weights = torch.softmax(scores + ((1 - across) * _FAR)[:, None], dim=-1)
        found = (weights @ value).transpose(1, 2).reshape(rows, width, hidden)
        by_place = weights.permute(0, 2, 1, 3)  # (n, i, head, j)
        matches = (by_place @ moved).reshape(rows, width, self.heads * len(DIAGONALS))
        sure = by_place.amax(-1)
        return torch.cat([x, found, x * found, matches, sure], dim=-1)

    def settle(self, rare: Sequence[int]) -> None:
        """Gives characters that training hardly met the vector of all rare ones; they stay equal to themselves only."""
        with torch.no_grad():
            self.embedding.weight[list(rare)] = self.embedding.weight[self.first_name - 1].clone()

    def _hidden(self, characters: Tensor) -> Tensor:
        """While training, some names' characters lose their vectors, so that names never seen are read by their matches."""
        if not self.training or self.hide == 0:
            return characters
        dropped = (torch.rand(characters.shape) < self.hide) & (characters >= self.first_name)
        return torch.where(dropped, torch.full_like(characters, self.first_name - 1), characters)


class Window(nn.Module):
    """One layer over each character and its neighbours, added to what was there."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.mix = nn.Linear((2 * _REACH + 1) * hidden, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """(n, width, hidden), zero on padding."""
        mixed: Tensor = self.norm(x + functional.relu(self.mix(neighbours(x)))) * real[:, :, None]
        return mixed


def neighbours(x: Tensor) -> Tensor:
    """Each place with its neighbours side by side, zeros beyond the ends: (n, width, (2 * reach + 1) * hidden)."""
    width = x.shape[1]
    padded = functional.pad(x, (0, 0, _REACH, _REACH))
    return torch.cat([padded[:, at : at + width] for at in range(2 * _REACH + 1)], dim=-1)


def _moved(matrix: Tensor, by: int) -> Tensor:
    """`out[:, i, j] = matrix[:, i + by, j + by]`, zero beyond the edges."""
    if by == 0:
        return matrix
    cut = matrix[:, by:, by:] if by > 0 else matrix[:, :by, :by]
    side = (0, by) if by > 0 else (-by, 0)
    return functional.pad(cut, (*side, *side))
