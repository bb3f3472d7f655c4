#include "bench/wal_engine_cost.h"

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <thread>
#include <utility>
#include <vector>

#include "bench/cache_bench_support.h"
#include "producer/include/sutra/embed.hpp"
#include "tests/kit/engine_process.h"

namespace sutra::bench {
namespace {

struct CpuTimes {
  uint64_t log_ns = 0;
  uint64_t embedding_ns = 0;
};

// By the names of the threads: the log's, the kernel's workers for its ring, and the device worker with its helpers,
// which bear its name or the program's. The rest (the loop, which is the main thread; lanes) is neither.
CpuTimes CpuTimesOf(pid_t pid) {
  CpuTimes times;
  for (const auto& task : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task")) {
    std::string name;
    uint64_t ns = 0;
    std::ifstream(task.path() / "comm") >> name;
    std::ifstream(task.path() / "schedstat") >> ns;
    if (name == "sutra-log" || name == "sutra-zeros" || name.rfind("iou-", 0) == 0) times.log_ns += ns;
    const bool main = task.path().filename() == std::to_string(pid);
    if (name == "sutra-device" || (name == "sutra-engine" && !main)) times.embedding_ns += ns;
  }
  return times;
}

}  // namespace

std::optional<double> IntervalCost(const std::string& model, std::string* why) {
  if (model.empty()) {
    *why = "no model folder; run tools/setup/fetch_deps --model and pass --model";
    return std::nullopt;
  }
  test::EngineOptions options;
  // The program's defaults instead of the kit's.
  options.args = {"--backend", "torch", "--model", model};
  for (const auto& [name, value] : {std::pair<const char*, uint64_t>{"--threads", std::thread::hardware_concurrency()},
                                    {"--wal-segment-bytes", kSegmentBytesDefault},
                                    {"--wal-bytes-max", kWalBytesDefault}}) {
    options.args.insert(options.args.end(), {name, std::to_string(value)});
  }
  test::EngineProcess engine(options);
  if (!engine.Start()) {
    *why = "the engine does not serve: " + engine.Log();
    return std::nullopt;
  }
  embed::Client client;
  sutra_attach_options attach = embed::AttachOptions();
  attach.slots = 1024;
  if (client.Attach(engine.socket(), attach) != SUTRA_OK) {
    *why = std::string("attach: ") + sutra_error_text();
    return std::nullopt;
  }
  constexpr size_t kBatch = 256;
  std::vector<std::string> texts(kBatch);
  std::vector<const char*> starts(kBatch);
  std::vector<size_t> bytes(kBatch);
  std::vector<float> vectors(kBatch * kWidth);
  uint64_t number = 0;
  const auto embed_new = [&](std::chrono::milliseconds time) {
    const auto end = std::chrono::steady_clock::now() + time;
    while (std::chrono::steady_clock::now() < end) {
      for (size_t i = 0; i < kBatch; ++i) {
        texts[i] = TextOf(number++);
        starts[i] = texts[i].data();
        bytes[i] = texts[i].size();
      }
      if (sutra_embed_batch(client.get(), starts.data(), bytes.data(), kBatch, nullptr, nullptr, vectors.data(),
                            nullptr, 0) != SUTRA_OK) {
        *why = std::string("embedding: ") + sutra_error_text();
        return false;
      }
    }
    return true;
  };
  if (!embed_new(std::chrono::milliseconds(500))) return std::nullopt;
  const CpuTimes before = CpuTimesOf(engine.process().pid());
  if (!embed_new(std::chrono::milliseconds(4000))) return std::nullopt;
  const CpuTimes after = CpuTimesOf(engine.process().pid());
  if (after.embedding_ns == before.embedding_ns) {
    *why = "no thread of the engine is called sutra-device";
    return std::nullopt;
  }
  return static_cast<double>(after.log_ns - before.log_ns) /
         static_cast<double>(after.embedding_ns - before.embedding_ns);
}

}  // namespace sutra::bench
