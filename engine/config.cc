// Declares the options to CLI11. CLI11 throws on errors; everything it throws is turned into a Status here.
#include "engine/config.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <sstream>
#include <string_view>
#include <type_traits>

#include "engine/config_file.h"
#include "engine/lanes/listening_socket.h"
#include "engine/option_validators.h"
#include "shm/base/enum_names.h"
#include "shm/base/host.h"
#include "shm/base/printable.h"
#include "shm/control_messages.h"

#ifndef SUTRA_VERSION
#define SUTRA_VERSION "0.1.0"
#endif

namespace sutra {

const char* const kEngineVersion = SUTRA_VERSION;

namespace {

// Numeric ids, comma-separated; an empty text is an empty list. Users and groups may have any 32-bit number but the
// last, which means "no id" to the kernel.
bool ParseIds(const std::string& text, std::vector<uint32_t>* ids) {
  std::istringstream items(text);
  for (std::string item; std::getline(items, item, ',');) {
    uint32_t id = 0;
    if (!CLI::detail::lexical_cast(item, id) || id == UINT32_MAX) return false;
    ids->push_back(id);
  }
  return true;
}

struct IdList : CLI::Validator {
  IdList() {
    name_ = "ID,...";
    func_ = [](std::string& text) -> std::string {
      std::vector<uint32_t> ids;
      return ParseIds(text, &ids) ? "" : "'" + text + "' is not a comma-separated list of numeric ids";
    };
  }
};

// Values as they come from the command line, before they become an EngineConfig.
struct Texts {
  std::string backend = NameOf(kBackendNames, EngineConfig().backend);
  std::string executor = NameOf(kExecutorNames, EngineConfig().executor);
  std::string precision = NameOf(kPrecisionNames, EngineConfig().precision);
  std::string device = NameOf(kDeviceNames, EngineConfig().device);
  std::string cpu_isa = NameOf(kCpuIsaNames, EngineConfig().cpu_isa);
  std::string socket_mode = "auto";
  std::string stats_mode = "0640";
  std::string allow_uids, allow_gids, control_gids, hot_gids;
  std::string durability = NameOf(kDurabilityPolicyNames, EngineConfig().durability);
  std::string disk_io = NameOf(kDiskIoKindNames, EngineConfig().disk_io);
  bool no_cache = false;
  bool version = false;
  // What a live engine is asked.
  std::string status, hand_over, set_log_level;
  bool json = false;
  uint32_t wait_s = kWaitSecondsRange.otherwise;
};

template <typename T>
CLI::Option* Number(CLI::App& app, const char* name, T* target, const OptionRange<T>& range, const char* description) {
  CLI::Option* option = app.add_option(name, *target, description)->check(CLI::Range(range.low, range.high));
  if constexpr (std::is_floating_point_v<T>) option->check(NotNan());
  return option;
}

template <typename Enum, size_t kCount>
CLI::Option* Choice(CLI::App& app, const char* name, EnumNames<Enum, kCount>& names, std::string* target,
                    const char* description) {
  std::vector<std::string> allowed;
  for (const auto& item : names) allowed.emplace_back(item.first);
  return app.add_option(name, *target, description)->check(CLI::IsMember(allowed));
}

// CLI11 also takes numbers, letters and more words for a truth value.
CLI::Option* Flag(CLI::App& app, const char* name, bool* target, const char* description) {
  return app.add_flag(name, *target, description)->check(CLI::IsMember({"true", "false"}));
}

void AddModelOptions(CLI::App& app, EngineConfig* config, Texts* texts) {
  app.add_option("--model", config->model, "Model directory (Hugging Face / sentence-transformers layout)");
  Choice(app, "--backend", kBackendNames, &texts->backend,
         "torch (a real model, computed by --executor), or fake (a function of the text, for tests)");
  Number(app, "--fake-width", &config->fake_width, kFakeWidthRange, "Floats per vector of the fake backend");
  Choice(app, "--executor", kExecutorNames, &texts->executor,
         "What computes a real model: cpu (our kernels), torch (libsutra_torch.so), or auto (the faster one here)");
  Choice(app, "--precision", kPrecisionNames, &texts->precision,
         "auto (bf16 where the CPU has it), fp32, bf16, or int8 (faster; vectors differ a little more)");
  Number(app, "--int8-cosine-min", &config->int8_cosine_min, kInt8CosineMinRange,
         "Refuse int8 if a built-in text comes less close to fp32 than this cosine (0: never)");
  Choice(app, "--device", kDeviceNames, &texts->device, "cpu or cuda");
  Choice(app, "--cpu-isa", kCpuIsaNames, &texts->cpu_isa,
         "The instructions that our CPU kernels may use at most; auto: all that this CPU has");
  Number(app, "--threads", &config->threads, kThreadsRange,
         "Threads that compute, of all core groups (default: the usable CPUs)");
  Number(app, "--core-groups", &config->core_groups, kCoreGroupsRange,
         "Groups of neighbouring CPUs that compute a batch each, with a share of --threads (0: one for each last-level "
         "cache and node, 1: all threads compute every batch together)");
}

void AddAttachOptions(CLI::App& app, EngineConfig* config, Texts* texts) {
  app.add_option("--socket", config->socket, "Unix socket to serve (at most 103 bytes)");
  app.add_option("--socket-mode", texts->socket_mode, "Octal mode, or auto: 0600, or 0666 if other users are allowed")
      ->check(CLI::IsMember({"auto"}) | OctalMode());
  app.add_option("--allow-uid", texts->allow_uids, "Other users that may attach: numbers, comma-separated")
      ->check(IdList());
  app.add_option("--allow-gid", texts->allow_gids, "Groups whose members may attach: numbers, comma-separated")
      ->check(IdList());
  app.add_option("--control-gid", texts->control_gids,
                 "Groups whose members may control the engine (--status, --hand-over, --set-log-level), beside its own "
                 "user and root: numbers, comma-separated")
      ->check(IdList());
  app.add_option("--hot-gid", texts->hot_gids,
                 "Groups whose members may read hot vectors in the engine's memory (--hot-bytes-max), beside its own "
                 "user and root, if they may attach: numbers, comma-separated")
      ->check(IdList());
  Number(app, "--lanes-max", &config->lanes_max, kLanesRange, "Maximum number of lanes served at once");
  Number(app, "--lanes-per-uid-max", &config->lanes_per_uid_max, kLanesPerUidRange,
         "Maximum number of lanes per user (0: all if only one may attach, else an eighth)");
  Number(app, "--lanes-per-client-max", &config->lanes_per_client_max, kLanesPerClientRange,
         "Maximum number of lanes per client process");
  Number(app, "--attach-rate-max", &config->attach_rate_max, kAttachRateRange,
         "Maximum attaches per second and user, after 64 at once");
  Number(app, "--lane-bytes-max", &config->lane_bytes_max, kLaneBytesRange,
         "Maximum shared memory of all lanes, charged at full size");
  Number(app, "--lane-bytes-per-uid-max", &config->lane_bytes_per_uid_max, kLaneBytesShareRange,
         "Maximum shared memory of the lanes of one user (0: as for the number of lanes)");
  Number(app, "--lane-bytes-per-client-max", &config->lane_bytes_per_client_max, kLaneBytesShareRange,
         "Maximum shared memory of the lanes of one client process (0: a quarter)");
  Number(app, "--slots", &config->slots, kSlotsRange, "Default number of slots per lane")->check(PowerOfTwo());
  Number(app, "--text-bytes-max", &config->text_bytes_max, kTextBytesRange,
         "Maximum bytes of one text; the model reads as much of it as it can");
}

void AddCacheOptions(CLI::App& app, EngineConfig* config, Texts* texts) {
  app.add_option("--data", config->data,
                 "Directory of the cache shard and of the lock on it; not used with --no-cache");
  Flag(app, "--no-cache", &texts->no_cache, "Compute every text; nothing is stored");
  Number(app, "--cache-entries-max", &config->cache_entries_max, kCacheEntriesRange, "Maximum number of cache entries");
  Number(app, "--cache-bytes-max", &config->cache_bytes_max, kCacheBytesRange, "Maximum memory of the cache entries");
  Number(app, "--hot-bytes-max", &config->hot_bytes_max, kHotBytesRange,
         "Maximum memory of the table of hot vectors, which clients of the engine's user read themselves (0: none)");
  Number(app, "--ttl-s", &config->ttl_s, kTtlSecondsRange, "Default lifetime of a cache entry");
  Choice(app, "--durability", kDurabilityPolicyNames, &texts->durability,
         "none, interval, group or sync (cache/wal/WAL_FORMAT.md)");
  Number(app, "--wal-bytes-max", &config->wal_bytes_max, kWalBytesRange, "Maximum disk space of the log");
  Number(app, "--wal-segment-bytes", &config->wal_segment_bytes, kSegmentBytesRange, "Size of one log file");
  Number(
      app, "--data-bytes-max", &config->data_bytes_max, kDataBytesRange,
      "Maximum disk space of the caches of all models in --data; the longest unused goes first, the served one never "
      "(0: twice --wal-bytes-max)");
  Choice(app, "--disk-io", kDiskIoKindNames, &texts->disk_io,
         "auto (io_uring where the kernel allows it), io_uring or posix");
  Flag(app, "--strict-recovery", &config->strict_recovery, "Refuse to start on a damaged log");
}

void AddServingOptions(CLI::App& app, EngineConfig* config, Texts* texts) {
  Number(app, "--batch-tokens-max", &config->batch_tokens_max, kBatchTokensRange, "Maximum number of tokens per batch");
  Number(app, "--queue-texts-max", &config->queue_texts_max, kQueueTextsRange,
         "Maximum number of texts waiting for the model; one client gets at most half, further ones are `overloaded`");
  Number(app, "--queue-bytes-max", &config->queue_bytes_max, kQueueBytesRange,
         "Maximum memory of the texts waiting for the model; shared out in the same way");
  Number(app, "--spin-us", &config->spin_us, kSpinUsRange, "How long the loop spins before it sleeps");
  Number(app, "--drain-s", &config->drain_s, kDrainSecondsRange, "How long SIGTERM waits for requests in flight");
  Flag(app, "--standby", &config->standby,
       "Load the model, wait for the end of the engine at --socket and --data, and go on in its place");
  app.add_option("--stats-mode", texts->stats_mode, "Octal mode of the stats segment")->check(OctalMode());
  Choice(app, "--log-level", kLogVerbosityNames, &config->log_level, "trace, debug, info, warn or err");
}

// Commands to an engine that runs; no option of the file for --config.
void AddOperatorOptions(CLI::App& app, Texts* texts) {
  std::vector<CLI::Option*> options = {
      app.add_option("--status", texts->status, "Show the engine that serves this SOCKET, and its standbys; then exit"),
      app.add_option("--hand-over", texts->hand_over,
                     "Let the engine that serves this SOCKET hand over to a standby; exit when the next one answers"),
      Choice(app, "--set-log-level", kLogVerbosityNames, &texts->set_log_level,
             "Let the engine that serves --socket log from this level on; then exit")};
  options.push_back(Flag(app, "--json", &texts->json, "Print what these commands print as JSON"));
  options.push_back(Number(app, "--wait-s", &texts->wait_s, kWaitSecondsRange,
                           "How long --hand-over waits for the next engine's first answer"));
  for (CLI::Option* option : options) option->group("Commands to a live engine")->configurable(false);
}

void AddOptions(CLI::App& app, EngineConfig* config, Texts* texts) {
  app.option_defaults()->always_capture_default();
  app.add_flag("--version", texts->version, "Print the version")->configurable(false);
  AddModelOptions(app, config, texts);
  AddAttachOptions(app, config, texts);
  AddCacheOptions(app, config, texts);
  AddServingOptions(app, config, texts);
  AddOperatorOptions(app, texts);
}

// The conditions that span several options.
Status CheckTogether(const EngineConfig& config) {
  const auto bad = [](const std::string& message) { return Status(StatusCode::kBadOption, message); };
  if (config.socket.empty()) return bad("--socket is required: the path of the Unix socket to serve");
  if (config.data.empty() && config.cache) {
    return bad(
        "--data is required: the directory of the cache and of the lock on it (or --no-cache, which needs none)");
  }
  if (config.backend == Backend::kModel && config.model.empty()) {
    return bad("--model is required: a model directory (or --backend fake)");
  }
  if (config.socket.size() > kSocketPathBytesMax) {
    return bad("--socket " + config.socket + " has " + std::to_string(config.socket.size()) +
               " bytes; a Unix socket path has at most 107, of which the engine needs 4: choose a shorter one");
  }
  if (config.queue_bytes_max < config.text_bytes_max) {
    return bad("--queue-bytes-max (" + std::to_string(config.queue_bytes_max) +
               ") must hold at least one text of --text-bytes-max (" + std::to_string(config.text_bytes_max) +
               "): raise the one or lower the other");
  }
  if (config.hot_bytes_max != 0 && config.hot_bytes_max < kHotBytesMin) {
    return bad("--hot-bytes-max must be 0 or at least " + std::to_string(kHotBytesMin));
  }
  if (config.wal_bytes_max / kWalSegmentsMin < config.wal_segment_bytes) {
    return bad("--wal-bytes-max must hold at least four segments of --wal-segment-bytes");
  }
  if (config.data_bytes_max != 0 && config.data_bytes_max < config.wal_bytes_max) {
    return bad("--data-bytes-max (" + std::to_string(config.data_bytes_max) +
               ") must hold at least the log of the model that is served, --wal-bytes-max (" +
               std::to_string(config.wal_bytes_max) + "): raise the one or lower the other");
  }
  return {};
}

// One parse of a list of arguments: CLI11 keeps pointers to what it fills.
struct Parse {
  explicit Parse(uint32_t threads) {
    config.threads = threads;
    app.add_option("--config", file, "File of name=value lines; the command line takes precedence")
        ->configurable(false);
    AddOptions(app, &config, &texts);
  }

