// What sutra-embed was asked to do, and the exit codes it answers with.
// Thread rule: plain data after ParseEmbedOptions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "tools/lib/text_input.h"

namespace sutra {

inline constexpr const char* kEmbedName = "sutra-embed";

// Scripts act on them: the numbers are never reused. An interrupted run ends with 128 + the signal's number.
enum EmbedExitCode : int {
  kEmbedAllOk = 0,       // every text has its result
  kEmbedSomeFailed = 1,  // every text has a result or an error
  kEmbedUsage = 2,       // a wrong call, no engine, or an input that cannot be read
  kEmbedLost = 3,        // the output failed, or the engine went away and none came back
};

// What became of the texts of a run through an engine.
struct EmbedTally {
  uint64_t texts = 0, failed = 0, hits = 0, joined = 0, computed = 0;
};

struct EmbedOptions {
  const char* program = kEmbedName;  // that says things
  EmbedTally* tally = nullptr;       // filled in at the end
  bool discard = false;              // no output: the texts are to be in the cache
  std::string socket, model, input = "-", output = "-";
  std::string input_format = "lines", output_format = "jsonl", priority = "bulk";
  bool ids = false, raw = false, normalize = false, reject = false, no_cache = false, quiet = false;
  uint32_t width = 0, ttl_s = 0, timeout_s = 120, tokens_max = 0, wait_engine_s = 30;

  InputFormat format() const { return InputFormatOf(input_format); }
  bool npy() const { return output_format == "npy"; }
};

// RETURNS the exit code if the program ends here: after --help, or when the call is wrong.
std::optional<int> ParseEmbedOptions(int argc, char** argv, EmbedOptions* options);

}  // namespace sutra
