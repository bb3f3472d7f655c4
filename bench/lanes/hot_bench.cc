// The hot table: a client that finds its text there, beside a Redis GET over a Unix socket; what it costs who does not
// find it; and what a busy writer, or other clients, cost the readers.
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "bench/bench_report.h"
#include "bench/lanes/engine_side.h"
#include "bench/lanes/redis_peer.h"
#include "shm/base/cycle_clock.h"
#include "shm/base/time.h"
#include "shm/hot_memory.h"
#include "shm/hot_reader.h"
#include "shm/hot_writer.h"
#include "shm/lane_memory.h"

namespace sutra::bench {
namespace {

constexpr size_t kHotTexts = 40'000;
constexpr uint64_t kReplacementsPerSecond = 10'000;
constexpr size_t kAsked = 100'000;  // texts, before they come round again
constexpr int kFillPassesMax = 20;
constexpr int kClients = 4;  // of readers_scale, on two CPUs

constexpr size_t kHotTextBytes = 100;  // a query's length

struct HotExtent {
  int count = 100'000;  // operations per figure
  uint64_t span_ms = 500;
};

std::vector<std::string> Texts(const std::string& family, size_t count) {
  std::vector<std::string> texts;
  for (size_t i = 0; i < count; ++i) texts.push_back(BenchText(family, i, kHotTextBytes));
  return texts;
}

// The texts as a client has them, each just made: one after another in memory, in random order.
class Asked {
 public:
  Asked(const std::vector<std::string>& texts, size_t count, uint64_t seed) {
    std::mt19937_64 random(seed);
    for (size_t i = 0; i < count; ++i) bytes_ += texts[random() % texts.size()];
  }
  std::string_view Next() {
    if (at_ == bytes_.size()) at_ = 0;
    at_ += kHotTextBytes;
    return std::string_view(bytes_).substr(at_ - kHotTextBytes, kHotTextBytes);
  }

 private:
  std::string bytes_;
  size_t at_ = 0;
};

// The median of what an operation takes, `group` of them timed together: whoever else has the CPU now and then does not
// show.
double MedianNs(int groups, int group, const std::function<void()>& run) {
  std::vector<double> values;
  for (int i = 0; i < 2000; ++i) run();
  for (int i = 0; i < groups; ++i) {
    const uint64_t start_ns = CycleNs();
    for (int j = 0; j < group; ++j) run();
    values.push_back(static_cast<double>(CycleNs() - start_ns) / group);
  }
  return Median(values);
}

std::vector<uint32_t> RandomOrder(size_t count, uint32_t below, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<uint32_t> order(count);
  for (uint32_t& number : order) number = static_cast<uint32_t>(random() % below);
  return order;
}

// A client whose every call must be answered from the table.
class HotClient {
 public:
  HotClient(const std::string& socket, const std::vector<std::string>& texts) : texts_(texts) {
    sutra_attach_options options = embed::AttachOptions();
    options.lanes_max = 1;
    options.client_name = "hot bench";
    if (client_.Attach(socket, options) != SUTRA_OK) Fail(std::string("attach: ") + sutra_error_text());
  }

  // Asks for all texts until all are hot. RETURNS the share of them that is.
  double Fill() {
    std::vector<const char*> pointers;
    std::vector<size_t> sizes;
    for (const std::string& text : texts_) {
      pointers.push_back(text.data());
      sizes.push_back(text.size());
    }
    std::vector<float> vectors(texts_.size() * kWidth);
    std::vector<sutra_result> results(texts_.size(), embed::Result());
    size_t hot = 0;
    for (int pass = 0; pass < kFillPassesMax && hot < texts_.size(); ++pass) {
      if (sutra_embed_batch(client_.get(), pointers.data(), sizes.data(), texts_.size(), nullptr, nullptr,
                            vectors.data(), results.data(), sizeof(sutra_result)) != SUTRA_OK) {
        Fail(std::string("filling: ") + sutra_error_text());
      }
      hot = static_cast<size_t>(std::count_if(results.begin(), results.end(), [](const sutra_result& result) {
        return result.source == SUTRA_SOURCE_HOT_TABLE;
      }));
    }
    return static_cast<double>(hot) / static_cast<double>(texts_.size());
  }

  void Hit(std::string_view asked) {
    sutra_result result = embed::Result();
    if (sutra_embed(client_.get(), asked.data(), asked.size(), nullptr, vector_, &result) != SUTRA_OK) {
      Fail(std::string("embed: ") + sutra_error_text());
    }
    misses_ += result.source == SUTRA_SOURCE_HOT_TABLE ? 0 : 1;
    Touch(vector_, kVectorBytes);
  }
  uint64_t misses() const { return misses_; }

