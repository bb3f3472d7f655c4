// Starting, killing and judging children, one after the other.
#include "tests/crash/cache_kills.h"

#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iterator>
#include <memory>
#include <optional>
#include <random>
#include <thread>

#include "shm/base/time.h"
#include "tests/crash/kill_history.h"
#include "tests/kit/child_process.h"
#include "tests/kit/temp_dir.h"

namespace sutra::test {
namespace {

constexpr int kWaitMs = 30'000;
constexpr uint64_t kCheckpointMs = 400;

#if defined(SUTRA_CHECKPOINTS)
constexpr const char* kCheckpoints[] = {
    "wal.encoded",     "wal.submitted",     "wal.completed",          "wal.sync_submitted", "wal.synced",
    "wal.acked",       "segment.allocated", "segment.header_written", "segment.dir_synced", "segment.unlinked",
    "segment.indexed", "recovery.scanned",  "recovery.cut",           "recovery.opened"};
constexpr uint64_t kCheckpointCount = std::size(kCheckpoints);
#else
constexpr const char* kCheckpoints[] = {""};
constexpr uint64_t kCheckpointCount = 0;
#endif

class CacheKills {
 public:
  explicit CacheKills(const CacheKillOptions& options) : options_(options), random_(options.seed) {
    found_.fill(-1);
    if (options_.directory.empty()) temp_.emplace();
    directory_ = temp_.has_value() ? temp_->path() : options_.directory;
    journal_ = directory_ + "/journal";
  }

  CacheKillTotals Run(const std::atomic<bool>* stop) {
    const uint64_t started_ns = MonotonicNs();
    uint64_t said_ns = started_ns;
    while (totals_.kills < options_.kills && totals_.refused == 0) {
      if (stop != nullptr && stop->load(std::memory_order_relaxed)) break;
      if (options_.end_at_first && !totals_.good()) break;
      Live();
      const uint64_t now = MonotonicNs();
      if (options_.progress_s == 0 || now - said_ns < options_.progress_s * kNsPerSecond) continue;
      said_ns = now;
      std::fprintf(stderr, "%llu of %llu kills, %llu changes, %s\n", static_cast<unsigned long long>(totals_.kills),
                   static_cast<unsigned long long>(options_.kills), static_cast<unsigned long long>(totals_.changes),
                   totals_.good() ? "all is well" : totals_.failure.c_str());
    }
    if (totals_.refused == 0) Check();
    totals_.ms = (MonotonicNs() - started_ns) / kNsPerMs;
    return totals_;
  }

 private:
  uint64_t Random(uint64_t below) { return std::uniform_int_distribution<uint64_t>(0, below - 1)(random_); }

  std::unique_ptr<ChildProcess> Start(const std::string& checkpoint, bool check) {
    SpawnOptions spawn;
    spawn.args = {SUTRA_CACHE_KILLS_CHILD,
                  directory_,
                  journal_,
                  std::to_string(options_.seed),
                  std::to_string(totals_.kills),
                  Random(3) == 0 ? "posix" : "auto"};
    if (options_.full) spawn.args.push_back("full");
    if (options_.lie) spawn.args.push_back("lie");
    if (options_.revive) spawn.args.push_back("revive");
    if (check) spawn.args.push_back("check");
    spawn.environment.push_back("SUTRA_CHECKPOINT=" + checkpoint);
    spawn.log_path = directory_ + "/child.log";
    return std::make_unique<ChildProcess>(spawn);
  }

  // One child, from its start to its kill.
  void Live() {
    const KillJournal journal(journal_, true);
    if (!journal.open_ok()) return Fail(&totals_.refused, "no journal in " + directory_);
    std::string checkpoint;
    if (kCheckpointCount > 0 && Random(3) == 0) {
      checkpoint = std::string(kCheckpoints[Random(kCheckpointCount)]) + ":kill:" + std::to_string(1 + Random(12));
    }
    const std::unique_ptr<ChildProcess> child = Start(checkpoint, false);
    // Some are killed while they start. A checkpoint that is not reached meanwhile is left alone.
    const bool early = Random(6) == 0;
    const uint64_t life_ms = checkpoint.empty() ? Random(early ? 30 : 160) : kCheckpointMs;
    if (!early) Await(child.get(), kWaitMs, [&] { return IsReady(journal); });
    Await(child.get(), life_ms, [] { return false; });
    totals_.at_checkpoints += child->Running() ? 0 : 1;
    const uint64_t died_ns = MonotonicNs();
    const ExitStatus ended = child->Kill();
    if (ended.exited) return Fail(&totals_.refused, ToText(ended) + ": " + child->Log());
    ++totals_.kills;
    Digest(journal, died_ns);
  }

