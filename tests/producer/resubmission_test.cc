// Engines that die or stop under requests, and the next one that answers them: every request ends once, with its own
// text's vector, and none is lost. The engines are real processes and are really killed.
#include "producer/resubmission.h"

#include "tests/producer/client_fixture.h"

namespace sutra::test {
namespace {

class ResubmissionTest : public ClientTest {};

// The heartbeat of an engine that died a moment ago is fresh: the text goes into its lane, and must come out elsewhere.
TEST_F(ResubmissionTest, TheFirstCallAfterACrashIsServedByTheEngineThatIsAlreadyThere) {
  StartEngine();
  const ClientPtr client = Attach(8, 1);
  ASSERT_EQ(Embed(client, "before"), SUTRA_OK);
  for (int round = 0; round < 10; ++round) {
    engine_->Kill();
    StartEngine();
    EXPECT_EQ(Embed(client, "after crash " + std::to_string(round)), SUTRA_OK) << sutra_error_text();
  }
}

}  // namespace
}  // namespace sutra::test
