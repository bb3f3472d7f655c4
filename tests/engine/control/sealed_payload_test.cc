// Payloads of answers, and whatever else may come in the place of one.
#include "engine/control/sealed_payload.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shm/control_messages.h"

namespace sutra {
namespace {

UniqueFd Memory(const std::string& bytes, int seals) {
  UniqueFd fd(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  EXPECT_EQ(write(fd.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  EXPECT_EQ(fcntl(fd.get(), F_ADD_SEALS, seals), 0);
  return fd;
}
StatusCode CodeOf(int fd, uint64_t bytes) { return ReadSealedPayload(fd, bytes).code(); }

constexpr int kAllSeals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;

TEST(SealedPayload, IsReadAsItWasMade) {
  for (const size_t bytes : {size_t{1}, size_t{4096}, size_t{5'000'000}}) {
    std::string text(bytes, 'x');
    text.front() = 'a';
    text.back() = 'z';
    const Result<UniqueFd> fd = MakeSealedPayload(text);
    ASSERT_TRUE(fd.ok());
    EXPECT_EQ(ReadSealedPayload(fd->get(), bytes).value(), text);
    EXPECT_EQ(ReadSealedPayload(fd->get(), bytes).value(), text) << "its position must not matter";
  }
}

TEST(SealedPayload, NobodyChangesItAnyMore) {
  const Result<UniqueFd> fd = MakeSealedPayload("text");
  EXPECT_EQ(pwrite(fd->get(), "x", 1, 0), -1);
  EXPECT_EQ(ftruncate(fd->get(), 0), -1);
  EXPECT_EQ(ftruncate(fd->get(), 100), -1);
  EXPECT_EQ(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd->get(), 0), MAP_FAILED);
}

TEST(SealedPayload, AnotherSizeIsRefused) {
  const Result<UniqueFd> fd = MakeSealedPayload("text");
  EXPECT_EQ(CodeOf(fd->get(), 3), StatusCode::kProtocolViolation);
  EXPECT_EQ(CodeOf(fd->get(), 5), StatusCode::kProtocolViolation);
  EXPECT_EQ(CodeOf(fd->get(), 0), StatusCode::kProtocolViolation);
  EXPECT_EQ(CodeOf(fd->get(), UINT64_MAX), StatusCode::kProtocolViolation);
  const UniqueFd sparse(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(ftruncate(sparse.get(), 1ll << 40), 0);
  ASSERT_EQ(fcntl(sparse.get(), F_ADD_SEALS, kAllSeals), 0);
  EXPECT_EQ(CodeOf(sparse.get(), 1ull << 40), StatusCode::kProtocolViolation);
}

TEST(SealedPayload, WhatCouldStillChangeIsRefused) {
  for (const int left_out : {F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE}) {
    const UniqueFd fd = Memory("text", kAllSeals & ~left_out);
    EXPECT_EQ(CodeOf(fd.get(), 4), StatusCode::kProtocolViolation) << left_out;
  }
  EXPECT_EQ(CodeOf(Memory("text", kAllSeals).get(), 4), StatusCode::kOk);
}

TEST(SealedPayload, APipeAFileAndNothingAreRefusedWithoutBeingRead) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const UniqueFd reading(ends[0]), writing(ends[1]);
  EXPECT_EQ(CodeOf(reading.get(), 4), StatusCode::kProtocolViolation);  // a read would wait for ever
  const UniqueFd file(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(CodeOf(file.get(), 4), StatusCode::kProtocolViolation);
  EXPECT_EQ(CodeOf(-1, 4), StatusCode::kProtocolViolation);
}

}  // namespace
}  // namespace sutra
