// Every public call at once over one client, from many threads: each OK has the vector of its own text, sutra_poll
// shows only tickets that a submit returned, a released ticket is a bad argument, and releases may race. With canaries.
#include <poll.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <random>
#include <thread>

#include "tests/kit/poll_tickets.h"
#include "tests/kit/seed.h"
#include "tests/producer/client_fixture.h"

namespace sutra::test {
namespace {

constexpr uint32_t kWidth = 16;
constexpr uint32_t kSlots = 8;  // fewer than the threads want: `full`, waiting for room and reaping happen all the time

struct Verdict {
  std::atomic<uint64_t> ok = 0, wrong = 0;   // vectors
  std::atomic<uint64_t> unexpected = 0;      // statuses that nothing explains
  std::atomic<uint64_t> stale_accepted = 0;  // calls that took a released ticket
  uint64_t polled = 0, phantoms = 0;         // tickets that sutra_poll showed; those that no submit returned
  sutra_status first_unexpected = SUTRA_OK;  // for the message only
};

class Torture {
 public:
  // forget_every > 0: the harness forgets each nth ticket that a submit returned, so that it must report phantoms.
  Torture(sutra_client* client, uint64_t seed, uint32_t forget_every = 0)
      : client_(client), seed_(seed), forget_every_(forget_every) {}

  // `meanwhile` runs in the calling thread, as often as the workers last.
  Verdict& Run(
      int rounds, const std::function<void()>& meanwhile = [] { std::this_thread::yield(); }) {
    std::vector<std::thread> workers, helpers;
    for (int i = 0; i < 2; ++i) workers.emplace_back([this, rounds, i] { EmbedLoop(rounds, 10 + i); });
    workers.emplace_back([this, rounds] { BatchLoop(rounds / 8, 20); });
    for (int i = 0; i < 2; ++i) workers.emplace_back([this, rounds, i] { TicketLoop(rounds / 2, 30 + i); });
    helpers.emplace_back([this] { EventLoop(40); });
    for (int i = 0; i < 2; ++i) helpers.emplace_back([this] { ReleaseLoop(); });
    helpers.emplace_back([this] { InfoLoop(); });
    std::atomic<bool> joined = false;
    std::thread joiner([&] {
      for (std::thread& worker : workers) worker.join();
      joined = true;
    });
    while (!joined) meanwhile();
    joiner.join();
    done_ = true;
    for (std::thread& helper : helpers) helper.join();
    std::sort(issued_.begin(), issued_.end());
    for (const sutra_ticket ticket : polled_) {
      if (!std::binary_search(issued_.begin(), issued_.end(), ticket)) ++verdict_.phantoms;
    }
    verdict_.polled = polled_.size();
    return verdict_;
  }

 private:
  using Random = std::minstd_rand;

  static std::string Text(Random& random) {
    const size_t bytes =
        random() % 8 == 0 ? 300 + random() % 3000 : 1 + random() % 60;  // some longer than a slot's head
    std::string text = std::to_string(random()) + " ";
    while (text.size() < bytes) text.push_back(static_cast<char>('a' + text.size() % 23));
    return text;
  }
  void Judge(sutra_status status, const std::string& text, const float* vector, uint32_t width) {
    if (status == SUTRA_OK) {
      const bool right = vector != nullptr && width == kWidth && IsEchoOf(text, vector, width);
      ++(right ? verdict_.ok : verdict_.wrong);
    } else if (verdict_.unexpected++ == 0) {
      verdict_.first_unexpected = status;
    }
  }

  void EmbedLoop(int rounds, uint64_t stream) {
    Random random(static_cast<Random::result_type>(seed_ + stream));
    for (int i = 0; i < rounds; ++i) {
      const std::string text = Text(random);
      float vector[kWidth] = {};
      sutra_result result = embed::Result();
      const sutra_status status = sutra_embed(client_, text.data(), text.size(), nullptr, vector, &result);
      Judge(status, text, result.vector, result.width);
    }
  }

