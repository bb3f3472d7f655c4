// The end of a run: all clients come to rest, and what is held then is compared with what fresh processes hold.
#include <signal.h>

#include <algorithm>
#include <filesystem>

#include "engine/exit_code.h"
#include "shm/stats/stats_name.h"
#include "tests/crash/survival.h"

namespace sutra::test {
namespace {

constexpr uint64_t kRestMs = 30'000;
constexpr uint64_t kSettleMs = 5'000;  // descriptors of an attach that a kill cut short, freed mappings

bool Exceeds(const ProcessFootprint& now, const ProcessFootprint& most) {
  return now.descriptors > most.descriptors || now.lane_maps > most.lane_maps || now.threads > most.threads;
}

}  // namespace

std::string DescriptorsOf(pid_t pid) {
  std::string all;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd", error)) {
    all += " " + entry.path().filename().string() + ":" + std::filesystem::read_symlink(entry.path(), error).string();
  }
  return all;
}

void Survival::EndAndLookForLeaks() {
  for (std::vector<Member>* members : {&engines_, &clients_}) {
    for (Member& member : *members) {
      if (member.continue_ns != 0) member.continue_ns = 1;
      if (member.start_ns != 0) member.start_ns = UINT64_MAX;
    }
  }
  Turn();
  // Those that are alive may be on their way out: when the last of them is gone, one begins anew.
  const auto serves = [this] {
    if (Alive(&engines_).empty() && engines_[0].start_ns != 0 && !options_.never_restart) StartEngine(&engines_[0]);
    return hand_overs_.empty() && Serving() != nullptr && shard_open_ && Serving()->asked_ns == 0;
  };
  if (!options_.never_restart && !WaitUntil(2 * kRestMs, serves)) {
    return Fail(&totals_.wedged, "no engine serves at the end");
  }
  if (options_.never_restart) return;
  QuietClients(Alive(&clients_));
  CompareClients();
  EndClients();
  LookAtEnginesRemains();
  LookAtFiles();
}

// One that has only just started may not handle the signal yet, and would end by it: it is told once it had answers to
// its calls and in its event loop, so that there is something to compare. One that ended is counted as that
// (LookAtClient), and not waited for. RETURNS false if one does not come to rest.
bool Survival::QuietClients(const std::vector<Member*>& clients) {
  const auto answered = [](const Member* client) {
    return TallyGet(client->tally, kTallyLoopNs) != 0 && TallyGet(client->tally, kTallyBlockingNs) != 0;
  };
  const auto rests = [](const Member* client) {
    return client->start_ns != 0 || client->wedged || TallyGet(client->tally, kTallyPhase) == kPhaseQuiet;
  };
  std::vector<Member*> untold = clients;
  const auto all_rest = [&] {
    std::erase_if(untold, [&](Member* client) {
      if (!answered(client)) return false;
      client->child().Signal(SIGUSR1);
      return true;
    });
    return std::all_of(clients.begin(), clients.end(), rests);
  };
  if (WaitUntil(kRestMs, all_rest)) return true;
  for (Member* client : clients) {
    const char* what = answered(client) ? "its calls do not end" : "it gets no answers";
    if (!rests(client)) Fail(&totals_.wedged, client->prefix + " (" + client->kind + "): " + what);
  }
  return false;
}

