// How often the store has what is asked for, and how many tokens that saves, beside LRU, second chance and S3-FIFO as
// in the book on the same synthetic streams. No time is measured.
//   eviction_bench [--runs N] [--seed N] [--quick] [--json] [--self-test]
#include <CLI/CLI.hpp>
#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "bench/bench_report.h"
#include "bench/eviction_rivals.h"
#include "bench/eviction_streams.h"
#include "cache/store/slot_table.h"
#include "shm/base/clock.h"

namespace sutra::bench {
namespace {

constexpr StreamKind kStreams[] = {
    {.name = "zipf08", .title = "zipf 0.8", .skew = 0.8},
    {.name = "zipf08_bursts", .title = "zipf 0.8, bursts", .skew = 0.8, .bursts = true},
    {.name = "zipf08_jumps", .title = "zipf 0.8, moving by jumps", .skew = 0.8, .moves = Moves::kJumps},
    {.name = "zipf08_drift", .title = "zipf 0.8, drifting", .skew = 0.8, .moves = Moves::kDrifts},
    {.name = "zipf08_jumps_bursts",
     .title = "zipf 0.8, jumps, bursts",
     .skew = 0.8,
     .moves = Moves::kJumps,
     .bursts = true},
    {.name = "zipf08_long_rare",
     .title = "zipf 0.8, bursts, rare is long",
     .skew = 0.8,
     .bursts = true,
     .long_rarely = true},
    {.name = "zipf10", .title = "zipf 1.0", .skew = 1.0},
    {.name = "zipf10_bursts", .title = "zipf 1.0, bursts", .skew = 1.0, .bursts = true},
    {.name = "zipf10_jumps_bursts",
     .title = "zipf 1.0, jumps, bursts",
     .skew = 1.0,
     .moves = Moves::kJumps,
     .bursts = true},
    {.name = "zipf08_fast", .title = "zipf 0.8, moving fast", .skew = 0.8, .moves = Moves::kFast},
};

// The store as the cache uses it, with vectors of one number.
class Store {
 public:
  explicit Store(uint32_t entries_max) : store_({.width = 1, .entries_max = entries_max, .bytes_max = 1ull << 32}) {}
  bool Ask(uint32_t number, uint32_t tokens) {
    const std::string text = "text " + std::to_string(number);
    const EntryKey key = store_.KeyOf(text, 0);
    float vector = 0;
    CacheValue value;
    if (store_.Lookup(key, 1, &vector, &value)) return true;
    const MutexLock lock(store_.mutex());
    store_.PutLocked(key, std::as_bytes(std::span<const float>(&vector, 1)), CacheValue{1, tokens, false}, UINT64_MAX,
                     1);
    return false;
  }

