// One function per command; those of the data directory are in cache_identity_commands.cc.
#include "engine/control/cache_commands.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "cache/cache_admin.h"
#include "engine/control/cache_page.h"
#include "engine/control/cache_reply.h"
#include "engine/control/sealed_payload.h"
#include "shm/base/enum_names.h"
#include "shm/base/json_object.h"
#include "shm/control_messages.h"

namespace sutra {
namespace {

static_assert(kCacheContainsBytesMax == kFilterContainsBytesMax);
constexpr uint32_t kOpeningRetryMs = 100;
constexpr uint64_t kImportStep = 256;  // entries between two looks whether to go on

CacheFilter FilterOf(const CacheJob& job) {
  const uint32_t flags = job.call.body.flags;
  return {.everything = (flags & kCacheEverything) != 0,
          .contains = job.payload,
          .older_than_s = job.call.body.older_than_s,
          .never_hit = (flags & kCacheNeverHit) != 0};
}

std::string EntriesText(uint64_t entries) { return std::to_string(entries) + " entries"; }

}  // namespace

CacheCommands::CacheCommands(Options options) : options_(std::move(options)), audit_(options_.config.directory) {}

CacheReply CacheCommands::Run(const CacheJob& job, const Turn& turn) {
  if (!options_.data_lock_held()) {
    return Failed(Status(StatusCode::kStorageError, "the lock on " + options_.config.directory +
                                                        " is lost: nothing in it is touched; start the engine again"));
  }
  CacheReply reply;
  CacheShard* const shard = options_.shard();
  if (job.call.command == ControlCommand::kCacheIdentities) {
    reply = Identities();
  } else if (job.call.command == ControlCommand::kCacheDropIdentity) {
    reply = DropIdentity(job, turn);
  } else if (shard != nullptr) {
    reply = RunOnShard(job, turn, shard);
  } else if (options_.shard_may_come()) {
    reply =
        Failed(Status(StatusCode::kOverloaded, "the cache is not open yet (the log says if it cannot be): try again"));
    reply.retry_after_ms = kOpeningRetryMs;
  } else {
    reply = Failed(Status(StatusCode::kRefused, "this engine serves without a cache: its log says why"));
  }
  if (reply.status.code() == StatusCode::kCancelled && turn.leaving()) {
    reply.status = Status(StatusCode::kShuttingDown, "the engine is shutting down; " + reply.status.message());
  }
  return reply;
}

CacheReply CacheCommands::RunOnShard(const CacheJob& job, const Turn& turn, CacheShard* shard) {
  switch (job.call.command) {
    case ControlCommand::kCachePreview: return Preview(job, turn, shard);
    case ControlCommand::kCacheCommit: return Commit(job, turn, shard);
    case ControlCommand::kCacheErase: return Erase(job, turn, shard);
    case ControlCommand::kCacheGet: return Get(job, shard);
    case ControlCommand::kCachePage: return ReadPage(job, turn, shard);
    case ControlCommand::kCacheImport: return Import(job, turn, shard);
    case ControlCommand::kCacheCompact: return Compact(job, turn, shard);
    case ControlCommand::kCacheInfo: return Info(*shard);
    default: return Failed(Status(StatusCode::kBadOption, "no command of the cache"));
  }
}

CacheReply CacheCommands::Preview(const CacheJob& job, const Turn& turn, CacheShard* shard) {
  const CacheFilter filter = FilterOf(job);
  const Result<CacheAdmin::Preview> preview =
      shard->PreviewRemoval(filter, [&turn](uint64_t done, uint64_t total) { return turn.GoOn(done, total); });
  if (!preview.ok()) return Failed(preview.status());
  preview_token_ = preview->token;
  preview_words_ = AuditLog::Words(filter);
  CacheReply reply;
  reply.body.token = preview->token;
  reply.body.entries = preview->entries;
  reply.body.bytes = preview->bytes;
  reply.body.examined = preview->examined;
  reply.body.lost = preview->lost;
  return reply;
}

CacheReply CacheCommands::Commit(const CacheJob& job, const Turn& turn, CacheShard* shard) {
  const uint64_t token = job.call.body.token;
  if (token != preview_token_) {
    return Failed(Status(StatusCode::kBadOption, "no preview has this token any more: make another one"));
  }
  const auto change = [&] {
    const Result<CacheAdmin::Removal> removal =
        shard->CommitRemoval(token, [&turn](uint64_t done, uint64_t total) { return turn.GoOn(done, total, true); });
    preview_token_ = 0;  // used up, whatever became of it
    if (!removal.ok()) return Failed(removal.status());
    CacheReply reply;
    reply.body.entries = removal->entries;
    reply.body.bytes = removal->bytes;
    return Confirmed(std::move(reply), turn);
  };
  return Audited(job, preview_words_, change,
                 [](const CacheAnswerBody& body) { return EntriesText(body.entries) + " removed"; });
}

CacheReply CacheCommands::Erase(const CacheJob& job, const Turn& turn, CacheShard* shard) {
  const uint32_t variant = job.call.body.variant;
  const auto change = [&] {
    CacheReply reply;
    reply.body.entries = shard->Get(job.payload, variant).ok() ? 1 : 0;
    // Even if it is not there: a computation that is under way must not store it afterwards.
    if (Status status = shard->Erase(job.payload, variant); !status.ok()) return Failed(status);
    return Confirmed(std::move(reply), turn);
  };
  return Audited(job, AuditLog::Words("text", job.payload) + ", variant " + std::to_string(variant), change,
                 [](const CacheAnswerBody& body) { return EntriesText(body.entries) + " removed"; });
}

CacheReply CacheCommands::Get(const CacheJob& job, CacheShard* shard) {
  const Result<CacheEntry> entry = shard->Get(job.payload, job.call.body.variant);
  if (!entry.ok()) return Failed(entry.status());
  CachePageWriter page(options_.config.model_identity, options_.config.width);
  page.Add(entry.value());
  return WithPayload({}, std::move(page).Take());
}

// The entry that makes the page long enough is its last one.
CacheReply CacheCommands::ReadPage(const CacheJob& job, const Turn& turn, CacheShard* shard) {
  const CacheCallBody& call = job.call.body;
  const auto which = (call.flags & kCacheHotOnly) != 0 ? CacheAdmin::Which::kHot : CacheAdmin::Which::kAll;
  CachePageWriter page(options_.config.model_identity, options_.config.width);
  uint64_t cursor = call.cursor;
  const Result<bool> at_end = shard->Visit(which, &cursor, [&](const CacheEntry& entry) {
    page.Add(entry);
    return page.bytes() < call.bytes_max && turn.GoOn(page.entries(), 0);
  });
  if (!at_end.ok()) return Failed(at_end.status());
  if (!turn.GoOn(page.entries(), 0)) return Failed(Status(StatusCode::kCancelled, "the page was not finished"));
  CacheReply reply;
  reply.body.cursor = cursor;
  reply.body.entries = page.entries();
  reply.body.flags = at_end.value() ? kCacheAtEnd : 0;
  return WithPayload(std::move(reply), std::move(page).Take());
}

CacheReply CacheCommands::Import(const CacheJob& job, const Turn& turn, CacheShard* shard) {
  return Audited(
      job, AuditLog::Words("page", job.payload), [&] { return StorePage(job, turn, shard); },
      [](const CacheAnswerBody& body) {
        return EntriesText(body.entries) + " stored, " + std::to_string(body.refused) + " refused";
      });
}

// What is removed while the page is read stays out, as it does for a computation.
CacheReply CacheCommands::StorePage(const CacheJob& job, const Turn& turn, CacheShard* shard) {
  const uint64_t removals_seen = shard->Removals();
  Result<CachePageReader> page = CachePageReader::Open(job.payload);
  if (!page.ok()) return Failed(page.status());
  if (page->identity() != options_.config.model_identity || page->width() != options_.config.width) {
    return Failed(Status(StatusCode::kRefused,
                         "these vectors are of the model " + page->identity() + ", width " +
                             std::to_string(page->width()) + "; the engine serves " + options_.config.model_identity +
                             ", width " + std::to_string(options_.config.width) + ": compute them with this model"));
  }
  CacheReply reply;
  std::string first;
  for (CacheEntry entry;;) {
    const Result<bool> more = page->Next(&entry);
    if (!more.ok()) return Failed(more.status());
    if (!more.value()) break;
    if (const Status status = CheckEntry(entry); !status.ok()) {
      if (++reply.body.refused == 1) first = status.message();
      continue;
    }
    shard->Insert(entry.text, entry.variant, entry.vector, entry.value, entry.left_s, removals_seen);
    if (++reply.body.entries % kImportStep != 0 || turn.GoOn(reply.body.entries, page->entries())) continue;
    return Failed(Status(StatusCode::kCancelled, EntriesText(reply.body.entries) + " of the page were stored"));
  }
  // The log's queue holds more than a page, but not any number of them.
  if (Status status = shard->Sync(); !status.ok()) return Failed(status);
  return first.empty() ? std::move(reply) : WithPayload(std::move(reply), first);
}

CacheReply CacheCommands::Compact(const CacheJob& job, const Turn& turn, CacheShard* shard) {
  const auto change = [&] {
    const Result<CacheAdmin::Compaction> done =
        shard->Compact([&turn](uint64_t steps, uint64_t total) { return turn.GoOn(steps, total); });
    if (!done.ok()) return Failed(done.status());
    CacheReply reply;
    reply.body.bytes = done->bytes_before;
    reply.body.entries = done->bytes_after;
    return reply;
  };
  return Audited(job, "the log", change, [](const CacheAnswerBody& body) {
    return std::to_string(body.bytes) + " bytes before, " + std::to_string(body.entries) + " after";
  });
}

CacheReply CacheCommands::Info(const CacheShard& shard) const {
  const CacheStats stats = shard.Stats();
  JsonObject info;
  info.Text("identity", options_.config.model_identity);
  info.Text("model", options_.config.model_name);
  info.Number("width", options_.config.width);
  info.Number("entries", stats.entries);
  info.Number("entries_max", options_.config.entries_max);
  info.Number("bytes", stats.bytes);
  info.Number("bytes_max", options_.config.bytes_max);
  info.Number("unread_entries", stats.unread_entries);
  info.Number("evictions", stats.evictions);
  info.Number("expirations", stats.expirations);
  info.Number("removals", shard.Removals());
  info.Number("wal_segments", stats.wal_segments);
  info.Number("wal_segment_bytes", options_.config.wal_segment_bytes);
  info.Number("wal_bytes_max", options_.config.wal_bytes_max);
  info.Number("wal_dropped_inserts", stats.wal_dropped_inserts);
  info.Number("wal_pending_records", stats.wal_pending_records);
  info.Number("quarantined_segments", stats.quarantined_segments);
  info.Flag("storage_failed", stats.storage_failed);
  info.Flag("log_full", stats.log_full);
  info.Text("disk_io", stats.disk_io);
  return WithPayload({}, std::move(info).Take());
}

CacheReply CacheCommands::Audited(const CacheJob& job, const std::string& what,
                                  const std::function<CacheReply()>& change,
                                  const std::function<std::string(const CacheAnswerBody&)>& result) {
  AuditLine line = {.command = NameOf(kControlCommandNames, job.call.command),
                    .uid = job.peer.uid,
                    .pid = static_cast<uint64_t>(job.peer.pid),
                    .what = what,
                    .result = {}};
  if (const Status status = audit_.Intend(line); !status.ok()) return Failed(status);
  CacheReply reply = change();
  line.result = reply.status.ok() ? result(reply.body)
                                  : std::string(StatusName(reply.status.code())) + ": " + reply.status.message();
  const Status written = audit_.Finish(line);
  if (!options_.log) return reply;
  options_.log(LogLevel::kInfo,
               line.command + ", asked for by " + PeerText(job.peer) + ": " + what + ": " + line.result);
  if (!written.ok()) options_.log(LogLevel::kError, "the end of that is not written down: " + written.message());
  return reply;
}

CacheReply CacheCommands::Confirmed(CacheReply reply, const Turn& turn) const {
  if (turn.WaitUntil(options_.confirm_from_ns)) return reply;
  return Failed(Status(StatusCode::kCancelled,
                       "what was asked for is removed, durably; clients of the engine before "
                       "may answer from its memory for some hundred milliseconds"));
}

}  // namespace sutra
