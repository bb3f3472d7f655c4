// Programs that were compiled with an older and with a newer header than the library's, and one with its own.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "tests/kit/echo_engine.h"
#include "tests/kit/temp_dir.h"

namespace sutra::test {
namespace {

class Callers : public testing::Test {
 protected:
  void SetUp() override { alarm(100); }
  int Run(const std::string& program) const { return std::system((program + " " + path_).c_str()); }

 private:
  TempDir directory_;
  const std::string path_ = directory_ / "socket";
  const EchoEngine engine_{path_, {.width = 16}};
};

TEST_F(Callers, OneWithTheLibrarysOwnHeaderIsServed) { EXPECT_EQ(Run(SUTRA_CALLER_NOW), 0); }

TEST_F(Callers, OneWithTheStructuresOfTheFirstVersionIsServed) { EXPECT_EQ(Run(SUTRA_CALLER_FIRST), 0); }

TEST_F(Callers, OneWithLargerStructuresIsServedUnlessItAsksForWhatTheLibraryDoesNotKnow) {
  EXPECT_EQ(Run(SUTRA_CALLER_NEWER), 0);
}

}  // namespace
}  // namespace sutra::test
