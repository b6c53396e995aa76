"""Heads that copy, there from the start: a mimetic initialisation of the induction circuit.

A small model that is trained for minutes does not find out by itself how to copy a name that it has never seen: that
takes two heads which are of no use without one another. Larger models find it early in their training (Olsson et al.
2022, arXiv 2209.11895). So the two are given as initial weights, in the manner of Trockman and Kolter (2023, arXiv
2305.09828), who start attention from what trained models look like. Everything stays trainable, and is trained: on text
in which nothing can be copied the heads are soon put to other uses.

- A head of the first layer looks at the token before, by its biases alone (a rotated constant vector has its largest
  product with one that is rotated by one position less), and writes a projection of it beside the current token.
- Two heads of the second layer look for the place whose *token before* is like the current token, and add a projection
  of the token found there to the current state, which makes it more probable as the next one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from transformers import Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention

MARGIN = 4.2  # nats by which the token before is preferred to its neighbours
MATCH = 2.0  # factor of queries and keys of the heads that look for a match
COPY = 4.0  # how much stronger than an embedding what is copied is written
CARRY = 2.0  # how much stronger than an embedding the token before is written
FAINT = 0.1  # what is left of random weights in heads that are given a purpose


@torch.no_grad()
def add_induction_heads(model: Qwen2ForCausalLM, generator: torch.Generator) -> None:
    """Overwrite a head of the first and two heads of the second layer of a new model.

    Raises ValueError for a model of fewer than two layers or two heads, or with fewer key than query heads.
    """
    config = model.config
    if min(config.num_hidden_layers, config.num_attention_heads) < 2:
        raise ValueError(f"induction takes two layers of two heads, got {config.num_hidden_layers} layers of"
                         f" {config.num_attention_heads}")  # fmt: skip
    if config.num_key_value_heads != config.num_attention_heads:
        raise ValueError("induction heads need keys of their own: as many key heads as query heads")
    width, size = config.hidden_size, config.hidden_size // config.num_attention_heads
    scale = config.initializer_range
    carried, place = _rows(size, width, generator), _rows(size, width, generator)

    first, second = (model.model.layers[layer].self_attn for layer in (0, 1))
    _look_back(first, size, config.rope_parameters["rope_theta"])
    first.v_proj.weight[:size] = carried
    first.o_proj.weight[:, :size] = scale * CARRY * place.T

    copied = _rows(2 * size, width, generator)
    slow = _slow(size)
    for head in range(2):
        rows = torch.arange(head * size, (head + 1) * size)
        part = slice(head * len(slow), (head + 1) * len(slow))
        for projection, wanted in ((second.q_proj, carried), (second.k_proj, place)):
            projection.weight[rows] *= FAINT
            projection.weight[rows[slow]] = MATCH * wanted[part]
        second.v_proj.weight[rows] = copied[rows]
        second.o_proj.weight[:, rows] = scale * COPY * copied[rows].T


def _look_back(attention: Qwen2Attention, size: int, theta: float) -> None:
    """Head 0 attends to the position before, whatever stands there."""
    half = size // 2
    fast = torch.arange(max(1, 3 * half // 8))  # pairs of dimensions that turn enough from one position to the next
    angles = theta ** (-fast / half)
    length = math.sqrt(MARGIN * math.sqrt(size) / (1 - angles.cos()).sum())
    query, key = torch.zeros(size), torch.zeros(size)
    key[fast] = length
    query[fast], query[half + fast] = length * angles.cos(), -length * angles.sin()
    for projection, bias in ((attention.q_proj, query), (attention.k_proj, key)):
        projection.weight[:size] *= FAINT
        projection.bias[:size] = bias


def _slow(size: int) -> Tensor:
    """Dimensions of a head that turn so little over a text that what is compared there is content, not position."""
    half = size // 2
    return torch.cat([torch.arange(half // 2, half), torch.arange(half + half // 2, size)])


def _rows(count: int, width: int, generator: torch.Generator) -> Tensor:
    """Random orthonormal rows (count, width)."""
    return torch.linalg.qr(torch.randn(width, count, generator=generator))[0].T
