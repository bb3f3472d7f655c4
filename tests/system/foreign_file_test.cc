// What the engine finds at its paths that no engine made: named, never touched; and what a start that fails leaves.
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <set>

#include "shm/base/unique_fd.h"
#include "shm/stats/stats_name.h"
#include "tests/system/start_fault.h"

namespace sutra::test {
namespace {

namespace fs = std::filesystem;

class ForeignFile : public StartFault {
 protected:
  // A socket of another program at this path.
  static UniqueFd Listen(const std::string& path, int type) {
    UniqueFd fd(socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.c_str(), path.size());
    EXPECT_EQ(bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_EQ(listen(fd.get(), 8), 0);
    return fd;
  }
  static std::set<std::string> Everything(const TempDir& directory) {
    std::set<std::string> names;
    for (const auto& entry : fs::recursive_directory_iterator(directory.path())) names.insert(entry.path());
    return names;
  }
};

TEST_F(ForeignFile, ARegularFileAtAnyPathOfTheEngineIsNamedAndStays) {
  EngineProcess engine;
  fs::create_directories(engine.data());
  for (const std::string& path :
       {engine.socket(), engine.socket() + ".new", engine.socket() + ".lock", engine.data() + "/LOCK"}) {
    WriteFile(path, "the only copy");
    ExpectCannotStart(engine, kExitCannotStart, {path, "move it away"});
    EXPECT_EQ(ReadFile(path), "the only copy") << path;
    unlink(path.c_str());
  }
  ASSERT_TRUE(engine.Start());  // the canary: without them it serves
}

TEST_F(ForeignFile, ALinkIsNotFollowed) {
  EngineProcess engine;
  fs::create_directories(engine.data());
  const std::string target = engine.directory() / "precious.db";
  for (const std::string& path :
       {engine.socket(), engine.socket() + ".new", engine.socket() + ".lock", engine.data() + "/LOCK"}) {
    WriteFile(target, "the only copy");
    ASSERT_EQ(symlink(target.c_str(), path.c_str()), 0);
    ExpectCannotStart(engine, kExitCannotStart, {path, "symbolic link"});
    EXPECT_TRUE(fs::is_symlink(path)) << path;
    EXPECT_EQ(ReadFile(target), "the only copy");
    unlink(path.c_str());
  }
}

TEST_F(ForeignFile, ALiveSocketOfAnotherProgramIsNamedAndStillServed) {
  for (const int type : {SOCK_STREAM, SOCK_SEQPACKET}) {
    EngineProcess engine;
    const UniqueFd other = Listen(engine.socket(), type);
    ExpectCannotStart(engine, kExitCannotStart, {engine.socket(), "another program uses a socket there"});
    const UniqueFd client(socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, engine.socket().c_str(), engine.socket().size());
    EXPECT_EQ(connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  }
}

TEST_F(ForeignFile, WhatTookTheSocketsPlaceStaysWhenTheEngineStops) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  ASSERT_EQ(unlink(engine.socket().c_str()), 0);
  WriteFile(engine.socket(), "another's");
  EXPECT_EQ(engine.Terminate().code, kExitClean);
  EXPECT_EQ(ReadFile(engine.socket()), "another's");
}

// However far a start gets: directory, locks, stats segment and shard that it made are gone afterwards.
TEST_F(ForeignFile, AFailedStartLeavesNothingBehindThatItMade) {
  const TempDir directory;
  const std::string data = directory / "var/lib/sutra", socket = directory / "e.sock";
  const std::string full = directory / "notadirectory";
  WriteFile(full, "x");
  struct Case {
    const char* name;
    std::vector<std::string> args;
    std::function<void()> prepare, clean;
  };
  const Case cases[] = {
      {"the socket's folder is missing", {"--backend", "fake", "--socket", directory / "run/e.sock"}, {}, {}},
      {"a file at the socket's path",
       {"--backend", "fake", "--socket", socket},
       [&] { WriteFile(socket, "x"); },
       [&] { unlink(socket.c_str()); }},
      {"no model", {"--model", directory / "none", "--socket", socket}, {}, {}},
      {"the data's parent is a file", {"--backend", "fake", "--socket", socket, "--data", full + "/data"}, {}, {}},
  };
  for (const Case& one : cases) {
    if (one.prepare) one.prepare();
    const std::set<std::string> before = Everything(directory);
    SpawnOptions spawn;
    spawn.args = {EngineProgram()};
    spawn.args.insert(spawn.args.end(), one.args.begin(), one.args.end());
    if (std::find(one.args.begin(), one.args.end(), "--data") == one.args.end()) {
      spawn.args.insert(spawn.args.end(), {"--data", data});
    }
    const Finished finished = RunToEnd(spawn, kWaitMs);
    EXPECT_EQ(finished.status.code, kExitCannotStart) << one.name << finished.errors;
    EXPECT_EQ(Everything(directory), before) << one.name;
    if (one.clean) one.clean();
    const Result<std::string> name = StatsSegmentName(socket, geteuid());
    EXPECT_FALSE(fs::exists("/dev/shm/" + *name)) << one.name;
  }
}

// What an earlier, successful start made is not taken away by a start that fails.
// Each limit on processes and threads lets the start come a thread further.
TEST_F(ForeignFile, AStartThatGetsNoThreadLeavesNothingBehind) {
#if defined(SUTRA_SANITIZE)
  GTEST_SKIP() << "the sanitizers' own threads fall under the limit";
#endif
  constexpr uid_t kUser = 54322;
  std::string reason;
  if (!OtherUserCanRunEngine(kUser, &reason)) GTEST_SKIP() << reason;
  EngineOptions options;
  options.uid = kUser;
  options.args = {"--allow-uid", "0"};
  EngineProcess engine(options);
  const std::set<std::string> before = Everything(engine.directory());
  int refused = 0;
  for (uint64_t limit = 1;; ++limit) {
    ASSERT_LT(limit, 50u);
    engine.options().limits = {{RLIMIT_NPROC, limit}};
    engine.Launch();
    ClientHandle client;
    while (engine.running() && client.Attach(engine.socket()) != SUTRA_OK) poll(nullptr, 0, 1);
    if (client.get() != nullptr) break;  // enough
    const ExitStatus status = engine.WaitEnd();
    EXPECT_TRUE(status.exited && status.code == kExitCannotStart) << ToText(status) << engine.Log();
    std::set<std::string> left = Everything(engine.directory());
    for (const std::string& name : before) left.erase(name);
    left.erase(engine.directory() / "engine.log");
    left.erase(engine.data());  // the fixture made it
    EXPECT_TRUE(left.empty()) << limit << ": " << *left.begin();
    ++refused;
  }
  EXPECT_GT(refused, 1);
  EXPECT_EQ(engine.Terminate().code, kExitClean);
}

TEST_F(ForeignFile, AFailedStartKeepsWhatWasThereBefore) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  ExpectVector(Attached(engine).Embed("kept"), "kept");
  EXPECT_EQ(engine.Terminate().code, kExitClean);
  WriteFile(engine.socket(), "in the way");
  ExpectCannotStart(engine, kExitCannotStart, {engine.socket()});
  unlink(engine.socket().c_str());
  EXPECT_TRUE(fs::exists(engine.data() + "/LOCK"));
  EXPECT_TRUE(fs::exists(engine.socket() + ".lock"));
  ASSERT_TRUE(engine.Start());
  EXPECT_TRUE(Attached(engine).Embed("kept").FromCache());
}

}  // namespace
}  // namespace sutra::test
