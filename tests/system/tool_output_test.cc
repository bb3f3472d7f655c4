// Every output of every tool where it cannot be written, and every standard descriptor missing: an exit code and a
// message, never an abort, a hang or a success with nothing written.
#include <unistd.h>

#include <algorithm>

#include "engine/exit_code.h"
#include "tests/system/system_fixture.h"

namespace sutra::test {
namespace {

class ToolOutput : public SystemTest {
 protected:
  void SetUp() override {
    if (access("/dev/full", W_OK) != 0) GTEST_SKIP() << "this host has no /dev/full";
    ASSERT_TRUE(engine_.Start());
    WriteFile(engine_.directory() / "input", "one\ntwo\n");
  }
  // A shell command; $EMBED, $STAT, $STUDY and $ENGINE are the programs, $S the socket, $D a directory with `input`.
  Finished Shell(const std::string& command) {
    SpawnOptions spawn;
    spawn.args = {"/bin/sh", "-c", command};
    spawn.environment = {std::string("EMBED=") + SUTRA_EMBED_PROGRAM,
                         std::string("STAT=") + SUTRA_STAT_PROGRAM,
                         std::string("STUDY=") + SUTRA_CASESTUDY_PROGRAM,
                         "ENGINE=" + EngineProgram(),
                         "S=" + engine_.socket(),
                         "D=" + engine_.directory().path()};
    return RunToEnd(spawn, kWaitMs);
  }
  void ExpectCode(const std::string& command, int code) {
    const Finished finished = Shell(command);
    EXPECT_TRUE(finished.status.exited && finished.status.code == code)
        << command << "\n"
        << ToText(finished.status) << ", expected " << code << "\n"
        << finished.errors;
  }
  // Fails with `code` and a message that names the output.
  void ExpectFull(const std::string& command, int code) {
    const Finished finished = Shell(command);
    EXPECT_TRUE(finished.status.exited && finished.status.code == code)
        << command << "\n"
        << ToText(finished.status) << ", expected " << code << "\n"
        << finished.errors;
    EXPECT_NE(finished.errors.find("No space left on device"), std::string::npos) << command << "\n" << finished.errors;
  }
  static size_t LineCount(const std::string& path) {
    const std::string content = ReadFile(path);
    return static_cast<size_t>(std::count(content.begin(), content.end(), '\n'));
  }
  EngineProcess engine_;
};

TEST_F(ToolOutput, FullStandardOutputIsAnErrorOfEveryTool) {
  for (const char* format : {"jsonl", "npy"}) {
    ExpectFull(std::string("$EMBED --socket $S --input $D/input --output-format ") + format + " >/dev/full", 3);
  }
  ExpectFull("$EMBED --help >/dev/full", 3);
  for (const char* mode :
       {"", "--json", "--list", "--watch 0.05 --count 2", "--json --watch 0.05 --count 2", "--help"}) {
    ExpectFull(std::string("$STAT --socket $S ") + mode + " >/dev/full", 1);
  }
  for (const char* mode : {"", "--json", "--dump", "--mode batch", "--help"}) {
    ExpectFull(std::string("$STUDY --socket $S --companies 1 --days 1 ") + mode + " >/dev/full", 3);
  }
}

TEST_F(ToolOutput, FullStandardOutputIsAnErrorOfTheEngineToo) {
  ExpectFull("$ENGINE --help >/dev/full", 3);
  ExpectFull("$ENGINE --version >/dev/full", 3);
}

TEST_F(ToolOutput, AFullOutputFileIsAnError) {
  ExpectFull("$EMBED --socket $S --input $D/input --output /dev/full", 3);
}

TEST_F(ToolOutput, AnOutputFileOverTheLimitOfThisUserIsAnErrorNotASignal) {
  const Finished finished = Shell(
      "for i in $(seq 2000); do echo text $i; done >$D/many; ulimit -f 8; "
      "$EMBED --socket $S --input $D/many --output $D/out");
  EXPECT_TRUE(finished.status.exited && finished.status.code == 3) << ToText(finished.status) << finished.errors;
}

TEST_F(ToolOutput, AFullStandardErrorLosesTheSummaryAndNothingElse) {
  ExpectCode("$EMBED --socket $S --input $D/input --output $D/out 2>/dev/full", 0);
  EXPECT_EQ(LineCount(engine_.directory() / "out"), 2u);
  ExpectCode("$EMBED --socket $S --input $D/missing 2>/dev/full", 2);
  ExpectCode("$EMBED --nonsense 2>/dev/full", 2);
  ExpectCode("$STAT --socket $D/nobody 2>/dev/full", 1);
  ExpectCode("$STAT --nonsense 2>/dev/full", 1);
  ExpectCode("$STUDY --socket $D/nobody 2>/dev/full", 2);
  ExpectCode("$STUDY 2>/dev/full", 2);
}

TEST_F(ToolOutput, AClosedStandardInputIsAnErrorNotAnotherFile) {
  ExpectCode("$EMBED --socket $S --quiet <&-", 2);
  ExpectCode("$EMBED --socket $S --quiet --input $D/input <&-", 0);
}

TEST_F(ToolOutput, AClosedStandardOutputIsAnErrorNotAnotherFile) {
  ExpectCode("$EMBED --socket $S --input $D/input >&-", 3);
  ExpectCode("$STAT --socket $S >&-", 1);
  ExpectCode("$STUDY --socket $S --companies 1 --days 1 >&-", 3);
  for (const char* option : {"--version", "--help"}) {
    const Finished finished = Shell(std::string("$ENGINE ") + option + " >&-");
    EXPECT_TRUE(finished.status.exited && finished.status.code == kExitCannotStart) << ToText(finished.status);
    EXPECT_NE(finished.errors.find("Bad file descriptor"), std::string::npos) << finished.errors;
  }
}

TEST_F(ToolOutput, WithoutAnyStandardDescriptorFilesStillWork) {
  ExpectCode("$EMBED --socket $S --input $D/input --output $D/out <&- >&- 2>&-", 0);
  EXPECT_EQ(LineCount(engine_.directory() / "out"), 2u);
  ExpectCode("$EMBED --socket $S --input $D/input --output $D/out.npy --output-format npy <&- >&- 2>&-", 0);
  ExpectCode("$STAT --socket $S <&- 2>&-", 0);
}

TEST_F(ToolOutput, CanaryAWritableOutputIsNoError) {
  ExpectCode("$EMBED --socket $S --input $D/input >$D/out", 0);
  ExpectCode("$STAT --socket $S >$D/out", 0);
  ExpectCode("$STUDY --socket $S --companies 1 --days 1 >$D/out", 0);
}

}  // namespace
}  // namespace sutra::test
