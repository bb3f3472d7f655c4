// One measurement of a running engine through the client library: text in, vector out. bench/run engine and bench/run
// peers run this in turn with the comparators and collect the figures.
//   end_to_end_bench --socket PATH --workload mix|tokens32|tokens128     one pass, nothing from the cache;
//                                    [--texts N] [--vectors FILE]        of the first N texts; keeps the vectors
//   end_to_end_bench --socket PATH --workload single|hit [--count N]     one text at a time
//   end_to_end_bench --socket PATH --workload queries [--count N]        the same with the dumped queries, uncached
//   end_to_end_bench --socket PATH --workload first                      waits for the engine, then one text
//   end_to_end_bench --dump mix|tokens32|tokens128|queries               the texts as JSON lines, for the comparators
// Prints one JSON object. Single-threaded.
#include <fmt/format.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <unordered_set>
#include <vector>

#include "producer/include/sutra/embed.hpp"
#include "shm/stats/stats_reader.h"
#include "tools/lib/case_study.h"

namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kMixTexts = 600;
constexpr size_t kQueries = 500;
constexpr const char* kStages[] = {"take", "tokenise", "queue", "compute", "publish"};  // between stamps i and i + 1

// Each is one token of the BERT vocabulary.
constexpr const char* kWords[] = {
    "market", "price",  "company",  "stock",    "trade",    "bank",    "growth", "report", "value",   "year",
    "week",   "month",  "river",    "forest",   "mountain", "garden",  "window", "letter", "music",   "paper",
    "water",  "light",  "night",    "morning",  "house",    "street",  "school", "doctor", "teacher", "child",
    "mother", "father", "friend",   "story",    "history",  "science", "energy", "power",  "engine",  "machine",
    "number", "system", "language", "question", "answer",   "reason",  "result", "strong", "small",   "large",
    "early",  "late",   "open",     "close",    "high",     "low",     "fast",   "slow",   "quiet"};

double Seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }

// A text of exactly `tokens` tokens, special tokens included.
std::string WordsOf(uint32_t tokens, std::mt19937_64& random) {
  std::string text;
  for (uint32_t i = 0; i + 2 < tokens; ++i) {
    if (i != 0) text += ' ';
    text += kWords[random() % std::size(kWords)];
  }
  return text;
}

std::vector<std::string> Uniform(size_t texts, uint32_t tokens) {
  std::mt19937_64 random(tokens);
  std::vector<std::string> uniform(texts);
  for (std::string& text : uniform) text = WordsOf(tokens, random);
  return uniform;
}

// Of 8 to 11 tokens.
std::vector<std::string> Queries() {
  std::mt19937_64 random(11);
  std::vector<std::string> queries(kQueries);
  for (std::string& query : queries) query = WordsOf(8 + random() % 4, random);
  return queries;
}

// Contents and fragments of several case studies, each text once: what Sutra embeds, without what a cache would save.
std::vector<std::string> Mix() {
  std::vector<std::string> texts;
  std::unordered_set<std::string> seen;
  for (uint64_t seed = 1; texts.size() < kMixTexts; ++seed) {
    for (const std::string& text : sutra::CaseStudyTexts(sutra::MakeCaseStudy({.seed = seed}))) {
      if (texts.size() < kMixTexts && seen.insert(text).second) texts.push_back(text);
    }
  }
  return texts;
}

std::vector<std::string> Workload(const std::string& name) {
  if (name == "tokens32") return Uniform(512, 32);
  if (name == "tokens128") return Uniform(256, 128);
  if (name == "queries") return Queries();
  return Mix();
}

double Percentile(std::vector<double> values, double fraction) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const auto rank = static_cast<size_t>(std::ceil(fraction * static_cast<double>(values.size())));
  return values[std::max<size_t>(rank, 1) - 1];
}

struct Attached {
  sutra_client* client = nullptr;
  sutra_info info = sutra::embed::Info();
  ~Attached() {
    if (client != nullptr) sutra_detach(client);
  }
};

sutra_status Attach(const std::string& socket, uint32_t spin_us, Attached* attached) {
  sutra_attach_options options = sutra::embed::AttachOptions();
  options.spin_us = spin_us;
  options.client_name = "end_to_end_bench";
  const sutra_status status = sutra_attach(socket.c_str(), &options, &attached->client);
  if (status == SUTRA_OK) sutra_get_info(attached->client, &attached->info);
  return status;
}

int Fail(const std::string& message) {
  fmt::print(stderr, "end_to_end_bench: {}\n", message);
  return 1;
}

