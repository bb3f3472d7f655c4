// Public reports about programs around an engine: how texts reach a tool, what it does where it cannot write, and
// processes that end without a word. Each test names the reports it mirrors; "also tried" stands for situations that
// several of them describe.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "engine/exit_code.h"
#include "tests/kit/engine_process.h"
#include "tests/kit/tiny_model.h"
#include "tests/kit/watchdog.h"

namespace sutra::test {
namespace {

using nlohmann::json;

class ToolsReports : public testing::Test {
 protected:
  // A shell command; $EMBED, $STAT, $CLIENT and $ENGINE are programs, $S is the engine's socket, $D a directory.
  Finished Shell(const std::string& command, std::vector<std::string> environment = {}) {
    SpawnOptions spawn;
    spawn.args = {"/bin/bash", "-c", command};
    spawn.environment = {std::string("EMBED=") + SUTRA_EMBED_PROGRAM,
                         std::string("STAT=") + SUTRA_STAT_PROGRAM,
                         "CLIENT=" + TestClientProgram(),
                         "ENGINE=" + EngineProgram(),
                         "S=" + engine_.socket(),
                         "D=" + directory_.path()};
    spawn.environment.insert(spawn.environment.end(), environment.begin(), environment.end());
    return RunToEnd(spawn, kWaitMs);
  }
  static int CodeOf(const Finished& finished) { return finished.status.exited ? finished.status.code : -1; }
  static std::vector<json> LinesOf(const std::string& output) {
    std::istringstream stream(output);
    std::vector<json> lines;
    for (std::string line; std::getline(stream, line);) lines.push_back(json::parse(line));
    return lines;
  }
  static void ExpectVectorOf(const json& line, const std::string& text) {
    ASSERT_TRUE(line.contains("vector")) << line;
    EXPECT_TRUE(SameVector(line["vector"].get<std::vector<float>>(), ExpectedVector(text))) << line;
  }
  bool CanUnshare() { return CodeOf(Shell("unshare -pf --mount-proc true")) == 0; }

  const TempDir directory_;
  EngineProcess engine_;

