// The financial case study as data: the texts that Sutra embeds when it learns ten companies' market reports of three
// weekdays. Shared by sutra-casestudy, the benchmarks and the tests.
//
// Immutable and deterministic: equal options give equal bytes on every machine (own generator, no locale, no hash
// function of the standard library). Thread-safe.
//
// Invariants:
//  - A concept is one content (about 650 characters) and its fragments, cut exactly as Sutra cuts: at every '.', '!'
//    and '?' (decimal points included), trimmed, kept when longer than 10 bytes.
//  - Texts repeat as they do in Sutra's own run: sentences of the template come back for every company and day.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sutra {

struct CaseStudyOptions {
  uint64_t seed = 1;
  uint32_t companies = 10;  // the first ten are those of the original, in its order; 1..100
  uint32_t days = 3;        // weekdays, counted on from first_day
  std::string first_day = "2025-11-05";
};

struct Concept {
  std::string ticker;
  std::string date;
  std::string content;
  std::vector<std::string> fragments;
};

// Grouped by company, then by day, as the original ingester goes.
std::vector<Concept> MakeCaseStudy(const CaseStudyOptions& options);

// Contents and fragments in the order in which Sutra embeds them.
std::vector<std::string> CaseStudyTexts(const std::vector<Concept>& concepts);

// Sutra's sentence splitter.
std::vector<std::string> SplitFragments(std::string_view content);

}  // namespace sutra