  // Until the child has ended, `done` or the time is over.
  template <typename Done>
  static void Await(ChildProcess* child, uint64_t ms, const Done& done) {
    const uint64_t until_ns = MonotonicNs() + ms * kNsPerMs;
    while (child->Running() && !done() && MonotonicNs() < until_ns) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  static bool IsReady(const KillJournal& journal) {
    const std::span<const KillRecord> records = journal.records();
    return std::any_of(records.begin(), records.end(),
                       [](const KillRecord& record) { return record.event == KillEvent::kReady; });
  }

  // The last start.
  void Check() {
    const KillJournal journal(journal_, true);
    const std::unique_ptr<ChildProcess> child = Start("", true);
    const std::optional<ExitStatus> ended = child->Wait(kWaitMs);
    if (!ended.has_value() || !ended->exited || ended->code != 0) {
      return Fail(&totals_.refused, (ended.has_value() ? ToText(*ended) : "hangs") + ": " + child->Log());
    }
    Digest(journal, MonotonicNs());
  }

  void Digest(const KillJournal& journal, uint64_t died_ns) {
    const std::span<const KillRecord> records = journal.records();
    const auto ready = std::find_if(records.begin(), records.end(),
                                    [](const KillRecord& record) { return record.event == KillEvent::kReady; });
    for (const KillRecord& record : records) {
      if (record.event == KillEvent::kWrong) {
        Fail(&totals_.wrong, "key " + std::to_string(record.key) + " answers with a vector that was never stored");
      }
    }
    if (ready == records.end()) {
      ++totals_.during_starts;
      return;
    }
    found_.fill(-1);
    for (auto record = records.begin(); record != ready; ++record) {
      if (record->event == KillEvent::kFound) found_[record->key] = record->version;
    }
    totals_.found +=
        static_cast<uint64_t>(std::count_if(found_.begin(), found_.end(), [](int64_t v) { return v >= 0; }));
    Count(history_.Judge(found_, died_ns_));
    history_.Read(found_, records);
    died_ns_ = std::min(died_ns, records.back().ns + kNsPerMs);
    totals_.changes += history_.changes();
    totals_.evictions += history_.evictions();
    for (const KillRecord& record : records) {
      totals_.log_evictions += record.event == KillEvent::kEvicted && record.version > 0 ? 1 : 0;
    }
    totals_.removals += history_.removals();
  }

  void Count(const KillVerdict& verdict) {
    totals_.wrong += verdict.wrong;
    totals_.returned += verdict.returned;
    totals_.revived += verdict.revived;
    totals_.missing += verdict.missing;
    totals_.mixed += verdict.mixed;
    totals_.late += verdict.late ? 1 : 0;
    if (totals_.failure.empty() && !verdict.text.empty()) {
      totals_.failure = "after " + std::to_string(totals_.kills) + " kills: " + verdict.text;
    }
  }

  void Fail(uint64_t* count, const std::string& failure) {
    ++*count;
    if (totals_.failure.empty()) totals_.failure = "after " + std::to_string(totals_.kills) + " kills: " + failure;
  }

  const CacheKillOptions options_;
  std::mt19937_64 random_;
  std::optional<TempDir> temp_;
  std::string directory_, journal_;
  KillSet found_;
  KillHistory history_;  // of the last child that made changes
  uint64_t died_ns_ = 0;
  CacheKillTotals totals_;
};

}  // namespace

CacheKillTotals RunCacheKills(const CacheKillOptions& options, const std::atomic<bool>* stop) {
  return CacheKills(options).Run(stop);
}

}  // namespace sutra::test
