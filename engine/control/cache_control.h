// An operator's cache commands to a live engine, for tools. Each call opens a control session, asks, and closes it; a
// session that another operator holds is waited for.
//
// Thread rule: one thread per object. Errors beside those of control_link.h and of the shard's own calls
// (cache_admin.h):
//   kRefused       this user may not control the engine, or it refuses the command: the message says why, and the fix
//   kShuttingDown  it is leaving; what a removal had taken out by then stays out
//   kOverloaded    other sessions held the place, or the engine had no shard yet, for as long as `patience_ns`
//   kCancelled     `progress` said no
//   kBadOption     also: the engine is of another version and does not know the command
//
// A removal that is confirmed is durable, and no answer to its texts comes from before it. One that is not confirmed
// (the engine was killed, or `progress` ended a commit that was under way, which goes on) has happened wholly, in part
// or not at all; what is gone is gone durably or comes back with a restart. Make the preview again: it tells.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "cache/cache_admin.h"
#include "engine/control/control_frame.h"
#include "shm/base/status.h"
#include "shm/base/time.h"
#include "shm/base/unique_fd.h"

namespace sutra {

class ControlLink;

class CacheControl {
 public:
  struct Options {
    std::string socket_path;
    // Of waiting for the operator's place, and of the engine's silence: it says how far it is several times a second.
    uint64_t patience_ns = 10 * kNsPerSecond;
    // How far the engine is, several times a second; total 0: not known. False hangs up, which cancels the command
    // except a commit or an erase that is under way.
    std::function<bool(uint64_t done, uint64_t total)> progress = {};
  };
  explicit CacheControl(Options options) : options_(std::move(options)) {}

  Result<CacheAdmin::Preview> Preview(const CacheFilter& filter);
  Result<CacheAdmin::Removal> Commit(uint64_t token);
  // Whether it was there. RETURNS when it is durable.
  Result<bool> Erase(std::string_view text, uint32_t variant);
  // kBadOption with the message "not cached" if there is none.
  Result<CacheEntry> Get(std::string_view text, uint32_t variant);

  struct Page {
    std::string bytes;    // a page (cache_page.h); without entries only at the end
    uint64_t cursor = 0;  // of the next one
    bool at_end = false;
  };
  // Entries from `cursor` on (0: the first), about `bytes_max` bytes of them: 1 to kCachePageBytesMax. Several calls
  // together see what CacheAdmin::Visit promises.
  Result<Page> ReadPage(CacheAdmin::Which which, uint64_t cursor, uint32_t bytes_max);

  struct Imported {
    uint64_t stored = 0;
    uint64_t refused = 0;
    std::string first;  // why the first refused one was; empty if none was
  };
  // Stores the entries of a page. Of each: what CheckEntry says of it, and its lifetime goes on from `left_s`.
  // kRefused: the page is another model's, or of another width: nothing is stored. Durable as inserts are: Sync is not
  // waited for.
  Result<Imported> Import(std::string_view page);

  Result<CacheAdmin::Compaction> Compact();

  // JSON: [{"name":"<16 hex>","identity":"<64 hex>","model":"...","width":384,"bytes":1,"used_s":12,"served":true,
  // "foreign":""}, ...]; `used_s`: since the last write to a file of it; `foreign`: why it is no cache's directory.
  Result<std::string> Identities();
  // Removes the cache of a model that this engine does not serve, named by its identity or the first 16 digits of it.
  // RETURNS the bytes that it took up. kRefused: it is the served one, or no cache. kBadOption: there is none.
  Result<uint64_t> DropIdentity(const std::string& identity);

  // JSON, one object: identity, model, width, entries, bytes, bounds, unread_entries, the log's figures,
  // storage_failed, log_full.
  Result<std::string> Info();

 private:
  struct Answer {
    CacheAnswerBody body = {};
    std::string payload;
  };
  Result<Answer> Ask(ControlCommand command, CacheCallBody call, std::string_view payload = {});
  Result<ControlAnswer> Hear(ControlLink* link, ControlCommand command, UniqueFd* memory) const;
  Result<Answer> Believe(std::string_view body, const UniqueFd& memory) const;

  const Options options_;
};

}  // namespace sutra
