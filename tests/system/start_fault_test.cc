// Faults around an engine: what keeps it from starting is reported with its cause and its fix; what happens while it
// runs loses nothing that was answered.
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "engine/exit_code.h"
#include "shm/stats/stats_name.h"
#include "tests/kit/small_disk.h"
#include "tests/system/system_fixture.h"

namespace sutra::test {
namespace {

constexpr uid_t kStranger = 54321;

class StartFault : public SystemTest {
 protected:
  static void ExpectSays(const EngineProcess& engine, const std::vector<std::string>& words) {
    const std::string log = engine.Log();
    for (const std::string& word : words) {
      EXPECT_NE(log.find(word), std::string::npos) << "not said: " << word << "\n" << log;
    }
  }
  static void ExpectCannotStart(EngineProcess& engine, int code, const std::vector<std::string>& words) {
    engine.Launch();
    const ExitStatus status = engine.WaitEnd();
    EXPECT_TRUE(status.exited && status.code == code) << ToText(status);
    ExpectSays(engine, words);
  }
  static void ExpectServes(const EngineProcess& engine, const std::string& text) {
    ExpectVector(Attached(engine).Embed(text), text);
  }
  // Embeds texts, waits until they are written, kills the engine, starts it again and expects them from the shard.
  static void ExpectSurvivesKill(EngineProcess& engine, const std::string& prefix) {
    const std::vector<std::string> texts = NumberedTexts(prefix, 100);
    Attached(engine).EmbedBatch(texts);
    ASSERT_TRUE(engine.WaitWritten());
    engine.Kill();
    ASSERT_TRUE(engine.Start());
    const std::vector<Reply> replies = Attached(engine).EmbedBatch(texts);
    for (size_t i = 0; i < texts.size(); ++i) {
      ExpectVector(replies[i], texts[i]);
      EXPECT_EQ(replies[i].source, SUTRA_SOURCE_SHARD) << texts[i];
    }
  }
};

TEST_F(StartFault, ASecondEngineOnTheSameDataNamesTheHolder) {
  EngineProcess first;
  ASSERT_TRUE(first.Start());
  EngineOptions options;
  options.data = first.data();
  EngineProcess second(options);
  ExpectCannotStart(second, kExitLocked, {first.data() + "/LOCK", "pid " + std::to_string(first.process().pid())});
  ExpectServes(first, "the first engine goes on");
}

TEST_F(StartFault, ASecondEngineOnTheSameSocketNamesTheHolder) {
  EngineProcess first;
  ASSERT_TRUE(first.Start());
  EngineOptions options;
  options.socket = first.socket();
  {
    EngineProcess second(options);
    ExpectCannotStart(second, kExitLocked, {first.socket() + ".lock", "pid " + std::to_string(first.process().pid())});
    ExpectServes(first, "the first engine goes on");
    EXPECT_EQ(first.Stats().gauge("pid"), static_cast<uint64_t>(first.process().pid()));  // its stats too
  }
}

TEST_F(StartFault, BadOptionsAreNamedWithTheirRange) {
  const std::pair<std::vector<std::string>, std::vector<std::string>> cases[] = {
      {{"--no-such-option", "1"}, {"no-such-option"}},
      {{"--fake-width", "9000"}, {"--fake-width", "8192"}},
      {{"--slots", "100"}, {"--slots", "power of two"}},
      {{"--durability", "sometimes"}, {"--durability", "interval"}},
      {{"--wal-bytes-max", "2097152"}, {"--wal-bytes-max"}},
      {{"--socket", "/" + std::string(200, 's')}, {"--socket", "107"}},
      {{"--backend", "onnx"}, {"--backend", "fake"}},
  };
  for (const auto& [args, words] : cases) {
    EngineOptions options;
    options.args = args;
    EngineProcess engine(options);
    ExpectCannotStart(engine, kExitUsage, words);
  }
}

TEST_F(StartFault, AMissingModelIsNamed) {
  EngineOptions options;
  EngineProcess engine(options);
  engine.options().args = {"--backend", "torch", "--model", engine.directory() / "no-such-model"};
  ExpectCannotStart(engine, kExitCannotStart, {"no-such-model", "cannot start"});
}

TEST_F(StartFault, WhatItPrintsAtStartIsAConfigurationFile) {
  EngineProcess engine;
  engine.options().args = {"--ttl-s", "77", "--text-bytes-max", "1024"};
  ASSERT_TRUE(engine.Start());
  EXPECT_EQ(Attached(engine).info().text_bytes_max, 1024u);
  EXPECT_EQ(engine.Terminate().code, kExitClean);
  EXPECT_NE(engine.Log().find("\nttl-s=77\n"), std::string::npos) << engine.Log();
  WriteFile(engine.directory() / "engine.conf", engine.Log());  // as it stands
  engine.options().args = {"--config", engine.directory() / "engine.conf", "--ttl-s", "78"};
  ASSERT_TRUE(engine.Start());
  EXPECT_EQ(Attached(engine).info().text_bytes_max, 1024u);  // from the file
  ExpectSays(engine, {"ttl-s=78"});                          // the command line wins
}

// Another model never sees the entries of this one, and nothing is refused.
TEST_F(StartFault, TheDataOfAnotherModelGetsItsOwnSubdirectory) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const std::string first_identity = std::string(Attached(engine).info().identity).substr(0, 16);
  const std::string text = "known to both models";
  ExpectServes(engine, text);
  EXPECT_EQ(engine.Terminate().code, kExitClean);

