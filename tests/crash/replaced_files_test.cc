// The files of a model are overwritten, cut, renamed over and removed all the time, while engines that serve it start,
// answer, are killed and start again on one data directory. Whatever an engine has read, a text has one vector per
// identity: it is the same at every look, computed or cached, whichever file changed under the engine.
// SUTRA_SEED repeats a run's choices; SUTRA_CRASH_ROUNDS makes it long (tests/README.md).
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <random>
#include <thread>

#include "engine/exit_code.h"
#include "shm/base/time.h"
#include "tests/kit/by_build.h"
#include "tests/kit/engine_process.h"
#include "tests/kit/seed.h"
#include "tests/kit/tiny_model.h"
#include "tests/kit/watchdog.h"

namespace sutra::test {
namespace {

using Vectors = std::map<std::string, std::vector<float>>;  // by text

// The versions of one file that the rounds exchange.
struct ChangingFile {
  std::string name;
  std::vector<std::string> versions;
};

std::vector<ChangingFile> MakeVersions(TinyModel* model) {
  model->Save();
  const auto now = [model](const std::string& name) { return ReadFile(model->directory() / name); };
  std::vector<ChangingFile> files = {{"model.safetensors", {now("model.safetensors")}},
                                     {"vocab.txt", {now("vocab.txt")}},
                                     {"1_Pooling/config.json", {now("1_Pooling/config.json")}},
                                     {"tokenizer_config.json", {now("tokenizer_config.json")}}};
  for (auto& tensor : model->tensors())
    std::rotate(tensor.second.begin(), tensor.second.begin() + 7, tensor.second.end());
  model->Save();
  files[0].versions.push_back(now("model.safetensors"));
  files[1].versions.push_back("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ne\nd\nc\nb\na\nready\n.\n");
  files[2].versions.push_back(
      R"({"word_embedding_dimension": 64, "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false})");
  files[3].versions.push_back(R"({"do_lower_case": false, "model_max_length": 512})");
  return files;
}

// Changes the files of a folder from a thread of its own, until it is stopped.
class Changer {
 public:
  Changer(const TempDir& directory, std::vector<ChangingFile> files, uint64_t seed)
      : directory_(directory), files_(std::move(files)), random_(seed), thread_([this] { Run(); }) {}
  ~Changer() {
    stop_.store(true, std::memory_order_relaxed);
    thread_.join();
  }

 private:
  void Run() {
    while (!stop_.load(std::memory_order_relaxed)) {
      const ChangingFile& file = files_[random_() % files_.size()];
      Change(file.name, file.versions[random_() % file.versions.size()]);
      // Often one change after the other; sometimes long enough for an engine to start in between.
      poll(nullptr, 0, random_() % 4 == 0 ? 150 : static_cast<int>(random_() % 20));
    }
  }

  void Change(const std::string& name, const std::string& contents) {
    const std::string path = directory_ / name;
    switch (random_() % 4) {
      case 0: return directory_.Write(name, contents);  // renamed over
      case 1: return WriteInPlace(path, contents, 0);
      case 2: return WriteInPlace(path, contents, O_TRUNC);
      default: unlink(path.c_str()); return WriteInPlace(path, contents, O_CREAT);
    }
  }

