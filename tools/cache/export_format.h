// The file that export writes and import reads: JSON lines, of which the first says whose vectors they are, the last
// how many there were, and the others hold one entry each.
//
//   {"sutra_cache_export":1,"identity":"<64 hex>","model":"...","width":384,"time":1790000000}
//   {"text":"...","variant":0,"tokens":12,"truncated":false,"norm":1.5,"left_s":86000,"vector_base64":"..."}
//   {"end":true,"entries":1}
//
// `text_base64` instead of `text` where that is no UTF-8. `vector_base64`: the floats, little-endian; import also takes
// "vector": [...]. The NumPy form has the vectors in a file of its own, one row per line, and its last line has
// `vectors_crc32c` of all rows.
//
// Thread rule: plain functions. Whatever the bytes are, parsing gives whole values or an error.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "cache/cache_admin.h"
#include "shm/base/status.h"

namespace sutra {

struct ExportHeader {
  std::string identity, model;
  uint32_t width = 0;
  uint64_t time_s = 0;  // when it was written, wall-clock time
};
struct ExportEnd {
  uint64_t entries = 0;
  std::optional<uint32_t> vectors_crc32c;
};

// Lines without their newlines.
std::string ExportHeaderLine(const ExportHeader& header);
std::string ExportEndLine(const ExportEnd& end);
// Appends it, with its newline.
void AppendExportLine(const CacheEntry& entry, bool with_vector, std::string* out);

Result<ExportHeader> ParseExportHeader(std::string_view line);
// Nothing if the line is not the last one.
std::optional<ExportEnd> ParseExportEnd(std::string_view line);
// `width`: floats that the vector must have; 0: it stands elsewhere.
Result<CacheEntry> ParseExportLine(std::string_view line, uint32_t width);

}  // namespace sutra
