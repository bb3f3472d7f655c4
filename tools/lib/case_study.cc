// The template of the texts follows the published shape of the original ingester's reports: a heading, prices as a
// bullet list, a technical section and a closing paragraph that is the same for a whole sector.
#include "tools/lib/case_study.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>

namespace sutra {

namespace {

struct Company {
  const char* name;
  const char* ticker;
  const char* sector;
};

constexpr std::array<Company, 10> kCompanies = {{
    {"Apple Inc.", "AAPL", "Technology"},
    {"Microsoft Corporation", "MSFT", "Technology"},
    {"Alphabet Inc.", "GOOGL", "Technology"},
    {"Amazon.com Inc.", "AMZN", "Consumer Discretionary"},
    {"NVIDIA Corporation", "NVDA", "Technology"},
    {"Tesla Inc.", "TSLA", "Consumer Discretionary"},
    {"Meta Platforms Inc.", "META", "Technology"},
    {"Taiwan Semiconductor Co. Ltd.", "TSM", "Technology"},
    {"Visa Inc.", "V", "Financial Services"},
    {"JPMorgan Chase & Co.", "JPM", "Financial Services"},
}};

// SplitMix64: small, fully specified, the same on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  uint32_t Below(uint32_t bound) { return static_cast<uint32_t>(Next() % bound); }

 private:
  uint64_t state_;
};

// Days since 1970-01-01 of a civil date and back (the usual era arithmetic).
int64_t DaysFromCivil(int64_t year, int64_t month, int64_t day) {
  year -= month <= 2;
  const int64_t era = (year >= 0 ? year : year - 399) / 400;
  const int64_t year_of_era = year - era * 400;
  const int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
  return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

std::string CivilFromDays(int64_t days) {
  days += 719468;
  const int64_t era = (days >= 0 ? days : days - 146096) / 146097;
  const int64_t day_of_era = days - era * 146097;
  const int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
  const int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const int64_t month_shifted = (5 * day_of_year + 2) / 153;
  const int64_t day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
  const int64_t month = month_shifted + (month_shifted < 10 ? 3 : -9);
  return fmt::format("{:04}-{:02}-{:02}", year_of_era + era * 400 + (month <= 2), month, day);
}

std::vector<std::string> Weekdays(const std::string& first, uint32_t count) {
  int64_t year = 2025, month = 11, day = 5;
  if (first.size() == 10) {
    year = std::atoi(first.substr(0, 4).c_str());
    month = std::clamp(std::atoi(first.substr(5, 2).c_str()), 1, 12);
    day = std::clamp(std::atoi(first.substr(8, 2).c_str()), 1, 31);
  }
  std::vector<std::string> dates;
  for (int64_t days = DaysFromCivil(year, month, day); dates.size() < count; ++days) {
    const int64_t weekday = ((days + 4) % 7 + 7) % 7;  // 1970-01-01 was a Thursday; 0 = Sunday
    if (weekday != 0 && weekday != 6) dates.push_back(CivilFromDays(days));
  }
  return dates;
}

Company CompanyAt(uint32_t index, std::string* name, std::string* ticker) {
  if (index < kCompanies.size()) return kCompanies[index];
  *name = fmt::format("Company {:03} Holdings", index);
  *ticker = fmt::format("C{:03}", index);
  return {name->c_str(), ticker->c_str(), kCompanies[index % kCompanies.size()].sector};
}

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

// Whole dollars written with one decimal, as the original prints them: their point cuts the text once more.
std::string Content(const Company& company, const std::string& date, Random& random) {
  const uint32_t open = 140 + random.Below(10);
  const uint32_t close = 140 + random.Below(10);
  const uint32_t high = std::max(open, close) + random.Below(5);
  const uint32_t low = std::min(open, close) - random.Below(5);
  const uint32_t volume = 20 + random.Below(6);
  const bool finance = std::string_view(company.sector) == "Financial Services";
  const char* movement = close >= open ? "positive" : "negative";
  return fmt::format(
      "{0} ({1}) Financial Data - {2}\n\n"
      "Market Performance:\n"
      "• Opening Price: ${3}.0 \n"
      "• Closing Price: ${4}.0\n"
      "• Daily High: ${5}.0\n"
      "• Daily Low: ${6}.0\n"
      "• Trading Volume: {7},{13:03},{16:03} shares\n"
      "• Support: ${6}, ${14}; Resistance: ${5}, ${15}; (USD)\n"
      "• Sector: {8}, with {9} price movement on the day.\n\n"
      "Technical Analysis:\n"
      "• Price Range: ${10}.0\n"
      "• Momentum: {9}\n\n"
      "Sector Context:\n"
      "The {11} sector shows continued {12}activity and investor interest. "
      "Trading patterns indicate market participation and price discovery at current levels. "
      "Key factors include technological innovation, market expansion, and competitive positioning.",
      company.name, company.ticker, date, open, close, high, low, volume, company.sector, movement, high - low,
      Lower(company.sector), finance ? "activity. Rates drive " : "institutional ", random.Below(1000), low - 5,
      high + 5, random.Below(1000));
}

bool IsSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

}  // namespace

std::vector<std::string> SplitFragments(std::string_view content) {
  std::vector<std::string> fragments;
  size_t begin = 0;
  while (begin <= content.size()) {
    const size_t end = std::min(content.find_first_of(".!?", begin), content.size());
    std::string_view piece = content.substr(begin, end - begin);
    while (!piece.empty() && IsSpace(piece.front())) piece.remove_prefix(1);
    while (!piece.empty() && IsSpace(piece.back())) piece.remove_suffix(1);
    if (piece.size() > 10) fragments.emplace_back(piece);
    begin = end + 1;
  }
  return fragments;
}

std::vector<Concept> MakeCaseStudy(const CaseStudyOptions& options) {
  const std::vector<std::string> dates = Weekdays(options.first_day, options.days);
  Random random(options.seed);
  std::vector<Concept> concepts;
  for (uint32_t i = 0; i < options.companies; ++i) {
    std::string name, ticker;
    const Company company = CompanyAt(i, &name, &ticker);
    for (const std::string& date : dates) {
      Concept entry;
      entry.ticker = company.ticker;
      entry.date = date;
      entry.content = Content(company, date, random);
      entry.fragments = SplitFragments(entry.content);
      concepts.push_back(std::move(entry));
    }
  }
  return concepts;
}

std::vector<std::string> CaseStudyTexts(const std::vector<Concept>& concepts) {
  std::vector<std::string> texts;
  for (const Concept& entry : concepts) {
    assert(entry.fragments.size() <= entry.content.size() / 10);  // each fragment is longer than that
    texts.push_back(entry.content);
    texts.insert(texts.end(), entry.fragments.begin(), entry.fragments.end());
  }
  return texts;
}

}  // namespace sutra
