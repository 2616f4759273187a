"""Holds our MCAP reader and writer against the `mcap` Python package, both ways.

Needs the Python packages `mcap` and `mcap-protobuf-support`; without them, says so and passes. Use:

    python3 bench/check_mcap.py BUILD [LOG.mcap...]      # BUILD: the folder with dojo and the tests

Checks:
  1. logs of `dojo ingest` (made here, and those named) open in the package, with CRCs verified, by
     index and streamed; the protobuf schemas in them decode every message, to what `dojo log cat`
     prints;
  2. the conformance files that our writer makes (when the suite is there) have, for the package's
     reader, the records of their descriptions;
  3. files of the package's writer, in every layout and compression it has, are whole for `dojo log
     check` and give the same messages through `dojo log cat`, by index and through a pipe;
  4. a log of ours that was cut, once `dojo log recover` has mended it, opens in the package;
  5. a drive of the world recorded with all layers: the label channels decode by the schemas in the log,
     and say the same as each other (occupancy and agents, path and poses, pictures and PNG layers).
"""

import base64
import itertools
import json
import math
import os
import struct
import subprocess
import sys
import tempfile

try:
    from mcap.reader import NonSeekingReader, SeekingReader
    from mcap.stream_reader import StreamReader
    from mcap.writer import CompressionType, IndexType, Writer
    from mcap_protobuf.decoder import DecoderFactory
except ImportError:
    print("check_mcap: the Python packages 'mcap', 'mcap-protobuf-support' are not there: skipped")
    sys.exit(0)


def check(condition, message):
    if not condition:
        print("check_mcap: " + message)
        sys.exit(1)


