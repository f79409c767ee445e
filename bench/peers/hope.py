"""HOPE as a good eager program would have it: d 256, 4 blocks, memories of 16, 64 and 256 tokens, chunks of 16.

Per chunk: blocks of attention over all earlier keys and a chain of memories, the chunk's loss, its gradient at the output
of every memory, and a write of those whose period ends. The gradient of a step passes keys and values, not writes. All
sequences of the batch go at once; with `--shared` they have one memory together, else one each. With `--factored` a matrix that
was written is its start and the tokens' factors of what was added, N of them, and is never formed.

B batch, T tokens, C tokens of a chunk, D width, N tokens written.
"""

import sys

from common import Exported, serve, torch, training

F = torch.nn.functional
LAYERS, HEADS, CHUNK, PERIODS, RATE = 4, 4, 16, (16, 64, 256), 0.01
SHARED = "--shared" in sys.argv
FACTORED = "--factored" in sys.argv
exported = Exported(sys.argv[sys.argv.index("--weights") + 1])
w = exported.weights
NAMES = ("gain", "shift", "w1", "b1", "w2", "b2")


def norm(name, x):
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.gain"], w[f"{name}.bias"], 1e-5)


def row(vector):
    return vector if vector.dim() == 1 else vector.unsqueeze(1)


def attention(name, x, cache):
    batch, tokens, width = x.shape
    q, k, v = (F.linear(x, w[f"{name}.{part}"]).view(batch, tokens, HEADS, -1).transpose(1, 2) for part in ("wq", "wk", "wv"))
    k, v = (torch.cat((old, new), 2) for old, new in zip(cache, (k, v))) if cache else (k, v)
    seen = torch.ones(tokens, k.shape[2], dtype=torch.bool).tril(k.shape[2] - tokens)
    o = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    return F.linear(o.transpose(1, 2).reshape(batch, tokens, width), w[f"{name}.wo"]), (k, v)


class Level:
    """x + w2 gelu(w1 LN(x) + b1) + b2; `moved` is what writes added to its six weights."""

    def __init__(self, name, period):
        self.start = [w[f"{name}.{part}"] for part in NAMES]
        self.weights, self.moved, self.period = self.start, None, period
        self.slopes, self.tokens = None, 0

    def read(self, x):
        gain, shift, w1, b1, w2, b2 = self.weights
        self.normal = F.layer_norm(x, x.shape[-1:], None, None, 1e-5)
        self.scaled = self.normal * row(gain) + row(shift)
        self.inner = self.scaled @ w1.mT + row(b1)
        self.active = F.gelu(self.inner)
        self.output = x + self.active @ w2.mT + row(b2)
        return self.output

    @torch.no_grad()
    def learn(self, teach):
        _, _, w1, _, w2, _ = self.weights
        of_inner = torch.ops.aten.gelu_backward(teach @ w2, self.inner)
        of_scaled = of_inner @ w1
        if SHARED:
            flat = lambda x: x.flatten(0, 1)
            new = [
                (of_scaled * self.normal).sum((0, 1)),
                of_scaled.sum((0, 1)),
                flat(of_inner).mT @ flat(self.scaled),
                of_inner.sum((0, 1)),
                flat(teach).mT @ flat(self.active),
                teach.sum((0, 1)),
            ]
        else:
            new = [
                (of_scaled * self.normal).sum(1),
                of_scaled.sum(1),
                of_inner.mT @ self.scaled,
                of_inner.sum(1),
                teach.mT @ self.active,
                teach.sum(1),
            ]
        self.slopes = new if self.slopes is None else torch._foreach_add(self.slopes, new)
        self.tokens += teach.shape[1]

    def write(self):
        with torch.no_grad():
            step = torch._foreach_mul(self.slopes, -RATE)
            self.moved = step if self.moved is None else torch._foreach_add(self.moved, step)
        # The cotangent goes to the start: what was written is a constant.
        self.weights = [start + moved for start, moved in zip(self.start, self.moved)]
        self.slopes, self.tokens = None, 0


class Factored:
    """A matrix m of [out, in] as its start and RATE times the product of factors [B, N, out] and [B, N, in], less."""

    def __init__(self, start):
        self.start, self.out, self.into, self.new = start, None, None, []

    def times(self, x):
        """x m', for x of [B, C, in]."""
        y = x @ self.start.mT
        return y if self.out is None else torch.baddbmm(y, x @ self.into.mT, self.out, alpha=-RATE)

    def turned_times(self, x):
        """x m, for x of [B, C, out]."""
        y = x @ self.start
        return y if self.out is None else torch.baddbmm(y, x @ self.out.mT, self.into, alpha=-RATE)

    def learn(self, out, into):
        self.new.append((out.detach(), into.detach()))

    def write(self):
        outs, intos = zip(*self.new)
        self.out = torch.cat(outs if self.out is None else (self.out, *outs), 1)
        self.into = torch.cat(intos if self.into is None else (self.into, *intos), 1)
        self.new = []


class FactoredLevel(Level):
    def __init__(self, name, period):
        super().__init__(name, period)
        self.w1, self.w2 = Factored(self.start[2]), Factored(self.start[4])
        self.start = [self.start[at] for at in (0, 1, 3, 5)]
        self.weights = self.start

    def read(self, x):
        gain, shift, b1, b2 = self.weights
        self.normal = F.layer_norm(x, x.shape[-1:], None, None, 1e-5)
        self.scaled = self.normal * row(gain) + row(shift)
        self.inner = self.w1.times(self.scaled) + row(b1)
        self.active = F.gelu(self.inner)
        self.output = x + self.w2.times(self.active) + row(b2)
        return self.output

    @torch.no_grad()
    def learn(self, teach):
        of_inner = torch.ops.aten.gelu_backward(self.w2.turned_times(teach), self.inner)
        of_scaled = self.w1.turned_times(of_inner)
        self.w1.learn(of_inner, self.scaled)
        self.w2.learn(teach, self.active)
        new = [(of_scaled * self.normal).sum(1), of_scaled.sum(1), of_inner.sum(1), teach.sum(1)]
        self.slopes = new if self.slopes is None else torch._foreach_add(self.slopes, new)
        self.tokens += teach.shape[1]

    def write(self):
        super().write()
        self.w1.write()
        self.w2.write()


def loss_of(tokens, targets):
    level = FactoredLevel if FACTORED else Level
    chains = [[level(f"layers.{b}.cms.{i}", p) for i, p in enumerate(PERIODS)] for b in range(LAYERS)]
    levels = [level for chain in chains for level in chain]
    caches, losses, table = [None] * LAYERS, [], w["embedding"]
    chunks = tokens.shape[1] // CHUNK
    for c in range(chunks):
        part = slice(c * CHUNK, (c + 1) * CHUNK)
        x = F.embedding(tokens[:, part], table)
        for b, chain in enumerate(chains):
            mixed, caches[b] = attention(f"layers.{b}.attention", x, caches[b])
            x = norm(f"layers.{b}.norm", x + mixed)
            for level in chain:
                x = level.read(x)
        logits = F.linear(norm("norm", x), table)
        losses.append(F.cross_entropy(logits.flatten(0, 1), targets[:, part].flatten(), reduction="sum"))
        # Nobody reads what the last chunk would write.
        if c + 1 < chunks:
            teach = torch.autograd.grad(losses[-1], [level.output for level in levels], retain_graph=True)
            for level, signal in zip(levels, teach):
                level.learn(signal)
                if level.tokens == level.period:
                    level.write()
    return torch.stack(losses).sum() / tokens.numel()


serve(training(exported, loss_of))
