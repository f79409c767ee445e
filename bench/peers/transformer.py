"""The transformers of the training benches: pre-norm, learned positions, GELU, no biases; one fused AdamW step.

B batch, T tokens, D width, H heads.
"""

import argparse
import math

from common import Exported, serve, torch, training

F = torch.nn.functional


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", required=True)
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--heads", type=int, required=True)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--scale", action="store_true", help="embeddings times sqrt(D)")
    parser.add_argument("--compile", action="store_true")
    return parser.parse_args()


def model(w, args):
    def norm(name, x):
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.gain"], None, 1e-5)

    def drop(x):
        return F.dropout(x, args.dropout) if args.dropout else x

    def block(name, x):
        batch, tokens, width = x.shape
        heads = lambda y: y.view(batch, tokens, args.heads, -1).transpose(1, 2)
        n = norm(f"{name}.attention.norm", x)
        q, k, v = (heads(F.linear(n, w[f"{name}.attention.{part}"])) for part in ("wq", "wk", "wv"))
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, tokens, width)
        x = x + drop(F.linear(o, w[f"{name}.attention.wo"]))
        h = F.gelu(F.linear(norm(f"{name}.mlp.norm", x), w[f"{name}.mlp.w_in"]))
        return x + drop(F.linear(h, w[f"{name}.mlp.w_out"]))

    def loss(tokens, targets):
        table = w["embedding"]
        x = F.embedding(tokens, table)
        if args.scale:
            x = x * math.sqrt(x.shape[-1])
        x = drop(x + w["positions"])
        for layer in range(args.layers):
            x = block(f"layers.{layer}", x)
        logits = F.linear(norm("norm", x), w.get("head", table))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    return loss


args = options()
exported = Exported(args.weights)
loss = model(exported.weights, args)
serve(training(exported, torch.compile(loss) if args.compile else loss))
