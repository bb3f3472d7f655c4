#include "engine/start_traces.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/kit/temp_dir.h"

namespace sutra {
namespace {

namespace fs = std::filesystem;

TEST(StartTraces, OnlyWhatWasMissingIsRemovedAndOnlyWhileItIsEmpty) {
  const test::TempDir directory;
  fs::create_directory(directory / "old");
  const std::string made = directory / "old/a//b/c/";
  StartTraces traces;
  traces.WillMakeDirectory(made);
  fs::create_directories(made);
  traces.RemoveDirectories();
  EXPECT_FALSE(fs::exists(directory / "old/a"));
  EXPECT_TRUE(fs::exists(directory / "old"));

  traces.WillMakeDirectory(made);
  fs::create_directories(made);
  std::ofstream(directory / "old/a/in use") << "x";
  traces.RemoveDirectories();
  EXPECT_FALSE(fs::exists(directory / "old/a/b"));
  EXPECT_TRUE(fs::exists(directory / "old/a/in use"));
}

TEST(StartTraces, ATreeIsRemovedOnlyIfNothingWasThereBefore) {
  const test::TempDir directory;
  const std::string tree = directory / "0123456789abcdef";
  StartTraces traces;
  traces.WillMakeTree(tree);
  fs::create_directory(tree);
  std::ofstream(tree + "/MODEL") << "x";
  fs::create_directory_symlink(directory.path(), tree + "/link");
  std::ofstream(directory / "beside") << "x";
  traces.RemoveTrees();
  EXPECT_FALSE(fs::exists(tree));
  EXPECT_TRUE(fs::exists(directory / "beside"));  // links are removed, not followed

  fs::create_directory(tree);
  traces.WillMakeTree(tree);
  std::ofstream(tree + "/segment") << "x";
  traces.RemoveTrees();
  EXPECT_TRUE(fs::exists(tree + "/segment"));
}

}  // namespace
}  // namespace sutra
