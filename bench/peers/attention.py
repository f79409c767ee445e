"""Causal attention, forwards and backwards: B 1, H 8, D 64, T given."""

import sys

from common import serve, torch, wave

dims = (1, 8, int(sys.argv[1]), 64)
operands = [wave(number, dims).float().requires_grad_() for number in (1, 2, 3)]
weights = wave(4, dims).float()


def loss_of(q, k, v):
    return (torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True) * weights).sum()


if "--compile" in sys.argv:
    loss_of = torch.compile(loss_of)


def step():
    for x in operands:
        x.grad = None
    loss = loss_of(*operands)
    loss.backward()
    return loss.item()


serve(step)
