// What an output may do to what is there already: a file is replaced or emptied, everything else is written or refused.
#include "tools/lib/output_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "tests/kit/temp_dir.h"
#include "tools/lib/vector_output.h"

namespace sutra {
namespace {

constexpr size_t kNpyBytes = 128 + sizeof(float);

class OutputPlace : public ::testing::Test {
 protected:
  static struct stat StatOf(const std::string& path) {
    struct stat info = {};
    EXPECT_EQ(lstat(path.c_str(), &info), 0) << path;
    return info;
  }
  // One vector as a NumPy file.
  static Status WriteNpy(const std::string& path, int input_fd = -1) {
    auto writer = OpenNpyWriter(path, 1, input_fd);
    if (!writer.ok()) return writer.status();
    const float row[] = {1};
    if (Status status = writer.value()->Vector(InputItem{}, row); !status.ok()) return status;
    return writer.value()->Finish();
  }
  static Status WriteJsonl(const std::string& path, int input_fd) {
    auto writer = OpenJsonlWriter(path, input_fd);
    if (!writer.ok()) return writer.status();
    return writer.value()->Finish();
  }
  size_t FilesInDirectory() const {
    const std::filesystem::directory_iterator files(directory_.path());
    return static_cast<size_t>(std::distance(begin(files), end(files)));
  }
  // A device like /dev/null (minor 3) or /dev/full (7), in this test's own directory.
  bool MakeDevice(unsigned number) {
    if (mknod(path_.c_str(), S_IFCHR | 0666, makedev(1, number)) != 0) return false;
    return UniqueFd(open(path_.c_str(), O_WRONLY | O_CLOEXEC)).get() >= 0;
  }

