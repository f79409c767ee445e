"""Muon's update of the matrices of the 30M model: stacks of 32 512x512, 8 2048x512 and 8 512x2048, five iterations."""

import sys

from common import serve, torch

SHAPES = [(32, 512, 512), (8, 2048, 512), (8, 512, 2048)]
A, B, C = 3.4445, -4.7750, 2.0315
DTYPE = torch.bfloat16 if "--bf16" in sys.argv else torch.float32
weights, gradients, momenta = ([torch.randn(shape) * 0.02 for shape in SHAPES] for _ in range(3))


def orthogonal(g):
    wide = g.shape[1] <= g.shape[2]
    x = (g if wide else g.mT).to(DTYPE)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(a, a, a, beta=B, alpha=C), x, beta=A)
    return (x if wide else x.mT).float()


def update(p, g, m):
    m.lerp_(g, 0.05)
    scale = 0.2 * max(p.shape[1:]) ** 0.5
    p.mul_(1 - 1e-4 * 0.01).sub_(orthogonal(g.lerp(m, 0.95)), alpha=1e-4 * scale)


if "--compile" in sys.argv:
    update = torch.compile(update)


@torch.no_grad()
def step():
    for p, g, m in zip(weights, gradients, momenta):
        update(p, g, m)


serve(step)
