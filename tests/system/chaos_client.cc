// The duty `chaos`: embeds its own texts through any number of engine deaths until SIGTERM, and has an event loop
// beside its blocking calls on the same client. It writes into --oracle FILE what it is about to send (I id) and what
// was answered, with the generation of the engine that answered (A id generation; 0 where that is not known).
//   --texts N            at most N different texts. From then on half of the batches compute those of even number anew,
//   so
//                        that the log is written on; those of odd number stand in it once and must be carried along
//   --corrupt N          damages every N-th vector of the blocking calls
//   --corrupt-polled N   damages every N-th vector of the event loop
#include <fcntl.h>
#include <poll.h>

#include <fstream>
#include <random>
#include <thread>

#include "shm/base/time.h"
#include "tests/kit/poll_tickets.h"
#include "tests/system/test_client.h"

namespace sutra::test {
namespace {

constexpr uint32_t kDeadlineMs = 5000;

// A chaos client's own record: lines of one write each, so that a kill tears at most the last one.
class OracleFile {
 public:
  explicit OracleFile(const std::string& path) {
    std::ifstream old(path);
    for (std::string line; std::getline(old, line);) {
      if (line.size() > 2 && line[0] == 'I') next_ = std::strtoull(line.c_str() + 2, nullptr, 10) + 1;
    }
    fd_ = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    // A line that an earlier life left unfinished must not swallow ours.
    if (next_ != 0) Write("\n");
  }
  ~OracleFile() { close(fd_); }
  bool ok() const { return fd_ >= 0; }
  uint64_t next() const { return next_; }
  uint64_t Intend() {
    Write("I " + std::to_string(next_) + "\n");
    return next_++;
  }
  void Acknowledge(uint64_t id, uint64_t generation) {
    Write("A " + std::to_string(id) + " " + std::to_string(generation) + "\n");
  }

 private:
  void Write(const std::string& line) { static_cast<void>(!write(fd_, line.data(), line.size())); }
  int fd_ = -1;
  uint64_t next_ = 0;
};

uint64_t GenerationNow(const ClientHandle& client) {
  sutra_info info = embed::Info();
  return sutra_get_info(client.get(), &info) == SUTRA_OK ? info.engine_generation : 0;
}

bool MayHappenWhileEnginesDie(sutra_status status) {
  return status == SUTRA_ENGINE_GONE || status == SUTRA_SHUTTING_DOWN || status == SUTRA_DEADLINE_EXCEEDED ||
         status == SUTRA_OVERLOADED;
}

// An event loop beside the blocking calls: submits, polls, looks, releases. Each ticket that sutra_poll shows must be
// one of its own, each ticket must be shown, and each answer must be right.
class EventLoop {
 public:
  EventLoop(const ClientHandle& client, const Arguments& arguments)
      : client_(client),
        prefix_(arguments.Text("prefix") + " polled"),
        random_(arguments.Number("seed", 1) ^ 0x9e3779b97f4a7c15),
        corruptor_(arguments.Number("corrupt-polled", 0)),
        thread_([this] { Run(); }) {}
  ~EventLoop() { Stop(); }

  // 0 while everything is right; the exit code otherwise.
  int code() const { return code_.load(std::memory_order_relaxed); }
  int Stop() {
    stop_.store(true, std::memory_order_relaxed);
    if (thread_.joinable()) thread_.join();
    return code();
  }

 private:
  struct Pending {
    std::string text;
    uint64_t submitted_ns;
    bool cancelled;
  };

  void Run() {
    while (!stop_.load(std::memory_order_relaxed) && code() == 0) {
      if (pending_.size() < 8) Submit();
      sutra_ticket tickets[4];
      const size_t found = PollTickets(client_.get(), tickets, 4);
      for (size_t i = 0; i < found; ++i) Collect(tickets[i]);
      CheckNoneIsForgotten();
      poll(nullptr, 0, 1);
    }
    for (const auto& item : pending_) sutra_release(client_.get(), item.first);
  }

  void Submit() {
    const std::string text = ChaosText(prefix_, random_() % 1000);
    const sutra_options options = ClientHandle::RequestOptions(SUTRA_CACHE_SKIP_STORE, kDeadlineMs);
    sutra_ticket ticket = 0;
    const sutra_status status = sutra_submit(client_.get(), text.data(), text.size(), &options, &ticket);
    if (status == SUTRA_OK) {
      const bool cancel = random_() % 8 == 0;
      if (cancel) sutra_cancel(client_.get(), ticket);
      pending_[ticket] = {text, MonotonicNs(), cancel};
    } else if (!MayHappenWhileEnginesDie(status) && status != SUTRA_FULL) {
      Fail(kBadStatus, std::string("a submit: ") + sutra_status_text(status));
    }
  }

