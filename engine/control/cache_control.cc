// A question is its payload in pieces, the command, and then answers until one is final.
#include "engine/control/cache_control.h"

#include <poll.h>

#include <algorithm>
#include <cassert>

#include "engine/control/cache_page.h"
#include "engine/control/control_link.h"
#include "engine/control/sealed_payload.h"
#include "shm/base/printable.h"

namespace sutra {
namespace {

constexpr uint64_t kAgainMsMax = 100;  // a place may be free earlier than the engine can promise

Status SendQuestion(ControlLink* link, ControlCommand command, CacheCallBody call, std::string_view payload,
                    uint64_t deadline_ns) {
  call.payload_bytes = static_cast<uint32_t>(payload.size());
  while (!payload.empty()) {
    const std::string_view piece = payload.substr(0, kControlBodyBytesMax);
    if (Status status = link->Tell(ControlCommand::kCachePayload, piece, deadline_ns); !status.ok()) return status;
    payload.remove_prefix(piece.size());
  }
  return link->Tell(command, BytesOf(call), deadline_ns);
}

}  // namespace

Result<CacheControl::Answer> CacheControl::Ask(ControlCommand command, CacheCallBody call, std::string_view payload) {
  const std::string& path = options_.socket_path;
  if (payload.size() > kCachePayloadBytesMax) {
    return Status(StatusCode::kBadOption, "more than " + std::to_string(kCachePayloadBytesMax) + " bytes at once");
  }
  const uint64_t place_until_ns = MonotonicNs() + options_.patience_ns;
  for (;;) {
    Result<ControlLink> link = ControlLink::Connect(path, place_until_ns);
    if (!link.ok()) return link.status();
    if (Status sent = SendQuestion(&*link, command, call, payload, MonotonicNs() + options_.patience_ns); !sent.ok()) {
      return sent;
    }
    UniqueFd memory;
    Result<ControlAnswer> said = Hear(&*link, command, &memory);
    if (!said.ok()) return said.status();
    if (said->code == StatusCode::kOk) return Believe(said->body, memory);
    const uint64_t wait_ms = std::min<uint64_t>(said->retry_after_ms, kAgainMsMax);
    const bool again = said->code == StatusCode::kOverloaded && wait_ms > 0;
    if (!again || MonotonicNs() + wait_ms * kNsPerMs >= place_until_ns) {
      return Status(said->code, path + ": " + Printable(said->body, HighBytes::kKeep));
    }
    static_cast<void>(poll(nullptr, 0, static_cast<int>(wait_ms)));
  }
}

// Until an answer that is no progress.
Result<ControlAnswer> CacheControl::Hear(ControlLink* link, ControlCommand command, UniqueFd* memory) const {
  for (;;) {
    Result<ControlAnswer> said = link->Hear(command, MonotonicNs() + options_.patience_ns, memory);
    if (!said.ok() || said->code != StatusCode::kNotReady) return said;
    CacheProgressBody progress = {};
    if (!BodyFrom(said->body, &progress)) return Status(StatusCode::kProtocolViolation, "a progress of another size");
    if (options_.progress && !options_.progress(progress.done, progress.total)) {
      return Status(StatusCode::kCancelled, "stopped");
    }
  }
}

Result<CacheControl::Answer> CacheControl::Believe(std::string_view body, const UniqueFd& memory) const {
  Answer answer;
  if (!BodyFrom(body, &answer.body)) return Status(StatusCode::kProtocolViolation, "an answer of another size");
  if (answer.body.payload_bytes == 0) return answer;
  Result<std::string> payload = ReadSealedPayload(memory.get(), answer.body.payload_bytes);
  if (!payload.ok()) return Status(payload.code(), options_.socket_path + ": " + payload.status().message());
  answer.payload = std::move(payload).value();
  return answer;
}

Result<CacheAdmin::Preview> CacheControl::Preview(const CacheFilter& filter) {
  CacheCallBody call = {};
  call.older_than_s = filter.older_than_s;
  call.flags = (filter.everything ? kCacheEverything : 0) | (filter.never_hit ? kCacheNeverHit : 0);
  const Result<Answer> answer = Ask(ControlCommand::kCachePreview, call, filter.contains);
  if (!answer.ok()) return answer.status();
  return CacheAdmin::Preview{.token = answer->body.token,
                             .entries = answer->body.entries,
                             .bytes = answer->body.bytes,
                             .examined = answer->body.examined,
                             .lost = answer->body.lost};
}

Result<CacheAdmin::Removal> CacheControl::Commit(uint64_t token) {
  CacheCallBody call = {};
  call.token = token;
  const Result<Answer> answer = Ask(ControlCommand::kCacheCommit, call);
  if (!answer.ok()) return answer.status();
  return CacheAdmin::Removal{.entries = answer->body.entries, .bytes = answer->body.bytes};
}

Result<bool> CacheControl::Erase(std::string_view text, uint32_t variant) {
  CacheCallBody call = {};
  call.variant = variant;
  const Result<Answer> answer = Ask(ControlCommand::kCacheErase, call, text);
  if (!answer.ok()) return answer.status();
  return answer->body.entries != 0;
}

Result<CacheEntry> CacheControl::Get(std::string_view text, uint32_t variant) {
  CacheCallBody call = {};
  call.variant = variant;
  const Result<Answer> answer = Ask(ControlCommand::kCacheGet, call, text);
  if (!answer.ok()) return answer.status();
  Result<CachePageReader> page = CachePageReader::Open(answer->payload);
  if (!page.ok()) return page.status();
  CacheEntry entry;
  const Result<bool> there = page->Next(&entry);
  if (!there.ok()) return there.status();
  if (!there.value() || entry.text != text || entry.variant != variant) {
    return Status(StatusCode::kProtocolViolation, "the engine answers with another entry");
  }
  return entry;
}

Result<CacheControl::Page> CacheControl::ReadPage(CacheAdmin::Which which, uint64_t cursor, uint32_t bytes_max) {
  CacheCallBody call = {};
  call.cursor = cursor;
  call.flags = which == CacheAdmin::Which::kHot ? kCacheHotOnly : 0;
  call.bytes_max = bytes_max;
  Result<Answer> answer = Ask(ControlCommand::kCachePage, call);
  if (!answer.ok()) return answer.status();
  if (const Result<CachePageReader> page = CachePageReader::Open(answer->payload); !page.ok()) return page.status();
  return Page{.bytes = std::move(answer->payload),
              .cursor = answer->body.cursor,
              .at_end = (answer->body.flags & kCacheAtEnd) != 0};
}

Result<CacheControl::Imported> CacheControl::Import(std::string_view page) {
  Result<Answer> answer = Ask(ControlCommand::kCacheImport, {}, page);
  if (!answer.ok()) return answer.status();
  return Imported{.stored = answer->body.entries,
                  .refused = answer->body.refused,
                  .first = Printable(answer->payload, HighBytes::kKeep)};
}

Result<CacheAdmin::Compaction> CacheControl::Compact() {
  const Result<Answer> answer = Ask(ControlCommand::kCacheCompact, {});
  if (!answer.ok()) return answer.status();
  return CacheAdmin::Compaction{.bytes_before = answer->body.bytes, .bytes_after = answer->body.entries};
}

Result<std::string> CacheControl::Identities() {
  Result<Answer> answer = Ask(ControlCommand::kCacheIdentities, {});
  if (!answer.ok()) return answer.status();
  return std::move(answer->payload);
}

Result<uint64_t> CacheControl::DropIdentity(const std::string& identity) {
  CacheCallBody call = {};
  if (identity.size() >= sizeof(call.identity)) return Status(StatusCode::kBadOption, "an identity has 64 hex digits");
  identity.copy(call.identity, sizeof(call.identity) - 1);
  const Result<Answer> answer = Ask(ControlCommand::kCacheDropIdentity, call);
  if (!answer.ok()) return answer.status();
  return answer->body.bytes;
}

Result<std::string> CacheControl::Info() {
  Result<Answer> answer = Ask(ControlCommand::kCacheInfo, {});
  if (!answer.ok()) return answer.status();
  return std::move(answer->payload);
}

}  // namespace sutra
