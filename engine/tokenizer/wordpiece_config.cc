// Parses the text of a model's tokenizer files into a WordPieceConfig.
#include "engine/tokenizer/wordpiece_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "engine/tokenizer/unicode_data.h"
#include "shm/base/printable.h"
#include "shm/base/utf8.h"

namespace sutra {

Status BadFile(const std::string& name, const std::string& what) {
  return Status(StatusCode::kModelError, name + ": " + what);
}

std::string Quoted(std::string_view found) {
  return "\"" + Printable(found.substr(0, 60), HighBytes::kReplace) + (found.size() > 60 ? "...\"" : "\"");
}

namespace {

using Json = nlohmann::json;

constexpr size_t kAddedTokensMax = 1024;

// --- Checked access to JSON. Each accessor reports the first problem into `status` and returns something harmless. ---

class Reader {
 public:
  Reader(std::string name, Status* status) : name_(std::move(name)), status_(status) {}

  bool ok() const { return status_->ok(); }
  void Fail(const std::string& what) {
    if (status_->ok()) *status_ = BadFile(name_, what);
  }

  const Json& Member(const Json& object, const char* key) {
    static const Json kNull;
    if (object.is_object()) {
      if (const auto found = object.find(key); found != object.end()) return *found;
    }
    return kNull;
  }

  // The "type" of a component, for comparison and for messages: "none" for null, "untyped" for one without.
  std::string TypeOf(const Json& component) {
    if (component.is_null()) return "none";
    const Json& type = Member(component, "type");
    return type.is_string() ? type.get<std::string>() : "untyped";
  }

  std::string String(const Json& object, const char* key, const char* what) {
    const Json& value = Member(object, key);
    if (value.is_string() && value.get_ref<const std::string&>().size() <= kTokenBytesMax) {
      return value.get<std::string>();
    }
    Fail(std::string(what) + " lacks the string \"" + key + "\"");
    return "";
  }

  bool Bool(const Json& object, const char* key, const char* what) {
    const Json& value = Member(object, key);
    if (!value.is_boolean()) Fail(std::string(what) + " lacks true or false for \"" + key + "\"");
    return value.is_boolean() && value.get<bool>();
  }

  // true, false or null (or absent): null takes `otherwise`.
  bool OptionalBool(const Json& object, const char* key, bool otherwise, const char* what) {
    const Json& value = Member(object, key);
    if (value.is_null()) return otherwise;
    if (!value.is_boolean()) Fail(std::string(what) + " has \"" + key + "\" that is neither true, false nor null");
    return value.is_boolean() ? value.get<bool>() : otherwise;
  }

  int32_t Id(const Json& value, const std::string& of) {
    if (value.is_number_unsigned() && value.get<uint64_t>() <= static_cast<uint64_t>(VocabTrie::kIdMax)) {
      return static_cast<int32_t>(value.get<uint64_t>());
    }
    Fail("the id of " + Quoted(of) + " is not a whole number from 0 to " + std::to_string(VocabTrie::kIdMax));
    return 0;
  }

