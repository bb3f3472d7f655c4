#include "engine/config.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

namespace sutra {
namespace {

using Args = std::vector<std::string>;

Args With(const Args& more) {
  Args args = {"--backend", "fake", "--socket", "s", "--data", "d"};
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

std::string ErrorOf(const Args& args) {
  const Result<ParsedConfig> parsed = ParseConfig(args);
  if (parsed.ok()) return "accepted";
  EXPECT_EQ(parsed.code(), StatusCode::kBadOption);
  return parsed.status().message();
}

class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& text) {
    char path[] = "sutra-config-XXXXXX";
    close(mkstemp(path));
    path_ = path;
    std::ofstream(path_) << text;
  }
  ~TemporaryFile() { std::remove(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

TEST(Config, DefaultsAreThoseOfTheDocumentation) {
  const Result<ParsedConfig> parsed = ParseConfig(With({}));
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  const EngineConfig& config = parsed.value().config;
  EXPECT_EQ(config.slots, 256u);
  EXPECT_EQ(config.text_bytes_max, 16u << 20);
  EXPECT_EQ(config.ttl_s, 86'400u);
  EXPECT_EQ(config.spin_us, 50u);
  EXPECT_EQ(config.drain_s, 30u);
  EXPECT_FALSE(config.standby);
  EXPECT_EQ(config.durability, DurabilityPolicy::kInterval);
  EXPECT_EQ(config.socket_mode, 0600u);
  EXPECT_EQ(config.stats_mode, 0640u);
  EXPECT_TRUE(config.cache);
  EXPECT_GE(config.threads, 1u);
}

TEST(Config, TheSocketIsOpenToAllOnlyWhenOthersMayAttach) {
  EXPECT_EQ(ParseConfig(With({"--allow-uid", "1000,1001"})).value().config.socket_mode, 0666u);
  EXPECT_EQ(ParseConfig(With({"--allow-gid", "5", "--socket-mode", "0660"})).value().config.socket_mode, 0660u);
}

TEST(Config, TheSocketIsOpenToAllWhenAGroupMayControl) {
  const EngineConfig config = ParseConfig(With({"--control-gid", "7,8"})).value().config;
  EXPECT_EQ(config.control_gids, (std::vector<gid_t>{7, 8}));
  EXPECT_EQ(config.socket_mode, 0666u);
  EXPECT_TRUE(ParseConfig(With({})).value().config.control_gids.empty());
}

TEST(Config, TheHotTableIsForTheEnginesUserUnlessAGroupIsNamedAndMayBeLeftOut) {
  const EngineConfig config = ParseConfig(With({})).value().config;
  EXPECT_EQ(config.hot_bytes_max, 64ull << 20);
  EXPECT_TRUE(config.hot_gids.empty());
  const EngineConfig named = ParseConfig(With({"--hot-gid", "7,8", "--hot-bytes-max", "65536"})).value().config;
  EXPECT_EQ(named.hot_gids, (std::vector<gid_t>{7, 8}));
  EXPECT_EQ(named.socket_mode, 0600u) << "it gives nobody the right to attach";
  EXPECT_EQ(named.hot_bytes_max, 65'536u);
  EXPECT_EQ(ParseConfig(With({"--hot-bytes-max", "0"})).value().config.hot_bytes_max, 0u);
  const Result<ParsedConfig> small = ParseConfig(With({"--hot-bytes-max", "65535"}));
  EXPECT_EQ(small.status().code(), StatusCode::kBadOption);
  EXPECT_NE(small.status().message().find("--hot-bytes-max must be 0 or at least 65536"), std::string::npos);
}

TEST(Config, ACommandToALiveEngineStartsNothing) {
  const ParsedConfig status = ParseConfig({"--status", "/run/s", "--json"}).value();
  EXPECT_FALSE(status.run);
  ASSERT_TRUE(status.operator_call.has_value());
  EXPECT_EQ(status.operator_call->kind, OperatorCall::Kind::kStatus);
  EXPECT_EQ(status.operator_call->socket, "/run/s");
  EXPECT_TRUE(status.operator_call->json);
  const ParsedConfig hand_over = ParseConfig({"--hand-over", "/run/s", "--wait-s", "7"}).value();
  EXPECT_EQ(hand_over.operator_call->kind, OperatorCall::Kind::kHandOver);
  EXPECT_EQ(hand_over.operator_call->wait_s, 7u);
  const ParsedConfig level = ParseConfig({"--set-log-level", "debug", "--socket", "/run/s"}).value();
  EXPECT_EQ(level.operator_call->kind, OperatorCall::Kind::kSetLogLevel);
  EXPECT_EQ(level.operator_call->verbosity, LogVerbosity::kDebug);
  EXPECT_EQ(level.operator_call->socket, "/run/s");
  EXPECT_FALSE(ParseConfig(With({})).value().operator_call.has_value());
}

TEST(Config, ACommandToALiveEngineTakesNoOptionOfAnEngine) {
  EXPECT_NE(ErrorOf({"--status", "/s", "--slots", "256"}).find("--slots"), std::string::npos);
  EXPECT_NE(ErrorOf({"--status", "/s", "--socket", "/s"}).find("--socket"), std::string::npos);
  EXPECT_NE(ErrorOf({"--set-log-level", "info"}).find("--socket"), std::string::npos);
  EXPECT_NE(ErrorOf({"--status", "/s", "--hand-over", "/s"}).find("exclude"), std::string::npos);
  EXPECT_NE(ErrorOf(With({"--json"})).find("--status"), std::string::npos);
}

TEST(Config, ACommandToALiveEngineIsNoOptionOfTheFile) {
  const ParsedConfig parsed = ParseConfig(With({})).value();
  for (const std::string& line : parsed.lines) {
    for (const char* name : {"status=", "hand-over=", "set-log-level=", "json=", "wait-s="}) {
      EXPECT_NE(line.substr(0, std::string(name).size()), name);
    }
  }
}

TEST(Config, AnUnknownOptionIsNamed) { EXPECT_NE(ErrorOf(With({"--turbo"})).find("--turbo"), std::string::npos); }

TEST(Config, AValueOutOfRangeIsNamedWithItsRange) {
  const std::string error = ErrorOf(With({"--lanes-max", "0"}));
  EXPECT_NE(error.find("--lanes-max"), std::string::npos) << error;
  EXPECT_NE(error.find("4096"), std::string::npos) << error;
  EXPECT_NE(ErrorOf(With({"--ttl-s", "-1"})), "accepted");
  EXPECT_NE(ErrorOf(With({"--ttl-s", "400000000"})), "accepted");
  EXPECT_NE(ErrorOf(With({"--slots", "100"})), "accepted");
  EXPECT_NE(ErrorOf(With({"--slots", "8192"})), "accepted");
  EXPECT_NE(ErrorOf(With({"--text-bytes-max", "255"})), "accepted");
  EXPECT_NE(ErrorOf(With({"--durability", "sometimes"})), "accepted");
  EXPECT_NE(ErrorOf(With({"--stats-mode", "0999"})), "accepted");
  EXPECT_NE(ErrorOf(With({"--socket-mode", "rw"})), "accepted");
  EXPECT_NE(ErrorOf(With({"--spin-us", "50us"})), "accepted");
}

TEST(Config, Int8IsAskedForByNameAndHasABoundOfItsOwn) {
  EXPECT_EQ(ParseConfig(With({})).value().config.precision, Precision::kAuto);
  const EngineConfig config = ParseConfig(With({"--precision", "int8"})).value().config;
  EXPECT_EQ(config.precision, Precision::kInt8);
  EXPECT_EQ(config.int8_cosine_min, 0.999);
  EXPECT_EQ(ParseConfig(With({"--int8-cosine-min", "0"})).value().config.int8_cosine_min, 0);
  EXPECT_NE(ErrorOf(With({"--int8-cosine-min", "1.01"})), "accepted");
  for (const char* value : {"-0.5", "nan", "-nan", "NAN", "inf"}) {
    EXPECT_NE(ErrorOf(With({"--int8-cosine-min", value})), "accepted") << value;
  }
}

TEST(Config, AHostWithManyCpusStartsWithTheDefaultOptions) {
  EXPECT_EQ(ParseConfig(With({}), 1).value().config.threads, 1u);
  EXPECT_EQ(ParseConfig(With({}), 65).value().config.threads, 65u);
  EXPECT_EQ(ParseConfig(With({}), 96).value().config.threads, 96u);
  // The default must be a value that the option itself accepts: what is printed at start can be read again.
  const Result<ParsedConfig> large = ParseConfig(With({}), 1024);
  ASSERT_TRUE(large.ok()) << large.status().message();
  EXPECT_EQ(large.value().config.threads, kThreadsMax);
  EXPECT_EQ(ParseConfig(With({"--threads", std::to_string(kThreadsMax)})).value().config.threads, kThreadsMax);
  EXPECT_NE(ErrorOf(With({"--threads", std::to_string(kThreadsMax + 1)})), "accepted");
  EXPECT_NE(ErrorOf(With({"--threads", "0"})), "accepted");
  EXPECT_EQ(ParseConfig(With({})).value().config.core_groups, 0u);
  EXPECT_EQ(ParseConfig(With({"--core-groups", "2"})).value().config.core_groups, 2u);
  EXPECT_NE(ErrorOf(With({"--core-groups", std::to_string(kCoreGroupsMax + 1)})), "accepted");
}

TEST(Config, EachChoiceIsParsedOnceAndPrintedByItsName) {
  const Result<ParsedConfig> plain = ParseConfig(With({}));
  ASSERT_TRUE(plain.ok()) << plain.status().message();
  EXPECT_EQ(plain.value().config.backend, Backend::kFake);
  EXPECT_EQ(plain.value().config.executor, Executor::kAuto);
  EXPECT_EQ(plain.value().config.precision, Precision::kAuto);
  EXPECT_EQ(plain.value().config.device, Device::kCpu);
  EXPECT_EQ(plain.value().config.cpu_isa, CpuIsa::kAuto);
  const Result<ParsedConfig> chosen =
      ParseConfig({"--backend", "torch", "--model", "m", "--socket", "s", "--data", "d", "--executor", "torch",
                   "--precision", "bf16", "--device", "cuda", "--cpu-isa", "avx512_vnni", "--durability", "none"});
  ASSERT_TRUE(chosen.ok()) << chosen.status().message();
  EXPECT_EQ(chosen.value().config.backend, Backend::kModel);
  EXPECT_EQ(chosen.value().config.executor, Executor::kTorch);
  EXPECT_EQ(chosen.value().config.precision, Precision::kBf16);
  EXPECT_EQ(chosen.value().config.device, Device::kCuda);
  EXPECT_EQ(chosen.value().config.cpu_isa, CpuIsa::kAvx512Vnni);
  EXPECT_EQ(chosen.value().config.durability, DurabilityPolicy::kNone);
  for (const char* line : {"backend=\"torch\"", "executor=\"torch\"", "precision=\"bf16\"", "device=\"cuda\"",
                           "cpu-isa=\"avx512_vnni\"", "durability=\"none\""}) {
    EXPECT_NE(std::find(chosen.value().lines.begin(), chosen.value().lines.end(), line), chosen.value().lines.end())
        << line;
  }
  for (const char* option : {"--backend", "--executor", "--precision", "--device", "--cpu-isa", "--durability"}) {
    EXPECT_NE(ErrorOf(With({option, "other"})).find(option), std::string::npos) << option;
  }
}

TEST(Config, WhatMustBeGivenIsSaid) {
  EXPECT_NE(ErrorOf({"--backend", "fake", "--data", "d"}).find("--socket"), std::string::npos);
  EXPECT_NE(ErrorOf({"--backend", "fake", "--socket", "s"}).find("--data"), std::string::npos);
  EXPECT_NE(ErrorOf({"--socket", "s", "--data", "d"}).find("--model"), std::string::npos);
}

TEST(Config, ASocketPathThatTheKernelWouldCutIsRefused) {
  const std::string longest(103, 's');
  EXPECT_TRUE(ParseConfig({"--backend", "fake", "--data", "d", "--socket", longest}).ok());
  EXPECT_NE(ErrorOf({"--backend", "fake", "--data", "d", "--socket", longest + "s"}).find("107"), std::string::npos);
}

TEST(Config, ALogThatCannotHoldFourSegmentsIsRefused) {
  EXPECT_NE(ErrorOf(With({"--wal-bytes-max", "2097152", "--wal-segment-bytes", "1048576"})), "accepted");
  const TemporaryFile file("wal-bytes-max=2097152\nwal-segment-bytes=1048576\n");
  const std::string error = ErrorOf(With({"--config", file.path()}));
  EXPECT_NE(error.find("--wal-bytes-max"), std::string::npos) << error;
  EXPECT_NE(error.find("--wal-segment-bytes"), std::string::npos) << error;
}

TEST(Config, ABoundOverAllModelsThatCannotHoldTheServedOnesLogIsRefused) {
  const std::string error = ErrorOf(With({"--data-bytes-max", "2097152", "--wal-bytes-max", "268435456"}));
  EXPECT_NE(error.find("--data-bytes-max (2097152)"), std::string::npos) << error;
  EXPECT_NE(error.find("--wal-bytes-max (268435456)"), std::string::npos) << error;
  EXPECT_TRUE(ParseConfig(With({"--data-bytes-max", "268435456", "--wal-bytes-max", "268435456"})).ok());
  EXPECT_TRUE(ParseConfig(With({"--data-bytes-max", "0"})).ok());
}

TEST(Config, TheCommandLineWinsOverTheFile) {
  const TemporaryFile file("slots=64\nspin-us=7\ndurability=\"group\"\n");
  const Result<ParsedConfig> parsed = ParseConfig(With({"--config", file.path(), "--slots", "32"}));
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  EXPECT_EQ(parsed.value().config.slots, 32u);
  EXPECT_EQ(parsed.value().config.spin_us, 7u);
  EXPECT_EQ(parsed.value().config.durability, DurabilityPolicy::kGroup);
}

TEST(Config, AnUnknownNameInTheFileIsAnError) {
  const TemporaryFile file("slot=64\n");
  EXPECT_NE(ErrorOf(With({"--config", file.path()})), "accepted");
  EXPECT_NE(ErrorOf(With({"--config", "no-such-file.ini"})), "accepted");
}

TEST(Config, AnErrorInTheFileNamesTheFileTheLineAndTheCause) {
  const struct {
    const char* text;
    size_t line;
    const char* word;
  } cases[] = {
      {"slot=64\n", 1, "'slot'"},
      {"# comment\n\nslots=64\nturbo=true\n", 4, "'turbo'"},
      {"spin-us=7\nslots=100\n", 2, "power of two"},
      {"slots=64\n\nlanes-max=0\n", 3, "4096"},
      {"durability=\"sometimes\"\n", 1, "interval"},
      {"spin-us=7us\n", 1, "spin-us"},
      {"spin-us=\n", 1, "spin-us"},
      {"spin-us=7\nslots=64\nspin-us=8\n", 3, "line 1"},
      {"[engine]\nslots=64\n", 1, "section"},
      {"engine.slots=64\n", 1, "'engine.slots'"},
      {"[default]\n", 1, "section"},
      {"=5\n", 1, "name"},
      {"++\n", 1, "name=value"},
      {"{\n", 1, "name=value"},
      {"slots\n", 1, "name=value"},
      {"\xff\xfe\n", 1, "name=value"},
      {"\xff\xfe=1\n", 1, "no option"},
      {"slots=64\nsocket=\"s\n", 2, "not closed"},
      {"data=d --slots=4\n", 1, "blank"},
      {"slots=4,8\n", 1, "slots"},
      {"slots=[4]\n", 1, "slots"},
      {"slots=\"\"\n", 1, "slots"},
      {"no-cache=-3\n", 1, "no-cache"},
      {"no-cache={}\n", 1, "no-cache"},
      {"no-cache=\"\"\n", 1, "no-cache"},
      {"help=true\n", 1, "'help'"},
      {"\xEF\xBB\xBFslots=100\n", 1, "power of two"},
      {"config=other\n", 1, "'config'"},
      {"version=true\n", 1, "'version'"},
      {"stats-mode=\"0999\"\n", 1, "octal"},
      {"allow-uid=\"root\"\n", 1, "numeric"},
      {"strict-recovery=perhaps\n", 1, "strict-recovery"},
  };
  for (const auto& one : cases) {
    const TemporaryFile file(one.text);
    const std::string error = ErrorOf(With({"--config", file.path()}));
    EXPECT_NE(error.find(file.path() + ":" + std::to_string(one.line) + ":"), std::string::npos) << one.text << error;
    EXPECT_NE(error.find(one.word), std::string::npos) << one.text << error;
    EXPECT_NE(ErrorOf(With({"--config=" + file.path()})), "accepted");
  }
}

TEST(Config, AFileThatCannotBeReadIsNamed) {
  EXPECT_NE(ErrorOf(With({"--config", "/no/such/file"})).find("/no/such/file"), std::string::npos);
  EXPECT_NE(ErrorOf(With({"--config", "/tmp"})).find("/tmp"), std::string::npos);
}

TEST(Config, LinesOfTheLogArePassedOver) {
  const TemporaryFile file(
      "2026-11-26T00:23:17.255Z info sutra-engine 0.1.0, pid 1\n# options\nslots=64\n"
      "2026-11-26T00:23:17.255Z warning slots=32\nspin-us=7\n");
  const Result<ParsedConfig> parsed = ParseConfig(With({"--config", file.path()}));
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  EXPECT_EQ(parsed.value().config.slots, 64u);
  EXPECT_EQ(parsed.value().config.spin_us, 7u);
}

TEST(Config, WithoutACacheNoDataIsNeeded) {
  EXPECT_TRUE(ParseConfig({"--backend", "fake", "--socket", "s", "--no-cache"}).ok());
}

TEST(Config, WhatIsPrintedAtStartCanBeReadAgain) {
  const Result<ParsedConfig> first = ParseConfig(
      With({"--allow-uid", "1,2", "--durability", "sync", "--no-cache", "--stats-mode", "0600", "--slots", "16"}));
  ASSERT_TRUE(first.ok()) << first.status().message();
  std::string text;
  for (const std::string& line : first.value().lines) text += line + "\n";
  const TemporaryFile file(text);
  const Result<ParsedConfig> second = ParseConfig({"--config", file.path()});
  ASSERT_TRUE(second.ok()) << second.status().message() << "\n" << text;
  EXPECT_EQ(second.value().lines, first.value().lines);
  EXPECT_EQ(second.value().config.allow_uids, (std::vector<uid_t>{1, 2}));
  EXPECT_EQ(second.value().config.durability, DurabilityPolicy::kSync);
  EXPECT_FALSE(second.value().config.cache);
  EXPECT_EQ(second.value().config.slots, 16u);

  const Result<ParsedConfig> plain = ParseConfig(With({}));
  text.clear();
  for (const std::string& line : plain.value().lines) text += line + "\n";
  const TemporaryFile plain_file(text);
  const Result<ParsedConfig> again = ParseConfig({"--config", plain_file.path()});
  ASSERT_TRUE(again.ok()) << again.status().message() << "\n" << text;
}

std::string TextOf(const ParsedConfig& parsed) {
  std::string text;
  for (const std::string& line : parsed.lines) text += line + "\n";
  return text;
}

TEST(Config, EveryPathThatIsPrintedAtStartIsReadAgainAsItWas) {
  std::vector<std::string> values = {"d'#;=x",   "d#x",    "\"d\"",     "'d'",   "d\n[default]\nslots=4",
                                     " d ",      "\td\t",  "a\\",       "a\\nb", "[a,b]",
                                     "{}",       "%%",     "--slots=4", "-x",    "true",
                                     "77",       "0x10",   "a,b",       "1e3",   "Gr\u00fc\u00dfe/\u65e5",
                                     "\xff\xfe", "\x1b[0m"};
  std::string printable;
  for (char c = ' '; c < 0x7f; ++c) {
    printable += c;
    values.push_back(std::string(1, c));
    values.push_back(std::string("d") + c + "x");
  }
  values.push_back(printable);
  for (const std::string& value : values) {
    const Result<ParsedConfig> first =
        ParseConfig({"--backend=fake", "--socket=" + value, "--model=" + value, "--data=" + value, "--slots=16"});
    ASSERT_TRUE(first.ok()) << first.status().message();
    EXPECT_EQ(first.value().config.data, value);
    const TemporaryFile file(TextOf(first.value()));
    const Result<ParsedConfig> second = ParseConfig({"--config", file.path()});
    ASSERT_TRUE(second.ok()) << second.status().message() << "\n" << TextOf(first.value());
    EXPECT_EQ(second.value().config.data, value);
    EXPECT_EQ(second.value().config.socket, value);
    EXPECT_EQ(second.value().config.model, value);
    EXPECT_EQ(second.value().lines, first.value().lines);
  }
}

TEST(Config, AByteOrderMarkIsPassedOver) {
  const TemporaryFile file("\xEF\xBB\xBFslots=64\n");
  const Result<ParsedConfig> parsed = ParseConfig(With({"--config", file.path()}));
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  EXPECT_EQ(parsed.value().config.slots, 64u);
}

TEST(Config, AnEmptyNameOfAFileIsAnError) {
  EXPECT_NE(ErrorOf(With({"--config", ""})).find("--config"), std::string::npos);
  EXPECT_NE(ErrorOf(With({"--config="})).find("--config"), std::string::npos);
}

TEST(Config, AFlagIsTrueOrFalse) {
  EXPECT_FALSE(ParseConfig(With({"--no-cache=true"})).value().config.cache);
  EXPECT_TRUE(ParseConfig(With({"--no-cache=false"})).value().config.cache);
  for (const char* value : {"-3", "1", "on", "maybe"}) {
    EXPECT_NE(ErrorOf(With({std::string("--no-cache=") + value})).find("--no-cache"), std::string::npos) << value;
  }
  const TemporaryFile file("no-cache=true\nstrict-recovery=true\n");
  const Result<ParsedConfig> parsed = ParseConfig(With({"--config", file.path(), "--no-cache=false"}));
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  EXPECT_TRUE(parsed.value().config.cache);
  EXPECT_TRUE(parsed.value().config.strict_recovery);
}

TEST(Config, TheCommandLineWinsOverAnEmptyValueOfTheFile) {
  const TemporaryFile file("data=\"\"\nallow-uid=\"\"\nsocket=\"f\"\n");
  const Result<ParsedConfig> parsed = ParseConfig({"--config", file.path(), "--backend", "fake", "--data", "d"});
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  EXPECT_EQ(parsed.value().config.data, "d");
  EXPECT_EQ(parsed.value().config.socket, "f");
}

TEST(Config, HelpAndVersionRunNothing) {
  EXPECT_FALSE(ParseConfig({"--version"}).value().run);
  const Result<ParsedConfig> help = ParseConfig({"--help"});
  EXPECT_FALSE(help.value().run);
  EXPECT_NE(help.value().text.find("--batch-tokens-max"), std::string::npos);
}

}  // namespace
}  // namespace sutra
