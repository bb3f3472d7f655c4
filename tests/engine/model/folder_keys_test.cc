// Every key of every file of a model folder: obeyed (another identity), refused by name, or without influence on the
// vectors (the same identity). The reference is sentence-transformers 6.2 with transformers 5.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "engine/model/model_identity.h"
#include "tests/kit/tiny_model.h"

namespace sutra {
namespace {

using nlohmann::json;

enum class Verdict { kObeyed, kRefused, kIrrelevant };
using enum Verdict;

struct Row {
  const char* file;
  const char* pointer;  // RFC 6901
  const char* value;
  Verdict verdict;
  const char* named = nullptr;  // what a refusal names, if not the last part of the pointer
};

constexpr char kTokenizerJson[] = R"({"version": "1.0", "truncation": null, "padding": null,
  "added_tokens": [{"id": 4, "content": "[MASK]", "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": true}],
  "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
                 "lowercase": true},
  "pre_tokenizer": {"type": "BertPreTokenizer"},
  "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
  "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
  "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "ready": 5, "a": 6, "b": 7}}})";

constexpr char kConfig[] = "config.json";
constexpr char kModules[] = "modules.json";
constexpr char kPooling[] = "1_Pooling/config.json";
constexpr char kNormalize[] = "2_Normalize/config.json";
constexpr char kSentence[] = "sentence_bert_config.json";
constexpr char kSentenceRoberta[] = "sentence_roberta_config.json";
constexpr char kSentenceTransformers[] = "config_sentence_transformers.json";
constexpr char kTokenizer[] = "tokenizer.json";
constexpr char kTokenizerConfig[] = "tokenizer_config.json";
constexpr char kSpecialTokens[] = "special_tokens_map.json";
constexpr char kAddedTokens[] = "added_tokens.json";
constexpr char kAdapter[] = "adapter_config.json";

constexpr Row kRows[] = {
    // BertModel reads a closed list of keys; what else stands in config.json is bookkeeping.
    {kConfig, "/model_type", R"("roberta")", kRefused},
    {kConfig, "/hidden_size", "128", kRefused},
    {kConfig, "/intermediate_size", "64", kRefused, "another shape"},
    {kConfig, "/vocab_size", "13", kRefused, "another shape"},
    {kConfig, "/max_position_embeddings", "41", kRefused, "another shape"},
    {kConfig, "/num_hidden_layers", "1", kObeyed},
    {kConfig, "/num_hidden_layers", "3", kRefused, "encoder.layer.2"},
    {kConfig, "/num_attention_heads", "4", kObeyed},
    {kConfig, "/hidden_act", R"("gelu_new")", kObeyed},
    {kConfig, "/hidden_act", R"("relu")", kRefused},
    {kConfig, "/layer_norm_eps", "1e-5", kObeyed},
    {kConfig, "/position_embedding_type", R"("absolute")", kIrrelevant},
    {kConfig, "/position_embedding_type", R"("relative_key")", kRefused},
    {kConfig, "/is_decoder", "true", kRefused},
    {kConfig, "/add_cross_attention", "true", kRefused},
    {kConfig, "/pruned_heads", R"({"0": [1]})", kRefused},
    {kConfig, "/pruned_heads", "{}", kIrrelevant},
    {kConfig, "/quantization_config", R"({"load_in_8bit": true})", kRefused},
    {kConfig, "/auto_map", R"({"AutoModel": "m.py"})", kRefused},
    {kConfig, "/tokenizer_class", R"("BertJapaneseTokenizer")", kRefused},
    {kConfig, "/tokenizer_class", R"("BertTokenizer")", kIrrelevant},
    {kConfig, "/type_vocab_size", "2", kIrrelevant},  // the tensor's rows count
    {kConfig, "/transformers_version", R"("5.23.0")", kIrrelevant},
    {kConfig, "/_name_or_path", R"("x")", kIrrelevant},
    {kConfig, "/architectures", R"(["BertForMaskedLM"])", kIrrelevant},
    {kConfig, "/torch_dtype", R"("float16")", kIrrelevant},  // --precision decides
    {kConfig, "/dtype", R"("float16")", kIrrelevant},
    {kConfig, "/hidden_dropout_prob", "0.2", kIrrelevant},
    {kConfig, "/attention_probs_dropout_prob", "0.2", kIrrelevant},
    {kConfig, "/classifier_dropout", "0.2", kIrrelevant},
    {kConfig, "/initializer_range", "0.2", kIrrelevant},
    {kConfig, "/gradient_checkpointing", "true", kIrrelevant},
    {kConfig, "/chunk_size_feed_forward", "2", kIrrelevant},
    {kConfig, "/pad_token_id", "1", kIrrelevant},
    {kConfig, "/use_cache", "false", kIrrelevant},
    {kConfig, "/id2label", R"({"0": "x"})", kIrrelevant},
    {kConfig, "/unknown", "1", kIrrelevant},

    {kModules, "/0/type", R"("custom_st.Transformer")", kRefused, "custom_st.Transformer"},
    {kModules, "/0/type", R"("sentence_transformers.base.modules.transformer.Transformer")", kIrrelevant},
    {kModules, "/0/kwargs", R"(["task"])", kRefused},
    {kModules, "/0/kwargs", "[]", kIrrelevant},
    {kModules, "/0/idx", "7", kIrrelevant},
    {kModules, "/0/name", R"("transformer")", kIrrelevant},
    {kModules, "/0/name", R"("1")", kRefused, "two modules"},
    {kModules, "/0/unknown", "1", kRefused},
    {kModules, "/1/type", R"("sentence_transformers.models.WeightedLayerPooling")", kRefused, "WeightedLayerPooling"},
    {kModules, "/1/type", R"("sentence_transformers.sentence_transformer.modules.pooling.Pooling")", kIrrelevant},
    {kModules, "/2/type", R"("sentence_transformers.models.Dense")", kRefused, "'Dense'"},

    {kPooling, "/word_embedding_dimension", "65", kRefused},
    {kPooling, "/embedding_dimension", "65", kRefused},
    {kPooling, "/embedding_dimension", "64", kIrrelevant},
    {kPooling, "/pooling_mode_cls_token", "true", kRefused, "2 pooling modes"},
    {kPooling, "/pooling_mode_max_tokens", "true", kRefused, "2 pooling modes"},
    {kPooling, "/pooling_mode_mean_sqrt_len_tokens", "true", kRefused, "2 pooling modes"},
    {kPooling, "/pooling_mode_weightedmean_tokens", "true", kRefused, "2 pooling modes"},
    {kPooling, "/pooling_mode_lasttoken", "true", kRefused, "2 pooling modes"},
    {kPooling, "/pooling_mode_mean_tokens", "false", kRefused, "0 pooling modes"},
    {kPooling, "/pooling_mode", R"("mean")", kIrrelevant},
    {kPooling, "/pooling_mode", R"(["mean"])", kIrrelevant},
    {kPooling, "", R"({"pooling_mode": "cls"})", kObeyed},
    {kPooling, "", R"({"pooling_mode_cls_token": true})", kObeyed},
    {kPooling, "", R"({"pooling_mode": "max"})", kRefused, "'max'"},
    {kPooling, "", R"({"pooling_mode": "mean_sqrt_len_tokens"})", kRefused, "'mean_sqrt_len_tokens'"},
    {kPooling, "", R"({"pooling_mode": "weightedmean"})", kRefused, "'weightedmean'"},
    {kPooling, "", R"({"pooling_mode": "lasttoken"})", kRefused, "'lasttoken'"},
    {kPooling, "", R"({"pooling_mode": ["mean", "max"]})", kRefused, "2 pooling modes"},
    {kPooling, "/include_prompt", "true", kIrrelevant},
    {kPooling, "/include_prompt", "false", kRefused},
    {kPooling, "/unknown", "1", kRefused},
    {kNormalize, "/anything", "1", kIrrelevant},  // the module reads no file

    {kSentence, "/max_seq_length", "31", kObeyed},
    {kSentence, "/max_seq_length", "0", kRefused},
    {kSentence, "/max_seq_length", "null", kObeyed},     // the position table bounds it then
    {kSentence, "/do_lower_case", "true", kIrrelevant},  // the tokenizer lower-cases already
    {kSentence, "/do_lower_case", R"("yes")", kRefused},
    {kSentence, "/transformer_task", R"("feature-extraction")", kIrrelevant},
    {kSentence, "/transformer_task", R"("fill-mask")", kRefused},
    {kSentence, "/modality_config", R"({"text": {"method": "forward", "method_output_name": "last_hidden_state"}})",
     kIrrelevant},
    {kSentence, "/modality_config", R"({"text": {"method": "forward", "method_output_name": "pooler_output"}})",
     kRefused},
    {kSentence, "/module_output_name", R"("token_embeddings")", kIrrelevant},
    {kSentence, "/module_output_name", R"("sentence_embedding")", kRefused},
    {kSentence, "/processing_kwargs", R"({"text": {"max_length": 3}})", kRefused},
    {kSentence, "/unpad_inputs", "true", kIrrelevant},
    {kSentence, "/backend", R"("onnx")", kRefused},
    {kSentence, "/model_args", R"({"trust_remote_code": true})", kIrrelevant},
    {kSentence, "/model_args", R"({"revision": "x"})", kRefused},
    {kSentence, "/model_kwargs", R"({"revision": "x"})", kRefused},
    {kSentence, "/tokenizer_args", R"({"do_lower_case": false})", kRefused},
    {kSentence, "/processor_kwargs", R"({"do_lower_case": false})", kRefused},
    {kSentence, "/config_args", R"({"num_hidden_layers": 1})", kRefused},
    {kSentence, "/config_kwargs", R"({"num_hidden_layers": 1})", kRefused},
    {kSentence, "/tokenizer_name_or_path", R"("other")", kRefused},
    {kSentence, "/unknown", "1", kRefused},
    {kSentenceRoberta, "/max_seq_length", "31", kIrrelevant},  // sentence_bert_config.json comes first

    {kSentenceTransformers, "/__version__", R"({"sentence_transformers": "9"})", kIrrelevant},
    {kSentenceTransformers, "/similarity_fn_name", R"("dot")", kIrrelevant},
    {kSentenceTransformers, "/prompts", R"({"query": "a ", "document": ""})", kIrrelevant},  // none is the default
    {kSentenceTransformers, "", R"({"prompts": {"query": "a "}, "default_prompt_name": "query"})", kObeyed},
    {kSentenceTransformers, "", R"({"prompts": {"query": ""}, "default_prompt_name": "query"})", kIrrelevant},
    {kSentenceTransformers, "", R"({"prompts": {"query": "a "}, "default_prompt_name": "passage"})", kRefused,
     "default_prompt_name"},
    {kSentenceTransformers, "/default_prompt_name", "null", kIrrelevant},
    {kSentenceTransformers, "/truncate_dim", "16", kObeyed},
    {kSentenceTransformers, "/truncate_dim", "64", kIrrelevant},
    {kSentenceTransformers, "/truncate_dim", "1000", kIrrelevant},  // a slice beyond the end
    {kSentenceTransformers, "/truncate_dim", "null", kIrrelevant},
    {kSentenceTransformers, "/truncate_dim", "0", kRefused},
    {kSentenceTransformers, "/truncate_dim", "-1", kRefused},
    {kSentenceTransformers, "/model_type", R"("SentenceTransformer")", kIrrelevant},
    {kSentenceTransformers, "/model_type", R"("SparseEncoder")", kRefused},
    {kSentenceTransformers, "/unknown", "1", kRefused},

    {kTokenizer, "/version", R"("1.1")", kIrrelevant},
    {kTokenizer, "/truncation", R"({"direction": "Left", "max_length": 8, "strategy": "LongestFirst", "stride": 0})",
     kObeyed},
    {kTokenizer, "/truncation", R"({"direction": "Right", "max_length": 8})", kIrrelevant},
    {kTokenizer, "/padding", R"({"strategy": {"Fixed": 128}, "pad_id": 1})", kIrrelevant},
    {kTokenizer, "/decoder", "null", kIrrelevant},
    {kTokenizer, "/unknown", "1", kRefused},
    {kTokenizer, "/added_tokens/0/lstrip", "true", kRefused},
    {kTokenizer, "/added_tokens/0/rstrip", "true", kRefused},
    {kTokenizer, "/added_tokens/0/single_word", "true", kRefused},
    {kTokenizer, "/added_tokens/0/normalized", "true", kRefused},
    {kTokenizer, "/added_tokens/0/special", "false", kIrrelevant},
    {kTokenizer, "/added_tokens/0/unknown", "1", kRefused},
    {kTokenizer, "/added_tokens/1", R"({"id": 2, "content": "[CLS]"})", kObeyed},
    {kTokenizer, "/normalizer/type", R"("Sequence")", kRefused, "\"Sequence\""},
    {kTokenizer, "/normalizer/clean_text", "false", kRefused},
    {kTokenizer, "/normalizer/lowercase", "false", kRefused, "do_lower_case"},
    {kTokenizer, "/normalizer/handle_chinese_chars", "false", kRefused, "tokenize_chinese_chars"},
    {kTokenizer, "/normalizer/strip_accents", "false", kRefused},
    {kTokenizer, "/normalizer/strip_accents", "true", kIrrelevant},  // as it is without it
    {kTokenizer, "/normalizer/unknown", "1", kRefused},
    {kTokenizer, "/pre_tokenizer/unknown", "1", kRefused},
    {kTokenizer, "/post_processor/cls", R"(["[MASK]", 4])", kObeyed},
    {kTokenizer, "/post_processor/unknown", "1", kRefused},
    {kTokenizer, "/model/type", R"("Unigram")", kRefused, "multilingual-e5"},
    {kTokenizer, "/model/unk_token", R"("[PAD]")", kObeyed},
    {kTokenizer, "/model/continuing_subword_prefix", R"("@@")", kObeyed},
    {kTokenizer, "/model/max_input_chars_per_word", "99", kObeyed},
    {kTokenizer, "/model/vocab/c", "8", kObeyed},
    {kTokenizer, "/model/unknown", "1", kRefused},

    {kTokenizerConfig, "/do_lower_case", "false", kObeyed},
    {kTokenizerConfig, "/do_lower_case", "true", kIrrelevant},
    {kTokenizerConfig, "/strip_accents", "false", kObeyed},
    {kTokenizerConfig, "/strip_accents", "null", kIrrelevant},
    {kTokenizerConfig, "/tokenize_chinese_chars", "false", kObeyed},
    {kTokenizerConfig, "/truncation_side", R"("left")", kObeyed},
    {kTokenizerConfig, "/truncation_side", R"("right")", kIrrelevant},
    {kTokenizerConfig, "/truncation_side", "3", kRefused},
    {kTokenizerConfig, "/tokenizer_class", R"("BertTokenizerFast")", kIrrelevant},
    {kTokenizerConfig, "/tokenizer_class", R"("PreTrainedTokenizerFast")", kIrrelevant},
    {kTokenizerConfig, "/tokenizer_class", R"("XLMRobertaTokenizer")", kRefused},
    {kTokenizerConfig, "/unk_token", R"("a")", kRefused},
    {kTokenizerConfig, "/cls_token", R"("a")", kRefused},
    {kTokenizerConfig, "/sep_token", R"({"content": "a"})", kRefused},
    {kTokenizerConfig, "/pad_token", R"("<new>")", kRefused},
    {kTokenizerConfig, "/pad_token", R"("[PAD]")", kObeyed},  // a literal in the text from then on
    {kTokenizerConfig, "/mask_token", R"("<new>")", kRefused},
    {kTokenizerConfig, "/mask_token", R"("[MASK]")", kIrrelevant},
    {kTokenizerConfig, "/bos_token", R"("<new>")", kRefused},
    {kTokenizerConfig, "/eos_token", R"("<new>")", kRefused},
    {kTokenizerConfig, "/additional_special_tokens", R"(["[CLS]"])", kObeyed},
    {kTokenizerConfig, "/additional_special_tokens", R"(["<new>"])", kRefused},
    {kTokenizerConfig, "/extra_special_tokens", R"({"image": "<new>"})", kRefused},
    {kTokenizerConfig, "/added_tokens_decoder", R"({"4": {"content": "[MASK]", "normalized": false}})", kIrrelevant},
    {kTokenizerConfig, "/added_tokens_decoder", R"({"8": {"content": "<new>"}})", kRefused},
    {kTokenizerConfig, "/split_special_tokens", "true", kRefused},
    {kTokenizerConfig, "/split_special_tokens", "false", kIrrelevant},
    {kTokenizerConfig, "/auto_map", R"({"AutoTokenizer": ["t.py", null]})", kRefused},
    {kTokenizerConfig, "/chat_template", R"("{{ x }}")", kRefused},
    {kTokenizerConfig, "/wordpieces_prefix", R"("@@")", kRefused},
    {kTokenizerConfig, "/do_basic_tokenize", "false", kIrrelevant},  // only without a tokenizer.json
    {kTokenizerConfig, "/never_split", R"(["a"])", kIrrelevant},     // of the slow tokenizer
    {kTokenizerConfig, "/model_max_length", "7", kIrrelevant},       // max_seq_length comes first
    {kTokenizerConfig, "/max_length", "7", kIrrelevant},
    {kTokenizerConfig, "/stride", "7", kIrrelevant},
    {kTokenizerConfig, "/truncation_strategy", R"("only_first")", kIrrelevant},
    {kTokenizerConfig, "/padding_side", R"("left")", kIrrelevant},
    {kTokenizerConfig, "/pad_to_multiple_of", "8", kIrrelevant},
    {kTokenizerConfig, "/pad_token_type_id", "1", kIrrelevant},
    {kTokenizerConfig, "/clean_up_tokenization_spaces", "true", kIrrelevant},
    {kTokenizerConfig, "/name_or_path", R"("x")", kIrrelevant},
    {kTokenizerConfig, "/unknown", "1", kIrrelevant},

    {kSpecialTokens, "/cls_token", R"("[CLS]")", kObeyed},  // a literal from then on
    {kSpecialTokens, "/mask_token", R"({"content": "[MASK]", "lstrip": false})", kIrrelevant},
    {kSpecialTokens, "/mask_token", R"({"content": "[MASK]", "lstrip": true})", kRefused, "lstrip"},
    {kSpecialTokens, "/cls_token", R"("a")", kRefused},
    {kSpecialTokens, "/additional_special_tokens", R"(["<new>"])", kRefused},
    {kAddedTokens, "/[MASK]", "4", kIrrelevant},
    {kAddedTokens, "/<new>", "8", kRefused},
    {kAdapter, "/peft_type", R"("LORA")", kRefused, "adapter"},
    {"README.md", "", R"("text")", kIrrelevant},
    {"vocab.txt", "", R"("text")", kIrrelevant},  // tokenizer.json comes first
};

// The identity of the folder, or the reason why it is refused.
Result<std::string> IdentityOf(const TinyModel& model) {
  const auto loaded = LoadModel(model.path());
  if (!loaded.ok()) return loaded.status();
  return ComputeModelIdentity(*loaded, "fp32", "cpu");
}

class FolderKeys : public ::testing::Test {
 protected:
  FolderKeys() {
    model_.Save();
    model_.directory().Write(kTokenizer, kTokenizerJson);
    model_.directory().Write(kTokenizerConfig, "{}");
    base_ = IdentityOf(model_).value();
  }