  void BatchLoop(int rounds, uint64_t stream) {
    Random random(static_cast<Random::result_type>(seed_ + stream));
    for (int i = 0; i < rounds; ++i) {
      Texts texts;
      const size_t count = 1 + random() % 40;
      for (size_t t = 0; t < count; ++t) texts.Add(Text(random));
      texts.Seal();
      std::vector<float> vectors(count * kWidth);
      std::vector<sutra_result> results(count, embed::Result());
      (void)sutra_embed_batch(client_, texts.pointers.data(), texts.sizes.data(), count, nullptr, nullptr,
                              vectors.data(), results.data(), sizeof(sutra_result));
      for (size_t t = 0; t < count; ++t)
        Judge(results[t].status, texts.strings[t], results[t].vector, results[t].width);
    }
  }

  void Issue(sutra_ticket ticket) {
    static std::atomic<uint64_t> count = 0;
    if (forget_every_ != 0 && ++count % forget_every_ == 0) return;
    const MutexLock lock(mutex_);
    issued_.push_back(ticket);
  }

  void TicketLoop(int rounds, uint64_t stream) {
    Random random(static_cast<Random::result_type>(seed_ + stream));
    for (int i = 0; i < rounds; ++i) {
      Texts texts;
      for (size_t t = 0; t < 1 + random() % 3; ++t) texts.Add(Text(random));
      texts.Seal();
      sutra_ticket tickets[3] = {};
      size_t submitted = 0;
      (void)sutra_submit_many(client_, texts.pointers.data(), texts.sizes.data(), texts.strings.size(), nullptr,
                              tickets, &submitted);
      for (size_t t = 0; t < submitted; ++t) Issue(tickets[t]);
      for (size_t t = 0; t < submitted; ++t) Finish(tickets[t], texts.strings[t], random);
      if (submitted == 0) std::this_thread::yield();
    }
  }

  void Finish(sutra_ticket ticket, const std::string& text, Random& random) {
    if (random() % 8 == 0) {  // an abandoned request
      if (random() % 2 == 0) (void)sutra_cancel(client_, ticket);
    } else {
      sutra_result result = embed::Result();
      sutra_status status = sutra_wait(client_, ticket, 0, &result);
      if (status == SUTRA_NOT_READY) status = sutra_wait(client_, ticket, 60'000, &result);
      Judge(status, text, result.vector, result.width);
    }
    released_.store(ticket, std::memory_order_release);  // handed over: the others release it too, at this very moment
    sutra_release(client_, ticket);
    if (random() % 4 == 0) sutra_release(client_, ticket);
    ExpectStale(ticket);
  }

  void ExpectStale(sutra_ticket ticket) {
    sutra_result result = embed::Result();
    if (sutra_wait(client_, ticket, 0, &result) != SUTRA_BAD_ARGUMENT) ++verdict_.stale_accepted;
    if (sutra_cancel(client_, ticket) != SUTRA_BAD_ARGUMENT) ++verdict_.stale_accepted;
  }

  // Submits and polls; finishes its own tickets only, as a ticket belongs to one thread at a time.
  void EventLoop(uint64_t stream) {
    Random random(static_cast<Random::result_type>(seed_ + stream));
    std::vector<std::pair<sutra_ticket, std::string>> own;
    while (!done_ || !own.empty()) {
      if (!done_ && own.size() < 3) {
        const std::string text = Text(random);
        sutra_ticket ticket = 0;
        if (sutra_submit(client_, text.data(), text.size(), nullptr, &ticket) == SUTRA_OK) {
          Issue(ticket);
          own.emplace_back(ticket, text);
        }
      }
      sutra_ticket some[5];
      const size_t count = PollTickets(client_, some, 1 + random() % 5);
      polled_.insert(polled_.end(), some, some + count);
      for (size_t i = 0; i < count; ++i) {
        const auto mine = std::find_if(own.begin(), own.end(), [&](const auto& item) { return item.first == some[i]; });
        if (mine == own.end()) continue;
        sutra_result result = embed::Result();
        const sutra_status status = sutra_wait(client_, mine->first, 0, &result);
        Judge(status, mine->second, result.vector, result.width);
        sutra_release(client_, mine->first);
        ExpectStale(mine->first);
        own.erase(mine);
      }
      if (count == 0) std::this_thread::yield();
    }
  }

  void ReleaseLoop() {
    while (!done_) {
      sutra_release(client_, released_.load(std::memory_order_acquire));
      if (seed_ % 2 == 0) std::this_thread::yield();
    }
  }

  void InfoLoop() {
    while (!done_) {
      sutra_info info = embed::Info();
      if (sutra_get_info(client_, &info) != SUTRA_OK || info.width != kWidth) ++verdict_.unexpected;
      (void)sutra_event_fd(client_);
      (void)sutra_wait(client_, 0, 0, nullptr);
      std::this_thread::yield();
    }
  }

  sutra_client* const client_;
  const uint64_t seed_;
  const uint32_t forget_every_;
  std::atomic<bool> done_ = false;
  std::atomic<sutra_ticket> released_ = 0;
  Mutex mutex_;
  std::vector<sutra_ticket> issued_ SUTRA_GUARDED_BY(mutex_);
  std::vector<sutra_ticket> polled_;  // the event loop's
  Verdict verdict_;
};

class ClientTorture : public ClientTest {
 protected:
  static constexpr int kRounds = 4000;

