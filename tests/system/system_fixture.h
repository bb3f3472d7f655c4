// What every test of real processes starts with: a watchdog that prints the logs, and helpers for client processes.
// Thread rule: the test's main thread.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/kit/client_handle.h"
#include "tests/kit/engine_process.h"
#include "tests/kit/watchdog.h"

namespace sutra::test {

class SystemTest : public testing::Test {
 protected:
  // Arguments after the duty come in pairs: name without dashes, value.
  using ClientArguments = std::vector<std::pair<std::string, std::string>>;
  static std::unique_ptr<ChildProcess> StartClient(const EngineProcess& engine, const std::string& duty,
                                                   const ClientArguments& arguments = {},
                                                   std::vector<std::string> environment = {}) {
    SpawnOptions spawn;
    spawn.args = {TestClientProgram(), duty, "--socket", engine.socket()};
    for (const auto& [name, value] : arguments) {
      spawn.args.push_back("--" + name);
      spawn.args.push_back(value);
    }
    spawn.environment = std::move(environment);
    spawn.log_path = engine.directory() / "clients.log";
    spawn.pipe_output = true;
    return std::make_unique<ChildProcess>(spawn);
  }

  // Waits until a client has reported that it is at work.
  static void ExpectLine(ChildProcess& client, const std::string& line) {
    const std::optional<std::string> said = client.ReadLine(kWaitMs);
    EXPECT_EQ(said.value_or("(nothing)"), line) << client.Log();
  }

  // Ends a stream client, whose exit code tells whether every answer was correct.
  static void ExpectRight(ChildProcess& client) {
    client.Signal(SIGTERM);
    const std::optional<ExitStatus> status = client.Wait(kWaitMs);
    ASSERT_TRUE(status.has_value()) << "the client hangs";
    EXPECT_TRUE(status->exited && status->code == 0) << ToText(*status) << "\n" << client.Log();
  }

  static void ExpectVector(const Reply& reply, const std::string& text) {
    EXPECT_EQ(WhatIsWrong(reply, text), "") << "text of " << text.size() << " bytes: " << text.substr(0, 60);
  }

  static ClientHandle Attached(const EngineProcess& engine) {
    ClientHandle client;
    EXPECT_EQ(client.Attach(engine.socket()), SUTRA_OK) << sutra_error_text();
    return client;
  }

 private:
  Watchdog watchdog_{std::chrono::seconds(100)};
};

#if defined(SUTRA_CHECKPOINTS)
inline constexpr bool kCheckpoints = true;
#else
inline constexpr bool kCheckpoints = false;
#endif
inline constexpr const char* kNoCheckpoints = "needs checkpoints: build with -DSUTRA_CHECKPOINTS=ON";

}  // namespace sutra::test
