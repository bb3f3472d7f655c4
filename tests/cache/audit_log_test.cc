// The audit of a data directory: its lines, its bound, and what may lie in its place.
#include "cache/audit_log.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

#include "tests/kit/temp_dir.h"

namespace sutra {
namespace {

namespace fs = std::filesystem;

class AuditLogTest : public testing::Test {
 protected:
  std::string path() const { return temp_ / "audit.log"; }
  static std::string Contents(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
  }
  std::vector<std::string> Lines() const {
    std::istringstream text(Contents(path()));
    std::vector<std::string> lines;
    for (std::string line; std::getline(text, line);) lines.push_back(line);
    return lines;
  }
  Status Intend(const std::string& what = "everything") {
    return audit_.Intend({.command = "cache commit", .uid = 5, .pid = 6, .what = what, .result = {}});
  }

  test::TempDir temp_;
  AuditLog audit_{temp_.path()};
};

TEST_F(AuditLogTest, ALineIsOneJsonObject) {
  ASSERT_TRUE(Intend("older than 5 s \"\n\x01\xff").ok());
  ASSERT_TRUE(audit_.Finish({.command = "cache commit", .uid = 5, .pid = 6, .what = "w", .result = "3 entries"}).ok());
  const std::vector<std::string> lines = Lines();
  ASSERT_EQ(lines.size(), 2u);
  const nlohmann::json intent = nlohmann::json::parse(lines[0]);
  EXPECT_EQ(intent["phase"], "intent");
  EXPECT_EQ(intent["command"], "cache commit");
  EXPECT_EQ(intent["uid"], 5);
  EXPECT_EQ(intent["pid"], 6);
  EXPECT_EQ(intent["what"], "older than 5 s \"???");
  EXPECT_EQ(intent["time"].get<std::string>().size(), 20u);
  const nlohmann::json done = nlohmann::json::parse(lines[1]);
  EXPECT_EQ(done["phase"], "done");
  EXPECT_EQ(done["result"], "3 entries");
}

TEST_F(AuditLogTest, OthersDoNotReadIt) {
  ASSERT_TRUE(Intend().ok());
  struct stat info;
  ASSERT_EQ(stat(path().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0007, 0u);
}

TEST_F(AuditLogTest, ATextIsNamedByItsLengthAndDigestAlone) {
  // echo -n secret | sha256sum
  EXPECT_EQ(AuditLog::Words("text", "secret"), "text of 6 bytes, sha256 2bb80d537b1da3e3");
}

TEST_F(AuditLogTest, ATornLineIsEndedByTheNext) {
  ASSERT_TRUE(Intend().ok());
  std::ofstream(path(), std::ios::app) << "{\"time\":\"20";
  ASSERT_TRUE(Intend("after").ok());
  const std::vector<std::string> lines = Lines();
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(nlohmann::json::parse(lines[2])["what"], "after");
}

TEST_F(AuditLogTest, ItIsRotatedAtItsBound) {
  ASSERT_TRUE(Intend("first").ok());
  fs::resize_file(path(), kAuditBytesMax - 1);
  ASSERT_TRUE(Intend("last of the old one").ok());
  EXPECT_FALSE(fs::exists(temp_ / "audit.log.1"));
  ASSERT_TRUE(Intend("first of the new one").ok());
  EXPECT_GE(fs::file_size(temp_ / "audit.log.1"), kAuditBytesMax);
  EXPECT_NE(Contents(temp_ / "audit.log.1").find("last of the old one"), std::string::npos);
  ASSERT_EQ(Lines().size(), 1u);
  fs::resize_file(path(), kAuditBytesMax);
  ASSERT_TRUE(Intend("second new one").ok());
  EXPECT_EQ(Lines().size(), 1u);
}

TEST_F(AuditLogTest, NothingElseIsWrittenTo) {
  const std::string elsewhere = temp_ / "elsewhere";
  std::ofstream(elsewhere) << "mine";
  fs::create_symlink(elsewhere, path());
  EXPECT_EQ(Intend().code(), StatusCode::kStorageError);
  fs::remove(path());
  fs::create_hard_link(elsewhere, path());
  EXPECT_EQ(Intend().code(), StatusCode::kRefused);
  fs::remove(path());
  EXPECT_EQ(Contents(elsewhere), "mine");
  ASSERT_EQ(mkfifo(path().c_str(), 0600), 0);
  EXPECT_EQ(Intend().code(), StatusCode::kRefused);  // and does not wait for a reader
  fs::remove(path());
  fs::create_directory(path());
  EXPECT_EQ(Intend().code(), StatusCode::kStorageError);
  fs::remove(path());
  EXPECT_TRUE(Intend().ok());
}

TEST_F(AuditLogTest, WithoutADirectoryItFailsAndNamesTheFile) {
  AuditLog lost(temp_ / "no-such");
  const Status status = lost.Intend({});
  EXPECT_EQ(status.code(), StatusCode::kStorageError);
  EXPECT_NE(status.message().find("no-such/audit.log"), std::string::npos) << status.message();
}

}  // namespace
}  // namespace sutra
