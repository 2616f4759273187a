"""Times writing and reading of MCAP files by Dojo, by the `mcap` Python package and, where
DOJO_PEER_MCAP_INCLUDE names the include folder of the MCAP project's C++ library, by that: the same
messages in 1 MiB chunks, by turns, the fastest of each. Files lie in memory (/dev/shm). Use:

    python3 bench/mcap_speed.py BUILD [ROUNDS]

Payload MB/s; "random" is messages/s, one at a time by place (the other two have no such call).
All run with their defaults: ours writes and verifies every CRC, the others do not verify when
reading messages.
"""

import os
import struct
import subprocess
import sys
import tempfile
import time

try:
    from mcap.reader import NonSeekingReader, SeekingReader
    from mcap.writer import CompressionType, Writer
except ImportError:
    Writer = None

WORKLOADS = {"small": 400000, "large": 4000}  # messages
SLOWER = {"small": 20}  # the Python package gets this much less of a workload: it is slow


def payloads(kind):
    size, count = (64, 4096) if kind == "small" else (30000, 256)
    x, words, mask = 88172645463325252, [], (1 << 64) - 1
    for i in range(size * count // 8):
        x ^= (x << 13) & mask
        x ^= x >> 7
        x ^= (x << 17) & mask
        words.append(x if kind == "large" else i // 8 * 1000 + i % 8 * 77777 + x % 16)
    data = struct.pack(f"<{len(words)}Q", *words)
    return [data[i * size : (i + 1) * size] for i in range(count)]


class Program:
    def __init__(self, name, path, has):
        self.name, self.path, self.has = name, path, has

    def count(self, kind):
        return WORKLOADS[kind]

    def run(self, what, file, compression, kind):
        args = [self.path, what, file, compression, kind, str(self.count(kind))]
        seconds, messages, size = subprocess.run(args, capture_output=True, text=True, check=True).stdout.split()
        return float(seconds), int(messages), int(size)


class Python:
    name, has = "python", ("write", "stream", "index")

    def __init__(self):
        self.payloads = {kind: payloads(kind) for kind in WORKLOADS}

    def count(self, kind):
        return WORKLOADS[kind] // SLOWER.get(kind, 1)

    def run(self, what, file, compression, kind):
        data, n = self.payloads[kind], self.count(kind)
        start = time.perf_counter()
        if what == "write":
            with open(file, "wb") as f:
                writer = Writer(f, compression=CompressionType[compression.upper()], chunk_size=1 << 20)
                writer.start()
                schema = writer.register_schema("Thing", "raw", b"")
                channels = [writer.register_channel(f"/{i}", "raw", schema) for i in range(4)]
                for k in range(n):
                    writer.add_message(channels[k % 4], k * 1000, data[k % len(data)], k * 1000, k)
                writer.finish()
            size = n * len(data[0])
        else:
            reader = NonSeekingReader if what == "stream" else SeekingReader
            n = size = 0
            with open(file, "rb") as f:
                for _, _, message in reader(f).iter_messages(log_time_order=what == "index"):
                    n += 1
                    size += len(message.data)
        return time.perf_counter() - start, n, size


def peers(build, folder):
    yield Program("dojo", os.path.join(build, "mcap_speed"), ("write", "stream", "index", "random"))
    include = os.environ.get("DOJO_PEER_MCAP_INCLUDE")
    if include:
        program = os.path.join(folder, "mcap_speed_cpp")
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "mcap_speed.cpp")
        subprocess.run(["g++", "-std=c++17", "-O2", "-I", include, source, "-o", program, "-lzstd", "-llz4"], check=True)
        yield Program("c++", program, ("write", "stream", "index"))
    if Writer:
        yield Python()
    else:
        print("(the Python package 'mcap' is not there)")


def main():
    if len(sys.argv) < 2:
        print(__doc__)
        sys.exit(2)
    build, rounds = os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 5
    subprocess.run(["cmake", "--build", build, "--target", "mcap_speed"], check=True, capture_output=True)
    shm = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=shm) as folder:
        who = list(peers(build, folder))
        print(f"{'workload':24}" + "".join(f"{p.name + ' ' + w:>15}" for w in ("write", "stream", "index", "random") for p in who if w in p.has))
        for kind in WORKLOADS:
            for compression in ("none", "lz4", "zstd"):
                best = {}
                for _ in range(rounds):
                    for what in ("write", "stream", "index", "random"):
                        for p in who:
                            if what not in p.has:
                                continue
                            file = os.path.join(folder, p.name + ".mcap")  # each reads its own
                            seconds, messages, size = p.run(what, file, compression, kind)
                            speed = messages / seconds if what == "random" else size / seconds / 1e6
                            best[p.name, what] = max(best.get((p.name, what), 0), speed)
                cells = [best[p.name, w] for w in ("write", "stream", "index", "random") for p in who if w in p.has]
                print(f"{kind + ', ' + compression:24}" + "".join(f"{c:15.0f}" for c in cells), flush=True)


if __name__ == "__main__":
    main()
