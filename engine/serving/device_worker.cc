// The life of a batch: pruned and topped up, computed (halved where it fails), stored, answered, its lanes woken.
#include "engine/serving/device_worker.h"

#include <pthread.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <new>
#include <utility>

#include "engine/lanes/lane.h"
#include "shm/base/checkpoint.h"
#include "shm/base/time.h"
#include "shm/layout.h"

namespace sutra {
namespace {

// The length of `vector`; NaN or infinity if any of its numbers is not finite or the length overflows.
float Length(const float* vector, uint32_t width) {
  double sum = 0;
  for (uint32_t i = 0; i < width; ++i) sum += static_cast<double>(vector[i]) * static_cast<double>(vector[i]);
  return static_cast<float>(std::sqrt(sum));
}

}  // namespace

DeviceWorker::DeviceWorker(ServedModel* model, Options options)
    : model_(*model), options_(std::move(options)), width_(model_.info.width), thread_([this] { Run(); }) {}

DeviceWorker::~DeviceWorker() { Stop(); }

void DeviceWorker::Stop() {
  model_.batcher.Stop();
  if (thread_.joinable()) thread_.join();
}

void DeviceWorker::Run() {
  pthread_setname_np(pthread_self(), "sutra-device");
  std::vector<ComputationPtr> batch;
  while (NextBatch(&batch)) {
    try {
      Serve(batch);
    } catch (const std::bad_alloc&) {
      model_.stats.Add(Counter::kOutOfMemory);
      for (const ComputationPtr& computation : batch) Fail(computation, StatusCode::kOutOfMemory);
      WakeLanes();
    }
  }
  WakeLanes();
}

// A batch of texts that still have waiters. Space that pruning leaves free is filled from the queue, so that abandoned
// texts take no space from the others. False after the batcher's Stop.
bool DeviceWorker::NextBatch(std::vector<ComputationPtr>* batch) {
  while (model_.batcher.NextBatch(batch)) {
    size_t pruned_up_to = 0;
    while (Prune(batch, pruned_up_to)) {
      pruned_up_to = batch->size();
      if (!model_.batcher.TopUp(MonotonicNs(), batch)) break;
    }
    if (!batch->empty()) return true;
  }
  return false;
}

// Removes the texts without waiters, from `begin` on, before the model sees them. True if there were any.
bool DeviceWorker::Prune(std::vector<ComputationPtr>* batch, size_t begin) {
  const uint64_t now_ns = MonotonicNs();
  const auto first = batch->begin() + static_cast<std::ptrdiff_t>(begin);
  const auto unwanted = [&](const ComputationPtr& computation) { return !StillWanted(computation, now_ns); };
  const auto end = std::remove_if(first, batch->end(), unwanted);
  const bool any = end != batch->end();
  batch->erase(end, batch->end());
  return any;
}

// Removes waiters that are gone: answers cancelled and late ones, drops those whose lane is closed. False when none is
// left.
bool DeviceWorker::StillWanted(const ComputationPtr& computation, uint64_t now_ns) {
  const auto gone = [now_ns](const Waiter& waiter) {
    return !waiter.lane->open() || waiter.deadline_ns <= now_ns || waiter.lane->Cancelled(waiter.slot, waiter.sequence);
  };
  std::vector<Waiter> removed;
  bool wanted = true;
  try {
    wanted = model_.in_flight.Prune(computation, gone, &removed);
  } catch (const std::bad_alloc&) {
    return true;  // computed for nothing, perhaps
  }
  for (const Waiter& waiter : removed) {
    model_.replies.Refuse(waiter,
                          waiter.deadline_ns <= now_ns ? StatusCode::kDeadlineExceeded : StatusCode::kCancelled);
    model_.replies.Wake(waiter.lane.get());  // at once, because there may be no further batch
  }
  return wanted;
}

void DeviceWorker::Serve(const std::vector<ComputationPtr>& batch) {
  uint64_t tokens = 0;
  for (const ComputationPtr& computation : batch) tokens += computation->token_count();
  busy_texts_.store(static_cast<uint32_t>(batch.size()), std::memory_order_relaxed);
  model_.stats.Add(Counter::kBatches);
  model_.stats.Add(Counter::kBatchTexts, batch.size());
  model_.stats.Add(Counter::kTokens, tokens);
  model_.stats.Record(Histogram::kBatchSizeTexts, batch.size());
  model_.stats.Record(Histogram::kBatchSizeTokens, tokens);
  times_.batched_ns = MonotonicNs();
  failed_calls_ = 0;
  Compute(batch, 0, batch.size());
  WakeLanes();
  model_.stats.Add(Counter::kWorkerBusyNs, MonotonicNs() - times_.batched_ns);
  busy_texts_.store(0, std::memory_order_relaxed);
}

// Halves a batch that fails, so that one bad text, or too little memory for a large batch, does not fail the others.
void DeviceWorker::Compute(const std::vector<ComputationPtr>& batch, size_t begin, size_t end) {
  assert(begin < end && end <= batch.size());
  Status status(StatusCode::kModelError, "too many failed calls in one batch");
  if (failed_calls_ < kFailedCallsMax) {
    static_cast<void>(SUTRA_CHECKPOINT("infer.started"));
    status = SUTRA_CHECKPOINT("infer.failed") ? Status(StatusCode::kModelError, "checkpoint infer.failed")
                                              : EmbedInMemory(batch, begin, end);
    static_cast<void>(SUTRA_CHECKPOINT("infer.done"));
  }
  times_.computed_ns = MonotonicNs();
  if (status.ok()) {
    model_.stats.Record(Histogram::kStageCompute, times_.computed_ns - times_.batched_ns);
    for (size_t i = begin; i < end; ++i) Answer(batch[i], vectors_.data() + (i - begin) * width_);
    return;
  }
  ++failed_calls_;
  if (status.code() == StatusCode::kEngineGone) {
    for (size_t i = begin; i < end; ++i) Fail(batch[i], StatusCode::kModelError);
    failed_calls_ = kFailedCallsMax;
    if (options_.device_lost) options_.device_lost(status);
    return;
  }
  if (end - begin == 1) {
    Log(batch[begin], status);
    return Fail(batch[begin], status.code() == StatusCode::kOutOfMemory ? status.code() : StatusCode::kModelError);
  }
  const size_t middle = begin + (end - begin) / 2;
  Compute(batch, begin, middle);
  Compute(batch, middle, end);
}

// Too little memory for the whole may be enough for its halves.
Status DeviceWorker::EmbedInMemory(const std::vector<ComputationPtr>& batch, size_t begin, size_t end) {
  try {
    return Embed(batch, begin, end);
  } catch (const std::bad_alloc&) {
    model_.stats.Add(Counter::kOutOfMemory);
    return Status(StatusCode::kOutOfMemory, "out of memory");  // short enough to need none itself
  }
}

Status DeviceWorker::Embed(const std::vector<ComputationPtr>& batch, size_t begin, size_t end) {
  ids_.clear();
  offsets_.assign(1, 0);
  for (size_t i = begin; i < end; ++i) {
    ids_.insert(ids_.end(), batch[i]->ids.begin(), batch[i]->ids.end());
    offsets_.push_back(static_cast<int32_t>(ids_.size()));
  }
  vectors_.resize((end - begin) * width_);
  outputs_.resize(end - begin);
  for (size_t i = 0; i < outputs_.size(); ++i) outputs_[i] = vectors_.data() + i * width_;
  return model_.backend.Embed(TokenBatch{ids_, offsets_}, outputs_);
}

void DeviceWorker::Answer(const ComputationPtr& computation, float* vector) {
  const float norm = Length(vector, width_);
  // The backend guarantees finite numbers; a vector is served only after a check.
  if (!std::isfinite(norm)) return Fail(computation, StatusCode::kModelError);
  if (norm > 0) {
    for (uint32_t i = 0; i < width_; ++i) vector[i] /= norm;
  }
  const std::span<const float> unit(vector, width_);
  std::optional<std::vector<Waiter>> waiters;
  while (!waiters.has_value()) {  // again when a request joins that wants it stored longer: once per request at most
    const std::optional<uint64_t> ttl_s = model_.in_flight.LifetimeToStore(computation);
    if (ttl_s.has_value()) Store(computation, unit, norm, *ttl_s);
    waiters = model_.in_flight.FinishStored(computation, ttl_s);
  }
  for (const Waiter& waiter : *waiters) {
    model_.replies.AnswerComputed(waiter, unit, norm, computation->token_count(), computation->truncated, times_);
    RememberWake(waiter);
  }
}

// A vector that cannot be stored is served all the same.
void DeviceWorker::Store(const ComputationPtr& computation, std::span<const float> unit, float norm, uint64_t ttl_s) {
  if (model_.cache == nullptr) return;
  try {
    model_.cache->Insert(computation->text, computation->variant, unit,
                         {norm, computation->token_count(), computation->truncated}, ttl_s);
  } catch (const std::bad_alloc&) {
    model_.stats.Add(Counter::kOutOfMemory);
  }
}

// A computation that has ended already has no waiters left.
void DeviceWorker::Fail(const ComputationPtr& computation, StatusCode code) {
  for (const Waiter& waiter : model_.in_flight.Finish(computation)) {
    model_.replies.Refuse(waiter, code);
    RememberWake(waiter);
  }
}

void DeviceWorker::Log(const ComputationPtr& failed, const Status& why) try {
  if (!options_.log) return;
  options_.log(LogLevel::kError,
               "the model failed on a text of " + std::to_string(failed->text.size()) + " bytes: " + why.message());
} catch (const std::bad_alloc&) {  // the counters say it
}

void DeviceWorker::RememberWake(const Waiter& waiter) {
  if (lanes_to_wake_.empty() || lanes_to_wake_.back() != waiter.lane) {
    const bool known = std::find(lanes_to_wake_.begin(), lanes_to_wake_.end(), waiter.lane) != lanes_to_wake_.end();
    if (known) return;
    try {
      lanes_to_wake_.push_back(waiter.lane);
    } catch (const std::bad_alloc&) {
      model_.replies.Wake(waiter.lane.get());
    }
  }
}

void DeviceWorker::WakeLanes() {
  for (const std::shared_ptr<Lane>& lane : lanes_to_wake_) model_.replies.Wake(lane.get());
  lanes_to_wake_.clear();
}

}  // namespace sutra
