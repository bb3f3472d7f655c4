// A segment of this test's own: the options to create it with, and its bytes.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "shm/stats/stats_segment.h"
#include "tests/kit/temp_dir.h"

namespace sutra::test {

class StatsFixture : public ::testing::Test {
 protected:
  void SetUp() override {
    options_.socket_path = directory_ / "engine.sock";
    options_.engine_generation = 77;
    options_.model = "tiny";
    options_.identity = "abc";
    options_.precision = "fp32";
    options_.device = "cpu";
  }
  void TearDown() override { EXPECT_TRUE(StatsSegment::Remove(options_.socket_path).ok()); }
  std::unique_ptr<StatsSegment> Create() {
    auto segment = StatsSegment::Create(options_);
    EXPECT_TRUE(segment.ok()) << segment.status().message();
    return segment.ok() ? std::move(segment).value() : nullptr;
  }
  std::vector<std::byte> Bytes(const StatsSegment& segment) {
    const int fd = shm_open(("/" + segment.name()).c_str(), O_RDONLY, 0);
    struct stat info {};
    EXPECT_EQ(fstat(fd, &info), 0);
    std::vector<std::byte> bytes(static_cast<size_t>(info.st_size));
    EXPECT_EQ(pread(fd, bytes.data(), bytes.size(), 0), info.st_size);
    close(fd);
    return bytes;
  }

  const test::TempDir directory_;
  StatsSegmentOptions options_;
};

}  // namespace sutra::test
