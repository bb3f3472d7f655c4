// One thread that owns one model backend: forms batches (BatchFormer), computes, stores, answers. The engine has one
// worker per device (or group of CPU cores, on which it stays); several pull from the same batcher.
//
// Thread rule: the constructor starts the thread; Stop (or the destructor) ends it after the current batch, and keeps
// the other workers from beginning another one.
// Invariants: memory that is short fails the texts of the batch that are not answered yet, and nothing else; a vector
// with a non-finite number is never served and never stored; a text that the model cannot compute fails alone (a failed
// batch is halved until the bad texts are isolated); a result is stored before its computation ends.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "engine/serving/batch_former.h"
#include "engine/serving/served_model.h"
#include "shm/base/log_line.h"

namespace sutra {

class DeviceWorker {
 public:
  struct Options {
    KindLog log;                                     // rate-limited by the callee
    std::function<void(const Status&)> device_lost;  // the backend returned kEngineGone: its device is unusable.
                                                     // Its texts stay unanswered: they are the next engine's
  };

  DeviceWorker(ServedModel* model, ModelBackend* backend, Options options);
  ~DeviceWorker();

  void Stop();

 private:
  // Failed calls per batch before its remaining texts are given up.
  static constexpr int kFailedCallsMax = 64;

  void Run();
  void Serve(const Batch& batch);
  void Compute(const Batch& batch, size_t begin, size_t end);
  Status EmbedInMemory(const Batch& batch, size_t begin, size_t end);
  Status Embed(const Batch& batch, size_t begin, size_t end);
  void Answer(const ComputationPtr& computation, float* vector);
  void Store(const ComputationPtr& computation, std::span<const float> unit, float norm, uint64_t ttl_s);
  void Fail(const ComputationPtr& computation, StatusCode code);
  void Leave(const ComputationPtr& computation);
  void Log(const ComputationPtr& failed, const Status& why);
  void RememberWake(const Waiter& waiter);
  void WakeLanes();

  ServedModel& model_;
  ModelBackend& backend_;
  const Options options_;
  const uint32_t width_;

  // Used by the thread only; kept between batches so that a batch allocates nothing in the steady state.
  BatchFormer former_;
  std::vector<int32_t> offsets_;
  std::vector<float> vectors_;
  std::vector<float*> outputs_;
  std::vector<std::shared_ptr<Lane>> lanes_to_wake_;
  ComputeTimes times_;
  int failed_calls_ = 0;
  uint64_t retries_seen_ = 0;
  bool device_lost_ = false;

  std::thread thread_;
};

}  // namespace sutra