 private:
  Watchdog watchdog_{std::chrono::seconds(100)};
};

constexpr const char* kNoNamespaces = "this user may not create a pid namespace";

// vectorize-io/hindsight#1875, openai/tiktoken#82: half of a surrogate pair in JSON.
TEST_F(ToolsReports, HalfASurrogatePairIsNamedAndTheOtherLinesGoOn) {
  ASSERT_TRUE(engine_.Start());
  WriteFile(directory_ / "in",
            "{\"text\":\"before\"}\n{\"text\":\"half \\ud83d end\"}\n{\"text\":\"\\udbc0\"}\n"
            "{\"text\":\"\\ud83d\\ude00\"}\n{\"text\":\"a\\u0000b\"}\n\n{\"text\":\"after\"}\n");
  const Finished finished = Shell("$EMBED --socket $S --input-format jsonl --input $D/in");
  EXPECT_EQ(CodeOf(finished), 1);
  const std::vector<json> lines = LinesOf(finished.output);
  ASSERT_EQ(lines.size(), 7u);
  ExpectVectorOf(lines[0], "before");
  for (const size_t half : {1, 2}) {
    EXPECT_NE(lines[half].value("error", "").find("half of a surrogate pair"), std::string::npos) << lines[half];
  }
  ExpectVectorOf(lines[3], "\xf0\x9f\x98\x80");
  ExpectVectorOf(lines[4], std::string("a\0b", 3));
  EXPECT_EQ(lines[5].value("error", "").rfind("line 6: blank line", 0), 0u) << lines[5];
  ExpectVectorOf(lines[6], "after");
}

// Also tried: byte order mark, line ends of Windows, Latin-1.
TEST_F(ToolsReports, ByteOrderMarkAndLineEndsOfWindowsAreNoPartOfAText) {
  ASSERT_TRUE(engine_.Start());
  WriteFile(directory_ / "in", "\xef\xbb\xbf{\"text\":\"one\"}\r\n{\"text\":\"two\"}\r\n");
  const Finished json_lines = Shell("$EMBED --socket $S --input-format jsonl --input $D/in");
  EXPECT_EQ(CodeOf(json_lines), 0) << json_lines.errors;
  ASSERT_EQ(LinesOf(json_lines.output).size(), 2u);
  ExpectVectorOf(LinesOf(json_lines.output)[0], "one");
  ExpectVectorOf(LinesOf(json_lines.output)[1], "two");
  WriteFile(directory_ / "in", "one\r\ntwo\r\n");
  const Finished plain = Shell("$EMBED --socket $S --input $D/in");
  ASSERT_EQ(LinesOf(plain.output).size(), 2u);
  ExpectVectorOf(LinesOf(plain.output)[1], "two");
}

TEST_F(ToolsReports, Latin1IsMarkedLineByLine) {
  ASSERT_TRUE(engine_.Start());
  WriteFile(directory_ / "in", "plain\ncaf\xe9\nplain too\n");
  const Finished finished = Shell("$EMBED --socket $S --input $D/in");
  EXPECT_EQ(CodeOf(finished), 1);
  const std::vector<json> lines = LinesOf(finished.output);
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[1].value("error", "").rfind("line 2: invalid UTF-8", 0), 0u) << lines[1];
  ExpectVectorOf(lines[2], "plain too");
}

// Also tried: UTF-16. Lines of ASCII characters are valid UTF-8 there, each character beside a NUL.
TEST_F(ToolsReports, Utf16IsRefusedAsAWholeAndNeverEmbeddedAsAnotherText) {
  ASSERT_TRUE(engine_.Start());
  for (const std::string& input :
       {std::string("\xff\xfeh\0i\0\n\0h\0o\0\n\0", 14), std::string("\xfe\xff\0h\0i\0\n\0h\0o\0\n", 14)}) {
    WriteFile(directory_ / "in", input);
    const Finished finished = Shell("$EMBED --socket $S --input $D/in");
    EXPECT_EQ(CodeOf(finished), 2);
    EXPECT_EQ(finished.output, "");
    EXPECT_NE(finished.errors.find("UTF-16"), std::string::npos) << finished.errors;
  }
}

// Also tried: a reader that has enough, a full disk, another locale, a line of 10 MB.
TEST_F(ToolsReports, AReaderThatHasEnoughEndsTheRunAsInAnyPipe) {
  ASSERT_TRUE(engine_.Start());
  const Finished finished = Shell(
      "for i in $(seq 20000); do echo text $i; done | $EMBED --socket $S --quiet | head -1 >$D/out; "
      "exit ${PIPESTATUS[1]}");
  EXPECT_EQ(CodeOf(finished), 128 + SIGPIPE) << finished.errors;
  const std::vector<json> lines = LinesOf(ReadFile(directory_ / "out"));
  ASSERT_EQ(lines.size(), 1u);
  ExpectVectorOf(lines[0], "text 1");
}

TEST_F(ToolsReports, TheLocaleChangesNoByte) {
  ASSERT_TRUE(engine_.Start());
  WriteFile(directory_ / "in", "zweite Zeile \xC3\xA4\n\xE6\xBC\xA2\xE5\xAD\x97\n1,5\n");
  const std::string command = "$EMBED --socket $S --quiet --input $D/in";
  const Finished plain = Shell(command, {"LC_ALL=C", "TZ=Asia/Tokyo"});
  EXPECT_EQ(CodeOf(plain), 0) << plain.errors;
  for (const char* locale : {"LC_ALL=C.UTF-8", "LC_ALL=de_DE.UTF-8", "LC_ALL=tr_TR.UTF-8"}) {
    EXPECT_EQ(Shell(command, {locale}).output, plain.output) << locale;
  }
}

TEST_F(ToolsReports, ALineOfTenMegabytesIsRefusedWithTheLimitAndTheOthersGoOn) {
  engine_.options().args = {"--text-bytes-max", "65536"};
  ASSERT_TRUE(engine_.Start());
  WriteFile(directory_ / "in", "one\n" + std::string(10'000'000, 'x') + "\nthree\n");
  const Finished finished = Shell("$EMBED --socket $S --input $D/in");
  EXPECT_EQ(CodeOf(finished), 1);
  const std::vector<json> lines = LinesOf(finished.output);
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[1].value("error", "").rfind("line 2: text too long: 10000000 bytes, the engine takes 65536", 0), 0u);
  ExpectVectorOf(lines[2], "three");
}