  // What is wrong with the verdict, or an empty string.
  std::string Problem(const Row& row) {
    const std::string path = model_.path() + "/" + row.file;
    std::optional<std::string> before;
    if (std::filesystem::exists(path)) {
      std::ifstream in(path);
      before.emplace(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
    }
    json contents = before.has_value() ? json::parse(*before, nullptr, false) : json::object();
    contents[json::json_pointer(row.pointer)] = json::parse(row.value);
    model_.directory().Write(row.file, contents.dump());
    const Result<std::string> identity = IdentityOf(model_);
    if (before.has_value()) {
      model_.directory().Write(row.file, *before);
    } else {
      std::filesystem::remove(path);
    }
    if (row.verdict == kRefused) {
      if (identity.ok()) return "was loaded";
      const std::string pointer = row.pointer;
      const std::string named = row.named != nullptr ? row.named : pointer.substr(pointer.rfind('/') + 1);
      const std::string& message = identity.status().message();
      return message.find(named) == std::string::npos ? "the refusal does not name " + named + ": " + message : "";
    }
    if (!identity.ok()) return identity.status().message();
    if (row.verdict == kObeyed) return *identity == base_ ? "has the same identity" : "";
    return *identity == base_ ? "" : "has another identity";
  }

  TinyModel model_;
  std::string base_;
};

TEST_F(FolderKeys, AreObeyedRefusedByNameOrWithoutInfluence) {
  for (const Row& row : kRows) EXPECT_EQ(Problem(row), "") << row.file << row.pointer << " = " << row.value;
}

TEST_F(FolderKeys, CanaryAWrongVerdictIsNoticed) {
  EXPECT_NE(Problem({kConfig, "/hidden_act", R"("gelu_new")", kIrrelevant}), "");
  EXPECT_NE(Problem({kConfig, "/unknown", "1", kObeyed}), "");
  EXPECT_NE(Problem({kConfig, "/unknown", "1", kRefused}), "");
  EXPECT_NE(Problem({kConfig, "/model_type", R"("gpt2")", kObeyed}), "");
  EXPECT_NE(Problem({kConfig, "/model_type", R"("gpt2")", kRefused, "another reason"}), "");
}

TEST_F(FolderKeys, WhiteSpaceAndTheOrderOfKeysDoNotCount) {
  for (const char* file : {kConfig, kTokenizer, kPooling, kSentence}) {
    std::ifstream in(model_.path() + "/" + file);
    model_.directory().Write(file, json::parse(in).dump(3));
  }
  EXPECT_EQ(IdentityOf(model_).value(), base_);
}

// Without a tokenizer.json, tokenizer_config.json is all there is beside the vocabulary.
TEST_F(FolderKeys, AreObeyedBesideVocabTxtToo) {
  std::filesystem::remove(model_.path() + "/" + kTokenizer);
  base_ = IdentityOf(model_).value();
  for (const Row& row :
       {Row{kTokenizerConfig, "/do_lower_case", "false", kObeyed},
        Row{kTokenizerConfig, "/strip_accents", "false", kObeyed},
        Row{kTokenizerConfig, "/tokenize_chinese_chars", "false", kObeyed},
        Row{kTokenizerConfig, "/cls_token", R"("[MASK]")", kObeyed},
        Row{kTokenizerConfig, "/do_basic_tokenize", "false", kRefused},
        Row{kTokenizerConfig, "/tokenizer_class", R"("PreTrainedTokenizerFast")", kRefused},
        Row{kAddedTokens, "/ready", "5", kRefused}, Row{kSentence, "/max_seq_length", "31", kObeyed}}) {
    EXPECT_EQ(Problem(row), "") << row.file << row.pointer << " = " << row.value;
  }
}

TEST_F(FolderKeys, LowercasingOfTheTransformerModuleCountsForACasedTokenizer) {
  model_.directory().Write(kTokenizerConfig, R"({"do_lower_case": false})");
  base_ = IdentityOf(model_).value();
  EXPECT_EQ(Problem({kSentence, "/do_lower_case", "true", kObeyed}), "");
}

}  // namespace
}  // namespace sutra
