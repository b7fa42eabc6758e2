"""A tiny BERT with Hugging Face's names, as the author of a bundle would ship it in `source/`. Imports nothing but torch."""

import math

import torch
from torch import Tensor, nn


class SelfAttention(nn.Module):
    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.num_attention_heads, self.attention_head_size = heads, hidden // heads
        self.all_head_size = hidden
        self.query, self.key, self.value = (nn.Linear(hidden, hidden) for _ in range(3))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        def split(y: Tensor) -> Tensor:
            shape = (y.shape[0], y.shape[1], self.num_attention_heads, self.attention_head_size)
            return y.reshape(shape).transpose(1, 2)

        query, key, value = (split(f(x)) for f in (self.query, self.key, self.value))
        scores = query @ key.transpose(2, 3) / math.sqrt(self.attention_head_size) + bias
        merged = (scores.softmax(-1) @ value).transpose(1, 2)
        return merged.reshape(x.shape[0], x.shape[1], self.all_head_size)


class Residual(nn.Module):
    def __init__(self, inner: int, hidden: int) -> None:
        super().__init__()
        self.dense, self.LayerNorm = nn.Linear(inner, hidden), nn.LayerNorm(hidden)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        out: Tensor = self.LayerNorm(self.dense(x) + before)
        return out


class Attention(nn.Module):
    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.self, self.output = SelfAttention(hidden, heads), Residual(hidden, hidden)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        out: Tensor = self.output(self.self(x, bias), x)
        return out


class Intermediate(nn.Module):
    def __init__(self, hidden: int, ffn: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden, ffn)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.gelu(self.dense(x))


class Layer(nn.Module):
    def __init__(self, hidden: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.attention, self.intermediate = Attention(hidden, heads), Intermediate(hidden, ffn)
        self.output = Residual(ffn, hidden)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = self.attention(x, bias)
        out: Tensor = self.output(self.intermediate(x), x)
        return out


class Embeddings(nn.Module):
    position_ids: Tensor

    def __init__(self, vocab: int, hidden: int, positions: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocab, hidden, padding_idx=0)
        self.position_embeddings = nn.Embedding(positions, hidden)
        self.token_type_embeddings = nn.Embedding(2, hidden)
        self.LayerNorm = nn.LayerNorm(hidden)
        self.register_buffer("position_ids", torch.arange(positions)[None], persistent=False)

    def forward(self, ids: Tensor, types: Tensor) -> Tensor:
        at = self.position_embeddings(self.position_ids[:, : ids.shape[1]])
        out: Tensor = self.LayerNorm(self.word_embeddings(ids) + self.token_type_embeddings(types) + at)
        return out


class TinyBert(nn.Module):
    def __init__(self, vocab: int, layers: int, hidden: int, heads: int, ffn: int, positions: int) -> None:
        super().__init__()
        self.embeddings = Embeddings(vocab, hidden, positions)
        self.layer = nn.ModuleList(Layer(hidden, heads, ffn) for _ in range(layers))
        self.classifier = nn.Linear(hidden, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        bias = (1.0 - attention_mask[:, None, None, :].float()) * -10000.0
        x = self.embeddings(input_ids, token_type_ids)
        for layer in self.layer:
            x = layer(x, bias)
        out: Tensor = self.classifier(x[:, 0])
        return out


def build(
    vocab: int, layers: int = 3, hidden: int = 32, heads: int = 4, ffn: int = 64, positions: int = 64
) -> TinyBert:
    """The factory that a bundle's `source` names."""
    return TinyBert(vocab, layers, hidden, heads, ffn, positions)