// getdango/dango#339, bmc/daemonize#34, livegrep/livegrep#129, juce/sockproc#13: started without standard descriptors.
TEST_F(ToolsReports, MissingStandardDescriptorsAreNeverAnotherFile) {
  ASSERT_TRUE(engine_.Start());
  EXPECT_EQ(CodeOf(Shell("$EMBED --socket $S --quiet <&-")), 2);
  EXPECT_EQ(CodeOf(Shell("echo aa | $EMBED --socket $S --quiet >&-")), 3);
  EXPECT_EQ(CodeOf(Shell("echo aa >$D/in; $EMBED --socket $S --input $D/in --output $D/out <&- >&- 2>&-")), 0);
  const std::vector<json> lines = LinesOf(ReadFile(directory_ / "out"));
  ASSERT_EQ(lines.size(), 1u);
  ExpectVectorOf(lines[0], "aa");
  EXPECT_EQ(CodeOf(Shell("echo aa >$D/in; $EMBED --socket $S --input $D/in --output $D/out 2>/dev/full")), 0);
  EXPECT_EQ(CodeOf(Shell("$STAT --socket $S >/dev/full")), 1);
}

// eclipse-iceoryx/iceoryx#42, #1471, rticommunity/kubernetes-examples#16: client and engine in different pid
// namespaces.
TEST_F(ToolsReports, AClientThatIsKilledInAnotherPidNamespaceLosesItsLane) {
  if (!CanUnshare()) GTEST_SKIP() << kNoNamespaces;
  ASSERT_TRUE(engine_.Start());
  SpawnOptions spawn;
  spawn.args = {"/usr/bin/unshare",  "-pf",    "--kill-child", "--mount-proc",
                TestClientProgram(), "attach", "--socket",     engine_.socket()};
  spawn.pipe_output = true;
  spawn.log_path = directory_ / "client.log";
  ChildProcess client(spawn);
  ASSERT_TRUE(client.ReadLine(kWaitMs).has_value()) << client.Log();
  ASSERT_TRUE(engine_.WaitLanes(1));
  client.Kill();
  EXPECT_TRUE(engine_.WaitLanes(0));
  EXPECT_TRUE(engine_.WaitStats([](const StatsSnapshot& s) { return s.counter(Counter::kLanesDead) == 1; }));
}

TEST_F(ToolsReports, AnEngineThatDiesInAnotherPidNamespaceEndsTheRunAndReadsAsCrashed) {
  if (!CanUnshare()) GTEST_SKIP() << kNoNamespaces;
  const std::string sockets = directory_ / "sockets";
  std::filesystem::create_directory(sockets);
  const std::string socket = sockets + "/e.sock";
  SpawnOptions spawn;  // it is number 1 there
  spawn.args = {"/usr/bin/unshare", "-pf",  "--kill-child", "--mount-proc",     EngineProgram(), "--backend", "fake",
                "--socket",         socket, "--data",       directory_ / "data"};
  spawn.log_path = directory_ / "engine.log";
  ChildProcess engine(spawn);
  const Finished embedded =
      Shell("until echo text | $EMBED --quiet --socket " + socket + " 2>/dev/null; do sleep .05; done");
  ASSERT_EQ(LinesOf(embedded.output).size(), 1u) << engine.Log();
  const Finished alive = Shell("$STAT --json --socket " + socket);
  EXPECT_EQ(CodeOf(alive), 0) << alive.errors;
  const std::string segment = json::parse(alive.output).value("segment", "");
  engine.Kill();
  EXPECT_EQ(CodeOf(Shell("echo more | $EMBED --quiet --socket " + socket)), 2);
  // The lock file is the witness; without it, number 1 outside is another program and no sign of life.
  std::filesystem::remove_all(sockets);
  Finished stat = Shell("$STAT --segment " + segment);
  while (CodeOf(stat) == 0) stat = Shell("$STAT --segment " + segment);  // until the heartbeat is old
  EXPECT_EQ(CodeOf(stat), 3) << stat.errors;
  EXPECT_EQ(stat.output.rfind("engine    crashed", 0), 0u) << stat.output;
  std::filesystem::remove("/dev/shm/" + segment);
}

