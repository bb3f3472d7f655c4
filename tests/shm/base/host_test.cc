#include "shm/base/host.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <filesystem>
#include <fstream>

#include "tests/kit/temp_dir.h"

namespace sutra {
namespace {

TEST(Host, BootIdIsRead) {
  EXPECT_NE(HostBootId(), BootId{});
  EXPECT_EQ(HostBootId(), HostBootId());
}

TEST(Host, UsableCpusFollowTheAffinityOfTheProcess) {
  const uint32_t before = UsableCpus();
  EXPECT_GE(before, 1u);
  cpu_set_t all, one;
  ASSERT_EQ(sched_getaffinity(0, sizeof(all), &all), 0);
  EXPECT_LE(before, static_cast<uint32_t>(CPU_COUNT(&all)));
  CPU_ZERO(&one);
  for (size_t cpu = 0; CPU_COUNT(&one) == 0; ++cpu) {
    if (CPU_ISSET(cpu, &all)) CPU_SET(cpu, &one);
  }
  ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
  EXPECT_EQ(UsableCpus(), 1u);
  ASSERT_EQ(sched_setaffinity(0, sizeof(all), &all), 0);
  EXPECT_EQ(UsableCpus(), before);
}

// A host made up of the few files that CgroupCpuQuota reads.
class CgroupQuota : public testing::Test {
 protected:
  void Write(const std::string& path, const std::string& text) {
    const std::string full = root_.path() + path;
    std::filesystem::create_directories(std::filesystem::path(full).parent_path());
    std::ofstream(full) << text;
  }
  void Mounts(const std::string& lines) { Write("/proc/self/mountinfo", lines); }
  void Groups(const std::string& lines) { Write("/proc/self/cgroup", lines); }
  std::optional<uint32_t> Quota() { return CgroupCpuQuota(root_.path()); }

  test::TempDir root_;
};

constexpr char kV2Mount[] =
    "24 30 0:22 / /proc rw,nosuid - proc proc rw\n"
    "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 master:3 - cgroup2 cgroup2 rw,nsdelegate\n";
constexpr char kV1Mounts[] =
    "33 31 0:29 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
    "34 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n";

TEST_F(CgroupQuota, ThereIsNoneWithoutCgroups) {
  EXPECT_EQ(Quota(), std::nullopt);
  Mounts("24 30 0:22 / /proc rw,nosuid - proc proc rw\n");
  Groups("");
  EXPECT_EQ(Quota(), std::nullopt);
}

TEST_F(CgroupQuota, V2IsRoundedUpToWholeCpus) {
  Mounts(kV2Mount);
  Groups("0::/system.slice/sutra.service\n");
  const std::string file = "/sys/fs/cgroup/system.slice/sutra.service/cpu.max";
  Write(file, "max 100000\n");
  EXPECT_EQ(Quota(), std::nullopt);
  Write(file, "200000 100000\n");
  EXPECT_EQ(Quota(), 2u);
  Write(file, "250000 100000\n");
  EXPECT_EQ(Quota(), 3u);
  Write(file, "1000 100000\n");
  EXPECT_EQ(Quota(), 1u);
}

TEST_F(CgroupQuota, AnAncestorsSmallerQuotaCounts) {
  Mounts(kV2Mount);
  Groups("0::/pod/container\n");
  Write("/sys/fs/cgroup/pod/container/cpu.max", "800000 100000\n");
  Write("/sys/fs/cgroup/pod/cpu.max", "400000 100000\n");
  EXPECT_EQ(Quota(), 4u);
  Write("/sys/fs/cgroup/cpu.max", "300000 100000\n");  // the root of a container's own cgroup namespace
  EXPECT_EQ(Quota(), 3u);
  Write("/sys/fs/cgroup/other/cpu.max", "100000 100000\n");  // not an ancestor
  EXPECT_EQ(Quota(), 3u);
}

TEST_F(CgroupQuota, AGroupOutsideTheNamespaceIsReadAtTheMountPoint) {
  Mounts(kV2Mount);
  Groups("0::/../../elsewhere\n");
  Write("/sys/fs/cgroup/cpu.max", "150000 100000\n");
  EXPECT_EQ(Quota(), 2u);
}

TEST_F(CgroupQuota, V1IsReadFromTheHierarchyOfTheCpuController) {
  Mounts(kV1Mounts);
  Groups("5:cpuset:/wrong\n4:cpu,cpuacct:/jobs/sutra\n1:name=systemd:/\n");
  Write("/sys/fs/cgroup/cpuset/wrong/cpu.cfs_quota_us", "100000\n");
  Write("/sys/fs/cgroup/cpu,cpuacct/jobs/sutra/cpu.cfs_period_us", "50000\n");
  Write("/sys/fs/cgroup/cpu,cpuacct/jobs/sutra/cpu.cfs_quota_us", "-1\n");
  EXPECT_EQ(Quota(), std::nullopt);
  Write("/sys/fs/cgroup/cpu,cpuacct/jobs/sutra/cpu.cfs_quota_us", "120000\n");
  EXPECT_EQ(Quota(), 3u);
}

// As in a container of v1: the host's path of the group is what is mounted at the mount point.
TEST_F(CgroupQuota, ThePathBelowTheMountedGroupCounts) {
  Mounts("34 31 0:30 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n");
  Groups("4:cpu:/docker/abc/inner\n");
  Write("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  Write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "600000\n");
  EXPECT_EQ(Quota(), 6u);
  Write("/sys/fs/cgroup/cpu/inner/cpu.cfs_period_us", "100000\n");
  Write("/sys/fs/cgroup/cpu/inner/cpu.cfs_quota_us", "200000\n");
  EXPECT_EQ(Quota(), 2u);
  Groups("4:cpu:/docker/abcdef/inner\n");  // not below /docker/abc
  EXPECT_EQ(Quota(), 6u);
}

// A v2 hierarchy without controllers beside v1 ones, as older systemd mounts them.
TEST_F(CgroupQuota, HybridHostsKeepTheirQuotaInV1) {
  Mounts(std::string(kV1Mounts) + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
  Groups("4:cpu,cpuacct:/a\n0::/a\n");
  Write("/sys/fs/cgroup/unified/a/cgroup.procs", "");
  Write("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n");
  Write("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "100001\n");
  EXPECT_EQ(Quota(), 2u);
}

TEST_F(CgroupQuota, NonsenseIsNoQuota) {
  Mounts(kV2Mount);
  Groups("no colons\n0:\n0::/a\n");
  for (const char* text :
       {"", "\n", "-5 100000\n", "100000 0\n", "100000\n", "much 100000\n", "99999999999999999999 1\n"}) {
    Write("/sys/fs/cgroup/a/cpu.max", text);
    const auto quota = Quota();
    EXPECT_TRUE(quota == std::nullopt || *quota == UINT32_MAX) << text;
  }
}

}  // namespace
}  // namespace sutra