 private:
  SlotTable store_;
};

struct Rates {
  double hits = 0, tokens = 0;  // of those that are counted
};

template <typename Cache>
Rates Play(const std::vector<Request>& stream, Cache&& cache) {
  uint64_t requests = 0, hits = 0, tokens = 0, tokens_saved = 0;
  for (const Request& request : stream) {
    const bool hit = cache.Ask(request.key, request.tokens);
    if (!request.counted) continue;
    ++requests;
    tokens += request.tokens;
    hits += hit;
    tokens_saved += hit ? request.tokens : 0;
  }
  return {static_cast<double>(hits) / static_cast<double>(requests),
          static_cast<double>(tokens_saved) / static_cast<double>(tokens)};
}

// One stream and one size; a value per run.
struct Row {
  const StreamKind* kind = nullptr;
  int percent = 0;  // entries of the cache by keys of the stream
  std::vector<double> lru, gain, token_gain, chance_gain, book_gain;
};

void Measure(uint32_t keys, uint64_t seed, bool self_test, Row* row) {
  const uint32_t entries = keys / 100 * row->percent, requests = 5 * keys;
  const std::vector<Request> stream = MakeStream(*row->kind, keys, requests, seed);
  const uint32_t numbers = keys + requests;
  const Rates ours = self_test ? Play(stream, SecondChance(entries, numbers, false)) : Play(stream, Store(entries));
  const Rates lru = Play(stream, Lru(entries, numbers));
  row->lru.push_back(lru.hits);
  row->gain.push_back(ours.hits - lru.hits);
  row->token_gain.push_back(ours.tokens - lru.tokens);
  row->chance_gain.push_back(Play(stream, SecondChance(entries, numbers)).hits - lru.hits);
  row->book_gain.push_back(Play(stream, BookS3Fifo(entries, numbers)).hits - lru.hits);
}

std::vector<Row> MeasureAll(uint32_t keys, int runs, uint64_t seed, bool self_test) {
  std::vector<Row> rows;
  for (const StreamKind& kind : kStreams) {
    for (const int percent : {1, 10}) {
      Row& row = rows.emplace_back();
      row.kind = &kind;
      row.percent = percent;
      for (int run = 0; run < runs; ++run) Measure(keys, seed + run, self_test, &row);
    }
  }
  return rows;
}

void Show(const std::vector<Row>& rows, Report* report) {
  for (const Row& row : rows) {
    char line[160];
    std::snprintf(line, sizeof(line), "%-32s %4d %%  %6.3f  %+6.3f  %+6.3f  %+6.3f  %+6.3f", row.kind->title,
                  row.percent, Median(row.lru), Median(row.gain), Median(row.token_gain), Median(row.chance_gain),
                  Median(row.book_gain));
    report->Note(line);
    const std::string name = std::string(row.kind->name) + "_" + std::to_string(row.percent);
    report->AddValue(name + "_gain", Median(row.gain));
    report->AddValue(name + "_token_gain", Median(row.token_gain));
  }
}

using Pick = const double& (*)(const double&, const double&);

// Of each run the worst or best row.
std::vector<double> Extreme(const std::vector<Row>& rows, std::vector<double> Row::*values, Pick pick) {
  std::vector<double> extreme = rows.front().*values;
  for (const Row& row : rows) {
    for (size_t run = 0; run < extreme.size(); ++run) extreme[run] = pick(extreme[run], (row.*values)[run]);
  }
  return extreme;
}

int Run(int count, char** arguments) {
  int runs = 3;
  uint64_t seed = 7;
  bool quick = false, json = false, self_test = false;
  CLI::App options("Hit rates of the store beside LRU, second chance and S3-FIFO as in the book.");
  options.add_option("--runs", runs, "streams of each kind")->capture_default_str()->check(CLI::Range(1, 100));
  options.add_option("--seed", seed, "of the first run; the next one has the next")->capture_default_str();
  options.add_flag("--quick", quick, "a tenth of the keys and requests");
  options.add_flag("--json", json, "one JSON object as the last line");
  options.add_flag("--self-test", self_test, "a FIFO in the store's place must fall short");
  CLI11_PARSE(options, count, arguments);
  const uint32_t keys = quick ? 40'000 : 400'000;
  const std::vector<Row> rows = MeasureAll(keys, runs, seed, self_test);
  Report report("eviction");
  const std::vector<double> worst = Extreme(rows, &Row::gain, std::min<double>);
  const std::vector<double> best = Extreme(rows, &Row::gain, std::max<double>);
  const std::vector<double> worst_tokens = Extreme(rows, &Row::token_gain, std::min<double>);
  report.Add("worst_gain", "hit rate minus LRU's, worst stream", worst);
  report.Add("best_gain", "hit rate minus LRU's, best stream", best);
  report.Add("worst_token_gain", "share of tokens saved minus LRU's, worst stream", worst_tokens);
  report.AddValue("seed", static_cast<double>(seed));
  report.AddValue("runs", runs);
  report.AddValue("keys", keys);
  report.Note("\nMedians of seeds " + std::to_string(seed) + " to " + std::to_string(seed + runs - 1) + ", " +
              std::to_string(keys) + " keys, " + std::to_string(5 * keys) + " requests.");
  report.Note("stream                            size  LRU     store   tokens  chance  book    (minus LRU's)");
  Show(rows, &report);
  report.Print(json);
  if (!self_test) return 0;
  const bool falls_short = Median(worst) < -0.005 && Median(best) < 0.08 && Median(worst_tokens) < 0;
  std::printf("self-test: a FIFO %s\n", falls_short ? "falls short, as it must" : "PASSES: the figures mean nothing");
  return falls_short ? 0 : 1;
}

}  // namespace
}  // namespace sutra::bench

int main(int count, char** arguments) { return sutra::bench::Run(count, arguments); }
