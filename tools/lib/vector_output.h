// Output of sutra-embed: one JSON line per text, or one NumPy file of all vectors.
//
// Thread rule: one thread owns a writer. Invariants: results come in the order of the inputs; JSON lines are written to
// the target as they come; a NumPy file appears under its name only when every text has its row, so a run that breaks
// off leaves no partial file. The row of a text without a vector is NaN: rows
// keep matching lines, and no computation takes it for a vector.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "shm/base/status.h"
#include "tools/lib/text_input.h"

namespace sutra {

class ResultWriter {
 public:
  virtual ~ResultWriter() = default;
  virtual Status Vector(const InputItem& item, std::span<const float> vector) = 0;
  virtual Status Ids(const InputItem& item, std::span<const int32_t> ids) = 0;
  // A text without a result keeps its place.
  virtual Status Error(const InputItem& item, const std::string& error) = 0;
  virtual Status Flush() = 0;
  virtual Status Finish() = 0;  // the result is complete only if this returns kOk
  // After kCancelled, which a write returns that was interrupted because the output took nothing: what is missing
  // there, as the end of a sentence, or "".
  virtual std::string Unwritten() const = 0;
};

// `path` "-" is standard output. The file that is read at `input_fd` is refused as output. kCancelled: interrupted.
Result<std::unique_ptr<ResultWriter>> OpenJsonlWriter(const std::string& path, int input_fd = -1);
// Every vector has `width` floats.
Result<std::unique_ptr<ResultWriter>> OpenNpyWriter(const std::string& path, uint32_t width, int input_fd = -1);

// Takes everything and writes nothing.
Result<std::unique_ptr<ResultWriter>> OpenNoWriter();

// JSON of a string; bytes that are not UTF-8 become U+FFFD.
std::string JsonText(const std::string& text);
// "[0.25,-1e-05]": the shortest digits that read back as the same floats.
void AppendVector(std::span<const float> vector, std::string* out);

}  // namespace sutra
