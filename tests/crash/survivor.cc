// A client in C++ over embed.hpp for the chaos over real processes (survival.h): single texts and batches on the main
// thread; beside it tickets that are waited for one by one, any and all at once, cancelled, and released unseen.
// The same options and signals as survivor.c.
#include <poll.h>
#include <signal.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "producer/include/sutra/embed.hpp"
#include "tests/crash/survivor.h"

namespace sutra::test {
namespace {

constexpr uint64_t kTexts = 3000;
constexpr uint32_t kForeverMs = 600'000;

std::atomic<bool> stop_asked = false, quiet_asked = false;

void OnSignal(int number) {
  if (number == SIGTERM) stop_asked.store(true, std::memory_order_relaxed);
  quiet_asked.store(true, std::memory_order_relaxed);
}

class Survivor {
 public:
  explicit Survivor(const std::map<std::string, std::string>& arguments) : arguments_(arguments) {
    attach_.client_name = "survivor in C++";
    attach_.lanes_max = static_cast<uint32_t>(Number("--lanes", 0));
    attach_.slots = static_cast<uint32_t>(Number("--slots", 0));
    options_.timeout_ms = static_cast<uint32_t>(Number("--deadline-ms", 30'000));
    if (Number("--fail-fast", 0) != 0) options_.flags |= SUTRA_FAIL_FAST;
    prefix_ = Text("--prefix");
    corrupt_every_ = Number("--corrupt", 0);
    tally_ = TallyMap(Text("--tally").c_str());
  }

  int Run() {
    if (tally_ == nullptr) return 2;
    while (!stop_asked && client_.Attach(Text("--socket"), attach_) != SUTRA_OK) poll(nullptr, 0, 5);
    if (!client_) return 0;
    TallySet(tally_, kTallyPhase, kPhaseAttached);
    std::thread tickets([this] { RunTickets(); });
    RunCalls();
    tickets.join();
    if (!stop_asked) TallySet(tally_, kTallyPhase, kPhaseQuiet);
    while (!stop_asked) poll(nullptr, 0, 5);
    return 0;
  }

 private:
  struct Pending {
    uint64_t id = 0, began_ns = 0;
    bool cancelled = false;
    embed::Ticket ticket;
  };

  std::string Text(const std::string& name) const {
    const auto found = arguments_.find(name);
    return found == arguments_.end() ? std::string() : found->second;
  }
  uint64_t Number(const std::string& name, uint64_t otherwise) const {
    const std::string text = Text(name);
    return text.empty() ? otherwise : std::strtoull(text.c_str(), nullptr, 10);
  }
  std::string TextOf(uint64_t id) const {
    char text[kSurvivorTextMax];
    return std::string(text, SurvivorText(text, prefix_.c_str(), id));
  }

  void Complain(TallyWord word, const char* what, uint64_t id, const char* why) {
    TallyAdd(tally_, word);
    std::fprintf(stderr, "survivor in C++ %d: %s of text %llu of %s: %s\n", getpid(), what,
                 static_cast<unsigned long long>(id), prefix_.c_str(), why);
  }

  void Check(const char* what, uint64_t id, sutra_status status, const float* vector, uint32_t width,
             uint64_t began_ns) {
    if (TallyNowNs() - began_ns > options_.timeout_ms * 1'000'000ull + kOverdueNs) {
      Complain(kTallyOverdue, what, id, "beyond its deadline");
    }
    if (status != SUTRA_OK) return Complain(kTallyLost, what, id, sutra_status_text(status));
    std::vector<float> copied(vector, vector + (vector == nullptr ? 0 : width));
    if (corrupt_every_ != 0 && ++corrupt_count_ % corrupt_every_ == 0) copied[0] += 0.01F;
    const std::string text = TextOf(id);
    if (!IsFakeVector(text.data(), text.size(), copied.data(), static_cast<uint32_t>(copied.size()))) {
      return Complain(kTallyWrong, what, id, "the vector of another text, or of none");
    }
    TallyAdd(tally_, kTallyAnswers);
  }

  void RunCalls() {
    uint64_t random = Number("--seed", 1);
    while (!quiet_asked) {
      sutra_options request = options_;
      request.flags |= SurvivorCacheFlags(NextRandom(&random));
      std::vector<uint64_t> ids(1 + NextRandom(&random) % 12);
      std::vector<std::string> texts;
      for (uint64_t& id : ids) texts.push_back(TextOf(id = NextRandom(&random) % kTexts));
      const uint64_t began_ns = TallyNowNs();
      std::vector<embed::Embedding> answers;
      if (texts.size() == 1) {
        answers.push_back(client_.Embed(texts[0], request));
      } else {
        answers = client_.EmbedBatch({texts.begin(), texts.end()}, request);
      }
      for (size_t i = 0; i < ids.size(); ++i) {
        const auto width = static_cast<uint32_t>(answers[i].vector.size());
        Check("a call", ids[i], answers[i].status, answers[i].vector.data(), width, began_ns);
      }
      TallySet(tally_, kTallyBlockingNs, TallyNowNs());
      sutra_info info = embed::Info();
      sutra_get_info(client_.get(), &info);
      TallySet(tally_, kTallyResubmitted, info.resubmitted);
      TallySet(tally_, kTallyEngines, info.engines);
      poll(nullptr, 0, 1);
    }
  }

  void RunTickets() {
    uint64_t random = Number("--seed", 1) ^ 0x9e3779b9;
    std::vector<Pending> pending;
    while (!quiet_asked || !pending.empty()) {
      while (pending.size() < 6 && !quiet_asked && SubmitOne(&pending, &random)) continue;
      if (pending.empty()) {
        poll(nullptr, 0, 5);
        continue;
      }
      switch (NextRandom(&random) % 4) {
        case 0: WaitForAll(&pending); break;
        case 1: {
          Pending& last = pending.back();
          Collect(&last, last.ticket.Wait(kForeverMs));
          pending.pop_back();
          break;
        }
        default: WaitForAny(&pending);
      }
      if (!pending.empty() && NextRandom(&random) % 16 == 0) pending.pop_back();  // released unseen
      TallySet(tally_, kTallyLoopNs, TallyNowNs());
      poll(nullptr, 0, 1);
    }
  }

  bool SubmitOne(std::vector<Pending>* pending, uint64_t* random) {
    Pending one;
    one.id = NextRandom(random) % kTexts;
    sutra_options request = options_;
    request.tag = one.id;
    request.flags |= SurvivorCacheFlags(NextRandom(random));
    one.began_ns = TallyNowNs();
    const sutra_status status = client_.Submit(TextOf(one.id), &one.ticket, request);
    if (status != SUTRA_OK) {
      const bool excused = status == SUTRA_ENGINE_GONE || status == SUTRA_SHUTTING_DOWN || status == SUTRA_FULL;
      if (!excused) Complain(kTallyLost, "a submit", one.id, sutra_status_text(status));
      return false;
    }
    one.cancelled = NextRandom(random) % 16 == 0;
    if (one.cancelled) one.ticket.Cancel();
    pending->push_back(std::move(one));
    return true;
  }

  void Collect(Pending* one, const sutra_result& result) {
    if (result.tag != one->id) Complain(kTallyWrong, "a ticket", one->id, "the tag of another");
    if (result.status == SUTRA_CANCELLED && one->cancelled) return;
    Check("a ticket", one->id, result.status, result.vector, result.width, one->began_ns);
  }

  static std::vector<sutra_ticket> Ids(const std::vector<Pending>& pending) {
    std::vector<sutra_ticket> ids;
    for (const Pending& one : pending) ids.push_back(one.ticket.id());
    return ids;
  }

  void WaitForAny(std::vector<Pending>* pending) {
    size_t index = 0;
    sutra_result result = embed::Result();
    const std::vector<sutra_ticket> ids = Ids(*pending);
    const sutra_status status = sutra_wait_any(client_.get(), ids.data(), ids.size(), kForeverMs, &index, &result);
    if (status != SUTRA_OK) return Complain(kTallyWrong, "a wait for any", 0, sutra_status_text(status));
    Collect(&(*pending)[index], result);
    pending->erase(pending->begin() + static_cast<std::ptrdiff_t>(index));
  }

  void WaitForAll(std::vector<Pending>* pending) {
    const std::vector<sutra_ticket> ids = Ids(*pending);
    std::vector<sutra_result> results(ids.size(), embed::Result());
    sutra_wait_all(client_.get(), ids.data(), ids.size(), kForeverMs, results.data(), sizeof(sutra_result));
    for (size_t i = 0; i < ids.size(); ++i) Collect(&(*pending)[i], results[i]);
    pending->clear();
  }

  const std::map<std::string, std::string> arguments_;
  sutra_attach_options attach_ = embed::AttachOptions();
  sutra_options options_ = embed::RequestOptions();
  std::string prefix_;
  uint64_t corrupt_every_ = 0;
  std::atomic<uint64_t> corrupt_count_ = 0;
  uint64_t* tally_ = nullptr;
  embed::Client client_;
};

}  // namespace
}  // namespace sutra::test

int main(int argc, char** argv) {
  std::map<std::string, std::string> arguments;
  for (int i = 1; i + 1 < argc; i += 2) arguments[argv[i]] = argv[i + 1];
  struct sigaction action = {};
  action.sa_handler = sutra::test::OnSignal;
  action.sa_flags = SA_RESTART;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGUSR1, &action, nullptr);
  return sutra::test::Survivor(arguments).Run();
}
