// Whatever makes two engines answer differently is compared.
#include "engine/control/standby_roster.h"

#include <algorithm>
#include <cassert>

namespace sutra {

Status StandbyRoster::Add(uint64_t id, const StandbyHello& hello, uint64_t now_ns) {
  if (hello.identity != model_.identity || hello.width != model_.width || hello.precision != model_.precision) {
    const auto text = [](const std::string& identity, uint32_t width, const std::string& precision) {
      return "identity " + identity + ", width " + std::to_string(width) + ", " + precision;
    };
    return Status(StatusCode::kRefused, "a standby must serve what the running engine serves: the engine has " +
                                            text(model_.identity, model_.width, model_.precision) +
                                            "; the standby has " + text(hello.identity, hello.width, hello.precision) +
                                            ": start it with the same model and --precision, or stop the engine first");
  }
  if (entries_.size() >= kStandbysMax) {
    return Status(StatusCode::kOverloaded,
                  std::to_string(kStandbysMax) + " standbys are registered, as many as there may be: stop one of them");
  }
  const bool added = entries_.emplace(id, Entry{.pid = hello.pid, .state = hello.state, .since_ns = now_ns}).second;
  assert(added && entries_.size() <= kStandbysMax);
  static_cast<void>(added);
  return {};
}

bool StandbyRoster::Update(uint64_t id, StandbyState state) {
  const auto found = entries_.find(id);
  if (found == entries_.end()) return false;
  found->second.state = state;
  return true;
}

size_t StandbyRoster::ready() const {
  return static_cast<size_t>(std::count_if(entries_.begin(), entries_.end(),
                                           [](const auto& item) { return item.second.state == StandbyState::kReady; }));
}

uint32_t StandbyRoster::ReadyPid() const {
  for (const auto& [id, entry] : entries_) {
    if (entry.state == StandbyState::kReady) return entry.pid;
  }
  return 0;
}

}  // namespace sutra
