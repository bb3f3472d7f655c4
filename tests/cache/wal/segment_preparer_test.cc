// The reserve: created in advance, handed over once, and left alone between Take and the next Request.
#include "cache/wal/segment_preparer.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <thread>

#include "cache/wal/wal_format.h"
#include "tests/sim/manual_clock.h"
#include "tests/sim/sim_disk.h"

namespace sutra {
namespace {

using Reserve = SegmentPreparer::Reserve;

const std::string kDirectory = "/log";
const std::string kReserve = "/log/reserve.tmp";
constexpr uint64_t kSecond = 1'000'000'000;

// Counts allocations, and holds each one back while the gate is shut.
class GatedDisk final : public sim::SimDisk {
 public:
  void Shut() {
    MutexLock lock(gate_mutex_);
    shut_ = true;
  }
  void Open() {
    MutexLock lock(gate_mutex_);
    shut_ = false;
    changed_.NotifyAll();
  }
  // Returns when `count` allocations have begun since the disk was made.
  void AwaitAllocations(int count) {
    MutexLock lock(gate_mutex_);
    while (allocations_ < count) changed_.Wait(gate_mutex_);
  }
  int allocations() {
    MutexLock lock(gate_mutex_);
    return allocations_;
  }

 protected:
  int RawAllocate(FileHandle file, uint64_t bytes, AllocateFill fill) override {
    {
      MutexLock lock(gate_mutex_);
      ++allocations_;
      changed_.NotifyAll();
      while (shut_) changed_.Wait(gate_mutex_);
    }
    return SimDisk::RawAllocate(file, bytes, fill);
  }

 private:
  Mutex gate_mutex_;
  CondVar changed_;
  bool shut_ SUTRA_GUARDED_BY(gate_mutex_) = false;
  int allocations_ SUTRA_GUARDED_BY(gate_mutex_) = 0;
};

class SegmentPreparerTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(disk_.MakeDirectory(kDirectory).ok()); }
  void Make(bool threaded) {
    preparer_ = std::make_unique<SegmentPreparer>(&disk_, &clock_, kDirectory, kSegmentBytesMin, threaded);
    preparer_->SetFailureHook([this] { failures_.fetch_add(1); });
  }
  void FailAllocation() {
    sim::SimDisk::Faults faults;
    faults.fail_at = 3;  // unlink (there is nothing), open, allocate
    faults.fail_errno = ENOSPC;
    disk_.SetFaults(faults);
  }
  // What the writer does with a file that it has taken.
  void UseAs(FileHandle file, uint64_t number) {
    ASSERT_TRUE(disk_.Rename(kReserve, kDirectory + "/" + SegmentName(number)).ok());
    disk_.Close(file);
  }

  GatedDisk disk_;
  sim::ManualClock clock_;
  std::atomic<int> failures_{0};
  std::unique_ptr<SegmentPreparer> preparer_;
};

TEST_F(SegmentPreparerTest, PreparesOneZeroedFileThatRecoveryWouldNotRead) {
  Make(false);
  EXPECT_EQ(preparer_->path(), kReserve);
  EXPECT_EQ(SegmentNumber("reserve.tmp"), 0u);
  preparer_->Request();
  EXPECT_EQ(disk_.Paths(), std::vector<std::string>{kReserve});
  EXPECT_EQ(disk_.Bytes(kReserve), std::vector<std::byte>(kSegmentBytesMin));
  preparer_->Request();
  EXPECT_EQ(disk_.allocations(), 1) << "one reserve is enough";
  const Result<Reserve> file = preparer_->Take();
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(disk_.Size(file->file).value(), kSegmentBytesMin);
  EXPECT_EQ(disk_.allocations(), 1);
}

TEST_F(SegmentPreparerTest, WithoutAReserveTakeMakesAFileAtOnce) {
  Make(false);
  const Result<Reserve> first = preparer_->Take();
  ASSERT_TRUE(first.ok());
  UseAs(first->file, 1);
  const Result<Reserve> second = preparer_->Take();
  ASSERT_TRUE(second.ok());
  UseAs(second->file, 2);
  EXPECT_EQ(disk_.Paths().size(), 2u);
  EXPECT_EQ(disk_.allocations(), 2);
}

