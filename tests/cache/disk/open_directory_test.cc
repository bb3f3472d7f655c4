// Work in a directory by its descriptor: what is followed, what is refused, what cannot be reached.
#include "cache/disk/open_directory.h"

#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "shm/base/time.h"
#include "tests/kit/temp_dir.h"

namespace sutra {
namespace {

namespace fs = std::filesystem;

class OpenDirectoryTest : public ::testing::Test {
 protected:
  OpenDirectory Opened() const { return OpenDirectory::Open(temp_.path()).value(); }
  const test::TempDir temp_;
};

TEST_F(OpenDirectoryTest, ListsNamesWithWhatTheyAreAndTheRoomTheyTakeUp) {
  temp_.Write("b", std::string(100'000, 'x'));
  fs::create_directory(temp_ / "a");
  fs::create_symlink("b", temp_ / "c");
  const std::vector<OpenDirectory::Item> items = Opened().List().value();
  ASSERT_EQ(items.size(), 3u);
  EXPECT_EQ(items[0].name, "a");
  EXPECT_TRUE(S_ISDIR(items[0].mode));
  EXPECT_EQ(items[1].name, "b");
  EXPECT_TRUE(S_ISREG(items[1].mode));
  EXPECT_EQ(items[1].identity, FileIdentity::At(temp_ / "b"));
  EXPECT_GT(items[1].changed_ns, WallNs() - 3600 * kNsPerSecond);
  EXPECT_EQ(items[2].name, "c");
  EXPECT_TRUE(S_ISLNK(items[2].mode));
  struct stat info = {};
  ASSERT_EQ(stat((temp_ / "b").c_str(), &info), 0);
  EXPECT_EQ(items[1].bytes, static_cast<uint64_t>(info.st_blocks) * 512);
  EXPECT_EQ(Opened().List()->size(), 3u) << "each listing begins at the start";
}

TEST_F(OpenDirectoryTest, ALinkIsFollowedInThePathThatIsGivenAndNowhereBelow) {
  const test::TempDir elsewhere;
  elsewhere.Write("precious", "kept");
  fs::create_directory_symlink(temp_.path(), elsewhere / "link");
  EXPECT_TRUE(OpenDirectory::Open(elsewhere / "link").ok());
  fs::create_directory_symlink(elsewhere.path(), temp_ / "out");
  fs::create_symlink(elsewhere / "precious", temp_ / "file");
  EXPECT_EQ(Opened().OpenChild("out").code(), StatusCode::kRefused);
  EXPECT_EQ(Opened().OpenFile("file").code(), StatusCode::kRefused);
  EXPECT_TRUE(Opened().Unlink("file").ok());
  EXPECT_TRUE(fs::exists(elsewhere / "precious")) << "the link went, not what it led to";
  EXPECT_FALSE(Opened().RemoveChild("out").ok());
}

TEST_F(OpenDirectoryTest, AFileIsNoDirectoryAndADirectoryOrAFifoNoFile) {
  temp_.Write("file", "x");
  fs::create_directory(temp_ / "child");
  ASSERT_EQ(mkfifo((temp_ / "fifo").c_str(), 0600), 0);
  EXPECT_EQ(Opened().OpenChild("file").code(), StatusCode::kRefused);
  EXPECT_EQ(Opened().OpenFile("child").code(), StatusCode::kRefused);
  EXPECT_EQ(Opened().OpenFile("fifo").code(), StatusCode::kRefused) << "and nobody waits for its other end";
  EXPECT_TRUE(Opened().OpenFile("file").ok());
  EXPECT_TRUE(Opened().OpenChild("child").ok());
  EXPECT_EQ(Opened().OpenChild("missing").status().os_error(), ENOENT);
  EXPECT_EQ(Opened().OpenFile("missing").status().os_error(), ENOENT);
}

TEST_F(OpenDirectoryTest, ADirectoryThatIsMovedIsStillTheOneThatWasOpened) {
  fs::create_directory(temp_ / "child");
  temp_.Write("child/mine", "x");
  const OpenDirectory child = Opened().OpenChild("child").value();
  fs::rename(temp_ / "child", temp_ / "moved");
  temp_.Write("child/mine", "another's");
  EXPECT_TRUE(child.Unlink("mine").ok());
  EXPECT_FALSE(fs::exists(temp_ / "moved/mine"));
  EXPECT_TRUE(fs::exists(temp_ / "child/mine"));
}

TEST_F(OpenDirectoryTest, ARenameReplacesNothing) {
  fs::create_directory(temp_ / "a");
  temp_.Write("b/full", "x");
  EXPECT_EQ(Opened().Rename("a", "b").os_error(), EEXIST);
  EXPECT_TRUE(Opened().Rename("a", "c").ok());
  EXPECT_TRUE(Opened().Sync().ok());
  EXPECT_TRUE(fs::exists(temp_ / "c"));
  EXPECT_TRUE(Opened().RemoveChild("c").ok());
  EXPECT_EQ(Opened().RemoveChild("b").os_error(), ENOTEMPTY);
}

TEST_F(OpenDirectoryTest, AnotherFileSystemIsRefused) {
  fs::create_directory(temp_ / "mounted");
  if (mount("none", (temp_ / "mounted").c_str(), "tmpfs", 0, nullptr) != 0) {
    GTEST_SKIP() << "SKIPPED: this user may not mount";
  }
  const Result<OpenDirectory> child = Opened().OpenChild("mounted");
  umount((temp_ / "mounted").c_str());
  EXPECT_EQ(child.code(), StatusCode::kRefused);
  EXPECT_NE(child.status().message().find("another file system is mounted"), std::string::npos);
}

TEST_F(OpenDirectoryTest, ErrorsNameThePath) {
  const Status status = OpenDirectory::Open(temp_ / "missing").status();
  EXPECT_EQ(status.os_error(), ENOENT);
  EXPECT_NE(status.message().find(temp_ / "missing"), std::string::npos) << status.message();
  EXPECT_NE(Opened().Unlink("gone").message().find(temp_ / "gone"), std::string::npos);
}

}  // namespace
}  // namespace sutra
