"""Reads a run's folder with TensorBoard's own reader and compares with what dojo says.

Needs the Python package `tensorboard`; without it, says so and passes. Use:

    python3 bench/check_events.py R

Checks: every curve is found, steps rise without doubles across stops and resumes, values are
finite, pictures decode, and the last step is that of `dojo runs R --json`.
"""

import io
import json
import math
import os
import subprocess
import sys

try:
    from tensorboard.backend.event_processing import event_accumulator
except ImportError:
    print("check_events: the Python package 'tensorboard' is not there: skipped")
    sys.exit(0)

WANTED = ["train/loss", "train/grad_norm", "train/learning_rate", "train/samples_per_second"]


def check(condition, message):
    if not condition:
        print("check_events: " + message)
        sys.exit(1)


def main():
    run = sys.argv[1]
    everything = {event_accumulator.SCALARS: 0, event_accumulator.IMAGES: 0}
    acc = event_accumulator.EventAccumulator(run, size_guidance=everything)
    acc.Reload()
    tags = acc.Tags()
    for tag in WANTED:
        check(tag in tags["scalars"], f"no curve {tag}; there are {tags['scalars']}")
    for tag in tags["scalars"]:
        points = acc.Scalars(tag)
        steps = [p.step for p in points]
        check(steps == sorted(set(steps)), f"{tag}: steps are doubled or fall: {steps}")
        check(all(math.isfinite(p.value) for p in points), f"{tag}: a value is not finite")
    for tag in tags["images"]:
        for image in acc.Images(tag):
            data = image.encoded_image_string
            check(data[:8] == b"\x89PNG\r\n\x1a\n", f"{tag}: not a PNG")
            try:
                from PIL import Image

                size = Image.open(io.BytesIO(data)).size
                check(size == (image.width, image.height), f"{tag}: {size}")
            except ImportError:
                pass
    last = acc.Scalars("train/loss")[-1].step
    dojo = os.environ.get("DOJO", "build/dojo")
    if os.path.exists(dojo):
        told = json.loads(subprocess.check_output([dojo, "runs", run, "--json"]))
        check(told[0]["step"] == last, f"dojo runs says step {told[0]['step']}, the curves {last}")
    print(
        f"check_events: {len(tags['scalars'])} curves, {len(tags['images'])} kinds of pictures, "
        f"last step {last}: good"
    )


main()
