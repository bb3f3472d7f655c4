// Parses the text of a model's tokenizer files into a WordPieceConfig.
#include "engine/tokenizer/wordpiece_config.h"

#include <algorithm>
#include <functional>
#include <unordered_map>

#include "engine/tokenizer/json_reader.h"
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

constexpr size_t kAddedTokensMax = 1024;

// Takes the entries of "model": {"vocab": {...}} out of the document while it is parsed. Made into nodes of it first,
// the 30,000 of a BERT model took 20 ms more of every start.
class VocabularyTaker {
 public:
  explicit VocabularyTaker(const std::string& name) : reader_(name, &status_) {}

  // As nlohmann's parser_callback_t: false for what does not stay in the document.
  bool operator()(int depth, Json::parse_event_t event, Json& parsed) {
    using Event = Json::parse_event_t;
    if (inside_ && depth == kEntryDepth) {
      if (event == Event::key) {
        token_ = std::move(parsed.get_ref<std::string&>());
      } else if (event != Event::object_end && event != Event::array_end) {
        entries_.emplace_back(token_, reader_.Id(parsed, token_));
      }
      return false;
    }
    if (event == Event::key && depth <= kVocabDepth) {
      const std::string& key = parsed.get_ref<const std::string&>();
      if (depth < kVocabDepth) in_model_ = key == "model";
      at_vocab_ = depth == kVocabDepth && in_model_ && key == "vocab";
    } else if (depth == kVocabDepth && event == Event::object_start) {
      inside_ = at_vocab_;
      if (inside_) entries_.clear();  // of equal keys the last counts
    } else if (depth == kVocabDepth && event == Event::object_end) {
      inside_ = false;
    }
    return true;
  }

