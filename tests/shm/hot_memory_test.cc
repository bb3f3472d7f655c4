// The hot table's memory as the engine creates it: header, seals, what a client can do with its descriptor, what an
// unused table costs.
#include "shm/hot_memory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <string>

#include "shm/hot_reader.h"
#include "shm/hot_writer.h"
#include "tests/shm/hot_table_kit.h"

namespace sutra::test {
namespace {

constexpr HotGeometry kGeometry = HotGeometry::Of(384, 8 << 20);

class HotMemory : public testing::Test {
 protected:
  void SetUp() override {
    auto made = HotTableMemory::Create(kGeometry, 77);
    ASSERT_TRUE(made.ok()) << made.status().message();
    memory_ = std::move(made).value();
  }
  uint64_t AllocatedBytes() const {
    struct stat info;
    return fstat(memory_.fd(), &info) == 0 ? static_cast<uint64_t>(info.st_blocks) * 512 : UINT64_MAX;
  }
  HotTableMemory memory_;
};

TEST_F(HotMemory, HeaderCarriesTheGeometry) {
  const HotHeader& header = memory_.view().header();
  EXPECT_EQ(header.version.load(std::memory_order_acquire), kHotTableVersion);
  EXPECT_EQ(std::memcmp(&header.magic, "SUTRAHOT", 8), 0);
  EXPECT_EQ(header.header_bytes, 256u);
  EXPECT_EQ(header.segment_bytes, kGeometry.bytes());
  EXPECT_EQ(header.engine_generation, 77u);
  EXPECT_EQ(header.width, 384u);
  EXPECT_EQ(header.slots, kGeometry.slots);
  EXPECT_EQ(header.buckets, kGeometry.buckets());
  EXPECT_EQ(header.slot_bytes, 1600u);
  EXPECT_NE(header.seed, 0u);
  const auto other = HotTableMemory::Create(kGeometry, 77);
  ASSERT_TRUE(other.ok());
  EXPECT_NE(header.seed, other->view().header().seed) << "a seed that was used before could be known";
}

TEST_F(HotMemory, AnUnusedTableCostsItsBucketsOnly) {
  EXPECT_EQ(AllocatedBytes(), kGeometry.slots_at());
  ASSERT_TRUE(memory_.Back(0));
  const uint64_t first = AllocatedBytes();
  EXPECT_GE(first, kGeometry.slots_at() + kGeometry.slot_bytes());
  EXPECT_LE(first, kGeometry.slots_at() + 2 * HotTableMemory::kBackBytes);
  ASSERT_TRUE(memory_.Back(0));
  EXPECT_EQ(AllocatedBytes(), first);
  ASSERT_TRUE(memory_.Back(kGeometry.slots - 1));
  EXPECT_EQ(AllocatedBytes(), kGeometry.bytes());
}

TEST_F(HotMemory, NobodyElseCanResizeOrWrite) {
  const int fd = memory_.fd();
  EXPECT_NE(ftruncate(fd, 0), 0);
  EXPECT_NE(ftruncate(fd, 1 << 30), 0);
  EXPECT_NE(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  EXPECT_LT(open(path.c_str(), O_RDWR | O_TRUNC | O_CLOEXEC), 0);
  const UniqueFd again(open(path.c_str(), O_RDWR | O_CLOEXEC));
  char byte = 1;
  for (const int each : {fd, again.get()}) {
    EXPECT_LT(pwrite(each, &byte, 1, 0), 0);
    EXPECT_EQ(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, each, 0), MAP_FAILED);
    EXPECT_NE(fallocate(each, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), 0);
  }
  void* readable = mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd, 0);
  ASSERT_NE(readable, MAP_FAILED);
  EXPECT_NE(mprotect(readable, 4096, PROT_READ | PROT_WRITE), 0);
  EXPECT_NE(madvise(readable, 4096, MADV_REMOVE), 0);
  munmap(readable, 4096);
}

TEST_F(HotMemory, TheEngineWritesThroughTheMappingThatItMadeBefore) {
  HotWriter writer(memory_.view());
  ASSERT_TRUE(memory_.Back(3));
  HotKey key = writer.KeyOf(HotText(1), 0);
  writer.Write(3, &key, HotVector(1, 0, 384), HotValueOf(1, 0));
  EXPECT_EQ(writer.Find(&key), 3u);
}

TEST_F(HotMemory, HoldsNoByteOfAText) {
  HotWriter writer(memory_.view());
  for (uint32_t key = 0; key < 500; ++key) {
    ASSERT_TRUE(memory_.Back(key));
    HotKey hot = writer.KeyOf(HotText(key), 0);
    writer.Write(key, &hot, HotVector(key, 0, 384), HotValueOf(key, 0));
  }
  const std::string_view bytes(static_cast<const char*>(static_cast<const void*>(memory_.view().base)),
                               kGeometry.bytes());
  for (const char* part : {"the text", " key ", "which", "nobody"}) {
    EXPECT_EQ(bytes.find(part), std::string_view::npos) << part;
  }
}

TEST(HotMemoryLimits, AnInvalidGeometryIsRefused) {
  EXPECT_EQ(HotTableMemory::Create({384, 0}, 1).code(), StatusCode::kRefused);
  EXPECT_EQ(HotTableMemory::Create({0, 5}, 1).code(), StatusCode::kRefused);
  EXPECT_EQ(HotTableMemory::Create({384, UINT32_MAX}, 1).code(), StatusCode::kRefused);
}

}  // namespace
}  // namespace sutra::test
