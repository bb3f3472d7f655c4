// Memory is bounded by the lane's slots: texts are submitted until the lane is full or no input is waiting, then the
// oldest result is written and its slot freed. A slow input (a pipe) gets its results at once.
//
// A text without an answer when its engine goes is sent to the next one; embedding it again changes nothing. Answers
// that had arrived stay where they are until it is their turn to be written.
#include "tools/lib/embed_engine.h"

#include <fmt/format.h>

#include <cassert>
#include <chrono>
#include <deque>
#include <map>
#include <thread>
#include <vector>

#include "tools/lib/embed_job.h"
#include "tools/lib/engine_link.h"
#include "tools/lib/program.h"

namespace sutra {

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint32_t kSlots = 1024;
constexpr uint32_t kPatienceMs = 20;       // of one wait, while more input may come
constexpr uint32_t kWaitMs = 50;           // of one wait otherwise: an interruption is noticed after it
constexpr auto kPause = milliseconds(20);  // before asking an engine again that was overloaded or not there
constexpr int kFruitlessLossesMax = 3;  // engines in a row that went without an answer: a text may be what kills them

// `pending_` is in input order; its front is the next line of output.
class EngineRun {
 public:
  EngineRun(EmbedJob& job, EngineLink& link) : job_(job), link_(link), request_(embed::RequestOptions()) {
    const EmbedOptions& options = job.options();
    request_.flags = (options.raw ? SUTRA_RAW : 0) | (options.normalize ? SUTRA_NORMALIZE : 0) |
                     (options.reject ? SUTRA_REJECT : 0) |
                     (options.no_cache ? SUTRA_CACHE_SKIP_LOOKUP | SUTRA_CACHE_SKIP_STORE : 0) |
                     SUTRA_FAIL_FAST;  // it waits for the next engine itself, for --wait-engine and not for longer
    request_.ttl_s = options.ttl_s;
    request_.priority = options.priority == "query"  ? SUTRA_PRIORITY_QUERY
                        : options.priority == "bulk" ? SUTRA_PRIORITY_BULK
                                                     : SUTRA_PRIORITY_NORMAL;
    request_.timeout_ms = options.timeout_s * 1000;
  }

  int Go() {
    while (job_.running()) {
      if (lost_ && FrontIsUnsent()) {
        FindEngine();
        continue;
      }
      if (!lost_) {
        Send();
        if (TakeLine()) continue;
      }
      if (pending_.empty()) {
        if (job_.at_end()) break;
        continue;
      }
      FinishOldest();
    }
    Abandon();
    Tally();
    return job_.Finish(Sources());
  }

 private:
  struct Pending {
    InputItem item;
    SharedClient client;      // whose ticket it is
    sutra_ticket ticket = 0;  // 0 = not submitted (yet)
    Clock::time_point since;
  };

  bool FrontIsUnsent() const {
    return pending_.empty() || (pending_.front().ticket == 0 && pending_.front().item.error.empty());
  }

  // Reads one line into pending_ if there is room; blocks only when there is nothing else to do.
  bool TakeLine() {
    if (job_.at_end() || pending_.size() >= link_.info().slots || unsent_ != 0) return false;
    InputItem item;
    if (!job_.Next(&item, 0)) {
      if (!pending_.empty() || job_.at_end()) return false;
      if (!job_.FlushAndNext(&item)) return false;
    }
    const bool send = item.error.empty();
    pending_.push_back({std::move(item), nullptr, 0, Clock::now()});
    if (send) ++unsent_;
    return true;
  }

  // Submits what the engine does not have yet, oldest first, until the lane is full. Found from the back: normally it
  // is the one line that was just read.
  void Send() {
    if (unsent_ == 0) return;
    std::vector<Pending*> unsent;
    for (auto entry = pending_.rbegin(); entry != pending_.rend() && unsent.size() < unsent_; ++entry) {
      if (entry->ticket == 0 && entry->item.error.empty()) unsent.push_back(&*entry);
    }
    assert(unsent.size() == unsent_);
    for (auto entry = unsent.rbegin(); entry != unsent.rend(); ++entry) {
      if (!SendOne(**entry)) return;
    }
  }

