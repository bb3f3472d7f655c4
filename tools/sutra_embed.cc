// sutra-embed: texts in, vectors (or token ids) out, one result per input line in the input's order.
//
// Single-threaded. Memory is bounded by the lane's slots: texts are submitted until the lane is full or no input is
// waiting, then the oldest result is written and its slot freed. A slow input (a pipe) gets its results at once.
// Exit codes: 0 all texts have a result; 1 some texts failed (error lines in their places); 2 usage error, unreadable
// input, no engine; 3 the engine went away or the output failed.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <csignal>
#include <cstring>
#include <deque>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "engine/tokenizer/wordpiece.h"
#include "producer/include/sutra/embed.hpp"
#include "tools/lib/progress.h"
#include "tools/lib/text_input.h"
#include "tools/lib/vector_output.h"

namespace {

using sutra::InputItem;
using sutra::LineReader;
using sutra::Progress;
using sutra::ProgressCounts;
using sutra::Result;
using sutra::ResultWriter;
using sutra::Status;

enum ExitCode { kAllOk = 0, kSomeFailed = 1, kUsage = 2, kLost = 3 };

constexpr uint32_t kSlots = 1024;
constexpr uint32_t kPatienceMs = 20;  // of one wait, while more input may come
constexpr auto kOverloadPause = std::chrono::milliseconds(20);

volatile std::sig_atomic_t interrupted = 0;

struct Options {
  std::string socket, model, input = "-", output = "-";
  std::string input_format = "lines", output_format = "jsonl", priority = "bulk";
  bool ids = false, raw = false, normalize = false, reject = false, no_cache = false, quiet = false;
  uint32_t width = 0, ttl_s = 0, timeout_s = 120, tokens_max = 0;

  sutra::InputFormat format() const {
    return input_format == "jsonl" ? sutra::InputFormat::kJsonl : sutra::InputFormat::kLines;
  }
};

int Fail(int code, const std::string& message) {
  fmt::print(stderr, "sutra-embed: {}\n", message);
  return code;
}

// What both modes share: the line that was read as an item, failures as error lines, counts, progress.
class Run {
 public:
  Run(const Options& options, LineReader reader, std::unique_ptr<ResultWriter> writer)
      : options_(options),
        reader_(std::move(reader)),
        writer_(std::move(writer)),
        progress_("sutra-embed", options.quiet) {}

  const Options& options() const { return options_; }
  ResultWriter& writer() { return *writer_; }
  bool at_end() const { return at_end_; }
  const Status& broken() const { return broken_; }  // why the run must stop; kOk while it can go on

  // One line as an item, if there is one within timeout_ms.
  bool Next(InputItem* item, int timeout_ms) {
    std::string line;
    switch (reader_.Next(&line, timeout_ms)) {
      case LineReader::Got::kLine:
        *item = sutra::ParseInputLine(options_.format(), line, reader_.line_number());
        return true;
      case LineReader::Got::kTooLong:
        *item = InputItem{};
        item->line = reader_.line_number();
        item->error = fmt::format("line {}: longer than {} bytes", item->line, LineReader::kLineBytesMax);
        return true;
      case LineReader::Got::kNotYet: return false;
      case LineReader::Got::kError:
        Break(Status::FromErrno(sutra::StatusCode::kStorageError, "reading " + options_.input, reader_.error()));
        [[fallthrough]];
      case LineReader::Got::kEnd: at_end_ = true; return false;
    }
    return false;
  }

  void Count(uint64_t tokens) {
    ++counts_.texts;
    counts_.tokens += tokens;
    Tick();
  }
  void Failed(const InputItem& item, const std::string& error) {
    ++counts_.texts;
    ++counts_.failed;
    if (first_error_.empty()) first_error_ = item.error.empty() ? fmt::format("line {}: {}", item.line, error) : error;
    Wrote(writer_->Error(item, error));
    Tick();
  }
  void Wrote(Status status) {
    if (!status.ok()) Break(std::move(status));
  }
  void Break(Status status) {
    if (broken_.ok()) broken_ = std::move(status);
  }

  int Finish(const std::string& details) {
    if (broken_.ok() && interrupted != 0) Break(Status(sutra::StatusCode::kCancelled, "interrupted"));
    // A broken run still shows the lines it has; a NumPy file then stays unwritten.
    if (broken_.ok())
      Wrote(writer_->Finish());
    else
      (void)writer_->Flush();
    std::string failed;
    if (counts_.failed != 0) failed = fmt::format(", {} failed (first: {})", counts_.failed, first_error_);
    progress_.Finish(counts_, details + failed);
    if (!broken_.ok()) return Fail(kLost, broken_.message());
    if (counts_.failed != 0)
      return Fail(kSomeFailed, fmt::format("{} of {} texts failed", counts_.failed, counts_.texts));
    return kAllOk;
  }

