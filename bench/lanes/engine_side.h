// The engine under measurement, a real sutra-engine process, and a client that measures it through the public header.
// Thread rule: the bench's main thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bench/lanes/measure.h"
#include "producer/include/sutra/embed.hpp"
#include "tests/kit/engine_process.h"

namespace sutra::bench {

inline constexpr uint32_t kSpinForEverUs = 1'000'000;  // a side that was preempted spins on instead of sleeping

// Starts on the engine's CPU. The fake model unless `args` names another. Fails the bench when it does not serve.
class BenchEngine {
 public:
  explicit BenchEngine(std::vector<std::string> args = {}, std::vector<std::string> environment = {});

  const std::string& socket() const { return process_.socket(); }
  pid_t pid() { return process_.process().pid(); }
  void HoldStill() { process_.process().Stop(); }  // while a comparator runs on its CPU
  void GoOn() { process_.process().Continue(); }
  // The loop's thread stays alone on the engine's CPU; every other thread goes to the client's. Then what a flood does
  // to the loop is measured, and not which thread the kernel runs first.
  void GiveTheLoopACpu();
  // Lanes that it serves, by its own count.
  double Lanes() const { return static_cast<double>(process_.Stats().gauge("lanes")); }
  // CPU time of all its threads so far.
  uint64_t CpuNs();

 private:
  test::EngineProcess process_;
};

// One lane of one client. Every call fails the bench when a request fails.
class LaneClient {
 public:
  LaneClient(const std::string& socket, uint32_t spin_us, uint32_t slots = 256);

  // The texts of Hits and HitWindow, computed once.
  void FillCache();
  // Submit, wait, read every byte in place, release: one at a time.
  void Hits(int count);
  void HitWindow(int count, bool copied = false);  // copied: into the array of HitBatch, instead of read in place
  void Embeds(int count);                          // the same through sutra_embed: the vector is copied out
  void PrepareBatch(int count);                    // the texts of HitBatch, and where its vectors go
  void HitBatch();                                 // one sutra_embed_batch call
  void Misses(int count);                          // texts that were never seen
  // One hit at a time with a pause before each, not counted. RETURNS the median.
  double PausedHitNs(int count, uint64_t pause_us);

  // The published stages of one text's answer, or a status that is not SUTRA_OK.
  sutra_result Ask(const std::string& text, const sutra_options& options) const;
  sutra_client* get() const { return client_.get(); }

 private:
  sutra_ticket Submit(const std::string& text) const;
  void Take(sutra_ticket ticket, float* vector = nullptr) const;

  embed::Client client_;
  std::vector<std::string> texts_;
  std::vector<const char*> batch_texts_;
  std::vector<size_t> batch_bytes_;
  std::vector<float> vectors_;
  uint64_t misses_ = 0;
};

}  // namespace sutra::bench
