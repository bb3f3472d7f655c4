// What recovery found damaged in one segment, and the line of the engine's log that says so.
//
// Thread rule: plain data.
#pragma once

#include <cstdint>
#include <string>

#include "cache/wal/wal_limits.h"

namespace sutra {

inline std::string Counted(uint64_t count, const char* one, const char* many) {
  return std::to_string(count) + " " + (count == 1 ? one : many);
}

// What a segment lost, for one line in the engine's log.
struct Losses {
  uint64_t first_offset = 0;  // of the first damaged place; 0: there is none
  uint64_t inserts = 0;       // damaged inserts
  uint64_t gaps = 0;          // places that cannot be read, but no removal is lost in them
  uint64_t missing = 0;       // records lost there
  uint64_t voids = 0;         // places where a removal may have been lost
  uint64_t dropped = 0;       // entries and records lost to these places
  uint64_t watermarks = 0;    // damaged ones; they hold nothing
  uint64_t unreadable = 0;    // blocks

  void At(uint64_t offset) {
    if (first_offset == 0) first_offset = offset;
  }
  std::string Text() const {
    std::string text;
    if (inserts > 0) text += Counted(inserts, "entry is", "entries are") + " lost, to be computed again";
    if (gaps > 0) {
      text += (text.empty() ? "" : "; ") + Counted(missing, "record", "records") + " cannot be read in " +
              Counted(gaps, "place", "places") + ", no removal among them: the entries are to be computed again";
    }
    if (voids > 0) {
      text += (text.empty() ? "" : "; ") + std::string("acknowledged records cannot be read in ") +
              Counted(voids, "place", "places") + " and a removal may be among them, so everything older is dropped, " +
              Counted(dropped, "entry or record", "entries or records") + " (the file is kept as *.quarantined)";
    }
    if (watermarks > 0) {
      text += (text.empty() ? "" : "; ") + Counted(watermarks, "piece", "pieces") + " of padding, which hold nothing";
    }
    if (unreadable > 0) {
      text += (text.empty() ? "" : "; ") + Counted(unreadable, "block", "blocks") + " of " +
              std::to_string(kWalBlockBytes) + " bytes cannot be read";
    }
    return text;
  }
  bool nothing_lost() const { return inserts == 0 && gaps == 0 && voids == 0; }
};

}  // namespace sutra
