#!/usr/bin/env python3
"""Our CPU kernels beside PyTorch's: the same ops on the same shapes, with the same threads.

    bench/ops_pytorch.py build/dojo [--threads N] [--rounds R] [--dtype f32|bf16] [OP ...]

Shapes are those of `dojo bench ops`. For every case the two run by turns, R times each; a run is a
median over about 0.2 s, the figure is the median of the runs, and the ratio is ours over PyTorch's
(below 1: ours takes less time). The last column is the ratio of the fastest times, which a busy
machine disturbs less. Images are channels-last on both sides. Backward passes of PyTorch
are timed through autograd with the graph kept, forward passes without gradients. PyTorch allocates
its results anew in every call; malloc is told to keep memory, so that it pays for no page faults.
Needs a Python with torch.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

KEEP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
        "MALLOC_TOP_PAD_": str(1 << 28)}
if any(os.environ.get(k) != v for k, v in KEEP.items()):  # read by the C library as it starts
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEEP})

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    sys.exit("ops_pytorch: this Python has no torch; nothing to compare with")


def image(x):
    """(N, H, W, C) in memory, seen by PyTorch as (N, C, H, W)."""
    return x.permute(0, 3, 1, 2)


def like(shape, dtype):
    return torch.rand(shape).mul_(2).sub_(1).to(dtype)


def forward(f):
    """Times f() without gradients."""
    def make(case, shapes, dtype):
        call = f(case, shapes, dtype)

        def run():
            with torch.no_grad():
                call()
        return run
    return make


def backward(f):
    """Times the gradients of f's inputs: f gives (function, inputs)."""
    def make(case, shapes, dtype):
        call, inputs = f(case, shapes, dtype)
        for x in inputs:
            x.requires_grad_(True)
        y = call(*inputs)
        dy = torch.randn_like(y)
        return lambda: torch.autograd.grad(y, inputs, dy, retain_graph=True)
    return make


def norm_call(op):
    def f(case, s, t):
        x, scale, shift = like(s[0], t), like(s[1], torch.float32), like(s[1], torch.float32)
        c = s[0][-1]
        if op == "batch_norm":
            return (lambda a, w, b: F.batch_norm(image(a), None, None, w, b, True)), [x, scale, shift]
        if op == "group_norm":
            w, b = scale.to(t), shift.to(t)
            return (lambda a, u, v: F.group_norm(image(a), 8, u, v)), [x, w, b]
        w, b = scale.to(t), shift.to(t)
        if op == "rms_norm":
            return (lambda a, u: F.rms_norm(a, (c,), u, 1e-5)), [x, w]
        return (lambda a, u, v: F.layer_norm(a, (c,), u, v)), [x, w, b]
    return f


POOLS = {"bench_pool_2x2": dict(kernel_size=2, stride=2),
         "bench_pool_3x3_s2": dict(kernel_size=3, stride=2, padding=1)}
LARGE = {"bench_pool_2x2": (32, 64, 128, 32), "bench_pool_3x3_s2": (32, 64, 128, 64)}


def pool_call(name):
    def f(case, s, t):
        x, k = like(LARGE[case], t), POOLS[case]
        if name == "max":
            return (lambda a: F.max_pool2d(image(a), **k)), [x]
        return (lambda a: F.avg_pool2d(image(a), count_include_pad=False, **k)), [x]
    return f


def resize_call(case, s, t):
    x = like((32, 16, 32, 64), t)
    mode = "bilinear" if "bilinear" in case else "nearest"
    return (lambda a: F.interpolate(image(a), size=(32, 64), mode=mode)), [x]