def run(*args, stdin=None, code=0):
    done = subprocess.run(args, stdin=stdin, capture_output=True, text=True)
    check(done.returncode == code, f"{' '.join(args)}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def cat(dojo, path, *options, pipe=False):
    if pipe:
        with open(path, "rb") as f:
            text = run(dojo, "log", "cat", "-", "--bytes", *options, stdin=f)
    else:
        text = run(dojo, "log", "cat", path, "--bytes", *options)
    return [json.loads(line) for line in text.splitlines()]


# ---- 1: our logs in their reader ----


def same(ours, message, where):
    """Our JSON of a protobuf message against the package's decoded one."""
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        repeated = field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED
        if field.type == field.TYPE_MESSAGE and not repeated:
            check(message.HasField(field.name) == (field.name in ours), f"{where}.{field.name}: set?")
            if field.name in ours:
                same(ours[field.name], value, f"{where}.{field.name}")
            continue
        mine = ours[field.name]
        if field.type == field.TYPE_MESSAGE:
            check(len(mine) == len(value), f"{where}.{field.name}: {len(mine)} and {len(value)} entries")
            for k, entry in enumerate(value):
                same(mine[k], entry, f"{where}.{field.name}[{k}]")
            continue
        if repeated and field.type == field.TYPE_BYTES:
            check([base64.b64decode(m) for m in mine] == list(value), f"{where}.{field.name}: bytes differ")
            continue
        if field.type == field.TYPE_FLOAT:
            values = list(value) if repeated else [value]
            pairs = zip(mine if repeated else [mine], values)
            good = all((a is None and not math.isfinite(b)) or (a is not None and abs(a - b) <= 1e-6 * abs(b)) for a, b in pairs)
            check(good, f"{where}.{field.name}: {mine!r} is not {value!r}")
            continue
        if field.type == field.TYPE_BYTES:
            mine = base64.b64decode(mine)
        elif field.type == field.TYPE_ENUM:
            value = field.enum_type.values_by_number[value].name
        elif field.type == field.TYPE_DOUBLE and not repeated and not math.isfinite(value):
            value = None
        elif repeated:
            value = list(value)
        check(mine == value, f"{where}.{field.name}: {mine!r} is not {value!r}")


def check_ours(dojo, path):
    lines = cat(dojo, path, "--by-time")
    with open(path, "rb") as f:
        reader = SeekingReader(f, validate_crcs=True, decoder_factories=[DecoderFactory()])
        summary = reader.get_summary()
        count = 0
        for line, (schema, channel, message, decoded) in zip(lines, reader.iter_decoded_messages()):
            where = f"{path}: message {count}"
            check(line["topic"] == channel.topic, f"{where}: topic {channel.topic}")
            check(line["schema"] == schema.name, f"{where}: schema {schema.name}")
            for key in ("log_time", "publish_time", "sequence"):
                check(line[key] == getattr(message, key), f"{where}: {key}")
            same(line["data"], decoded, where)
            count += 1
        check(count == len(lines) == summary.statistics.message_count, f"{path}: {count} messages")
    with open(path, "rb") as f:
        streamed = sum(1 for _ in NonSeekingReader(f, validate_crcs=True).iter_messages())
        check(streamed == count, f"{path}: {streamed} messages streamed")
    info = json.loads(run(dojo, "log", "info", "--json", path))
    check(info["messages"] == count, f"{path}: dojo log info counts {info['messages']}")
    print(f"check_mcap: {path}: {count} messages are the same in both")


# ---- 2: conformance files of our writer ----

def field_text(value):
    if isinstance(value, bytes):
        return [str(b) for b in value]
    if isinstance(value, dict):
        return {str(k): field_text(v) for k, v in value.items()}
    return value if isinstance(value, str) else str(value)


def check_conformance(build):
    suite = os.environ.get("DOJO_DATA", os.path.join(os.path.dirname(__file__), "..", "..", "shared", "data"))
    suite = os.path.join(suite, "mcap-conformance", "tests", "conformance", "data")
    if not os.path.isdir(suite):
        print(f"check_mcap: no conformance suite at {suite}: skipped")
        return
    with tempfile.TemporaryDirectory() as out:
        environment = dict(os.environ, DOJO_CONFORMANCE_OUT=out)
        program = os.path.join(build, "test_mcap_conformance")
        check(subprocess.run([program], env=environment, capture_output=True).returncode == 0, "conformance test")
        cases = 0
        for folder in sorted(os.listdir(suite)):
            for name in sorted(os.listdir(os.path.join(suite, folder))):
                if not name.endswith(".json"):
                    continue
                with open(os.path.join(suite, folder, name)) as f:
                    want = json.load(f)["records"]
                with open(os.path.join(out, name[:-5] + ".mcap"), "rb") as f:
                    records = [r for r in StreamReader(f, validate_crcs=True).records if type(r).__name__ != "MessageIndex"]
                check(len(records) == len(want), f"{name}: {len(records)} records, wanted {len(want)}")
                for record, description in zip(records, want):
                    check(type(record).__name__ == description["type"], f"{name}: a {type(record).__name__}")
                    for key, value in description["fields"]:
                        mine = field_text(getattr(record, key))
                        check(mine == value, f"{name}: {description['type']}.{key} is {mine}, not {value}")
                cases += 1
    print(f"check_mcap: the package reads {cases} conformance files of our writer as described")


# ---- 3: files of their writer ----


def write_theirs(path, **options):
    messages = []
    with open(path, "wb") as f:
        writer = Writer(f, chunk_size=2000, **options)
        writer.start(profile="x", library="theirs")
        schema = writer.register_schema("S", "jsonschema", b"{}")
        channels = [
            (writer.register_channel("/json", "json", schema, {"a": "b"}), "/json"),
            (writer.register_channel("/raw", "cdr", 0), "/raw"),
        ]
        for k in range(300):
            channel, topic = channels[k % 2]
            data = json.dumps({"k": k}).encode() if topic == "/json" else bytes(range(k % 256)) * 2
            writer.add_message(channel, log_time=(k ^ 5) * 1000, publish_time=k, data=data, sequence=k)
            messages.append((topic, (k ^ 5) * 1000, k, k, data))
            if k == 100:
                writer.add_attachment(create_time=1, log_time=2, name="a.txt", media_type="text/plain", data=b"hello")
                writer.add_metadata("m", {"key": "value"})
        writer.finish()
    return messages


def flat(lines):
    return [
        (
            line["topic"],
            line["log_time"],
            line["publish_time"],
            line["sequence"],
            json.dumps(line["data"]).encode() if line["topic"] == "/json" else base64.b64decode(line["data"]),
        )
        for line in lines
    ]


def check_theirs(dojo, folder):
    switches = ["use_chunking", "use_statistics", "use_summary_offsets", "repeat_channels", "repeat_schemas", "enable_crcs"]
    layouts = [{}] + [{s: False} for s in switches] + [{s: False for s in switches}]
    kinds = [CompressionType.NONE, CompressionType.LZ4, CompressionType.ZSTD]
    indexes = [IndexType.ALL, IndexType.NONE, IndexType.CHUNK, IndexType.MESSAGE]
    count = 0
    for layout, kind, index in itertools.product(layouts, kinds, indexes):
        path = os.path.join(folder, "theirs.mcap")
        what = f"their file ({layout}, {kind}, {index})"
        messages = write_theirs(path, compression=kind, index_types=index, **layout)
        report = json.loads(run(dojo, "log", "check", "--json", path))
        check(report["ok"] and report["messages"] == 300, f"{what}: {report}")
        check(flat(cat(dojo, path)) == messages, f"{what}: streamed")
        check(flat(cat(dojo, path, pipe=True)) == messages, f"{what}: piped")
        by_time = sorted(messages, key=lambda m: m[1])
        check(flat(cat(dojo, path, "--by-time")) == by_time, f"{what}: by index")
        some = [m for m in messages if m[0] == "/raw" and 50000 <= m[1] < 90000]
        got = cat(dojo, path, "--topics", "/raw", "--start", "50000ns", "--end", "90000ns")
        check(flat(got) == some, f"{what}: a range")
        info = json.loads(run(dojo, "log", "info", "--json", path))
        check(info["library"].startswith("theirs") and len(info["attachments"]) == 1, f"{what}: info")
        count += 1
    print(f"check_mcap: {count} files of the package's writer read the same")


# ---- 4: rescue ----


def check_rescue(dojo, path, folder):
    cut, mended = os.path.join(folder, "cut.mcap"), os.path.join(folder, "cut.recovered.mcap")
    with open(path, "rb") as f:
        data = f.read()
    with open(cut, "wb") as f:
        f.write(data[: len(data) * 3 // 5])
    run(dojo, "log", "check", cut, code=5)
    report = json.loads(run(dojo, "log", "recover", cut, "--json"))
    with open(mended, "rb") as f:
        count = sum(1 for _ in SeekingReader(f, validate_crcs=True).iter_messages())
    check(count == report["messages_saved"] > 0, f"{mended}: {count} messages")
    print(f"check_mcap: {count} messages of a cut log open in the package")


# ---- 5: a drive of the world ----

SUITE = """
seconds: 3
length: 1000
weather: [overcast]
towns: [{style: grid, seeds: [3]}]
"""


def png_size(data):
    check(data[:8] == b"\x89PNG\r\n\x1a\n", "a layer is no PNG")
    return struct.unpack(">IIBB", data[16:26])


def rotate(q, v):
    """v turned by the quaternion q."""
    x, y, z, w = q.x, q.y, q.z, q.w
    tx, ty, tz = 2 * (y * v[2] - z * v[1]), 2 * (z * v[0] - x * v[2]), 2 * (x * v[1] - y * v[0])
    return (
        v[0] + w * tx + y * tz - z * ty,
        v[1] + w * ty + z * tx - x * tz,
        v[2] + w * tz + x * ty - y * tx,
    )


def check_occupancy(grid, agents, where):
    """The present grid is that of the agents' boxes: their middles are taken, and nothing far from any is."""
    check(len(grid.times) == len(grid.occupied) == len(grid.flow) + 1 == 7, f"{where}: {len(grid.times)} grids")
    cells = [grid.occupied[0][k // 8] >> k % 8 & 1 for k in range(grid.nx * grid.ny)]
    check(len(grid.flow[0]) == 4 * sum(cells), f"{where}: flow of {len(grid.flow[0])} bytes")
    for a in agents:
        i, j = math.floor((a.x - grid.x0) / grid.cell), math.floor((a.y - grid.y0) / grid.cell)
        if 0 <= i < grid.nx and 0 <= j < grid.ny and min(a.length, a.width) > 1.5:
            check(cells[i * grid.ny + j], f"{where}: no cell at agent {a.id}")
    for k, taken in enumerate(cells):
        if taken:
            x, y = grid.x0 + (k // grid.ny + 0.5) * grid.cell, grid.y0 + (k % grid.ny + 0.5) * grid.cell
            near = any(math.hypot(a.x - x, a.y - y) < 0.5 * math.hypot(a.length, a.width) + 1 for a in agents)
            check(near, f"{where}: a cell is taken at {x}, {y}, where nobody is")


def check_world(dojo, folder):
    suite, logs = os.path.join(folder, "s.yaml"), os.path.join(folder, "world")
    with open(suite, "w") as f:
        f.write(SUITE)
    made = json.loads(
        run(dojo, "world", "record", "--suite", suite, "--out", logs, "--rig", "mono", "--layers",
            "depth,semantic,instance", "--json")
    )
    path = made["drives"][0]["path"]
    check_ours(dojo, path)
    by_topic = {}
    with open(path, "rb") as f:
        for _, channel, message, decoded in SeekingReader(f, decoder_factories=[DecoderFactory()]).iter_decoded_messages():
            by_topic.setdefault(channel.topic, {})[message.log_time] = decoded
    poses, camera = by_topic["/pose"], next(iter(by_topic["/camera/front/calibration"].values()))
    labels = ["path", "lanes", "agents", "occupancy", "light", "route", "events", "text", "scene"]
    for t in by_topic["/camera/front/image"]:
        where = f"{path}: {t} ns"
        for name in labels:
            check(t in by_topic["/label/" + name], f"{where}: no /label/{name}")
        for layer, want in (("depth", (16, 0)), ("semantic", (8, 0)), ("instance", (8, 2))):
            width, height, depth, colour = png_size(by_topic[f"/camera/front/{layer}"][t].data)
            check((width, height) == (camera.width, camera.height), f"{where}: {layer} of {width} x {height}")
            check((depth, colour) == want, f"{where}: {layer} has {depth} bits, colour type {colour}")
        label, now, tf = by_topic["/label/path"][t], poses[t].pose, by_topic["/tf"][t]
        check((tf.parent_frame_id, tf.child_frame_id) == ("world", "vehicle"), f"{where}: no transform of the vehicle")
        for mine, theirs, axes in ((tf.translation, now.position, "xyz"), (tf.rotation, now.orientation, "xyzw")):
            check(all(getattr(mine, a) == getattr(theirs, a) for a in axes), f"{where}: /tf is not /pose")
        for k, seconds in enumerate(label.t):
            later = poses.get(t + round(seconds * 1e9 / 5e7) * 50000000)
            if later:
                v = rotate(now.orientation, (label.x[k], label.y[k], label.z[k]))
                p, q = now.position, later.pose.position
                off = math.dist((v[0] + p.x, v[1] + p.y, v[2] + p.z), (q.x, q.y, q.z))
                check(off < 0.01, f"{where}: the path is {off} m off the pose {seconds} s later")
        check_occupancy(by_topic["/label/occupancy"][t], by_topic["/label/agents"][t].agents, where)
        entities = {e.id: e for e in by_topic["/label/scene"][t].entities}
        check(len(entities["agents"].cubes) == len(by_topic["/label/agents"][t].agents), f"{where}: cubes")
        check(by_topic["/label/text"][t].text.endswith("."), f"{where}: text")
    print(f"check_mcap: {len(by_topic)} channels of a drive of the world agree with each other")


def main():
    if len(sys.argv) < 2:
        print(__doc__)
        sys.exit(2)
    build = os.path.abspath(sys.argv[1])
    dojo = os.path.join(build, "dojo")
    with tempfile.TemporaryDirectory() as folder:
        store = os.path.join(folder, "S")
        run(dojo, "ingest", "synth:7:300", "--store", store)
        made = os.path.join(store, "logs", "synth-7.mcap")
        for path in [made, *sys.argv[2:]]:
            check_ours(dojo, path)
        check_conformance(build)
        check_theirs(dojo, folder)
        check_rescue(dojo, made, folder)
        check_world(dojo, folder)


if __name__ == "__main__":
    main()
