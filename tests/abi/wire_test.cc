// Peers of earlier layouts: what they send, byte by byte, meets an engine and a client of today. Both sides refuse,
// name both versions, and say what to do.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

#include "shm/base/unique_fd.h"
#include "tests/kit/engine_process.h"
#include "tests/kit/raw_client.h"
#include "tests/kit/temp_dir.h"
#include "tests/system/system_fixture.h"

namespace sutra::test {
namespace {

const std::string kNow = std::to_string(kLayoutMajor) + "." + std::to_string(kLayoutMinor);

// A message of wire.txt; empty if it has none of that name.
std::string Recorded(const std::string& name, const std::string& version) {
  std::ifstream file(SUTRA_ABI_DIR "/wire.txt");
  std::string bytes;
  bool found = false;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    if (line.rfind("  ", 0) != 0) {
      std::string of, layout;
      size_t size = 0;
      words >> of >> layout >> size;
      found = of == name && layout == version;
      if (found) bytes.assign(size, '\0');
      continue;
    }
    std::string offset, hex;
    words >> offset >> hex;
    for (size_t i = 0; found && i < hex.size(); i += 2) {
      bytes.at(std::stoul(offset, nullptr, 16) + i / 2) = static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    }
  }
  EXPECT_FALSE(bytes.empty()) << name << " " << version;
  return bytes;
}

class EarlierLayout : public SystemTest, public testing::WithParamInterface<const char*> {};

TEST_P(EarlierLayout, TheRecordedMessagesAreOfThatLayout) {
  for (const char* name : {"hello", "welcome", "refusal"}) {
    const std::string message = Recorded(name, GetParam());
    uint64_t magic = 0;
    uint16_t version[2] = {};
    ASSERT_GE(message.size(), 12u);
    std::memcpy(&magic, message.data(), sizeof(magic));
    std::memcpy(version, message.data() + 8, sizeof(version));
    EXPECT_EQ(magic, kHandshakeMagic);
    EXPECT_EQ(std::to_string(version[0]) + "." + std::to_string(version[1]), GetParam());
    EXPECT_NE(version[0], kLayoutMajor);
  }
}

TEST_P(EarlierLayout, AClientIsRefusedByTheEngineOfToday) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  RawClient client = RawClient::Connect(engine.socket());
  const std::string hello = Recorded("hello", GetParam());
  ASSERT_EQ(client.Send(hello.data(), hello.size()), 0);
  const std::optional<WelcomeMessage> welcome = client.ReceiveWelcome(kWaitMs);
  ASSERT_TRUE(welcome.has_value());
  EXPECT_EQ(welcome->status, static_cast<uint32_t>(StatusCode::kRefused));
  const std::string said = welcome->message;
  EXPECT_NE(said.find(std::string("layout ") + GetParam() + ", this engine " + kNow), std::string::npos) << said;
  EXPECT_NE(said.find("of the same version"), std::string::npos) << said;
  EXPECT_TRUE(client.HungUp(kWaitMs));
  EXPECT_EQ(engine.Stats().counter(Counter::kRefusedVersion), 1u);
}

// An engine of the earlier version refuses our hello; even if it did not, its welcome is not ours.
TEST_P(EarlierLayout, AnEngineIsRefusedByTheClientOfToday) {
  const TempDir directory;
  for (const char* answer : {"refusal", "welcome"}) {
    const std::string path = directory / answer;
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    const UniqueFd listener(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    ASSERT_EQ(bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    ASSERT_EQ(listen(listener.get(), 5), 0);
    std::thread engine([&] {
      const UniqueFd peer(accept(listener.get(), nullptr, nullptr));
      char hello[1024];
      ASSERT_GE(recv(peer.get(), hello, sizeof(hello), 0), 12);
      uint16_t major = 0;
      std::memcpy(&major, hello + 8, sizeof(major));
      EXPECT_EQ(major, kLayoutMajor) << "where every layout has it";
      const std::string message = Recorded(answer, GetParam());
      EXPECT_EQ(send(peer.get(), message.data(), message.size(), MSG_NOSIGNAL), static_cast<ssize_t>(message.size()));
      (void)!recv(peer.get(), hello, sizeof(hello), 0);  // until it hangs up
    });
    ClientHandle client;
    EXPECT_EQ(client.Attach(path), SUTRA_REFUSED) << answer;
    const std::string said = sutra_error_text();
    EXPECT_NE(said.find(std::string("layout ") + GetParam() + ", this library " + kNow), std::string::npos) << said;
    EXPECT_NE(said.find("install"), std::string::npos) << said;
    engine.join();
  }
}

INSTANTIATE_TEST_SUITE_P(Wire, EarlierLayout, testing::Values("1.0", "2.0"), [](const auto& version) {
  std::string name = std::string("Layout") + version.param;
  std::replace(name.begin(), name.end(), '.', '_');
  return name;
});

}  // namespace
}  // namespace sutra::test
