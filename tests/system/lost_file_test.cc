// Files that are removed or replaced under a serving engine: noticed, said, shown, and put back where that is possible.
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "engine/exit_code.h"
#include "tests/kit/remove_live.h"
#include "tests/system/system_fixture.h"

namespace sutra::test {
namespace {

namespace fs = std::filesystem;

class LostFile : public SystemTest {
 protected:
  static bool Says(const EngineProcess& engine, const std::string& word) {
    return engine.Log().find(word) != std::string::npos;
  }
  static std::string Shard(const EngineProcess& engine) {
    return engine.data() + "/" + std::string(Attached(engine).info().identity).substr(0, 16);
  }
};

TEST_F(LostFile, ARemovedSocketIsBoundAgainAndNewClientsAttach) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const ClientHandle before = Attached(engine);
  for (const bool lock_too : {false, true}) {
    ASSERT_EQ(unlink(engine.socket().c_str()), 0);
    ASSERT_TRUE(!lock_too || unlink((engine.socket() + ".lock").c_str()) == 0);
    ASSERT_TRUE(engine.WaitStats([&](const StatsSnapshot&) { return fs::is_socket(engine.socket()); }));
    ExpectVector(Attached(engine).Embed("a new client"), "a new client");
    ExpectVector(before.Embed("an old client"), "an old client");
  }
  EXPECT_TRUE(Says(engine, "error the socket")) << engine.Log();
  EXPECT_EQ(engine.Stats().gauge(Gauge::kSocketLost), 0u);
  EXPECT_EQ(engine.Terminate().code, kExitClean);
  EXPECT_FALSE(fs::exists(engine.socket()));
}

TEST_F(LostFile, AFileInTheSocketsPlaceIsSaidShownAndLeftAlone) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const ClientHandle before = Attached(engine);
  ASSERT_EQ(unlink(engine.socket().c_str()), 0);
  WriteFile(engine.socket(), "another's");
  ASSERT_TRUE(engine.WaitStats([](const StatsSnapshot& s) { return s.gauge(Gauge::kSocketLost) == 1; }));
  EXPECT_TRUE(Says(engine, "new clients cannot attach")) << engine.Log();
  ExpectVector(before.Embed("served on"), "served on");
  EXPECT_EQ(ReadFile(engine.socket()), "another's");
  ASSERT_EQ(unlink(engine.socket().c_str()), 0);  // the way is free again
  ASSERT_TRUE(engine.WaitStats([](const StatsSnapshot& s) { return s.gauge(Gauge::kSocketLost) == 0; }));
  ExpectVector(Attached(engine).Embed("a new client"), "a new client");
}

TEST_F(LostFile, ALostDataDirectoryIsNeverCalledDurable) {
  for (const bool all : {false, true}) {
    EngineProcess engine;
    ASSERT_TRUE(engine.Start());
    const ClientHandle client = Attached(engine);
    ExpectVector(client.Embed("before"), "before");
    RemoveLive(all ? engine.data() : Shard(engine));
    ASSERT_TRUE(engine.WaitStats(
        [](const StatsSnapshot& s) { return s.gauge(Gauge::kDataLost) == 1 && s.gauge(Gauge::kStorageFailed) == 1; }));
    EXPECT_TRUE(Says(engine, "was removed or replaced while serving")) << engine.Log();
    const uint64_t dropped = engine.Stats().gauge(Gauge::kWalDroppedInserts);
    ExpectVector(client.Embed("after"), "after");
    EXPECT_TRUE(client.Embed("after").FromCache());  // from memory
    ASSERT_TRUE(
        engine.WaitStats([&](const StatsSnapshot& s) { return s.gauge(Gauge::kWalDroppedInserts) == dropped + 1; }));
    EXPECT_EQ(engine.Terminate().code, kExitIncomplete);  // the last sync could not be
  }
}

TEST_F(LostFile, ADataDirectoryThatIsMovedBackGoesOn) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const ClientHandle client = Attached(engine);
  const std::string shard = Shard(engine);
  fs::rename(shard, shard + ".away");
  ASSERT_TRUE(engine.WaitStats([](const StatsSnapshot& s) { return s.gauge(Gauge::kDataLost) == 1; }));
  fs::rename(shard + ".away", shard);
  ASSERT_TRUE(engine.WaitStats([](const StatsSnapshot& s) { return s.gauge(Gauge::kDataLost) == 0; }));
  ExpectVector(client.Embed("logged again"), "logged again");
  ASSERT_TRUE(engine.WaitWritten());
  engine.Kill();
  ASSERT_TRUE(engine.Start());
  EXPECT_TRUE(Attached(engine).Embed("logged again").FromCache());
}

}  // namespace
}  // namespace sutra::test
