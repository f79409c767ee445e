"""What all peers share: how they are asked, memory, weights and batches that our side left, operands by formula.

A peer prepares its work, then answers lines of standard input: a number N by the mean seconds of N steps and the loss of
the last, anything else by its memory and the end. `cargo xtask bench` asks it and our side by turns.
"""

import json
import math
import os
import sys
import time


def resident(key):
    """Bytes of this process: VmRSS now, VmHWM at most so far."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(key):
                return int(line.split()[1]) * 1024
    return 0


import torch  # noqa: E402  what is resident after this is the price of the import, and is told apart

IMPORT_BYTES = resident("VmRSS")
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
torch.manual_seed(1)


def serve(step):
    """`step()` does one step and returns its loss, or None where there is none, or (seconds, loss) if it kept time."""
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        if not line.strip().isdigit():
            break
        count, seconds, loss = int(line), 0.0, None
        for _ in range(count):
            clock = time.perf_counter()
            loss = step()
            own = time.perf_counter() - clock
            if isinstance(loss, tuple):
                own, loss = loss
            seconds += own
        print(json.dumps({"seconds": seconds / count, "loss": loss}), flush=True)
    print(json.dumps({"peak_bytes": resident("VmHWM"), "import_bytes": IMPORT_BYTES}), flush=True)


class Exported:
    """Weights by name and batches, as our side left them in a folder."""

    def __init__(self, folder):
        with open(f"{folder}/list.json") as file:
            self.list = json.load(file)
        values = read(f"{folder}/weights.bin", torch.float32)
        self.weights = {}
        for entry in self.list["weights"]:
            count = math.prod(entry["dims"])
            own = values[entry["offset"] : entry["offset"] + count].clone().view(entry["dims"])
            self.weights[entry["name"]] = own.requires_grad_()
        shape = (-1, 2, self.list["batch"], self.list["window"])
        self.batches = read(f"{folder}/batches.bin", torch.int32).view(shape).long()
        self.next = 0

    def batch(self):
        """Tokens and targets of the next step."""
        tokens, targets = self.batches[self.next % len(self.batches)]
        self.next += 1
        return tokens, targets

    def optimizer(self):
        """Matrices and embeddings decay; gains and biases do not."""
        weights = list(self.weights.values())
        groups = [
            {"params": [w for w in weights if w.dim() > 1], "weight_decay": 0.01},
            {"params": [w for w in weights if w.dim() < 2], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW([g for g in groups if g["params"]], lr=1e-4, betas=(0.9, 0.999), eps=1e-8, fused=True)


def read(path, dtype):
    with open(path, "rb") as file:
        return torch.frombuffer(bytearray(file.read()), dtype=dtype)


def wave(number, dims):
    """Element i is sin(i (0.7 + 0.1 number)), as on our side; f64."""
    count = math.prod(dims)
    return torch.sin(torch.arange(count, dtype=torch.float64) * (0.7 + 0.1 * number)).view(dims)


def training(exported, loss_of):
    """A step of clipping and fused AdamW around `loss_of(tokens, targets)`."""
    optimizer, weights = exported.optimizer(), list(exported.weights.values())

    def step():
        loss = loss_of(*exported.batch())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step
