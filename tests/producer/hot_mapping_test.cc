// Mapping a hot table: only that of an intact engine; anything odd is no table, and leaves nothing mapped or open.
#include "producer/hot_mapping.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <string>

#include "shm/base/unique_fd.h"
#include "shm/hot_memory.h"

namespace sutra::test {
namespace {

using client::DropHotTable;
using client::HotMapping;
using client::MapHotTable;

constexpr HotGeometry kGeometry = {16, 100};
constexpr int kAllSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL | 0x10;

WelcomeMessage Welcome() {
  WelcomeMessage welcome = {};
  welcome.width = kGeometry.width;
  welcome.hot_slots = kGeometry.slots;
  welcome.engine_generation = 77;
  return welcome;
}
HotTableMemory Memory() { return HotTableMemory::Create(kGeometry, 77).value(); }
int Mappings() {
  std::ifstream maps("/proc/self/maps");
  int count = 0;
  for (std::string line; std::getline(maps, line);) count += line.find("hot") != std::string::npos ? 1 : 0;
  return count;
}
// A file with the bytes of an engine's, sealed as told.
UniqueFd Copy(const HotTableMemory& memory, uint64_t bytes, int seals, void (*change)(HotHeader*) = nullptr) {
  UniqueFd fd(memfd_create("hot-copy", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  HotHeader header = {};
  std::memcpy(static_cast<void*>(&header), &memory.view().header(), sizeof(header));
  if (change != nullptr) change(&header);
  EXPECT_EQ(ftruncate(fd.get(), static_cast<off_t>(bytes)), 0);
  EXPECT_EQ(pwrite(fd.get(), &header, sizeof(header), 0), static_cast<ssize_t>(sizeof(header)));
  EXPECT_EQ(fcntl(fd.get(), F_ADD_SEALS, seals), 0);
  return fd;
}

TEST(HotMapping, IsTheEnginesTableReadOnly) {
  const HotTableMemory memory = Memory();
  HotMapping* mapping = MapHotTable(Welcome(), memory.fd());
  ASSERT_NE(mapping, nullptr);
  EXPECT_EQ(mapping->view.header().seed, memory.view().header().seed);
  EXPECT_EQ(mapping->engine_generation, 77u);
  EXPECT_NE(mprotect(mapping->view.base, 4096, PROT_READ | PROT_WRITE), 0);
  const char byte = 1;
  EXPECT_LT(pwrite(memory.fd(), &byte, 1, 0), 0);
  DropHotTable(mapping, false);
}

TEST(HotMapping, IsUnmappedWithTheLastReference) {
  const HotTableMemory memory = Memory();
  const int before = Mappings();
  HotMapping* mapping = MapHotTable(Welcome(), memory.fd());
  ASSERT_NE(mapping, nullptr);
  client::HoldHotTable(mapping);
  EXPECT_EQ(Mappings(), before + 1);
  DropHotTable(mapping, false);
  EXPECT_EQ(Mappings(), before + 1);
  DropHotTable(mapping, false);
  EXPECT_EQ(Mappings(), before);
  DropHotTable(nullptr, false);
}

TEST(HotMapping, OnlyFilesThatNobodyElseCanResizeOrWriteAreMapped) {
  const HotTableMemory memory = Memory();
  const int before = Mappings();
  const UniqueFd good = Copy(memory, kGeometry.bytes(), kAllSeals);
  HotMapping* mapping = MapHotTable(Welcome(), good.get());
  EXPECT_NE(mapping, nullptr) << "the copies are right but for what each test changes";
  DropHotTable(mapping, false);
  for (const int missing : {F_SEAL_SHRINK, F_SEAL_GROW, 0x10, F_SEAL_SEAL}) {
    const UniqueFd fd = Copy(memory, kGeometry.bytes(), kAllSeals & ~missing);
    EXPECT_EQ(MapHotTable(Welcome(), fd.get()), nullptr) << missing;
  }
  for (const uint64_t bytes : {kGeometry.bytes() - 4096, kGeometry.bytes() + 4096, uint64_t{4096}}) {
    const UniqueFd fd = Copy(memory, bytes, kAllSeals);
    EXPECT_EQ(MapHotTable(Welcome(), fd.get()), nullptr) << bytes;
  }
  const UniqueFd file(open("/dev/zero", O_RDWR | O_CLOEXEC));
  EXPECT_EQ(MapHotTable(Welcome(), file.get()), nullptr);
  EXPECT_EQ(MapHotTable(Welcome(), -1), nullptr);
  EXPECT_EQ(Mappings(), before);
}

TEST(HotMapping, AHeaderThatContradictsTheWelcomeIsNoTable) {
  const HotTableMemory memory = Memory();
  const int before = Mappings();
  void (*changes[])(HotHeader*) = {
      [](HotHeader* header) { header->version.store(0, std::memory_order_relaxed); },
      [](HotHeader* header) { header->version.store(kHotTableVersion + 1, std::memory_order_relaxed); },
      [](HotHeader* header) { ++header->magic; },
      [](HotHeader* header) { ++header->header_bytes; },
      [](HotHeader* header) { ++header->segment_bytes; },
      [](HotHeader* header) { ++header->engine_generation; },
      [](HotHeader* header) { ++header->width; },
      [](HotHeader* header) { ++header->slots; },
      [](HotHeader* header) { ++header->buckets; },
      [](HotHeader* header) { ++header->slot_bytes; },
  };
  for (const auto change : changes) {
    const UniqueFd fd = Copy(memory, kGeometry.bytes(), kAllSeals, change);
    EXPECT_EQ(MapHotTable(Welcome(), fd.get()), nullptr) << &change - changes;
  }
  WelcomeMessage welcome = Welcome();
  for (const uint32_t slots : {0u, kGeometry.slots - 1, kGeometry.slots + 1, UINT32_MAX}) {
    welcome.hot_slots = slots;
    EXPECT_EQ(MapHotTable(welcome, memory.fd()), nullptr) << slots;
  }
  EXPECT_EQ(Mappings(), before);
}

TEST(HotMapping, AForkedChildHasNone) {
  const HotTableMemory memory = Memory();
  HotMapping* mapping = MapHotTable(Welcome(), memory.fd());
  ASSERT_NE(mapping, nullptr);
  const pid_t child = fork();
  if (child == 0) {
    unsigned char resident;
    const bool mapped = mincore(mapping->view.base, 4096, &resident) == 0;
    DropHotTable(mapping, true);
    _exit(mapped ? 1 : 0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  DropHotTable(mapping, false);
}

}  // namespace
}  // namespace sutra::test