  static void ExpectGood(const Verdict& verdict) {
    EXPECT_GT(verdict.ok, 0u);
    EXPECT_GT(verdict.polled, 0u);
    EXPECT_EQ(verdict.wrong, 0u);
    EXPECT_EQ(verdict.phantoms, 0u) << "sutra_poll showed a ticket that no submit returned";
    EXPECT_EQ(verdict.stale_accepted, 0u);
    EXPECT_EQ(verdict.unexpected, 0u) << sutra_status_text(verdict.first_unexpected);
  }
};

TEST_F(ClientTorture, AllCallsAtOnceGiveEachTextItsOwnVector) {
  EchoOptions reverse;
  reverse.reverse = true;
  StartEngine(reverse);
  for (const uint32_t lanes : {1u, 3u}) {
    const ClientPtr client = Attach(kSlots, lanes);
    Torture torture(client.get(), FreshTestSeed());
    ExpectGood(torture.Run(kRounds));
    EXPECT_EQ(engine_->control().violations.load(), 0u);
  }
}

TEST_F(ClientTorture, AllCallsAtOnceSurviveEnginesThatDieAndComeBack) {
  StartEngine();
  const ClientPtr client = Attach(kSlots, 2);
  Torture torture(client.get(), FreshTestSeed());
  const Verdict& verdict = torture.Run(kRounds / 4, [&] {
    const uint64_t before = engine_->control().answered.load();
    for (int i = 0; i < 200 && engine_->control().answered.load() < before + 200; ++i) poll(nullptr, 0, 1);
    engine_->Kill();
    StartEngine();
  });
  ExpectGood(verdict);
  sutra_info info = embed::Info();
  ASSERT_EQ(sutra_get_info(client.get(), &info), SUTRA_OK);
  EXPECT_GT(info.resubmitted, 0u);
  EXPECT_GT(info.engines, 2u);
}

TEST_F(ClientTorture, CanaryAnEngineThatSpoilsVectorsIsNoticed) {
  EchoOptions spoiling;
  spoiling.spoil_every = 100;
  StartEngine(spoiling);
  const ClientPtr client = Attach(kSlots, 2);
  Torture torture(client.get(), FreshTestSeed());
  EXPECT_GT(torture.Run(400).wrong, 0u);
}

TEST_F(ClientTorture, CanaryATicketThatNoSubmitReturnedIsNoticed) {
  StartEngine();
  const ClientPtr client = Attach(kSlots, 2);
  Torture torture(client.get(), FreshTestSeed(), 1);
  EXPECT_GT(torture.Run(2000).phantoms, 0u);
}

}  // namespace
}  // namespace sutra::test
