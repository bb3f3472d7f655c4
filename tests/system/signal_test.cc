// Signals that operators and tools send, limits that end other programs, and descriptors that are missing at the start:
// none of them ends an engine.
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "engine/exit_code.h"
#include "tests/kit/tiny_model.h"
#include "tests/system/system_fixture.h"

namespace sutra::test {
namespace {

class Signals : public SystemTest {};

TEST_F(Signals, HangUpAndUserSignalsAreIgnoredWithALineEach) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const ClientHandle client = Attached(engine);
  const std::pair<int, const char*> signals[] = {{SIGHUP, "SIGHUP"}, {SIGUSR1, "SIGUSR1"}, {SIGUSR2, "SIGUSR2"}};
  for (const auto& [number, name] : signals) {
    engine.process().Signal(number);
    ASSERT_TRUE(engine.WaitStats([&](const StatsSnapshot&) {
      return !engine.running() || engine.Log().find(std::string(name) + " is ignored") != std::string::npos;
    }));
    ASSERT_TRUE(engine.running()) << name;
    ExpectVector(client.Embed(name), name);
  }
  EXPECT_EQ(engine.Terminate().code, kExitClean);
}

TEST_F(Signals, BrokenPipesAndFileSizeSignalsAreIgnored) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const ClientHandle client = Attached(engine);
  for (const int number : {SIGPIPE, SIGXFSZ}) {
    engine.process().Signal(number);
    ExpectVector(client.Embed("after signal " + std::to_string(number)), "after signal " + std::to_string(number));
  }
  EXPECT_EQ(engine.Terminate().code, kExitClean);
}

// The portable kernels take longer for these widths than anybody would wait, on any CPU.
TEST_F(Signals, AStopWhileInt8IsPreparedEndsTheStartAtOnce) {
  TinyModel model({.hidden = 256, .heads = 4, .intermediate = 1024, .layers = 4});
  model.Save();
  EngineProcess engine;
  engine.options().args = {"--backend", "torch",       "--model", model.path(), "--executor",
                           "cpu",       "--precision", "int8",    "--cpu-isa",  "portable"};
  engine.Launch();
  while (engine.running() && engine.Log().find("preparing the weights") == std::string::npos) usleep(1000);
  EXPECT_EQ(engine.Terminate().code, kExitClean);
  EXPECT_NE(engine.Log().find("while the model was loading"), std::string::npos);
  EXPECT_EQ(engine.Log().find("int8: prepared"), std::string::npos);
  EXPECT_TRUE(std::filesystem::is_empty(engine.data())) << "what the start had made is gone again";
}

// ulimit -f: a failure of the disk like any other. Lanes that are there go on; a new one is refused with the reason.
TEST_F(Signals, AFileSizeLimitFailsTheStorageAndEndsNothing) {
  EngineProcess engine;
  engine.options().environment = {"SUTRA_FAKE_TOKENS_MAX=65536"};
  ASSERT_TRUE(engine.Start());
  const ClientHandle client = Attached(engine);
  const rlimit small = {.rlim_cur = 65'536, .rlim_max = 65'536};
  ASSERT_EQ(prlimit(engine.process().pid(), RLIMIT_FSIZE, &small, nullptr), 0);
  const std::vector<std::string> texts = NumberedTexts("over the limit", 40);
  for (const std::string& text : texts) {
    const std::string longer = text + std::string(30'000, 'x');
    ExpectVector(client.Embed(longer), longer);
  }
  // Full if the reserve failed first, failed if a write did.
  const auto said = [](const StatsSnapshot& s) {
    return s.gauge(Gauge::kStorageFailed) == 1 || s.gauge(Gauge::kLogFull) == 1;
  };
  ASSERT_TRUE(engine.WaitStats(said));
  EXPECT_NE(engine.Log().find("File too large"), std::string::npos) << engine.Log();
  ClientHandle late;
  EXPECT_EQ(late.Attach(engine.socket()), SUTRA_OUT_OF_MEMORY);
  EXPECT_NE(std::string(sutra_error_text()).find("ulimit -f"), std::string::npos) << sutra_error_text();
  ExpectVector(client.Embed("still served"), "still served");
  const ExitStatus status = engine.Terminate();
  EXPECT_TRUE(status.exited) << ToText(status);
}

// The very first line of the log meets the limit.
TEST_F(Signals, AFullLogFileEndsNoStart) {
  EngineProcess engine;
  constexpr uint64_t kLimit = 32 << 20;  // a lane fits
  WriteFile(engine.directory() / "engine.log", "");
  ASSERT_EQ(truncate((engine.directory() / "engine.log").c_str(), kLimit), 0);
  engine.options().limits = {{RLIMIT_FSIZE, kLimit}};
  engine.options().args = {"--no-cache"};
  EXPECT_TRUE(engine.Start());
  EXPECT_EQ(engine.Terminate().code, kExitClean);
}

// Without descriptors 0 to 2 the first files that the engine opens must not become its standard error.
TEST_F(Signals, AnEngineWithoutStandardDescriptorsServesAndLogsIntoNoFileOfItsOwn) {
  EngineProcess engine;
  engine.options().close_standard_descriptors = true;
  ASSERT_TRUE(engine.Start());
  for (int fd = 0; fd <= 2; ++fd) {
    char target[64] = {};
    const std::string link = "/proc/" + std::to_string(engine.process().pid()) + "/fd/" + std::to_string(fd);
    ASSERT_GT(readlink(link.c_str(), target, sizeof(target) - 1), 0) << link;
    EXPECT_STREQ(target, "/dev/null") << fd;
  }
  ExpectVector(Attached(engine).Embed("served"), "served");
  EXPECT_EQ(engine.Terminate().code, kExitClean);
}

}  // namespace
}  // namespace sutra::test