TEST_F(SegmentPreparerTest, EachFailureIsToldAndTriedAgainAfterASecond) {
  Make(false);
  FailAllocation();
  preparer_->Request();
  EXPECT_FALSE(preparer_->has_room());
  EXPECT_TRUE(disk_.Bytes(kReserve).empty()) << "a half-made file holds no space";
  EXPECT_EQ(failures_, 1);
  EXPECT_TRUE(IsDiskFull(preparer_->failure())) << preparer_->failure().message();

  clock_.Advance(kSecond - 1);
  preparer_->Poll();
  EXPECT_EQ(disk_.allocations(), 1);
  FailAllocation();
  clock_.Advance(1);
  preparer_->Poll();
  EXPECT_EQ(disk_.allocations(), 2);
  EXPECT_EQ(failures_, 2);
  clock_.Advance(kSecond);
  preparer_->Poll();
  EXPECT_EQ(disk_.allocations(), 3);
  EXPECT_TRUE(preparer_->has_room());
  EXPECT_EQ(failures_, 2);
}

TEST_F(SegmentPreparerTest, AFailureIsTriedAgainAtOnceWhenSomebodyHasMadeRoom) {
  for (const bool threaded : {false, true}) {
    Make(threaded);
    const int before = disk_.allocations();
    FailAllocation();
    preparer_->Retry();
    EXPECT_TRUE(preparer_->has_room()) << "nothing has failed";
    preparer_->Request();
    while (preparer_->has_room()) std::this_thread::yield();
    preparer_->Retry();
    EXPECT_TRUE(preparer_->has_room()) << "whoever made the room need not wait for it";
    disk_.AwaitAllocations(before + 2);  // the clock stands still
    preparer_.reset();
    ASSERT_TRUE(disk_.Unlink(kReserve).ok());
  }
}

// The attempt after a failure used to come due while the file that Take had created was being renamed: it removed the
// file and put another one in its place.
TEST_F(SegmentPreparerTest, ATakenFileIsNotTouchedUntilTheNextRequest) {
  Make(false);
  FailAllocation();
  preparer_->Request();
  ASSERT_FALSE(preparer_->has_room());
  const Result<Reserve> file = preparer_->Take();
  ASSERT_TRUE(file.ok());
  const uint64_t operations = disk_.operations();
  clock_.Advance(10 * kSecond);
  preparer_->Poll();
  EXPECT_EQ(disk_.operations(), operations);
  UseAs(file->file, 1);
  preparer_->Request();
  EXPECT_EQ(disk_.Paths(), (std::vector<std::string>{kReserve, kDirectory + "/" + SegmentName(1)}));
}

TEST_F(SegmentPreparerTest, ATakenFileIsNotTouchedByTheThreadEither) {
  Make(true);
  FailAllocation();
  preparer_->Request();
  while (preparer_->has_room()) std::this_thread::yield();
  for (uint64_t number = 1; number <= 20; ++number) {
    const Result<Reserve> file = preparer_->Take();
    ASSERT_TRUE(file.ok()) << file.status().message();
    clock_.Advance(2 * kSecond);  // an attempt after a failure would be due now
    UseAs(file->file, number);
    FailAllocation();
    preparer_->Request();
    disk_.AwaitAllocations(static_cast<int>(2 * number + 1));
  }
  preparer_.reset();
  EXPECT_EQ(disk_.Paths().size(), 20u);
  EXPECT_EQ(disk_.allocations(), 41) << "20 by Take, 21 that failed";
}

TEST_F(SegmentPreparerTest, TakeWaitsForTheReserveThatIsBeingMade) {
  Make(true);
  disk_.Shut();
  preparer_->Request();
  disk_.AwaitAllocations(1);  // the thread is in the middle of it
  Result<Reserve> file = Status(StatusCode::kStorageError, "not taken");
  std::thread taker([&] { file = preparer_->Take(); });
  disk_.Open();
  taker.join();
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(disk_.allocations(), 1) << "the same file, not a second one";
  UseAs(file->file, 1);
  preparer_.reset();
  EXPECT_EQ(disk_.Paths(), std::vector<std::string>{kDirectory + "/" + SegmentName(1)});
}

TEST_F(SegmentPreparerTest, TheReserveStaysForTheNextStartWhichReplacesIt) {
  for (const bool threaded : {false, true}) {
    Make(threaded);
    const int before = disk_.allocations();
    preparer_->Request();
    disk_.AwaitAllocations(before + 1);
    preparer_.reset();
    EXPECT_EQ(disk_.Paths(), std::vector<std::string>{kReserve});
    std::vector<std::byte> touched(kSegmentBytesMin);
    touched[0] = std::byte{1};  // its engine died while it wrote a header
    disk_.SetBytes(kReserve, touched);
    disk_.SetCapacity(kSegmentBytesMin);  // there is room for no second one
    Make(threaded);
    const Result<Reserve> file = preparer_->Take();
    ASSERT_TRUE(file.ok()) << file.status().message();
    EXPECT_EQ(disk_.Bytes(kReserve), std::vector<std::byte>(kSegmentBytesMin));
    disk_.Close(file->file);
    preparer_.reset();
    ASSERT_TRUE(disk_.Unlink(kReserve).ok());
  }
}

