#!/usr/bin/env python3
"""Whole networks beside PyTorch: the loss of the first steps from equal weights, in f32.

Runs the program `parity` (cmake --build build --target parity), which trains a network with Dojo
and writes the weights and batches it started from; trains the same network here, and prints the
largest relative difference of the losses. The bar is 1e-4 over 50 steps. Training amplifies rounding
from step to step, so PyTorch's own distance between f32 and f64 is printed beside it. Where a unit lies
at its threshold within rounding, which side it falls on is chance, and the losses part from there on: a
network above the bar is trained again in PyTorch from starts moved by half a rounding, and passes if
PyTorch parts from itself as far.

    python3 bench/parity_pytorch.py build/parity [--steps 50] [--json]

Networks: PilotNet, a small ResNet (batch norm, stride 2, shortcuts, pooling), a small causal
transformer (attention, layer norm, GELU, cross-entropy); AdamW and SGD with momentum, clipping.
Needs torch and safetensors. Not needed by `make test`.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import torch
import torch.nn.functional as F
from safetensors import safe_open

BAR = 1e-4


def dense(w, name, x):
    return F.linear(x, w[name + "/w"], w[name + "/b"])


def conv(w, name, x, **args):
    return F.conv2d(x, w[name + "/w"], w.get(name + "/b"), **args)


def image(x):  # (N, H, W, C) -> (N, C, H, W)
    return x.permute(0, 3, 1, 2)


def pilotnet(w, x, y):
    x = image(x)
    for i in range(5):
        x = F.elu(conv(w, f"conv{i}", x, stride=2 if i < 3 else 1))
    x = x.permute(0, 2, 3, 1).flatten(1)  # Dojo's order of features
    for i in range(4):
        x = dense(w, f"dense{i}", x)
        x = F.elu(x) if i < 3 else x
    return F.mse_loss(x, y)


def norm(w, name, x):
    return F.batch_norm(x, None, None, w[name + "/scale"], w[name + "/shift"], training=True)


def residual(w, name, x, stride):
    y = F.relu(norm(w, name + "/norm0", conv(w, name + "/conv0", x, stride=stride, padding=1)))
    y = norm(w, name + "/norm1", conv(w, name + "/conv1", y, padding=1))
    if stride > 1:
        x = norm(w, name + "/norm2", conv(w, name + "/conv2", x, stride=stride))
    return F.relu(x + y)


def resnet(w, x, y):
    x = F.relu(norm(w, "norm", conv(w, "stem", image(x), stride=2, padding=3)))
    x = F.max_pool2d(x, 3, 2, 1)
    for i in range(3):
        x = residual(w, f"block{i}", x, 2 if i else 1)
    return F.cross_entropy(dense(w, "head", x.mean((2, 3))), y.long())


def layer_norm(w, name, x):
    return F.layer_norm(x, x.shape[-1:], w[name + "/scale"], w[name + "/shift"])


def transformer(w, x, y, heads=4):
    x = w["token"][x.long()] + w["place"]
    b, t, e = x.shape
    for i in range(2):
        p = f"layer{i}/"
        h = layer_norm(w, p + "norm0", x)
        q, k, v = (dense(w, p + n, h).view(b, t, heads, -1).transpose(1, 2) for n in "qkv")
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + dense(w, p + "out", o.transpose(1, 2).reshape(b, t, e))
        h = F.gelu(dense(w, p + "up", layer_norm(w, p + "norm1", x)), approximate="tanh")
        x = x + dense(w, p + "down", h)
    x = dense(w, "head", layer_norm(w, "norm", x))
    return F.cross_entropy(x.flatten(0, 1), y.flatten().long())


NETWORKS = {"pilotnet": pilotnet, "resnet": resnet, "transformer": transformer}


def optimizer_of(kind, weights, c):
    groups = [  # no decay of biases and normalisation
        {"params": [p for p in weights if p.dim() > 1], "weight_decay": c["weight_decay"]},
        {"params": [p for p in weights if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr=c["lr"], betas=(c["beta1"], 0.999), eps=1e-8)
    return torch.optim.SGD(groups, lr=c["lr"], momentum=c["beta1"])


def train(network, kind, path, steps, dtype=torch.float32, moved=0):
    """moved: seed of a disturbance of the start by about half a rounding of f32; 0: none"""
    noise = torch.Generator().manual_seed(moved)
    weights, batches = {}, {}
    with safe_open(path, "pt") as f:
        c = {k: float(v) for k, v in f.metadata().items()}
        for name in f.keys():
            t = f.get_tensor(name)
            t = t.to(dtype) if t.is_floating_point() else t
            if name.startswith("batch/"):
                batches[name[6:]] = t
                continue
            if moved:
                t = t * (1 + 6e-8 * torch.randn(t.shape, generator=noise))
            if t.dim() == 4:  # (O, KH, KW, I) -> (O, I, KH, KW)
                t = t.permute(0, 3, 1, 2).contiguous()
            weights[name] = t.clone().requires_grad_()
    optimizer = optimizer_of(kind, list(weights.values()), c)
    losses = []
    for step in range(steps):
        i = step % int(c["batches"])
        loss = NETWORKS[network](weights, batches["x"][i], batches["y"][i])
        optimizer.zero_grad()
        loss.backward()
        grads = [p.grad for p in weights.values()]
        total = torch.sqrt(sum((g.double() ** 2).sum() for g in grads)).item()
        if total > c["max_norm"]:
            for g in grads:
                g.mul_(c["max_norm"] / total)
        optimizer.step()
        losses.append(loss.item())
    return losses


def difference(a, b):
    return max(abs(x - y) / abs(y) for x, y in zip(a, b))


def compare(program, network, kind, steps, backend):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "start.safetensors")
        command = [program, network, kind, path, str(steps)] + ([backend] if backend else [])
        ours = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        ours, theirs = ours["loss"], train(network, kind, path, steps)
        exact = train(network, kind, path, steps, torch.float64)
        apart = 0
        if difference(ours, theirs) >= BAR:
            apart = max(difference(train(network, kind, path, steps, moved=k), theirs)
                        for k in range(1, 17))
    return {"network": network, "optimizer": kind, "steps": steps, "first": theirs[0],
            "last": theirs[-1], "dojo_last": ours[-1], "relative_difference": difference(ours, theirs),
            "pytorch_rounding": difference(theirs, exact), "pytorch_moved": apart}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program", help="the built `parity`")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--backend", help="cpu (default) or ref")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(0)
    results = [compare(args.program, n, k, args.steps, args.backend)
               for n in NETWORKS for k in ("adamw", "sgd")]
    if args.json:
        print(json.dumps(results, indent=2))
    else:
        for r in results:
            print(f"{r['network']:12} {r['optimizer']:6} {r['steps']} steps: loss {r['first']:.6f} -> "
                  f"{r['last']:.6f} (Dojo {r['dojo_last']:.6f}), "
                  f"largest relative difference {r['relative_difference']:.2e} "
                  f"(PyTorch f32 to f64: {r['pytorch_rounding']:.2e}" +
                  (f"; from starts moved by half a rounding: {r['pytorch_moved']:.2e})"
                   if r["pytorch_moved"] else ")"))
    bad = [r for r in results if r["relative_difference"] >= max(BAR, 1.1 * r["pytorch_moved"])]
    return "".join(f"parity: {r['network']} {r['optimizer']}: {r['relative_difference']:.2e} is above "
                   f"{BAR:.0e}\n" for r in bad) or 0


if __name__ == "__main__":
    sys.exit(main())