// The stages' shares of all time that the texts spent between submission and answer, from the results' own stamps.
nlohmann::json StageShares(const std::vector<sutra_result>& results) {
  double total = 0;
  nlohmann::json shares = nlohmann::json::object();
  for (size_t stage = 0; stage < std::size(kStages); ++stage) {
    double sum = 0;
    for (const sutra_result& result : results) {
      if (result.stage_ns[stage + 1] > result.stage_ns[stage]) {
        sum += static_cast<double>(result.stage_ns[stage + 1] - result.stage_ns[stage]);
      }
    }
    shares[kStages[stage]] = sum;
    total += sum;
  }
  for (auto& share : shares) share = total == 0 ? 0.0 : share.get<double>() / total;
  return shares;
}

double ProcessorSeconds() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

sutra_options NothingCached() {
  sutra_options options{};
  options.size = sizeof(options);
  options.flags = SUTRA_CACHE_SKIP_LOOKUP | SUTRA_CACHE_SKIP_STORE;
  options.timeout_ms = 600'000;
  return options;
}

// `vectors_file`: where the vectors go as raw floats, unless empty.
int Throughput(const std::string& socket, const std::string& name, size_t texts_max, const std::string& vectors_file) {
  std::vector<std::string> texts = Workload(name);
  texts.resize(std::min(texts.size(), texts_max));
  std::vector<const char*> pointers;
  std::vector<size_t> bytes;
  for (const std::string& text : texts) {
    pointers.push_back(text.c_str());
    bytes.push_back(text.size());
  }
  Attached attached;
  if (Attach(socket, SUTRA_SPIN_US_DEFAULT, &attached) != SUTRA_OK) return Fail(sutra_error_text());
  auto reader = sutra::StatsReader::OpenSocket(socket);
  if (!reader.ok()) return Fail(reader.status().message());
  std::vector<float> vectors(texts.size() * attached.info.width);
  std::vector<sutra_result> results(texts.size(), sutra::embed::Result());
  const sutra_options options = NothingCached();
  const auto before = reader->Snapshot();
  const double processor_before = ProcessorSeconds();
  const auto start = Clock::now();
  const sutra_status status = sutra_embed_batch(attached.client, pointers.data(), bytes.data(), texts.size(), &options,
                                                nullptr, vectors.data(), results.data(), sizeof(sutra_result));
  const double seconds = Seconds(Clock::now() - start);
  const double processor = ProcessorSeconds() - processor_before;
  const auto after = reader->Snapshot();
  if (status != SUTRA_OK) return Fail(sutra_status_text(status));
  if (!before.ok() || !after.ok()) return Fail("cannot read the engine's statistics");
  uint64_t tokens = 0, computed = 0;
  for (const sutra_result& result : results) {
    tokens += result.token_count;
    computed += result.source == SUTRA_SOURCE_MODEL;
  }
  if (computed != texts.size()) return Fail(fmt::format("only {} of {} texts were computed", computed, texts.size()));
  const sutra::HistogramSnapshot batches =
      after->histogram("batch_size_tokens").Since(before->histogram("batch_size_tokens"));
  if (!vectors_file.empty()) {
    std::ofstream out(vectors_file, std::ios::binary);
    out.write(reinterpret_cast<const char*>(vectors.data()),
              static_cast<std::streamsize>(vectors.size() * sizeof(float)));
    if (!out.flush()) return Fail("cannot write " + vectors_file);
  }
  const nlohmann::json json = {{"seconds", seconds},
                               {"client_cpu_s", processor},
                               {"texts", texts.size()},
                               {"tokens", tokens},
                               {"stage_shares", StageShares(results)},
                               {"batch_tokens_mean", batches.Mean()},
                               {"model", attached.info.model}};
  fmt::print("{}\n", json.dump());
  return 0;
}

nlohmann::json Percentiles(const std::vector<double>& us) {
  return {{"count", us.size()},
          {"p50_us", Percentile(us, 0.5)},
          {"p90_us", Percentile(us, 0.9)},
          {"p99_us", Percentile(us, 0.99)}};
}

