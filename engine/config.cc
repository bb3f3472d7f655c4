// Declares the options to CLI11. CLI11 throws on errors; everything it throws is turned into a Status here.
#include "engine/config.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <sstream>
#include <string_view>

#include "engine/lanes/listening_socket.h"
#include "shm/base/enum_names.h"
#include "shm/base/host.h"

#ifndef SUTRA_VERSION
#define SUTRA_VERSION "0.1.0"
#endif

namespace sutra {

const char* const kEngineVersion = SUTRA_VERSION;

namespace {

// Accepts 0 to 0777 in octal, as chmod does.
struct OctalMode : CLI::Validator {
  OctalMode() {
    name_ = "MODE";
    func_ = [](std::string& text) -> std::string {
      const bool digits = !text.empty() && text.find_first_not_of("01234567") == std::string::npos;
      if (!digits || text.size() > 4 || std::stoul(text, nullptr, 8) > 0777) {
        return "'" + text + "' is not an octal mode from 0 to 0777";
      }
      return {};
    };
  }
};

struct PowerOfTwo : CLI::Validator {
  PowerOfTwo() {
    name_ = "POWER OF 2";
    func_ = [](std::string& text) -> std::string {
      uint64_t value = 0;
      if (!CLI::detail::lexical_cast(text, value) || value == 0 || (value & (value - 1)) != 0) {
        return "'" + text + "' is not a power of two";
      }
      return {};
    };
  }
};

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
  std::string socket_mode = "auto";
  std::string stats_mode = "0640";
  std::string allow_uids, allow_gids;
  std::string durability = NameOf(kDurabilityPolicyNames, EngineConfig().durability);
  std::string disk_io = NameOf(kDiskIoKindNames, EngineConfig().disk_io);
  bool no_cache = false;
  bool version = false;
};

template <typename T>
CLI::Option* Number(CLI::App& app, const char* name, T* target, const OptionRange<T>& range, const char* description) {
  return app.add_option(name, *target, description)->check(CLI::Range(range.low, range.high));
}

template <typename Enum, size_t kCount>
CLI::Option* Choice(CLI::App& app, const char* name, EnumNames<Enum, kCount>& names, std::string* target,
                    const char* description) {
  std::vector<std::string> allowed;
  for (const auto& item : names) allowed.emplace_back(item.first);
  return app.add_option(name, *target, description)->check(CLI::IsMember(allowed));
}

void AddModelOptions(CLI::App& app, EngineConfig* config, Texts* texts) {
  app.add_option("--model", config->model, "Model directory (Hugging Face / sentence-transformers layout)");
  Choice(app, "--backend", kBackendNames, &texts->backend,
         "torch (a real model, computed by --executor), or fake (a function of the text, for tests)");
  Number(app, "--fake-width", &config->fake_width, kFakeWidthRange, "Floats per vector of the fake backend");
  Choice(app, "--executor", kExecutorNames, &texts->executor,
         "What computes a real model: cpu (our kernels), torch (libsutra_torch.so), or auto (the faster one here)");
  Choice(app, "--precision", kPrecisionNames, &texts->precision, "auto (bf16 where the CPU has it), fp32 or bf16");
  Choice(app, "--device", kDeviceNames, &texts->device, "cpu or cuda");
  Number(app, "--threads", &config->threads, kThreadsRange, "Threads per batch (default: the usable CPUs)");
}

void AddAttachOptions(CLI::App& app, EngineConfig* config, Texts* texts) {
  app.add_option("--socket", config->socket, "Unix socket to serve (at most 103 bytes)");
  app.add_option("--socket-mode", texts->socket_mode, "Octal mode, or auto: 0600, or 0666 if other users are allowed")
      ->check(CLI::IsMember({"auto"}) | OctalMode());
  app.add_option("--allow-uid", texts->allow_uids, "Other users that may attach: numbers, comma-separated")
      ->check(IdList());
  app.add_option("--allow-gid", texts->allow_gids, "Groups whose members may attach: numbers, comma-separated")
      ->check(IdList());
  Number(app, "--lanes-max", &config->lanes_max, kLanesRange, "Maximum number of lanes served at once");
  Number(app, "--lanes-per-uid-max", &config->lanes_per_uid_max, kLanesPerUidRange, "Maximum number of lanes per user");
  Number(app, "--lane-bytes-max", &config->lane_bytes_max, kLaneBytesRange,
         "Maximum shared memory of all lanes, charged at full size");
  Number(app, "--slots", &config->slots, kSlotsRange, "Default number of slots per lane")->check(PowerOfTwo());
  Number(app, "--text-bytes-max", &config->text_bytes_max, kTextBytesRange, "Maximum bytes of one text");
}

void AddCacheOptions(CLI::App& app, EngineConfig* config, Texts* texts) {
  app.add_option("--data", config->data,
                 "Directory of the cache shard and of the lock on it; not used with --no-cache");
  app.add_flag("--no-cache", texts->no_cache, "Compute every text; nothing is stored");
  Number(app, "--cache-entries-max", &config->cache_entries_max, kCacheEntriesRange, "Maximum number of cache entries");
  Number(app, "--cache-bytes-max", &config->cache_bytes_max, kCacheBytesRange, "Maximum memory of the cache entries");
  Number(app, "--ttl-s", &config->ttl_s, kTtlSecondsRange, "Default lifetime of a cache entry");
  Choice(app, "--durability", kDurabilityPolicyNames, &texts->durability,
         "none, interval, group or sync (cache/wal/WAL_FORMAT.md)");
  Number(app, "--wal-bytes-max", &config->wal_bytes_max, kWalBytesRange, "Maximum disk space of the log");
  Number(app, "--wal-segment-bytes", &config->wal_segment_bytes, kSegmentBytesRange, "Size of one log file");
  Choice(app, "--disk-io", kDiskIoKindNames, &texts->disk_io,
         "auto (io_uring where the kernel allows it), io_uring or posix");
  app.add_flag("--strict-recovery", config->strict_recovery, "Refuse to start on a damaged log");
}

void AddServingOptions(CLI::App& app, EngineConfig* config, Texts* texts) {
  Number(app, "--batch-tokens-max", &config->batch_tokens_max, kBatchTokensRange, "Maximum number of tokens per batch");
  Number(app, "--queue-texts-max", &config->queue_texts_max, kQueueTextsRange,
         "Maximum number of texts waiting for the model; further ones are `overloaded`");
  Number(app, "--spin-us", &config->spin_us, kSpinUsRange, "How long the loop spins before it sleeps");
  Number(app, "--drain-s", &config->drain_s, kDrainSecondsRange, "How long SIGTERM waits for requests in flight");
  app.add_option("--stats-mode", texts->stats_mode, "Octal mode of the stats segment")->check(OctalMode());
  app.add_option("--log-level", config->log_level, "trace, debug, info, warn or err")
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "err"}));
}

