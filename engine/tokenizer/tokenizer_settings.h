// Internal to the tokenizer: what tokenizer_config.json, special_tokens_map.json and added_tokens.json say beside
// tokenizer.json or vocab.txt. The rules are those of the class that the folder names, which for BERT models is
// BertTokenizer of transformers: its own settings win over those in tokenizer.json.
//
// Every setting is obeyed, refused by name or without influence on the ids; tests/engine/model/folder_keys_test.cc has
// the table. May throw std::bad_alloc or a JSON library exception, as wordpiece_config.h.
#pragma once

#include "engine/tokenizer/tokenizer_files.h"
#include "engine/tokenizer/wordpiece.h"
#include "shm/base/status.h"

namespace sutra {

// REQUIRES: `config` comes from files.tokenizer_json or, where there is none, from files.vocab_txt.
Status ApplySettings(const TokenizerFiles& files, WordPieceConfig* config);

}  // namespace sutra
