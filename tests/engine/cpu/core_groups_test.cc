// Groups of hosts that are made up of the files the kernel writes, and of nonsense.
#include "engine/cpu/core_groups.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <numeric>
#include <set>

#include "engine/model/compute_options.h"
#include "shm/base/thread_affinity.h"
#include "tests/kit/seed.h"
#include "tests/kit/temp_dir.h"

namespace sutra::cpu {
namespace {

class CoreGroupsTest : public testing::Test {
 protected:
  // The CPUs of a list share a last-level cache of this level.
  void Cache(uint32_t first, uint32_t last, const std::string& list, int level = 3) {
    for (uint32_t cpu = first; cpu <= last; ++cpu) {
      Write(cpu, "cache/index0/level", "1");
      Write(cpu, "cache/index0/type", "Data");
      Write(cpu, "cache/index0/shared_cpu_list", std::to_string(cpu));
      const std::string index = "cache/index1/";
      Write(cpu, index + "level", std::to_string(level));
      Write(cpu, index + "type", "Unified");
      Write(cpu, index + "shared_cpu_list", list);
    }
  }
  void Cache(uint32_t first, uint32_t last) { Cache(first, last, std::to_string(first) + "-" + std::to_string(last)); }
  void Siblings(uint32_t a, uint32_t b) {
    const std::string list = std::to_string(a) + "," + std::to_string(b);
    Write(a, "topology/thread_siblings_list", list);
    Write(b, "topology/thread_siblings_list", list);
  }
  void Node(int node, const std::string& list) {
    WriteFile("/sys/devices/system/node/node" + std::to_string(node) + "/cpulist", list);
  }
  void Write(uint32_t cpu, const std::string& file, const std::string& text) {
    WriteFile("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/" + file, text);
  }
  void WriteFile(const std::string& file, const std::string& text) {
    const std::filesystem::path path = root_.path() + file;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text << "\n";
  }
  static std::vector<uint32_t> Cpus(uint32_t count) {
    std::vector<uint32_t> cpus(count);
    std::iota(cpus.begin(), cpus.end(), 0);
    return cpus;
  }
  std::string Deal(const std::vector<uint32_t>& cpus, uint32_t threads, uint32_t wanted = 0) const {
    return Describe(DealCores(root_.path(), cpus, threads, wanted));
  }
  std::string Deal(uint32_t cpus, uint32_t threads, uint32_t wanted = 0) const {
    return Deal(Cpus(cpus), threads, wanted);
  }
  test::TempDir root_;
};

TEST_F(CoreGroupsTest, AHostThatTellsNothingIsOneGroup) {
  EXPECT_EQ(Deal(64, 64), "64 threads");
  EXPECT_EQ(Deal(0, 1), "1 thread");
}

TEST_F(CoreGroupsTest, ThisHostsFilesAreNoTrouble) {
  const CoreGroups groups = DealCores("/", AllowedCpus(), 1, 0);
  ASSERT_EQ(groups.size(), 1u);
  EXPECT_EQ(groups.front().threads, 1u);
  EXPECT_TRUE(groups.front().cpus.empty());
}

TEST_F(CoreGroupsTest, EachLastLevelCacheIsAGroup) {
  Cache(0, 7);
  Cache(8, 15);
  EXPECT_EQ(Deal(16, 16), "8 threads on CPUs 0-7; 8 threads on CPUs 8-15");
  EXPECT_EQ(Deal(8, 8), "8 threads") << "one group stays nowhere";
  EXPECT_EQ(Deal(16, 64), "32 threads on CPUs 0-7; 32 threads on CPUs 8-15") << "as many as were asked for";
}

TEST_F(CoreGroupsTest, ACacheIsDividedByNodes) {
  Cache(0, 15);
  Node(0, "0-7");
  Node(8, "8-15");
  EXPECT_EQ(Deal(16, 16), "8 threads on CPUs 0-7; 8 threads on CPUs 8-15");
}

TEST_F(CoreGroupsTest, HyperThreadsAreTogetherAndCountOnlyWhenThereAreMoreThreadsThanCores) {
  Cache(0, 7, "0-7,16-23");
  Cache(16, 23, "0-7,16-23");
  Cache(8, 15, "8-15,24-31");
  Cache(24, 31, "8-15,24-31");
  for (uint32_t core = 0; core < 16; ++core) Siblings(core, core + 16);
  EXPECT_EQ(Deal(32, 32), "16 threads on CPUs 0-7,16-23; 16 threads on CPUs 8-15,24-31");
  EXPECT_EQ(Deal(32, 16), "8 threads on CPUs 0-7,16-23; 8 threads on CPUs 8-15,24-31");
  EXPECT_EQ(Deal(32, 8), "8 threads");
}

TEST_F(CoreGroupsTest, FewerThreadsTakeAsFewGroupsAndStayNowhereUnlessTheyHaveAll) {
  for (uint32_t first = 0; first < 32; first += 8) Cache(first, first + 7);
  EXPECT_EQ(Deal(32, 7), "7 threads");
  EXPECT_EQ(Deal(32, 12), "6 threads; 6 threads");
  EXPECT_EQ(Deal(32, 24), "8 threads; 8 threads; 8 threads");
  EXPECT_EQ(Deal(32, 30),
            "7 threads on CPUs 0-7; 8 threads on CPUs 8-15; 7 threads on CPUs 16-23; 8 threads on CPUs 24-31");
}

TEST_F(CoreGroupsTest, TheLargestGroupsComeFirst) {
  Cache(0, 7);
  Cache(8, 23);
  EXPECT_EQ(Deal(24, 16), "16 threads");
  EXPECT_EQ(Deal(24, 18), "12 threads on CPUs 8-23; 6 threads on CPUs 0-7");
}

TEST_F(CoreGroupsTest, TinyCachesAreJoinedWithTheirNeighbours) {
  for (uint32_t cpu = 0; cpu < 20; ++cpu) Cache(cpu, cpu);
  EXPECT_EQ(Deal(2, 2), "2 threads");
  EXPECT_EQ(Deal(12, 12), "12 threads") << "eight, and four that are too few";
  EXPECT_EQ(Deal(20, 20), "12 threads on CPUs 8-19; 8 threads on CPUs 0-7");
}

TEST_F(CoreGroupsTest, AffinityDecidesWhichCpusThereAre) {
  Cache(0, 15);
  Cache(16, 31);
  std::vector<uint32_t> cpus = Cpus(28);
  cpus.erase(cpus.begin(), cpus.begin() + 4);
  EXPECT_EQ(Deal(cpus, 24), "12 threads on CPUs 4-15; 12 threads on CPUs 16-27");
  EXPECT_EQ(Deal({0, 1, 16, 17}, 4), "4 threads");
}

TEST_F(CoreGroupsTest, AsManyAsAreWantedAreCutEqually) {
  EXPECT_EQ(Deal(2, 2, 2), "1 thread on CPUs 0; 1 thread on CPUs 1");
  EXPECT_EQ(Deal(2, 2, 1), "2 threads");
  EXPECT_EQ(Deal(4, 2, 8), "1 thread on CPUs 0-1; 1 thread on CPUs 2-3") << "no more than there are threads";
  EXPECT_EQ(Deal(1, 2, 2), "1 thread; 1 thread") << "more than there are CPUs";
  Cache(0, 3, "0,2");
  Cache(1, 3, "1,3");
  Cache(2, 2, "0,2");
  EXPECT_EQ(Deal(4, 4, 2), "2 threads on CPUs 0,2; 2 threads on CPUs 1,3") << "neighbours together";
}

TEST_F(CoreGroupsTest, ThereAreNoMoreGroupsThanTheBound) {
  constexpr uint32_t kCpus = (kCoreGroupsMax + 1) * 8;
  for (uint32_t first = 0; first < kCpus; first += 8) Cache(first, first + 7);
  EXPECT_LE(DealCores(root_.path(), Cpus(kCpus), kCpus, 0).size(), kCoreGroupsMax);
}

TEST_F(CoreGroupsTest, NonsenseIsOneGroup) {
  Cache(0, 7);
  Cache(8, 15);
  for (const char* list : {"", "x", "9-3", "8-15", "0-", ",", "0-7,8-", "-1", "99999999999"}) {
    Write(3, "cache/index1/shared_cpu_list", list);
    EXPECT_EQ(Deal(16, 16), "16 threads") << "'" << list << "'";
  }
  Cache(0, 15, "0-4294967295");
  EXPECT_EQ(Deal(16, 16), "16 threads") << "one cache for all; nobody counts up to there";
  Cache(0, 15, "0");
  EXPECT_EQ(Deal(16, 16), "16 threads");
}

// Whatever the files say: all threads are dealt, every group has one, and no CPU is in two.
TEST_F(CoreGroupsTest, RandomHostsKeepTheRules) {
  std::mt19937_64 random(test::TestSeed());
  const auto upto = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
  for (int round = 0; round < 20; ++round) {
    const uint32_t cpus = 1 + upto(24), threads = 1 + upto(60), wanted = upto(4);
    for (uint32_t cpu = 0; cpu < cpus; ++cpu) {
      const uint32_t first = cpu - upto(cpu % 9 + 1);
      Cache(cpu, cpu, std::to_string(first) + "-" + std::to_string(cpu + upto(3)), 1 + static_cast<int>(upto(3)));
      Siblings(cpu, upto(cpus));
    }
    Node(static_cast<int>(upto(3)), std::to_string(upto(20)) + "-" + std::to_string(upto(40)));
    const CoreGroups groups = DealCores(root_.path(), Cpus(cpus), threads, wanted);
    ASSERT_FALSE(groups.empty());
    uint32_t dealt = 0;
    std::set<uint32_t> seen;
    for (const CoreGroup& group : groups) {
      EXPECT_GE(group.threads, 1u);
      dealt += group.threads;
      EXPECT_EQ(group.cpus.empty(), groups.front().cpus.empty());
      for (const uint32_t cpu : group.cpus) EXPECT_TRUE(cpu < cpus && seen.insert(cpu).second) << cpu;
    }
    EXPECT_EQ(dealt, threads);
    EXPECT_TRUE(seen.empty() || seen.size() == cpus);
    if (wanted != 0) {
      EXPECT_EQ(groups.size(), std::min(wanted, threads));
    }
  }
}

}  // namespace
}  // namespace sutra::cpu
