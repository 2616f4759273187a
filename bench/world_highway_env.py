#!/usr/bin/env python3
"""The vector simulation beside highway-env's (PyPI): agent-steps a second, by turns, in one run.

    python3 bench/world_highway_env.py build/dojo [--rounds 5] [--seconds 3] [--json FILE]

Both simulate 64 vehicles a world with collisions and an observation of the nearest 8 vehicles. Ours:
`dojo bench world vector --json`, 64 worlds of 64 agents on all threads, and on one thread; every agent
gets an observation. highway-env: `highway-v0` with one controlled vehicle and 63 driven by IDM and
MOBIL, KinematicObservation of 9 vehicles for the controlled one only, stepped at 20 Hz like ours, one
process for each core. An agent-step is one vehicle moved by one step of 50 ms. Reported: medians and the
ratio ours / highway-env. Needs highway-env and gymnasium. Not needed by `make test`.
"""
import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time

VEHICLES = 64


def worker(seconds, pipe):
    os.environ["OMP_NUM_THREADS"] = "1"
    import gymnasium
    import highway_env  # noqa: F401 (registers)

    config = {
        "vehicles_count": VEHICLES - 1,
        "controlled_vehicles": 1,
        "simulation_frequency": 20,
        "policy_frequency": 20,
        "duration": 1000000,
        "offscreen_rendering": True,
        "observation": {"type": "Kinematics", "vehicles_count": 9, "features": ["x", "y", "vx", "vy", "cos_h", "sin_h"]},
        "action": {"type": "ContinuousAction"},
    }
    env = gymnasium.make("highway-v0", config=config)
    env.reset(seed=0)
    action = [0.0, 0.0]
    for _ in range(3):
        env.step(action)
    pipe.send("ready")
    pipe.recv()
    start, n = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        _, _, terminated, truncated, _ = env.step(action)
        n += len(env.unwrapped.road.vehicles)
        if terminated or truncated:
            env.reset(seed=n)
    pipe.send(n / (time.perf_counter() - start))


def highway(seconds, processes):
    """Agent-steps a second of all processes together."""
    started = []
    for _ in range(processes):
        ours, theirs = multiprocessing.Pipe()
        p = multiprocessing.Process(target=worker, args=(seconds, theirs))
        p.start()
        started.append((p, ours))
    for _, pipe in started:
        pipe.recv()
    for _, pipe in started:
        pipe.send("go")
    rates = [pipe.recv() for _, pipe in started]
    for p, _ in started:
        p.join()
    return sum(rates)


def dojo(program, seconds, threads):
    out = subprocess.run(
        [program, "bench", "world", "vector", "--json", "--seconds", str(seconds), "--threads", str(threads)],
        check=True, capture_output=True, text=True).stdout
    return next(r["median"] for r in json.loads(out) if r["name"] == "vector")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dojo")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--json")
    a = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    rows = []
    for processes in sorted({1, cores}):
        ours, theirs = [], []
        for _ in range(a.rounds):
            ours.append(dojo(a.dojo, a.seconds, processes))
            theirs.append(highway(a.seconds, processes))
        mine, peer = statistics.median(ours), statistics.median(theirs)
        rows.append({"cores": processes, "dojo": mine, "highway_env": peer, "ratio": mine / peer})
        print(f"{processes} core{'s' if processes > 1 else ''}: dojo {mine:,.0f} agent-steps/s, "
              f"highway-env {peer:,.0f}, ratio {mine / peer:,.0f}", flush=True)
    if a.json:
        with open(a.json, "w", encoding="utf-8") as f:
            json.dump(rows, f, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
