// The tokenizer against any text: ids within the vocabulary, the promised counts, and the same ids as a slow, plain
// implementation of the rules that shares nothing with it but the Unicode tables.
#include <algorithm>
#include <map>
#include <memory>

#include "engine/tokenizer/unicode_data.h"
#include "engine/tokenizer/wordpiece.h"
#include "shm/base/utf8.h"
#include "tests/fuzz/fuzz_target.h"

namespace sutra::fuzz {
namespace {

std::vector<std::string> Vocabulary() {
  std::vector<std::string> tokens = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
  for (char c = '!'; c <= '~'; ++c) tokens.emplace_back(1, c);
  for (char c = 'a'; c <= 'z'; ++c) tokens.push_back(std::string("##") + c);
  for (char c = '0'; c <= '9'; ++c) tokens.push_back(std::string("##") + c);
  for (const char* word :
       {"the",      "them",     "##em",   "##ing",    "##abc",   "ab",       "abab",     "##ab",
        "\u4e2d",   "##\u4e2d", "\u00e9", "##\u00e9", "e\u0301", "\u0301",   "##\u0301", "\u1112\u1161\u11ab",
        "##\u1161", "\u00df",   "##ss",   "i\u0307",  "\u20ac",  "##\u0323", "\u03c3",   "##\u03c2",
        "Ab",       "##Z",      "[",      "]",        "##]"}) {
    tokens.emplace_back(word);
  }
  return tokens;
}

struct Subject {
  WordPieceConfig config;
  std::map<std::string, int32_t> ids;
  std::unique_ptr<WordPieceTokenizer> tokenizer;

  explicit Subject(unsigned bits) {
    for (const std::string& token : Vocabulary()) ids.emplace(token, static_cast<int32_t>(ids.size()));
    config.vocabulary.assign(ids.begin(), ids.end());
    config.added_tokens = {{"[SEP]", ids.at("[SEP]")}, {"[MASK]", ids.at("[MASK]")}, {"[UNK]", ids.at("[UNK]")}};
    config.cls_id = ids.at("[CLS]");
    config.sep_id = ids.at("[SEP]");
    config.clean_text = (bits & 1) == 0;
    config.handle_chinese_chars = (bits & 2) == 0;
    config.strip_accents = (bits & 4) == 0;
    config.lowercase = (bits & 8) == 0;
    if ((bits & 16) != 0) config.word_chars_max = 5;
    Result<std::unique_ptr<WordPieceTokenizer>> made = WordPieceTokenizer::FromConfig(config, "fuzz");
    FUZZ_CHECK(made.ok());
    tokenizer = std::move(made).value();
  }
};

// The rules one after the other over the whole text, each with its own pass.
class Plain {
 public:
  explicit Plain(const Subject& subject) : subject_(subject), config_(subject.config) {}

  std::vector<int32_t> Encode(std::string_view text, size_t tokens_max, bool* truncated) {
    ids_ = {config_.cls_id};
    size_t start = 0;
    for (size_t at = 0; at < text.size();) {
      const AddedToken* added = AddedAt(text.substr(at));
      if (added == nullptr) {
        ++at;
        continue;
      }
      Section(text.substr(start, at - start));
      ids_.push_back(added->id);
      start = at += added->content.size();
    }
    Section(text.substr(start));
    *truncated = ids_.size() > tokens_max - 1;
    if (*truncated) ids_.resize(tokens_max - 1);
    ids_.push_back(config_.sep_id);
    return ids_;
  }

 private:
  using Points = std::u32string;

  const AddedToken* AddedAt(std::string_view text) const {
    const AddedToken* best = nullptr;
    for (const AddedToken& added : config_.added_tokens) {
      if (text.starts_with(added.content) && (best == nullptr || added.content.size() > best->content.size()))
        best = &added;
    }
    return best;
  }

  uint8_t Flags(char32_t point) const { return unicode_.Class(point).flags; }

  void Section(std::string_view text) {
    Points points;
    for (const char* cursor = text.data(); cursor < text.data() + text.size();) {
      const char32_t point = DecodeUtf8(&cursor, text.data() + text.size());
      if (config_.clean_text && (Flags(point) & kCleanDrop) != 0) continue;
      points += config_.clean_text && (Flags(point) & kCleanSpace) != 0 ? U' ' : point;
    }
    if (config_.handle_chinese_chars) {
      Points spaced;
      for (const char32_t point : points) {
        if ((Flags(point) & kIdeograph) != 0)
          spaced += {U' ', point, U' '};
        else
          spaced += point;
      }
      points = spaced;
    }
    if (config_.strip_accents) points = Strip(points);
    if (config_.lowercase) {
      Points lowered;
      for (const char32_t point : points) {
        char32_t parts[UnicodeData::kPartsMax];
        lowered.append(parts, unicode_.Lower(point, parts));
      }
      points = lowered;
    }
    Points word;
    for (const char32_t point : points) {
      const bool white = (Flags(point) & kWhite) != 0;
      const bool punctuation = (Flags(point) & kPunctuation) != 0;
      if (white || punctuation) Word(&word);
      if (!white) word += point;
      if (punctuation) Word(&word);
    }
    Word(&word);
  }

