// Tests compute expected answers with the fake model; these are the properties that they rely on.
#include "engine/model/fake_backend.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace sutra {
namespace {

std::unique_ptr<ModelBackend> Make(const FakeOptions& options) { return std::move(MakeFakeBackend(options)).value(); }

Status EmbedText(ModelBackend& backend, std::string_view text, std::vector<float>* vector) {
  std::vector<int32_t> ids;
  (void)backend.tokenizer().Encode(text, backend.info().tokens_max, &ids);
  const std::vector<int32_t> offsets = {0, static_cast<int32_t>(ids.size())};
  vector->assign(backend.info().width, 0);
  float* const outputs[] = {vector->data()};
  return backend.Embed({ids, offsets}, outputs);
}

TEST(FakeBackend, AnswersTheExposedFunction) {
  const auto backend = Make({.name = "m", .width = 7});
  std::vector<float> vector;
  ASSERT_TRUE(EmbedText(*backend, "hello", &vector).ok());
  EXPECT_EQ(vector, FakeVector("hello", "m", 7));
  EXPECT_NE(vector, FakeVector("hellp", "m", 7));
  EXPECT_NE(vector, FakeVector("hello", "n", 7));
  EXPECT_TRUE(std::all_of(vector.begin(), vector.end(), [](float v) { return v != 0 && v >= -1 && v < 1; }));
}

TEST(FakeBackend, OneByteIsOneTokenAndTruncationIsExact) {
  const auto backend = Make({.tokens_max = 4});
  std::vector<int32_t> ids;
  Encoded encoded = backend->tokenizer().Encode("abcd", backend->info().tokens_max, &ids);
  EXPECT_EQ(encoded.token_count, 4U);
  EXPECT_FALSE(encoded.truncated);
  encoded = backend->tokenizer().Encode("abcde", backend->info().tokens_max, &ids);
  EXPECT_EQ(encoded.token_count, 4U);
  EXPECT_TRUE(encoded.truncated);
  EXPECT_EQ(ids.size(), 8U);
  std::vector<float> vector;
  ASSERT_TRUE(EmbedText(*backend, "abcde", &vector).ok());
  EXPECT_EQ(vector, FakeVector("abcd", "fake", backend->info().width));
}

TEST(FakeBackend, FailsAtTheBatchAskedForAndRecovers) {
  const auto backend = Make({.fail_at = 2});
  std::vector<float> vector;
  EXPECT_TRUE(EmbedText(*backend, "a", &vector).ok());
  EXPECT_EQ(EmbedText(*backend, "a", &vector).code(), StatusCode::kModelError);
  EXPECT_TRUE(EmbedText(*backend, "a", &vector).ok());
}

TEST(FakeBackend, EnvironmentSetsTheHooks) {
  setenv("SUTRA_FAKE_FAIL_AT", "1", 1);
  const auto backend = std::move(MakeFakeBackend("fake", 8)).value();
  unsetenv("SUTRA_FAKE_FAIL_AT");
  std::vector<float> vector;
  EXPECT_FALSE(EmbedText(*backend, "a", &vector).ok());
}

TEST(FakeBackend, RefusesWhatARealModelWould) {
  EXPECT_EQ(MakeFakeBackend("fake", 0).code(), StatusCode::kBadOption);
  const auto backend = Make({.width = 2, .tokens_max = 2});
  std::vector<float> vector(2);
  float* const outputs[] = {vector.data()};
  const std::vector<int32_t> offsets = {0, 3};
  EXPECT_FALSE(backend->Embed({std::vector<int32_t>{1, 2, 3}, offsets}, outputs).ok());
  const std::vector<int32_t> one = {0, 1};
  EXPECT_FALSE(backend->Embed({std::vector<int32_t>{256}, one}, outputs).ok());
}

TEST(FakeBackend, IdentityTellsNamesAndWidthsApart) {
  const auto identity = [](const FakeOptions& options) { return Make(options)->info().identity; };
  EXPECT_EQ(identity({.name = "a"}).size(), 64U);
  EXPECT_EQ(identity({.name = "a"}), identity({.name = "a"}));
  EXPECT_NE(identity({.name = "a"}), identity({.name = "b"}));
  EXPECT_NE(identity({.name = "a", .width = 8}), identity({.name = "a", .width = 16}));
}

}  // namespace
}  // namespace sutra
