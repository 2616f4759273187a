#!/usr/bin/env python3
"""Whole training steps beside PyTorch's: the same network, weights, batch and precision, by turns.

    python3 bench/steps_pytorch.py build/dojo                    # all networks
    python3 bench/steps_pytorch.py build/dojo donkey gpt2-256 [--precision bf16] [--rounds 3] [--json FILE]

`dojo bench steps RECIPE --json --save` says what the network is and writes its first weights and a batch;
the same network is built here from them and trained: forward, losses, backward, clipping, AdamW (fused),
moving average. First both compute three steps without dropout, and their losses must agree. Then each
runs in a process of its own, in turns: ours, PyTorch eager, PyTorch with torch.compile; PyTorch's images
are channels-last, its bf16 is autocast with f32 weights, both as PyTorch recommends. Of PyTorch's variants
the fastest counts. Reported: medians, the ratio PyTorch / ours (above 1: we are faster), peak memory, and
the time from launch to the end of the first step. Waiting threads of both sleep soon (GOMP_SPINCOUNT as
`dojo` sets it): PyTorch as it comes loses a multiple on a machine that is not quiet. Needs torch,
safetensors. Not needed by `make test`.
"""
import argparse
import collections
import glob
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zlib

# name: recipe, further arguments of `dojo bench steps`
NETWORKS = {
    "donkey": ("donkey", []),
    "udacity": ("udacity", []),
    "demo": ("demo", []),
    "kitti": ("kitti-smoke", []),
    "pilotnet": ("pilotnet", []),
    "resnet18": ("resnet18", []),
    "gpt2-256": ("gpt2-124m", ["--context", "256", "--batch", "4"]),
    "gpt2-1024": ("gpt2-124m", ["--context", "1024", "--batch", "1"]),
    "llama-256": ("llama-110m", ["--context", "256", "--batch", "4"]),
    "char-800k": ("shakespeare", []),
    "char-10m": ("shakespeare-10m", ["--batch", "16"]),
}
TOLERANCE = {"f32": 1e-4, "bf16": 2e-2}  # of the first losses, relative

if not os.environ.get("GOMP_SPINCOUNT") and not os.environ.get("OMP_WAIT_POLICY"):
    os.environ["GOMP_SPINCOUNT"] = "2000"  # read when the library is loaded
    os.execv(sys.executable, [sys.executable, *sys.argv])


