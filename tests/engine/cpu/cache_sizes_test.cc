// Cache sizes from files as the kernel writes them, and from none.
#include "engine/cpu/cache_sizes.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/kit/temp_dir.h"

namespace sutra::cpu {
namespace {

class CacheSizesTest : public testing::Test {
 protected:
  void Write(int index, const std::string& level, const std::string& type, const std::string& size,
             const std::string& shared) {
    const std::string cache = root_.path() + "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/";
    std::filesystem::create_directories(cache);
    std::ofstream(cache + "level") << level << "\n";
    std::ofstream(cache + "type") << type << "\n";
    std::ofstream(cache + "size") << size << "\n";
    std::ofstream(cache + "shared_cpu_list") << shared << "\n";
  }
  test::TempDir root_;
};

TEST_F(CacheSizesTest, EachCpuHasItsShare) {
  Write(0, "1", "Data", "48K", "0,8");
  Write(1, "1", "Instruction", "32K", "0,8");
  Write(2, "2", "Unified", "2048K", "0,8");
  Write(3, "3", "Unified", "32768K", "0-3,8-11");
  const CacheSizes sizes = ReadCacheSizes(root_.path());
  EXPECT_EQ(sizes.l2_bytes, size_t{1} << 20);
  EXPECT_EQ(sizes.l3_share_bytes, size_t{4} << 20);
}

TEST_F(CacheSizesTest, WhatIsNotToldKeepsItsDefault) {
  const CacheSizes otherwise;
  EXPECT_EQ(ReadCacheSizes(root_.path()).l2_bytes, otherwise.l2_bytes);
  Write(0, "2", "Unified", "nonsense", "0");
  Write(1, "3", "Unified", "4096K", "3-1");  // whom it is shared with is not known: taken for its own
  const CacheSizes sizes = ReadCacheSizes(root_.path());
  EXPECT_EQ(sizes.l2_bytes, otherwise.l2_bytes);
  EXPECT_EQ(sizes.l3_share_bytes, size_t{4} << 20);
}

}  // namespace
}  // namespace sutra::cpu