  // The entries in the order of their tokens; of equal tokens the last counts.
  std::vector<std::pair<std::string, int32_t>> Take() {
    std::stable_sort(entries_.begin(), entries_.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    const auto last = std::unique(entries_.rbegin(), entries_.rend(),
                                  [](const auto& a, const auto& b) { return a.first == b.first; });
    entries_.erase(entries_.begin(), last.base());
    return std::move(entries_);
  }
  // Whether every id is one.
  const Status& status() const { return status_; }

 private:
  static constexpr int kVocabDepth = 2;
  static constexpr int kEntryDepth = 3;

  bool in_model_ = false;
  bool at_vocab_ = false;
  bool inside_ = false;
  std::string token_;
  std::vector<std::pair<std::string, int32_t>> entries_;
  Status status_;
  JsonReader reader_;
};

void ReadModel(const Json& model, VocabularyTaker* vocabulary, JsonReader* reader, WordPieceConfig* config) {
  // Older files leave the model's type out; only WordPiece has these two members and no merges.
  const bool untyped_word_piece = model.is_object() && !model.contains("type") && !model.contains("merges") &&
                                  model.contains("max_input_chars_per_word") &&
                                  model.contains("continuing_subword_prefix");
  if (reader->TypeOf(model) != "WordPiece" && !untyped_word_piece) {
    return reader->Fail(
        "the tokenizer model is " + Quoted(reader->TypeOf(model)) +
        "; only WordPiece is supported, the tokenizer of the English BERT models (MiniLM, bge, e5, gte, "
        "arctic). Multilingual models (multilingual-e5, bge-m3, paraphrase-multilingual) mostly use Unigram");
  }
  reader->OnlyKeys(model, {"type", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word", "vocab"},
                   "model");
  config->unk_token = reader->String(model, "unk_token", "model");
  config->continuing_prefix = reader->String(model, "continuing_subword_prefix", "model");
  const Json& chars_max = reader->Member(model, "max_input_chars_per_word");
  if (!chars_max.is_number_unsigned() || chars_max.get<uint64_t>() < 1 ||
      chars_max.get<uint64_t>() > WordPieceTokenizer::kWordCharsLimit) {
    return reader->Fail("max_input_chars_per_word is not a number from 1 to " +
                        std::to_string(WordPieceTokenizer::kWordCharsLimit));
  }
  config->word_chars_max = static_cast<uint32_t>(chars_max.get<uint64_t>());
  if (!reader->Member(model, "vocab").is_object()) {
    return reader->Fail("the model's vocab is not an object of token: id");
  }
  config->vocabulary = vocabulary->Take();
}

void ReadNormalizer(const Json& normalizer, const Json& pre_tokenizer, JsonReader* reader, WordPieceConfig* config) {
  if (reader->TypeOf(normalizer) != "BertNormalizer" || reader->TypeOf(pre_tokenizer) != "BertPreTokenizer") {
    return reader->Fail("normalizer " + Quoted(reader->TypeOf(normalizer)) + " and pre-tokenizer " +
                        Quoted(reader->TypeOf(pre_tokenizer)) +
                        " found; only BertNormalizer with BertPreTokenizer is supported");
  }
  reader->OnlyKeys(normalizer, {"type", "clean_text", "handle_chinese_chars", "strip_accents", "lowercase"},
                   "normalizer");
  reader->OnlyKeys(pre_tokenizer, {"type"}, "pre-tokenizer");
  config->clean_text = reader->Bool(normalizer, "clean_text", "normalizer");
  config->handle_chinese_chars = reader->Bool(normalizer, "handle_chinese_chars", "normalizer");
  config->lowercase = reader->Bool(normalizer, "lowercase", "normalizer");
  config->strip_accents = reader->OptionalBool(normalizer, "strip_accents", config->lowercase, "normalizer");
  config->strip_accents_follows_lowercase = reader->Member(normalizer, "strip_accents").is_null();
}

void ReadAddedTokens(const Json& added_tokens, JsonReader* reader, WordPieceConfig* config) {
  if (added_tokens.is_null()) return;
  if (!added_tokens.is_array() || added_tokens.size() > kAddedTokensMax) {
    return reader->Fail("added_tokens is not a list of at most " + std::to_string(kAddedTokensMax) + " tokens");
  }
  for (const Json& token : added_tokens) {
    AddedToken added{reader->String(token, "content", "an added token"), 0};
    added.id = reader->Id(reader->Member(token, "id"), added.content);
    ReadLiteralFlags(token, added.content, reader);
    if (!reader->ok()) return;
    if (!added.content.empty()) config->added_tokens.push_back(std::move(added));
  }
}

// [CLS] and [SEP], from either of the two post-processors that BERT models use.
void ReadPostProcessor(const Json& processor, JsonReader* reader, WordPieceConfig* config) {
  const std::string type = reader->TypeOf(processor);
  if (type == "BertProcessing") {
    reader->OnlyKeys(processor, {"type", "sep", "cls"}, "the post-processor");
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
  reader->OnlyKeys(processor, {"type", "single", "pair", "special_tokens"}, "the post-processor");
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
  VocabularyTaker vocabulary(name);
  Result<Json> document = ParseTokenizerJson(text, name, std::ref(vocabulary));
  if (!document.ok()) return document.status();
  WordPieceConfig config;
  Status status;
  JsonReader reader(name, &status);
  reader.OnlyKeys(*document,
                  {"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor",
                   "decoder", "model"},
                  "the file");
  ReadModel(reader.Member(*document, "model"), &vocabulary, &reader, &config);
  if (status.ok()) status = vocabulary.status();
  if (status.ok()) {
    ReadNormalizer(reader.Member(*document, "normalizer"), reader.Member(*document, "pre_tokenizer"), &reader, &config);
  }
  if (status.ok()) ReadAddedTokens(reader.Member(*document, "added_tokens"), &reader, &config);
  if (status.ok()) ReadPostProcessor(reader.Member(*document, "post_processor"), &reader, &config);
  // How many tokens a text may have is not decided here, but from which side they are cut is.
  const Json& truncation = reader.Member(*document, "truncation");
  config.truncate_left = reader.Member(truncation, "direction") == "Left";
  if (!status.ok()) return status;
  return config;
}

Result<WordPieceConfig> ConfigFromVocabTxt(std::string_view text, const std::string& name) {
  auto vocabulary = ParseVocabTxt(text, name);
  if (!vocabulary.ok()) return vocabulary.status();
  WordPieceConfig config;
  config.vocabulary.assign(vocabulary->begin(), vocabulary->end());
  config.strip_accents_follows_lowercase = true;
  return config;
}

}  // namespace sutra