// sgl-project/sglang#40723, ZoneMinder/zoneminder#1924, shadow/shadow#2266: /dev/shm of 64 MB, of 16 KB.
TEST_F(ToolsReports, AFullDevShmIsAnErrorAtStartWithTheFixNotASignal) {
  // Starts the engine below, stops it as soon as it served a text, and ends with its exit code.
  const auto with = [&](const std::string& size) {
    return Shell("unshare -m /bin/bash -c 'mount -t tmpfs -o size=" + size +
                 " tmpfs /dev/shm && { $ENGINE --backend fake --socket $D/s --data $D/data & engine=$!; "
                 "until echo x | $EMBED --quiet --socket $D/s >$D/out 2>/dev/null; do "
                 "test -e /proc/$engine/exe || break; sleep .05; done; "
                 "kill -TERM $engine 2>/dev/null; wait $engine; }'");
  };
  if (CodeOf(Shell("unshare -m mount -t tmpfs tmpfs /dev/shm")) != 0) GTEST_SKIP() << "this user may not mount";
  const Finished full = with("16k");
  EXPECT_EQ(CodeOf(full), kExitCannotStart) << ToText(full.status) << full.errors;
  EXPECT_NE(full.errors.find("no room for"), std::string::npos) << full.errors;
  EXPECT_NE(full.errors.find("remount"), std::string::npos) << full.errors;
  const Finished enough = with("64m");
  EXPECT_EQ(CodeOf(enough), kExitClean) << enough.errors;
  ASSERT_EQ(LinesOf(ReadFile(directory_ / "out")).size(), 1u) << enough.errors;
}

// Also tried: two engines on one data directory.
TEST_F(ToolsReports, ASecondEngineOnTheSameDataNamesTheFirst) {
  ASSERT_TRUE(engine_.Start());
  EngineOptions options;
  options.data = engine_.data();
  EngineProcess second(options);
  second.Launch();
  EXPECT_EQ(second.WaitEnd().code, kExitLocked);
  EXPECT_NE(second.Log().find(std::to_string(engine_.process().pid())), std::string::npos) << second.Log();
}

// Also tried: a git-lfs pointer instead of the weights, half a download, a model path with blanks and umlauts.
TEST_F(ToolsReports, WeightsThatAreNoneAreNamedAtStart) {
  TinyModel model;
  model.Save();
  const std::string whole = ReadFile(model.directory() / "model.safetensors");
  const std::string pointer =
      "version https://git-lfs.github.com/spec/v1\noid "
      "sha256:53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab1"
      "28d9db\nsize 90868376\n";
  for (const std::string& bytes : {pointer, whole.substr(0, whole.size() / 2), std::string()}) {
    WriteFile(model.directory() / "model.safetensors", bytes);
    const Finished finished = Shell("$ENGINE --model " + model.path() + " --socket $D/s --data $D/data");
    EXPECT_EQ(CodeOf(finished), kExitCannotStart) << finished.errors;
    EXPECT_NE(finished.errors.find("model.safetensors"), std::string::npos) << finished.errors;
  }
}

TEST_F(ToolsReports, AModelPathMayHaveBlanksAndUmlauts) {
  TinyModel model;
  model.Save();
  const std::string path = directory_ / "mein Mod\xc3\xa4ll \xf0\x9f\x98\x80";
  std::filesystem::copy(model.path(), path, std::filesystem::copy_options::recursive);
  const Finished finished = Shell("echo x | $EMBED --ids --quiet --model \"$MODEL\"", {"MODEL=" + path});
  EXPECT_EQ(CodeOf(finished), 0) << finished.errors;
  EXPECT_EQ(LinesOf(finished.output).size(), 1u);
}

}  // namespace
}  // namespace sutra::test