  test::TempDir directory_;
  const std::string path_ = directory_ / "out";
  const std::string real_ = directory_ / "real";
};

TEST_F(OutputPlace, ADeviceIsWrittenAndStaysADevice) {
  if (!MakeDevice(3)) GTEST_SKIP() << "no devices can be made here";
  const struct stat before = StatOf(path_);
  EXPECT_TRUE(WriteNpy(path_).ok());
  EXPECT_EQ(StatOf(path_).st_ino, before.st_ino);
  EXPECT_TRUE(S_ISCHR(StatOf(path_).st_mode));
  EXPECT_EQ(FilesInDirectory(), 1u);
}

TEST_F(OutputPlace, AFullDeviceIsAnErrorAndStaysADevice) {
  if (!MakeDevice(7)) GTEST_SKIP() << "no devices can be made here";
  const Status status = WriteNpy(path_);
  EXPECT_EQ(status.code(), StatusCode::kStorageError);
  EXPECT_NE(status.message().find(path_), std::string::npos) << status.message();
  EXPECT_TRUE(S_ISCHR(StatOf(path_).st_mode));
}

TEST_F(OutputPlace, AFifoGetsTheWholeFileAndStaysAFifo) {
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  const UniqueFd reader(open(path_.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  ASSERT_TRUE(reader);
  EXPECT_TRUE(WriteNpy(path_).ok());
  EXPECT_TRUE(S_ISFIFO(StatOf(path_).st_mode));
  char bytes[kNpyBytes + 1] = {};
  EXPECT_EQ(read(reader.get(), bytes, sizeof(bytes)), static_cast<ssize_t>(kNpyBytes));
  EXPECT_EQ(std::memcmp(bytes, "\x93NUMPY", 6), 0);
}

TEST_F(OutputPlace, ASocketAndADirectoryAreRefusedByNameBeforeAnythingIsComputed) {
  const UniqueFd bound(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  ASSERT_LT(path_.size(), sizeof(address.sun_path));
  std::memcpy(address.sun_path, path_.data(), path_.size());
  ASSERT_EQ(bind(bound.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  for (const std::string& place : {path_, directory_.path()}) {
    const auto writer = OpenNpyWriter(place, 1);
    ASSERT_FALSE(writer.ok()) << place;
    EXPECT_EQ(writer.code(), StatusCode::kBadOption);
    EXPECT_NE(writer.status().message().find(place), std::string::npos) << writer.status().message();
  }
  EXPECT_TRUE(S_ISSOCK(StatOf(path_).st_mode));
}

TEST_F(OutputPlace, ALinkStaysAndItsFileIsReplaced) {
  std::filesystem::create_directory(directory_ / "sub");
  directory_.Write("sub/real", "old");
  std::filesystem::create_symlink("sub/link", path_);
  std::filesystem::create_symlink("real", directory_ / "sub/link");
  EXPECT_TRUE(WriteNpy(path_).ok());
  EXPECT_TRUE(S_ISLNK(StatOf(path_).st_mode));
  EXPECT_TRUE(S_ISLNK(StatOf(directory_ / "sub/link").st_mode));
  EXPECT_EQ(StatOf(directory_ / "sub/real").st_size, static_cast<off_t>(kNpyBytes));
}

TEST_F(OutputPlace, ALinkToNothingMakesTheFileThatItNames) {
  std::filesystem::create_symlink(real_, path_);
  EXPECT_TRUE(WriteNpy(path_).ok());
  EXPECT_TRUE(S_ISLNK(StatOf(path_).st_mode));
  EXPECT_EQ(StatOf(real_).st_size, static_cast<off_t>(kNpyBytes));
  std::filesystem::create_symlink("circle", directory_ / "circle");
  EXPECT_FALSE(WriteNpy(directory_ / "circle").ok());
}

TEST_F(OutputPlace, AReplacedFileKeepsItsMode) {
  directory_.Write("out", "old");
  for (const mode_t mode : {0600, 0640, 0666}) {
    ASSERT_EQ(chmod(path_.c_str(), mode), 0);
    EXPECT_TRUE(WriteNpy(path_).ok());
    EXPECT_EQ(StatOf(path_).st_mode & 07777, mode);
    EXPECT_EQ(StatOf(path_).st_size, static_cast<off_t>(kNpyBytes));
  }
}

TEST_F(OutputPlace, WhatBecameAFifoMeanwhileIsNotReplaced) {
  auto writer = OpenNpyWriter(path_, 1);
  ASSERT_TRUE(writer.ok());
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  EXPECT_FALSE(writer.value()->Finish().ok());
  EXPECT_TRUE(S_ISFIFO(StatOf(path_).st_mode));
}

TEST_F(OutputPlace, TheInputIsRefusedUnderAnyOfItsNamesAndKeepsItsContent) {
  directory_.Write("real", "precious");
  std::filesystem::create_symlink("real", directory_ / "symbolic");
  std::filesystem::create_hard_link(real_, directory_ / "hard");
  const UniqueFd input(open(real_.c_str(), O_RDONLY | O_CLOEXEC));
  for (const std::string& name : {real_, directory_ / "symbolic", directory_ / "hard", directory_ / "./real"}) {
    for (const Status& status : {WriteJsonl(name, input.get()), WriteNpy(name, input.get())}) {
      EXPECT_EQ(status.code(), StatusCode::kBadOption) << name;
      EXPECT_NE(status.message().find(name), std::string::npos) << status.message();
      EXPECT_NE(status.message().find("is the input"), std::string::npos) << status.message();
    }
  }
  EXPECT_EQ(StatOf(real_).st_size, 8);
}

TEST_F(OutputPlace, CanaryAnotherFileThanTheInputIsEmptiedAndWritten) {
  directory_.Write("real", "precious");
  directory_.Write("out", "old");
  const UniqueFd input(open(real_.c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_TRUE(WriteJsonl(path_, input.get()).ok());
  EXPECT_EQ(StatOf(path_).st_size, 0);
  EXPECT_TRUE(WriteNpy(path_, input.get()).ok());
  EXPECT_EQ(StatOf(path_).st_size, static_cast<off_t>(kNpyBytes));
}

}  // namespace
}  // namespace sutra
