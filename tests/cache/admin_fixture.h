// A shard on the simulated disk and a manual clock, as its administration's tests use it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tests/cache/cache_test_support.h"
#include "tests/sim/manual_clock.h"
#include "tests/sim/sim_disk.h"

namespace sutra::test {

inline bool GoOn(uint64_t, uint64_t) { return true; }

// What an observer was told, in order: "-text" of a key, "*" of many.
class ToldObserver final : public RemovalObserver {
 public:
  void OnErased(std::string_view text, uint32_t, uint64_t count) override { Tell("-" + std::string(text), count); }
  void OnManyErased(uint64_t count) override { Tell("*", count); }

  std::vector<std::string> told;
  uint64_t removals = 0;
  std::function<void()> then;

 private:
  void Tell(std::string what, uint64_t count) {
    told.push_back(std::move(what));
    removals = count;
    if (then) then();
  }
};

class AdminTest : public testing::Test {
 protected:
  static constexpr uint64_t kSecond = 1'000'000'000;

  void Open() {
    shard_.reset();
    config_.observer = &observer_;
    Result<std::unique_ptr<LoggedShard>> shard = LoggedShard::Open(config_, &disk_, &clock_, options_);
    ASSERT_TRUE(shard.ok()) << shard.status().message();
    shard_ = std::move(shard).value();
  }
  // As after `kill -9`: nothing more is written, what was written is there.
  void Kill() {
    disk_.ProcessKill();
    sim::SimDisk::Faults dead;
    dead.fail_at = 1;
    dead.fail_forever = true;
    disk_.SetFaults(dead);
    shard_.reset();
    disk_.SetFaults({});
  }
  void Fill(uint32_t from, uint32_t to, const std::string& prefix = "text ") {
    for (uint32_t i = from; i < to; ++i) Put(shard_.get(), prefix + std::to_string(i), i);
  }
  uint32_t Found(uint32_t from, uint32_t to, const std::string& prefix = "text ") {
    uint32_t found = 0;
    for (uint32_t i = from; i < to; ++i) {
      const int version = VersionOf(shard_.get(), prefix + std::to_string(i));
      EXPECT_NE(version, -2);
      found += version == static_cast<int>(i);
    }
    return found;
  }
  CacheAdmin::Preview Preview(const CacheFilter& filter) {
    const Result<CacheAdmin::Preview> preview = shard_->PreviewRemoval(filter, GoOn);
    EXPECT_TRUE(preview.ok()) << preview.status().message();
    return preview.ok() ? *preview : CacheAdmin::Preview();
  }
  Result<CacheAdmin::Removal> Commit(const CacheAdmin::Preview& preview) {
    return shard_->CommitRemoval(preview.token, GoOn);
  }
  // Entries removed.
  uint64_t Remove(const CacheFilter& filter) {
    const Result<CacheAdmin::Removal> removal = Commit(Preview(filter));
    EXPECT_TRUE(removal.ok()) << removal.status().message();
    return removal.ok() ? removal->entries : 0;
  }
  bool OnDisk(const std::string& text) const {
    for (const std::string& path : disk_.Paths()) {
      const std::vector<std::byte> bytes = disk_.Bytes(path);
      const std::string_view view(static_cast<const char*>(static_cast<const void*>(bytes.data())), bytes.size());
      if (view.find(text) != std::string_view::npos) return true;
    }
    return false;
  }
  uint64_t LogBytes() const {
    uint64_t bytes = 0;
    for (const std::string& path : disk_.Paths()) {
      if (path.find("/wal-") != std::string::npos || path.find("/reserve") != std::string::npos) {
        bytes += disk_.Bytes(path).size();
      }
    }
    return bytes;
  }

  sim::SimDisk disk_;
  sim::ManualClock clock_;
  CacheConfig config_ = SmallConfig("/data");
  LoggedShard::Options options_ = Inline();
  ToldObserver observer_;
  std::unique_ptr<LoggedShard> shard_;
};

inline const CacheFilter kEverything{.everything = true, .contains = {}};
inline CacheFilter Containing(const std::string& what) {
  CacheFilter filter;
  filter.contains = what;
  return filter;
}
inline CacheFilter OlderThan(uint64_t seconds) {
  CacheFilter filter;
  filter.older_than_s = seconds;
  return filter;
}
inline CacheFilter NeverHit() {
  CacheFilter filter;
  filter.never_hit = true;
  return filter;
}

}  // namespace sutra::test