 private:
  void Tick() {
    counts_.done = reader_.bytes_taken();
    counts_.total = reader_.bytes_total();
    progress_.Update(counts_);
  }

  const Options& options_;
  LineReader reader_;
  std::unique_ptr<ResultWriter> writer_;
  Progress progress_;
  ProgressCounts counts_;
  Status broken_;
  std::string first_error_;
  bool at_end_ = false;
};

// max_seq_length of the model directory; 512 if it is not set.
uint32_t TokensMaxOf(const std::string& model_dir) {
  std::ifstream file(model_dir + "/sentence_bert_config.json");
  const auto json = nlohmann::json::parse(file, nullptr, false);
  if (json.is_object() && json.contains("max_seq_length") && json["max_seq_length"].is_number_unsigned()) {
    return std::max(2u, json["max_seq_length"].get<uint32_t>());
  }
  return 512;
}

// Opens input and output and runs; nothing is opened for writing before it is known that results can be produced.
template <typename Body>
int WithRun(const Options& options, Body body) {
  Result<LineReader> reader = LineReader::Open(options.input);
  if (!reader.ok()) return Fail(kUsage, reader.status().message());
  auto writer =
      options.output_format == "npy" ? sutra::OpenNpyWriter(options.output) : sutra::OpenJsonlWriter(options.output);
  if (!writer.ok()) return Fail(kUsage, writer.status().message());
  Run run(options, std::move(reader).value(), std::move(writer).value());
  return body(run);
}

int IdsLoop(Run& run, const sutra::Tokenizer& tokenizer, uint32_t tokens_max) {
  const Options& options = run.options();
  std::vector<int32_t> ids;
  InputItem item;
  while (run.broken().ok() && !run.at_end() && interrupted == 0) {
    if (!run.Next(&item, 0)) {
      if (run.at_end()) break;
      run.Wrote(run.writer().Flush());
      if (!run.Next(&item, -1)) continue;
    }
    if (!item.error.empty()) {
      run.Failed(item, item.error);
      continue;
    }
    ids.clear();  // an empty text has ids (the special tokens), though the engine embeds none
    const sutra::Encoded encoded = tokenizer.Encode(item.text, tokens_max, &ids);
    if (encoded.truncated && options.reject) {
      run.Failed(item, fmt::format("{}: over {} tokens", sutra_status_text(SUTRA_TEXT_TOO_LONG), tokens_max));
      continue;
    }
    run.Wrote(run.writer().Ids(item, ids));
    run.Count(encoded.token_count);
  }
  return run.Finish("");
}

int RunIds(const Options& options) {
  auto tokenizer = sutra::WordPieceTokenizer::Load(options.model);
  if (!tokenizer.ok()) return Fail(kUsage, tokenizer.status().message());
  const uint32_t tokens_max = options.tokens_max != 0 ? options.tokens_max : TokensMaxOf(options.model);
  return WithRun(options, [&](Run& run) { return IdsLoop(run, *tokenizer.value(), tokens_max); });
}

// Texts through the engine. `pending_` is in input order; its front is the next line of output.
class EngineRun {
 public:
  EngineRun(Run& run, sutra_client* client) : run_(run), client_(client) {
    sutra_get_info(client, &info_);
    request_ = {};
    request_.size = sizeof(request_);
    const Options& options = run.options();
    request_.flags = (options.raw ? SUTRA_RAW : 0) | (options.normalize ? SUTRA_NORMALIZE : 0) |
                     (options.reject ? SUTRA_REJECT : 0) |
                     (options.no_cache ? SUTRA_CACHE_SKIP_LOOKUP | SUTRA_CACHE_SKIP_STORE : 0);
    request_.ttl_s = options.ttl_s;
    request_.priority = options.priority == "query"  ? SUTRA_PRIORITY_QUERY
                        : options.priority == "bulk" ? SUTRA_PRIORITY_BULK
                                                     : SUTRA_PRIORITY_NORMAL;
    request_.timeout_ms = options.timeout_s * 1000;
  }

  int Go() {
    while (run_.broken().ok() && interrupted == 0) {
      Send();
      if (TakeLine()) continue;
      if (pending_.empty()) {
        if (run_.at_end()) break;
        continue;
      }
      FinishOldest();
    }
    Abandon();
    return run_.Finish(Sources());
  }

 private:
  struct Pending {
    InputItem item;
    sutra_ticket ticket = 0;  // 0 = not submitted (yet)
    std::chrono::steady_clock::time_point since;
  };

