#!/usr/bin/env python3
"""Writing text token by token beside PyTorch: GPT-2 124M with random weights, a prompt of 32 tokens.

    python3 bench/generate_pytorch.py build/dojo [--n 200] [--rounds 3]

PyTorch runs transformers' GPT-2 with its KV cache, one token a call, likeliest token; eager, f32 and bf16
weights. Rounds alternate; medians of tokens/s and of their ratio. The texts are compared in f32. Needs
torch, transformers. Not needed by `make test`.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

if not os.environ.get("GOMP_SPINCOUNT") and not os.environ.get("OMP_WAIT_POLICY"):
    os.environ["GOMP_SPINCOUNT"] = "2000"  # read when the library is loaded
    os.execv(sys.executable, [sys.executable, *sys.argv])

import torch
from transformers import GPT2Config, GPT2LMHeadModel


def theirs(model, ids, n):
    with torch.inference_mode():
        out = model(ids, use_cache=True)
        wrote = [out.logits[0, -1].argmax().item()]
        start = time.perf_counter()
        while len(wrote) < n:
            out = model(torch.tensor([[wrote[-1]]]), past_key_values=out.past_key_values, use_cache=True)
            wrote.append(out.logits[0, -1].argmax().item())
    return (n - 1) / (time.perf_counter() - start), wrote


def ours(dojo, run, ids, n, precision):
    out = subprocess.run([dojo, "text", "generate", run, "--ids", "--prompt", " ".join(map(str, ids)), "--n",
                          str(n), "--temperature", "0", "--precision", precision, "--json"],
                         check=True, capture_output=True, text=True)
    r = json.loads(out.stdout)
    return r["tokens_per_second"], r["ids"]


def main():
    a = argparse.ArgumentParser()
    a.add_argument("dojo")
    a.add_argument("--n", type=int, default=200)
    a.add_argument("--rounds", type=int, default=3)
    a = a.parse_args()
    torch.manual_seed(1)
    model = GPT2LMHeadModel(GPT2Config(initializer_range=0.05)).eval()
    ids = torch.randint(50257, (1, 32))
    with tempfile.TemporaryDirectory() as d:
        model.save_pretrained(f"{d}/hf")
        subprocess.run([a.dojo, "text", "import", f"{d}/hf", "--out", f"{d}/run"], check=True,
                       capture_output=True)
        for precision in ("f32", "bf16"):
            m = model if precision == "f32" else model.to(torch.bfloat16)
            x, y, same = [], [], True
            for _ in range(a.rounds):
                rate, wrote = ours(a.dojo, f"{d}/run", ids[0].tolist(), a.n, precision)
                other, want = theirs(m, ids, a.n)
                x.append(rate)
                y.append(other)
                same &= wrote == want
            ratio = statistics.median(p / q for p, q in zip(x, y))
            text = "" if precision == "bf16" else ", the same text" if same else ", ANOTHER text"
            print(f"{precision:5} {statistics.median(x):7.1f} tokens/s, PyTorch {statistics.median(y):7.1f}, "
                  f"ratio {ratio:.2f}{text}", flush=True)


main()
