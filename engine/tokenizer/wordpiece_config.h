// Internal to the tokenizer: parses the text of its files into a WordPieceConfig, and words the errors about them.
//
// A tokenizer that would need rules we do not implement is refused, because nearly correct ids would silently give
// wrong vectors. These functions may throw std::bad_alloc or a JSON library exception; wordpiece_load.cc catches them.
#pragma once

#include <string>
#include <string_view>

#include "engine/tokenizer/wordpiece.h"
#include "shm/base/status.h"

namespace sutra {

inline constexpr size_t kTokenBytesMax = 4096;

// kModelError: "name: what".
Status BadFile(const std::string& name, const std::string& what);

// A value found in a file, for messages: shortened, with bytes that could upset a terminal replaced.
std::string Quoted(std::string_view found);

Result<WordPieceConfig> ConfigFromTokenizerJson(std::string_view text, const std::string& name);
// Only the vocabulary; the special tokens are left to ApplySettings.
Result<WordPieceConfig> ConfigFromVocabTxt(std::string_view text, const std::string& name);

}  // namespace sutra