  bool SendOne(Pending& entry) {
    const std::string& text = entry.item.text;
    const sutra_status status = sutra_submit(link_.client().get(), text.data(), text.size(), &request_, &entry.ticket);
    if (status == SUTRA_OK) {
      entry.client = link_.client();
      --unsent_;
      return true;
    }
    entry.ticket = 0;
    if (MeansLoss(status)) {
      Lose(status);
      return false;
    }
    if ((status == SUTRA_FULL || status == SUTRA_OVERLOADED) && Patient(entry)) return false;
    --unsent_;
    entry.item.error = AtLine(entry.item.line, Why(entry, status));
    return true;
  }

  // Waits a moment for the front; writes it when it is done.
  void FinishOldest() {
    Pending& entry = pending_.front();
    if (!entry.item.error.empty()) {
      job_.Failed(entry.item, entry.item.error);
      pending_.pop_front();
      return;
    }
    if (entry.ticket == 0) {  // requests that ended early fill the lane, or the engine is overloaded
      std::this_thread::sleep_for(kPause);
      return;
    }
    Collect(entry, job_.at_end() ? kWaitMs : kPatienceMs);
  }

  // Writes the front's answer if it is there within wait_ms. A text that must be sent again stays the front.
  void Collect(Pending& entry, uint32_t wait_ms) {
    sutra_result result = embed::Result();
    const sutra_status status = sutra_wait(entry.client.get(), entry.ticket, wait_ms, &result);
    if (status == SUTRA_NOT_READY) return;
    if (MeansLoss(status)) {
      if (entry.client == link_.client()) Lose(status);
      Withdraw(entry);
      ++unsent_;
    } else if (status == SUTRA_OVERLOADED && Patient(entry)) {
      Withdraw(entry);
      ++unsent_;
      std::this_thread::sleep_for(kPause);
    } else {
      WriteAnswer(entry, status, result);
    }
  }

  void WriteAnswer(Pending& entry, sutra_status status, const sutra_result& result) {
    assert(&entry == &pending_.front());
    if (status == SUTRA_OK) {
      job_.Vector(entry.item, {result.vector, result.width}, result.token_count);
      ++sources_[result.source];
      truncated_ += result.truncated;
      fruitless_losses_ = 0;
      lost_since_ = Clock::now();  // an engine that still answers is worth waiting for
    } else {
      job_.Failed(entry.item, AtLine(entry.item.line, Why(entry, status)));
    }
    Withdraw(entry);
    pending_.pop_front();
  }

  static void Withdraw(Pending& entry) {
    sutra_release(entry.client.get(), entry.ticket);
    entry.ticket = 0;
    entry.client.reset();
  }

  // The texts that went down with an engine, so that the next one gets them all at once and not one by one.
  void WithdrawUnanswered() {
    for (Pending& entry : pending_) {
      if (entry.ticket == 0 || !MeansLoss(sutra_wait(entry.client.get(), entry.ticket, 0, nullptr))) continue;
      Withdraw(entry);
      ++unsent_;
    }
  }

  void Lose(sutra_status status) {
    if (lost_) return;
    lost_ = true;
    lost_since_ = Clock::now();
    loss_ = status == SUTRA_SHUTTING_DOWN        ? "the engine is shutting down"
            : status == SUTRA_PROTOCOL_VIOLATION ? "the engine closed the lane (protocol violation)"
                                                 : "the engine is gone";
    if (++fruitless_losses_ > kFruitlessLossesMax) {
      GiveUp(
          fmt::format("{} engines in a row went without answering any text ({}): see the engine's log, one of the next "
                      "{} texts may be what ends it",
                      fruitless_losses_, loss_, pending_.size()));
      return;
    }
    const uint32_t wait_s = job_.options().wait_engine_s;
    if (wait_s != 0) job_.Say(fmt::format("{}; waiting up to {} s for the next engine (--wait-engine)", loss_, wait_s));
  }

  void GiveUp(const std::string& reason) {
    job_.Break(Status(StatusCode::kEngineGone, reason), kEmbedLost, "not answered: " + loss_);
  }