  // In pieces, so that others see the half-written file.
  void WriteInPlace(const std::string& path, const std::string& contents, int flags) {
    const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC | flags, 0644);
    if (fd < 0) return;
    for (size_t done = 0; done < contents.size();) {
      const ssize_t count = write(fd, contents.data() + done, std::min<size_t>(65'536, contents.size() - done));
      if (count <= 0) break;
      done += static_cast<size_t>(count);
      if (random_() % 2 == 0) poll(nullptr, 0, 1);
    }
    close(fd);
  }

  const TempDir& directory_;
  const std::vector<ChangingFile> files_;
  std::mt19937_64 random_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

struct ReplacedFilesTotals {
  int starts = 0, refused_starts = 0;
  uint64_t answers = 0, hits = 0;
  size_t identities = 0;
  std::string failure;
};

class ReplacedFiles {
 public:
  ReplacedFiles(uint64_t seed, uint64_t corrupt_every) : random_(seed), corrupt_every_(corrupt_every) {}

  ReplacedFilesTotals Run(int rounds) {
    TinyModel model;
    std::vector<ChangingFile> files = MakeVersions(&model);
    EngineOptions options;
    options.args = {"--backend", "torch", "--model", model.path(), "--precision", "fp32"};
    EngineProcess engine(options);
    const Changer changer(model.directory(), std::move(files), random_());
    bool good = true;
    for (int round = 0; good && round < rounds; ++round) good = Round(&engine);
    totals_.identities = known_.size();
    return totals_;
  }

 private:
  bool Fail(const std::string& why) {
    totals_.failure = why;
    return false;
  }

  bool Round(EngineProcess* engine) {
    ClientHandle client;
    if (!Start(engine, &client)) return false;
    for (int batch = 0; batch < 20; ++batch) {
      if (!Embed(engine, client)) return false;
      poll(nullptr, 0, static_cast<int>(random_() % 10));
    }
    client.Detach();
    if (random_() % 2 == 0) {
      engine->Kill();
      return true;
    }
    const ExitStatus status = engine->Terminate();
    return (status.exited && status.code == kExitClean) || Fail("SIGTERM ended with " + ToText(status));
  }

  // A half-written model may be refused; then the engine is started again.
  bool Start(EngineProcess* engine, ClientHandle* client) {
    for (const uint64_t until_ns = MonotonicNs() + kWaitMs * kNsPerMs; MonotonicNs() < until_ns;) {
      engine->Launch();
      while (client->Attach(engine->socket()) != SUTRA_OK && engine->running()) poll(nullptr, 0, 1);
      if (client->get() != nullptr) {
        ++totals_.starts;
        return true;
      }
      const ExitStatus status = engine->WaitEnd();
      if (!status.exited || status.code != kExitCannotStart) return Fail("a start ended with " + ToText(status));
      ++totals_.refused_starts;
    }
    return Fail("no engine starts");
  }

  bool Embed(EngineProcess* engine, const ClientHandle& client) {
    static const char* const kWords[] = {"a", "b", "c", "d", "e", "A", "B", "ready", "."};
    std::vector<std::string> texts;
    for (int i = 0; i < 8; ++i) {
      texts.emplace_back();
      for (uint64_t word = 0, words = 1 + random_() % 3; word < words; ++word) {
        texts.back() += std::string(kWords[random_() % std::size(kWords)]) + " ";
      }
    }
    const bool anew = random_() % 2 == 0;  // what an engine computes now must be what it computed before
    const sutra_options options = ClientHandle::RequestOptions(anew ? SUTRA_CACHE_SKIP_LOOKUP : 0);
    std::vector<Reply> replies = client.EmbedBatch(texts, nullptr, options);
    if (!engine->running()) return Fail("the engine ended with " + ToText(engine->WaitEnd()) + ": " + engine->Log());
    Vectors& known = known_[client.info().identity];
    for (size_t i = 0; i < texts.size(); ++i) {
      Reply& reply = replies[i];
      if (reply.status != SUTRA_OK) return Fail(std::string("a text ended with ") + sutra_status_text(reply.status));
      if (corrupt_every_ != 0 && ++totals_.answers % corrupt_every_ == 0) reply.vector[0] += 0.01F;
      if (corrupt_every_ == 0) ++totals_.answers;
      totals_.hits += reply.FromCache() ? 1 : 0;
      const auto [entry, first] = known.emplace(texts[i], reply.vector);
      if (!first && !SameVector(entry->second, reply.vector)) {
        return Fail("two vectors of '" + texts[i] + "' under one identity, the second from source " +
                    std::to_string(reply.source));
      }
    }
    return true;
  }

  std::mt19937_64 random_;
  const uint64_t corrupt_every_;
  std::map<std::string, Vectors> known_;  // by identity
  ReplacedFilesTotals totals_;
};

ReplacedFilesTotals RunReplacedFiles(int rounds, uint64_t corrupt_every) {
  const Watchdog watchdog(std::chrono::seconds(100 + 20 * std::max(0, rounds - 15)));
  const ReplacedFilesTotals totals = ReplacedFiles(FreshTestSeed(), corrupt_every).Run(rounds);
  std::printf("%d rounds: %d starts, %d refused, %llu answers, %llu of them hits, under %zu identities%s%s\n", rounds,
              totals.starts, totals.refused_starts, static_cast<unsigned long long>(totals.answers),
              static_cast<unsigned long long>(totals.hits), totals.identities,
              totals.failure.empty() ? "" : "; FAILED: ", totals.failure.c_str());
  return totals;
}

TEST(ReplacedFiles, AnIdentityHasOneVectorPerTextWhateverChangesUnderIt) {
  const int rounds = static_cast<int>(NumberFromEnvironment("SUTRA_CRASH_ROUNDS", ByBuild(40, 20, 12)));
  const ReplacedFilesTotals totals = RunReplacedFiles(rounds, 0);
  EXPECT_EQ(totals.failure, "");
  EXPECT_GT(totals.hits, 0u);
  EXPECT_GT(totals.identities, 1u);
}

TEST(ReplacedFiles, CanaryAWrongVectorIsFound) {
  EXPECT_NE(RunReplacedFiles(15, 300).failure.find("two vectors of"), std::string::npos);
}

}  // namespace
}  // namespace sutra::test
