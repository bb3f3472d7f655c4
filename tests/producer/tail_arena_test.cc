// The arena of long texts: runs, the memory behind them, claims, and a randomized comparison with a simple model.
#include "producer/tail_arena.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <random>
#include <string>
#include <vector>

#include "shm/base/unique_fd.h"
#include "tests/kit/seed.h"

namespace sutra::test {
namespace {

using client::PageSet;
using client::TailArena;

constexpr uint32_t kKept = TailArena::kPagesKept;

class TailArenaTest : public testing::Test {
 protected:
  void Open(uint32_t pages) {
    file_ = UniqueFd(memfd_create("tail", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    ASSERT_EQ(ftruncate(file_.get(), static_cast<off_t>(pages * kPageBytes)), 0);
    arena_.Open(file_.get(), pages * kPageBytes);
  }
  // RETURNS the first page, or UINT32_MAX if there is no room.
  uint32_t Take(uint32_t pages) {
    uint32_t first = 0;
    return arena_.Take(pages, &first) == TailArena::Took::kRun ? first : UINT32_MAX;
  }
  uint64_t PagesOfFile() const {
    struct stat info = {};
    EXPECT_EQ(fstat(file_.get(), &info), 0);
    return static_cast<uint64_t>(info.st_blocks) * 512 / kPageBytes;
  }
  // The kernel neither allocates nor punches through a descriptor that only reads.
  void FailFromNowOn() {
    const UniqueFd reads(open(("/proc/self/fd/" + std::to_string(file_.get())).c_str(), O_RDONLY | O_CLOEXEC));
    ASSERT_TRUE(reads);
    ASSERT_EQ(dup2(reads.get(), file_.get()), file_.get());
  }
  uint64_t Memory() const { return arena_.memory_bytes() / kPageBytes; }

  UniqueFd file_;
  TailArena arena_;
};

TEST_F(TailArenaTest, RunsBeginAsLowAsTheyCanAndDoNotOverlap) {
  Open(10);
  EXPECT_EQ(Take(3), 0u);
  EXPECT_EQ(Take(4), 3u);
  EXPECT_EQ(Take(1), 7u);
  arena_.Give(0, 3);
  EXPECT_EQ(Take(2), 0u);
  EXPECT_EQ(Take(2), 8u) << "one page lies below it";
  EXPECT_EQ(Take(1), 2u);
  EXPECT_EQ(Take(1), UINT32_MAX);
  EXPECT_EQ(arena_.used_bytes(), 10 * kPageBytes);
}

TEST_F(TailArenaTest, TheLongestTextTakesTheWholeFile) {
  Open(PageSet::kPages);
  EXPECT_EQ(Take(PageSet::kPages), 0u);
  EXPECT_FALSE(arena_.HasRoom(1, 0));
  EXPECT_TRUE(arena_.HasRoom(0, 0)) << "a short text needs none";
  arena_.Give(0, PageSet::kPages);
  EXPECT_TRUE(arena_.HasRoom(PageSet::kPages, 0));
}

TEST_F(TailArenaTest, FreePagesThatAreNoRunAreNoRoom) {
  Open(64);
  for (uint32_t page = 0; page < 64; ++page) ASSERT_EQ(Take(1), page);
  for (uint32_t page = 0; page < 64; page += 2) arena_.Give(page, 1);
  EXPECT_TRUE(arena_.HasRoom(1, 0));
  EXPECT_FALSE(arena_.HasRoom(2, 0));
  EXPECT_EQ(Take(2), UINT32_MAX);
  arena_.Give(31, 1);
  EXPECT_EQ(Take(3), 30u);
}

TEST_F(TailArenaTest, OnlyNewPagesAreAllocated) {
  Open(64);
  EXPECT_EQ(PagesOfFile(), 0u);
  EXPECT_EQ(Take(8), 0u);
  EXPECT_EQ(PagesOfFile(), 8u);
  arena_.Give(0, 8);
  EXPECT_EQ(PagesOfFile(), 8u) << "kept for the next text";
  FailFromNowOn();
  EXPECT_EQ(Take(8), 0u);
  uint32_t first = 0;
  EXPECT_EQ(arena_.Take(1, &first), TailArena::Took::kNoMemory);
  EXPECT_EQ(errno, EBADF);
  EXPECT_EQ(Memory(), 8u);
  EXPECT_EQ(arena_.used_bytes(), 8 * kPageBytes);
}

TEST_F(TailArenaTest, BeyondFourMebibytesThatNoTextUsesMemoryIsGivenBack) {
  Open(PageSet::kPages);
  EXPECT_EQ(Take(PageSet::kPages), 0u);
  EXPECT_EQ(PagesOfFile(), PageSet::kPages);
  arena_.Give(0, PageSet::kPages);
  EXPECT_EQ(PagesOfFile(), kKept);
  EXPECT_EQ(Memory(), kKept);
  EXPECT_EQ(Take(kKept), 0u);
  EXPECT_EQ(PagesOfFile(), kKept) << "the lowest pages were kept";
}

// The traffic of a lane that is full of long texts: each one that ends is followed by the next.
TEST_F(TailArenaTest, MemoryOfTextsThatFollowEachOtherStays) {
  Open(PageSet::kPages);
  std::vector<uint32_t> runs;
  for (uint32_t i = 0; i < PageSet::kPages / 16; ++i) runs.push_back(Take(16));
  for (const uint32_t run : runs) {
    arena_.Give(run, 16);
    EXPECT_EQ(PagesOfFile(), PageSet::kPages);
    EXPECT_EQ(Take(16), run);
  }
  for (const uint32_t run : runs) arena_.Give(run, 16);
  EXPECT_EQ(PagesOfFile(), kKept);
}

TEST_F(TailArenaTest, AHoleThatCannotBePunchedStaysCounted) {
  Open(2 * kKept);
  EXPECT_EQ(Take(2 * kKept), 0u);
  FailFromNowOn();
  arena_.Give(0, 2 * kKept);
  EXPECT_EQ(Memory(), 2 * kKept);
  EXPECT_EQ(Take(2 * kKept), 0u);
}

TEST_F(TailArenaTest, ATextMovesToTheSamePagesOfAFreshFile) {
  Open(16);
  ASSERT_EQ(Take(4), 0u);
  ASSERT_EQ(Take(5), 4u);
  Open(16);
  EXPECT_EQ(arena_.used_bytes(), 0u);
  EXPECT_EQ(arena_.TakeAt(4, 5), TailArena::Took::kRun);
  EXPECT_EQ(PagesOfFile(), 5u);
  EXPECT_EQ(Take(4), 0u);
  EXPECT_EQ(Take(4), 9u);
}

// Shorter texts come and go for ever; without the claim they would keep the long one waiting for ever.
TEST_F(TailArenaTest, AClaimKeepsPagesForTheLongTextThatWaits) {
  Open(64);
  constexpr uintptr_t kWaiting = 7;
  std::vector<uint32_t> runs;
  for (int i = 0; i < 32; ++i) runs.push_back(Take(2));
  EXPECT_FALSE(arena_.HasRoom(40, kWaiting));
  ASSERT_TRUE(arena_.Claim(kWaiting, 40));
  EXPECT_FALSE(arena_.Claim(8, 40)) << "one at a time";
  std::mt19937 random(TestSeed());
  int rounds = 0;
  for (; !arena_.HasRoom(40, kWaiting); ++rounds) {
    ASSERT_LT(rounds, 10'000);
    const size_t which = random() % runs.size();
    arena_.Give(runs[which], 2);
    runs[which] = Take(2);
    if (runs[which] == UINT32_MAX) runs.erase(runs.begin() + static_cast<ptrdiff_t>(which));
    ASSERT_FALSE(runs.empty());
  }
  EXPECT_GT(rounds, 0);
  EXPECT_FALSE(arena_.HasRoom(40, 0)) << "nobody else's";
  EXPECT_FALSE(arena_.EndClaim(8));
  EXPECT_TRUE(arena_.EndClaim(kWaiting));
  EXPECT_FALSE(arena_.EndClaim(kWaiting));
  EXPECT_NE(Take(40), UINT32_MAX);
}

TEST_F(TailArenaTest, AClaimIsPutWhereFewestPagesAreInUse) {
  Open(32);
  ASSERT_EQ(Take(8), 0u);
  ASSERT_EQ(Take(8), 8u);
  ASSERT_EQ(Take(4), 16u);
  arena_.Give(0, 8);
  ASSERT_TRUE(arena_.Claim(1, 16));
  EXPECT_EQ(Take(8), 0u) << "what is claimed are the pages from 16 on";
  EXPECT_EQ(Take(1), UINT32_MAX);
  arena_.Give(16, 4);
  EXPECT_TRUE(arena_.HasRoom(16, 1));
}

// A simple model: who has each page, and which pages have memory.
TEST_F(TailArenaTest, RandomizedAgainstAModelOfSinglePages) {
  std::mt19937 random(TestSeed());
  for (const uint32_t pages : {1u, 63u, 64u, 65u, 200u, 1500u, PageSet::kPages}) {
    Open(pages);
    struct Run {
      uint32_t first, pages;
    };
    std::vector<Run> runs;
    std::vector<bool> used(pages), backed(pages);
    for (int step = 0; step < 3000; ++step) {
      const auto free_from = [&](uint32_t at) {
        uint32_t end = at;
        while (end < pages && !used[end]) ++end;
        return end - at;
      };
      if (random() % 2 == 0 || runs.empty()) {
        const uint32_t most = random() % 8 == 0 ? pages : std::min(pages, 40u);
        const uint32_t want = 1 + static_cast<uint32_t>(random() % most);
        uint32_t expected = 0;
        while (expected < pages && free_from(expected) < want) ++expected;
        ASSERT_EQ(arena_.HasRoom(want, 0), expected < pages);
        const uint32_t first = Take(want);
        ASSERT_EQ(first, expected < pages ? expected : UINT32_MAX) << want << " of " << pages << ", step " << step;
        if (first == UINT32_MAX) continue;
        runs.push_back({first, want});
        std::fill_n(used.begin() + first, want, true);
        std::fill_n(backed.begin() + first, want, true);
      } else {
        const size_t which = random() % runs.size();
        const Run run = runs[which];
        runs.erase(runs.begin() + static_cast<ptrdiff_t>(which));
        arena_.Give(run.first, run.pages);
        std::fill_n(used.begin() + run.first, run.pages, false);
        const auto count = [](const std::vector<bool>& set) {
          return static_cast<uint32_t>(std::count(set.begin(), set.end(), true));
        };
        for (uint32_t page = run.first + run.pages; page-- > run.first && count(backed) - count(used) > kKept;) {
          backed[page] = false;
        }
      }
      ASSERT_EQ(Memory(), static_cast<uint64_t>(std::count(backed.begin(), backed.end(), true)));
      ASSERT_EQ(arena_.used_bytes() / kPageBytes, static_cast<uint64_t>(std::count(used.begin(), used.end(), true)));
    }
    ASSERT_EQ(PagesOfFile(), Memory()) << pages;
  }
}

}  // namespace
}  // namespace sutra::test