# ---- a process that trains in PyTorch -------------------------------------------------------------
def networks():
    """Classes, made here so that the parent needs no torch."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    def conv(shape, stride, padding, bias=True):
        o, k, _, c = shape
        return nn.Conv2d(c, o, k, stride=stride, padding=padding, bias=bias)

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

        def place(self, name):  # of a parameter of ours: the tensor here
            kind, last = name.rsplit("/", 1)
            if kind.startswith("queue/"):
                side = "ih" if kind == "queue/input" else "hh"
                return getattr(self.gru, f"{last}_{side}_l0")
            return self.camera if kind == "" else getattr(self.parts[kind.replace("/", "_")], last)

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
                h = F.dropout(F.relu(p["control_hidden"](x)), self.drop, self.training)
                out["control"] = p["control_out"](h).view(b, t, 4)
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
            self.parts = nn.ModuleDict(
                {f"conv{i}": conv(w(f"conv{i}"), 2 if i < 4 else 1, 0) for i in range(1, 6)})
            for n in ("fc1", "fc2", "fc3", "control"):
                self.parts[n] = nn.Linear(w(n)[1], w(n)[0])
            self.drop = row["dropout"]

        def place(self, name):
            kind, last = name.rsplit("/", 1)
            return getattr(self.parts[kind], last)

        def forward(self, image, velocity):
            x = image[:, -1, 0].float().mul_(2 / 255).sub_(1).permute(0, 3, 1, 2)
            for i in range(1, 6):
                x = F.relu(self.parts[f"conv{i}"](x))
            x = F.dropout(x.permute(0, 2, 3, 1).flatten(1), self.drop, self.training)
            for n in ("fc1", "fc2", "fc3"):
                x = F.relu(self.parts[n](x))
            return {"control": self.parts["control"](x).view(-1, 1, 4)}

    class ResNet18(nn.Module):
        """src/drive/net_resnet18.c."""

        def __init__(self, row, shapes):
            super().__init__()
            self.parts = nn.ModuleDict()
            for name, s in shapes.items():
                if len(s) == 4:
                    kind = name.rsplit("/", 1)[0]
                    first = kind.endswith(("block0/conv1", "shortcut")) and "stage0" not in kind
                    self.parts[kind.replace("/", "_")] = conv(
                        s, 2 if first or kind == "stem" else 1, s[1] // 2, bias=False)
                    self.parts[kind.replace("/", "_") + "_norm"] = nn.BatchNorm2d(s[0])
            self.parts["control"] = nn.Linear(*reversed(shapes["control/weight"]))

        def place(self, name):
            kind, last = name.rsplit("/", 1)
            return getattr(self.parts[kind.replace("/", "_")], last)

        def conv(self, name, x):
            return self.parts[name + "_norm"](self.parts[name](x))

        def forward(self, image, velocity):
            x = image[:, -1, 0].float().mul_(2 / 255).sub_(1).permute(0, 3, 1, 2)
            x = F.max_pool2d(F.relu(self.conv("stem", x)), 3, 2, 1)
            for i in range(4):
                for k in range(2):
                    n = f"stage{i}_block{k}_"
                    y = self.conv(n + "conv2", F.relu(self.conv(n + "conv1", x)))
                    if i and not k:
                        x = self.conv(n + "shortcut", x)
                    x = F.relu(y + x)
            return {"control": self.parts["control"](x.mean((2, 3))).view(-1, 1, 4)}

    class Decoder(nn.Module):
        """src/text/decoder.c."""

        def __init__(self, row, shapes):
            super().__init__()
            self.d, self.drop = row["decoder"], row["dropout"]
            self.theirs = nn.ParameterDict(
                {n.replace("/", "_"): nn.Parameter(torch.zeros(s)) for n, s in shapes.items()})

        def place(self, name):
            return self.theirs[name.replace("/", "_")]

        def part(self, name, what="weight"):
            n = f"decoder_{name}_{what}"
            return self.theirs[n] if n in self.theirs else None

        def norm(self, name, x):
            w, b, e = self.part(name), self.part(name, "bias"), self.d["norm_eps"]
            if self.d["norm"] == "rms":
                return F.rms_norm(x, w.shape, w, e)
            return F.layer_norm(x, w.shape, w, b, e)

        def linear(self, name, x):
            return F.linear(x, self.part(name), self.part(name, "bias"))

        def rotate(self, x):  # (B, H, T, D)
            n = x.shape[-1] // 2
            angle = torch.arange(x.shape[2])[:, None] * self.d["rope_theta"] ** (
                -torch.arange(n) / n)
            c, s = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
            u, v = x[..., :n], x[..., n:]
            return torch.cat([u * c - v * s, v * c + u * s], -1)

        def forward(self, token):
            d, drop = self.d, lambda x: F.dropout(x, self.drop, self.training)
            b, t = token.shape
            x = F.embedding(token, self.part("token"))
            if d["positions"] == "learned":
                x = x + self.part("position")[:t]
            x = drop(x)
            h, hk, w = d["heads"], d["kv_heads"], d["width"] // d["heads"]
            for i in range(d["layers"]):
                n = f"layer{i}_attention_"
                qkv = self.linear(n + "qkv", self.norm(n + "norm", x)).view(b, t, h + 2 * hk, w)
                q, k, v = qkv.transpose(1, 2).split([h, hk, hk], 1)
                if d["positions"] == "rotary":
                    q, k = self.rotate(q), self.rotate(k)
                o = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=h != hk)
                x = x + drop(self.linear(n + "out", o.transpose(1, 2).reshape(b, t, -1)))
                n = f"layer{i}_mlp_"
                y = self.linear(n + "up", self.norm(n + "norm", x))
                if d["mlp"] == "swiglu":
                    gate, y = y.chunk(2, -1)
                    y = F.silu(gate) * y
                else:
                    y = F.gelu(y, approximate="tanh")
                x = x + drop(self.linear(n + "down", y))
            x = self.norm("norm", x)
            return F.linear(x, self.part("token" if d["tied"] else "head"))

    return {"dojo4d": Dojo4d, "pilotnet": PilotNet, "resnet18": ResNet18, "decoder": Decoder}


def loss_of(row, out, labels):
    """Masked losses of what the network predicts, as src/drive/task.c and src/text/task.c have them."""
    import torch
    import torch.nn.functional as F
    if row["decoder"]:
        return F.cross_entropy(out.float().flatten(0, 1), labels["label"].flatten().long())
    loss, w = 0, row["loss"]
    laplace = lambda x, lb, target: (x - target).abs() * torch.exp(-lb) + lb + 0.6931471805599453
    if "control" in out and w["steering"] + w["throttle"]:
        control = out["control"].float()
        t = control.shape[1]
        target, mask = labels["control"][:, -t:, :2], labels["control_mask"][:, -t:, :2]
        if w["kind"] == "laplace":
            e = laplace(control[..., :2], control[..., 2:].clamp(-6, 3), target)
        else:
            e = (control[..., :2] - target) ** 2 if w["kind"] == "l2" else (control[..., :2] - target).abs()
        e, n = e * mask, mask.sum((0, 1)).clamp(min=1)
        loss = (e.sum((0, 1)) / n * torch.tensor([w["steering"], w["throttle"]])).sum()
    if "path" in out:
        t = out["path"].shape[1]
        target = labels["path"][:, -t:, None, :, :2]
        mask = labels["path_mask"][:, -t:, None, :, None]
        e = laplace(out["path"].float(), out["path_lb"].float(), target) * mask
        e = e.sum((3, 4)) / (2 * mask.sum((3, 4))).clamp(min=1)  # (B, T, K)
        best, winner = e.min(2)
        choice = F.cross_entropy(out["choice"].float(), winner.flatten())
        loss = loss + w["path"] * best.mean() + w["choice"] * choice
    return loss


def born():
    """When this process began, on the clock of time.clock_gettime(CLOCK_BOOTTIME)."""
    with open("/proc/self/stat") as f:
        ticks = int(f.read().rsplit(")", 1)[1].split()[19])
    return ticks / os.sysconf("SC_CLK_TCK")


def serve(arguments):
    """Builds the network and answers lines on stdin: `run SECONDS` with times, `end` with memory."""
    arguments = json.load(open(arguments))
    row, threads, compiled = arguments["row"], arguments["threads"], arguments["compile"]
    import torch
    from safetensors.torch import load_file
    torch.set_num_threads(threads)
    saved = load_file(arguments["weights"])
    shapes = {p["name"]: p["shape"] for p in row["parameters"]}
    net = networks()[row["network"]](row, shapes)
    with torch.no_grad():
        for name, s in shapes.items():
            v = saved[name].permute(0, 3, 1, 2) if len(s) == 4 else saved[name]
            net.place(name).copy_(v)
    net = net.to(memory_format=torch.channels_last)
    if row["decoder"]:
        inputs, labels = (saved["token"],), {"label": saved["label"]}
    else:
        inputs = (saved["image"], saved.get("velocity"))
        labels = {k[6:]: v for k, v in saved.items() if k.startswith("label/")}
    del saved
    batches = load_file(arguments["batches"]) if arguments["batches"] else None
    call = torch.compile(net) if compiled else net
    params = list(net.parameters())
    o = row["optimizer"]
    opt = torch.optim.AdamW([{"params": [p for p in params if p.dim() >= 2], "weight_decay": o["weight_decay"]},
                             {"params": [p for p in params if p.dim() < 2], "weight_decay": 0}],
                            lr=arguments["lr"], betas=(o["beta1"], o["beta2"]), eps=o["eps"], fused=True)
    average = [p.detach().clone() for p in params] if row["ema"] else []

    def step(k=0):
        nonlocal inputs, labels
        if batches:
            k %= len(batches["token"])
            inputs, labels = (batches["token"][k],), {"label": batches["label"][k]}
        with torch.autocast("cpu", torch.bfloat16, enabled=row["precision"] == "bf16"):
            out = call(*inputs)
        loss = loss_of(row, out, labels)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        if row["clip"]:
            torch.nn.utils.clip_grad_norm_(params, row["clip"])
        opt.step()
        if average:
            torch._foreach_lerp_(average, [p.detach() for p in params], 1 - row["ema"])
        return loss.item()

    losses = [step()]
    first = time.clock_gettime(time.CLOCK_BOOTTIME) - born()
    losses += [step(k) for k in range(1, len(row["first_losses"]))]
    print(json.dumps({"losses": losses, "first_step_s": first}), flush=True)
    for line in sys.stdin:
        word = line.split()
        if word[0] == "end":
            break
        times, end = [], time.perf_counter() + float(word[1])
        while len(times) < 3 or time.perf_counter() < end:
            start = time.perf_counter()
            step()
            times.append(1e3 * (time.perf_counter() - start))
        print(json.dumps(statistics.median(times)), flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, flush=True)


# ---- the comparison -------------------------------------------------------------------------------
class Peer:
    def __init__(self, row, weights, threads, compiled, folder, lr=1e-6, batches=None):
        path = os.path.join(folder, "worker.json")
        json.dump({"row": row, "weights": weights, "threads": threads, "compile": compiled, "lr": lr,
                   "batches": batches}, open(path, "w"))
        self.process = subprocess.Popen([sys.executable, __file__, "--serve", path], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.hello = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"PyTorch ended with {self.process.wait()}")
        return json.loads(line)

    def ask(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return self.answer()

    def end(self):
        memory = self.ask("end")
        self.process.wait()
        return memory


def ours(args, name, precision, *more):
    recipe, extra = NETWORKS[name]
    here = os.path.dirname(os.path.abspath(__file__))
    out = subprocess.run([args.dojo, "bench", "steps", f"{here}/../recipes/{recipe}.yaml", "--precision",
                          precision, "--threads", str(args.threads), "--json", *extra, *more],
                         check=True, capture_output=True, text=True).stdout
    return json.loads(out)[0]


def check_losses(name, precision, a, b):
    worst = max(abs(x - y) / max(abs(y), 1e-3) for x, y in zip(a, b))
    if worst > TOLERANCE[precision]:
        sys.exit(f"{name} {precision}: not the same network: first losses {a}, PyTorch {b}")
    return worst


def write_batches(path, row, count):
    """Pieces of this project's pages: characters where the vocabulary is small, else words by their hash."""
    import numpy as np
    from safetensors.numpy import save_file
    pages = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "docs", "*.md")
    text = "".join(open(f, encoding="utf-8").read() for f in sorted(glob.glob(pages)))
    d = row["decoder"]
    if d["vocabulary"] < 1000:
        often = "".join(c for c, _ in collections.Counter(text).most_common(d["vocabulary"] - 1))
        tokens = [often.find(c) % d["vocabulary"] for c in text]  # others: the last one
    else:
        tokens = [zlib.crc32(w.encode()) % d["vocabulary"] for w in re.findall(r"\w+|\W", text)]
    tokens, draw, length = np.array(tokens, np.int32), np.random.default_rng(1), d["context"]
    at = draw.integers(0, len(tokens) - length, (count, row["input"]["batch"]))[..., None] + np.arange(length)
    save_file({"token": tokens[at], "label": tokens[at + 1]}, path)


