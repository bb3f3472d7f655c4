// The options of sutra-embed, and which of them exclude each other.
#include "tools/lib/embed_options.h"

#include <CLI/CLI.hpp>

#include "tools/lib/program.h"

namespace sutra {

namespace {

constexpr const char* kExitCodes =
    "Exit codes:\n"
    "  0        every text has its result\n"
    "  1        some texts failed: each has an error in its place, or a row of NaN in a NumPy file\n"
    "  2        wrong call, no engine, or an input that cannot be read\n"
    "  3        the output failed, or the engine went away and none came back within --wait-engine\n"
    "  130 143  interrupted (SIGINT, SIGTERM): what was answered is written; a second signal ends it at once\n"
    "In every case the results that exist are written as JSON lines; a NumPy file appears only with code 0 or 1.";

void DefineFiles(CLI::App* app, EmbedOptions* options) {
  app->add_option("--socket", options->socket, "Socket of the engine");
  app->add_option("--input", options->input, "File, or - for standard input")->capture_default_str();
  app->add_option("--input-format", options->input_format, "lines, or jsonl: a string or {\"text\": ...} per line")
      ->check(CLI::IsMember({"lines", "jsonl"}))
      ->capture_default_str();
  app->add_option("--output", options->output, "File, or - for standard output")->capture_default_str();
  app->add_option("--output-format", options->output_format,
                  "jsonl: one {\"text\": ..., \"vector\": [...]} per line; npy: float32, one row per line")
      ->check(CLI::IsMember({"jsonl", "npy"}))
      ->capture_default_str();
  app->add_flag("--ids", options->ids, "Token ids instead of vectors, from --model DIR, without an engine");
  app->add_option("--model", options->model,
                  "With --ids the model directory; else refuse an engine with another model");
}

void DefineRequest(CLI::App* app, EmbedOptions* options) {
  app->add_option("--max-tokens", options->tokens_max, "With --ids: token limit per text (default: the model's)")
      ->check(CLI::Range(2u, 1u << 20));
  app->add_option("--width", options->width, "Refuse an engine whose vectors have another width");
  app->add_flag("--raw", options->raw, "Pooled vectors, not normalised");
  app->add_flag("--normalize", options->normalize, "Unit length, whatever the model's default");
  app->add_flag("--reject", options->reject, "Fail texts over the token limit instead of truncating them");
  app->add_option("--ttl", options->ttl_s, "Seconds that the cache keeps the vectors (default: the engine's)");
  app->add_flag("--no-cache", options->no_cache, "Compute every text and store nothing");
  app->add_option("--priority", options->priority, "normal, query or bulk")
      ->check(CLI::IsMember({"normal", "query", "bulk"}))
      ->capture_default_str();
  app->add_option("--timeout", options->timeout_s, "Timeout per text in seconds")
      ->check(CLI::Range(1u, 86'400u))
      ->capture_default_str();
  app->add_option("--wait-engine", options->wait_engine_s,
                  "Seconds to wait for the next engine when this one stops or dies meanwhile; 0: give up at once")
      ->check(CLI::Range(0u, 86'400u))
      ->capture_default_str();
  app->add_flag("--quiet", options->quiet, "No progress and no summary on standard error");
}

// What is wrong, or "".
std::string Check(const EmbedOptions& options) {
  if (options.ids && options.model.empty()) return "--ids needs --model DIR (the model directory with its tokenizer)";
  if (options.ids && options.npy()) return "--ids writes JSON lines only: drop --output-format npy";
  if (!options.ids && options.socket.empty()) {
    return "--socket PATH is required: the socket of a running engine (or --ids --model DIR for token ids)";
  }
  if (options.raw && options.normalize) return "--raw and --normalize exclude each other";
  return {};
}

}  // namespace

std::optional<int> ParseEmbedOptions(int argc, char** argv, EmbedOptions* options) {
  CLI::App app("Embeds texts through a running engine, one result per input line, in order.", kEmbedName);
  DefineFiles(&app, options);
  DefineRequest(&app, options);
  app.footer(kExitCodes);
  if (const auto code = ParseArguments(&app, argc, argv, kEmbedUsage, kEmbedLost)) return code;
  if (const std::string wrong = Check(*options); !wrong.empty()) return Fail(kEmbedName, kEmbedUsage, wrong);
  return std::nullopt;
}

}  // namespace sutra
