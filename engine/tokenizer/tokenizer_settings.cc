// Applies the settings of a folder to a WordPieceConfig.
#include "engine/tokenizer/tokenizer_settings.h"

#include <algorithm>
#include <optional>

#include "engine/tokenizer/json_reader.h"

namespace sutra {
namespace {

constexpr std::string_view kBertClasses[] = {"BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer",
                                             "DistilBertTokenizerFast"};
// These take tokenizer.json as it stands.
constexpr std::string_view kPlainClasses[] = {"PreTrainedTokenizerFast", "TokenizersBackend"};

// Settings that change ids in a way that is not implemented, unless they have the harmless value or are null.
struct Refused {
  const char* key;
  const char* harmless;  // as JSON, or null if only null is
};
constexpr Refused kRefused[] = {{"auto_map", nullptr},              // the folder's own code
                                {"chat_template", nullptr},         // texts become messages
                                {"split_special_tokens", "false"},  // literals in a text are split
                                {"wordpieces_prefix", "\"##\""}};

Result<Json> ParseIfThere(const std::optional<std::string>& text, const std::string& name) {
  if (!text.has_value()) return Json();
  return ParseTokenizerJson(*text, name);
}

class Settings {
 public:
  Settings(const TokenizerFiles& files, WordPieceConfig* config)
      : has_json_(files.tokenizer_json.has_value()),
        vocabulary_name_(files.directory + (has_json_ ? "/tokenizer.json" : "/vocab.txt")),
        settings_name_(files.directory + "/tokenizer_config.json"),
        reader_(settings_name_, &status_),
        config_(config) {}

  Status Apply(const TokenizerFiles& files) {
    const std::string map_name = files.directory + "/special_tokens_map.json";
    const std::string added_name = files.directory + "/added_tokens.json";
    Result<Json> settings = ParseIfThere(files.tokenizer_config, settings_name_);
    if (!settings.ok()) return settings.status();
    Result<Json> map = ParseIfThere(files.special_tokens_map, map_name);
    if (!map.ok()) return map.status();
    Result<Json> added = ParseIfThere(files.added_tokens, added_name);
    if (!added.ok()) return added.status();

    for (const Refused& refused : kRefused) {
      const Json& value = reader_.Member(*settings, refused.key);
      if (value.is_null() || (refused.harmless != nullptr && value.dump() == refused.harmless)) continue;
      reader_.Fail("\"" + std::string(refused.key) + "\" is set, which is not supported");
    }
    if (ReadClass(*settings)) ReadNormalizer(*settings);
    ReadTruncation(*settings);
    ReadSpecialTokens(*settings, *map);
    ReadDecoder(*settings);
    ReadAddedTokens(*added, added_name);
    if (status_.ok() && files.lowercase_text) config_->lowercase = true;
    return status_;
  }

 private:
  // Whether the class is one that sets the normalizer up by its own settings.
  bool ReadClass(const Json& settings) {
    const Json& named = reader_.Member(settings, "tokenizer_class");
    const std::string name = named.is_string() ? named.get<std::string>() : "BertTokenizer";
    if (std::find(std::begin(kBertClasses), std::end(kBertClasses), name) != std::end(kBertClasses)) return true;
    if (std::find(std::begin(kPlainClasses), std::end(kPlainClasses), name) == std::end(kPlainClasses)) {
      reader_.Fail(
          "tokenizer_class " + Quoted(name) +
          " found; only BertTokenizer (or PreTrainedTokenizerFast with a WordPiece tokenizer.json) is supported");
    } else if (!has_json_) {
      reader_.Fail("tokenizer_class " + Quoted(name) +
                   " found; without a tokenizer.json only BertTokenizer is supported");
    }
    return false;
  }

  // A setting that is absent has a usual value in that class, which also wins over tokenizer.json. Where the two
  // differ, the folder does not say what its author meant.
  void ReadFlag(const Json& settings, const char* key, bool usual, bool* value) {
    const bool said = !reader_.Member(settings, key).is_null();
    if (said) {
      *value = reader_.OptionalBool(settings, key, usual, "the file");
    } else if (*value != usual) {
      reader_.Fail("lacks \"" + std::string(key) + "\", for which transformers takes " + (usual ? "true" : "false") +
                   ", but tokenizer.json says " + (*value ? "true" : "false") +
                   "; write the value that the model was trained with into this file");
    }
  }

  void ReadNormalizer(const Json& settings) {
    if (!config_->clean_text) {
      reader_.Fail(
          "tokenizer.json has \"clean_text\": false, which the versions of BertTokenizer treat differently; with "
          "\"tokenizer_class\": \"PreTrainedTokenizerFast\" in this file it is obeyed");
    }
    ReadFlag(settings, "do_lower_case", true, &config_->lowercase);
    ReadFlag(settings, "tokenize_chinese_chars", true, &config_->handle_chinese_chars);
    if (config_->strip_accents_follows_lowercase) config_->strip_accents = config_->lowercase;
    ReadFlag(settings, "strip_accents", config_->lowercase, &config_->strip_accents);
    if (!has_json_ && !reader_.OptionalBool(settings, "do_basic_tokenize", true, "the file")) {
      reader_.Fail("\"do_basic_tokenize\": false is not supported");
    }
  }

  void ReadTruncation(const Json& settings) {
    const Json& side = reader_.Member(settings, "truncation_side");
    if (side.is_null()) return;
    if (side != "left" && side != "right") reader_.Fail("\"truncation_side\" is neither \"left\" nor \"right\"");
    config_->truncate_left = side == "left";
  }

