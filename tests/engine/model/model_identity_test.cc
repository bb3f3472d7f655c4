// The identity is that of what is served. Its canonical text is a contract with every cache on disk.
#include "engine/model/model_identity.h"

#include <gtest/gtest.h>

#include "shm/base/sha256.h"
#include "tests/kit/tiny_model.h"

namespace sutra {
namespace {

// If this test fails, every cache would start empty: is that meant? If the same lines mean something else than before,
// raise the scheme number.
TEST(ModelIdentity, CanonicalTextHasOneLineForEachSetting) {
  TinyModel model;
  model.Save();
  const auto loaded = LoadModel(model.path());
  ASSERT_TRUE(loaded.ok()) << loaded.status().message();
  const std::string text = CanonicalIdentity(*loaded, "bf16", "cpu");
  EXPECT_EQ(text, "scheme 2\nweights " + loaded->weights.digest + "\nvocabulary " + loaded->vocabulary_digest +
                      "\nfamily bert\nhidden 64\nlayers 2\nheads 2\nintermediate 128\nwords 12\npositions 40\n"
                      "tokens_max 32\nnorm_epsilon_bits 730643660\nactivation gelu_erf\npooling mean\nnormalizes yes\n"
                      "width 64\ntokenizer wordpiece\nunk_id 1\ncls_id 2\nsep_id 3\ncontinuing_prefix 2:##\n"
                      "word_chars_max 100\nclean_text yes\nsplit_ideographs yes\nstrip_accents yes\nlowercase yes\n"
                      "truncate_left no\nliteral 0 5:[PAD]\nliteral 1 5:[UNK]\nliteral 2 5:[CLS]\nliteral 3 5:[SEP]\n"
                      "literal 4 6:[MASK]\nprompt 0:\nprecision bf16\ndevice cpu\n");
  EXPECT_EQ(ComputeModelIdentity(*loaded, "bf16", "cpu").value(), Sha256Hex(text).value());
  EXPECT_NE(ComputeModelIdentity(*loaded, "bf16", "cuda").value(),
            ComputeModelIdentity(*loaded, "bf16", "cpu").value());
  EXPECT_EQ(loaded->vocabulary_digest, Sha256Hex("0 5:[PAD]\n1 5:[UNK]\n2 5:[CLS]\n3 5:[SEP]\n4 6:[MASK]\n5 5:ready\n"
                                                 "6 1:a\n7 1:b\n8 1:c\n9 1:d\n10 1:e\n11 1:.\n")
                                           .value());
}

// The recipe stands beside the precision, so that a later one starts with an empty cache and weights of its own.
TEST(ModelIdentity, Int8SaysByWhichRecipe) {
  TinyModel model;
  model.Save();
  const auto loaded = LoadModel(model.path());
  ASSERT_TRUE(loaded.ok());
  const std::string text = CanonicalIdentity(*loaded, "int8", "cpu");
  EXPECT_NE(text.find("\nprecision int8\nint8_recipe 3\ndevice cpu\n"), std::string::npos) << text;
  EXPECT_EQ(CanonicalIdentity(*loaded, "fp32", "cpu").find("recipe"), std::string::npos);
}

// A prompt with a line break cannot pretend to be other settings: its length stands before it.
TEST(ModelIdentity, PromptsThatContainLinesAreToldApart) {
  const auto text = [](const char* prompt) {
    TinyModel model;
    model.Save();
    auto loaded = LoadModel(model.path());
    loaded->config.prompt = prompt;
    return CanonicalIdentity(*loaded, "fp32", "cpu");
  };
  EXPECT_NE(text("a\nprecision fp32"), text("a"));
  EXPECT_NE(text("a").find("prompt 1:a\n"), std::string::npos);
}

}  // namespace
}  // namespace sutra