 private:
  const std::vector<std::string>& texts_;
  embed::Client client_;
  alignas(64) float vector_[kWidth] = {};
  uint64_t misses_ = 0;
};

void MeasureClient(const HotExtent& extent, const std::string& socket, const std::vector<std::string>& texts,
                   Values* values, std::vector<std::string>* notes, std::string* no_redis) {
  HotClient client(socket, texts);
  const double share = client.Fill();
  (*values)["hot_share"].push_back(share);
  Asked asked(texts, kAsked, 7);
  const double hot_ns = MedianNs(extent.count, 1, [&] { client.Hit(asked.Next()); });
  (*values)["hot_us"].push_back(hot_ns / 1000);
  if (client.misses() > 0)
    notes->push_back(std::to_string(client.misses()) + " calls were not answered from the table");

  std::unique_ptr<RedisPeer> redis = RedisPeer::Start(no_redis);
  if (redis == nullptr) return;
  redis->Store(texts);
  const double redis_ns = MedianNs(extent.count / 10, 1, [&] { redis->Get(asked.Next(), false); });
  const double spin_ns = MedianNs(extent.count / 10, 1, [&] { redis->Get(asked.Next(), true); });
  (*values)["redis_spin_us"].push_back(spin_ns / 1000);
  (*values)["redis_us"].push_back(redis_ns / 1000);
  (*values)["redis_over_hot"].push_back(redis_ns / hot_ns);
}

// A table of the bench's own, as large as the engine's and as full, for what an engine's cannot show alone.
class OwnTable {
 public:
  explicit OwnTable(const std::vector<std::string>& texts) : texts_(texts) {
    const HotGeometry geometry = HotGeometry::Of(kWidth, kHotBytesDefault);
    auto memory = HotTableMemory::Create(geometry, 1);
    auto page = EnginePageMemory::Create(1);
    if (!memory.ok() || !page.ok() || !memory->Back(geometry.slots - 1)) Fail("no memory for a hot table");
    memory_ = std::move(memory).value();
    page_ = std::move(page).value();
    madvise(memory_.view().base, geometry.bytes(), MADV_DOFORK);  // the writer is a child
    writer_ = HotWriter(memory_.view());
    for (uint32_t i = 0; i < texts.size(); ++i) Write(i);
    Beat();
    reader_ = HotReader(memory_.view(), page_.page());
  }

  void Write(uint32_t text) {
    const std::vector<float> unit(kWidth, static_cast<float>(text));
    HotKey key = writer_.KeyOf(texts_[text], 0);
    writer_.Write(text, &key, unit, {.norm = 1, .token_count = 1, .flags = 0, .expires_ns = UINT64_MAX});
  }
  // As the engine does; to be called more often than a heartbeat may be old.
  void Beat() { page_.page()->heartbeat_ns.store(MonotonicNs(), std::memory_order_relaxed); }
  bool Find(std::string_view text) {
    HotKey key = reader_.KeyOf(text, 0);
    HotValue value;
    uint32_t slot;
    const bool hit = reader_.Find(
        &key, [] { return CycleNs(); }, unit_, &value, &slot);
    if (hit) Touch(unit_, kVectorBytes);
    return hit;
  }

