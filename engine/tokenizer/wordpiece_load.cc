// Loading: reads the files of a model directory, has them parsed (wordpiece_config.h), checks the result and builds
// the tables that Encode uses.
//
// The files are untrusted. Whatever they hold, the result is a tokenizer or a Status: sizes are bounded before anything
// is allocated for them, and the JSON library's exceptions are caught here.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <exception>
#include <optional>

#include "engine/tokenizer/wordpiece.h"
#include "engine/tokenizer/wordpiece_config.h"
#include "shm/base/unique_fd.h"
#include "shm/base/utf8.h"

namespace sutra {
namespace {

constexpr size_t kFileBytesMax = size_t{32} << 20;

// The file's bytes; empty if there is no such file.
Result<std::optional<std::string>> ReadFile(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file) {
    if (errno == ENOENT || errno == ENOTDIR) return std::optional<std::string>();
    return Status::FromErrno(StatusCode::kModelError, "opening " + path, errno);
  }
  struct stat about {};
  if (::fstat(file.get(), &about) != 0) return Status::FromErrno(StatusCode::kModelError, "reading " + path, errno);
  if (!S_ISREG(about.st_mode)) return BadFile(path, "is not a regular file");
  if (static_cast<uint64_t>(about.st_size) > kFileBytesMax) {
    return BadFile(path, "has " + std::to_string(about.st_size) + " bytes, more than the " +
                             std::to_string(kFileBytesMax) + " that a tokenizer file may have");
  }
  std::string bytes(static_cast<size_t>(about.st_size), '\0');
  size_t filled = 0;
  while (filled < bytes.size()) {
    const ssize_t got = ::read(file.get(), bytes.data() + filled, bytes.size() - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Status::FromErrno(StatusCode::kModelError, "reading " + path, errno);
    if (got == 0) break;  // the file shrank meanwhile; the parser will see that it is cut
    filled += static_cast<size_t>(got);
  }
  bytes.resize(filled);
  return std::optional<std::string>(std::move(bytes));
}

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

}  // namespace

Status WordPieceTokenizer::Prepare(const std::string& name) {
  auto vocabulary = std::move(config_.vocabulary);
  config_.vocabulary = {};
  std::sort(vocabulary.begin(), vocabulary.end());
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

Result<std::unique_ptr<WordPieceTokenizer>> WordPieceTokenizer::Load(const std::string& model_dir) {
  const std::string json_path = model_dir + "/tokenizer.json";
  const std::string vocab_path = model_dir + "/vocab.txt";
  const std::string settings_path = model_dir + "/tokenizer_config.json";
  try {
    auto json = ReadFile(json_path);
    if (!json.ok()) return json.status();
    if (json->has_value()) return FromJson(**json, json_path);
    auto vocab = ReadFile(vocab_path);
    if (!vocab.ok()) return vocab.status();
    auto settings = ReadFile(settings_path);
    if (!settings.ok()) return settings.status();
    if (!vocab->has_value() || !settings->has_value()) {
      return BadFile(model_dir,
                     "has neither tokenizer.json nor vocab.txt with tokenizer_config.json; is it a model "
                     "directory in Hugging Face layout?");
    }
    auto config = ConfigFromVocabTxt(**vocab, vocab_path, **settings, settings_path);
    if (!config.ok()) return config.status();
    return FromConfig(std::move(*config), vocab_path);
  } catch (const std::exception& error) {
    return BadFile(model_dir, std::string("the tokenizer files cannot be used: ") + error.what());
  }
}

}  // namespace sutra
