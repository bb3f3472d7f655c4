#include "shm/base/thread_start.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace sutra {
namespace {

TEST(StartThread, AStartThatSucceedsSaysNothing) {
  bool started = false;
  EXPECT_TRUE(StartThread("a test", [&] { started = true; }).ok());
  EXPECT_TRUE(started);
}

TEST(StartThread, OneThatFailsNamesTheThreadTheCauseAndTheLimits) {
  const Status status =
      StartThread("a test", [] { throw std::system_error(std::error_code(EAGAIN, std::system_category())); });
  EXPECT_EQ(status.code(), StatusCode::kOutOfMemory);
  EXPECT_EQ(status.os_error(), EAGAIN);
  EXPECT_NE(status.message().find("the thread of a test"), std::string::npos) << status.message();
  EXPECT_NE(status.message().find("ulimit -u"), std::string::npos) << status.message();
}

}  // namespace
}  // namespace sutra