  const std::string width = std::to_string(kTestWidth * 2);
  engine.options().args = {"--fake-width", width};
  ASSERT_TRUE(engine.Start());
  {
    const ClientHandle client = Attached(engine);
    const std::string second_identity = std::string(client.info().identity).substr(0, 16);
    EXPECT_NE(second_identity, first_identity);
    const Reply reply = client.Embed(text);
    EXPECT_EQ(reply.source, SUTRA_SOURCE_MODEL);
    EXPECT_TRUE(SameVector(reply.vector, ExpectedVector(text, false, kTestWidth * 2)));
    EXPECT_TRUE(std::filesystem::is_directory(engine.data() + "/" + first_identity));
    EXPECT_TRUE(std::filesystem::is_directory(engine.data() + "/" + second_identity));
    ExpectSays(engine, {second_identity});
  }
  EXPECT_EQ(engine.Terminate().code, kExitClean);
  engine.options().args.clear();
  ASSERT_TRUE(engine.Start());
  EXPECT_EQ(Attached(engine).Embed(text).source, SUTRA_SOURCE_SHARD);  // untouched meanwhile
}

TEST_F(StartFault, NoPermissionOnTheDataIsSaidWithTheFix) {
  std::string reason;
  if (!OtherUserCanRunEngine(kStranger, &reason)) GTEST_SKIP() << reason;
  const TempDir closed;
  const std::string data = closed / "data";
  std::filesystem::create_directory(data);
  chmod(closed.path().c_str(), 0755);
  EngineOptions options;
  options.uid = kStranger;
  options.data = data + "/inside";
  EngineProcess engine(options);
  std::filesystem::create_directory(options.data);
  chmod(options.data.c_str(), 0700);
  SpawnOptions spawn;
  spawn.args = {EngineProgram(), "--backend", "fake", "--socket", engine.socket(), "--data", options.data};
  spawn.uid = kStranger;
  const Finished finished = RunToEnd(spawn, kWaitMs);
  EXPECT_TRUE(finished.status.exited && finished.status.code == kExitCannotStart) << ToText(finished.status);
  EXPECT_NE(finished.errors.find(options.data), std::string::npos) << finished.errors;
  EXPECT_NE(finished.errors.find("Permission denied"), std::string::npos) << finished.errors;

  // And the directory of the socket.
  spawn.args = {EngineProgram(), "--backend", "fake", "--socket", closed / "engine.sock", "--data", engine.data()};
  ASSERT_EQ(chown(options.data.c_str(), kStranger, kStranger), 0);
  const Finished socket = RunToEnd(spawn, kWaitMs);
  EXPECT_TRUE(socket.status.exited && socket.status.code == kExitCannotStart) << ToText(socket.status);
  EXPECT_NE(socket.errors.find("engine.sock"), std::string::npos) << socket.errors;
  EXPECT_NE(socket.errors.find("Permission denied"), std::string::npos) << socket.errors;
}

TEST_F(StartFault, AStatsSegmentThatAnotherUserOwnsIsAStartUpError) {
  std::string reason;
  if (!OtherUserCanRunEngine(kStranger, &reason)) GTEST_SKIP() << reason;
  EngineOptions options;
  options.uid = kStranger;
  options.args = {"--allow-uid", "0"};
  EngineProcess engine(options);
  const Result<std::string> name = StatsSegmentName(engine.socket(), kStranger);
  ASSERT_TRUE(name.ok()) << name.status().message();
  const int fd = shm_open(("/" + *name).c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  ASSERT_GE(fd, 0);
  close(fd);
  ExpectCannotStart(engine, kExitCannotStart, {*name});
  shm_unlink(("/" + *name).c_str());
  ASSERT_TRUE(engine.Start());  // as that user, unprivileged, it serves
}

TEST_F(StartFault, AUserWhoIsNotAllowedIsRefusedAndOneWhoIsAllowedIsServed) {
  std::string reason;
  if (!IsRoot()) GTEST_SKIP() << "needs root to become another user";
  EngineProcess engine;
  chmod(engine.directory().path().c_str(), 0755);
  const auto attach = [&](uid_t uid) {
    SpawnOptions spawn;
    spawn.args = {TestClientProgram(), "stream", "--socket", engine.socket(), "--count", "50"};
    spawn.uid = uid;
    return RunToEnd(spawn, kWaitMs);
  };
  engine.options().args = {"--socket-mode", "0666"};
  ASSERT_TRUE(engine.Start());
  const Finished refused = attach(kStranger);
  if (refused.status.exited && refused.status.code == kExecFailed) {
    GTEST_SKIP() << "another user cannot run the test client: it lies where only its builder can read";
  }
  EXPECT_TRUE(refused.status.exited && refused.status.code == 5) << ToText(refused.status) << refused.errors;
  EXPECT_NE(refused.errors.find("--allow-uid"), std::string::npos) << refused.errors;
  EXPECT_EQ(engine.Terminate().code, kExitClean);

  engine.options().args = {"--allow-uid", std::to_string(kStranger)};
  ASSERT_TRUE(engine.Start());
  const Finished served = attach(kStranger);
  EXPECT_TRUE(served.status.exited && served.status.code == 0) << ToText(served.status) << served.errors;
  EXPECT_EQ(attach(kStranger + 1).status.code, 5);
  EXPECT_EQ(engine.Terminate().code, kExitClean);

  engine.options().args = {"--allow-gid", std::to_string(kStranger)};
  ASSERT_TRUE(engine.Start());
  EXPECT_EQ(attach(kStranger).status.code, 0);
  EXPECT_EQ(attach(kStranger + 1).status.code, 5);
}

TEST_F(StartFault, WithoutIoUringItSaysSoAndLosesNothing) {
  EngineOptions options;
  options.forbid_io_uring = true;
  EngineProcess engine(options);
  ASSERT_TRUE(engine.Start());
  ExpectSays(engine, {"io_uring is not usable", "plain system calls"});
  Result<StatsReader> reader = StatsReader::OpenSocket(engine.socket());
  ASSERT_TRUE(reader.ok());
  EXPECT_EQ(reader->Snapshot()->disk_io, "posix");
  ExpectSurvivesKill(engine, "without io_uring");
}

TEST_F(StartFault, WhereIoUringIsDemandedAndForbiddenTheStartSaysHowToAllowIt) {
  EngineOptions options;
  options.forbid_io_uring = true;
  options.args = {"--disk-io", "io_uring"};
  EngineProcess engine(options);
  ExpectCannotStart(engine, kExitCannotStart, {"io_uring", "kernel.io_uring_disabled", "posix"});
}

TEST_F(StartFault, PlainSystemCallsCanBeAskedFor) {
  EngineOptions options;
  options.args = {"--disk-io", "posix"};
  EngineProcess engine(options);
  ASSERT_TRUE(engine.Start());
  EXPECT_EQ(engine.Stats().disk_io, "posix");
  ExpectSurvivesKill(engine, "plain system calls");
}

TEST_F(StartFault, WithoutACacheEveryTextIsComputed) {
  EngineOptions options;
  options.args = {"--no-cache"};
  EngineProcess engine(options);
  ASSERT_TRUE(engine.Start());
  const ClientHandle client = Attached(engine);
  for (int i = 0; i < 2; ++i) {
    const Reply reply = client.Embed("never kept");
    ExpectVector(reply, "never kept");
    EXPECT_EQ(reply.source, SUTRA_SOURCE_MODEL);
  }
}

// Rot of the log is detected, reported, and never served.
class DamagedLog : public StartFault {
 protected:
  // Flips a bit in the middle of the records of the oldest segment of a stopped engine.
  static void DamageOldestSegment(const EngineProcess& engine) {
    std::vector<std::string> segments;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(engine.data())) {
      if (entry.is_regular_file() && entry.file_size() >= 1 << 20) segments.push_back(entry.path());
    }
    ASSERT_FALSE(segments.empty());
    std::sort(segments.begin(), segments.end());
    std::fstream file(segments.front(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(3 * 4096 + 700);
    char byte = 0;
    file.get(byte);
    file.seekp(3 * 4096 + 700);
    file.put(static_cast<char>(byte ^ 0x10));
    ASSERT_TRUE(file.good());
  }
};

TEST_F(DamagedLog, IsReportedAndNeverServed) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const std::vector<std::string> texts = NumberedTexts("before the damage", 600);
  Attached(engine).EmbedBatch(texts);
  EXPECT_EQ(engine.Terminate().code, kExitClean);
  DamageOldestSegment(engine);

  engine.options().args = {"--strict-recovery"};
  ExpectCannotStart(engine, kExitCannotStart, {"cannot start"});
  engine.options().args.clear();
  ASSERT_TRUE(engine.Start());
  EXPECT_TRUE(engine.WaitStats([](const StatsSnapshot& s) { return s.gauge("quarantined_segments") > 0; }, 1));
  const std::vector<Reply> replies = Attached(engine).EmbedBatch(texts);
  for (size_t i = 0; i < texts.size(); ++i) ExpectVector(replies[i], texts[i]);
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
    EXPECT_EQ(client.Embed("nowhere but in memory").source, SUTRA_SOURCE_SHARD);
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
    EXPECT_EQ(Attached(engine).Embed(texts.back()).source, SUTRA_SOURCE_SHARD);
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
  EXPECT_EQ(client.Embed(texts.front()).source, SUTRA_SOURCE_SHARD);  // hits still work
  EXPECT_EQ(client.Embed(texts.back()).source, SUTRA_SOURCE_SHARD);   // also of what is in memory only

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
TEST_F(StartFault, AStartRemovesTheStatsOfEndedEnginesWhoseFolderIsGone) {
  std::string gone, kept, kept_socket;
  EngineProcess other;
  ASSERT_TRUE(other.Start());
  EXPECT_EQ(other.Terminate().code, kExitClean);
  {
    EngineProcess ended;
    ASSERT_TRUE(ended.Start());
    EXPECT_EQ(ended.Terminate().code, kExitClean);
    gone = *StatsSegmentName(ended.socket(), geteuid());
    kept = *StatsSegmentName(other.socket(), geteuid());
    std::filesystem::copy_file("/dev/shm/" + gone, "/dev/shm/" + gone.substr(0, gone.size() - 1) + "x");
    LeftOvers::Get().Add("/dev/shm/" + gone.substr(0, gone.size() - 1) + "x");
  }                                              // its directory is gone now
  gone = gone.substr(0, gone.size() - 1) + "x";  // the fixture removed the original
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  EXPECT_FALSE(std::filesystem::exists("/dev/shm/" + gone));
  EXPECT_TRUE(std::filesystem::exists("/dev/shm/" + kept));
  ExpectSays(engine, {gone});
}

}  // namespace
}  // namespace sutra::test