// Those that lived through all engines, with new ones of their kind.
void Survival::CompareClients() {
  std::vector<std::pair<Member*, Member*>> pairs;
  std::vector<Member*> fresh;
  for (size_t i = 0; i < clients_.size() && clients_[i].elder; ++i) {
    Member* newcomer = &clients_[clients_.size() - 1 - i];
    if (newcomer->start_ns == 0) {
      newcomer->child().Kill();
      EndOfClient(newcomer);
    }
    newcomer->kind = clients_[i].kind;
    newcomer->elder = true;  // its lanes and slots
    StartClient(newcomer);
    fresh.push_back(newcomer);
    pairs.emplace_back(&clients_[i], newcomer);
  }
  if (!QuietClients(fresh)) return;
  for (const auto& [elder, newcomer] : pairs) {
    if (elder->start_ns != 0 || elder->wedged || newcomer->start_ns != 0) continue;
    const ProcessFootprint most = FootprintOf(newcomer->child().pid());
    ProcessFootprint now;
    const auto holds_no_more = [&, old = elder] { return !Exceeds(now = FootprintOf(old->child().pid()), most); };
    if (WaitUntil(kSettleMs, holds_no_more)) continue;
    Fail(&totals_.leaked, elder->prefix + " (" + elder->kind + "): a fresh one holds " + ToText(most) + ", it holds " +
                              ToText(now) + " after " + std::to_string(TallyGet(elder->tally, kTallyEngines)) +
                              " engines:" + DescriptorsOf(elder->child().pid()));
  }
}

void Survival::EndClients() {
  std::vector<Member*> clients = Alive(&clients_);
  for (Member* client : clients) {
    LookAtClient(client);
    client->child().Signal(SIGTERM);
  }
  for (Member* client : clients) {
    const std::optional<ExitStatus> status = client->child().Wait(static_cast<int>(kRestMs));
    client->start_ns = UINT64_MAX;
    if (!status.has_value()) {
      Fail(&totals_.wedged, client->prefix + " (" + client->kind + ") does not detach");
      client->child().Kill();
    } else if (!status->exited || status->code != 0) {
      Fail(&totals_.ended, client->prefix + " (" + client->kind + ") ended with " + ToText(*status));
    }
  }
  if (!options_.lane_leak) own_client_.Detach();
}

void Survival::LookAtEnginesRemains() {
  Member* const last = Serving();
  if (last == nullptr) return Fail(&totals_.wedged, "no engine serves at the end");
  for (Member* engine : Alive(&engines_)) {
    if (engine == last) continue;
    engine->may_end = true;
    engine->asked_ns = MonotonicNs();
    engine->child().Signal(SIGTERM);
  }
  if (!WaitUntil(kRestMs, [this] { return Alive(&engines_).size() == 1; })) {
    Fail(&totals_.wedged, "a standby does not end after SIGTERM");
  }
  const auto no_lanes = [last] { return last->engine->Stats().gauge(Gauge::kLanes) == 0; };
  if (!WaitUntil(kSettleMs, no_lanes)) {
    Fail(&totals_.leaked, "the last engine has " + std::to_string(last->engine->Stats().gauge(Gauge::kLanes)) +
                              " lanes without any client");
  }
  ProcessFootprint now;
  if (!WaitUntil(kSettleMs, [&] { return !Exceeds(now = FootprintOf(last->child().pid()), most_); })) {
    Fail(&totals_.leaked, "a fresh engine holds " + ToText(most_) + ", the last one " + ToText(now) + ":" +
                              DescriptorsOf(last->child().pid()));
  }
  last->may_end = true;
  last->asked_ns = MonotonicNs();
  last->child().Signal(SIGTERM);
  if (!WaitUntil(kRestMs, [last] { return last->start_ns != 0; }))
    Fail(&totals_.wedged, "the last engine does not end");
}

// Beside the data, the locks and our own logs nothing is left where the socket was, and nothing in /dev/shm but the
// one segment of statistics, which stays by design.
void Survival::LookAtFiles() {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory_.path(), error)) {
    const std::string name = entry.path().filename();
    const bool ours = name == "data" || name.ends_with(".log") || name.starts_with("tally.");
    if (!ours && !name.ends_with(".lock")) Fail(&totals_.leaked, "left beside the socket: " + name);
  }
  const Result<std::string> segment = StatsSegmentName(socket_, geteuid());
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm", error)) {
    const std::string name = entry.path().filename();
    if (segment.ok() && name != segment.value() && name.find(segment.value()) != std::string::npos) {
      Fail(&totals_.leaked, "left in /dev/shm: " + name);
    }
  }
}

}  // namespace sutra::test
