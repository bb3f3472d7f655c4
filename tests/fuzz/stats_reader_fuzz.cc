// The reader of the stats segment, and the report made of it, against any bytes: a tool run by root reads what any user
// may have put there.
#include <algorithm>

#include "shm/layout.h"
#include "shm/stats/engine_life.h"
#include "shm/stats/stats_layout.h"
#include "shm/stats/stats_reader.h"
#include "tests/fuzz/fuzz_target.h"
#include "tools/lib/stat_report.h"

namespace sutra::fuzz {
namespace {

// A valid segment of a few entries, any part of which the input then corrupts.
std::vector<std::byte> SmallSegment() {
  std::vector<std::byte> bytes(4096);
  StatsHeader* header = new (bytes.data()) StatsHeader();
  header->version.store(uint32_t{kStatsMajor} << 16, std::memory_order_relaxed);
  header->header_bytes = sizeof(StatsHeader);
  header->magic = kStatsMagic;
  header->segment_bytes = bytes.size();
  header->counters = 3;
  header->gauges = 3;
  header->histograms = 2;
  header->histogram_buckets = 24;
  header->counter_labels_offset = 1024;
  header->gauge_labels_offset = 1024 + 96;
  header->histogram_labels_offset = 1024 + 192;
  header->counters_offset = 1536;
  header->gauges_offset = 1536 + 192;
  header->histograms_offset = 2048;
  header->counter_stride_bytes = 32;
  header->histogram_stride_bytes = 256;
  header->banks = 2;
  header->counter_bank_bytes = 96;
  header->histogram_bank_bytes = 512;
  const auto label = [&](size_t offset, const char* text) {
    std::memcpy(bytes.data() + offset, text, std::strlen(text));
  };
  label(1024, "hits");
  label(1056, "misses");
  label(1088, "texts");
  label(1120, "heartbeat_ns");
  label(1152, "state");
  label(1184, "start_wall_ns");
  label(1216, "hit_total_ns");
  label(1248, "miss_total_ns");
  return bytes;
}

void Report(StatsSnapshot snapshot) {
  snapshot.taken_monotonic_ns = 5'000'000'000;
  snapshot.taken_wall_ns = 6'000'000'000;
  for (const auto& [name, histogram] : snapshot.histograms) {
    for (const double fraction : {0.0, 0.5, 0.999, 1.0}) FUZZ_CHECK(histogram.Percentile(fraction) >= 0);
    static_cast<void>(histogram.Since(snapshot.histograms.begin()->second));
  }
  const EngineEvidence evidence = {EngineEvidence::Lock::kFree, false, true};
  const EngineLife life = JudgeEngine(snapshot, evidence);
  const StatsSnapshot before = snapshot;
  const StatView view = {std::move(snapshot), evidence, life, "segment", &before};
  for (const char byte : StatText(view)) {
    const auto value = static_cast<unsigned char>(byte);
    FUZZ_CHECK((value >= 0x20 && value != 0x7f) || byte == '\n');  // nothing may control the reader's terminal
  }
  static_cast<void>(StatJson(view).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));  // as sutra-stat
}

}  // namespace

SUTRA_FUZZ_TARGET(stats_reader, 8192) {
  Input input(data, size);
  std::vector<std::byte> bytes;
  if (input.Below(4) == 0) {
    const std::string_view raw = input.Rest();
    bytes.resize(raw.size());
    std::transform(raw.begin(), raw.end(), bytes.begin(), [](char c) { return static_cast<std::byte>(c); });
  } else {
    bytes = SmallSegment();
    if (input.Below(4) == 0) bytes.resize(input.U16() % (bytes.size() + 1));
    while (!input.empty() && !bytes.empty()) {
      const uint8_t choice = input.Byte();
      // Half of the stores go to the header, whose numbers decide what is read.
      const size_t within = choice % 2 == 0 ? std::min(bytes.size(), sizeof(StatsHeader)) : bytes.size();
      const size_t at = input.U16() % within;
      const uint64_t value = choice % 4 < 2 ? input.Edge(bytes.size()) : input.U64();
      std::memcpy(bytes.data() + at, &value, std::min<size_t>(choice & 8 ? 4 : 8, bytes.size() - at));
    }
  }
  const Result<StatsSnapshot> snapshot = ParseStats(bytes);
  if (snapshot.ok()) Report(snapshot.value());
}

}  // namespace sutra::fuzz
