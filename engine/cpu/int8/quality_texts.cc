// The built-in texts. Those of one to five tokens and those that repeat few words are the hardest: nothing averages
// their errors out.
#include <algorithm>
#include <string_view>

#include "engine/cpu/int8/int8_quality.h"
#include "engine/cpu/int8/random_texts.h"

namespace sutra::cpu {
namespace {

constexpr std::string_view kTexts[] = {
    // Short ones.
    "",
    "?",
    ".",
    "!",
    "1",
    "a",
    "I",
    "ok",
    "no.",
    "yes",
    "no",
    "hi",
    "Hello!",
    "thank you",
    "thanks",
    "good morning",
    "why?",
    "help",
    "stop",
    "what is this",
    "see you",
    "of course",
    "not bad",
    "well...",
    "the",
    "and so on",
    "42",
    "100%",
    "3.14",
    "$5",
    "C++",
    "e-mail",
    "New York",
    "red car",
    "...",
    "-",
    "\xF0\x9F\x99\x82",
    // Queries.
    "how do I reset my password",
    "best restaurants near me open now",
    "weather tomorrow in Berlin",
    "difference between TCP and UDP",
    "who wrote War and Peace?",
    "cheap flights from London to Tokyo in March",
    // Sentences.
    "The quick brown fox jumps over the lazy dog.",
    "She sells sea shells by the sea shore, doesn't she?",
    "The committee postponed its decision until the financial report is available.",
    "Photosynthesis converts light energy into chemical energy that is stored in carbohydrates.",
    "Error: connection refused (errno 111) while connecting to 10.0.0.7:5432; retrying in 5 s",
    // Numbers and codes.
    "2024-02-29T23:59:60Z",
    "1 2 3 5 8 13 21 34 55 89 144 233 377 610 987 1597",
    "0x7fffdeadbeef",
    "192.168.0.1/24",
    "+49 (0)30 123456-78",
    "IBAN DE89 3704 0044 0532 0130 00",
    "a1b2c3d4-e5f6-7890-abcd-ef0123456789",
    // Code.
    "for (size_t i = 0; i < n; ++i) sum += a[i] * b[i];",
    "SELECT name, COUNT(*) FROM users GROUP BY name HAVING "
    "COUNT(*) > 1;",
    "def f(x): return [y ** 2 for y in x if y % 2 == 0]",
    "git commit -am 'fix' && git push origin main",
    "<div class=\"row\"><a href=\"/index.html\">Home</a></div>",
    "{\"id\": 7, \"tags\": [\"a\", \"b\"], \"ok\": true}",
    // Signs, and words that are repeated.
    "&&^=>",
    "?!>/...!",
    "?????????????",
    "thanks thanks",
    "//===--------------------------------------------------------------------------------===//",
    "/*------------------------------------------------------------------------*/",
    "////////////////////////////////////////////////////// section ////////////////////",
    "!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!",
    "........................................................................................",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    "and and and and and and and and and and and and and and and and and and and and and and and and",
    "*** *** *** *** *** *** *** *** *** *** *** *** *** *** *** ***",
    // Scripts.
    "Stra\xC3\x9F"
    "e, \xC3\x9C"
    "bung und Gem\xC3\xBCt",
    "\xC2\xBF"
    "D\xC3\xB3nde est\xC3\xA1 la biblioteca?",
    "\xD0\x9F\xD1\x80\xD0\xB8\xD0\xB2\xD0\xB5\xD1\x82, \xD0\xBC\xD0\xB8\xD1\x80",
    "\xCE\x9A\xCE\xB1\xCE\xBB\xCE\xB7\xCE\xBC\xCE\xAD\xCF\x81\xCE\xB1 \xCE\xBA\xCF\x8C\xCF\x83\xCE\xBC\xCE\xB5",
    "\xE4\xBD\xA0\xE5\xA5\xBD\xEF\xBC\x8C\xE4\xB8\x96\xE7\x95\x8C",
    "\xE3\x81\x93\xE3\x82\x93\xE3\x81\xAB\xE3\x81\xA1"
    "\xE3\x81\xAF\xE4\xB8\x96\xE7\x95\x8C",
    "\xEC\x95\x88\xEB\x85\x95\xED\x95\x98\xEC\x84\xB8\xEC\x9A\x94",
    "\xD9\x85\xD8\xB1\xD8\xAD\xD8\xA8\xD8\xA7 \xD8\xA8\xD8\xA7\xD9\x84\xD8\xB9\xD8\xA7\xD9\x84\xD9\x85",
    "\xD7\xA9\xD7\x9C\xD7\x95\xD7\x9D \xD7\xA2\xD7\x95\xD7\x9C\xD7\x9D",
    "\xE0\xA4\xA8\xE0\xA4\xAE\xE0\xA4\xB8\xE0\xA5\x8D\xE0\xA4\xA4\xE0\xA5\x87 \xE0\xA4\xA6\xE0\xA5\x81\xE0\xA4\xA8\xE0"
    "\xA4\xBF\xE0\xA4\xAF\xE0\xA4\xBE",
    "\xE0\xB8\xAA\xE0\xB8\xA7\xE0\xB8\xB1\xE0\xB8\xAA\xE0\xB8\x94\xE0\xB8\xB5",
    "Xin ch\xC3\xA0o th\xE1\xBA\xBF gi\xE1\xBB\x9Bi",
};

constexpr std::string_view kParagraph =
    "The harbour had been built when ships were small, and every generation since had added a wall, a crane or a shed "
    "without taking anything away. In winter the fishermen mended their nets under the arches; in summer, visitors "
    "took photographs of them doing the same work more slowly. Prices rose by 3.5 percent a year, the ferry came at "
    "7:40, 12:15 and 18:05, and nobody could say why the lighthouse, which had been switched off in 1987, was painted "
    "again every second spring. ";

constexpr std::string_view kContacts =
    "Anna Lindqvist <anna@harbour.example> Bruno Keller <bkeller@mail.example.org> Chiara Di Marco <cdm@example.com> "
    "D. J. Okafor <dj.okafor@example.net> Eve Novakova <eve@uni.example> F\xC3\xA1tima Reis <freis@example.org>, ";

constexpr size_t kNameBytesMax = 48;
constexpr size_t kLongRepeats[] = {1, 2, 6};

// Words per text of random ids, and how many such texts there are.
struct Lengths {
  uint32_t words_min, words_max;
  size_t count;
};
constexpr Lengths kRandom[] = {{1, 3, 12}, {4, 16, 8}, {17, 64, 4}, {200, 250, 2}};

}  // namespace

QualityTexts BuiltInTexts(const Tokenizer& tokenizer, uint32_t vocabulary, uint32_t tokens_max) {
  QualityTexts out;
  const auto add = [&](std::string_view text, std::string name) {
    (void)tokenizer.Encode(text, tokens_max, &out.tokens.ids);
    out.tokens.EndText();
    out.names.push_back(std::move(name));
  };
  for (const std::string_view text : kTexts) {
    add(text, text.size() <= kNameBytesMax ? "'" + std::string(text) + "'"
                                           : "'" + std::string(text.substr(0, kNameBytesMax)) + "...'");
  }
  for (const size_t repeats : kLongRepeats) {
    std::string text;
    for (size_t i = 0; i < repeats; ++i) text += kParagraph;
    add(text, std::to_string(repeats) + " paragraphs");
  }
  for (const size_t repeats : kLongRepeats) {
    std::string text;
    for (size_t i = 0; i < repeats; ++i) text += kContacts;
    add(text, std::to_string(repeats * 6) + " names with addresses");
  }
  uint32_t seed = 1;
  for (const Lengths& lengths : kRandom) {
    AppendRandomTexts(
        {.count = lengths.count, .words_min = lengths.words_min, .words_max = lengths.words_max, .seed = seed++},
        tokenizer, vocabulary, tokens_max, &out.tokens);
    while (out.names.size() < out.tokens.size()) {
      const size_t at = out.names.size();
      out.names.push_back(std::to_string(out.tokens.offsets[at + 1] - out.tokens.offsets[at]) + " tokens at random");
    }
  }
  return out;
}

}  // namespace sutra::cpu
