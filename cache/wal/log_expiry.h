// When the last entry of a log that nobody serves expires, as far as can be told without recovering it.
//
// Thread rule: one thread. It reads only, and with plain reads.
// `expiry_newest_ns` is never earlier than the expiry of an entry that recovery could bring back from the segments
// read, unless `known` is false (tests/cache/identity_survey_test.cc compares it with what recovery does bring back).
#pragma once

#include <cstdint>
#include <string>

#include "cache/wal/wal_format.h"

namespace sutra {

class DiskIo;

struct LogExpiry {
  bool known = true;              // false: something may be there that could not be read
  uint64_t records = 0;           // inserts read
  uint64_t record_newest_ns = 0;  // when the newest of them was written, wall-clock time; 0: there is none
  uint64_t expiry_newest_ns = 0;  // when the last of them expires
};

// Adds what the segment at `path` holds. Whatever is wrong with it is no error but makes the result unknown.
void AddSegmentExpiry(DiskIo* io, const std::string& path, const SegmentExpectation& expected, LogExpiry* expiry);

}  // namespace sutra
