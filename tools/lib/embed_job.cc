#include "tools/lib/embed_job.h"

#include <fmt/format.h>

#include <cassert>
#include <csignal>
#include <string_view>
#include <utility>

#include "tools/lib/program.h"

namespace sutra {

namespace {

constexpr int kLookAroundMs = 50;      // a blocked read of input looks this often for an interruption
constexpr size_t kErrorsShownMax = 8;  // of a NumPy file, whose rows cannot say what was wrong

// In UTF-16 the ASCII characters of a line are valid UTF-8, each beside a NUL: such a line would get a vector, of
// another text. No text in UTF-8 begins so.
bool BeginsAsUtf16(std::string_view line) { return line.starts_with("\xff\xfe") || line.starts_with("\xfe\xff"); }

const char* SignalName(int signal) { return signal == SIGINT ? "SIGINT" : "SIGTERM"; }

}  // namespace

EmbedJob::EmbedJob(const EmbedOptions& options, LineReader reader, std::unique_ptr<ResultWriter> writer)
    : options_(options),
      reader_(std::move(reader)),
      writer_(std::move(writer)),
      progress_(options_.program, options.quiet) {}

bool EmbedJob::running() const { return broken_.ok() && InterruptedBy() == 0; }

std::string EmbedJob::StopReason() const { return broken_.ok() ? "interrupted before it was answered" : item_reason_; }

bool EmbedJob::Next(InputItem* item, int timeout_ms) {
  std::string line;
  switch (reader_.Next(&line, timeout_ms)) {
    case LineReader::Got::kLine:
      if (reader_.line_number() == 1 && BeginsAsUtf16(line)) {
        Break(Status(StatusCode::kBadOption,
                     options_.input + " is UTF-16 (it begins with a byte order mark): iconv -f UTF-16 -t UTF-8 first"),
              kEmbedUsage);
        at_end_ = true;
        return false;
      }
      *item = ParseInputLine(options_.format(), line, reader_.line_number());
      ++handed_out_;
      return true;
    case LineReader::Got::kTooLong:
      *item = InputItem{};
      item->line = reader_.line_number();
      item->error = AtLine(item->line, fmt::format("longer than {} bytes", LineReader::kLineBytesMax));
      ++handed_out_;
      return true;
    case LineReader::Got::kNotYet: return false;
    case LineReader::Got::kError:
      Break(
          Status::FromErrno(StatusCode::kStorageError,
                            "reading " + (options_.input == "-" ? "standard input" : options_.input), reader_.error()),
          kEmbedUsage);
      [[fallthrough]];
    case LineReader::Got::kEnd: at_end_ = true; return false;
  }
  return false;
}

bool EmbedJob::FlushAndNext(InputItem* item) {
  Wrote(writer_->Flush());
  return running() && Next(item, kLookAroundMs);
}

void EmbedJob::Vector(const InputItem& item, std::span<const float> vector, uint64_t tokens) {
  Wrote(writer_->Vector(item, vector));
  Took(tokens);
}

void EmbedJob::Ids(const InputItem& item, std::span<const int32_t> ids) {
  Wrote(writer_->Ids(item, ids));
  Took(ids.size());
}

void EmbedJob::Failed(const InputItem& item, const std::string& error) {
  ++counts_.failed;
  if (errors_.size() < kErrorsShownMax) errors_.push_back(error);
  Wrote(writer_->Error(item, error));
  Took(0);
}

void EmbedJob::Took(uint64_t tokens) {
  ++counts_.texts;
  assert(counts_.texts <= handed_out_);
  counts_.tokens += tokens;
  counts_.done = reader_.bytes_taken();
  counts_.total = reader_.bytes_total();
  progress_.Update(counts_);
}

void EmbedJob::Wrote(Status status) {
  if (status.code() == StatusCode::kCancelled) return;  // an interruption, which ends the job anyhow
  if (!status.ok()) Break(std::move(status));
}

void EmbedJob::Break(Status status, EmbedExitCode code, const std::string& item_reason) {
  if (!broken_.ok()) return;
  item_reason_ = item_reason.empty() ? status.message() : item_reason;
  broken_ = std::move(status);
  broken_code_ = code;
}

void EmbedJob::Say(const std::string& message) {
  progress_.Clear();
  if (!options_.quiet) sutra::Say(options_.program, message);
}

int EmbedJob::Finish(const std::string& details) {
  assert(counts_.texts == handed_out_);
  const bool complete = running();
  Wrote(complete ? writer_->Finish() : writer_->Flush());
  std::string failed;
  if (counts_.failed != 0) {
    failed = fmt::format(", {} failed", counts_.failed);
    if (complete) failed += fmt::format(" (first: {})", errors_.front());  // else the reason follows
  }
  progress_.Finish(counts_, details + failed);
  return EndWith();
}

// Without a summary the reason is still said: --quiet is about figures, not about faults.
int EmbedJob::EndWith() {
  const std::string no_file =
      options_.npy() ? "; no NumPy file is written: run again, what was computed is in the engine's cache" : "";
  if (!broken_.ok()) return Fail(options_.program, broken_code_, broken_.message() + no_file);
  if (const int signal = InterruptedBy(); signal != 0) {
    return Fail(options_.program, 128 + signal,
                fmt::format("interrupted by {}; {} texts have their result{}{}", SignalName(signal),
                            counts_.texts - counts_.failed, writer_->Unwritten(), no_file));
  }
  if (counts_.failed == 0) return kEmbedAllOk;
  if (options_.npy()) {
    for (const std::string& error : errors_) sutra::Say(options_.program, error);
    if (counts_.failed > errors_.size()) {
      sutra::Say(options_.program, fmt::format("... and {} more", counts_.failed - errors_.size()));
    }
  }
  return Fail(options_.program, kEmbedSomeFailed,
              fmt::format("{} of {} texts failed{}", counts_.failed, counts_.texts,
                          options_.npy() ? ": their rows are NaN" : ""));
}

int WithEmbedJob(const EmbedOptions& options, uint32_t width, const std::function<int(EmbedJob&)>& body) {
  Result<LineReader> reader = LineReader::Open(options.input, LineEndOf(options.format()));
  if (!reader.ok()) return Fail(options.program, kEmbedUsage, reader.status().message());
  CatchInterruptions();  // before this nothing exists that could be lost
  auto writer = options.discard ? OpenNoWriter()
                : options.npy() ? OpenNpyWriter(options.output, width, reader->fd())
                                : OpenJsonlWriter(options.output, reader->fd());
  if (!writer.ok() && writer.code() == StatusCode::kCancelled) {
    const int signal = InterruptedBy();
    return Fail(options.program, 128 + signal,
                fmt::format("interrupted by {} before anything was written: {}", SignalName(signal),
                            writer.status().message()));
  }
  if (!writer.ok()) return Fail(options.program, kEmbedUsage, writer.status().message());
  EmbedJob job(options, std::move(reader).value(), std::move(writer).value());
  return body(job);
}

}  // namespace sutra