def curve(args, name, precision):
    """Losses of many steps from equal weights: a decoder's on a batch of text a step, others' on one batch."""
    with tempfile.TemporaryDirectory() as folder:
        weights, batches = os.path.join(folder, "weights.safetensors"), None
        more = ["--seconds", "0", "--no-dropout", "--lr", str(args.lr)]
        row = ours(args, name, precision, *more)
        if row["decoder"]:
            batches = os.path.join(folder, "batches.safetensors")
            write_batches(batches, row, args.curve)
            more += ["--batches", batches]
        row = ours(args, name, precision, *more, "--save", weights, "--losses", str(args.curve))
        peer = Peer(row, weights, args.threads, False, folder, args.lr, batches)
        a, b = row["first_losses"], peer.hello["losses"]
        peer.end()
    apart = [abs(x - y) / abs(y) for x, y in zip(a, b)]
    print(f"{name:10} {precision:5} {len(a)} steps, loss {b[0]:.4f} to {b[-1]:.4f}: at most {max(apart):.1e} apart, "
          f"relative, {apart[-1]:.1e} at the end", flush=True)


def compare(args, name, precision):
    with tempfile.TemporaryDirectory() as folder:
        weights = os.path.join(folder, "weights.safetensors")
        row = ours(args, name, precision, "--seconds", "0", "--no-dropout", "--save", weights)
        same = Peer(row, weights, args.threads, False, folder)
        apart = check_losses(name, precision, row["first_losses"], same.hello["losses"])
        same.end()
        row = ours(args, name, precision, "--seconds", "0")
        peers = {}
        for variant in ("eager", "compile"):
            try:
                peers[variant] = Peer(row, weights, args.threads, variant == "compile", folder)
            except RuntimeError as e:
                print(f"{name}: PyTorch {variant}: {e}", file=sys.stderr)
        a, first, memory, b = [], [], [], {v: [] for v in peers}
        for _ in range(args.rounds):
            row = ours(args, name, precision, "--seconds", str(args.seconds))
            a.append(row["ms"])
            first.append(row["first_step_s"])
            memory.append(row["peak_mib"])
            for v, p in peers.items():
                b[v].append(p.ask(f"run {args.seconds}"))
        theirs = {v: p.end() for v, p in peers.items()}
    best = min(b, key=lambda v: statistics.median(b[v]))
    r = {"network": name, "precision": precision, "losses_apart": apart, "ours_ms": statistics.median(a),
         "pytorch_ms": {v: statistics.median(t) for v, t in b.items()}, "best": best,
         "ratio": statistics.median(y / x for x, y in zip(a, b[best])),
         "ours_mib": statistics.median(memory), "pytorch_mib": theirs,
         "memory": statistics.median(memory) / min(theirs.values()),
         "ours_first_step_s": statistics.median(first),
         "pytorch_first_step_s": {v: p.hello["first_step_s"] for v, p in peers.items()},
         "arena": row["arena_bytes"] / row["lower_bound_bytes"], "gflop": row["gflop"]}
    ms = lambda v: f"{r['pytorch_ms'][v]:9.1f}" if v in b else "        -"
    print(f"{name:10} {precision:5} {apart:8.0e} {r['ours_ms']:9.1f} {ms('eager')} {ms('compile')} {r['ratio']:6.2f} "
          f"{r['ours_mib']:8.0f} {min(theirs.values()):8.0f} {r['memory']:6.2f} {r['ours_first_step_s']:7.2f} "
          f"{min(r['pytorch_first_step_s'].values()):7.1f} {r['arena']:6.3f}", flush=True)
    return r


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "--serve":
        return serve(sys.argv[2])
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("dojo")
    p.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(NETWORKS))
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=float, default=2.0, help="of each, in a round")
    p.add_argument("--precision", choices=["f32", "bf16"])
    p.add_argument("--json", help="a file for the figures")
    p.add_argument("--curve", type=int, metavar="N", help="instead: compare the losses of N steps")
    p.add_argument("--lr", type=float, default=3e-4, help="of --curve (3e-4)")
    args = p.parse_args()
    unknown = [n for n in args.networks if n not in NETWORKS]
    if unknown:
        p.error(f"unknown {unknown}; known: {', '.join(NETWORKS)}")
    if args.curve:
        for n in args.networks or NETWORKS:
            for t in ("f32", "bf16"):
                if args.precision in (None, t):
                    curve(args, n, t)
        return
    print(f"{args.threads} threads, medians of {args.rounds} rounds by turns; ratio: best of PyTorch / ours, above "
          "1 we are faster;\nmemory: ours / PyTorch's; first: launch to the end of the first step, s")
    print(f"{'network':10} {'dtype':5} {'losses':>8} {'ours, ms':>9} {'eager':>9} {'compiled':>9} {'ratio':>6} "
          f"{'our MiB':>8} {'PyTorch':>8} {'memory':>6} {'first':>7} {'PyTorch':>7} {'arena':>6}", flush=True)
    rows = [compare(args, n, t) for n in args.networks or NETWORKS for t in ("bf16", "f32")
            if args.precision in (None, t)]
    print(f"geometric mean of {len(rows)} ratios: {statistics.geometric_mean(r['ratio'] for r in rows):.2f}")
    if args.json:
        with open(args.json, "w") as f:
            json.dump(rows, f, indent=1)


if __name__ == "__main__":
    main()
