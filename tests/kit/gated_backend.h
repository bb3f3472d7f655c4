// The fake model behind a gate, so that a test decides when a batch is computed, with faults on request. Thread-safe.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <utility>

#include "engine/model/fake_backend.h"
#include "shm/base/mutex.h"

namespace sutra::testing {

class GatedBackend : public ModelBackend {
 public:
  explicit GatedBackend(uint32_t width, uint32_t tokens_max = 64)
      : fake_(std::move(MakeFakeBackend({.width = width, .tokens_max = tokens_max})).value()) {}
  const ModelInfo& info() const override { return fake_->info(); }
  const Tokenizer& tokenizer() const override { return fake_->tokenizer(); }
  size_t round_tokens() const override { return round_tokens_; }
  void SetRoundTokens(size_t tokens) { round_tokens_ = tokens; }  // before it serves

  // A text that starts with '!' breaks its whole batch, one that starts with '?' yields a NaN, one with '0' a zero
  // vector, one with '~' counts as computed again.
  Status Embed(const TokenBatch& batch, std::span<float* const> outputs) override {
    const MutexLock lock(mutex_);
    ++calls_;
    texts_ += batch.texts();
    changed_.NotifyAll();
    while (!open_) changed_.Wait(mutex_);
    if (device_lost_) return Status(StatusCode::kEngineGone, "the device fell off");
    const auto first_id = [&](uint32_t text) { return batch.ids[static_cast<size_t>(batch.offsets[text])]; };
    for (uint32_t text = 0; text < batch.texts(); ++text) {
      if (first_id(text) == '!') return Status(StatusCode::kModelError, "bad text");
    }
    const Status status = fake_->Embed(batch, outputs);
    for (uint32_t text = 0; text < batch.texts(); ++text) {
      if (first_id(text) == '~') ++retries_;
      if (first_id(text) == '?') outputs[text][1] = std::numeric_limits<float>::quiet_NaN();
      if (first_id(text) == '0') std::fill_n(outputs[text], info().width, 0.0f);
    }
    return status;
  }

  uint64_t retries() const override {
    const MutexLock lock(mutex_);
    return retries_;
  }

  void SetOpen(bool open) {
    const MutexLock lock(mutex_);
    open_ = open;
    changed_.NotifyAll();
  }
  void LoseDevice() {
    const MutexLock lock(mutex_);
    device_lost_ = true;
  }
  void WaitForCalls(int calls) {
    const MutexLock lock(mutex_);
    while (calls_ < calls) changed_.Wait(mutex_);
  }
  int texts() {
    const MutexLock lock(mutex_);
    return static_cast<int>(texts_);
  }

 private:
  const std::unique_ptr<ModelBackend> fake_;
  size_t round_tokens_ = std::numeric_limits<size_t>::max();
  mutable Mutex mutex_;
  CondVar changed_;
  bool open_ SUTRA_GUARDED_BY(mutex_) = true;
  bool device_lost_ SUTRA_GUARDED_BY(mutex_) = false;
  int calls_ SUTRA_GUARDED_BY(mutex_) = 0;
  uint64_t texts_ SUTRA_GUARDED_BY(mutex_) = 0;
  uint64_t retries_ SUTRA_GUARDED_BY(mutex_) = 0;
};

}  // namespace sutra::testing