// One short text at a time, as queries come: each new (single), or in the cache (hit).
int Latency(const std::string& socket, bool hit, size_t count) {
  Attached attached;
  if (Attach(socket, 1000, &attached) != SUTRA_OK) return Fail(sutra_error_text());
  std::vector<float> vector(attached.info.width);
  std::mt19937_64 random(std::random_device{}());
  const auto embed = [&](const std::string& text, sutra_result* result) {
    return sutra_embed(attached.client, text.data(), text.size(), nullptr, vector.data(), result);
  };
  const auto query = [&] {
    std::string text = "Which";
    for (int i = 0; i < 6; ++i) text += std::string(" ") + kWords[random() % std::size(kWords)];
    return text + " " + std::to_string(random() % 1'000'000) + "?";
  };
  const std::string known = query();
  sutra_result result = sutra::embed::Result();
  for (int i = 0; i < 20; ++i) {
    if (embed(hit ? known : query(), &result) != SUTRA_OK) return Fail(sutra_error_text());
  }
  std::vector<double> us;
  for (size_t i = 0; i < count; ++i) {
    const std::string text = hit ? known : query();
    const auto start = Clock::now();
    const sutra_status status = embed(text, &result);
    us.push_back(Seconds(Clock::now() - start) * 1e6);
    if (status != SUTRA_OK) return Fail(sutra_status_text(status));
    const bool was_hit = result.source == SUTRA_SOURCE_SHARD || result.source == SUTRA_SOURCE_HOT_TABLE;
    if (was_hit != hit) return Fail(hit ? "a text that should be cached was computed" : "a new text was found cached");
  }
  nlohmann::json json = Percentiles(us);
  json["tokens"] = result.token_count;
  fmt::print("{}\n", json.dump());
  return 0;
}

// The dumped queries one at a time, past the cache; each is what the caller sees. Neither side may take the other's
// core for long where they share one, so the client spins only as long as the library does by default.
int Queries(const std::string& socket, size_t count) {
  const std::vector<std::string> texts = Queries();
  Attached attached;
  if (Attach(socket, SUTRA_SPIN_US_DEFAULT, &attached) != SUTRA_OK) return Fail(sutra_error_text());
  std::vector<float> vector(attached.info.width);
  const sutra_options options = NothingCached();
  std::vector<double> us;
  constexpr size_t kWarm = 20;
  for (size_t i = 0; i < kWarm + count; ++i) {
    const std::string& text = texts[i % texts.size()];
    sutra_result result = sutra::embed::Result();
    const auto start = Clock::now();
    const sutra_status status =
        sutra_embed(attached.client, text.data(), text.size(), &options, vector.data(), &result);
    const double took = Seconds(Clock::now() - start) * 1e6;
    if (status != SUTRA_OK) return Fail(sutra_status_text(status));
    if (result.source != SUTRA_SOURCE_MODEL) return Fail("a query was not computed");
    if (i >= kWarm) us.push_back(took);
  }
  fmt::print("{}\n", Percentiles(us).dump());
  return 0;
}

// From an engine that is just starting: tries until the first vector is there.
int First(const std::string& socket) {
  const auto start = Clock::now();
  const std::string text = "the first text of all";
  while (Seconds(Clock::now() - start) < 120) {
    Attached attached;
    if (Attach(socket, 1000, &attached) != SUTRA_OK) {
      std::this_thread::sleep_for(std::chrono::microseconds(500));  // the engine may need this core
      continue;
    }
    std::vector<float> vector(attached.info.width);
    const sutra_status status = sutra_embed(attached.client, text.data(), text.size(), nullptr, vector.data(), nullptr);
    if (status != SUTRA_OK) return Fail(sutra_status_text(status));
    const double now = std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
    fmt::print("{}\n", nlohmann::json{{"monotonic_s", now}}.dump());
    return 0;
  }
  return Fail("no engine started at " + socket);
}

}  // namespace

int main(int argc, char** argv) {
  std::string socket, workload = "mix", dump, vectors;
  size_t count = 500, texts_max = 1'000'000;
  CLI::App app("One measurement of a running engine through the client library.", "end_to_end_bench");
  app.add_option("--socket", socket, "Socket of the engine");
  app.add_option("--workload", workload, "mix, tokens32, tokens128, single, hit, queries or first")
      ->check(CLI::IsMember({"mix", "tokens32", "tokens128", "single", "hit", "queries", "first"}));
  app.add_option("--vectors", vectors, "File for the vectors of mix, tokens32 and tokens128, as raw floats");
  app.add_option("--texts", texts_max, "Only the first texts of mix, tokens32 and tokens128")
      ->check(CLI::PositiveNumber);
  app.add_option("--count", count, "Number of texts for single, hit and queries")->check(CLI::Range(1u, 10'000'000u));
  app.add_option("--dump", dump, "Print the texts of a workload as JSON lines")
      ->check(CLI::IsMember({"mix", "tokens32", "tokens128", "queries"}));
  CLI11_PARSE(app, argc, argv);
  if (!dump.empty()) {
    for (const std::string& text : Workload(dump)) fmt::print("{}\n", nlohmann::json(text).dump());
    return 0;
  }
  if (socket.empty()) return Fail("--socket PATH is required");
  if (workload == "first") return First(socket);
  if (workload == "single" || workload == "hit") return Latency(socket, workload == "hit", count);
  if (workload == "queries") return Queries(socket, count);
  return Throughput(socket, workload, texts_max, vectors);
}
