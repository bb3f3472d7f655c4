// The life of a batch after it is formed: computed (halved where it fails), stored, answered, its lanes woken.
#include "engine/serving/device_worker.h"

#include <pthread.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <new>
#include <span>
#include <string>
#include <utility>

#include "engine/lanes/lane.h"
#include "shm/base/checkpoint.h"
#include "shm/base/thread_affinity.h"
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

DeviceWorker::DeviceWorker(ServedModel* model, ModelBackend* backend, Options options)
    : model_(*model),
      backend_(*backend),
      options_(std::move(options)),
      width_(model_.info.width),
      former_(model, backend),
      thread_([this] { Run(); }) {}

DeviceWorker::~DeviceWorker() { Stop(); }

void DeviceWorker::Stop() {
  model_.batcher.Stop();
  if (thread_.joinable()) thread_.join();
}

void DeviceWorker::Run() {
  pthread_setname_np(pthread_self(), "sutra-device");
  static_cast<void>(StayOnCpus(backend_.cpus()));  // refused: slower perhaps, not wrong
  while (const Batch* batch = former_.Next()) {
    const uint64_t started_ns = MonotonicNs();
    try {
      Serve(*batch);
    } catch (const std::bad_alloc&) {
      model_.stats.Add(Counter::kOutOfMemory);
      for (const ComputationPtr& computation : batch->texts) Fail(computation, StatusCode::kOutOfMemory);
      WakeLanes();
    }
    former_.Served(MonotonicNs() - started_ns);
  }
  WakeLanes();
}

void DeviceWorker::Serve(const Batch& batch) {
  const size_t texts = batch.texts.size();
  model_.stats.Add(Counter::kBatches);
  model_.stats.Add(Counter::kBatchTexts, texts);
  model_.stats.Add(Counter::kTokens, batch.ids.size());
  model_.stats.Record(Histogram::kBatchSizeTexts, texts);
  model_.stats.Record(Histogram::kBatchSizeTokens, batch.ids.size());
  times_.batched_ns = MonotonicNs();
  failed_calls_ = 0;
  Compute(batch, 0, texts);
  WakeLanes();
  model_.stats.Add(Counter::kWorkerBusyNs, MonotonicNs() - times_.batched_ns);
}

// Halves a batch that fails, so that one bad text, or too little memory for a large batch, does not fail the others.
void DeviceWorker::Compute(const Batch& batch, size_t begin, size_t end) {
  assert(begin < end && end <= batch.texts.size());
  if (device_lost_) {
    for (size_t i = begin; i < end; ++i) Leave(batch.texts[i]);
    return;
  }
  Status status(StatusCode::kModelError, "too many failed calls in one batch");
  if (failed_calls_ < kFailedCallsMax) {
    static_cast<void>(SUTRA_CHECKPOINT("infer.started"));
    status = SUTRA_CHECKPOINT("infer.failed") ? Status(StatusCode::kModelError, "checkpoint infer.failed")
                                              : EmbedInMemory(batch, begin, end);
    static_cast<void>(SUTRA_CHECKPOINT("infer.done"));
  }
  times_.computed_ns = MonotonicNs();
  if (const uint64_t retries = backend_.retries(); retries != retries_seen_) {
    model_.stats.Add(Counter::kBatchesRetried, retries - retries_seen_);
    retries_seen_ = retries;
  }
  if (status.ok()) {
    model_.stats.Record(Histogram::kStageCompute, times_.computed_ns - times_.batched_ns);
    for (size_t i = begin; i < end; ++i) Answer(batch.texts[i], vectors_.data() + (i - begin) * width_);
    return;
  }
  ++failed_calls_;
  if (status.code() == StatusCode::kEngineGone) {
    device_lost_ = true;
    for (size_t i = begin; i < end; ++i) Leave(batch.texts[i]);
    if (options_.device_lost) options_.device_lost(status);
    return;
  }
  if (end - begin == 1) {
    Log(batch.texts[begin], status);
    return Fail(batch.texts[begin],
                status.code() == StatusCode::kOutOfMemory ? status.code() : StatusCode::kModelError);
  }
  const size_t middle = begin + (end - begin) / 2;
  Compute(batch, begin, middle);
  Compute(batch, middle, end);
}

// Too little memory for the whole may be enough for its halves.
Status DeviceWorker::EmbedInMemory(const Batch& batch, size_t begin, size_t end) {
  try {
    return Embed(batch, begin, end);
  } catch (const std::bad_alloc&) {
    model_.stats.Add(Counter::kOutOfMemory);
    return Status(StatusCode::kOutOfMemory, "out of memory");  // short enough to need none itself
  }
}

Status DeviceWorker::Embed(const Batch& batch, size_t begin, size_t end) {
  const int32_t first_id = batch.offsets[begin], end_id = batch.offsets[end];
  offsets_.clear();
  for (size_t i = begin; i <= end; ++i) offsets_.push_back(batch.offsets[i] - first_id);
  vectors_.resize((end - begin) * width_);
  outputs_.resize(end - begin);
  for (size_t i = 0; i < outputs_.size(); ++i) outputs_[i] = vectors_.data() + i * width_;
  const std::span ids(batch.ids.data() + first_id, static_cast<size_t>(end_id - first_id));
  return backend_.Embed(TokenBatch{ids, offsets_}, outputs_);
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
  times_.tokenised_ns = computation->tokenised_ns;
  times_.tokenising_ns = computation->tokenising_ns;
  for (const Waiter& waiter : *waiters) {
    model_.replies.AnswerComputed(waiter, unit, norm, computation->token_count, computation->truncated, times_);
    RememberWake(waiter);
  }
  computation->DropText();
}

// A vector that cannot be stored is served all the same.
void DeviceWorker::Store(const ComputationPtr& computation, std::span<const float> unit, float norm, uint64_t ttl_s) {
  try {
    model_.cache.Insert(computation->text, computation->variant, unit,
                        {norm, computation->token_count, computation->truncated}, ttl_s, computation->removals_seen);
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
  computation->DropText();
}

// This engine ends; an answer would end the request, while its client can move it to the next engine.
void DeviceWorker::Leave(const ComputationPtr& computation) {
  model_.stats.Add(Counter::kTextsLaneEnded, model_.in_flight.Finish(computation).size());
  computation->DropText();
}

void DeviceWorker::Log(const ComputationPtr& failed, const Status& why) try {
  if (!options_.log) return;
  options_.log(LogKind::kModelFailed, LogLevel::kError,
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