 private:
  std::string name_;
  Status* status_;
};

void ReadModel(const Json& model, Reader* reader, WordPieceConfig* config) {
  // Older files leave the model's type out; only WordPiece has these two members and no merges.
  const bool untyped_word_piece = model.is_object() && !model.contains("type") && !model.contains("merges") &&
                                  model.contains("max_input_chars_per_word") &&
                                  model.contains("continuing_subword_prefix");
  if (reader->TypeOf(model) != "WordPiece" && !untyped_word_piece) {
    return reader->Fail("the tokenizer model is " + Quoted(reader->TypeOf(model)) +
                        "; only WordPiece is supported (BERT, MiniLM, bge, e5, gte, nomic)");
  }
  config->unk_token = reader->String(model, "unk_token", "model");
  config->continuing_prefix = reader->String(model, "continuing_subword_prefix", "model");
  const Json& chars_max = reader->Member(model, "max_input_chars_per_word");
  if (!chars_max.is_number_unsigned() || chars_max.get<uint64_t>() < 1 ||
      chars_max.get<uint64_t>() > WordPieceTokenizer::kWordCharsLimit) {
    return reader->Fail("max_input_chars_per_word is not a number from 1 to " +
                        std::to_string(WordPieceTokenizer::kWordCharsLimit));
  }
  config->word_chars_max = static_cast<uint32_t>(chars_max.get<uint64_t>());
  const Json& vocabulary = reader->Member(model, "vocab");
  if (!vocabulary.is_object()) return reader->Fail("the model's vocab is not an object of token: id");
  config->vocabulary.reserve(vocabulary.size());
  for (const auto& [token, id] : vocabulary.items()) config->vocabulary.emplace_back(token, reader->Id(id, token));
}

void ReadNormalizer(const Json& normalizer, const Json& pre_tokenizer, Reader* reader, WordPieceConfig* config) {
  if (reader->TypeOf(normalizer) != "BertNormalizer" || reader->TypeOf(pre_tokenizer) != "BertPreTokenizer") {
    return reader->Fail("normalizer " + Quoted(reader->TypeOf(normalizer)) + " and pre-tokenizer " +
                        Quoted(reader->TypeOf(pre_tokenizer)) +
                        " found; only BertNormalizer with BertPreTokenizer is supported");
  }
  config->clean_text = reader->Bool(normalizer, "clean_text", "normalizer");
  config->handle_chinese_chars = reader->Bool(normalizer, "handle_chinese_chars", "normalizer");
  config->lowercase = reader->Bool(normalizer, "lowercase", "normalizer");
  config->strip_accents = reader->OptionalBool(normalizer, "strip_accents", config->lowercase, "normalizer");
}

void ReadAddedTokens(const Json& added_tokens, Reader* reader, WordPieceConfig* config) {
  if (added_tokens.is_null()) return;
  if (!added_tokens.is_array() || added_tokens.size() > kAddedTokensMax) {
    return reader->Fail("added_tokens is not a list of at most " + std::to_string(kAddedTokensMax) + " tokens");
  }
  for (const Json& token : added_tokens) {
    AddedToken added{reader->String(token, "content", "an added token"), 0};
    added.id = reader->Id(reader->Member(token, "id"), added.content);
    for (const char* option : {"single_word", "lstrip", "rstrip", "normalized"}) {
      if (!reader->OptionalBool(token, option, false, "an added token")) continue;
      reader->Fail("the added token " + Quoted(added.content) + " has \"" + option +
                   "\": true, which is not supported");
    }
    if (!reader->ok()) return;
    if (!added.content.empty()) config->added_tokens.push_back(std::move(added));
  }
}

// [CLS] and [SEP], from either of the two post-processors that BERT models use.
void ReadPostProcessor(const Json& processor, Reader* reader, WordPieceConfig* config) {
  const std::string type = reader->TypeOf(processor);
  if (type == "BertProcessing") {
    const auto id_of = [&](const char* key) {
      const Json& pair = reader->Member(processor, key);
      const bool valid = pair.is_array() && pair.size() == 2 && pair[0].is_string();
      if (!valid) reader->Fail(std::string("the post-processor lacks the pair [token, id] for \"") + key + "\"");
      return valid ? reader->Id(pair[1], pair[0].get<std::string>()) : 0;
    };
    config->cls_id = id_of("cls");
    config->sep_id = id_of("sep");
    return;
  }
  if (type != "TemplateProcessing") {
    return reader->Fail("the post-processor is " + Quoted(type) +
                        "; only TemplateProcessing and BertProcessing are supported");
  }
  const Json& single = reader->Member(processor, "single");
  const auto id_of = [&](size_t place) {
    const std::string token = reader->String(reader->Member(single[place], "SpecialToken"), "id", "the post-processor");
    const Json& ids = reader->Member(reader->Member(reader->Member(processor, "special_tokens"), token.c_str()), "ids");
    if (ids.is_array() && ids.size() == 1) return reader->Id(ids[0], token);
    reader->Fail("the post-processor's special token " + Quoted(token) + " does not stand for exactly one id");
    return 0;
  };
  if (!single.is_array() || single.size() != 3 || !reader->Member(single[1], "Sequence").is_object()) {
    return reader->Fail("the post-processor's template for one text is not [CLS] text [SEP]");
  }
  config->cls_id = id_of(0);
  config->sep_id = id_of(2);
}

Result<Json> ParseJson(std::string_view text, const std::string& name) {
  Json document = Json::parse(text, nullptr, false);
  if (document.is_discarded()) return BadFile(name, "is not valid JSON; it is cut or damaged, fetch the model again");
  if (!document.is_object()) return BadFile(name, "is JSON, but not an object");
  return document;
}

// Lines are trimmed on the right by Unicode white space, and of equal ones the last counts, as the library does.
Result<std::unordered_map<std::string, int32_t>> ParseVocabTxt(std::string_view text, const std::string& name) {
  if (!IsValidUtf8(text)) return BadFile(name, "is not valid UTF-8; it is damaged, fetch the model again");
  const UnicodeData& unicode = UnicodeData::Instance();
  std::unordered_map<std::string, int32_t> vocabulary;
  int32_t id = 0;
  while (!text.empty()) {
    const size_t newline = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, newline);
    text.remove_prefix(std::min(newline + 1, text.size()));
    size_t kept = 0;
    const char* const end = line.data() + line.size();
    for (const char* cursor = line.data(); cursor < end;) {
      if (!(unicode.Class(DecodeUtf8(&cursor, end)).flags & kWhite)) kept = static_cast<size_t>(cursor - line.data());
    }
    if (id > VocabTrie::kIdMax) return BadFile(name, "has too many lines");
    vocabulary[std::string(line.substr(0, kept))] = id++;
  }
  return vocabulary;
}

}  // namespace

