// A running engine, asked through its control socket.
#include <nlohmann/json.hpp>
#include <utility>

#include "engine/control/cache_control.h"
#include "engine/control/cache_page.h"
#include "shm/stats/stats_reader.h"
#include "tools/cache/cache_target.h"

namespace sutra {

namespace {

constexpr uint32_t kPageBytes = 4u << 20;

class LiveTarget final : public CacheTarget {
 public:
  LiveTarget(std::string socket, const ShowProgress& progress)
      : socket_(socket), control_({.socket_path = std::move(socket), .progress = progress}), progress_(progress) {}

  Status Open() {
    const Result<std::string> said = control_.Info();
    if (!said.ok()) return said.status();
    const auto json = nlohmann::json::parse(*said, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object() || !json.contains("identity") || !json.contains("width")) {
      return Status(StatusCode::kProtocolViolation, "the engine at " + socket_ + " does not say what it serves");
    }
    info_.place = "the engine at " + socket_;
    info_.identity = json.value("identity", "");
    info_.model = json.value("model", "");
    info_.width = json.value("width", 0u);
    info_.live = true;
    entries_ = json.value("entries", uint64_t{0});
    return {};
  }

  Result<std::string> StatsJson() override {
    const Result<std::string> said = control_.Info();
    if (!said.ok()) return said.status();
    auto json = nlohmann::json::parse(*said, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) return Status(StatusCode::kProtocolViolation, "the engine's answer is no JSON object");
    json["place"] = info_.place;
    json["live"] = true;
    const Result<StatsReader> reader = StatsReader::OpenSocket(socket_);
    const Result<StatsSnapshot> snapshot = reader.ok() ? reader->Snapshot() : Result<StatsSnapshot>(reader.status());
    if (snapshot.ok()) json["counters"] = snapshot->counters;
    return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  }

  Result<CacheAdmin::Preview> Preview(const CacheFilter& filter) override { return control_.Preview(filter); }
  Result<CacheAdmin::Removal> Commit(uint64_t token) override { return control_.Commit(token); }
  Result<bool> Erase(std::string_view text, uint32_t variant) override { return control_.Erase(text, variant); }
  Result<CacheEntry> Get(std::string_view text, uint32_t variant) override { return control_.Get(text, variant); }
  Result<CacheAdmin::Compaction> Compact() override { return control_.Compact(); }

  Status Visit(CacheAdmin::Which which, const std::function<Status(const CacheEntry&)>& visit) override {
    uint64_t cursor = 0, done = 0;
    for (;;) {
      const Result<CacheControl::Page> page = control_.ReadPage(which, cursor, kPageBytes);
      if (!page.ok()) return page.status();
      Result<CachePageReader> reader = CachePageReader::Open(page->bytes);
      if (!reader.ok()) return reader.status();
      if (reader->identity() != info_.identity || reader->width() != info_.width) {
        return Status(StatusCode::kEngineGone, info_.place + " serves another model now");
      }
      CacheEntry entry;
      for (;;) {
        const Result<bool> next = reader->Next(&entry);
        if (!next.ok()) return next.status();
        if (!*next) break;
        if (Status status = visit(entry); !status.ok()) return status;
        ++done;
      }
      if (page->at_end) return {};
      if (!progress_(done, entries_)) return Status(StatusCode::kCancelled, "stopped");
      cursor = page->cursor;
    }
  }

  Result<Imported> Import(Entries entries) override {
    Imported all;
    for (size_t next = 0; next < entries.size();) {
      CachePageWriter page(info_.identity, info_.width);
      do {
        page.Add(entries[next++]);
      } while (next < entries.size() && page.bytes() + CachePageWriter::EntryBytes(entries[next]) <= kPageBytes);
      const Result<CacheControl::Imported> some = control_.Import(std::move(page).Take());
      if (!some.ok()) return some.status();
      all.stored += some->stored;
      if (all.refused == 0) all.first = some->first;
      all.refused += some->refused;
    }
    return all;
  }

 private:
  const std::string socket_;
  CacheControl control_;
  const ShowProgress progress_;
  uint64_t entries_ = 0;  // when it was opened; for the progress
};

}  // namespace

Result<std::unique_ptr<CacheTarget>> OpenLiveTarget(const std::string& socket, ShowProgress progress) {
  auto target = std::make_unique<LiveTarget>(socket, progress);
  if (Status status = target->Open(); !status.ok()) return status;
  return std::unique_ptr<CacheTarget>(std::move(target));
}

}  // namespace sutra
