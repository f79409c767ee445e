"""From Python to graphs: the training step's forward and backward of a transformer of the pilot's size, captured from cold."""

import time

from common import serve, torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd

F = torch.nn.functional
LAYERS, D, HEADS, T, B, V = 15, 512, 8, 512, 4, 256


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        linear = lambda a, b: torch.nn.Linear(a, b, bias=False)
        self.first, self.second = torch.nn.LayerNorm(D, bias=False), torch.nn.LayerNorm(D, bias=False)
        self.qkv, self.out, self.up, self.down = linear(D, 3 * D), linear(D, D), linear(D, 4 * D), linear(4 * D, D)

    def forward(self, x):
        q, k, v = (y.view(B, T, HEADS, -1).transpose(1, 2) for y in self.qkv(self.first(x)).chunk(3, -1))
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, D)
        x = x + self.out(o)
        return x + self.down(F.gelu(self.up(self.second(x))))


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.blocks = torch.nn.Embedding(V, D), torch.nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = torch.nn.LayerNorm(D, bias=False)

    def forward(self, tokens, targets):
        x = self.table(tokens)
        for block in self.blocks:
            x = block(x)
        return F.cross_entropy((self.norm(x) @ self.table.weight.T).flatten(0, 1), targets.flatten())


captured = []


def keep(graph, inputs):
    """A backend that compiles nothing: its clock stops when both graphs are there."""
    captured.append(time.perf_counter())
    return make_boxed_func(graph.forward)


# On the meta device: shapes flow, nothing is computed.
with torch.device("meta"):
    model = Model()
    tokens = torch.zeros(B, T, dtype=torch.long)


def step():
    torch._dynamo.reset()
    clock = time.perf_counter()
    torch.compile(model, backend=aot_autograd(fw_compiler=keep, bw_compiler=keep))(tokens, tokens).backward()
    return captured[-1] - clock, None


serve(step)
