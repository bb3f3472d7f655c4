// The well-behaved client beside an attack: streams texts through the real library and knows every answer.
// Thread rule: used by the test's main thread; it has a thread of its own.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <utility>

#include "tests/kit/client_handle.h"
#include "tests/kit/fake_model_answers.h"

namespace sutra::test {

class Neighbour {
 public:
  static constexpr uint64_t kBatchMax = 4;  // texts

  // `before_each` is called before each batch of texts.
  explicit Neighbour(const std::string& socket, std::function<void()> before_each = {})
      : socket_(socket), before_each_(std::move(before_each)), thread_([this] { Run(); }) {}
  ~Neighbour() { Stop(); }
  void Stop() {
    stop_.store(true, std::memory_order_relaxed);
    if (thread_.joinable()) thread_.join();
  }

  uint64_t wrong() const {
    std::lock_guard lock(mutex_);
    return wrong_;
  }
  std::string first_wrong() const {
    std::lock_guard lock(mutex_);
    return first_wrong_;
  }
  // Returns when `count` more answers arrived, right or wrong; false after `limit` without them. Up to kBatchMax of
  // them may be of a batch that was under way before.
  bool WaitAnswers(uint64_t count, std::chrono::milliseconds limit = std::chrono::minutes(1)) {
    std::unique_lock lock(mutex_);
    const uint64_t goal = right_ + wrong_ + count;
    return answered_.wait_for(lock, limit, [&] { return right_ + wrong_ >= goal; });
  }

 private:
  void Run() {
    ClientHandle client;
    if (const sutra_status status = client.Attach(socket_); status != SUTRA_OK) {
      return Note(std::string("attach: ") + sutra_error_text());
    }
    std::mt19937_64 random(7);
    std::vector<std::string> known;
    while (!stop_.load(std::memory_order_relaxed)) {
      if (before_each_) before_each_();
      const bool again = !known.empty() && random() % 2 == 0;
      std::vector<std::string> texts;
      for (size_t i = 1 + random() % kBatchMax; i > 0; --i) {
        texts.push_back(again ? known[random() % known.size()] : RandomText(random, 300));
      }
      // An engine that dies is to be seen at once, not waited for.
      const std::vector<Reply> replies =
          client.EmbedBatch(texts, nullptr, ClientHandle::RequestOptions(SUTRA_FAIL_FAST));
      for (size_t i = 0; i < texts.size(); ++i) {
        Note(WhatIsWrong(replies[i], texts[i]));
      }
      if (known.size() < 64) known.push_back(texts[0]);
    }
  }
  void Note(const std::string& problem) {
    {
      std::lock_guard lock(mutex_);
      if (first_wrong_.empty()) first_wrong_ = problem;
      ++(problem.empty() ? right_ : wrong_);
    }
    answered_.notify_all();
  }

  const std::string socket_;
  const std::function<void()> before_each_;
  std::atomic<bool> stop_{false};
  mutable std::mutex mutex_;
  std::condition_variable answered_;
  uint64_t right_ = 0, wrong_ = 0;
  std::string first_wrong_;
  std::thread thread_;
};

}  // namespace sutra::test
