// Engines with a worker for each of two groups of cores: what one worker promises holds for both.
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <thread>

#include "shm/base/thread_affinity.h"
#include "tests/kit/tiny_model.h"
#include "tests/system/standby_fixture.h"

namespace sutra::test {
namespace {

constexpr const char* kDelay = "SUTRA_FAKE_DELAY_US=500";

class CoreGroups : public StandbyTest {
 protected:
  static std::vector<std::string> Two() { return {"--core-groups", "2", "--threads", "2", "--batch-tokens-max", "64"}; }
  static bool TwoWork(const EngineProcess& engine) {
    return engine.WaitStats(
        [](const StatsSnapshot& s) { return s.gauge(Gauge::kWorkers) == 2 && s.counter("replies_ok") >= 100; });
  }
  // Of the engine's threads, by name.
  static std::multimap<std::string, std::string> AllowedLists(pid_t pid) {
    std::multimap<std::string, std::string> lists;
    for (const auto& task : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task")) {
      std::ifstream file(task.path() / "status");
      std::string name, list;
      for (std::string word; file >> word;) {
        if (word == "Name:") file >> name;
        if (word == "Cpus_allowed_list:") file >> list;
      }
      lists.emplace(name, list);
    }
    return lists;
  }
};

TEST_F(CoreGroups, TermUnderLoadAnswersWhatBothHadTaken) {
  EngineProcess engine({.args = Two(), .environment = {kDelay}});
  ASSERT_TRUE(engine.Start());
  ClientHandle client = Attached(engine);
  const std::vector<std::string> texts = NumberedTexts("under load", 2000);
  std::vector<Reply> replies;
  const sutra_options fail_fast = ClientHandle::RequestOptions(SUTRA_FAIL_FAST);  // there is no next engine
  std::thread load([&] { replies = client.EmbedBatch(texts, nullptr, fail_fast); });
  EXPECT_TRUE(TwoWork(engine));
  const ExitStatus status = engine.Terminate();
  load.join();
  EXPECT_TRUE(status.exited && status.code == kExitClean) << ToText(status);
  uint64_t ok = 0;
  for (size_t i = 0; i < texts.size(); ++i) {
    if (replies[i].status == SUTRA_OK) ExpectVector(replies[i], texts[i]);
    ok += replies[i].status == SUTRA_OK;
  }
  EXPECT_LT(ok, texts.size());
  EXPECT_EQ(engine.Stats().counter("texts"), engine.Stats().counter("replies_ok"));
  EXPECT_EQ(engine.Stats().counter("replies_ok"), ok);
}

TEST_F(CoreGroups, AKillAndAHandOverUnderLoadShowNoClientAnError) {
  EngineProcess first({.args = Two(), .environment = {kDelay}});
  ASSERT_TRUE(first.Start());
  const auto second = StandbyOf(first, Two(), {kDelay});
  ClientHandle client = Attached(first);
  const std::vector<std::string> texts = NumberedTexts("under load", 2000);
  std::vector<Reply> replies;
  std::thread load([&] { replies = client.EmbedBatch(texts); });
  EXPECT_TRUE(TwoWork(first));
  first.Kill();
  EXPECT_TRUE(WaitLog(*second, kTookOver));
  const auto third = StandbyOf(*second, Two());
  second->process().Signal(SIGTERM);
  EXPECT_EQ(second->WaitEnd().code, kExitClean);
  load.join();
  for (size_t i = 0; i < texts.size(); ++i) ExpectVector(replies[i], texts[i]);
}

TEST_F(CoreGroups, EqualTextsOfManyThreadsAreComputedOnce) {
  EngineProcess engine({.args = Two(), .environment = {kDelay}});
  ASSERT_TRUE(engine.Start());
  const std::vector<std::string> texts = NumberedTexts("the same", 300);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      ClientHandle client = Attached(engine);
      const std::vector<Reply> replies = client.EmbedBatch(texts);
      for (size_t t = 0; t < texts.size(); ++t) ExpectVector(replies[t], texts[t]);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(engine.Stats().counter("batch_texts"), texts.size());
}

// The loop and all else runs where it likes.
TEST_F(CoreGroups, EachWorkerStaysOnItsCpus) {
  const std::vector<uint32_t> cpus = AllowedCpus();
  if (cpus.size() < 2) GTEST_SKIP() << "one CPU";
  TinyModel model;
  model.Save();
  EngineProcess engine({.args = {"--backend", "torch", "--model", model.path(), "--executor", "cpu", "--core-groups",
                                 "2", "--threads", "2"}});
  ASSERT_TRUE(engine.Start());
  EXPECT_NE(engine.Log().find("computed by 2 groups of cores: 1 thread on CPUs"), std::string::npos);
  EXPECT_EQ(Attached(engine).Embed("").status, SUTRA_EMPTY_TEXT);
  const auto lists = AllowedLists(engine.process().pid());
  EXPECT_EQ(lists.count("sutra-device"), 2u);
  std::vector<std::string> workers;
  const auto all = AllowedLists(getpid()).begin()->second;
  for (const auto& [name, list] : lists) {
    if (name == "sutra-device") {
      workers.push_back(list);
    } else {
      EXPECT_EQ(list, all) << name;
    }
  }
  EXPECT_NE(workers.front(), workers.back());
  for (const std::string& list : workers) EXPECT_NE(list, all);
}

}  // namespace
}  // namespace sutra::test
