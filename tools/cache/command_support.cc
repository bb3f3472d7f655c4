// Nothing here knows a command.
#include "tools/cache/command_support.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>

#include "shm/base/utf8.h"
#include "tools/cache/base64.h"
#include "tools/lib/program.h"
#include "tools/lib/text_input.h"
#include "tools/lib/vector_output.h"

namespace sutra {

namespace {

constexpr int kLookAroundMs = 50;  // a blocked read of input looks this often for an interruption

}  // namespace

int CacheFail(const Status& status) {
  if (const int signal = InterruptedBy(); signal != 0) return Fail(kCacheName, 128 + signal, "interrupted");
  return Fail(kCacheName, status.code() == StatusCode::kNotReady ? kCacheNotFound : kCacheError, status.message());
}

int PrintAndEnd(const std::string& text, int code) {
  const Status status = Print(text);
  return status.ok() ? code : CacheFail(status);
}

bool CommandProgress::operator()(uint64_t done, uint64_t total) const {
  progress_->Update({.texts = done, .done = done, .total = total});
  return InterruptedBy() == 0;
}

bool Confirmed(const CacheOptions& options, const std::string& what) {
  if (options.yes) return true;
  if (isatty(STDIN_FILENO) != 1 || isatty(STDERR_FILENO) != 1) {
    Say(kCacheName, what + ": nothing was changed; this is no terminal, so it needs --yes");
    return false;
  }
  SayAsIs(what + "? [y/N] ");
  char answer = 0;
  pollfd ready{STDIN_FILENO, POLLIN, 0};
  while (InterruptedBy() == 0 && poll(&ready, 1, kLookAroundMs) <= 0) {
  }
  if (InterruptedBy() == 0 && read(STDIN_FILENO, &answer, 1) == 1 && (answer == 'y' || answer == 'Y')) return true;
  Say(kCacheName, "nothing was changed");
  return false;
}

Status ForEachText(const CacheOptions& options, uint64_t* faulty, const std::function<Status(std::string_view)>& take) {
  for (const std::string& text : options.texts) {
    if (Status status = take(text); !status.ok()) return status;
  }
  if (options.input.empty()) return {};
  const InputFormat format = InputFormatOf(options.input_format);
  Result<LineReader> reader = LineReader::Open(options.input, LineEndOf(format));
  if (!reader.ok()) return reader.status();
  std::string line;
  for (;;) {
    if (InterruptedBy() != 0) return Status(StatusCode::kCancelled, "interrupted");
    const LineReader::Got got = reader->Next(&line, kLookAroundMs);
    if (got == LineReader::Got::kNotYet) continue;
    if (got == LineReader::Got::kEnd) return {};
    if (got == LineReader::Got::kError) {
      return Status::FromErrno(StatusCode::kStorageError, "reading " + options.input, reader->error());
    }
    InputItem item;
    if (got == LineReader::Got::kTooLong) {
      item.error = AtLine(reader->line_number(), "too long");
    } else {
      item = ParseInputLine(format, line, reader->line_number());
    }
    // An entry may hold what is no UTF-8, so such a line is a text here; one that is no JSON is not.
    const bool text = item.error.empty() || (format != InputFormat::kJsonl && item.has_text);
    if (!text) {
      if (++*faulty <= options.errors_shown) Say(kCacheName, item.error);
      continue;
    }
    if (Status status = take(item.text); !status.ok()) return status;
  }
}

bool IsNotCached(const Status& status) {
  return status.code() == StatusCode::kBadOption && status.message().ends_with("not cached");
}

void AppendTextJson(std::string_view text, std::string* out) {
  if (IsValidUtf8(text)) {
    *out += "\"text\":" + JsonText(std::string(text));
  } else {
    *out += "\"text_base64\":\"" + ToBase64(text) + "\"";
  }
}

void AppendEntryJson(const CacheEntry& entry, size_t floats_max, std::string* out) {
  *out += '{';
  AppendTextJson(entry.text, out);
  fmt::format_to(std::back_inserter(*out),
                 ",\"variant\":{},\"tokens\":{},\"truncated\":{},\"norm\":{},\"age_s\":{},\"left_s\":{},\"hit\":{},"
                 "\"hot\":{},\"vector\":",
                 entry.variant, entry.value.token_count, entry.value.truncated, entry.value.norm, entry.age_s,
                 entry.left_s, entry.hit, entry.hot);
  AppendVector(std::span(entry.vector).first(std::min(floats_max, entry.vector.size())), out);
  *out += '}';
}

}  // namespace sutra
