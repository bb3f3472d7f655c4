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
  const Entry entry = {.pid = hello.pid, .state = hello.state, .since_ns = now_ns, .heard_ns = now_ns};
  const bool added = entries_.emplace(id, entry).second;
  assert(added && entries_.size() <= kStandbysMax);
  static_cast<void>(added);
  return {};
}

bool StandbyRoster::Update(uint64_t id, StandbyState state, uint64_t now_ns) {
  const auto found = entries_.find(id);
  if (found == entries_.end()) return false;
  found->second.state = state;
  found->second.heard_ns = now_ns;
  return true;
}

size_t StandbyRoster::Ready(uint64_t now_ns) const {
  return static_cast<size_t>(std::count_if(entries_.begin(), entries_.end(),
                                           [now_ns](const auto& item) { return IsReady(item.second, now_ns); }));
}

uint32_t StandbyRoster::ReadyPid(uint64_t now_ns) const {
  for (const auto& [id, entry] : entries_) {
    if (IsReady(entry, now_ns)) return entry.pid;
  }
  return 0;
}

}  // namespace sutra