  // Decompose, put each run of marks into canonical order, then drop the accents.
  Points Strip(const Points& points) const {
    Points all;
    for (const char32_t point : points) {
      char32_t parts[UnicodeData::kPartsMax];
      all.append(parts, unicode_.Decompose(point, parts));
    }
    const auto order = [this](char32_t point) { return unicode_.Class(point).order; };
    for (size_t begin = 0; begin < all.size();) {
      size_t end = begin;
      while (end < all.size() && order(all[end]) != 0) ++end;
      std::stable_sort(all.begin() + static_cast<std::ptrdiff_t>(begin), all.begin() + static_cast<std::ptrdiff_t>(end),
                       [&](char32_t a, char32_t b) { return order(a) < order(b); });
      begin = std::max(end, begin + 1);
    }
    Points kept;
    for (const char32_t point : all) {
      if ((Flags(point) & kMark) == 0) kept += point;
    }
    return kept;
  }

  void Word(Points* word) {
    if (word->empty()) return;
    const std::vector<int32_t> pieces = Pieces(*word);
    ids_.insert(ids_.end(), pieces.begin(), pieces.end());
    word->clear();
  }

  std::vector<int32_t> Pieces(const Points& word) const {
    const std::vector<int32_t> unknown = {subject_.ids.at("[UNK]")};
    if (word.size() > config_.word_chars_max) return unknown;
    std::vector<int32_t> pieces;
    for (size_t begin = 0; begin < word.size();) {
      size_t end = word.size();
      for (; end > begin; --end) {
        std::string piece = begin == 0 ? "" : config_.continuing_prefix;
        for (size_t i = begin; i < end; ++i) {
          char bytes[4];
          piece.append(bytes, EncodeUtf8(word[i], bytes));
        }
        const auto found = subject_.ids.find(piece);
        if (found == subject_.ids.end()) continue;
        pieces.push_back(found->second);
        break;
      }
      if (end == begin) return unknown;
      begin = end;
    }
    return pieces;
  }

  const Subject& subject_;
  const WordPieceConfig& config_;
  const UnicodeData& unicode_ = UnicodeData::Instance();
  std::vector<int32_t> ids_;
};

// Any bytes made into text: invalid sequences become code points that the rules treat in different ways.
std::string TextFrom(std::string_view bytes) {
  static constexpr char32_t kRare[] = {0x300,   0x323,   0x345,    0x1e9e, 0x130,  0xac00, 0xd7a3, 0x4e2d,
                                       0x20000, 0x200b,  0xad,     0xa0,   0x3000, 0x2028, 0xfeff, 0xfffd,
                                       0x1f600, 0xe01ef, 0x10ffff, 0x3a3,  0x3c2,  0x1fbc, 0xdf,   0x2126,
                                       0x212b,  0x1100,  0x1161,   0x11a8, 0x0,    0x7f,   0x85,   0x1d15e};
  std::string text;
  for (const char* cursor = bytes.data(); cursor < bytes.data() + bytes.size();) {
    const auto byte = static_cast<uint8_t>(*cursor);
    char32_t point = DecodeUtf8(&cursor, bytes.data() + bytes.size());
    if (point == 0xfffd) point = kRare[byte % std::size(kRare)];
    char encoded[4];
    text.append(encoded, EncodeUtf8(point, encoded));
  }
  return text;
}

}  // namespace

SUTRA_FUZZ_TARGET(wordpiece, 4096) {
  static std::unique_ptr<Subject> subjects[32];
  Input input(data, size);
  const unsigned bits = input.Byte() % 32;
  if (subjects[bits] == nullptr) subjects[bits] = std::make_unique<Subject>(bits);
  const Subject& subject = *subjects[bits];
  const uint32_t tokens_max = input.Below(2) == 0 ? 1u << 20 : 2 + input.Below(40);
  const unsigned repeats = 1 + input.Byte() % 8 * (input.Byte() % 8);
  std::string text;
  const std::string once = TextFrom(input.Rest());
  for (unsigned i = 0; i < repeats; ++i) text += once;
  FUZZ_CHECK(IsValidUtf8(text));

  std::vector<int32_t> ids = {-7};                             // what is in the vector already stays
  const std::unique_ptr<char[]> exact(new char[text.size()]);  // so that the sanitizer guards its end
  std::memcpy(exact.get(), text.data(), text.size());
  const Encoded encoded = subject.tokenizer->Encode({exact.get(), text.size()}, tokens_max, &ids);
  FUZZ_CHECK(ids[0] == -7);
  ids.erase(ids.begin());
  FUZZ_CHECK(encoded.token_count == ids.size() && ids.size() >= 2 && ids.size() <= tokens_max);
  for (const int32_t id : ids) FUZZ_CHECK(id >= 0 && static_cast<uint32_t>(id) < subject.tokenizer->vocab_size());
  if (text.size() > 4000) return;  // the plain one is slow
  bool truncated = false;
  FUZZ_CHECK(Plain(subject).Encode(text, tokens_max, &truncated) == ids);
  FUZZ_CHECK(truncated == encoded.truncated);
}

}  // namespace sutra::fuzz
