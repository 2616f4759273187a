#!/usr/bin/env python3
"""Whole training steps beside PyTorch's: the same network, batch and precision, by turns.

    python3 bench/steps_pytorch.py build/dojo recipes/donkey.yaml recipes/pilotnet.yaml [--rounds 5]

`dojo bench steps RECIPE --json` says what the network is (its parameters and the sizes of a batch)
and how long a step takes; the same network is built here from that and trained on a batch in memory:
forward, losses, backward, clipping, AdamW (fused), moving average. bf16 is autocast with f32
weights. Images are channels-last as PyTorch likes them. Rounds alternate; a ratio below 1 means that
Dojo is faster; `fastest` is the ratio of the fastest steps, which neighbours disturb least. Waiting
threads of both sleep soon (GOMP_SPINCOUNT as `dojo` sets it): PyTorch as it comes loses a multiple on a
machine that is not quiet. Needs torch. Not needed by `make test`.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

if not os.environ.get("GOMP_SPINCOUNT") and not os.environ.get("OMP_WAIT_POLICY"):
    os.environ["GOMP_SPINCOUNT"] = "2000"  # read when the library is loaded
    os.execv(sys.executable, [sys.executable, *sys.argv])

import torch
import torch.nn.functional as F
from torch import nn


def conv(shape, stride, padding):
    o, k, _, c = shape
    return nn.Conv2d(c, o, k, stride=stride, padding=padding)


class Dojo4d(nn.Module):
    """src/drive/net_dojo4d.c, from the shapes of its parameters."""

    def __init__(self, row, shapes):
        super().__init__()
        self.parts = nn.ModuleDict()
        self.stages = []
        for name, s in shapes.items():
            kind, last = name.rsplit("/", 1)
            if last != "weight":
                continue
            key = kind.replace("/", "_")
            if kind.startswith("backbone/"):
                stride = 2 if kind.endswith("/down") else 1
                self.parts[key] = conv(s, stride, s[1] // 2)
                if not kind.endswith("/conv2"):
                    self.stages.append((key, None))
                else:
                    self.stages[-1] = (self.stages[-1][0], key)  # a residual block
            elif not kind.startswith("queue/"):
                self.parts[key] = nn.Linear(s[1], s[0])
        hidden = shapes["feature/weight"][0]
        i = row["input"]
        self.window, self.cameras = i["frames"], i["cameras"]
        self.stack = shapes["backbone/stage0/down/weight"][3] // 3
        self.drop = row["dropout"]
        self.gru = None
        if "queue/input/weight" in shapes:
            self.gru = nn.GRU(shapes["queue/input/weight"][1], hidden, batch_first=True)
        self.matching, extra = 0, 0  # pixels to either side
        if "matching/weight" in shapes:
            extra, costs = shapes["matching/weight"]
            self.matching = (costs // (8 * self.cameras) - 1) // 2
        width = shapes["control/hidden/weight" if "control/hidden/weight" in shapes
                       else "path/hidden/weight"][1]
        if self.gru is not None:
            width = shapes["queue/input/weight"][1]
        self.speed = width > hidden + extra
        if self.cameras > 1:
            self.camera = nn.Parameter(torch.zeros(self.cameras, hidden))

    def images(self, image):  # (B, T, C, H, W, 3) u8 -> (N, 3 * stack, H, W), channels last
        x = image.float().mul_(2 / 255).sub_(1)
        t = self.window - self.stack + 1
        now = x[:, self.stack - 1:]
        parts = [now] + [now - x[:, self.stack - 1 - k:self.stack - 1 - k + t]
                         for k in range(1, self.stack)]
        x = torch.cat(parts, -1) if self.stack > 1 else now
        return x.reshape(-1, *x.shape[3:]).permute(0, 3, 1, 2)

    def costs(self, image, t):  # of displacements sideways -> (B * T', features)
        d, n = self.matching, image.shape[0] * t * self.cameras
        g = image[..., 1].float()
        now = g[:, -t:].reshape(n, 1, *g.shape[3:])
        before = g[:, -t - 1:-1].reshape(n, 1, *g.shape[3:])
        w = now.shape[3] - 2 * d
        now, block = now[..., d:d + w], (now.shape[2] // 2, w // 4)
        c = torch.cat([F.avg_pool2d((now - before[..., k:k + w]).abs(), block)
                       for k in range(2 * d + 1)], 1).permute(0, 2, 3, 1)  # (n, 2, 4, 2D + 1)
        mean = c.mean(3, keepdim=True)
        return ((mean - c) / (0.5 * mean + 1)).reshape(image.shape[0] * t, -1)

    def extrapolate(self, velocity):  # (B, T', 2) -> (B, T', 1, 33, 2)
        at = 10 * (torch.arange(33) / 32) ** 2
        d = velocity[..., :1] * at
        a = (velocity[..., 1:] * at).clamp(-1, 1)
        return torch.stack([d * (1 - a * a / 6), d * a / 2], -1)[:, :, None]

    def forward(self, image, velocity):
        b, p = image.shape[0], self.parts
        t = self.window - self.stack + 1
        x = self.images(image)
        for first, second in self.stages:
            y = F.relu(p[first](x))
            x = y if second is None else F.relu(x + p[second](y))
        x = F.dropout(x.permute(0, 2, 3, 1).flatten(1), self.drop, self.training)
        x = p["feature"](x)
        if self.cameras > 1:
            x = (x.view(b * t, self.cameras, -1) + self.camera).sum(1)
        x = F.relu(x)
        if self.matching:
            x = torch.cat([x, F.relu(p["matching"](self.costs(image, t)))], 1)
        seen = x
        if self.speed:
            vehicle = velocity[:, -t:].reshape(-1, 2) * torch.tensor([0.05, 2])
            x = torch.cat([x, vehicle], 1)
        if self.gru is not None:
            x = torch.cat([self.gru(x.view(b, t, -1))[0].reshape(b * t, -1), seen], 1)
        out = {}
        if "control_out" in p:
            out["control"] = p["control_out"](F.relu(p["control_hidden"](x))).view(b, t, 4)
        if "path_hidden" in p:
            h = F.relu(p["path_hidden"](x))
            k = p["path_choice"].out_features
            scale = 1 + 10 * (torch.arange(33) / 32) ** 2
            out["path"] = p["path_points"](h).view(b, t, k, 33, 2) * scale[:, None]
            if self.speed:
                out["path"] = out["path"] + self.extrapolate(velocity[:, -t:])
            out["path_lb"] = p["path_scale"](h).view(b, t, k, 33, 2).clamp(-5, 5)
            out["choice"] = p["path_choice"](h).view(b * t, k)
        return out


class PilotNet(nn.Module):
    """src/drive/net_pilotnet.c."""

    def __init__(self, row, shapes):
        super().__init__()
        w = lambda name: shapes[name + "/weight"]
        self.convs = nn.ModuleList(
            conv(w(f"conv{i}"), 2 if i < 4 else 1, 0) for i in range(1, 6))
        self.dense = nn.ModuleList(
            nn.Linear(w(n)[1], w(n)[0]) for n in ("fc1", "fc2", "fc3", "control"))
        self.drop = row["dropout"]

    def forward(self, image, velocity):
        x = image[:, -1, 0].float().mul_(2 / 255).sub_(1).permute(0, 3, 1, 2)
        for c in self.convs:
            x = F.relu(c(x))
        x = F.dropout(x.permute(0, 2, 3, 1).flatten(1), self.drop, self.training)
        for d in self.dense[:-1]:
            x = F.relu(d(x))
        return {"control": self.dense[-1](x).view(-1, 1, 4)}


def laplace(x, lb, target):
    return (x - target).abs() * torch.exp(-lb) + lb


def loss_of(out, labels):
    """Masked Laplacian losses of what the network predicts, as src/drive/task.c has them."""
    loss = 0
    if "control" in out:
        control = out["control"].float()
        t = control.shape[1]
        target, mask = labels["control"][:, -t:], labels["control_mask"][:, -t:]
        e = laplace(control[..., :2], control[..., 2:].clamp(-6, 3), target[..., :2])
        e, n = e * mask[..., :2], mask[..., :2].sum((0, 1)).clamp(min=1)
        loss = (e.sum((0, 1)) / n * torch.tensor([1, 0.1])).sum()
    if "path" in out:
        t = out["path"].shape[1]
        target = labels["path"][:, -t:, None, :, :2]
        mask = labels["path_mask"][:, -t:, None, :, None]
        e = laplace(out["path"].float(), out["path_lb"].float(), target) * mask
        e = e.sum((3, 4)) / (2 * mask.sum((3, 4))).clamp(min=1)  # (B, T, K)
        best, winner = e.min(2)
        choice = F.cross_entropy(out["choice"].float(), winner.flatten())
        loss = loss + best.mean() + 0.1 * choice
    return loss


class Peer:
    """A training step of the row's network in PyTorch."""

    def __init__(self, row, compiled):
        i = row["input"]
        shapes = {p["name"]: p["shape"] for p in row["parameters"]}
        net = {"dojo4d": Dojo4d, "pilotnet": PilotNet}[row["network"]](row, shapes)
        net = net.to(memory_format=torch.channels_last)
        ours = sum(torch.Size(s).numel() for s in shapes.values())
        theirs = sum(p.numel() for p in net.parameters())
        if net.__class__ is Dojo4d and net.gru is not None:  # PyTorch's GRU has two biases of each
            theirs -= net.gru.bias_ih_l0.numel()
            ours -= shapes["queue/input/bias"][0]
        if ours != theirs:
            raise SystemExit(f"{row['recipe']}: {ours} parameters here, {theirs} in PyTorch")
        b, t = i["batch"], i["frames"]
        self.inputs = (torch.randint(0, 256, (b, t, i["cameras"], i["height"], i["width"], 3),
                                     dtype=torch.uint8), torch.rand(b, t, 2))
        self.labels = {"control": torch.rand(b, t, 3), "control_mask": torch.ones(b, t, 3),
                       "path": torch.rand(b, t, 33, 3), "path_mask": torch.ones(b, t, 33)}
        self.net, self.clip, self.ema = net, row["clip"], row["ema"]
        self.call = torch.compile(net) if compiled else net
        self.params = list(net.parameters())
        self.average = [p.detach().clone() for p in self.params]
        self.opt = torch.optim.AdamW(self.params, lr=1e-6, fused=True)
        self.bf16 = row["precision"] == "bf16"

    def step(self):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            out = self.call(*self.inputs)
        loss = loss_of(out, self.labels)
        self.opt.zero_grad(set_to_none=True)
        loss.backward()
        if self.clip:
            nn.utils.clip_grad_norm_(self.params, self.clip)
        self.opt.step()
        if self.ema:
            torch._foreach_lerp_(self.average, [p.detach() for p in self.params], 1 - self.ema)
        return loss.item()

    def measure(self, seconds):
        times, end = [], time.perf_counter() + seconds
        while len(times) < 5 or time.perf_counter() < end:
            start = time.perf_counter()
            self.step()
            times.append(1e3 * (time.perf_counter() - start))
        return statistics.median(times), min(times)


