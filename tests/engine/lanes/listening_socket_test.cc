#include "engine/lanes/listening_socket.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <sstream>

#include "tests/kit/temp_dir.h"

namespace sutra {
namespace {

class ListeningSocketTest : public ::testing::Test {
 protected:
  // Connects a socket of this type; 0 or errno.
  static int Connect(const std::string& path, int type = SOCK_SEQPACKET) {
    const UniqueFd client(socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const sockaddr_un address = Address(path);
    return connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 ? 0 : errno;
  }
  // Another program's socket; closing it leaves a dead one at the path.
  static UniqueFd ForeignSocket(const std::string& path, int type) {
    UniqueFd fd(socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
    const sockaddr_un address = Address(path);
    EXPECT_EQ(bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_TRUE(type == SOCK_DGRAM || listen(fd.get(), 1) == 0);
    return fd;
  }
  static std::string Read(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }
  static std::optional<FileIdentity> At(const std::string& path) { return FileIdentity::At(path); }
  static bool Exists(const std::string& path) { return At(path).has_value(); }

  const test::TempDir directory_;
  const std::string path_ = directory_ / "s";
  const std::string new_ = path_ + ".new";

 private:
  static sockaddr_un Address(const std::string& path) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.c_str(), path.size());
    return address;
  }
};

TEST_F(ListeningSocketTest, ADeadSocketIsReplacedAndTheModeIsSet) {
  ForeignSocket(path_, SOCK_SEQPACKET).reset();
  ForeignSocket(new_, SOCK_SEQPACKET).reset();
  const auto dead = At(path_);
  const Result<ListeningSocket> made = ListeningSocket::Open(path_, 0666);
  ASSERT_TRUE(made.ok()) << made.status().message();
  EXPECT_NE(At(path_), dead);
  struct stat info = {};
  ASSERT_EQ(stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0666u);
  EXPECT_FALSE(Exists(new_));
  EXPECT_EQ(Connect(path_), 0);
  EXPECT_TRUE(made.value().Look().ok());
}

TEST_F(ListeningSocketTest, ClientsFindItOnlyOnceItIsShownAndItLeavesNothing) {
  {
    Result<ListeningSocket> made = ListeningSocket::Prepare(path_, 0600);
    ASSERT_TRUE(made.ok()) << made.status().message();
    EXPECT_EQ(Connect(path_), ENOENT);
    EXPECT_TRUE(Exists(new_));
  }
  EXPECT_FALSE(Exists(new_));
  {
    Result<ListeningSocket> made = ListeningSocket::Open(path_, 0600);
    ASSERT_TRUE(made.ok());
    EXPECT_EQ(Connect(path_), 0);
  }
  EXPECT_TRUE(std::filesystem::is_empty(directory_.path()));
}

// Everything that may be at SOCKET or at SOCKET.new: how it gets there, and what the refusal names.
struct InTheWay {
  const char* name;
  std::function<UniqueFd(const std::string&)> put;
  const char* word;
};

class ForeignFile : public ListeningSocketTest, public ::testing::WithParamInterface<const char*> {
 protected:
  std::vector<InTheWay> Kinds() {
    const auto listening = [](int type) {
      return [type](const std::string& path) { return ForeignSocket(path, type); };
    };
    return {
        {"file", [](const std::string& path) { return std::ofstream(path) << "the only copy", UniqueFd(); }, "regular"},
        {"empty file", [](const std::string& path) { return std::ofstream(path), UniqueFd(); }, "regular"},
        {"directory", [](const std::string& path) { return mkdir(path.c_str(), 0700), UniqueFd(); }, "directory"},
        {"fifo", [](const std::string& path) { return mkfifo(path.c_str(), 0600), UniqueFd(); }, "FIFO"},
        {"link to a file",
         [this](const std::string& path) {
           std::ofstream(directory_ / "target") << "the only copy";
           return symlink((directory_ / "target").c_str(), path.c_str()), UniqueFd();
         },
         "symbolic link"},
        {"link to a dead socket",
         [this](const std::string& path) {
           ForeignSocket(directory_ / "dead", SOCK_SEQPACKET).reset();
           return symlink((directory_ / "dead").c_str(), path.c_str()), UniqueFd();
         },
         "symbolic link"},
        {"dangling link", [](const std::string& path) { return symlink("nowhere", path.c_str()), UniqueFd(); },
         "symbolic link"},
        {"live stream socket", listening(SOCK_STREAM), "another program"},
        {"live datagram socket", listening(SOCK_DGRAM), "another program"},
        {"live seqpacket socket", listening(SOCK_SEQPACKET), "another program"},
    };
  }
};

TEST_P(ForeignFile, IsAnErrorThatNamesItAndStaysUntouched) {
  const std::string at = path_ + GetParam();
  for (const InTheWay& kind : Kinds()) {
    const UniqueFd holder = kind.put(at);
    const auto before = At(at);
    ASSERT_TRUE(before.has_value()) << kind.name;
    const Status free = ListeningSocket::CheckFree(path_);
    EXPECT_NE(free.message().find(kind.word), std::string::npos) << kind.name << ": " << free.message();
    EXPECT_NE(free.message().find(at), std::string::npos) << free.message();
    const Result<ListeningSocket> made = ListeningSocket::Open(path_, 0600);
    EXPECT_EQ(made.code(), StatusCode::kStorageError) << kind.name;
    EXPECT_EQ(At(at), before) << kind.name;
    if (std::string(kind.name) == "file") {
      EXPECT_EQ(Read(at), "the only copy");
    }
    EXPECT_FALSE(Exists(at == path_ ? new_ : path_)) << kind.name;  // and nothing of ours stays
    std::filesystem::remove_all(at);
    std::filesystem::remove(directory_ / "dead");
  }
  EXPECT_TRUE(ListeningSocket::Open(path_, 0600).ok());  // the canary: without them it can serve
}

INSTANTIATE_TEST_SUITE_P(AtThePathAndBesideIt, ForeignFile, ::testing::Values("", ".new"));

TEST_F(ListeningSocketTest, WhatTookItsPlaceMeanwhileIsNotRemovedAtTheEnd) {
  std::optional<ListeningSocket> made(std::move(ListeningSocket::Open(path_, 0600)).value());
  ASSERT_EQ(unlink(path_.c_str()), 0);
  std::ofstream(path_) << "another's";
  const Status look = made->Look();
  EXPECT_NE(look.message().find("regular file"), std::string::npos) << look.message();
  EXPECT_FALSE(made->BindAgain().ok());
  EXPECT_EQ(Read(path_), "another's");
  made.reset();
  EXPECT_EQ(Read(path_), "another's");
  EXPECT_FALSE(Exists(new_));
}

TEST_F(ListeningSocketTest, AfterItsRemovalItIsBoundAgainUnderTheSameDescriptor) {
  ListeningSocket made = std::move(ListeningSocket::Open(path_, 0640)).value();
  const int fd = made.fd();
  ASSERT_EQ(unlink(path_.c_str()), 0);
  EXPECT_EQ(made.Look().os_error(), ENOENT);
  ASSERT_TRUE(made.BindAgain().ok());
  EXPECT_TRUE(made.Look().ok());
  EXPECT_EQ(made.fd(), fd);
  EXPECT_EQ(Connect(path_), 0);
  pollfd event = {.fd = fd, .events = POLLIN, .revents = 0};
  EXPECT_EQ(poll(&event, 1, 0), 1);  // that client waits here
  EXPECT_NE(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
  struct stat info = {};
  ASSERT_EQ(stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0640u);
  made.Withdraw();
  EXPECT_FALSE(Exists(path_));
}

TEST_F(ListeningSocketTest, ASocketInAMissingDirectoryNamesItAndTheFix) {
  const Result<ListeningSocket> made = ListeningSocket::Open(directory_ / "none/s", 0600);
  ASSERT_FALSE(made.ok());
  EXPECT_NE(made.status().message().find("none/s"), std::string::npos);
  EXPECT_NE(made.status().message().find("directory"), std::string::npos);
}

}  // namespace
}  // namespace sutra