  // Reads one line into pending_ if there is room; blocks only when there is nothing else to do.
  bool TakeLine() {
    if (run_.at_end() || pending_.size() >= info_.slots || unsent_ != 0) return false;
    const bool idle = pending_.empty();
    InputItem item;
    if (!run_.Next(&item, 0)) {
      if (!idle || run_.at_end()) return false;
      run_.Wrote(run_.writer().Flush());
      if (!run_.Next(&item, -1)) return false;
    }
    const bool send = item.error.empty();
    pending_.push_back({std::move(item), 0, std::chrono::steady_clock::now()});
    if (send) ++unsent_;
    return true;
  }

  // Submits what the engine does not have yet, oldest first, until the lane is full. Found from the back: normally it
  // is the one line that was just read.
  void Send() {
    if (unsent_ == 0) return;
    std::vector<Pending*> unsent;
    for (auto entry = pending_.rbegin(); entry != pending_.rend() && unsent.size() < unsent_; ++entry) {
      if (entry->ticket == 0 && entry->item.error.empty()) unsent.push_back(&*entry);
    }
    for (auto entry = unsent.rbegin(); entry != unsent.rend(); ++entry) {
      if (!SendOne(**entry)) return;
    }
  }

  bool SendOne(Pending& entry) {
    const std::string& text = entry.item.text;
    const sutra_status status = sutra_submit(client_, text.data(), text.size(), &request_, &entry.ticket);
    if (status == SUTRA_OK) {
      --unsent_;
      return true;
    }
    entry.ticket = 0;
    if ((status == SUTRA_FULL || status == SUTRA_OVERLOADED) && Patient(entry)) return false;
    --unsent_;
    Fatal(status);
    entry.item.error = Why(status);
    return true;
  }

  // Waits a moment for the front; writes it when it is done.
  void FinishOldest() {
    Pending& entry = pending_.front();
    if (!entry.item.error.empty()) {
      run_.Failed(entry.item, entry.item.error);
      pending_.pop_front();
      return;
    }
    if (entry.ticket == 0) {  // requests that ended early fill the lane, or the engine is overloaded
      std::this_thread::sleep_for(kOverloadPause);
      return;
    }
    sutra_result result = sutra::embed::Result();
    const sutra_status status = sutra_wait(client_, entry.ticket, run_.at_end() ? 1000 : kPatienceMs, &result);
    if (status == SUTRA_NOT_READY) return;
    if (status == SUTRA_OVERLOADED && Patient(entry)) {
      sutra_release(client_, entry.ticket);
      entry.ticket = 0;
      ++unsent_;
      std::this_thread::sleep_for(kOverloadPause);
      return;
    }
    if (status == SUTRA_OK) {
      run_.Wrote(run_.writer().Vector(entry.item, {result.vector, result.width}));
      run_.Count(result.token_count);
      ++sources_[result.source];
      truncated_ += result.truncated;
    } else {
      Fatal(status);
      run_.Failed(entry.item, Why(status));
    }
    sutra_release(client_, entry.ticket);
    pending_.pop_front();
  }

  bool Patient(const Pending& entry) const {
    return std::chrono::steady_clock::now() - entry.since < std::chrono::seconds(run_.options().timeout_s);
  }

  std::string Why(sutra_status status) const {
    switch (status) {
      case SUTRA_TEXT_TOO_LONG:
        return fmt::format("{}: the engine takes {} bytes per text{}", sutra_status_text(status), info_.text_bytes_max,
                           run_.options().reject ? fmt::format(" and {} tokens", info_.tokens_max) : std::string());
      case SUTRA_BAD_OPTION: {
        const std::string text = sutra_error_text();
        return text.empty() ? sutra_status_text(status) : text;
      }
      default: return sutra_status_text(status);
    }
  }

  // After these no further text can succeed on this attachment.
  void Fatal(sutra_status status) {
    if (status != SUTRA_ENGINE_GONE && status != SUTRA_SHUTTING_DOWN && status != SUTRA_REFUSED &&
        status != SUTRA_PROTOCOL_VIOLATION) {
      return;
    }
    run_.Break(Status(static_cast<sutra::StatusCode>(status),
                      fmt::format("{} while texts were in flight ({}); start the engine and run again",
                                  sutra_status_text(status), sutra_error_text())));
  }

  // Texts that were read but not answered still get their line when the run breaks off.
  void Abandon() {
    for (Pending& entry : pending_) {
      run_.Failed(entry.item, !entry.item.error.empty() ? entry.item.error
                              : interrupted != 0        ? "interrupted"
                                                        : run_.broken().message());
      if (entry.ticket != 0) sutra_release(client_, entry.ticket);
    }
    pending_.clear();
  }

