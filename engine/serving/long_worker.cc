// Read, find, else check, tokenise and hand on: each step answers the text or passes it to the next one.
#include "engine/serving/long_worker.h"

#include <poll.h>
#include <pthread.h>

#include <cassert>
#include <new>
#include <utility>

#include "engine/lanes/lane.h"
#include "shm/base/checkpoint.h"
#include "shm/base/time.h"
#include "shm/base/utf8.h"

namespace sutra {

LongWorker::LongWorker(ServedModel* model)
    : model_(*model), path_(model, RequestBatcher::kLongTexts), thread_([this] { Run(); }) {}

LongWorker::~LongWorker() { Stop(); }

void LongWorker::Stop() {
  model_.long_texts.Stop();
  if (thread_.joinable()) thread_.join();
}

void LongWorker::Run() {
  pthread_setname_np(pthread_self(), "sutra-long");
  while (const LongRequestPtr request = model_.long_texts.Next()) {
    Serve(request);
    model_.long_texts.Done();
  }
  model_.long_texts.DropAll();
}

void LongWorker::Serve(const LongRequestPtr& request) {
  const std::shared_ptr<Lane> lane = request->first.lane;
  bool computing = false;
  try {
    computing = Handle(request);
  } catch (const std::bad_alloc&) {  // before it was under way: nothing after that needs memory
    model_.stats.Add(Counter::kOutOfMemory);
    model_.replies.Refuse(request->first, StatusCode::kOutOfMemory);
  }
  assert(computing == (request->first.lane == nullptr));  // who is not answered here waits for the model
  if (!computing) {
    model_.batcher.Uncharge(request->client.get(), request->unread.bytes, request->cost_estimate);
    model_.replies.Wake(lane.get());
    request->first.lane.reset();  // its memory may go back
  }
}

// True: it is being computed.
bool LongWorker::Handle(const LongRequestPtr& request) {
  const Waiter& waiter = request->first;
  if (EndedAlready(waiter)) return false;
  text_.resize(request->unread.bytes);
  if (!CopyTailText(waiter.lane->memory().tail_fd(), request->unread, text_.data())) {
    model_.long_texts.ReportUnreadable(waiter.lane);
    return false;
  }
  static_cast<void>(SUTRA_CHECKPOINT("long.copied"));
  for (;;) {
    request->removals_seen = model_.cache.Removals();
    const RequestPath::Step step = path_.Find(waiter, text_, request->removals_seen);
    if (step == RequestPath::Step::kNothing) return Compute(request);
    if (step == RequestPath::Step::kDone) break;
    std::this_thread::yield();
  }
  while (!model_.batcher.Flush(RequestBatcher::kLongTexts)) poll(nullptr, 0, kMemoryRetryMs);  // it may have joined
  return false;
}

// Whether nobody wants it any more. What is cancelled or late is answered.
bool LongWorker::EndedAlready(const Waiter& waiter) {
  if (!waiter.lane->open()) {
    model_.stats.Add(Counter::kTextsLaneEnded);
    return true;
  }
  if (waiter.deadline_ns <= MonotonicNs()) return model_.replies.Refuse(waiter, StatusCode::kDeadlineExceeded);
  if (!waiter.lane->Cancelled(waiter.slot, waiter.sequence)) return false;
  return model_.replies.Refuse(waiter, StatusCode::kCancelled);
}

bool LongWorker::Compute(const LongRequestPtr& request) {
  const Waiter waiter = request->first;
  if (const StatusCode status = Tokenise(request.get()); status != StatusCode::kOk) {
    model_.replies.Refuse(waiter, status);
    return false;
  }
  request->text = std::move(text_);
  model_.batcher.ReserveOne(RequestBatcher::kLongTexts);  // a computation that is under way must reach the workers
  while (!model_.in_flight.Start(request, waiter)) std::this_thread::yield();
  request->first.lane.reset();  // the waiters have it
  path_.Queue(request, waiter, true);
  model_.stats.Add(Counter::kMisses);
  while (!model_.batcher.Flush(RequestBatcher::kLongTexts)) poll(nullptr, 0, kMemoryRetryMs);
  return true;
}

// Anything but kOk: the answer.
StatusCode LongWorker::Tokenise(LongRequest* request) {
  const uint64_t started_ns = MonotonicNs();
  if (!IsValidUtf8(text_)) return StatusCode::kInvalidUtf8;
  const Encoded encoded = model_.tokenizer.Encode(text_, model_.info.tokens_max, &request->ids);
  if (encoded.token_count == 0) return StatusCode::kEmptyText;
  if (encoded.truncated && (request->first.options & kOptionReject) != 0) return StatusCode::kTextTooLong;
  request->token_count = encoded.token_count;
  request->truncated = encoded.truncated;
  request->tokenised_ns = MonotonicNs();
  request->tokenising_ns = request->tokenised_ns - started_ns;
  model_.stats.Record(Histogram::kStageTokenise, request->tokenising_ns);
  return StatusCode::kOk;
}

}  // namespace sutra
