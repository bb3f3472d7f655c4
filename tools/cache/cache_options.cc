// One subcommand each, and what they have in common.
#include "tools/cache/cache_options.h"

#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <limits>

#include "shm/base/unique_fd.h"
#include "tools/lib/program.h"

namespace sutra {

namespace {

constexpr const char* kExitCodes =
    "Exit codes:\n"
    "  0        done\n"
    "  1        a wrong call, it was not confirmed, or it failed\n"
    "  2        not found: no such text, entry, model or cache\n"
    "  3        verify: the files are damaged, and what a start would lose was said\n"
    "  4        verify: they cannot be read\n"
    "  130 143  interrupted (SIGINT, SIGTERM): what was done until then was said\n"
    "What removes something shows first how much that is, and then asks, on a terminal; elsewhere it needs --yes.";

void DefinePlace(CLI::App* command, CacheOptions* options) {
  command->add_option("--socket", options->socket, "Socket of a running engine");
  command->add_option("--data", options->data, "Data directory of an engine, running or not");
  command->add_option("--identity", options->identity,
                      "With --data that holds several caches: how the model's identity begins (see: identities)");
  command->add_flag("--json", options->json, "JSON on standard output");
  command->add_flag("--quiet", options->quiet, "No progress and no summary on standard error");
}

void DefineTexts(CLI::App* command, CacheOptions* options) {
  command->add_option("text", options->texts, "Texts, exactly as they were embedded");
  command->add_option("--input", options->input, "File of texts, or - for standard input");
  command->add_option("--input-format", options->input_format, "lines, jsonl (a string or {\"text\": ...}) or nul")
      ->check(CLI::IsMember({"lines", "jsonl", "nul"}))
      ->capture_default_str();
  command->add_option("--variant", options->variant, "Variant of the entry, as dump shows it")->capture_default_str();
}

void DefineChange(CLI::App* command, CacheOptions* options) {
  command->add_flag("--dry-run", options->dry_run, "Show what it would do, and change nothing");
  command->add_flag("--yes", options->yes, "Do not ask");
}

void DefineDrop(CLI::App* command, CacheOptions* options, std::string* older_than, std::string* contains_file) {
  command->add_flag("--all", options->filter.everything, "Every entry");
  command->add_option("--older-than", *older_than, "Inserted at least so long ago: 90s, 15m, 36h, 7d");
  command->add_option("--contains", options->filter.contains, "The text has these bytes in it");
  command->add_option("--contains-file", *contains_file, "The same, with the bytes of a file (NUL among them)");
  command->add_flag("--never-hit", options->filter.never_hit, "Nobody was answered from it since it was inserted");
  command->add_option("--model", options->model,
                      "A model by its name, or by how its identity begins: its whole cache, or with conditions a part");
  DefineChange(command, options);
}

Result<std::string> ReadPattern(const std::string& path) {
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string bytes(kFilterContainsBytesMax + 1, '\0');
  const ssize_t got = file ? read(file.get(), bytes.data(), bytes.size()) : -1;
  if (got < 0) return Status::FromErrno(StatusCode::kBadOption, "reading " + path, errno);
  bytes.resize(static_cast<size_t>(got));
  if (bytes.empty()) return Status(StatusCode::kBadOption, path + " is empty");
  return bytes;
}

bool TakesTexts(CacheCommand command) { return command == CacheCommand::kGet || command == CacheCommand::kErase; }

// What is wrong, or "".
std::string Check(const CacheOptions& options) {
  const bool live = !options.socket.empty();
  if (live == !options.data.empty()) {
    return "name a running engine (--socket PATH) or a data directory (--data DIR), one of them";
  }
  if (live && !options.identity.empty()) return "--identity chooses among the caches in --data DIR";
  if (TakesTexts(options.command) && options.texts.empty() == options.input.empty()) {
    return "name texts, or a file of them with --input FILE";
  }
  if (options.command == CacheCommand::kVerify && live) {
    return "verify reads files: --data DIR (it may do so while an engine runs)";
  }
  if (options.command == CacheCommand::kWarm && !live) return "warm needs a running engine: --socket PATH";
  if (options.command == CacheCommand::kExport && options.format == "npy" && options.output == "-") {
    return "--format npy writes two files: name their directory with --output DIR";
  }
  if (options.command != CacheCommand::kDrop) return "";
  const CacheFilter& filter = options.filter;
  if (!filter.any() && options.model.empty()) {
    return "drop needs a condition: --all, --older-than, --contains, --never-hit or --model";
  }
  if (filter.everything && (filter.never_hit || filter.older_than_s > 0 || !filter.contains.empty())) {
    return "--all excludes the other conditions";
  }
  if (filter.contains.size() > kFilterContainsBytesMax) {
    return "--contains takes at most " + std::to_string(kFilterContainsBytesMax) + " bytes";
  }
  return "";
}

}  // namespace

Result<uint64_t> ParseDuration(const std::string& text) {
  const Status wrong(StatusCode::kBadOption, "'" + text + "' is no duration; examples: 90s, 15m, 36h, 7d, 1d12h");
  uint64_t total = 0, number = 0;
  bool digits = false;
  constexpr uint64_t kMax = std::numeric_limits<uint32_t>::max();
  const auto add = [&](uint64_t unit_s) {
    if (!digits) return false;
    total += number * unit_s;
    number = 0;
    digits = false;
    return total <= kMax;
  };
  for (const char c : text) {
    bool right = true;
    switch (c) {
      case 's': right = add(1); break;
      case 'm': right = add(60); break;
      case 'h': right = add(3600); break;
      case 'd': right = add(86'400); break;
      case 'w': right = add(7 * 86'400); break;
      default:
        right = c >= '0' && c <= '9' && number <= kMax;
        number = number * 10 + static_cast<uint64_t>(c - '0');
        digits = true;
    }
    if (!right) return wrong;
  }
  if (digits && !add(1)) return wrong;
  if (total == 0) return wrong;
  return total;
}

std::optional<int> ParseCacheOptions(int argc, char** argv, CacheOptions* options) {
  CLI::App app("Looks at and changes a cache of embeddings: of a running engine, or its files at rest.", kCacheName);
  std::string older_than, contains_file;
  app.require_subcommand(1);
  app.footer(kExitCodes);
  const auto define = [&](const char* name, CacheCommand command, const char* what) {
    CLI::App* const sub = app.add_subcommand(name, what);
    sub->callback([options, command] { options->command = command; });
    sub->footer(kExitCodes);
    DefinePlace(sub, options);
    return sub;
  };
  define("stats", CacheCommand::kStats, "How much is in it");
  define("identities", CacheCommand::kIdentities, "Every model's cache in a data directory, with size and age");
  CLI::App* const get = define("get", CacheCommand::kGet, "The entries of these texts");
  DefineTexts(get, options);
  get->add_flag("--vectors", options->vectors, "All floats (default: the first four)");
  CLI::App* const dump = define("dump", CacheCommand::kDump, "Every entry as a JSON line, in no order");
  dump->add_flag("--vectors", options->vectors, "All floats (default: the first four)");
  dump->add_flag("--hot", options->hot, "Only what the cache would keep");
  CLI::App* const save = define("export", CacheCommand::kExport, "Every entry, to be imported again");
  save->add_option("--format", options->format, "jsonl: one file; npy: vectors.npy and texts.jsonl in a directory")
      ->check(CLI::IsMember({"jsonl", "npy"}))
      ->capture_default_str();
  save->add_option("--output", options->output, "File (- for standard output), or directory")->capture_default_str();
  save->add_flag("--hot", options->hot, "Only what the cache would keep");
  CLI::App* const load = define("import", CacheCommand::kImport, "What export wrote, into a cache of the same model");
  load->add_option("file", options->input, "File, - for standard input, or the directory of a NumPy export")
      ->required();
  load->add_flag("--replace", options->replace, "Also entries that are there already (default: they stay)");
  load->add_option("--errors-shown", options->errors_shown, "Faulty lines to show")->capture_default_str();
  load->add_flag("--dry-run", options->dry_run, "Check the file and count, and change nothing");
  CLI::App* const warm = define("warm", CacheCommand::kWarm, "Texts to compute, so that they are in the cache");
  warm->add_option("file", options->input, "File of texts, or - for standard input")->required();
  warm->add_option("--input-format", options->input_format, "lines, jsonl (a string or {\"text\": ...}) or nul")
      ->check(CLI::IsMember({"lines", "jsonl", "nul"}))
      ->capture_default_str();
  warm->add_option("--ttl", options->ttl_s, "Seconds that the cache keeps them (default: the engine's)");
  warm->add_option("--priority", options->priority, "normal, query or bulk")
      ->check(CLI::IsMember({"normal", "query", "bulk"}))
      ->capture_default_str();
  warm->add_flag("--dry-run", options->dry_run, "Count the texts that are not in the cache, and compute nothing");
  CLI::App* const erase = define("erase", CacheCommand::kErase, "Takes these texts out, for good");
  DefineTexts(erase, options);
  DefineChange(erase, options);
  DefineDrop(define("drop", CacheCommand::kDrop, "Takes out what meets all conditions, for good"), options, &older_than,
             &contains_file);
  DefineChange(define("compact", CacheCommand::kCompact, "Writes the log anew, so that removed texts leave the disk"),
               options);
  CLI::App* const verify = define("verify", CacheCommand::kVerify, "Proves the files, or names what is wrong");
  verify->add_option("--errors-shown", options->errors_shown, "Findings to show; 0: all")->capture_default_str();

  if (const auto code = ParseArguments(&app, argc, argv, kCacheError, kCacheError)) return code;
  if (!older_than.empty()) {
    const Result<uint64_t> seconds = ParseDuration(older_than);
    if (!seconds.ok()) return Fail(kCacheName, kCacheError, "--older-than: " + seconds.status().message());
    options->filter.older_than_s = *seconds;
  }
  if (!contains_file.empty()) {
    const Result<std::string> pattern = ReadPattern(contains_file);
    if (!pattern.ok()) return Fail(kCacheName, kCacheError, "--contains-file: " + pattern.status().message());
    options->filter.contains = *pattern;
  }
  if (const std::string wrong = Check(*options); !wrong.empty()) return Fail(kCacheName, kCacheError, wrong);
  return std::nullopt;
}

}  // namespace sutra
