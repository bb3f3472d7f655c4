// sutra-stat: prints what an engine's stats segment says. Reads only; needs no engine, no lane, no socket connection.
// Single-threaded. Exit codes: 0 starting, alive or draining; 1 no segment, no permission, usage error, failed output;
// 2 stopped; 3 crashed; 4 stale.
#include <fmt/format.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "shm/stats/stats_prune.h"
#include "shm/stats/stats_segment.h"
#include "tools/lib/program.h"
#include "tools/lib/stat_report.h"

namespace {

using sutra::EngineLife;
using sutra::Result;
using sutra::StatsReader;
using sutra::StatsSnapshot;
using sutra::Status;
using sutra::StatView;

constexpr const char* kName = "sutra-stat";
constexpr int kError = 1;

struct Options {
  std::string socket;
  std::string segment;
  double watch_s = 1;
  bool watch = false;
  bool json = false;
  bool list = false;
  bool remove = false;
  bool prune = false;
  uint64_t count = 0;
};

int Fail(const std::string& message) { return sutra::Fail(kName, kError, message); }

bool Running(EngineLife life) {
  return life == EngineLife::kAlive || life == EngineLife::kStarting || life == EngineLife::kDraining ||
         life == EngineLife::kStale;
}

Result<StatView> ViewOf(const StatsReader& reader) {
  Result<StatsSnapshot> snapshot = reader.Snapshot();
  if (!snapshot.ok()) return snapshot.status();
  return sutra::MakeStatView(std::move(snapshot).value(), reader.name());
}

std::vector<StatView> AllViews() {
  std::vector<StatView> views;
  for (const std::string& name : StatsReader::List()) {
    Result<StatsReader> reader = StatsReader::OpenName(name);
    if (!reader.ok()) continue;
    if (Result<StatView> view = ViewOf(*reader); view.ok()) views.push_back(std::move(view).value());
  }
  return views;
}

std::string ListText(const std::vector<StatView>& views) {
  std::string text;
  for (const StatView& view : views) {
    text += fmt::format("{:<9} {}  model {}  pid {}  {}\n", sutra::EngineLifeName(view.life), view.now.socket,
                        view.now.model, view.now.gauge(sutra::Gauge::kPid), view.segment);
  }
  return text;
}

// Without an argument: the only running engine (of this user, else of any user), or the newest segment when none runs.
Result<StatsReader> Choose(const Options& options) {
  if (!options.segment.empty()) return StatsReader::OpenName(options.segment);
  if (!options.socket.empty()) {
    Result<StatsReader> reader = StatsReader::OpenSocket(options.socket);
    if (reader.ok() || reader.code() != sutra::StatusCode::kEngineGone) return reader;
    return Status(reader.code(), reader.status().message() + "\nStart one: sutra-engine --model DIR --socket " +
                                     options.socket + " --data DIR, or see what there is: sutra-stat --list");
  }
  const std::vector<StatView> views = AllViews();
  if (const std::vector<std::string> hidden = StatsReader::ListUnreadable(); views.empty() && !hidden.empty()) {
    return Status(
        sutra::StatusCode::kRefused,
        fmt::format("this user may read none of the {} stats segments of this host, the newest is /dev/shm/{}: "
                    "use sudo, or start the engine with --stats-mode 0644",
                    hidden.size(), hidden.front()));
  }
  if (views.empty()) {
    return Status(sutra::StatusCode::kEngineGone,
                  "no engine of this host has published statistics that this user may read.\n"
                  "Start one: sutra-engine --model DIR --socket PATH --data DIR, or name its socket: --socket PATH");
  }
  const std::string own_prefix = "sutra-stat." + std::to_string(geteuid()) + ".";
  std::vector<StatView> running, others;
  for (const StatView& view : views) {
    if (!Running(view.life)) continue;
    (view.segment.rfind(own_prefix, 0) == 0 ? running : others).push_back(view);
  }
  if (running.empty()) running = others;
  if (running.empty() && !StatsReader::ListUnreadable().empty()) {
    sutra::Say(kName,
               "no engine that this user may read is running; others may be: use sudo, or name one with --socket");
  }
  if (running.size() > 1) {
    return Status(sutra::StatusCode::kBadOption,
                  "several engines run; choose one with --socket PATH:\n" + ListText(running));
  }
  return StatsReader::OpenName(running.empty() ? views.front().segment : running.front().segment);
}

int Remove(const Options& options) {
  if (options.socket.empty()) return Fail("--remove requires --socket PATH");
  Result<StatsReader> reader = StatsReader::OpenSocket(options.socket);
  if (!reader.ok()) return reader.code() == sutra::StatusCode::kEngineGone ? 0 : Fail(reader.status().message());
  if (Result<StatView> view = ViewOf(*reader); view.ok() && Running(view->life)) {
    return Fail("the engine at " + options.socket + " still runs (pid " +
                std::to_string(view->now.gauge(sutra::Gauge::kPid)) + "); stop it first");
  }
  const Status status = sutra::StatsSegment::Remove(options.socket);
  return status.ok() ? 0 : Fail(status.message());
}

std::string TextOf(const StatView& view, const Options& options) {
  if (!options.json) return sutra::StatText(view);
  // Names come from the segment, which any user may have written: invalid UTF-8 is replaced instead of throwing.
  return sutra::StatJson(view).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

// Prints the text and returns `code`, unless that failed.
int PrintAndEnd(const std::string& text, int code) {
  const Status status = sutra::Print(text);
  return status.ok() ? code : Fail(status.message());
}

int Prune() {
  std::string text;
  for (const sutra::PrunedSegment& pruned : sutra::PruneStats(geteuid())) {
    text += fmt::format("removed {} of the ended engine at {}\n", pruned.name, pruned.socket);
  }
  return PrintAndEnd(text, 0);
}

size_t TerminalColumns() {
  winsize size{};
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

// One screen per interval until interrupted; follows the socket to a newer engine.
int Watch(StatsReader reader, const Options& options) {
  sutra::CatchInterruptions();
  const bool screen = isatty(STDOUT_FILENO) == 1 && !options.json;
  StatsSnapshot before;
  bool have_before = false;
  EngineLife life = EngineLife::kStopped;
  for (uint64_t shown = 0; options.count == 0 || shown < options.count; ++shown) {
    if (shown != 0) poll(nullptr, 0, static_cast<int>(options.watch_s * 1000));
    if (sutra::InterruptedBy() != 0) break;
    if (reader.Replaced() && reader.Reopen().ok()) have_before = false;
    Result<StatView> view = ViewOf(reader);
    std::string frame;
    if (view.ok()) {
      if (have_before && before.engine_generation == view->now.engine_generation) view->before = &before;
      frame = options.json ? TextOf(*view, options) : sutra::WatchFrame(*view, screen ? TerminalColumns() : 0);
      before = std::move(view->now);
      have_before = true;
      life = view->life;
    } else {
      frame = view.status().message() + "\n";
    }
    if (screen) frame.insert(0, "\x1b[H\x1b[J");
    if (!screen && !options.json) frame += '\n';  // an empty line parts the frames of a pipe
    const Status status = sutra::Print(frame);
    if (status.code() == sutra::StatusCode::kCancelled) break;
    if (!status.ok()) return Fail(status.message());
  }
  return sutra::StatExitCode(life);
}

}  // namespace

int main(int argc, char** argv) {
  sutra::StartProgram();
  Options options;
  CLI::App app("Shows what an engine is doing, from shared memory: running, stopped or crashed.", kName);
  app.add_option("--socket", options.socket, "Socket of the engine (default: the only one running)");
  app.add_option("--segment", options.segment, "Name of a stats segment, as --list prints it");
  CLI::Option* watch = app.add_option("--watch", options.watch_s, "Live view, every SECONDS (default 1)")
                           ->expected(0, 1)
                           ->check(CLI::Range(0.05, 3600.0));
  app.add_option("--count", options.count, "With --watch: stop after this many views");
  app.add_flag("--json", options.json, "One JSON object per view");
  app.add_flag("--list", options.list, "List the engines of this host, newest first");
  app.add_flag("--remove", options.remove, "Remove the segment of an engine that has ended (with --socket)");
  app.add_flag("--prune", options.prune, "Remove this user's segments of ended engines whose socket's folder is gone");
  app.footer(
      "Exit codes: 0 alive, starting or draining; 1 nothing to read, or the output failed;\n2 stopped; 3 crashed; 4 "
      "stale.");
  if (const auto code = sutra::ParseArguments(&app, argc, argv, kError, kError)) return *code;
  options.watch = watch->count() > 0;
  if (options.list) return PrintAndEnd(ListText(AllViews()), 0);
  if (options.remove) return Remove(options);
  if (options.prune) return Prune();
  Result<StatsReader> reader = Choose(options);
  if (!reader.ok()) return Fail(reader.status().message());
  if (options.watch) return Watch(std::move(reader).value(), options);
  Result<StatView> view = ViewOf(*reader);
  if (!view.ok()) return Fail(view.status().message());
  return PrintAndEnd(TextOf(*view, options), sutra::StatExitCode(view->life));
}
