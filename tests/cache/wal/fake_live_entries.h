// LiveEntries without a store: returns the records that a test queues, and records the calls. Thread rule: one
// thread.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cache/wal/live_entries.h"
#include "tests/cache/wal/hand_made_log.h"

namespace sutra::test {

class FakeLiveEntries final : public LiveEntries {
 public:
  bool CollectOlder(uint64_t through, uint64_t into, Cursor*, std::unique_ptr<WalGroup>* group) override {
    calls.push_back("collect " + std::to_string(through) + " into " + std::to_string(into));
    for (; !live.empty(); live.pop_front()) {
      const bool fits = WithRecord(live.front(), [&](const UnplacedRecord& record) {
        if (!(*group)->Fits(record.length)) return false;
        (*group)->Append(record);
        return true;
      });
      if (!fits) return false;
    }
    return true;
  }
  void ReadOlder(uint64_t through) override { calls.push_back("read " + std::to_string(through)); }
  uint64_t EvictOlder(uint64_t through) override {
    calls.push_back("evict " + std::to_string(through));
    return 0;
  }
  void LetGo(uint64_t through) override {
    if (on_let_go) on_let_go(through);
  }
  void HoldBy(uint64_t number) override { calls.push_back("hold by " + std::to_string(number)); }

  std::deque<Change> live;
  std::vector<std::string> calls;
  std::function<void(uint64_t)> on_let_go;
};

}  // namespace sutra::test