Result<WordPieceConfig> ConfigFromTokenizerJson(std::string_view text, const std::string& name) {
  Result<Json> document = ParseJson(text, name);
  if (!document.ok()) return document.status();
  WordPieceConfig config;
  Status status;
  Reader reader(name, &status);
  ReadModel(reader.Member(*document, "model"), &reader, &config);
  if (status.ok()) {
    ReadNormalizer(reader.Member(*document, "normalizer"), reader.Member(*document, "pre_tokenizer"), &reader, &config);
  }
  if (status.ok()) ReadAddedTokens(reader.Member(*document, "added_tokens"), &reader, &config);
  if (status.ok()) ReadPostProcessor(reader.Member(*document, "post_processor"), &reader, &config);
  if (!status.ok()) return status;
  return config;
}

Result<WordPieceConfig> ConfigFromVocabTxt(std::string_view vocab_text, const std::string& vocab_name,
                                           std::string_view settings_text, const std::string& settings_name) {
  Result<Json> settings = ParseJson(settings_text, settings_name);
  if (!settings.ok()) return settings.status();
  auto vocabulary = ParseVocabTxt(vocab_text, vocab_name);
  if (!vocabulary.ok()) return vocabulary.status();
  WordPieceConfig config;
  Status status;
  Reader reader(settings_name, &status);
  const Json& tokenizer_class = reader.Member(*settings, "tokenizer_class");
  const std::string class_name = tokenizer_class.is_string() ? tokenizer_class.get<std::string>() : "";
  if (!class_name.empty() && class_name != "BertTokenizer" && class_name != "BertTokenizerFast" &&
      class_name != "DistilBertTokenizer" && class_name != "DistilBertTokenizerFast") {
    return BadFile(settings_name, "tokenizer_class " + Quoted(class_name) +
                                      " found; without a tokenizer.json only BertTokenizer is supported");
  }
  config.lowercase = reader.OptionalBool(*settings, "do_lower_case", true, "the file");
  config.strip_accents = reader.OptionalBool(*settings, "strip_accents", config.lowercase, "the file");
  config.handle_chinese_chars = reader.OptionalBool(*settings, "tokenize_chinese_chars", true, "the file");
  for (const auto& [key, usual] :
       {std::pair("unk_token", "[UNK]"), std::pair("cls_token", "[CLS]"), std::pair("sep_token", "[SEP]"),
        std::pair("pad_token", "[PAD]"), std::pair("mask_token", "[MASK]")}) {
    const Json& value = reader.Member(*settings, key);
    const std::string content = value.is_string()   ? value.get<std::string>()
                                : value.is_object() ? reader.String(value, "content", key)
                                                    : std::string(usual);
    const auto found = vocabulary->find(content);
    if (found == vocabulary->end()) {
      return BadFile(vocab_name, "lacks " + Quoted(content) + ", the " + key + " of " + settings_name);
    }
    config.added_tokens.push_back({content, found->second});
    if (key == std::string_view("unk_token")) config.unk_token = content;
    if (key == std::string_view("cls_token")) config.cls_id = found->second;
    if (key == std::string_view("sep_token")) config.sep_id = found->second;
  }
  if (!status.ok()) return status;
  config.vocabulary.assign(vocabulary->begin(), vocabulary->end());
  return config;
}

}  // namespace sutra
