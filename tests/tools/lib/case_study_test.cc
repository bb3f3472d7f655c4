// The generated case study: counts, shape, determinism, and Sutra's sentence splitter.
#include "tools/lib/case_study.h"

#include <gtest/gtest.h>

#include <set>

namespace sutra {
namespace {

size_t Characters(const std::string& text) {
  size_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  return count;
}

TEST(CaseStudy, HasTheShapeOfTheOriginal) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const std::vector<Concept> concepts = MakeCaseStudy({.seed = seed});
    ASSERT_EQ(concepts.size(), 30u);
    for (const Concept& entry : concepts) {
      EXPECT_GE(Characters(entry.content), 630u);
      EXPECT_LE(Characters(entry.content), 690u);
      EXPECT_GE(entry.fragments.size(), 9u);
      EXPECT_LE(entry.fragments.size(), 11u);
    }
    const std::vector<std::string> texts = CaseStudyTexts(concepts);
    EXPECT_EQ(texts.size(), 318u) << "seed " << seed;
    const size_t unique = std::set<std::string>(texts.begin(), texts.end()).size();
    EXPECT_GE(unique, 130u) << "seed " << seed;
    EXPECT_LE(unique, 165u) << "seed " << seed;
  }
}

TEST(CaseStudy, SameSeedGivesTheSameBytes) {
  EXPECT_EQ(CaseStudyTexts(MakeCaseStudy({.seed = 7})), CaseStudyTexts(MakeCaseStudy({.seed = 7})));
}

TEST(CaseStudy, AnotherSeedGivesOtherPrices) {
  EXPECT_NE(CaseStudyTexts(MakeCaseStudy({.seed = 7})), CaseStudyTexts(MakeCaseStudy({.seed = 8})));
}

TEST(CaseStudy, SkipsWeekends) {
  // 2025-11-07 is a Friday.
  const std::vector<Concept> concepts = MakeCaseStudy({.companies = 1, .days = 3, .first_day = "2025-11-07"});
  ASSERT_EQ(concepts.size(), 3u);
  EXPECT_EQ(concepts[0].date, "2025-11-07");
  EXPECT_EQ(concepts[1].date, "2025-11-10");
  EXPECT_EQ(concepts[2].date, "2025-11-11");
}

TEST(CaseStudy, CrossesMonthsAndLeapDays) {
  const std::vector<Concept> concepts = MakeCaseStudy({.companies = 1, .days = 2, .first_day = "2028-02-29"});
  EXPECT_EQ(concepts[0].date, "2028-02-29");
  EXPECT_EQ(concepts[1].date, "2028-03-01");
}

TEST(CaseStudy, GrowsBeyondTheTenCompanies) {
  const std::vector<Concept> concepts = MakeCaseStudy({.companies = 25, .days = 1});
  std::set<std::string> tickers;
  for (const Concept& entry : concepts) tickers.insert(entry.ticker);
  EXPECT_EQ(tickers.size(), 25u);
}

TEST(SplitFragments, CutsAtEveryFullStopDecimalPointsIncluded) {
  EXPECT_EQ(SplitFragments("Closing price: $145.0 was fine today! Was it really? Yes"),
            (std::vector<std::string>{"Closing price: $145", "0 was fine today", "Was it really"}));
}

TEST(SplitFragments, KeepsOnlyWhatIsLongerThanTenBytes) {
  EXPECT_EQ(SplitFragments("0123456789.01234567890"), (std::vector<std::string>{"01234567890"}));
  // Bytes are counted, not characters: a bullet has three.
  EXPECT_EQ(SplitFragments("\xe2\x80\xa2 345678"), (std::vector<std::string>{}));
  EXPECT_EQ(SplitFragments("\xe2\x80\xa2 3456789"), (std::vector<std::string>{"\xe2\x80\xa2 3456789"}));
}

TEST(SplitFragments, TrimsLineEndsAndKeepsThemInside) {
  EXPECT_EQ(SplitFragments(" \n\tfirst line\nsecond line \r\n. "),
            (std::vector<std::string>{"first line\nsecond line"}));
}

TEST(SplitFragments, NothingComesFromNothing) {
  EXPECT_TRUE(SplitFragments("").empty());
  EXPECT_TRUE(SplitFragments("...!?").empty());
}

}  // namespace
}  // namespace sutra
