// What is done through an overlay is seen through it, and nowhere else.
#include "cache/disk/disk_io_overlay.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/kit/temp_dir.h"

namespace sutra {
namespace {

std::string Contents(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

class DiskIoOverlay : public ::testing::Test {
 protected:
  void SetUp() override {
    temp_.Write("a", "first");
    temp_.Write("b", "second");
  }
  std::string Read(const std::string& name) {
    const Result<FileHandle> file = io_.Open(temp_ / name, OpenMode::kRead);
    if (!file.ok()) return "error " + std::to_string(file.status().os_error());
    std::string text(io_.Size(*file).value(), '\0');
    EXPECT_TRUE(io_.Read(*file, 0, std::as_writable_bytes(std::span<char>(text))).ok());
    io_.Close(*file);
    return text;
  }
  void Write(const std::string& name, const std::string& text) {
    const Result<FileHandle> file = io_.Open(temp_ / name, OpenMode::kCreate);
    ASSERT_TRUE(file.ok()) << file.status().message();
    EXPECT_TRUE(io_.Write(*file, 0, std::as_bytes(std::span<const char>(text)), true).ok());
    io_.Close(*file);
  }
  std::vector<std::string> Names() { return io_.List(temp_.path()).value(); }

  test::TempDir temp_;
  OverlayDiskIo io_;
};

TEST_F(DiskIoOverlay, ReadsTheFilesThatAreThere) {
  EXPECT_EQ(Read("a"), "first");
  EXPECT_EQ(Names(), (std::vector<std::string>{"a", "b"}));
}

TEST_F(DiskIoOverlay, WhatIsMadeIsInMemoryOnly) {
  Write("c", "third");
  EXPECT_EQ(Read("c"), "third");
  EXPECT_EQ(Names(), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_FALSE(std::filesystem::exists(temp_ / "c"));
  EXPECT_EQ(io_.Open(temp_ / "c", OpenMode::kCreate).status().os_error(), EEXIST);
  EXPECT_EQ(io_.Open(temp_ / "a", OpenMode::kCreate).status().os_error(), EEXIST);
}

TEST_F(DiskIoOverlay, WhatIsRemovedOrRenamedStaysOnTheDisk) {
  ASSERT_TRUE(io_.Unlink(temp_ / "a").ok());
  ASSERT_TRUE(io_.Rename(temp_ / "b", temp_ / "a").ok());
  EXPECT_EQ(Read("a"), "second");
  EXPECT_EQ(Read("b"), "error " + std::to_string(ENOENT));
  EXPECT_EQ(Names(), (std::vector<std::string>{"a"}));
  EXPECT_EQ(io_.Unlink(temp_ / "b").os_error(), ENOENT);
  EXPECT_EQ(io_.Rename(temp_ / "b", temp_ / "c").os_error(), ENOENT);
  EXPECT_EQ(Contents(temp_ / "a"), "first");
  EXPECT_EQ(Contents(temp_ / "b"), "second");
}

TEST_F(DiskIoOverlay, AFileThatWasMadeMovesWithItsContents) {
  Write("c.tmp", "third");
  ASSERT_TRUE(io_.Rename(temp_ / "c.tmp", temp_ / "b").ok());
  EXPECT_EQ(Read("b"), "third");
  EXPECT_EQ(Contents(temp_ / "b"), "second");
}

TEST_F(DiskIoOverlay, AFileOfTheDiskIsNeverOpenedForWriting) {
  EXPECT_EQ(io_.Open(temp_ / "a", OpenMode::kWriteLog).status().os_error(), EROFS);
}

TEST_F(DiskIoOverlay, ALogFileHasItsSizeBeforeItIsWritten) {
  const Result<FileHandle> file = io_.Open(temp_ / "log", OpenMode::kCreateLog);
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE(io_.Allocate(*file, 1 << 20, AllocateFill::kZeroed).ok());
  EXPECT_EQ(io_.Size(*file).value(), 1u << 20);
  io_.Close(*file);
  EXPECT_EQ(Read("log"), std::string(1 << 20, '\0'));
}

TEST_F(DiskIoOverlay, ADirectoryIsNotMade) {
  EXPECT_TRUE(io_.MakeDirectory(temp_.path()).ok());
  EXPECT_EQ(io_.MakeDirectory(temp_ / "d").os_error(), ENOENT);
  EXPECT_FALSE(std::filesystem::exists(temp_ / "d"));
}

}  // namespace
}  // namespace sutra