  // One attempt to attach to the next engine.
  void FindEngine() {
    const uint32_t wait_s = job_.options().wait_engine_s;
    if (wait_s == 0) {
      GiveUp(loss_ + "; run again with the next one, or use --wait-engine");
      return;
    }
    const Status status = link_.Reattach();
    if (status.ok()) {
      lost_ = false;
      WithdrawUnanswered();
      for (Pending& entry : pending_) entry.since = Clock::now();
      job_.Say(fmt::format("attached to the next engine (pid {})", link_.info().engine_pid));
    } else if (status.code() == StatusCode::kRefused) {
      GiveUp(loss_ + "; " + status.message());
    } else if (Clock::now() - lost_since_ >= seconds(wait_s)) {
      GiveUp(fmt::format("{}, and no engine serves {} after {} s ({}); start one and run again", loss_,
                         job_.options().socket, wait_s, status.message()));
    } else {
      std::this_thread::sleep_for(kPause);
    }
  }

  bool Patient(const Pending& entry) const { return Clock::now() - entry.since < seconds(job_.options().timeout_s); }

  // The cause of one text's failure, in words of this program's options.
  std::string Why(const Pending& entry, sutra_status status) const {
    const EmbedOptions& options = job_.options();
    const std::string name = sutra_status_text(status);
    switch (status) {
      case SUTRA_EMPTY_TEXT: return name + ": a blank line or an empty string has no vector";
      case SUTRA_TEXT_TOO_LONG:
        return entry.item.text.size() > link_.info().text_bytes_max
                   ? fmt::format("{}: {} bytes, the engine takes {} (its --text-bytes-max)", name,
                                 entry.item.text.size(), link_.info().text_bytes_max)
                   : fmt::format("{}: over {} tokens (--reject)", name, link_.info().tokens_max);
      case SUTRA_DEADLINE_EXCEEDED:
        return fmt::format("{}: no answer within {} s (--timeout); the engine is stopped or overloaded, see sutra-stat",
                           name, options.timeout_s);
      case SUTRA_FULL:
      case SUTRA_OVERLOADED:
        return fmt::format("{}: the engine took no text for {} s (--timeout); see sutra-stat", name, options.timeout_s);
      default: return WithErrorText(status);
    }
  }

  // What was read still gets its line when the job stops: its result, if the engine has given it by now, or the reason.
  void Abandon() {
    while (!pending_.empty()) {
      Pending& entry = pending_.front();
      if (entry.ticket != 0) {
        sutra_result result = embed::Result();
        const sutra_status status = sutra_wait(entry.client.get(), entry.ticket, 0, &result);
        if (status != SUTRA_NOT_READY && !MeansLoss(status)) {
          WriteAnswer(entry, status, result);
          continue;
        }
        Withdraw(entry);
      }
      const std::string& error = entry.item.error;
      job_.Failed(entry.item, error.empty() ? AtLine(entry.item.line, job_.StopReason()) : error);
      pending_.pop_front();
    }
  }

  void Tally() {
    EmbedTally* const tally = job_.options().tally;
    if (tally == nullptr) return;
    *tally = {job_.counts().texts, job_.counts().failed,
              sources_[SUTRA_SOURCE_SHARD] + sources_[SUTRA_SOURCE_HOT_TABLE], sources_[SUTRA_SOURCE_JOINED],
              sources_[SUTRA_SOURCE_MODEL]};
  }

  std::string Sources() {
    std::string text = fmt::format("; {} from the cache, {} joined, {} computed",
                                   sources_[SUTRA_SOURCE_SHARD] + sources_[SUTRA_SOURCE_HOT_TABLE],
                                   sources_[SUTRA_SOURCE_JOINED], sources_[SUTRA_SOURCE_MODEL]);
    if (truncated_ != 0) text += fmt::format(", {} truncated at {} tokens", truncated_, link_.info().tokens_max);
    return text;
  }

  EmbedJob& job_;
  EngineLink& link_;
  sutra_options request_;
  std::deque<Pending> pending_;
  size_t unsent_ = 0;
  std::map<int, uint64_t> sources_;
  uint64_t truncated_ = 0;
  bool lost_ = false;  // link_'s engine is gone
  Clock::time_point lost_since_;
  std::string loss_;  // how
  int fruitless_losses_ = 0;
};

}  // namespace

int RunEmbedEngine(const EmbedOptions& options) {
  Result<EngineLink> link = EngineLink::Attach({.socket = options.socket,
                                                .model = options.model,
                                                .client_name = options.program,
                                                .slots = kSlots,
                                                .width = options.width});
  if (!link.ok()) return Fail(options.program, kEmbedUsage, link.status().message());
  return WithEmbedJob(options, link->info().width, [&](EmbedJob& job) { return EngineRun(job, *link).Go(); });
}

}  // namespace sutra