void AddOptions(CLI::App& app, EngineConfig* config, Texts* texts) {
  app.option_defaults()->always_capture_default();
  app.add_flag("--version", texts->version, "Print the version")->configurable(false);
  AddModelOptions(app, config, texts);
  AddAttachOptions(app, config, texts);
  AddCacheOptions(app, config, texts);
  AddServingOptions(app, config, texts);
}

// "2026-01-31T12:00:00..." begins each line that the engine logs.
bool IsLogLine(const std::string& line) {
  constexpr std::string_view kForm = "0000-00-00T00:00:00";
  if (line.size() < kForm.size()) return false;
  return std::equal(kForm.begin(), kForm.end(), line.begin(),
                    [](char form, char is) { return form == '0' ? is >= '0' && is <= '9' : is == form; });
}

// The file of --config, line by line, so that an error names its line. Lines of the engine's log are passed over:
// everything that an engine prints at its start can be read as it stands.
class ConfigFile : public CLI::ConfigTOML {
 public:
  explicit ConfigFile(const CLI::App* app) : app_(app) {}

  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    const std::string path = app_->get_config_ptr()->results().back();
    std::vector<CLI::ConfigItem> all;
    std::map<std::string, size_t> lines;
    std::string line;
    for (size_t number = 1; std::getline(input, line); ++number) {
      if (IsLogLine(line)) continue;
      const auto fail = [&](const std::string& why) {
        throw CLI::ConfigError(path + ":" + std::to_string(number) + ": " + why);
      };
      std::istringstream one(line);
      for (CLI::ConfigItem& item : CLI::ConfigTOML::from_config(one)) {
        if (!item.parents.empty()) fail("options are not in sections: leave the line out");
        if (std::string why = Check(item); !why.empty()) fail(why);
        const auto [before, first] = lines.emplace(item.name, number);
        if (!first) fail("--" + item.name + " was given in line " + std::to_string(before->second) + " before");
        all.push_back(std::move(item));
      }
    }
    if (input.bad()) throw CLI::ConfigError(path + ": cannot be read; is it a file?");
    return all;
  }

 private:
  // What the option itself says to this value; "" = it takes it.
  static std::string Check(const CLI::ConfigItem& item) {
    EngineConfig config;
    Texts texts;
    CLI::App app;
    AddOptions(app, &config, &texts);
    const CLI::Option* option = app.get_option_no_throw("--" + item.name);
    if (option == nullptr || !option->get_configurable()) {
      return "there is no option '" + item.name + "'; sutra-engine --help lists them";
    }
    std::vector<std::string> args;  // the last one comes first
    for (auto input = item.inputs.rbegin(); input != item.inputs.rend(); ++input) args.push_back(*input);
    args.push_back("--" + item.name);
    if (item.inputs.size() == 1 && !item.inputs[0].empty()) args = {"--" + item.name + "=" + item.inputs[0]};
    try {
      app.parse(args);
    } catch (const std::exception& error) {
      return error.what();
    }
    return {};
  }

  const CLI::App* const app_;
};

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
  if (config.wal_bytes_max / kWalSegmentsMin < config.wal_segment_bytes) {
    return bad("--wal-bytes-max must hold at least four segments of --wal-segment-bytes");
  }
  return {};
}

