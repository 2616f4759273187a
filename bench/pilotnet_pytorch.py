#!/usr/bin/env python3
"""PilotNet (Bojarski et al. 2016, arXiv:1604.07316) in PyTorch: the yardstick for Dojo's networks.

Reads the recorded frames themselves (Donkeycar tub or Udacity driving log), cuts them exactly as a
Dojo store does (train 70 %, validation 10 %, test the last 20 %, with a gap of min(1 s, 2 % of the
drive) taken off the end of the earlier block), trains on the first block, keeps the epoch that is
best on the second and prints its steering error on the third.

    python3 bench/pilotnet_pytorch.py donkeycar ../shared/data/donkeycar-tub/tub --epochs 30
    python3 bench/pilotnet_pytorch.py udacity ../shared/data/udacity-track --epochs 20 --json

Frames are decoded once and kept in memory, so an epoch's time is training alone.
Needs torch, numpy and Pillow. Not needed by `make test`.
"""
import argparse
import csv
import datetime
import json
import os
import time

import numpy as np
import torch
from PIL import Image
from torch import nn


def read_donkeycar(folder):
    rows = []
    names = sorted(n for n in os.listdir(folder) if n.endswith(".catalog") and n[0] != ".")
    for name in names:
        with open(os.path.join(folder, name)) as f:
            rows += [json.loads(line) for line in f if line.strip()]
    rows.sort(key=lambda r: r["_index"])
    paths = [os.path.join(folder, "images", r["cam/image_array"]) for r in rows]
    steering = [-float(r["user/angle"]) for r in rows]  # the tub counts to the right
    return paths, steering, [i / 20.0 for i in range(len(rows))]


def read_udacity(folder):
    paths, steering, times = [], [], []
    with open(os.path.join(folder, "driving_log.csv")) as f:
        for row in csv.reader(f):
            if row[0] == "center":
                continue
            name = row[0].replace("\\", "/").rsplit("/", 1)[-1].strip()
            stamp = [int(x) for x in name.removesuffix(".jpg").split("_")[1:]]
            t = datetime.datetime(*stamp[:6], tzinfo=datetime.timezone.utc).timestamp()
            paths.append(os.path.join(folder, "IMG", name))
            steering.append(-float(row[3]))
            times.append(t + stamp[6] / 1000.0)
    return paths, steering, times


def split(times, shares=(0.7, 0.1, 0.2), gap_s=1.0):
    """First and last index of the three blocks, as include/dojo/store.h states it."""
    n = len(times)
    n_test, n_val = round(shares[2] * n), round(shares[1] * n)
    gap = min(gap_s, 0.02 * (times[-1] - times[0]))
    starts = [0, n - n_test - n_val, n - n_test]
    ends = []
    for end in starts[1:]:
        first_of_next = times[end]
        while end > 0 and times[end - 1] > first_of_next - gap:
            end -= 1
        ends.append(end)
    return list(zip(starts, ends + [n]))


def load(paths, top, bottom):
    """(N, 66, 200, 3) u8, YUV as in the paper. top, bottom: share of the height cut off."""
    out = np.empty((len(paths), 66, 200, 3), np.uint8)
    for i, path in enumerate(paths):
        with Image.open(path) as im:
            w, h = im.size
            im = im.convert("RGB").crop((0, round(top * h), w, h - round(bottom * h)))
            out[i] = np.asarray(im.resize((200, 66), Image.BILINEAR).convert("YCbCr"))
    return torch.from_numpy(out)


class PilotNet(nn.Module):
    def __init__(self):
        super().__init__()
        conv = lambda i, o, k, s: [nn.Conv2d(i, o, k, s), nn.ReLU()]
        self.net = nn.Sequential(
            *conv(3, 24, 5, 2), *conv(24, 36, 5, 2), *conv(36, 48, 5, 2),
            *conv(48, 64, 3, 1), *conv(64, 64, 3, 1), nn.Flatten(),
            nn.Linear(1152, 100), nn.ReLU(), nn.Linear(100, 50), nn.ReLU(),
            nn.Linear(50, 10), nn.ReLU(), nn.Linear(10, 1))

    def forward(self, x):
        return self.net(x).squeeze(1)


