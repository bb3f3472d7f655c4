// safetensors/safetensors#762, bghira/SimpleTuner#2714, NVIDIA/TensorRT-LLM#17368: the weights file changes under its
// reader. A mapped file gave wrong vectors, which the cache kept under the old identity, or ended the engine with
// SIGBUS.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tests/kit/tiny_model.h"
#include "tests/system/system_fixture.h"

namespace sutra::test {
namespace {

constexpr uint32_t kNoCache = SUTRA_CACHE_SKIP_LOOKUP | SUTRA_CACHE_SKIP_STORE;

class WeightsReport : public SystemTest {
 protected:
  WeightsReport() {
    model_.Save();
    right_ = Bytes();
    for (auto& [name, values] : model_.tensors()) std::reverse(values.begin(), values.end());
    model_.Save();
    other_ = Bytes();
    Overwrite(right_);
    engine_.options().args = {"--backend", "torch", "--model", model_.path(), "--executor", "cpu", "--threads", "1"};
  }
  std::string Weights() const { return model_.path() + "/model.safetensors"; }
  std::string Bytes() const {
    std::ifstream in(Weights(), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  }
  // The inode stays: what cp and rsync --inplace do.
  void Overwrite(const std::string& bytes) const {
    std::fstream out(Weights(), std::ios::binary | std::ios::in | std::ios::out);
    out << bytes;
    out.close();
    std::filesystem::resize_file(Weights(), bytes.size());
  }
  Reply Ask(const std::string& text, uint32_t flags = 0) {
    return Attached(engine_).Embed(text, ClientHandle::RequestOptions(flags));
  }

  TinyModel model_;
  std::string right_, other_;
  EngineProcess engine_;
};

TEST_F(WeightsReport, OverwrittenInPlaceTheyNeitherChangeAVectorNorReachTheCache) {
  ASSERT_EQ(right_.size(), other_.size());
  ASSERT_TRUE(engine_.Start());
  const Reply expected = Ask("a b c", kNoCache);
  ASSERT_EQ(expected.status, SUTRA_OK);
  Overwrite(other_);
  const Reply after = Ask("a b c");
  EXPECT_EQ(after.source, SUTRA_SOURCE_MODEL);
  EXPECT_TRUE(SameVector(after.vector, expected.vector));
  ASSERT_TRUE(engine_.WaitWritten());
  engine_.Kill();

  ASSERT_TRUE(engine_.Start());
  const Reply of_other = Ask("a b c");
  EXPECT_EQ(of_other.source, SUTRA_SOURCE_MODEL) << "other weights have another identity, so this is no hit";
  EXPECT_FALSE(SameVector(of_other.vector, expected.vector));
  engine_.Kill();

  Overwrite(right_);
  ASSERT_TRUE(engine_.Start());
  const Reply again = Ask("a b c");
  EXPECT_TRUE(again.FromCache());
  EXPECT_TRUE(SameVector(again.vector, expected.vector));
}

TEST_F(WeightsReport, TruncatedReplacedOrRemovedTheyDoNotEndTheEngine) {
  ASSERT_TRUE(engine_.Start());
  const Reply expected = Ask("d e", kNoCache);
  ASSERT_EQ(expected.status, SUTRA_OK);
  Overwrite("");
  EXPECT_TRUE(SameVector(Ask("d e", kNoCache).vector, expected.vector)) << "truncated";
  std::filesystem::remove(Weights());
  for (const auto& entry : std::filesystem::directory_iterator(model_.path())) {
    if (entry.is_regular_file()) std::filesystem::resize_file(entry.path(), 0);
  }
  EXPECT_TRUE(SameVector(Ask("d e", kNoCache).vector, expected.vector)) << "removed, and the other files emptied";
  std::ofstream(Weights(), std::ios::binary) << other_;
  EXPECT_TRUE(SameVector(Ask("d e", kNoCache).vector, expected.vector)) << "replaced";
  EXPECT_TRUE(engine_.running());
  const ExitStatus status = engine_.Terminate();
  EXPECT_TRUE(status.exited && status.code == 0) << ToText(status);
}

}  // namespace
}  // namespace sutra::test
