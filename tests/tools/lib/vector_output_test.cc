// JSON lines read back as the same floats; a NumPy file is whole or absent.
#include "tools/lib/vector_output.h"
#include "tests/kit/seed.h"
#include "tests/kit/temp_dir.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

namespace sutra {
namespace {

class OutputTest : public ::testing::Test {
 protected:
  void TearDown() override {
    std::filesystem::remove(path_);
    EXPECT_TRUE(std::filesystem::is_empty(directory_.path())) << "something was left behind";
  }
  std::string Content() const {
    std::ifstream file(path_, std::ios::binary);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }
  static InputItem Item(const std::string& text) {
    InputItem item;
    item.text = text;
    item.has_text = true;
    return item;
  }
  const test::TempDir directory_;
  const std::string path_ = directory_ / "out";
};

TEST_F(OutputTest, JsonLinesCarryTextVectorIdsAndErrors) {
  auto writer = OpenJsonlWriter(path_);
  ASSERT_TRUE(writer.ok());
  const float vector[] = {0.5f, -1e-5f};
  const int32_t ids[] = {101, 102};
  ASSERT_TRUE(writer.value()->Vector(Item("a\"b"), vector).ok());
  ASSERT_TRUE(writer.value()->Ids(Item("x"), ids).ok());
  ASSERT_TRUE(writer.value()->Error(Item("bad \xff"), "invalid UTF-8").ok());
  ASSERT_TRUE(writer.value()->Error(InputItem{}, "invalid JSON").ok());
  ASSERT_TRUE(writer.value()->Finish().ok());
  EXPECT_EQ(Content(),
            "{\"text\":\"a\\\"b\",\"vector\":[0.5,-1e-05]}\n"
            "{\"text\":\"x\",\"ids\":[101,102]}\n"
            "{\"text\":\"bad \xef\xbf\xbd\",\"error\":\"invalid UTF-8\"}\n"
            "{\"text\":null,\"error\":\"invalid JSON\"}\n");
}

TEST_F(OutputTest, FloatsReadBackAsTheSameBits) {
  std::mt19937_64 random(test::FreshTestSeed());
  std::vector<float> vector = {0.0f, -0.0f, 1.0f, std::numeric_limits<float>::denorm_min(),
                               std::numeric_limits<float>::max()};
  while (vector.size() < 2000) {
    const float value = std::bit_cast<float>(static_cast<uint32_t>(random()));
    if (std::isfinite(value)) vector.push_back(value);
  }
  std::string text;
  AppendVector(vector, &text);
  const auto json = nlohmann::json::parse(text);
  ASSERT_EQ(json.size(), vector.size());
  for (size_t i = 0; i < vector.size(); ++i) {
    const float back = std::strtof(json[i].dump().c_str(), nullptr);
    EXPECT_EQ(std::bit_cast<uint32_t>(back), std::bit_cast<uint32_t>(vector[i])) << vector[i];
  }
}

TEST_F(OutputTest, NumpyFileHasItsHeaderAndRows) {
  auto writer = OpenNpyWriter(path_, 3);
  ASSERT_TRUE(writer.ok());
  const float rows[] = {1, 2, 3, 4, 5, 6};
  ASSERT_TRUE(writer.value()->Vector(Item("a"), {rows, 3}).ok());
  ASSERT_TRUE(writer.value()->Vector(Item("b"), {rows + 3, 3}).ok());
  EXPECT_NE(access(path_.c_str(), F_OK), 0);  // not before it is complete
  ASSERT_TRUE(writer.value()->Finish().ok());
  const std::string content = Content();
  ASSERT_EQ(content.size(), 128 + sizeof(rows));
  EXPECT_EQ(content.substr(0, 8), std::string("\x93NUMPY\x01\x00", 8));
  EXPECT_EQ(static_cast<unsigned char>(content[8]), 118);
  EXPECT_NE(content.find("'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)"), std::string::npos);
  EXPECT_EQ(content[127], '\n');
  EXPECT_EQ(std::memcmp(content.data() + 128, rows, sizeof(rows)), 0);
  struct stat info {};
  ASSERT_EQ(stat(path_.c_str(), &info), 0);
  EXPECT_NE(info.st_mode & 0777, 0600u);  // the mode of any new file, not of a temporary one
}

TEST_F(OutputTest, ATextWithoutAVectorIsARowOfNanInANumpyFile) {
  auto writer = OpenNpyWriter(path_, 2);
  ASSERT_TRUE(writer.ok());
  const float row[] = {1, 2};
  ASSERT_TRUE(writer.value()->Error(Item("a"), "text too long").ok());  // also as the first row
  ASSERT_TRUE(writer.value()->Vector(Item("b"), row).ok());
  ASSERT_TRUE(writer.value()->Finish().ok());
  const std::string content = Content();
  float rows[4];
  ASSERT_EQ(content.size(), 128 + sizeof(rows));
  EXPECT_NE(content.find("'shape': (2, 2)"), std::string::npos);
  std::memcpy(rows, content.data() + 128, sizeof(rows));
  EXPECT_TRUE(std::isnan(rows[0]) && std::isnan(rows[1]));
  EXPECT_EQ(rows[2], 1);
  EXPECT_EQ(rows[3], 2);
}

TEST_F(OutputTest, NumpyFileIsAbsentWhenTheRunBrokeOff) {
  {
    auto writer = OpenNpyWriter(path_, 1);
    ASSERT_TRUE(writer.ok());
    const float row[] = {1};
    ASSERT_TRUE(writer.value()->Vector(Item("a"), row).ok());
    ASSERT_TRUE(writer.value()->Flush().ok());
  }
  EXPECT_NE(access(path_.c_str(), F_OK), 0);
}

TEST_F(OutputTest, SaysWhatItCannotOpen) {
  EXPECT_NE(OpenJsonlWriter("/nonexistent/x").status().message().find("/nonexistent/x"), std::string::npos);
  EXPECT_NE(OpenNpyWriter("/nonexistent/x", 3).status().message().find("/nonexistent/x"), std::string::npos);
}

TEST_F(OutputTest, AFullDiskIsAnErrorNotASilentLoss) {
  if (access("/dev/full", W_OK) != 0) GTEST_SKIP() << "this host has no /dev/full";
  auto writer = OpenJsonlWriter("/dev/full");
  ASSERT_TRUE(writer.ok());
  const float row[] = {1};
  Status status = writer.value()->Vector(Item("a"), row);
  if (status.ok()) status = writer.value()->Finish();
  EXPECT_EQ(status.code(), StatusCode::kStorageError);
}

}  // namespace
}  // namespace sutra
