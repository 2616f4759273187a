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
  4. a log of ours that was cut, once `dojo log recover` has mended it, opens in the package.
"""

import base64
import itertools
import json
import math
import os
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


if __name__ == "__main__":
    main()
