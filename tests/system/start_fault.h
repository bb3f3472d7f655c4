// What the tests of faults around an engine share: a start that must fail, and one that must lose nothing.
// Thread rule: the test's main thread.
#pragma once

#include <string>
#include <vector>

#include "engine/exit_code.h"
#include "tests/system/system_fixture.h"

namespace sutra::test {

class StartFault : public SystemTest {
 protected:
  static void ExpectSays(const EngineProcess& engine, const std::vector<std::string>& words) {
    const std::string log = engine.Log();
    for (const std::string& word : words) {
      EXPECT_NE(log.find(word), std::string::npos) << "not said: " << word << "\n" << log;
    }
  }
  static void ExpectCannotStart(EngineProcess& engine, int code, const std::vector<std::string>& words) {
    engine.Launch();
    const ExitStatus status = engine.WaitEnd();
    EXPECT_TRUE(status.exited && status.code == code) << ToText(status);
    ExpectSays(engine, words);
  }
  static void ExpectServes(const EngineProcess& engine, const std::string& text) {
    ExpectVector(Attached(engine).Embed(text), text);
  }
  // Embeds texts, waits until they are written, kills the engine, starts it again and expects them from the shard.
  static void ExpectSurvivesKill(EngineProcess& engine, const std::string& prefix) {
    const std::vector<std::string> texts = NumberedTexts(prefix, 100);
    Attached(engine).EmbedBatch(texts);
    ASSERT_TRUE(engine.WaitWritten());
    engine.Kill();
    ASSERT_TRUE(engine.Start());
    const std::vector<Reply> replies = Attached(engine).EmbedBatch(texts);
    for (size_t i = 0; i < texts.size(); ++i) {
      ExpectVector(replies[i], texts[i]);
      EXPECT_TRUE(replies[i].FromCache()) << texts[i];
    }
  }
};

}  // namespace sutra::test
