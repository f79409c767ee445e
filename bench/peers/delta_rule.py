"""The gated delta rule in chunks of 64, forwards and backwards: B 2, H 4, T 2048, width 64.

S_t = alpha_t S_{t-1} (I - beta_t k_t k_t') + beta_t v_t k_t', o_t = S_t q_t, as products within a chunk (Yang et al. 2024)
and a loop over the N chunks.
"""

import sys

from common import serve, torch, wave

B, H, T, K, C = 2, 4, 2048, 64, 64
dims = (B, H, T, K)
values = [
    wave(1, dims),
    wave(2, dims) * (2.0 / K) ** 0.5,
    wave(3, dims),
    -0.05 * (1.0 + wave(4, dims[:3])),
    0.5 + 0.45 * wave(5, dims[:3]),
]
operands = [x.float().requires_grad_() for x in values]
weights = wave(6, dims).float()
strict = torch.tril(torch.ones(C, C), -1).bool()
causal = torch.tril(torch.ones(C, C)).bool()
identity = torch.eye(C)


def loss_of(q, k, v, log_alpha, beta):
    q, k, v = (x.view(B, H, T // C, C, K) for x in (q, k, v))
    since = log_alpha.view(B, H, T // C, C).cumsum(-1)
    beta = beta.view(B, H, T // C, C, 1)
    # Masked before the exponential: above the diagonal it would overflow.
    between = (since.unsqueeze(-1) - since.unsqueeze(-2)).masked_fill(~causal, -1e30).exp()
    overlap = (beta * (k @ k.transpose(-1, -2)) * between).masked_fill(~strict, 0.0)
    solved = torch.linalg.solve_triangular(identity + overlap, identity.expand_as(overlap), upper=False, unitriangular=True)
    own = solved @ (beta * v)
    erased = solved @ (beta * k * since.unsqueeze(-1).exp())
    within = (q @ k.transpose(-1, -2)) * between
    started = q * since.unsqueeze(-1).exp()
    to_end = k * (since[..., -1:] - since).exp().unsqueeze(-1)
    across = since[..., -1].exp()
    state, out = q.new_zeros(B, H, K, K), []
    for n in range(T // C):
        written = own[:, :, n] - erased[:, :, n] @ state
        out.append(started[:, :, n] @ state + within[:, :, n] @ written)
        state = across[:, :, n, None, None] * state + to_end[:, :, n].transpose(-1, -2) @ written
    return (torch.stack(out, 2).view(dims) * weights).sum()


if "--compile" in sys.argv:
    loss_of = torch.compile(loss_of)


def step():
    for x in operands:
        x.grad = None
    loss = loss_of(*operands)
    loss.backward()
    return loss.item()


serve(step)