// The lines that CLI11 itself writes, so that the log can be read again with --config.
std::vector<std::string> OptionLines(const CLI::App& app) {
  std::istringstream text(app.config_to_str(true, false));
  std::vector<std::string> lines;
  for (std::string line; std::getline(text, line);) {
    if (!line.empty()) lines.push_back(line);
  }
  return lines;
}

}  // namespace

Result<ParsedConfig> ParseConfig(const std::vector<std::string>& args, uint32_t cpus) {
  ParsedConfig parsed;
  EngineConfig& config = parsed.config;
  config.threads = std::clamp(cpus, 1u, kThreadsMax);
  Texts texts;

  CLI::App app{"Embeds texts that arrive through shared-memory lanes; see engine/DESIGN.md", "sutra-engine"};
  app.set_config("--config", "", "File of name=value lines; the command line takes precedence");
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.config_formatter(std::make_shared<ConfigFile>(&app));
  AddOptions(app, &config, &texts);

  try {
    std::vector<std::string> reversed(args.rbegin(), args.rend());  // CLI11 pops from the back
    app.parse(reversed);
    if (texts.version) {
      parsed.run = false;
      parsed.text = std::string("sutra-engine ") + kEngineVersion + "\n";
      return parsed;
    }
    parsed.lines = OptionLines(app);
  } catch (const CLI::CallForHelp&) {
    parsed.run = false;
    parsed.text = app.help();
    return parsed;
  } catch (const std::exception& error) {
    return Status(StatusCode::kBadOption, error.what());
  }

  config.cache = !texts.no_cache;
  // CLI::IsMember has checked that each of these is a valid name.
  config.backend = *EnumOf(kBackendNames, texts.backend);
  config.executor = *EnumOf(kExecutorNames, texts.executor);
  config.precision = *EnumOf(kPrecisionNames, texts.precision);
  config.device = *EnumOf(kDeviceNames, texts.device);
  config.durability = *EnumOf(kDurabilityPolicyNames, texts.durability);
  config.disk_io = *EnumOf(kDiskIoKindNames, texts.disk_io);
  ParseIds(texts.allow_uids, &config.allow_uids);
  ParseIds(texts.allow_gids, &config.allow_gids);
  if (texts.socket_mode != "auto") config.socket_mode = static_cast<mode_t>(std::stoul(texts.socket_mode, nullptr, 8));
  config.stats_mode = static_cast<mode_t>(std::stoul(texts.stats_mode, nullptr, 8));
  const bool others = !config.allow_uids.empty() || !config.allow_gids.empty();
  if (config.socket_mode == 0) config.socket_mode = others ? 0666 : 0600;
  if (Status status = CheckTogether(config); !status.ok()) return status;
  return parsed;
}

}  // namespace sutra
