// What must hold for two versions of the client library in one process: each has its own clients, thread, error texts
// and fork detector, and symbols of one never reach the other.
#pragma once

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "tests/abi/library_functions.h"
#include "tests/kit/echo_engine.h"
#include "tests/kit/temp_dir.h"

namespace sutra::test {

class TwoVersions : public testing::Test {
 protected:
  void SetUp() override { alarm(100); }

  static std::string FileOf(const LibraryFunctions& library) {
    Dl_info info = {};
    EXPECT_NE(dladdr(reinterpret_cast<void*>(library.attach), &info), 0);
    return info.dli_fname;
  }
  static int HelperThreads() {
    int count = 0;
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
      std::string name;
      std::getline(std::ifstream(task.path() / "comm"), name);
      count += name == "sutra-client" ? 1 : 0;
    }
    return count;
  }
  // A thread gives itself its name, and is listed for a moment after it was joined.
  static void WaitForHelperThreads(int count) {
    while (HelperThreads() != count) std::this_thread::yield();
  }
  static sutra_client* Attach(const LibraryFunctions& library, const std::string& path) {
    sutra_client* client = nullptr;
    EXPECT_EQ(library.attach(path.c_str(), nullptr, &client), SUTRA_OK) << library.error_text();
    return client;
  }
  static sutra_status Embed(const LibraryFunctions& library, sutra_client* client, const std::string& text,
                            uint32_t width) {
    std::vector<float> vector(width);
    const sutra_status status = library.embed(client, text.data(), text.size(), nullptr, vector.data(), nullptr);
    EXPECT_TRUE(status != SUTRA_OK || IsEchoOf(text, vector.data(), width));
    return status;
  }

  // Two engines with vectors of different widths, so that no answer of one passes for the other's.
  void ExpectIndependent(const LibraryFunctions& one, const LibraryFunctions& two) {
    ASSERT_NE(FileOf(one), FileOf(two));
    const std::string path_one = directory_ / "one.sock", path_two = directory_ / "two.sock";
    const EchoEngine engine_one(path_one, {.width = 16});
    EchoEngine engine_two(path_two, {.width = 24});
    sutra_client* const client_one = Attach(one, path_one);
    sutra_client* const client_two = Attach(two, path_two);
    ASSERT_TRUE(client_one != nullptr && client_two != nullptr);

    std::thread beside([&] {
      for (int i = 0; i < 200; ++i) ASSERT_EQ(Embed(two, client_two, "two " + std::to_string(i), 24), SUTRA_OK);
    });
    for (int i = 0; i < 200; ++i) EXPECT_EQ(Embed(one, client_one, "one " + std::to_string(i), 16), SUTRA_OK);
    beside.join();
    WaitForHelperThreads(2);

    // The last failure of a thread is kept by each for itself.
    EXPECT_EQ(one.embed(client_one, "", 0, nullptr, nullptr, nullptr), SUTRA_BAD_ARGUMENT);
    const std::string said = one.error_text();
    EXPECT_EQ(two.embed(client_two, "x", 1u << 30, nullptr, std::vector<float>(24).data(), nullptr),
              SUTRA_TEXT_TOO_LONG);
    EXPECT_EQ(one.error_text(), said);
    EXPECT_NE(two.error_text(), said);

    ExpectForked(one, client_one, two, client_two);

    engine_two.Kill();
    EXPECT_EQ(Embed(one, client_one, "the other's engine is dead", 16), SUTRA_OK);
    two.detach(client_two);
    WaitForHelperThreads(1);
    EXPECT_EQ(Embed(one, client_one, "the other is detached", 16), SUTRA_OK);
    one.detach(client_one);
    WaitForHelperThreads(0);
  }

 private:
  static void ExpectForked(const LibraryFunctions& one, sutra_client* client_one, const LibraryFunctions& two,
                           sutra_client* client_two) {
    const pid_t child = fork();
    if (child == 0) {
      const bool both =
          Embed(one, client_one, "x", 16) == SUTRA_FORKED && Embed(two, client_two, "x", 24) == SUTRA_FORKED;
      one.detach(client_one);
      two.detach(client_two);
      _exit(both ? 0 : 1);
    }
    int status = -1;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0) << "in a forked child";
    EXPECT_EQ(Embed(one, client_one, "after the fork", 16), SUTRA_OK);
    EXPECT_EQ(Embed(two, client_two, "after the fork", 24), SUTRA_OK);
  }

  TempDir directory_;
};

}  // namespace sutra::test