  std::string Sources() {
    std::string text = fmt::format("; {} from the cache, {} joined, {} computed",
                                   sources_[SUTRA_SOURCE_SHARD] + sources_[SUTRA_SOURCE_HOT_TABLE],
                                   sources_[SUTRA_SOURCE_JOINED], sources_[SUTRA_SOURCE_MODEL]);
    if (truncated_ != 0) text += fmt::format(", {} truncated at {} tokens", truncated_, info_.tokens_max);
    return text;
  }

  Run& run_;
  sutra_client* client_;
  sutra_info info_ = sutra::embed::Info();
  sutra_options request_{};
  std::deque<Pending> pending_;
  size_t unsent_ = 0;
  std::map<int, uint64_t> sources_;
  uint64_t truncated_ = 0;
};

int RunEngine(const Options& options) {
  sutra_attach_options attach{};
  attach.size = sizeof(attach);
  attach.slots = kSlots;
  attach.lanes_max = 1;
  attach.width = options.width;
  attach.model = options.model.empty() ? nullptr : options.model.c_str();
  attach.client_name = "sutra-embed";
  sutra_client* client = nullptr;
  const sutra_status status = sutra_attach(options.socket.c_str(), &attach, &client);
  if (status != SUTRA_OK) {
    const std::string reason = sutra_error_text();
    return Fail(kUsage, fmt::format("attaching to {}: {}{}{}", options.socket, sutra_status_text(status),
                                    reason.empty() ? "" : ": ", reason));
  }
  const int code = WithRun(options, [&](Run& run) { return EngineRun(run, client).Go(); });
  sutra_detach(client);
  return code;
}

std::string CheckOptions(const Options& options) {
  if (options.ids && options.model.empty()) return "--ids needs --model DIR (the model directory with its tokenizer)";
  if (options.ids && options.output_format == "npy") return "--ids writes JSON lines only: drop --output-format npy";
  if (!options.ids && options.socket.empty()) {
    return "--socket PATH is required: the socket of a running engine (or --ids --model DIR for token ids)";
  }
  if (options.raw && options.normalize) return "--raw and --normalize exclude each other";
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Embeds texts through a running engine, one result per input line, in order.", "sutra-embed");
  app.add_option("--socket", options.socket, "Socket of the engine");
  app.add_option("--input", options.input, "File, or - for standard input")->capture_default_str();
  app.add_option("--input-format", options.input_format, "lines, or jsonl: a string or {\"text\": ...} per line")
      ->check(CLI::IsMember({"lines", "jsonl"}))
      ->capture_default_str();
  app.add_option("--output", options.output, "File, or - for standard output")->capture_default_str();
  app.add_option("--output-format", options.output_format,
                 "jsonl: one {\"text\": ..., \"vector\": [...]} per line; npy: float32")
      ->check(CLI::IsMember({"jsonl", "npy"}))
      ->capture_default_str();
  app.add_flag("--ids", options.ids, "Token ids instead of vectors, from --model DIR, without an engine");
  app.add_option("--model", options.model, "With --ids the model directory; else refuse an engine with another model");
  app.add_option("--max-tokens", options.tokens_max, "With --ids: token limit per text (default: the model's)")
      ->check(CLI::Range(2u, 1u << 20));
  app.add_option("--width", options.width, "Refuse an engine whose vectors have another width");
  app.add_flag("--raw", options.raw, "Pooled vectors, not normalised");
  app.add_flag("--normalize", options.normalize, "Unit length, whatever the model's default");
  app.add_flag("--reject", options.reject, "Fail texts over the token limit instead of truncating them");
  app.add_option("--ttl", options.ttl_s, "Seconds that the cache keeps the vectors (default: the engine's)");
  app.add_flag("--no-cache", options.no_cache, "Compute every text and store nothing");
  app.add_option("--priority", options.priority, "normal, query or bulk")
      ->check(CLI::IsMember({"normal", "query", "bulk"}))
      ->capture_default_str();
  app.add_option("--timeout", options.timeout_s, "Timeout per text in seconds")
      ->check(CLI::Range(1u, 86'400u))
      ->capture_default_str();
  app.add_flag("--quiet", options.quiet, "No progress and no summary on standard error");
  app.footer(
      "Exit codes: 0 every text has its result; 1 some failed (see their error lines); 2 usage error or no engine;\n"
      "3 the engine went away or the output failed.");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kUsage;
  }
  if (const std::string wrong = CheckOptions(options); !wrong.empty()) return Fail(kUsage, wrong);

  struct sigaction action {};
  action.sa_handler = [](int) { interrupted = 1; };
  sigaction(SIGINT, &action, nullptr);  // without SA_RESTART: a blocked read of input returns
  sigaction(SIGTERM, &action, nullptr);
  return options.ids ? RunIds(options) : RunEngine(options);
}
