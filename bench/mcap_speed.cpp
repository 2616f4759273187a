// The C++ library of the MCAP project on the messages of bench/mcap_speed.c; same use, same output.
// Built by bench/mcap_speed.py where DOJO_PEER_MCAP_INCLUDE names the library's include folder.
#define MCAP_IMPLEMENTATION
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mcap/reader.hpp>
#include <mcap/writer.hpp>
#include <string>
#include <vector>

static void must(const mcap::Status &s) {
  if (s.ok()) return;
  fprintf(stderr, "mcap_speed: %s\n", s.message.c_str());
  exit(1);
}

static double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

static std::vector<std::byte> make_payloads(bool large, size_t &size, size_t &n) {
  size = large ? 30000 : 64;
  n = large ? 256 : 4096;
  std::vector<std::byte> p(size * n);
  uint64_t x = 88172645463325252u;
  for (size_t i = 0; i < size * n / 8; i++) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    uint64_t word = large ? x : i / 8 * 1000 + (i % 8) * 77777 + x % 16;
    memcpy(p.data() + i * 8, &word, 8);
  }
  return p;
}

static void write_file(const char *path, const std::string &compression, bool large, long n) {
  size_t size, kinds;
  auto payloads = make_payloads(large, size, kinds);
  double start = now();
  mcap::McapWriterOptions o("");
  o.chunkSize = 1 << 20;
  o.compression = compression == "zstd"  ? mcap::Compression::Zstd
                  : compression == "lz4" ? mcap::Compression::Lz4
                                         : mcap::Compression::None;
  mcap::McapWriter w;
  must(w.open(path, o));
  mcap::Schema schema("Thing", "raw", "");
  w.addSchema(schema);
  std::vector<mcap::Channel> channels;
  for (int i = 0; i < 4; i++) {
    channels.emplace_back("/" + std::to_string(i), "raw", schema.id);
    w.addChannel(channels.back());
  }
  for (long k = 0; k < n; k++) {
    mcap::Message m;
    m.channelId = channels[k % 4].id;
    m.sequence = (uint32_t)k;
    m.logTime = m.publishTime = (uint64_t)k * 1000;
    m.data = payloads.data() + (size_t)k % kinds * size;
    m.dataSize = size;
    must(w.write(m));
  }
  w.close();
  printf("%.6f %ld %zu\n", now() - start, n, (size_t)n * size);
}

static void read_all(const char *path, mcap::ReadMessageOptions::ReadOrder order) {
  double start = now();
  long n = 0;
  size_t bytes = 0;
  mcap::McapReader r;
  must(r.open(path));
  mcap::ReadMessageOptions o;
  o.readOrder = order;
  for (const auto &view : r.readMessages([](const mcap::Status &s) { must(s); }, o)) {
    n++;
    bytes += view.message.dataSize;
  }
  r.close();
  printf("%.6f %ld %zu\n", now() - start, n, bytes);
}

int main(int argc, char **argv) {
  if (argc != 6) return 2;
  std::string what = argv[1];
  if (what == "write")
    write_file(argv[2], argv[3], !strcmp(argv[4], "large"), strtol(argv[5], nullptr, 10));
  else
    read_all(argv[2], what == "index" ? mcap::ReadMessageOptions::ReadOrder::LogTimeOrder
                                      : mcap::ReadMessageOptions::ReadOrder::FileOrder);
  return 0;
}
