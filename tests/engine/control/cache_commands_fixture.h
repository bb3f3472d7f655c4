// Cache commands on a real shard in a real data directory, run one by one by the test's thread.
// Thread rule: the test's thread.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cache/disk/disk_io.h"
#include "engine/control/cache_commands.h"
#include "engine/control/cache_page.h"
#include "engine/control/sealed_payload.h"
#include "shm/base/clock.h"
#include "tests/kit/temp_dir.h"

namespace sutra::test {

namespace fs = std::filesystem;
using Command = ControlCommand;
using nlohmann::json;

inline const std::vector<float> kVector = {0.6f, 0.8f};

class CacheCommandsTest : public testing::Test {
 protected:
  CacheCommandsTest() {
    config_.directory = temp_.path();
    config_.model_identity = std::string(64, 'a');
    config_.model_name = "served";
    config_.width = 2;
    config_.wal_segment_bytes = kSegmentBytesMin;
    Open();
    Make(0);
  }

  void Open() { shard_ = CacheShard::Open(config_, io_.get(), Clock::Real()).value(); }
  void Make(uint64_t confirm_from_ns) {
    commands_.emplace(
        CacheCommands::Options{.shard = [this] { return shard_.get(); },
                               .shard_may_come = [this] { return may_come_; },
                               .data_lock_held = [this] { return locked_; },
                               .config = config_,
                               .confirm_from_ns = confirm_from_ns,
                               .log = [this](LogLevel, const std::string& line) { log_ += line + "\n"; }});
  }

  CacheReply Run(Command command, CacheCallBody body = {}, const std::string& payload = {},
                 const std::string& identity = {}) {
    body.payload_bytes = static_cast<uint32_t>(payload.size());
    CacheJob job = {.call = {.command = command, .body = body, .identity = identity},
                    .payload = payload,
                    .peer = {.pid = 4711, .uid = 1234, .gid = 1}};
    AdminThread thread([this](const CacheJob& asked, AdminThread::Turn& turn) { return commands_->Run(asked, turn); });
    EXPECT_TRUE(thread.Begin(std::move(job)));
    if (asker_gone_) thread.AskerGone();
    if (leaving_) thread.Shut();
    EXPECT_TRUE(thread.RunOne());
    return std::move(*thread.Take());
  }
  static CacheCallBody Variant(uint32_t variant) {
    CacheCallBody body = {};
    body.variant = variant;
    return body;
  }
  static CacheCallBody Flags(uint32_t flags) {
    CacheCallBody body = {};
    body.flags = flags;
    return body;
  }
  static CacheCallBody Token(uint64_t token) {
    CacheCallBody body = {};
    body.token = token;
    return body;
  }
  static CacheCallBody PageFrom(uint64_t cursor, uint32_t bytes_max) {
    CacheCallBody body = {};
    body.cursor = cursor;
    body.bytes_max = bytes_max;
    return body;
  }
  static std::string PayloadOf(const CacheReply& reply) {
    if (reply.body.payload_bytes == 0) return {};
    const Result<std::string> payload = ReadSealedPayload(reply.payload.get(), reply.body.payload_bytes);
    EXPECT_TRUE(payload.ok()) << payload.status().message();
    return payload.ok() ? payload.value() : "";
  }
  static std::vector<CacheEntry> EntriesOf(const CacheReply& reply) {
    const std::string page = PayloadOf(reply);
    Result<CachePageReader> reader = CachePageReader::Open(page);
    EXPECT_TRUE(reader.ok()) << reader.status().message();
    std::vector<CacheEntry> entries;
    for (CacheEntry entry; reader.ok() && reader->Next(&entry).value();) entries.push_back(entry);
    return entries;
  }
  void Put(const std::string& text, uint32_t variant = 0) {
    shard_->Insert(text, variant, kVector, {.norm = 2, .token_count = 3}, 1000);
  }
  bool Has(const std::string& text) { return shard_->Get(text, 0).ok(); }
  CacheEntry Entry(const std::string& text) const {
    CacheEntry entry;
    entry.text = text;
    entry.vector = kVector;
    entry.value = {.norm = 2, .token_count = 3};
    entry.left_s = 500;
    return entry;
  }
  std::string PageOf(const std::vector<CacheEntry>& entries) const {
    CachePageWriter page(config_.model_identity, config_.width);
    for (const CacheEntry& entry : entries) page.Add(entry);
    return std::move(page).Take();
  }
  std::vector<json> Audit() const {
    std::ifstream file(temp_ / "audit.log");
    std::vector<json> lines;
    for (std::string line; std::getline(file, line);) lines.push_back(json::parse(line));
    return lines;
  }
  // The directory of another model, as a shard leaves it.
  std::string MakeOther(char digit) {
    CacheConfig other = config_;
    other.model_identity[0] = digit;
    other.model_name = "other";
    const std::unique_ptr<CacheShard> shard = CacheShard::Open(other, io_.get(), Clock::Real()).value();
    shard->Insert("old", 0, kVector, {}, 1000);
    EXPECT_TRUE(shard->Sync().ok());
    shard->Close();
    return other.model_identity;
  }

  TempDir temp_;
  const std::unique_ptr<DiskIo> io_ = MakePosixDiskIo(false);
  CacheConfig config_;
  std::unique_ptr<CacheShard> shard_;
  std::optional<CacheCommands> commands_;
  std::string log_;
  bool may_come_ = false, locked_ = true, asker_gone_ = false, leaving_ = false;
};

}  // namespace sutra::test
