// A look: finish earlier removals, survey what is there, introduce what is new, remove what has expired, keep the
// bound.
#include "cache/other_identities.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "cache/mib_text.h"
#include "cache/wal/believed_time.h"
#include "shm/base/checkpoint.h"
#include "shm/base/clock.h"
#include "shm/base/printable.h"
#include "shm/base/time.h"

namespace sutra {
namespace {

constexpr size_t kSaidMax = 256;  // lines; a directory full of strangers must not fill the log

std::string SpanText(uint64_t ns) {
  const uint64_t s = ns / kNsPerSecond;
  if (s < 120) return std::to_string(s) + " s";
  if (s < 2 * 3600) return std::to_string(s / 60) + " min";
  if (s < 2 * 86'400) return std::to_string(s / 3600) + " h";
  return std::to_string(s / 86'400) + " days";
}

std::string Title(const IdentitySurvey& survey) {
  const std::string& model = survey.model.model_name;
  return (model.empty() ? "an unknown model" : "model " + Printable(model, HighBytes::kKeep)) + " at " + survey.path;
}

uint64_t BytesOf(const std::vector<IdentitySurvey>& surveys) {
  uint64_t bytes = 0;
  for (const IdentitySurvey& survey : surveys) bytes += survey.bytes;
  return bytes;
}

}  // namespace

OtherIdentities::OtherIdentities(Options options)
    : options_(std::move(options)),
      removal_{.may_go_on = options_.may_go_on, .log = options_.log},
      packed_({.served = options_.served, .may_go_on = options_.may_go_on, .log = options_.log}),
      io_(MakePosixDiskIo(false)) {
  assert(IsShardName(options_.served) && options_.clock != nullptr && options_.may_go_on);
  ClockHolds();
}

OtherIdentities::Figures OtherIdentities::figures() const {
  // relaxed: each value stands for itself
  return {identities_.load(std::memory_order_relaxed), bytes_.load(std::memory_order_relaxed),
          removed_.load(std::memory_order_relaxed)};
}

void OtherIdentities::Say(LogLevel level, const std::string& line) {
  if (options_.log) options_.log(level, line);
}

void OtherIdentities::SayOnce(LogLevel level, const std::string& line) {
  if (said_.size() < kSaidMax && said_.insert(line).second) Say(level, line);
}

bool OtherIdentities::ClockHolds() {
  const uint64_t boot_ns = options_.clock->BootNs();
  const uint64_t wall_ns = options_.clock->WallNs();
  const uint64_t offset_ns = wall_ns - boot_ns;
  const uint64_t before_ns = clock_offset_ns_.value_or(0);
  const bool moved = std::min(offset_ns - before_ns, before_ns - offset_ns) > kClockNearNs;
  if (moved || !clock_offset_ns_.has_value()) {
    clock_offset_ns_ = offset_ns;
    clock_since_ns_ = boot_ns;
  }
  const bool held = boot_ns - clock_since_ns_ >= kClockHoldNs || SUTRA_CHECKPOINT("identity.clock_held");
  return held && wall_ns >= kClockSetNs;
}

void OtherIdentities::Look() {
  const Result<OpenDirectory> data = OpenDirectory::Open(options_.data);
  const Result<std::vector<OpenDirectory::Item>> items =
      data.ok() ? data->List() : Result<std::vector<OpenDirectory::Item>>(data.status());
  if (!items.ok()) {
    return SayOnce(LogLevel::kWarn, "the caches of other models cannot be looked at: " + items.status().message());
  }
  uint64_t fixed_bytes = RemoveLeftOvers(data.value(), items.value());
  std::vector<IdentitySurvey> others = Survey(data.value(), items.value());
  for (const IdentitySurvey& survey : others) Introduce(survey);
  RemoveExpired(data.value(), &others);
  const Result<IdentitySurvey> served = SurveyIdentity(data.value(), options_.served);
  if (served.ok()) fixed_bytes += served->bytes;
  LookAtPacked(data.value());
  RemoveOrphans(data.value());
  KeepBound(data.value(), fixed_bytes, &others);
  identities_.store(others.size(), std::memory_order_relaxed);  // relaxed, as the next: for display
  bytes_.store(BytesOf(others) + packed_.bytes_of_others(), std::memory_order_relaxed);
}

void OtherIdentities::LookAtPacked(const OpenDirectory& data) {
  const Status status = packed_.Survey(data);
  if (!status.ok()) {
    SayOnce(LogLevel::kWarn, "the weights that were prepared for int8 cannot be looked at, and are not counted: " +
                                 Printable(status.message(), HighBytes::kKeep));
  }
  if (packed_.foreign().empty()) return;
  SayOnce(LogLevel::kWarn, options_.data + "/" + kPackedDirectory + " holds " + packed_.foreign().front() +
                               ", which no engine made there; it is left alone, and not counted: move it away");
}

void OtherIdentities::RemoveOrphans(const OpenDirectory& data) {
  const Result<std::vector<OpenDirectory::Item>> items = data.List();
  if (!items.ok()) return;  // the next look tries again
  std::set<std::string> caches;
  for (const OpenDirectory::Item& item : items.value()) caches.insert(item.name);
  SayPackedStay(packed_.RemoveOrphans(caches, options_.clock->WallNs()));
}

void OtherIdentities::SayPackedStay(const Status& status) {
  if (status.ok()) return;
  SayOnce(LogLevel::kWarn,
          "weights that were prepared for int8 cannot be removed: " + status.message() + "; remove them by hand");
}

std::vector<IdentitySurvey> OtherIdentities::Survey(const OpenDirectory& data,
                                                    const std::vector<OpenDirectory::Item>& items) {
  std::vector<IdentitySurvey> others;
  std::map<std::string, IdentitySurvey> known;
  for (const OpenDirectory::Item& item : items) {
    if (!IsShardName(item.name) || item.name == options_.served || !options_.may_go_on()) continue;
    Result<IdentitySurvey> survey = SurveyIdentity(data, item.name);
    if (!survey.ok()) {
      SayOnce(LogLevel::kWarn, "a cache of another model cannot be looked at: " + survey.status().message());
      continue;
    }
    if (survey->foreign.empty()) {
      LearnExpiry(data, &*survey);
      known.emplace(survey->name, *survey);
    }
    others.push_back(std::move(survey).value());
  }
  known_ = std::move(known);
  return others;
}

// A log is read again only where that can tell more: it has changed, or what was read so far has expired.
void OtherIdentities::LearnExpiry(const OpenDirectory& data, IdentitySurvey* survey) {
  const auto known = known_.find(survey->name);
  const bool same = known != known_.end() && known->second.directory == survey->directory &&
                    known->second.bytes == survey->bytes && known->second.used_ns == survey->used_ns &&
                    known->second.segments == survey->segments;
  if (same) {
    survey->expiry = known->second.expiry;
    survey->whole = known->second.whole;
    if (survey->whole || !HasExpired(*survey)) return;
  }
  uint64_t say_next_ns = MonotonicNs() + kNsPerSecond;
  size_t segments = 0;
  const auto go_on = [&] {
    if (MonotonicNs() >= say_next_ns) {
      say_next_ns = MonotonicNs() + kNsPerSecond;
      Say(LogLevel::kInfo, "reading when the entries in " + survey->path + " expire: " + std::to_string(segments) +
                               " of " + std::to_string(survey->segments.size()) + " segments");
    }
    ++segments;
    return options_.may_go_on();
  };
  ReadExpiry(data, io_.get(), options_.clock->WallNs(), go_on, survey);
}

bool OtherIdentities::HasExpired(const IdentitySurvey& survey) const {
  const uint64_t now_ns = options_.clock->WallNs();
  return now_ns >= kClockNearNs && survey.ExpiryNs() <= now_ns - kClockNearNs;
}

std::string OtherIdentities::Ago(uint64_t wall_ns) const {
  const uint64_t now_ns = options_.clock->WallNs();
  return SpanText(now_ns - std::min(now_ns, wall_ns)) + " ago";
}

void OtherIdentities::Introduce(const IdentitySurvey& survey) {
  if (!said_.insert("introduced " + survey.name).second || said_.size() > kSaidMax) return;
  if (!survey.foreign.empty()) {
    return Say(LogLevel::kWarn, survey.path + " is named like the cache of a model, but is left alone: " +
                                    Printable(survey.foreign, HighBytes::kKeep) + "; move it away");
  }
  std::string line = "the data directory also holds the cache of " + Title(survey) + ", " + MiBText(survey.bytes);
  if (survey.IsEmpty()) {
    line += ", without entries: it is removed";
  } else if (!survey.expiry.known) {
    line += ", last used " + Ago(survey.used_ns) +
            "; when its entries expire cannot be told, so it stays. If it is not needed any more: rm -r " + survey.path;
  } else if (HasExpired(survey)) {
    line += ", newest entry " + Ago(survey.expiry.record_newest_ns) + ", all expired: it is removed when the clock " +
            "has kept its time for " + SpanText(kClockHoldNs);
  } else {
    const uint64_t now_ns = options_.clock->WallNs();
    line += ", newest entry " + Ago(survey.expiry.record_newest_ns) + "; it is removed when all have expired, not " +
            "before " + SpanText(survey.ExpiryNs() - std::min(now_ns, survey.ExpiryNs())) +
            " from now. If it is not needed any more: rm -r " + survey.path;
  }
  Say(LogLevel::kInfo, line);
}

// What an engine had begun to remove. RETURNS the bytes that stay for now.
uint64_t OtherIdentities::RemoveLeftOvers(const OpenDirectory& data, const std::vector<OpenDirectory::Item>& items) {
  uint64_t bytes = 0;
  for (const OpenDirectory::Item& item : items) {
    if (!IsSetAside(item.name)) continue;
    const Status status = RemoveSetAside(data, item.name, removal_);
    if (status.ok()) continue;
    const Result<IdentitySurvey> left = SurveyIdentity(data, item.name);
    if (left.ok()) bytes += left->bytes;
    if (status.code() == StatusCode::kCancelled) continue;
    SayOnce(LogLevel::kWarn, "what is left of a removed cache stays: " + Printable(status.message(), HighBytes::kKeep));
  }
  return bytes;
}

void OtherIdentities::RemoveExpired(const OpenDirectory& data, std::vector<IdentitySurvey>* others) {
  const bool clock_holds = ClockHolds();
  std::erase_if(*others, [&](const IdentitySurvey& survey) {
    if (!survey.foreign.empty()) return false;
    const bool empty = survey.IsEmpty();
    if (!empty && !(clock_holds && survey.whole && HasExpired(survey))) return false;
    return Remove(data, survey, LogLevel::kInfo,
                  empty ? "it held no entries" : "its last entry expired " + Ago(survey.ExpiryNs()));
  });
}

void OtherIdentities::KeepBound(const OpenDirectory& data, uint64_t fixed_bytes, std::vector<IdentitySurvey>* others) {
  std::vector<IdentitySurvey*> oldest;
  for (IdentitySurvey& survey : *others) {
    if (survey.foreign.empty()) oldest.push_back(&survey);
  }
  std::sort(oldest.begin(), oldest.end(),
            [](const IdentitySurvey* a, const IdentitySurvey* b) { return a->used_ns < b->used_ns; });
  const auto over = [this](uint64_t total) {
    return "all caches in " + options_.data + " take up " + MiBText(total) + "; raise --data-bytes-max (" +
           MiBText(options_.bytes_max) + ") to keep more";
  };
  uint64_t bytes = fixed_bytes + BytesOf(*others) + packed_.bytes();
  if (bytes > options_.bytes_max) {  // what can be made again goes first
    SayPackedStay(packed_.RemoveBytes(bytes - options_.bytes_max, over(bytes)));
    bytes = fixed_bytes + BytesOf(*others) + packed_.bytes();
  }
  std::set<std::string> removed;
  for (const IdentitySurvey* survey : oldest) {
    if (bytes <= options_.bytes_max) break;
    const std::string why = "it was last used " + Ago(survey->used_ns) + ", and " + over(bytes);
    if (!Remove(data, *survey, LogLevel::kWarn, why)) continue;
    bytes -= survey->bytes;
    removed.insert(survey->name);
  }
  std::erase_if(*others, [&](const IdentitySurvey& survey) { return removed.count(survey.name) != 0; });
  if (bytes <= options_.bytes_max || !options_.may_go_on()) return;
  SayOnce(LogLevel::kWarn,
          "the caches in " + options_.data + " take up more than --data-bytes-max (" + MiBText(options_.bytes_max) +
              "), and none of them may be removed; raise it, or remove by hand what is no cache or set "
              "aside (*.quarantined)");
}

bool OtherIdentities::Remove(const OpenDirectory& data, const IdentitySurvey& survey, LogLevel level,
                             const std::string& why) {
  assert(survey.name != options_.served && survey.foreign.empty());
  Status status = SetIdentityAside(data, survey, removal_);
  const bool aside = status.ok();
  if (aside) status = RemoveSetAside(data, SetAsideName(survey.name), removal_);
  if (status.code() == StatusCode::kCancelled) return aside;  // the next engine goes on
  if (!status.ok()) {
    SayOnce(LogLevel::kWarn, "the cache of " + Title(survey) + " cannot be removed: " +
                                 Printable(status.message(), HighBytes::kKeep) + "; remove it by hand");
    return aside;
  }
  Say(level, "removed the cache of " + Title(survey) + ", " + MiBText(survey.bytes) + ": " + why);
  removed_.fetch_add(1, std::memory_order_relaxed);  // relaxed: for display
  return true;
}

}  // namespace sutra