  void Collect(sutra_ticket ticket) {
    const auto found = pending_.find(ticket);
    if (found == pending_.end()) return Fail(kWrongAnswer, "sutra_poll showed a ticket that its caller did not submit");
    sutra_result result = embed::Result();
    Reply reply;
    reply.status = sutra_wait(client_.get(), ticket, 0, &result);
    if (reply.status == SUTRA_OK) {
      if (result.vector == nullptr) return Fail(kWrongAnswer, "ok without a vector");
      reply.source = result.source;
      reply.token_count = result.token_count;
      reply.vector.assign(result.vector, result.vector + result.width);
      corruptor_.Pass(&reply);
    }
    const bool excused =
        MayHappenWhileEnginesDie(reply.status) || (reply.status == SUTRA_CANCELLED && found->second.cancelled);
    if (const std::string wrong = WhatIsWrong(reply, found->second.text); !excused && !wrong.empty()) {
      return Fail(reply.status == SUTRA_OK ? kWrongAnswer : kBadStatus, "polled " + found->second.text + ": " + wrong);
    }
    sutra_release(client_.get(), ticket);
    if (random_() % 4 == 0) sutra_release(client_.get(), ticket);  // a second release changes nothing
    pending_.erase(found);
  }

  // Far beyond the deadline and every pause of the engine: such a ticket will never be shown.
  void CheckNoneIsForgotten() {
    for (const auto& item : pending_) {
      if (MonotonicNs() - item.second.submitted_ns > 60 * kNsPerSecond) {
        return Fail(kWrongAnswer, "sutra_poll never showed a ticket");
      }
    }
  }

  void Fail(int code, const std::string& what) { code_.store(Complain(code, what), std::memory_order_relaxed); }

  const ClientHandle& client_;
  const std::string prefix_;
  std::mt19937_64 random_;
  Corruptor corruptor_;
  std::map<sutra_ticket, Pending> pending_;
  std::atomic<int> code_ = 0;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

}  // namespace

int RunChaos(const Arguments& arguments) {
  const std::string prefix = arguments.Text("prefix");
  const uint64_t texts_max = arguments.Number("texts", UINT64_MAX);
  OracleFile oracle(arguments.Text("oracle"));
  if (!oracle.ok()) return Complain(kUsage, "cannot open the oracle file");
  std::mt19937_64 random(arguments.Number("seed", 1) + oracle.next());
  Corruptor corruptor(arguments.Number("corrupt", 0));
  ClientHandle client;
  while (stop_asked == 0 && client.Attach(arguments.Text("socket")) != SUTRA_OK) poll(nullptr, 0, kPauseMs);
  Say("attached");
  EventLoop event_loop(client, arguments);
  while (stop_asked == 0 && event_loop.code() == 0) {
    const bool anew = texts_max != UINT64_MAX && random() % 2 == 0;
    std::vector<uint64_t> ids;
    std::vector<std::string> texts;
    for (uint64_t size = 1 + random() % 12; ids.size() < size;) {
      const bool again = oracle.next() != 0 && (oracle.next() >= texts_max || random() % 3 == 0);
      ids.push_back(again ? random() % oracle.next() : oracle.Intend());
      if (again && anew) ids.back() &= ~uint64_t{1};
      texts.push_back(ChaosText(prefix, ids.back()));
    }
    const sutra_options options = ClientHandle::RequestOptions(anew ? SUTRA_CACHE_SKIP_LOOKUP : 0, kDeadlineMs);
    const uint64_t before = GenerationNow(client);
    std::vector<Reply> replies = client.EmbedBatch(texts, nullptr, options);
    const uint64_t answered_by = GenerationNow(client) == before ? before : 0;  // 0: either engine
    bool gone = false;
    for (size_t i = 0; i < ids.size(); ++i) {
      if (MayHappenWhileEnginesDie(replies[i].status)) {
        gone = true;
        continue;
      }
      corruptor.Pass(&replies[i]);
      if (const std::string wrong = WhatIsWrong(replies[i], texts[i]); !wrong.empty()) {
        return Complain(replies[i].status == SUTRA_OK ? kWrongAnswer : kBadStatus, texts[i] + ": " + wrong);
      }
      // What was in the table of an engine that died unnoticed is no word of the one that is known by now.
      oracle.Acknowledge(ids[i], replies[i].source == SUTRA_SOURCE_HOT_TABLE ? 0 : answered_by);
    }
    poll(nullptr, 0, gone ? kPauseMs : 1);  // leaves the other processes of a small machine their share
  }
  if (const int code = event_loop.Stop(); code != 0) return code;
  Say("right");
  return 0;
}

}  // namespace sutra::test