def conv_args(case):
    """Stride, padding, groups of the bench samples, from their names."""
    stride = 2 if "_s2" in case else 1
    kernel = int(case.split("x")[0][-1])
    groups = {"bench_depthwise_3x3_128": 128, "bench_depthwise_5x5_s2_96": 96}.get(case, 1)
    return dict(stride=stride, padding=kernel // 2, groups=groups)


def conv_call(case, s, t):
    x, w = like(s[0], t), like(s[1], t)
    return (lambda a, b: F.conv2d(image(a), image(b), **conv_args(case))), [x, w]


def conv_backward(which):
    """Gradient of the input or of the weights alone. s of conv2d's own sample."""
    def make(case, s, t):
        x, w = image(like(s[0], t)), image(like(s[1], t))
        a = conv_args(case)
        y = F.conv2d(x, w, **a)
        dy = torch.rand(y.permute(0, 2, 3, 1).shape).to(t).permute(0, 3, 1, 2)
        pair, zero = lambda v: [v, v], [0, 0]
        mask = [which == "data", which == "weight", False]
        return lambda: torch.ops.aten.convolution_backward(
            dy, x, w, None, pair(a["stride"]), pair(a["padding"]), [1, 1], False, zero, a["groups"],
            mask)
    return make


def together(shape, t):
    """Queries, keys and values in one tensor (B, T, 3 H, D), as PyTorch takes them."""
    return like(shape, t).transpose(1, 2).chunk(3, 1)


def attention_call(case, s, t):
    q, k, v = (like(x, t) for x in s) if len(s) == 3 else together(s[0], t)
    return (lambda a, b, c: F.scaled_dot_product_attention(a, b, c, is_causal=True)), [q, k, v]


def grid_call(case, s, t):
    x, grid = like(s[0], t), like(s[1], torch.float32).mul_(1.1)
    if t != torch.float32:  # PyTorch wants one dtype
        grid = grid.to(t)
    return (lambda a, g: F.grid_sample(image(a), g, align_corners=False)), [x, grid]


def gru_call(case, s, t):
    def cell(gx, gh, h):
        xr, xz, xn = gx.chunk(3, 1)
        hr, hz, hn = gh.chunk(3, 1)
        r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
        n = torch.tanh(xn + r * hn)
        return n + z * (h - n)
    return cell, [like(x, t) for x in s[:3]]


def softmax_call(log):
    def f(case, s, t):
        x = like(s[0], t)
        return (lambda a: F.log_softmax(a, -1) if log else F.softmax(a, -1)), [x]
    return f


def cross_entropy_call(case, s, t):
    x, label = like(s[0], t), torch.randint(0, s[0][1], (s[0][0],))
    return (lambda a: F.cross_entropy(a, label, reduction="none")), [x]


def unary(f):
    return lambda case, s, t: (f, [like(s[0], t)])


def linear_call(case, s, t):
    """The samples differ in what is transposed: take the shapes' word for it."""
    a, b = like(s[0], t), like(s[1], t)
    if "weight" in case:
        return (lambda x, y: x.mT @ y), [a, b]
    return (lambda x, y: x @ y.mT), [a, b]


def plain(f):
    """Forward of a call that also has inputs."""
    def make(case, s, t):
        call, inputs = f(case, s, t)
        return lambda: call(*inputs)
    return forward(make)


def update(kind):
    def make(case, s, t):
        p = torch.nn.Parameter(like((4096, 1024), torch.float32))
        p.grad = like((4096, 1024), torch.float32)
        o = (torch.optim.AdamW([p], fused=True) if kind == "adamw"
             else torch.optim.SGD([p], lr=1e-3, momentum=0.9, fused=True))
        return o.step
    return make


# These gradients are made from the inputs of the op that they belong to.
SHAPES_OF = {"conv2d_data": "conv2d", "conv2d_weight": "conv2d", "attention_grad": "attention"}

CASES = {
    "matmul": plain(linear_call),
    "conv2d": plain(conv_call),
    "conv2d_data": conv_backward("data"),
    "conv2d_weight": conv_backward("weight"),
    "gelu": plain(unary(lambda a: F.gelu(a, approximate="tanh"))),
    "silu": plain(unary(F.silu)),
    "add": plain(lambda c, s, t: (torch.add, [like(s[0], t), like(s[1], t)])),
    "sum": plain(unary(lambda a: a.float().sum((0, 1, 2)) if a.dim() == 4 else a.float().sum())),
    "transpose": plain(unary(lambda a: (a.permute(0, 2, 1, 3) if a.dim() == 4
                                        else a.permute(0, 1, 3, 2, 4, 5)).contiguous())),
    "max_pool": plain(pool_call("max")),
    "max_pool_grad": backward(pool_call("max")),
    "avg_pool": plain(pool_call("avg")),
    "avg_pool_grad": backward(pool_call("avg")),
    "resize": plain(resize_call),
    "resize_grad": backward(resize_call),
    "batch_norm": plain(norm_call("batch_norm")),
    "batch_norm_grad": backward(norm_call("batch_norm")),
    "layer_norm": plain(norm_call("layer_norm")),
    "layer_norm_grad": backward(norm_call("layer_norm")),
    "rms_norm": plain(norm_call("rms_norm")),
    "rms_norm_grad": backward(norm_call("rms_norm")),
    "group_norm": plain(norm_call("group_norm")),
    "group_norm_grad": backward(norm_call("group_norm")),
    "softmax": plain(softmax_call(False)),
    "softmax_grad": backward(softmax_call(False)),
    "log_softmax": plain(softmax_call(True)),
    "log_softmax_grad": backward(softmax_call(True)),
    "cross_entropy": plain(cross_entropy_call),
    "cross_entropy_grad": backward(cross_entropy_call),
    "attention": plain(attention_call),
    "attention_grad": backward(attention_call),
    "grid_sample": plain(grid_call),
    "grid_sample_grad": backward(grid_call),
    "gru_cell": plain(gru_call),
    "gru_cell_grad": backward(gru_call),
    "adamw": update("adamw"),
    "sgd": update("sgd"),
}


def ours(dojo, op, sample, dtype, threads, seconds):
    out = subprocess.run(
        [dojo, "bench", "ops", "--op", op, "--sample", sample, "--dtype", dtype, "--threads",
         str(threads), "--seconds", str(seconds), "--no-peaks", "--json"],
        check=True, capture_output=True, text=True).stdout
    return json.loads(out)["ops"][0]


def theirs(run, seconds):
    run()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times), min(times)


