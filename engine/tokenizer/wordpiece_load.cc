// Loading: has the files of a model directory parsed (wordpiece_config.h, tokenizer_settings.h), checks the result and
// builds the tables that Encode uses.
//
// The files are untrusted. Whatever they hold, the result is a tokenizer or a Status: sizes are bounded before anything
// is allocated for them, and the JSON library's exceptions are caught here.
#include <algorithm>
#include <exception>

#include "engine/tokenizer/tokenizer_files.h"
#include "engine/tokenizer/tokenizer_settings.h"
#include "engine/tokenizer/wordpiece.h"
#include "engine/tokenizer/wordpiece_config.h"
#include "shm/base/sha256.h"
#include "shm/base/utf8.h"

namespace sutra {
namespace {

bool IsAsciiPunctuation(char byte) {
  return (byte >= 33 && byte <= 47) || (byte >= 58 && byte <= 64) || (byte >= 91 && byte <= 96) ||
         (byte >= 123 && byte <= 126);
}

// Whether a normalized word can contain this at all: punctuation is always a word of its own, white space is removed.
bool CanOccurInWord(std::string_view token) {
  return token.size() == 1 || std::none_of(token.begin(), token.end(), [](char byte) {
           return IsAsciiPunctuation(byte) || byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
         });
}

// "7:content": unambiguous whatever the content is.
std::string Counted(std::string_view text) { return std::to_string(text.size()) + ":" + std::string(text); }

// SHA-256 over the tokens in the order of their ids.
Result<std::string> VocabularyDigest(const std::vector<std::pair<std::string, int32_t>>& vocabulary) {
  std::vector<std::pair<int32_t, std::string_view>> by_id;
  by_id.reserve(vocabulary.size());
  for (const auto& [token, id] : vocabulary) by_id.emplace_back(id, token);
  std::sort(by_id.begin(), by_id.end());
  std::string canonical;
  for (const auto& [id, token] : by_id) canonical.append(std::to_string(id)).append(" ").append(Counted(token)) += '\n';
  return Sha256Hex(canonical);
}

}  // namespace

Status WordPieceTokenizer::Prepare(const std::string& name) {
  auto vocabulary = std::move(config_.vocabulary);
  config_.vocabulary = {};
  if (!std::is_sorted(vocabulary.begin(), vocabulary.end())) std::sort(vocabulary.begin(), vocabulary.end());
  std::vector<VocabTrie::Entry> words, continuations;
  int32_t largest = -1;
  const std::pair<std::string, int32_t>* previous = nullptr;
  for (const auto& entry : vocabulary) {
    const auto& [token, id] = entry;
    if (token.size() > kTokenBytesMax) return BadFile(name, "a token has more than 4096 bytes: " + Quoted(token));
    if (!IsValidUtf8(token)) return BadFile(name, "a token is not valid UTF-8: " + Quoted(token));
    if (id < 0 || id > VocabTrie::kIdMax) return BadFile(name, "the id of " + Quoted(token) + " is out of range");
    if (previous != nullptr && previous->first == token) return BadFile(name, Quoted(token) + " occurs twice");
    previous = &entry;
    largest = std::max(largest, id);
    if (token == config_.unk_token) unk_id_ = id;
    if (!token.empty() && CanOccurInWord(token)) words.emplace_back(token, id);
    std::string_view rest = token;
    if (rest.substr(0, config_.continuing_prefix.size()) != config_.continuing_prefix) continue;
    rest.remove_prefix(config_.continuing_prefix.size());
    if (!rest.empty() && CanOccurInWord(rest)) continuations.emplace_back(rest, id);
  }
  if (unk_id_ < 0) return BadFile(name, "the vocabulary lacks the unknown token " + Quoted(config_.unk_token));
  for (const AddedToken& added : config_.added_tokens) {
    if (added.content.empty() || !IsAsciiPunctuation(added.content[0]) || !IsValidUtf8(added.content)) {
      return BadFile(name, "the added token " + Quoted(added.content) +
                               " does not begin with ASCII punctuation, which is not supported");
    }
    const auto same = std::lower_bound(vocabulary.begin(), vocabulary.end(), std::pair(added.content, int32_t{-1}));
    if (added.id < 0 || added.id > VocabTrie::kIdMax ||
        (same != vocabulary.end() && same->first == added.content && same->second != added.id)) {
      return BadFile(name, "the added token " + Quoted(added.content) + " has another id than in the vocabulary");
    }
    largest = std::max(largest, added.id);
    added_token_starts_[static_cast<uint8_t>(added.content[0])] = true;
  }
  if (config_.cls_id < 0 || config_.sep_id < 0 || std::max(config_.cls_id, config_.sep_id) > largest) {
    return BadFile(name, "the ids of [CLS] and [SEP] are missing or outside the vocabulary");
  }
  if (config_.word_chars_max < 1 || config_.word_chars_max > kWordCharsLimit) {
    return BadFile(name, "the limit of characters per word is out of range");
  }
  // Of literals with the same beginning the longest counts.
  std::stable_sort(config_.added_tokens.begin(), config_.added_tokens.end(),
                   [](const AddedToken& a, const AddedToken& b) { return a.content.size() > b.content.size(); });
  if (!trie_.Build(words, continuations)) return BadFile(name, "the vocabulary is too large");
  vocab_size_ = static_cast<uint32_t>(largest) + 1;
  Result<std::string> digest = VocabularyDigest(vocabulary);
  if (!digest.ok()) return digest.status();
  vocabulary_digest_ = std::move(digest).value();
  for (int byte = 0; byte < 128; ++byte) {
    const char one = static_cast<char>(byte);
    const VocabTrie::Match match = trie_.LongestWord(&one, 1);
    ascii_char_id_[static_cast<size_t>(byte)] = match.bytes == 1 ? match.id : unk_id_;
  }
  return Status();
}

Result<std::unique_ptr<WordPieceTokenizer>> WordPieceTokenizer::FromConfig(WordPieceConfig config,
                                                                           const std::string& name) {
  std::unique_ptr<WordPieceTokenizer> tokenizer(new WordPieceTokenizer(std::move(config)));
  if (Status status = tokenizer->Prepare(name); !status.ok()) return status;
  return tokenizer;
}

Result<std::unique_ptr<WordPieceTokenizer>> WordPieceTokenizer::FromJson(std::string_view json,
                                                                         const std::string& name) {
  try {
    Result<WordPieceConfig> config = ConfigFromTokenizerJson(json, name);
    if (!config.ok()) return config.status();
    return FromConfig(std::move(*config), name);
  } catch (const std::exception& error) {
    return BadFile(name, std::string("cannot be used: ") + error.what());
  }
}

Result<std::unique_ptr<WordPieceTokenizer>> WordPieceTokenizer::FromFiles(const TokenizerFiles& files) {
  const std::string json_path = files.directory + "/tokenizer.json";
  const std::string vocab_path = files.directory + "/vocab.txt";
  const bool has_json = files.tokenizer_json.has_value();
  try {
    if (!has_json && !files.vocab_txt.has_value()) {
      return BadFile(files.directory,
                     "has neither tokenizer.json nor vocab.txt; is it a model directory in Hugging Face layout, with a "
                     "WordPiece tokenizer?");
    }
    auto config = has_json ? ConfigFromTokenizerJson(*files.tokenizer_json, json_path)
                           : ConfigFromVocabTxt(*files.vocab_txt, vocab_path);
    if (!config.ok()) return config.status();
    if (Status status = ApplySettings(files, &*config); !status.ok()) return status;
    return FromConfig(std::move(*config), has_json ? json_path : vocab_path);
  } catch (const std::exception& error) {
    return BadFile(files.directory, std::string("the tokenizer files cannot be used: ") + error.what());
  }
}

Result<std::unique_ptr<WordPieceTokenizer>> WordPieceTokenizer::Load(const std::string& model_dir) {
  Result<TokenizerFiles> files = ReadTokenizerFiles(model_dir);
  if (!files.ok()) return files.status();
  return FromFiles(*files);
}

std::vector<std::string> WordPieceTokenizer::Settings() const {
  const auto flag = [](const char* name, bool value) { return std::string(name) + (value ? " yes" : " no"); };
  std::vector<std::string> lines = {"tokenizer wordpiece",
                                    "unk_id " + std::to_string(unk_id_),
                                    "cls_id " + std::to_string(config_.cls_id),
                                    "sep_id " + std::to_string(config_.sep_id),
                                    "continuing_prefix " + Counted(config_.continuing_prefix),
                                    "word_chars_max " + std::to_string(config_.word_chars_max),
                                    flag("clean_text", config_.clean_text),
                                    flag("split_ideographs", config_.handle_chinese_chars),
                                    flag("strip_accents", config_.strip_accents),
                                    flag("lowercase", config_.lowercase),
                                    flag("truncate_left", config_.truncate_left)};
  std::vector<std::string> literals;
  for (const AddedToken& added : config_.added_tokens) {
    literals.push_back("literal " + std::to_string(added.id) + " " + Counted(added.content));
  }
  std::sort(literals.begin(), literals.end());  // the order in a file means nothing
  literals.erase(std::unique(literals.begin(), literals.end()), literals.end());
  lines.insert(lines.end(), literals.begin(), literals.end());
  return lines;
}

}  // namespace sutra
