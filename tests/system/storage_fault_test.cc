// Damaged logs, full disks and a full /dev/shm around an engine: what is wrong is said and shown, nothing wrong is
// served, and with room again everything goes on.
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "tests/kit/small_disk.h"
#include "tests/system/start_fault.h"

namespace sutra::test {
namespace {

// Rot of the log is detected, reported, and never served.
class DamagedLog : public StartFault {
 protected:
  // Flips a bit of the record of `text` in the log of a stopped engine.
  static void DamageRecordOf(const EngineProcess& engine, const std::string& text) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(engine.data())) {
      if (!entry.is_regular_file() || entry.file_size() < 1 << 20) continue;
      std::string bytes = ReadFile(entry.path());
      const size_t found = bytes.find(text);
      if (found == std::string::npos) continue;
      bytes[found] = static_cast<char>(bytes[found] ^ 0x10);
      return WriteFile(entry.path(), bytes);
    }
    FAIL() << "no log holds '" << text << "'";
  }
};

TEST_F(DamagedLog, IsReportedAndNeverServedAndCostsOneEntry) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const std::vector<std::string> texts = NumberedTexts("before the damage", 600);
  Attached(engine).EmbedBatch(texts);
  EXPECT_EQ(engine.Terminate().code, kExitClean);
  DamageRecordOf(engine, texts[300]);

  engine.options().args = {"--strict-recovery"};
  ExpectCannotStart(engine, kExitCannotStart, {"cannot start"});
  engine.options().args.clear();
  ASSERT_TRUE(engine.Start());
  EXPECT_TRUE(engine.WaitStats([](const StatsSnapshot& s) { return s.gauge("recovered_dropped") > 0; }, 1));
  const std::vector<Reply> replies = Attached(engine).EmbedBatch(texts);
  size_t lost = 0;
  for (size_t i = 0; i < texts.size(); ++i) {
    ExpectVector(replies[i], texts[i]);
    lost += !replies[i].FromCache() ? 1 : 0;
  }
  EXPECT_EQ(lost, 1u);
  ExpectSurvivesKill(engine, "after the damage");
}

class FullDisk : public StartFault {};

// 64 KiB have room for everything but a segment; with 8 KiB even the lock's text and the probe of the disk may find
// none.
TEST_F(FullDisk, AtStartServesAndTakesTheLogUpWhenThereIsRoom) {
  for (const char* size : {"64k", "8k"}) {
    EngineProcess engine;
    const SmallDisk disk(engine.data(), size);
    if (!disk.mounted()) GTEST_SKIP() << kCannotMount;
    if (size == std::string("8k")) WriteFile(engine.data() + "/of another program", std::string(8192, 'x'));
    ASSERT_TRUE(engine.Start()) << engine.Log();
    ExpectSays(engine, {engine.data(), "No space left on device", "the log refuses records", "free 1048576 bytes"});
    const ClientHandle client = Attached(engine);
    ExpectVector(client.Embed("nowhere but in memory"), "nowhere but in memory");
    EXPECT_TRUE(client.Embed("nowhere but in memory").FromCache());
    ASSERT_TRUE(engine.WaitStats([](const StatsSnapshot& s) { return s.gauge("wal_dropped_inserts") == 1; }, 1));
    EXPECT_EQ(engine.Stats().gauge("storage_failed"), 1u);
    ASSERT_TRUE(disk.Resize("16m"));
    ASSERT_TRUE(engine.WaitStats([](const StatsSnapshot& s) { return s.gauge("storage_failed") == 0; }, 1));
    ExpectSurvivesKill(engine, "when there is room");
  }
}

