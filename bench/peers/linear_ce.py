"""Cross-entropy of a language-model head, forwards and backwards: N 2048, D 512, V 32000."""

import sys

from common import serve, torch, wave

N, D, V = 2048, 512, 32000
x = wave(1, (N, D)).float().requires_grad_()
head = (0.05 * wave(2, (V, D))).float().requires_grad_()
targets = torch.arange(N) * 7919 % V


def loss_of(x, head):
    return torch.nn.functional.cross_entropy(torch.nn.functional.linear(x, head), targets)


if "--compile" in sys.argv:
    loss_of = torch.compile(loss_of)


def step():
    x.grad = head.grad = None
    loss = loss_of(x, head)
    loss.backward()
    return loss.item()


serve(step)