def compare(args, op, row, forward_shapes):
    shapes = forward_shapes.get(row["sample"], row["inputs"])
    dtype = torch.float32 if row["dtype"] == "f32" else torch.bfloat16
    try:
        run = CASES[op](row["sample"], shapes, dtype)
        a, b = [], []
        for _ in range(args.rounds):
            r = ours(args.dojo, op, row["sample"], row["dtype"], args.threads, 0.2)
            a.append((r["ms"], r["fastest_ms"]))
            b.append(theirs(run, 0.2))
    except (RuntimeError, NotImplementedError) as e:
        print(f"{op:18} {row['sample']:26} {row['dtype']:5} PyTorch: {str(e).splitlines()[0][:60]}")
        return None
    x, y = (statistics.median(m for m, _ in times) for times in (a, b))
    best = min(f for _, f in a) / min(f for _, f in b)
    print(f"{op:18} {row['sample']:26} {row['dtype']:5} {x:9.3f} {y:9.3f} {x / y:7.2f} {best:8.2f}",
          flush=True)
    return x / y, best


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("dojo")
    p.add_argument("ops", nargs="*", metavar="OP", help="only these: " + " ".join(CASES))
    p.add_argument("--threads", type=int, default=torch.get_num_threads())
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--dtype", choices=["f32", "bf16"])
    args = p.parse_intermixed_args()
    unknown = [o for o in args.ops if o not in CASES]
    if unknown:
        p.error(f"no such case: {', '.join(unknown)}")
    torch.set_num_threads(args.threads)
    names = args.ops or list(CASES)
    out = subprocess.run([args.dojo, "bench", "ops", "--seconds", "0", "--no-peaks", "--json",
                          *names, *SHAPES_OF.values()], check=True, capture_output=True, text=True).stdout
    rows = json.loads(out)["ops"]
    shapes = {op: {r["sample"]: r["inputs"] for r in rows if r["op"] == op} for op in SHAPES_OF.values()}
    print(f"PyTorch {torch.__version__}, {args.threads} threads, median of {args.rounds} runs by turns")
    print(f"{'op':18} {'sample':26} {'dtype':5} {'ours, ms':>9} {'PyTorch':>9} {'ratio':>7} {'fastest':>8}")
    ratios = [compare(args, r["op"], r, shapes.get(SHAPES_OF.get(r["op"]), {}))
              for r in rows
              if r["op"] in names and (not args.dtype or r["dtype"] == args.dtype)]
    ratios = [r for r in ratios if r]
    if ratios:
        print(f"geometric mean of {len(ratios)} ratios: "
              f"{statistics.geometric_mean(m for m, _ in ratios):.2f}, of the fastest times "
              f"{statistics.geometric_mean(f for _, f in ratios):.2f}")


if __name__ == "__main__":
    main()