// The disk is smaller than the log may be: it goes round within it, and restarts on the full disk are none of its
// trouble.
TEST_F(FullDisk, SmallerThanTheLogsBoundDropsNothingAndRestartsOnIt) {
  EngineProcess engine;
  const SmallDisk disk(engine.data(), "6m");
  if (!disk.mounted()) GTEST_SKIP() << kCannotMount;
  engine.options().environment = {"SUTRA_FAKE_TOKENS_MAX=65536"};
  for (int life = 0; life < 3; ++life) {
    ASSERT_TRUE(engine.Start()) << engine.Log();
    const ClientHandle client = Attached(engine);
    std::vector<std::string> texts = NumberedTexts("life " + std::to_string(life), 300);  // 9 MiB
    for (std::string& text : texts) text += std::string(30'000, 'd');
    for (size_t begin = 0; begin < texts.size(); begin += 10) {
      const std::vector<std::string> some(texts.begin() + begin, texts.begin() + begin + 10);
      const std::vector<Reply> replies = client.EmbedBatch(some);
      for (size_t i = 0; i < some.size(); ++i) ExpectVector(replies[i], some[i]);
      ASSERT_TRUE(engine.WaitWritten());
    }
    EXPECT_EQ(engine.Stats().gauge("wal_dropped_inserts"), 0u);
    EXPECT_EQ(engine.Stats().gauge("storage_failed"), 0u);
    EXPECT_GT(engine.Stats().gauge("wal_evictions"), 0u);
    engine.Kill();
    ASSERT_TRUE(engine.Start()) << engine.Log();
    EXPECT_TRUE(Attached(engine).Embed(texts.back()).FromCache());
    EXPECT_EQ(engine.Terminate().code, kExitClean);
  }
}

TEST_F(FullDisk, WhileRunningLosesNoAnswerAndRecoversWithTheSpace) {
  EngineProcess engine;
  const SmallDisk disk(engine.data(), "1600k");  // one segment and no reserve: nothing can be given back
  if (!disk.mounted()) GTEST_SKIP() << kCannotMount;
  engine.options().environment = {"SUTRA_FAKE_TOKENS_MAX=65536"};
  ASSERT_TRUE(engine.Start());
  const ClientHandle client = Attached(engine);
  // 24 MiB of texts.
  std::vector<std::string> texts = NumberedTexts("too much for the disk", 800);
  for (std::string& text : texts) text += std::string(30'000, 'd');
  for (size_t begin = 0; begin < texts.size(); begin += 100) {
    const std::vector<std::string> some(texts.begin() + begin, texts.begin() + begin + 100);
    const std::vector<Reply> replies = client.EmbedBatch(some);
    for (size_t i = 0; i < some.size(); ++i) ExpectVector(replies[i], some[i]);
  }
  ASSERT_TRUE(engine.WaitStats([](const StatsSnapshot& s) { return s.gauge("wal_dropped_inserts") > 0; }, 2));
  ExpectSays(engine, {"No space left on device"});
  EXPECT_TRUE(client.Embed(texts.front()).FromCache());  // hits still work
  EXPECT_TRUE(client.Embed(texts.back()).FromCache());   // also of what is in memory only

  ASSERT_TRUE(disk.Resize("64m"));
  // The log takes records again by itself: more than a segment of new texts is appended, and none of it dropped. (A
  // few small ones would prove nothing: they may fit into what the last segment had left.)
  const uint64_t appends = engine.Stats().gauge("wal_appends");
  const auto dropped_inserts = [&engine] {
    EXPECT_TRUE(engine.WaitStats([](const StatsSnapshot&) { return true; }, 2));  // of after the last text
    return engine.Stats().gauge("wal_dropped_inserts");
  };
  for (int round = 0;; ++round) {
    const uint64_t dropped = dropped_inserts();
    std::vector<std::string> more = NumberedTexts("is there room " + std::to_string(round), 40);
    for (std::string& text : more) text += std::string(30'000, 'r');
    const std::vector<Reply> replies = client.EmbedBatch(more);
    for (size_t i = 0; i < more.size(); ++i) ExpectVector(replies[i], more[i]);
    if (dropped_inserts() == dropped) break;
  }
  EXPECT_GT(engine.Stats().gauge("wal_appends"), appends);
  ExpectSurvivesKill(engine, "after the space came back");
  // What was never written is computed again, and right.
  const ClientHandle again = Attached(engine);
  for (const std::string& text : {texts[0], texts[1], texts.back()}) ExpectVector(again.Embed(text), text);
}

// What the engine publishes lies in /dev/shm, whose pages must be there before they are written to: a page that is
// missing then is a SIGBUS.
class FullSharedMemory : public FullDisk {};

TEST_F(FullSharedMemory, AtStartIsSaidWithTheFixAndLeavesNothing) {
  EngineProcess engine;
  const SmallDisk shared_memory("/dev/shm", "16k");
  if (!shared_memory.mounted()) GTEST_SKIP() << kCannotMount;
  ExpectCannotStart(engine, kExitCannotStart, {"no room for", "/dev/shm", "remount,size", "sutra-stat --prune"});
  EXPECT_TRUE(std::filesystem::is_empty("/dev/shm"));
  EXPECT_FALSE(std::filesystem::exists(engine.socket()));
  ASSERT_TRUE(shared_memory.Resize("1m"));  // the canary: with room it serves
  ASSERT_TRUE(engine.Start());
  ExpectServes(engine, "with room");
}

TEST_F(FullSharedMemory, WhileRunningFailsNothing) {
  EngineProcess engine;
  const SmallDisk shared_memory("/dev/shm", "256k");
  if (!shared_memory.mounted()) GTEST_SKIP() << kCannotMount;
  ASSERT_TRUE(engine.Start());
  const ClientHandle before = Attached(engine);
  std::ofstream("/dev/shm/fill") << std::string(1 << 20, 'f');
  for (int round = 0; round < 3; ++round) {
    const std::vector<std::string> texts = NumberedTexts("full " + std::to_string(round), 300);
    const std::vector<Reply> replies = before.EmbedBatch(texts);
    for (size_t i = 0; i < texts.size(); ++i) ExpectVector(replies[i], texts[i]);
    ExpectServes(engine, "a new client " + std::to_string(round));
  }
  EXPECT_EQ(engine.Stats().gauge(Gauge::kSocketLost), 0u);  // and it can be read
  EXPECT_EQ(engine.Terminate().code, kExitClean);
}

// The 100 segments of 100 temporary engines, each with its folder gone.

}  // namespace
}  // namespace sutra::test
