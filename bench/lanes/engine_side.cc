// A real engine's process, placed and watched; round trips and windows through one lane.
#include "bench/lanes/engine_side.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "bench/bench_report.h"
#include "shm/base/time.h"

namespace sutra::bench {
namespace {

constexpr uint64_t kTexts = 256;
constexpr uint32_t kTimeoutMs = 10'000;

test::EngineOptions Options(std::vector<std::string> args, std::vector<std::string> environment) {
  test::EngineOptions options;
  options.args = std::move(args);
  options.environment = std::move(environment);
  if (std::find(options.args.begin(), options.args.end(), "--backend") == options.args.end()) {
    options.args.insert(options.args.end(), {"--fake-width", std::to_string(kWidth)});
  }
  // What is measured here goes through a lane; bench/hot is about what does not.
  if (std::find(options.args.begin(), options.args.end(), "--hot-bytes-max") == options.args.end()) {
    options.args.insert(options.args.end(), {"--hot-bytes-max", "0"});
  }
  return options;
}

std::vector<pid_t> ThreadsOf(pid_t pid) {
  std::vector<pid_t> threads;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task", error)) {
    threads.push_back(static_cast<pid_t>(std::stol(entry.path().filename().string())));
  }
  return threads;
}

}  // namespace

BenchEngine::BenchEngine(std::vector<std::string> args, std::vector<std::string> environment)
    : process_(Options(std::move(args), std::move(environment))) {
  Pin(EngineCpu());
  const bool serves = process_.Start();
  Pin(ClientCpu());
  if (!serves) Fail("the engine does not serve; its log is above");
}

void BenchEngine::GiveTheLoopACpu() {
  for (const pid_t thread : ThreadsOf(pid())) PinThread(thread, thread == pid() ? EngineCpu() : ClientCpu());
}

uint64_t BenchEngine::CpuNs() {
  uint64_t total = 0;
  for (const pid_t thread : ThreadsOf(pid())) {
    std::ifstream file("/proc/" + std::to_string(pid()) + "/task/" + std::to_string(thread) + "/schedstat");
    uint64_t on_cpu_ns = 0;
    if (file >> on_cpu_ns) total += on_cpu_ns;
  }
  return total;
}

LaneClient::LaneClient(const std::string& socket, uint32_t spin_us, uint32_t slots) {
  sutra_attach_options options = embed::AttachOptions();
  options.slots = slots;
  options.lanes_max = 1;
  options.spin_us = spin_us;
  options.client_name = "lane bench";
  if (client_.Attach(socket, options) != SUTRA_OK) Fail(std::string("attach: ") + sutra_error_text());
  for (uint64_t i = 0; i < kTexts; ++i) texts_.push_back(BenchText("cached", i));
}

sutra_ticket LaneClient::Submit(const std::string& text) const {
  sutra_ticket ticket = 0;
  if (sutra_submit(client_.get(), text.data(), text.size(), nullptr, &ticket) != SUTRA_OK) {
    Fail(std::string("submit: ") + sutra_error_text());
  }
  return ticket;
}

void LaneClient::Take(sutra_ticket ticket, float* vector) const {
  sutra_result result = embed::Result();
  if (sutra_wait(client_.get(), ticket, kTimeoutMs, &result) != SUTRA_OK) {
    Fail(std::string("wait: ") + sutra_error_text());
  }
  if (vector == nullptr) {
    Touch(result.vector, kVectorBytes);
  } else {
    std::memcpy(vector, result.vector, kVectorBytes);
  }
  sutra_release(client_.get(), ticket);
}

void LaneClient::FillCache() {
  for (const std::string& text : texts_) Take(Submit(text));
}

void LaneClient::Hits(int count) {
  for (int i = 0; i < count; ++i) Take(Submit(texts_[static_cast<size_t>(i) % kTexts]));
}

void LaneClient::HitWindow(int count, bool copied) {
  sutra_ticket tickets[kWindow];
  for (size_t i = 0; i < static_cast<size_t>(count) + kWindow; ++i) {
    if (i >= kWindow) Take(tickets[i % kWindow], copied ? &vectors_[(i - kWindow) * kWidth] : nullptr);
    if (i < static_cast<size_t>(count)) tickets[i % kWindow] = Submit(texts_[i % kTexts]);
  }
}

void LaneClient::Embeds(int count) {
  float vector[kWidth];
  for (int i = 0; i < count; ++i) {
    const std::string& text = texts_[static_cast<size_t>(i) % kTexts];
    if (sutra_embed(client_.get(), text.data(), text.size(), nullptr, vector, nullptr) != SUTRA_OK) {
      Fail(std::string("embed: ") + sutra_error_text());
    }
    Touch(vector, kVectorBytes);
  }
}

void LaneClient::PrepareBatch(int count) {
  for (size_t i = 0; i < static_cast<size_t>(count); ++i) batch_texts_.push_back(texts_[i % kTexts].data());
  batch_bytes_.assign(batch_texts_.size(), kTextBytes);
  vectors_.assign(batch_texts_.size() * kWidth, 0);
}

void LaneClient::HitBatch() {
  if (sutra_embed_batch(client_.get(), batch_texts_.data(), batch_bytes_.data(), batch_texts_.size(), nullptr, nullptr,
                        vectors_.data(), nullptr, 0) != SUTRA_OK) {
    Fail(std::string("embed_batch: ") + sutra_error_text());
  }
}

void LaneClient::Misses(int count) {
  for (int i = 0; i < count; ++i) Take(Submit(BenchText("never seen", misses_++)));
}

double LaneClient::PausedHitNs(int count, uint64_t pause_us) {
  std::vector<double> trips;
  for (int i = 0; i < count; ++i) {
    SleepUs(pause_us);
    const uint64_t start_ns = MonotonicNs();
    Take(Submit(texts_[static_cast<size_t>(i) % kTexts]));
    trips.push_back(static_cast<double>(MonotonicNs() - start_ns));
  }
  return Median(trips);
}

sutra_result LaneClient::Ask(const std::string& text, const sutra_options& options) const {
  float vector[kWidth];
  sutra_result result = embed::Result();
  const sutra_status status = sutra_embed(client_.get(), text.data(), text.size(), &options, vector, &result);
  result.status = status;
  return result;
}

}  // namespace sutra::bench