def main():
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("format", choices=["donkeycar", "udacity"])
    ap.add_argument("folder")
    ap.add_argument("--epochs", type=int, default=30)
    ap.add_argument("--batch", type=int, default=32)
    ap.add_argument("--lr", type=float, default=1e-3)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--threads", type=int, default=0, help="0: torch's choice")
    ap.add_argument("--loss", choices=["mse", "l1"], default="mse", help="the paper's is mse")
    ap.add_argument("--no-mirror", action="store_true", help="no left-right flips")
    ap.add_argument("--bf16", action="store_true", help="autocast to bf16")
    ap.add_argument("--json", action="store_true")
    args = ap.parse_args()
    torch.manual_seed(args.seed)
    if args.threads:
        torch.set_num_threads(args.threads)

    read = {"donkeycar": read_donkeycar, "udacity": read_udacity}[args.format]
    crop = {"donkeycar": (0.33, 0.0), "udacity": (0.375, 0.15)}[args.format]
    paths, steering, times = read(args.folder)
    images, y = load(paths, *crop), torch.tensor(steering, dtype=torch.float32)
    (a0, a1), (v0, v1), (t0, t1) = split(times)
    net = PilotNet().to(memory_format=torch.channels_last)
    opt = torch.optim.Adam(net.parameters(), lr=args.lr)
    loss_fn = {"mse": nn.functional.mse_loss, "l1": nn.functional.l1_loss}[args.loss]
    cast = lambda: torch.autocast("cpu", torch.bfloat16, enabled=args.bf16)

    def batch(idx):  # (B, 3, 66, 200) f32 in -1..1, channels last
        return images[idx].permute(0, 3, 1, 2).float().div_(127.5).sub_(1)

    def predict(lo, hi):
        net.eval()
        with torch.no_grad(), cast():
            return torch.cat([net(batch(torch.arange(i, min(i + 64, hi)))).float()
                              for i in range(lo, hi, 64)])

    mae = lambda p, t: (p - t).abs().mean().item()
    best, best_epoch, test_at_best, seconds = float("inf"), 0, None, []
    for epoch in range(args.epochs):
        net.train()
        order = torch.randperm(a1 - a0) + a0
        begin = time.perf_counter()
        for i in range(0, len(order), args.batch):
            idx = order[i:i + args.batch]
            x, target = batch(idx), y[idx]
            if not args.no_mirror:
                flip = torch.rand(len(idx)) < 0.5
                x[flip] = x[flip].flip(3)
                target = torch.where(flip, -target, target)
            with cast():
                out = net(x)
            loss = loss_fn(out.float(), target)
            opt.zero_grad(set_to_none=True)
            loss.backward()
            opt.step()
        seconds.append(time.perf_counter() - begin)
        val = mae(predict(v0, v1), y[v0:v1])
        if val < best:
            best, best_epoch, test_at_best = val, epoch + 1, predict(t0, t1)
    last, truth = predict(t0, t1), y[t0:t1]
    r2 = 1 - ((test_at_best - truth) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()
    report = {
        "data": args.format, "seed": args.seed, "epochs": args.epochs, "loss": args.loss,
        "bf16": args.bf16, "frames": {"train": a1 - a0, "validation": v1 - v0, "test": t1 - t0},
        "validation_mae": best, "best_epoch": best_epoch, "test_mae": mae(test_at_best, truth),
        "test_r2": r2.item(), "test_mae_last_epoch": mae(last, truth),
        "mean_baseline_mae": mae(y[a0:a1].mean(), truth),
        "seconds_per_epoch": float(np.median(seconds)), "seconds_training": float(np.sum(seconds)),
    }
    if args.json:
        print(json.dumps(report))
    else:
        for key, value in report.items():
            print(f"{key:22} {value}")


if __name__ == "__main__":
    main()
