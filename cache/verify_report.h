// What a check of a shard's files has found (shard_verifier.h).
//
// Thread rule: plain data.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace sutra {

struct VerifyFinding {
  enum class Kind {
    kNote,     // as it should be, or as a crash leaves it
    kWarning,  // nothing is lost, but it does not belong there or is open to others
    kDamage,   // a byte is not what was written
  };
  Kind kind = Kind::kNote;
  std::string file;                // its path; the directory's, where a file is missing
  std::optional<uint64_t> offset;  // in the file
  std::string what;
};

struct VerifyReport {
  static constexpr size_t kFindingsMax = 10'000;

  uint64_t files = 0, bytes = 0;
  uint64_t segments = 0, indexes = 0, records = 0;  // of the chain, and what was right in them
  uint64_t entries = 0;                             // that a start would find, those that have expired included
  uint64_t torn_bytes = 0;                          // behind the last record, as a crash leaves them
  uint64_t heat_blocks = 0;
  std::vector<VerifyFinding> findings;  // at most kFindingsMax
  uint64_t damaged = 0;                 // findings of this kind, those that are left out included
  uint64_t wrong_records = 0;           // that hold something, and those that are missing
  uint64_t lost = 0;                    // entries and records that a start would drop
  std::string refused;                  // why a start would refuse the log; "" if it would not

  bool sound() const { return damaged == 0 && lost == 0 && refused.empty(); }
  void Add(VerifyFinding::Kind kind, std::string file, std::optional<uint64_t> offset, std::string what) {
    if (kind == VerifyFinding::Kind::kDamage) ++damaged;
    if (findings.size() < kFindingsMax) findings.push_back({kind, std::move(file), offset, std::move(what)});
  }
};

}  // namespace sutra
