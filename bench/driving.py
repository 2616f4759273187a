#!/usr/bin/env python3
"""Dojo's driving networks beside PilotNet in PyTorch (bench/pilotnet_pytorch.py): same drives, same
split, same number of epochs, same cores, run by turns.

    python3 bench/driving.py build/dojo ../shared/data --seeds 3 --json driving.json

Ours is timed from the start of the program to its end (the store's shards lie there already, as
PyTorch's frames lie in memory); PyTorch's are the seconds of its training loop alone. PilotNet runs
with the paper's squared error and with absolute error, both in bf16. Scores are of the last contiguous
20 % of each drive: of the weights that were best on the validation part, and of the last ones.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SETS = {"donkeycar": ("donkeycar-tub/tub", "donkey"), "udacity": ("udacity-track", "udacity")}


def run(*command):
    p = subprocess.run(command, capture_output=True, text=True)
    if p.returncode:
        sys.exit(f"{' '.join(command)}: exit code {p.returncode}\n{p.stderr[-2000:]}")
    return p.stdout


def ours(dojo, recipe, store, seed, folder):
    text = open(recipe).read()
    mine = os.path.join(folder, "recipe.yaml")
    with open(mine, "w") as f:
        f.write(re.sub(r"(?m)^  seed: .*", f"  seed: {seed}", text))
    out = os.path.join(folder, f"run-{os.path.basename(recipe)}-{seed}")
    begin = time.perf_counter()
    run(dojo, "train", mine, "--store", store, "--out", out)
    seconds = time.perf_counter() - begin
    score = {}
    for which in ("best", "last"):
        e = json.loads(run(dojo, "eval", out, "--store", store, "--split", "test", "--checkpoint",
                           which, "--json"))
        score[which] = e["steering"]["mae"]
        score["r2_" + which] = e["steering"]["r2"]
        score["mean_baseline"] = e["baseline"]["mean"]["steering"]["mae"]
    return {"seconds": seconds, "test_mae": score["best"], "test_mae_last": score["last"],
            "test_r2": score["r2_best"], "mean_baseline": score["mean_baseline"]}


def theirs(form, folder, epochs, seed, loss):
    r = json.loads(run(sys.executable, os.path.join(HERE, "pilotnet_pytorch.py"), form, folder,
                       "--epochs", str(epochs), "--seed", str(seed), "--loss", loss, "--bf16",
                       "--json"))
    return {"seconds": r["seconds_training"], "test_mae": r["test_mae"],
            "test_mae_last": r["test_mae_last_epoch"], "test_r2": r["test_r2"]}


def median(runs, key):
    return statistics.median(r[key] for r in runs)


def main():
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("dojo")
    ap.add_argument("data", help="folder of the recorded drives")
    ap.add_argument("--only", choices=sorted(SETS))
    ap.add_argument("--seeds", type=int, default=3)
    ap.add_argument("--json", metavar="FILE")
    args = ap.parse_args()
    dojo = os.path.abspath(args.dojo)
    report = {}
    with tempfile.TemporaryDirectory() as tmp:
        for form, (path, name) in SETS.items():
            if args.only and form != args.only:
                continue
            folder = os.path.join(args.data, path)
            recipe = os.path.join(HERE, "..", "recipes", name + ".yaml")
            epochs = int(float(re.search(r"(?m)^  epochs: (\S+)", open(recipe).read()).group(1)))
            store = os.path.join(tmp, form)
            run(dojo, "ingest", folder, "--store", store)
            ours(dojo, recipe, store, 0, tmp)  # makes the shards; not counted
            rows = {"dojo": [], "pilotnet-mse": [], "pilotnet-l1": []}
            for seed in range(1, args.seeds + 1):
                rows["dojo"].append(ours(dojo, recipe, store, seed, tmp))
                rows["pilotnet-mse"].append(theirs(form, folder, epochs, seed, "mse"))
                rows["pilotnet-l1"].append(theirs(form, folder, epochs, seed, "l1"))
            report[form] = {"epochs": epochs, "seeds": args.seeds, "runs": rows}
            print(f"{form}: {epochs} epochs, {args.seeds} seeds, medians; mean of the training set: "
                  f"{rows['dojo'][0]['mean_baseline']:.4f}")
            print(f"  {'':14} {'test MAE':>9} {'range':>16} {'last':>8} {'R2':>7} {'seconds':>8}")
            for key, runs in rows.items():
                low, high = (f([r["test_mae"] for r in runs]) for f in (min, max))
                print(f"  {key:14} {median(runs, 'test_mae'):9.4f} {low:8.4f}-{high:.4f} "
                      f"{median(runs, 'test_mae_last'):8.4f} {median(runs, 'test_r2'):7.3f} "
                      f"{median(runs, 'seconds'):8.1f}", flush=True)
    if args.json:
        with open(args.json, "w") as f:
            json.dump(report, f, indent=1)


if __name__ == "__main__":
    main()
