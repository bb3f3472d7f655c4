// Internal to the tokenizer: checked access to the JSON of its files. Each accessor reports the first problem into
// `status` and returns something harmless.
// Thread rule: one thread at a time.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "engine/tokenizer/vocab_trie.h"
#include "engine/tokenizer/wordpiece_config.h"

namespace sutra {

using Json = nlohmann::json;

class JsonReader {
 public:
  JsonReader(std::string name, Status* status) : name_(std::move(name)), status_(status) {}

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

  // A setting that is not in `known` could mean anything.
  void OnlyKeys(const Json& object, std::initializer_list<std::string_view> known, const char* what) {
    if (!object.is_object()) return;
    for (const auto& [key, value] : object.items()) {
      if (std::find(known.begin(), known.end(), key) != known.end()) continue;
      Fail(std::string(what) + " has the setting " + Quoted(key) + ", which is not known here");
    }
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

// A literal is found as it stands; rules about its surroundings are not implemented.
inline void ReadLiteralFlags(const Json& token, const std::string& content, JsonReader* reader) {
  reader->OnlyKeys(token, {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"},
                   "an added token");
  for (const char* option : {"single_word", "lstrip", "rstrip", "normalized"}) {
    if (!reader->OptionalBool(token, option, false, "an added token")) continue;
    reader->Fail("the added token " + Quoted(content) + " has \"" + option + "\": true, which is not supported");
  }
}

// `watch` sees every part of the document and decides what stays in it; none: everything.
inline Result<Json> ParseTokenizerJson(std::string_view text, const std::string& name,
                                       const Json::parser_callback_t& watch = nullptr) {
  Json document = Json::parse(text, watch, false);
  if (document.is_discarded()) return BadFile(name, "is not valid JSON; it is cut or damaged, fetch the model again");
  if (!document.is_object()) return BadFile(name, "is JSON, but not an object");
  return document;
}

}  // namespace sutra
