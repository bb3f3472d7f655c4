// Faults around the start of an engine: what keeps it from starting is reported with its cause and its fix.
#include "tests/system/start_fault.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "shm/stats/stats_name.h"
#include "tests/kit/small_disk.h"

namespace sutra::test {
namespace {

constexpr uid_t kStranger = 54321;

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

TEST_F(StartFault, MoreLanesThanTheDescriptorLimitCarriesAreAnErrorIfTheyWereAskedFor) {
  EngineProcess engine;
  engine.options().limits = {{RLIMIT_NOFILE, 304}};
  engine.options().args = {"--lanes-max", "41"};
  ExpectCannotStart(engine, kExitCannotStart, {"304", "40 lanes", "41", "LimitNOFILE=", "310"});
  engine.options().args = {};
  ASSERT_TRUE(engine.Start());
  ExpectSays(engine, {"40 lanes, not the 256 of --lanes-max"});
  EXPECT_TRUE(engine.WaitStats([](const StatsSnapshot& s) { return s.gauge(Gauge::kLanesMax) == 40; }));
}

TEST_F(StartFault, ALaneThatNoClientMayHaveIsAnErrorThatNamesTheNumbersAndTheFix) {
  EngineProcess engine;
  engine.options().args = {"--text-bytes-max", "2097152", "--slots", "1024", "--lane-bytes-per-client-max", "16777216"};
  ExpectCannotStart(engine, kExitCannotStart, {"1024 slots", "2097152", "16777216", "--lane-bytes-per-client-max"});
  engine.options().args.resize(4);
  ASSERT_TRUE(engine.Start());
  EXPECT_EQ(Attached(engine).info().slots, 1024u) << "a share that is derived holds one lane";
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

// Its log names the paths too, and must stay one line a message.
TEST_F(StartFault, WhatItPrintsAtStartIsAConfigurationFileWhateverThePathsContain) {
  EngineProcess engine;
  const std::string name = "/d'#;=x\n[default]\nslots=4 \"\\\t";
  engine.options().data = engine.directory() / "data" + name;
  engine.options().args = {"--ttl-s", "77"};
  ASSERT_TRUE(engine.Start());
  ExpectServes(engine, "stored at an odd place");
  EXPECT_EQ(engine.Terminate().code, kExitClean);
  EXPECT_NE(engine.Log().find("/d'#;=x\\n[default]\\nslots=4 \\\"\\\\\\t\"\n"), std::string::npos) << engine.Log();
  WriteFile(engine.directory() / "engine.conf", engine.Log());
  engine.options().args = {"--config", engine.directory() / "engine.conf"};
  ASSERT_TRUE(engine.Start());
  ExpectSays(engine, {"\nttl-s=77\n"});
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
  EXPECT_TRUE(Attached(engine).Embed(text).FromCache());  // untouched meanwhile
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

// In a /dev/shm of its own: elsewhere any engine that another test starts may be the one that removes it.
TEST_F(StartFault, AStartRemovesTheStatsOfEndedEnginesWhoseFolderIsGone) {
  const SmallDisk shared_memory("/dev/shm", "4m");
  if (!shared_memory.mounted()) GTEST_SKIP() << kCannotMount;
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