  // The content of a token that is given as a string or as an object; empty for null.
  std::string Content(const Json& token, const char* what) {
    if (token.is_null()) return "";
    if (token.is_string()) return token.get<std::string>();
    const std::string content = reader_.String(token, "content", what);
    if (token.is_object()) {
      Json flags = token;
      flags.erase("__type");  // older versions of transformers
      ReadLiteralFlags(flags, content, &reader_);
    }
    return content;
  }

  std::optional<int32_t> Find(const std::string& content) const {
    const auto added = std::find_if(config_->added_tokens.begin(), config_->added_tokens.end(),
                                    [&](const AddedToken& token) { return token.content == content; });
    if (added != config_->added_tokens.end()) return added->id;
    const auto word = std::find_if(config_->vocabulary.begin(), config_->vocabulary.end(),
                                   [&](const auto& entry) { return entry.first == content; });
    return word == config_->vocabulary.end() ? std::nullopt : std::optional(word->second);
  }

  // A special token is a literal in the text too. One that the vocabulary lacks would get a new id, beyond the model's.
  std::optional<int32_t> AddLiteral(const std::string& content, const std::string& key) {
    const std::optional<int32_t> id = Find(content);
    if (!id.has_value()) {
      if (status_.ok()) {
        status_ = BadFile(vocabulary_name_, "lacks " + Quoted(content) + ", the " + key + " of " + settings_name_);
      }
      return std::nullopt;
    }
    const bool known = std::any_of(config_->added_tokens.begin(), config_->added_tokens.end(),
                                   [&](const AddedToken& token) { return token.content == content; });
    if (!known) config_->added_tokens.push_back({content, *id});
    return id;
  }

  void ReadSpecialTokens(const Json& settings, const Json& map) {
    struct Special {
      const char* key;
      const char* usual;
    };
    for (const Special& special :
         {Special{"unk_token", "[UNK]"}, Special{"cls_token", "[CLS]"}, Special{"sep_token", "[SEP]"},
          Special{"pad_token", "[PAD]"}, Special{"mask_token", "[MASK]"}, Special{"bos_token", ""},
          Special{"eos_token", ""}}) {
      const std::string in_settings = Content(reader_.Member(settings, special.key), special.key);
      const std::string in_map = Content(reader_.Member(map, special.key), special.key);
      if (!in_settings.empty() && !in_map.empty() && in_settings != in_map) {
        reader_.Fail("the " + std::string(special.key) + " is " + Quoted(in_settings) +
                     ", but special_tokens_map.json says " + Quoted(in_map));
      }
      std::string content = in_settings.empty() ? in_map : in_settings;
      if (content.empty() && !has_json_) content = special.usual;
      if (content.empty()) continue;
      if (const std::optional<int32_t> id = AddLiteral(content, special.key); id.has_value()) {
        Assign(special.key, content, *id);
      }
    }
    for (const Json* file : {&settings, &map}) {
      for (const char* key : {"additional_special_tokens", "extra_special_tokens"}) {
        const Json& list = reader_.Member(*file, key);
        if (!list.is_null() && !list.is_structured()) reader_.Fail("\"" + std::string(key) + "\" is not a list");
        for (const Json& token : list) {
          if (const std::string content = Content(token, key); !content.empty()) AddLiteral(content, key);
        }
      }
    }
  }

  // From vocab.txt the roles come from here; tokenizer.json has given them out already.
  void Assign(std::string_view key, const std::string& content, int32_t id) {
    const auto assign = [&](int32_t* role) {
      if (has_json_ && *role != id) {
        reader_.Fail("the " + std::string(key) + " is " + Quoted(content) + ", but tokenizer.json uses another token");
      }
      *role = id;
    };
    if (key == "cls_token") assign(&config_->cls_id);
    if (key == "sep_token") assign(&config_->sep_id);
    if (key != "unk_token") return;
    if (has_json_ && config_->unk_token != content) {
      reader_.Fail("the unk_token is " + Quoted(content) + ", but tokenizer.json uses " + Quoted(config_->unk_token));
    }
    config_->unk_token = content;
  }

  // added_tokens_decoder: id to token.
  void ReadDecoder(const Json& settings) {
    const Json& decoder = reader_.Member(settings, "added_tokens_decoder");
    if (!decoder.is_null() && !decoder.is_object()) reader_.Fail("\"added_tokens_decoder\" is not an object");
    if (!decoder.is_object()) return;
    for (const auto& [id, token] : decoder.items()) {
      const std::string content = Content(token, "added_tokens_decoder");
      if (!reader_.ok()) return;
      const std::optional<int32_t> found = AddLiteral(content, "added_tokens_decoder");
      if (found.has_value() && std::to_string(*found) != id) {
        reader_.Fail("added_tokens_decoder gives " + Quoted(content) + " the id " + Quoted(id) + ", but it is " +
                     std::to_string(*found));
      }
    }
  }

  // added_tokens.json: token to id. It cannot say how a token is found in a text, so tokenizer.json has to.
  void ReadAddedTokens(const Json& added, const std::string& name) {
    if (!added.is_object()) return;
    for (const auto& [content, id] : added.items()) {
      const bool same = std::any_of(
          config_->added_tokens.begin(), config_->added_tokens.end(),
          [&, token_id = &id](const AddedToken& token) { return token.content == content && *token_id == token.id; });
      if (same || !status_.ok()) continue;
      status_ =
          BadFile(name, "adds " + Quoted(content) + ", which the tokenizer does not know as an added token of that id");
    }
  }

  const bool has_json_;
  const std::string vocabulary_name_;
  const std::string settings_name_;
  Status status_;
  JsonReader reader_;
  WordPieceConfig* const config_;
};

}  // namespace

Status ApplySettings(const TokenizerFiles& files, WordPieceConfig* config) {
  return Settings(files, config).Apply(files);
}

}  // namespace sutra