def ours(args, recipe, precision, seconds):
    out = subprocess.run(
        [args.dojo, "bench", "steps", recipe, "--precision", precision, "--threads",
         str(args.threads), "--seconds", str(seconds), "--json"]
        + (["--batch", str(args.batch)] if args.batch else []),
        check=True, capture_output=True, text=True).stdout
    return json.loads(out)[0]


def compare(args, recipe, precision):
    row = ours(args, recipe, precision, 0)
    peer = Peer(row, args.compile)
    peer.measure(0)
    a, b = [], []
    for _ in range(args.rounds):
        row = ours(args, recipe, precision, args.seconds)
        a.append((row["ms"], row["fastest_ms"]))
        b.append(peer.measure(args.seconds))
    ratio = statistics.median(x[0] / y[0] for x, y in zip(a, b))
    x, y = (statistics.median(m for m, _ in v) for v in (a, b))
    fastest = min(f for _, f in a) / min(f for _, f in b)
    i = row["input"]
    print(f"{row['recipe']:16} {row['network']:9} {precision:5} {i['batch'] * i['frames']:6} "
          f"{i['width']:>4}x{i['height']:<4} {x:9.2f} {y:9.2f} {ratio:7.2f} {fastest:8.2f}",
          flush=True)
    return ratio


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("dojo")
    p.add_argument("recipes", nargs="+", metavar="RECIPE")
    p.add_argument("--threads", type=int, default=torch.get_num_threads())
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--seconds", type=float, default=1.0, help="of each, in a round")
    p.add_argument("--precision", choices=["f32", "bf16"])
    p.add_argument("--batch", type=int, default=0, help="samples (the recipe's)")
    p.add_argument("--compile", action="store_true", help="torch.compile the network")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    print(f"PyTorch {torch.__version__}{', compiled' if args.compile else ''}, {args.threads} threads,"
          f" median of {args.rounds} rounds by turns; ratio: ours / PyTorch's")
    print(f"{'recipe':16} {'network':9} {'dtype':5} {'frames':>6} {'size':>9} {'ours, ms':>9} "
          f"{'PyTorch':>9} {'ratio':>7} {'fastest':>8}")
    ratios = [compare(args, r, t) for r in args.recipes for t in ("f32", "bf16")
              if args.precision in (None, t)]
    print(f"geometric mean of {len(ratios)} ratios: {statistics.geometric_mean(ratios):.2f}")


if __name__ == "__main__":
    main()