 private:
  const std::vector<std::string>& texts_;
  HotTableMemory memory_;
  EnginePageMemory page_;
  HotWriter writer_;
  HotReader reader_;
  alignas(64) float unit_[kWidth] = {};
};

// Evenly, as far as the clock's sleep allows.
[[noreturn]] void WriteForEver(OwnTable* table) {
  const auto order = RandomOrder(1 << 16, kHotTexts, 11);
  uint64_t due_ns = MonotonicNs();
  for (size_t i = 0;; ++i) {
    table->Write(order[i % order.size()]);
    due_ns += kNsPerSecond / kReplacementsPerSecond;
    while (MonotonicNs() < due_ns) SleepUs(20);
  }
}

void MeasureTable(const HotExtent& extent, const std::vector<std::string>& texts, Values* values) {
  OwnTable table(texts);
  Asked absent(Texts("absent", kHotTexts), kAsked, 13), present(texts, kAsked, 17);
  int looks = 0, others = 0;
  const auto look = [&](Asked* asked, bool hit) {
    if (looks++ % 256 == 0) table.Beat();
    others += table.Find(asked->Next()) != hit ? 1 : 0;
  };
  // Sixteen together: one is shorter than what the clock tells apart.
  (*values)["miss_us"].push_back(MedianNs(extent.count / 16, 16, [&] { look(&absent, false); }) / 1000);
  // The two take turns: a virtual machine's speed drifts.
  for (int round = 0; round < 3; ++round) {
    const double quiet_ns = MedianNs(extent.count / 100, 100, [&] { look(&present, true); });
    double busy_ns;
    {
      const Peer writer([&table] { WriteForEver(&table); });
      busy_ns = MedianNs(extent.count / 100, 100, [&] { look(&present, true); });
    }
    (*values)["table_hit_us"].push_back(quiet_ns / 1000);
    (*values)["busy_over_quiet"].push_back(quiet_ns / busy_ns);
  }
  // A key in thousands has lost its cell to another.
  if (others > looks / 100) Fail("look-ups found what is not there, or did not find what is");
}

struct Shared {
  std::atomic<uint32_t> ready, go, stop;
  std::atomic<uint64_t> hits;
};

// Hits per second of so many client processes, on both CPUs.
double HitsPerSecond(int processes, const HotExtent& extent, const std::string& socket,
                     const std::vector<std::string>& texts) {
  const SharedPages pages(sizeof(Shared));
  Shared* shared = new (pages.get()) Shared{};
  std::vector<pid_t> children;
  for (int i = 0; i < processes; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      try {
        Pin(i % 2 == 0 ? ClientCpu() : EngineCpu());
        HotClient client(socket, texts);
        Asked asked(texts, kAsked, 19 + static_cast<uint64_t>(i));
        for (int warm = 0; warm < 2000; ++warm) client.Hit(asked.Next());
        shared->ready.fetch_add(1);
        while (shared->go.load() == 0) SleepUs(100);
        uint64_t hits = 0;
        while (shared->stop.load(std::memory_order_relaxed) == 0) {
          client.Hit(asked.Next());
          ++hits;
        }
        shared->hits.fetch_add(hits - client.misses());
        _exit(0);
      } catch (const std::exception& error) {
        std::fprintf(stderr, "hot_bench: a client: %s\n", error.what());
        _exit(1);
      }
    }
    children.push_back(child);
  }
  while (shared->ready.load() < static_cast<uint32_t>(processes)) {
    SleepUs(1000);
    if (waitpid(children[0], nullptr, WNOHANG) != 0) Fail("a client ended");
  }
  const uint64_t start_ns = MonotonicNs();
  shared->go.store(1);
  SleepUs(extent.span_ms * 1000);
  shared->stop.store(1);
  const double seconds = static_cast<double>(MonotonicNs() - start_ns) / 1e9;
  for (const pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    if (status != 0) Fail("a client failed");
  }
  return static_cast<double>(shared->hits.load()) / seconds;
}

int Main(int argc, char** argv) {
  bool json = false, quick = false;
  int runs = 3;
  CLI::App app("The hot table.");
  app.add_flag("--json", json, "print one JSON object as the last line");
  app.add_flag("--quick", quick, "measure less");
  app.add_option("--runs", runs, "runs")->check(CLI::Range(1, 100));
  CLI11_PARSE(app, argc, argv);
  if (!ChooseCpus()) Fail("needs two CPUs");
  const RaisedPriority priority;
  HotExtent extent;
  if (quick) extent = {.count = 20'000, .span_ms = 200};
  Values values;
  std::vector<std::string> notes;
  std::string no_redis;
  const std::vector<std::string> texts = Texts("hot", kHotTexts);
  {
    BenchEngine engine({"--hot-bytes-max", std::to_string(kHotBytesDefault)});
    for (int run = 0; run < runs; ++run) {
      MeasureClient(extent, engine.socket(), texts, &values, &notes, &no_redis);
      const double two = HitsPerSecond(2, extent, engine.socket(), texts);
      const double four = HitsPerSecond(kClients, extent, engine.socket(), texts);
      values["hits_per_second"].push_back(two);
      values["readers_scale"].push_back(four / two);
    }
  }
  for (int run = 0; run < runs; ++run) MeasureTable(extent, texts, &values);

  Report report("hot");
  const std::pair<const char*, const char*> rows[] = {
      {"redis_over_hot", "a Redis GET over a hot hit"},
      {"hot_us", "a hot hit, sutra_embed, us"},
      {"redis_us", "a Redis GET, us"},
      {"redis_spin_us", "the same with a client that polls its socket, us"},
      {"hot_share", "texts that were hot"},
      {"busy_over_quiet", "hits/s beside 10,000 replacements/s over alone"},
      {"table_hit_us", "the table's part of a hit, us"},
      {"readers_scale", "hits/s of four client processes over two's"},
      {"hits_per_second", "hits/s of two client processes"},
      {"miss_us", "what the table costs a miss, us"},
  };
  for (const auto& [key, title] : rows) report.Add(key, title, values[key]);
  for (const std::string& note : notes) report.Note(note);
  if (!no_redis.empty()) report.Note("redis_over_hot: " + no_redis);
  report.Note(std::to_string(kHotTexts) + " texts of " + std::to_string(kHotTextBytes) + " bytes; " +
              (priority.raised() ? "nice -20" : "normal priority: other work shows"));
  report.AddValue("runs", runs);
  report.Print(json);
  return 0;
}

}  // namespace
}  // namespace sutra::bench

int main(int argc, char** argv) {
  try {
    return sutra::bench::Main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "hot_bench: %s\n", error.what());
    return 1;
  }
}