  // Throws what CLI11 throws.
  void Run(const std::vector<std::string>& args) {
    std::vector<std::string> reversed(args.rbegin(), args.rend());  // CLI11 pops from the back
    app.parse(reversed);
  }

  CLI::App app{"Embeds texts that arrive through shared-memory lanes; see engine/DESIGN.md", "sutra-engine"};
  EngineConfig config;
  Texts texts;
  std::string file;
};

// A setting of the file as arguments. CLI11 takes the next argument for the value if there is nothing after '='.
std::vector<std::string> Arguments(const Setting& setting) {
  if (setting.value.empty()) return {"--" + setting.name, ""};
  return {"--" + setting.name + "=" + setting.value};
}

// "cause; fix" if there is no such option or it doesn't take this value; otherwise nothing.
// `scratch` may have parsed before.
std::string WhyNot(const Setting& setting, Parse* scratch) {
  const CLI::Option* option = scratch->app.get_option_no_throw("--" + setting.name);
  if (option == nullptr || !option->get_configurable()) {
    return "there is no option '" + Printable(setting.name, HighBytes::kReplace) + "'; sutra-engine --help lists them";
  }
  // CLI11 would take "" and "{}" for true.
  const bool flag = option->get_expected_max() == 0;
  if (flag && setting.value != "true" && setting.value != "false") {
    return "'" + setting.name + "' is neither true nor false; write one of them";
  }
  try {
    scratch->Run(Arguments(setting));
  } catch (const std::exception& error) {
    return error.what();
  }
  return {};
}

// The arguments that the file stands for, without the options that the command line has.
Result<std::vector<std::string>> ArgumentsOfFile(const Parse& command_line) {
  const std::string& path = command_line.file;
  if (path.empty()) return Status(StatusCode::kBadOption, "--config is empty: name a file, or leave the option out");
  const Result<std::vector<Setting>> settings = ReadSettingsFile(path);
  if (!settings.ok()) return settings.status();
  Parse scratch(kThreadsRange.low);
  std::vector<std::string> args;
  for (const Setting& setting : settings.value()) {
    if (const std::string why = WhyNot(setting, &scratch); !why.empty()) return BadLine(path, setting.line, why);
    if (command_line.app.count("--" + setting.name) != 0) continue;
    const std::vector<std::string> more = Arguments(setting);
    args.insert(args.end(), more.begin(), more.end());
  }
  return args;
}

// The value of every option as a line for the file of --config.
std::vector<std::string> OptionLines(const CLI::App& app) {
  std::vector<std::string> lines;
  for (const CLI::Option* option : app.get_options({})) {
    if (!option->get_configurable()) continue;
    const bool flag = option->get_expected_max() == 0;
    const std::string otherwise = flag ? "false" : option->get_default_str();
    lines.push_back(SettingLine(option->get_single_name(), option->empty() ? otherwise : option->results().back()));
  }
  return lines;
}

// The command to a live engine that these arguments are, if they are one.
Result<std::optional<OperatorCall>> OperatorCallOf(const Parse& parse) {
  const auto bad = [](const std::string& message) { return Status(StatusCode::kBadOption, message); };
  const Texts& texts = parse.texts;
  const auto given = [&](const char* name) { return parse.app.count(name) != 0; };
  const int commands = given("--status") + given("--hand-over") + given("--set-log-level");
  if (commands == 0) {
    if (given("--json") || given("--wait-s")) {
      return bad("--json and --wait-s belong to --status, --hand-over and --set-log-level");
    }
    return std::optional<OperatorCall>();
  }
  OperatorCall call = {.json = texts.json, .wait_s = texts.wait_s};
  if (commands > 1) return bad("--status, --hand-over and --set-log-level exclude each other");
  for (const CLI::Option* option : parse.app.get_options({})) {
    const bool socket = option->get_single_name() == "socket" && given("--set-log-level");
    const bool of_engine = option->get_configurable() || option->get_single_name() == "config";
    if (of_engine && !socket && option->count() != 0) {
      return bad("--" + option->get_single_name() + " is for starting an engine; " +
                 "--status, --hand-over and --set-log-level ask one that runs");
    }
  }
  if (given("--set-log-level")) {
    call.kind = OperatorCall::Kind::kSetLogLevel;
    call.verbosity = *EnumOf(kLogVerbosityNames, texts.set_log_level);
    call.socket = parse.config.socket;
    if (call.socket.empty()) return bad("--set-log-level also needs --socket: that of the engine");
  } else {
    call.kind = given("--status") ? OperatorCall::Kind::kStatus : OperatorCall::Kind::kHandOver;
    call.socket = given("--status") ? texts.status : texts.hand_over;
  }
  return std::optional<OperatorCall>(call);
}

}  // namespace

Result<ParsedConfig> ParseConfig(const std::vector<std::string>& args, uint32_t cpus) {
  ParsedConfig parsed;
  const uint32_t threads = std::clamp(cpus, 1u, kThreadsMax);
  Parse command_line(threads), all(threads);
  try {
    command_line.Run(args);
    if (command_line.texts.version) {
      parsed.run = false;
      parsed.text = std::string("sutra-engine ") + kEngineVersion + "\n";
      return parsed;
    }
    Result<std::optional<OperatorCall>> call = OperatorCallOf(command_line);
    if (!call.ok()) return call.status();
    if (call.value().has_value()) {
      parsed.run = false;
      parsed.operator_call = *call.value();
      return parsed;
    }
    std::vector<std::string> all_args;
    if (command_line.app.count("--config") != 0) {
      Result<std::vector<std::string>> of_file = ArgumentsOfFile(command_line);
      if (!of_file.ok()) return of_file.status();
      all_args = std::move(of_file.value());
    }
    all_args.insert(all_args.end(), args.begin(), args.end());
    all.Run(all_args);
  } catch (const CLI::CallForHelp&) {
    parsed.run = false;
    parsed.text = command_line.app.help();
    return parsed;
  } catch (const std::exception& error) {
    return Status(StatusCode::kBadOption, error.what());
  }
  parsed.lines = OptionLines(all.app);
  parsed.config = all.config;
  EngineConfig& config = parsed.config;
  const Texts& texts = all.texts;

  config.lanes_max_given = all.app.count("--lanes-max") != 0;
  config.cache = !texts.no_cache;
  // CLI::IsMember has checked that each of these is a valid name.
  config.backend = *EnumOf(kBackendNames, texts.backend);
  config.executor = *EnumOf(kExecutorNames, texts.executor);
  config.precision = *EnumOf(kPrecisionNames, texts.precision);
  config.device = *EnumOf(kDeviceNames, texts.device);
  config.cpu_isa = *EnumOf(kCpuIsaNames, texts.cpu_isa);
  config.durability = *EnumOf(kDurabilityPolicyNames, texts.durability);
  config.disk_io = *EnumOf(kDiskIoKindNames, texts.disk_io);
  ParseIds(texts.allow_uids, &config.allow_uids);
  ParseIds(texts.allow_gids, &config.allow_gids);
  ParseIds(texts.control_gids, &config.control_gids);
  ParseIds(texts.hot_gids, &config.hot_gids);
  if (texts.socket_mode != "auto") config.socket_mode = static_cast<mode_t>(std::stoul(texts.socket_mode, nullptr, 8));
  config.stats_mode = static_cast<mode_t>(std::stoul(texts.stats_mode, nullptr, 8));
  const bool others = !config.allow_uids.empty() || !config.allow_gids.empty() || !config.control_gids.empty();
  if (config.socket_mode == 0) config.socket_mode = others ? 0666 : 0600;
  if (Status status = CheckTogether(config); !status.ok()) return status;
  return parsed;
}

}  // namespace sutra