TEST_F(SegmentPreparerTest, EndsWhileItIsAtWork) {
  Make(true);
  disk_.Shut();
  preparer_->Request();
  disk_.AwaitAllocations(1);
  std::thread opener([&] { disk_.Open(); });
  preparer_.reset();
  opener.join();
  EXPECT_EQ(disk_.Paths(), std::vector<std::string>{kReserve});
}

// A segment that is no longer needed, full of ones.
class ReuseTest : public SegmentPreparerTest {
 protected:
  void MakeSegment(uint64_t bytes = kSegmentBytesMin) {
    disk_.SetBytes(kSegment, std::vector<std::byte>(bytes, std::byte{1}));
  }
  const std::string kSegment = kDirectory + "/" + SegmentName(1);
};

TEST_F(ReuseTest, ASegmentBecomesTheReserveAsItIs) {
  Make(false);
  MakeSegment();
  disk_.SetCapacity(0);
  EXPECT_TRUE(preparer_->wants_file());
  ASSERT_TRUE(preparer_->Reuse(kSegment));
  EXPECT_FALSE(preparer_->wants_file());
  preparer_->Request();
  EXPECT_EQ(disk_.Paths(), std::vector<std::string>{kReserve});
  const Result<Reserve> reserve = preparer_->Take();
  ASSERT_TRUE(reserve.ok());
  EXPECT_TRUE(reserve->written_over);
  EXPECT_EQ(disk_.allocations(), 0);
  EXPECT_EQ(disk_.Bytes(kReserve), std::vector<std::byte>(kSegmentBytesMin, std::byte{1}));
  UseAs(reserve->file, 2);
  disk_.SetCapacity(UINT64_MAX);
  preparer_->Request();
  const Result<Reserve> next = preparer_->Take();
  ASSERT_TRUE(next.ok());
  EXPECT_FALSE(next->written_over);
}

TEST_F(ReuseTest, OneReserveIsEnough) {
  for (const bool threaded : {false, true}) {
    Make(threaded);
    MakeSegment();
    disk_.Shut();
    if (!threaded) disk_.Open();
    preparer_->Request();
    EXPECT_FALSE(preparer_->Reuse(kSegment)) << "one is ready, or being made";
    EXPECT_EQ(disk_.Bytes(kSegment).size(), kSegmentBytesMin);
    disk_.Open();
    const Result<Reserve> reserve = preparer_->Take();
    ASSERT_TRUE(reserve.ok());
    EXPECT_FALSE(reserve->written_over);
    disk_.Close(reserve->file);
    preparer_.reset();
    ASSERT_TRUE(disk_.Unlink(kReserve).ok());
  }
}

TEST_F(ReuseTest, AFileOfAnotherSizeIsNotTaken) {
  Make(false);
  for (const uint64_t bytes : {kSegmentBytesMin - kWalBlockBytes, kSegmentBytesMin + kWalBlockBytes}) {
    MakeSegment(bytes);
    EXPECT_FALSE(preparer_->Reuse(kSegment));
    EXPECT_EQ(disk_.Paths(), std::vector<std::string>{kSegment}) << "it is the caller's still";
  }
  ASSERT_TRUE(disk_.Unlink(kSegment).ok());
  EXPECT_FALSE(preparer_->Reuse(kSegment)) << "somebody else removed it";
}

TEST_F(ReuseTest, EndsALackOfRoom) {
  for (const bool threaded : {false, true}) {
    Make(threaded);
    FailAllocation();
    preparer_->Request();
    while (preparer_->has_room()) std::this_thread::yield();
    MakeSegment();
    ASSERT_TRUE(preparer_->Reuse(kSegment));
    EXPECT_TRUE(preparer_->has_room());
    EXPECT_TRUE(preparer_->failure().ok());
    preparer_.reset();
    ASSERT_TRUE(disk_.Unlink(kReserve).ok());
  }
}

TEST_F(ReuseTest, ADiscardedReserveIsGoneUnlessItIsANewFile) {
  Make(false);
  MakeSegment();
  ASSERT_TRUE(preparer_->Reuse(kSegment));
  preparer_->Discard();
  EXPECT_TRUE(disk_.Paths().empty());
  preparer_->Request();
  preparer_->Discard();
  EXPECT_EQ(disk_.Paths(), std::vector<std::string>{kReserve});
  EXPECT_EQ(disk_.allocations(), 1);
}

}  // namespace
}  // namespace sutra
