// Shared by the tokenizer's tests: a hand-made vocabulary, the hash of make_fixtures.py, fixtures and the location of
// the model.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/wordpiece.h"
#include "shm/base/utf8.h"
#include "tests/kit/seed.h"

namespace sutra {

using test::TestSeed;

// One 32-bit id per step; a text's count of ids comes first (make_fixtures.py, hash_ids).
inline constexpr uint64_t kHashStart = 0xCBF29CE484222325u;
inline uint64_t HashStep(uint64_t hash, uint64_t value) { return (hash ^ value) * 0x100000001B3u; }
inline uint64_t HashIds(const std::vector<int32_t>& ids, uint64_t hash = kHashStart) {
  hash = HashStep(hash, ids.size());
  for (const int32_t id : ids) hash = HashStep(hash, static_cast<uint32_t>(id));
  return hash;
}

inline bool IsScalar(uint32_t code_point) { return code_point < 0xD800 || code_point >= 0xE000; }

inline std::string Utf8(char32_t code_point) {
  char bytes[4];
  return std::string(bytes, EncodeUtf8(code_point, bytes));
}

inline constexpr uint32_t kNoLimit = 1u << 30;

inline std::vector<int32_t> Ids(const Tokenizer& tokenizer, std::string_view text, uint32_t tokens_max = kNoLimit) {
  std::vector<int32_t> ids;
  tokenizer.Encode(text, tokens_max, &ids);
  return ids;
}

// "" if there is no such file.
inline std::string FileBytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

inline std::string FixturePath(const std::string& name) { return std::string(SUTRA_TOKENIZER_FIXTURES) + "/" + name; }

// A small uncased tokenizer.json. Ids: specials 0-4, then the words in the order below.
inline std::string SmallTokenizerJson() {
  const char* words[] = {"un",   "##aff", "##able", "hello", "world", "##s", "a",   "##a", "b",   "##b", "e",  "##e",
                         "the",  "!",     ",",      "[",     "]",     "#",   "<",   "i",   "##i", "中",  "国", "ᄀ",
                         "##ᅡ", "##ᆨ",  "sep",    "x",     "##x",   "я",   "##я", "ß",   "σ",   "##σ"};
  std::string vocabulary = R"("[PAD]":0,"[UNK]":1,"[CLS]":2,"[SEP]":3,"[MASK]":4)";
  int id = 5;
  for (const char* word : words) vocabulary += ",\"" + std::string(word) + "\":" + std::to_string(id++);
  std::string added;
  const char* specials[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
  for (int special = 0; special < 5; ++special) {
    added += (special > 0 ? "," : "") + (R"({"id":)" + std::to_string(special)) + R"(,"content":")" +
             specials[special] +
             R"(","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true})";
  }
  return R"({"version":"1.0","truncation":{"max_length":3},"padding":{"strategy":{"Fixed":128}},)"
         R"("added_tokens":[)" +
         added +
         R"(],"normalizer":{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,)"
         R"("strip_accents":null,"lowercase":true},"pre_tokenizer":{"type":"BertPreTokenizer"},)"
         R"("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"[CLS]","type_id":0}},)"
         R"({"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"[SEP]","type_id":0}}],"pair":[],)"
         R"("special_tokens":{"[CLS]":{"id":"[CLS]","ids":[2],"tokens":["[CLS]"]},)"
         R"("[SEP]":{"id":"[SEP]","ids":[3],"tokens":["[SEP]"]}}},"decoder":null,)"
         R"("model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##",)"
         R"("max_input_chars_per_word":100,"vocab":{)" +
         vocabulary + "}}}";
}

inline std::string Replaced(std::string text, std::string_view from, std::string_view to) {
  const size_t at = text.find(from);
  if (at == std::string::npos) {
    std::cerr << "test bug: " << from << " not found\n";
    std::abort();
  }
  return text.replace(at, from.size(), to);
}

}  // namespace sutra
