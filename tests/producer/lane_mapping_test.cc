// Mapping a lane: only what the descriptors of an intact engine offer; nothing of the rest stays mapped.
#include "producer/lane_mapping.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <string>

#include "tests/producer/lane_fixture.h"

namespace sutra::test {
namespace {

class LaneMappingTest : public testing::Test {
 protected:
  sutra_status Map(const WelcomeMessage& welcome, client::LaneMapping* mapping) {
    return client::MapLane(welcome, Files(), mapping);
  }
  client::LaneFiles Files() {
    const LaneMemory& memory = engine_.memory();
    return {memory.request_fd(), memory.reply_fd(), memory.tail_fd(), engine_.page_fd()};
  }
  // Lines of /proc/self/maps that show memory files.
  static size_t MappedFiles() {
    std::ifstream maps("/proc/self/maps");
    size_t count = 0;
    for (std::string line; std::getline(maps, line);) count += line.find("memfd:") != std::string::npos;
    return count;
  }
  LaneHeader& Header() { return engine_.memory().reply().header(); }

  EngineEnd engine_;
};

TEST_F(LaneMappingTest, MapsWhatTheEngineMadeAndUnmapsAllOfIt) {
  const size_t before = MappedFiles();
  client::LaneMapping mapping;
  ASSERT_EQ(Map(engine_.Welcome(), &mapping), SUTRA_OK) << sutra_error_text();
  EXPECT_EQ(MappedFiles(), before + 4);
  engine_.Vector(1)[3] = 2.5f;
  EXPECT_EQ(mapping.reply.vector(1)[3], 2.5f);
  EXPECT_EQ(mapping.page->engine_generation, engine_.page()->engine_generation);
  mapping.request.client().sleepers.store(7, std::memory_order_relaxed);  // relaxed: one thread
  EXPECT_EQ(engine_.memory().request().client().sleepers.load(std::memory_order_relaxed), 7u);
  client::UnmapLane(&mapping);
  EXPECT_EQ(mapping.request.base, nullptr);
  EXPECT_EQ(MappedFiles(), before);
}

TEST_F(LaneMappingTest, AWelcomeThatContradictsTheLaneIsRefusedAndNothingStaysMapped) {
  const size_t before = MappedFiles();
  const std::function<void(WelcomeMessage*)> lies[] = {
      [](WelcomeMessage* w) { w->slots = 3; },
      [](WelcomeMessage* w) { w->slots *= 2; },
      [](WelcomeMessage* w) { w->slots = kSlotsMax * 2; },
      [](WelcomeMessage* w) { w->width = 0; },
      [](WelcomeMessage* w) { w->width -= 1; },
      [](WelcomeMessage* w) { w->width = kWidthMax + 1; },
      [](WelcomeMessage* w) { w->text_bytes_max = kTextHeadBytes - 1; },
      [](WelcomeMessage* w) { w->text_bytes_max += 1; },
      [](WelcomeMessage* w) { w->engine_generation += 1; },
      [](WelcomeMessage* w) { w->lane_id += 1; },
  };
  for (size_t i = 0; i < std::size(lies); ++i) {
    WelcomeMessage welcome = engine_.Welcome();
    lies[i](&welcome);
    client::LaneMapping mapping;
    EXPECT_EQ(Map(welcome, &mapping), SUTRA_REFUSED) << i;
    EXPECT_EQ(mapping.request.base, nullptr) << i;
    EXPECT_EQ(MappedFiles(), before) << i << ": " << sutra_error_text();
  }
}

TEST_F(LaneMappingTest, AnotherLayoutIsRefusedWithBothVersions) {
  Header().layout_version.store(9u << 16 | 4, std::memory_order_relaxed);  // relaxed: one thread
  client::LaneMapping mapping;
  EXPECT_EQ(Map(engine_.Welcome(), &mapping), SUTRA_REFUSED);
  const std::string text = sutra_error_text();
  EXPECT_NE(text.find("9.4"), std::string::npos) << text;
  EXPECT_NE(text.find("3.1"), std::string::npos) << text;
}

TEST_F(LaneMappingTest, FeaturesThatThisLibraryDoesNotHaveAreRefused) {
  Header().compatible_flags = 0x80;  // ignored
  client::LaneMapping mapping;
  ASSERT_EQ(Map(engine_.Welcome(), &mapping), SUTRA_OK);
  client::UnmapLane(&mapping);
  Header().incompatible_flags = 0x80;
  EXPECT_EQ(Map(engine_.Welcome(), &mapping), SUTRA_REFUSED);
  EXPECT_NE(std::string(sutra_error_text()).find("0x80"), std::string::npos) << sutra_error_text();
}

TEST_F(LaneMappingTest, ThePageOfAnotherEngineIsRefused) {
  const EnginePageMemory other = EnginePageMemory::Create(1234).value();
  client::LaneFiles files = Files();
  files.page = other.fd();
  client::LaneMapping mapping;
  EXPECT_EQ(client::MapLane(engine_.Welcome(), files, &mapping), SUTRA_REFUSED);
}

TEST_F(LaneMappingTest, AFileThatCouldShrinkUnderTheReaderIsRefused) {
  const LaneGeometry geometry = engine_.memory().reply().geometry;
  const UniqueFd file(memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(ftruncate(file.get(), static_cast<off_t>(geometry.reply_bytes())), 0);
  client::LaneMapping mapping;
  for (const int seals : {0, F_SEAL_GROW | F_SEAL_SEAL}) {
    if (seals != 0) {
      ASSERT_EQ(fcntl(file.get(), F_ADD_SEALS, seals), 0);
    }
    client::LaneFiles files = Files();
    files.reply = file.get();
    EXPECT_EQ(client::MapLane(engine_.Welcome(), files, &mapping), SUTRA_REFUSED);
    EXPECT_NE(std::string(sutra_error_text()).find("sealed"), std::string::npos) << sutra_error_text();
  }
}

TEST_F(LaneMappingTest, AForkedChildHasNoMapping) {
  client::LaneMapping mapping;
  ASSERT_EQ(Map(engine_.Welcome(), &mapping), SUTRA_OK);
  const pid_t child = fork();
  if (child == 0) {
    unsigned char resident;
    const bool request = mincore(mapping.request.base, 1, &resident) == 0;
    const bool reply = mincore(mapping.reply.base, 1, &resident) == 0;
    const bool tails = mincore(mapping.tails, 1, &resident) == 0;
    _exit((request ? 1 : 0) | (reply ? 2 : 0) | (tails ? 4 : 0));
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  client::UnmapLane(&mapping);
}

}  // namespace
}  // namespace sutra::test
