// Cache commands one by one, on a real shard in a real data directory.
#include "engine/control/cache_commands.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cache/disk/disk_io.h"
#include "cache/shard_directory.h"
#include "engine/control/cache_page.h"
#include "engine/control/sealed_payload.h"
#include "shm/base/clock.h"
#include "shm/base/time.h"
#include "tests/kit/temp_dir.h"

namespace sutra {
namespace {

namespace fs = std::filesystem;
using Command = ControlCommand;
using nlohmann::json;

const std::vector<float> kVector = {0.6f, 0.8f};

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

  test::TempDir temp_;
  const std::unique_ptr<DiskIo> io_ = MakePosixDiskIo(false);
  CacheConfig config_;
  std::unique_ptr<CacheShard> shard_;
  std::optional<CacheCommands> commands_;
  std::string log_;
  bool may_come_ = false, locked_ = true, asker_gone_ = false, leaving_ = false;
};

TEST_F(CacheCommandsTest, APreviewCountsAndItsTokenRemoves) {
  for (const char* text : {"doomed 1", "doomed 2", "kept"}) Put(text);
  const CacheReply preview = Run(Command::kCachePreview, {}, "doomed");
  ASSERT_TRUE(preview.status.ok()) << preview.status.message();
  EXPECT_EQ(preview.body.entries, 2u);
  EXPECT_EQ(preview.body.examined, 3u);
  EXPECT_GT(preview.body.bytes, 0u);
  EXPECT_TRUE(Has("doomed 1")) << "a preview removes nothing";
  const CacheReply commit = Run(Command::kCacheCommit, Token(preview.body.token));
  ASSERT_TRUE(commit.status.ok()) << commit.status.message();
  EXPECT_EQ(commit.body.entries, 2u);
  EXPECT_FALSE(Has("doomed 1"));
  EXPECT_TRUE(Has("kept"));
  EXPECT_EQ(Run(Command::kCacheCommit, Token(preview.body.token)).status.code(), StatusCode::kBadOption);
}

TEST_F(CacheCommandsTest, EveryConditionReachesTheShard) {
  for (const char* text : {"a", "b", "c"}) Put(text);
  std::vector<float> vector(2);
  CacheValue value;
  ASSERT_TRUE(shard_->Lookup("b", 0, vector.data(), &value));
  EXPECT_EQ(Run(Command::kCachePreview, Flags(kCacheNeverHit)).body.entries, 2u);
  EXPECT_EQ(Run(Command::kCachePreview, Flags(kCacheEverything)).body.entries, 3u);
  CacheCallBody old = {};
  old.older_than_s = 500;
  EXPECT_EQ(Run(Command::kCachePreview, old).body.entries, 0u);
  EXPECT_EQ(Run(Command::kCachePreview).status.code(), StatusCode::kBadOption);
  EXPECT_EQ(Run(Command::kCachePreview, Flags(kCacheEverything | kCacheNeverHit)).status.code(),
            StatusCode::kBadOption);
}

TEST_F(CacheCommandsTest, EraseSaysWhetherItWasThereAndTheRestartAgrees) {
  Put("text");
  Put("other");
  EXPECT_EQ(Run(Command::kCacheErase, Variant(1), "text").body.entries, 0u);
  EXPECT_TRUE(Has("text"));
  EXPECT_EQ(Run(Command::kCacheErase, {}, "text").body.entries, 1u);
  EXPECT_EQ(Run(Command::kCacheErase, {}, "text").body.entries, 0u);
  shard_->Close();
  Open();
  EXPECT_FALSE(Has("text"));
  EXPECT_TRUE(Has("other"));
}

TEST_F(CacheCommandsTest, GetShowsAnEntryWhole) {
  Put("text", 5);
  const std::vector<CacheEntry> entries = EntriesOf(Run(Command::kCacheGet, Variant(5), "text"));
  ASSERT_EQ(entries.size(), 1u);
  EXPECT_EQ(entries[0].text, "text");
  EXPECT_EQ(entries[0].variant, 5u);
  EXPECT_EQ(entries[0].vector, kVector);
  EXPECT_EQ(entries[0].value.token_count, 3u);
  const CacheReply none = Run(Command::kCacheGet, {}, "text");
  EXPECT_EQ(none.status.code(), StatusCode::kBadOption);
  EXPECT_EQ(none.status.message(), "not cached");
}

TEST_F(CacheCommandsTest, PagesShowEveryEntryOnce) {
  std::map<std::string, int> seen;
  for (int i = 0; i < 100; ++i) Put("text " + std::to_string(i));
  uint64_t cursor = 0;
  int pages = 0;
  for (bool at_end = false; !at_end; ++pages) {
    const CacheReply reply = Run(Command::kCachePage, PageFrom(cursor, 1000));
    ASSERT_TRUE(reply.status.ok()) << reply.status.message();
    for (const CacheEntry& entry : EntriesOf(reply)) ++seen[entry.text];
    EXPECT_LT(reply.body.payload_bytes, 1200u);
    cursor = reply.body.cursor;
    at_end = (reply.body.flags & kCacheAtEnd) != 0;
  }
  EXPECT_EQ(seen.size(), 100u);
  for (const auto& [text, times] : seen) EXPECT_EQ(times, 1) << text;
  EXPECT_GT(pages, 5);
}

TEST_F(CacheCommandsTest, APageMayHoldOneEntryThatIsLonger) {
  Put(std::string(100'000, 'x'));
  const CacheReply reply = Run(Command::kCachePage, PageFrom(0, 1));
  EXPECT_EQ(EntriesOf(reply).size(), 1u);
}

TEST_F(CacheCommandsTest, APageIsImportedAndSurvivesARestart) {
  const CacheReply reply = Run(Command::kCacheImport, {}, PageOf({Entry("a"), Entry("b")}));
  ASSERT_TRUE(reply.status.ok()) << reply.status.message();
  EXPECT_EQ(reply.body.entries, 2u);
  EXPECT_EQ(reply.body.refused, 0u);
  const CacheEntry stored = shard_->Get("a", 0).value();
  EXPECT_EQ(stored.vector, kVector);
  EXPECT_EQ(stored.value.norm, 2);
  EXPECT_LE(stored.left_s, 500u);
  EXPECT_GT(stored.left_s, 400u);
  shard_->Close();
  Open();
  EXPECT_TRUE(Has("a") && Has("b"));
}

TEST_F(CacheCommandsTest, AnImportRefusesWhatNobodyComputedAndSaysWhy) {
  CacheEntry bad = Entry("long vector");
  bad.vector = {3, 4};
  CacheEntry later = Entry("\xff");
  const CacheReply reply = Run(Command::kCacheImport, {}, PageOf({bad, Entry("good"), later}));
  EXPECT_EQ(reply.body.entries, 1u);
  EXPECT_EQ(reply.body.refused, 2u);
  EXPECT_NE(PayloadOf(reply).find("length 5"), std::string::npos) << PayloadOf(reply);
  EXPECT_TRUE(Has("good"));
  EXPECT_FALSE(Has("long vector"));
}

TEST_F(CacheCommandsTest, AnotherModelsVectorsAreRefusedAsAWhole) {
  CachePageWriter other(std::string(64, 'b'), 2);
  other.Add(Entry("a"));
  EXPECT_EQ(Run(Command::kCacheImport, {}, std::move(other).Take()).status.code(), StatusCode::kRefused);
  CachePageWriter wide(config_.model_identity, 3);
  EXPECT_EQ(Run(Command::kCacheImport, {}, std::move(wide).Take()).status.code(), StatusCode::kRefused);
  std::string damaged = PageOf({Entry("a")});
  damaged.back() ^= 1;
  EXPECT_EQ(Run(Command::kCacheImport, {}, damaged).status.code(), StatusCode::kProtocolViolation);
  EXPECT_FALSE(Has("a"));
}

TEST_F(CacheCommandsTest, ACompactionSaysHowLongTheLogWasAndIs) {
  for (int i = 0; i < 500; ++i) Put("text " + std::to_string(i) + std::string(2000, 'x'));
  ASSERT_TRUE(shard_->Sync().ok());
  ASSERT_TRUE(
      Run(Command::kCacheCommit, Token(Run(Command::kCachePreview, Flags(kCacheEverything)).body.token)).status.ok());
  Put("kept");
  const CacheReply reply = Run(Command::kCacheCompact);
  ASSERT_TRUE(reply.status.ok()) << reply.status.message();
  EXPECT_GT(reply.body.bytes, 1'000'000u);
  EXPECT_LT(reply.body.entries, reply.body.bytes / 2);
  EXPECT_TRUE(Has("kept"));
  EXPECT_EQ(Audit().back()["command"], "cache compact");
}

TEST_F(CacheCommandsTest, InfoIsTheShardsOwn) {
  Put("text");
  const json info = json::parse(PayloadOf(Run(Command::kCacheInfo)));
  EXPECT_EQ(info["identity"], config_.model_identity);
  EXPECT_EQ(info["width"], 2);
  EXPECT_EQ(info["entries"], 1);
  EXPECT_EQ(info["entries_max"], config_.entries_max);
  EXPECT_EQ(info["storage_failed"], false);
}

TEST_F(CacheCommandsTest, IdentitiesAreListedAndAnotherOnesIsDropped) {
  const std::string other = MakeOther('0');
  json list = json::parse(PayloadOf(Run(Command::kCacheIdentities)));
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0]["identity"], other);
  EXPECT_EQ(list[0]["model"], "other");
  EXPECT_EQ(list[0]["served"], false);
  EXPECT_EQ(list[1]["served"], true);
  const CacheReply dropped = Run(Command::kCacheDropIdentity, {}, {}, other);
  ASSERT_TRUE(dropped.status.ok()) << dropped.status.message();
  EXPECT_EQ(dropped.body.bytes, list[0]["bytes"]);
  EXPECT_FALSE(fs::exists(temp_ / other.substr(0, 16)));
  EXPECT_FALSE(fs::exists(temp_ / (other.substr(0, 16) + ".removing")));
  list = json::parse(PayloadOf(Run(Command::kCacheIdentities)));
  EXPECT_EQ(list.size(), 1u);
  EXPECT_EQ(Run(Command::kCacheDropIdentity, {}, {}, other).status.code(), StatusCode::kBadOption);
}

TEST_F(CacheCommandsTest, ADropFinishesWhatAnEarlierOneLeft) {
  const std::string other = MakeOther('0');
  const fs::path path(temp_ / other.substr(0, 16));
  fs::rename(path, path.string() + ".removing");
  static_cast<void>(MakeOther('0'));
  EXPECT_TRUE(Run(Command::kCacheDropIdentity, {}, {}, other.substr(0, 16)).status.ok());
  EXPECT_FALSE(fs::exists(path) || fs::exists(path.string() + ".removing"));
}

TEST_F(CacheCommandsTest, WhatIsServedOrNoCacheIsNotDropped) {
  Put("text");
  EXPECT_EQ(Run(Command::kCacheDropIdentity, {}, {}, config_.model_identity).status.code(), StatusCode::kRefused);
  EXPECT_EQ(Run(Command::kCacheDropIdentity, {}, {}, std::string(16, 'a')).status.code(), StatusCode::kRefused);
  EXPECT_TRUE(Has("text"));
  const std::string other = MakeOther('0');
  std::string another = other;
  another.back() = 'f';
  EXPECT_EQ(Run(Command::kCacheDropIdentity, {}, {}, another).status.code(), StatusCode::kBadOption);
  std::ofstream(temp_ / (other.substr(0, 16) + "/precious")) << "mine";
  EXPECT_EQ(Run(Command::kCacheDropIdentity, {}, {}, other).status.code(), StatusCode::kRefused);
  EXPECT_TRUE(fs::exists(temp_ / (other.substr(0, 16) + "/precious")));
}

TEST_F(CacheCommandsTest, WhatChangesSomethingIsWrittenDownBeforeAndAfterWithoutAText) {
  Put("secret text");
  ASSERT_TRUE(Run(Command::kCacheErase, {}, "secret text").status.ok());
  const CacheReply preview = Run(Command::kCachePreview, {}, "secret");
  ASSERT_TRUE(Run(Command::kCacheCommit, Token(preview.body.token)).status.ok());
  ASSERT_TRUE(Run(Command::kCacheImport, {}, PageOf({Entry("secret too")})).status.ok());
  ASSERT_TRUE(Run(Command::kCacheDropIdentity, {}, {}, MakeOther('0')).status.ok());
  const std::vector<json> audit = Audit();
  ASSERT_EQ(audit.size(), 8u);
  const char* commands[] = {"cache erase", "cache commit", "cache import", "cache drop identity"};
  for (size_t i = 0; i < audit.size(); ++i) {
    EXPECT_EQ(audit[i]["command"], commands[i / 2]);
    EXPECT_EQ(audit[i]["phase"], i % 2 == 0 ? "intent" : "done");
    EXPECT_EQ(audit[i]["uid"], 1234);
    EXPECT_EQ(audit[i]["pid"], 4711);
    EXPECT_EQ(audit[i].dump().find("secret"), std::string::npos);
  }
  EXPECT_EQ(audit[1]["result"], "1 entries removed");
  EXPECT_NE(audit[2]["what"].get<std::string>().find("of 6 bytes, sha256 2bb80d537b1da3e3"), std::string::npos);
  EXPECT_EQ(log_.find("secret"), std::string::npos);
  EXPECT_NE(log_.find("cache erase, asked for by uid 1234 pid 4711: text of 11 bytes"), std::string::npos) << log_;
}

TEST_F(CacheCommandsTest, WhatCannotBeWrittenDownIsNotBegun) {
  Put("text");
  const std::string other = MakeOther('0');
  const CacheReply preview = Run(Command::kCachePreview, Flags(kCacheEverything));
  fs::create_directory(temp_ / "audit.log");
  EXPECT_EQ(Run(Command::kCacheErase, {}, "text").status.code(), StatusCode::kStorageError);
  EXPECT_EQ(Run(Command::kCacheCommit, Token(preview.body.token)).status.code(), StatusCode::kStorageError);
  EXPECT_EQ(Run(Command::kCacheImport, {}, PageOf({Entry("b")})).status.code(), StatusCode::kStorageError);
  EXPECT_EQ(Run(Command::kCacheCompact).status.code(), StatusCode::kStorageError);
  EXPECT_EQ(Run(Command::kCacheDropIdentity, {}, {}, other).status.code(), StatusCode::kStorageError);
  EXPECT_TRUE(Has("text"));
  EXPECT_FALSE(Has("b"));
  EXPECT_TRUE(fs::exists(temp_ / other.substr(0, 16)));
  fs::remove(temp_ / "audit.log");
  EXPECT_TRUE(Run(Command::kCacheCommit, Token(preview.body.token)).status.ok()) << "the preview was not used up";
}

TEST_F(CacheCommandsTest, NoRemovalIsConfirmedBeforeItsTime) {
  const uint64_t from_ns = MonotonicNs() + 50 * kNsPerMs;
  Make(from_ns);
  Put("text");
  EXPECT_TRUE(Run(Command::kCacheErase, {}, "text").status.ok());
  EXPECT_GE(MonotonicNs(), from_ns);
  for (const Command command : {Command::kCacheErase, Command::kCacheCommit, Command::kCacheDropIdentity}) {
    Put("text");
    const std::string other = MakeOther('0');
    Make(UINT64_MAX);
    CacheCallBody body = {};
    if (command == Command::kCacheCommit) {
      body.token = Run(Command::kCachePreview, Flags(kCacheEverything)).body.token;
    }
    // It waits until the engine leaves.
    AdminThread thread([this](const CacheJob& job, AdminThread::Turn& turn) { return commands_->Run(job, turn); });
    const bool erase = command == Command::kCacheErase, drop = command == Command::kCacheDropIdentity;
    ASSERT_TRUE(thread.Start().ok());
    ASSERT_TRUE(thread.Begin({.call = {.command = command, .body = body, .identity = drop ? other : ""},
                              .payload = erase ? "text" : "",
                              .peer = {}}));
    while (drop ? fs::exists(temp_ / other.substr(0, 16)) : Has("text")) {
    }
    EXPECT_FALSE(thread.Take().has_value());
    thread.Stop();
    const std::optional<CacheReply> reply = thread.Take();
    ASSERT_TRUE(reply.has_value());
    EXPECT_EQ(reply->status.code(), StatusCode::kShuttingDown) << static_cast<uint32_t>(command);
  }
}

TEST_F(CacheCommandsTest, ARemovalGoesOnWithoutItsAskerAndEverythingElseEnds) {
  for (int i = 0; i < 2000; ++i) Put("text " + std::to_string(i));
  const CacheReply preview = Run(Command::kCachePreview, {}, "text 1");
  asker_gone_ = true;
  EXPECT_EQ(Run(Command::kCachePage, PageFrom(0, 1000)).status.code(), StatusCode::kCancelled);
  std::vector<CacheEntry> many;
  for (int i = 0; i < 1000; ++i) many.push_back(Entry("new " + std::to_string(i)));
  EXPECT_EQ(Run(Command::kCacheImport, {}, PageOf(many)).status.code(), StatusCode::kCancelled);
  EXPECT_TRUE(Run(Command::kCacheCommit, Token(preview.body.token)).status.ok());
  EXPECT_FALSE(Has("text 1"));
  EXPECT_TRUE(Run(Command::kCacheErase, {}, "text 2").status.ok());
  EXPECT_TRUE(Run(Command::kCacheDropIdentity, {}, {}, MakeOther('0')).status.ok());
}

TEST_F(CacheCommandsTest, AnEngineThatLeavesEndsEvenARemoval) {
  Put("text");
  const CacheReply preview = Run(Command::kCachePreview, Flags(kCacheEverything));
  const std::string other = MakeOther('0');
  leaving_ = true;
  const CacheReply commit = Run(Command::kCacheCommit, Token(preview.body.token));
  EXPECT_EQ(commit.status.code(), StatusCode::kShuttingDown) << commit.status.message();
  EXPECT_TRUE(Has("text"));
  EXPECT_EQ(Run(Command::kCacheDropIdentity, {}, {}, other).status.code(), StatusCode::kShuttingDown);
  EXPECT_TRUE(fs::exists(temp_ / other.substr(0, 16)));
}

TEST_F(CacheCommandsTest, WithoutAShardItIsLaterOrNever) {
  shard_->Close();
  shard_.reset();
  may_come_ = true;
  const CacheReply later = Run(Command::kCacheInfo);
  EXPECT_EQ(later.status.code(), StatusCode::kOverloaded);
  EXPECT_GT(later.retry_after_ms, 0u);
  may_come_ = false;
  EXPECT_EQ(Run(Command::kCacheErase, {}, "text").status.code(), StatusCode::kRefused);
  EXPECT_TRUE(Run(Command::kCacheIdentities).status.ok()) << "needs no shard";
}

TEST_F(CacheCommandsTest, WithoutTheLockNothingIsTouched) {
  Put("text");
  locked_ = false;
  EXPECT_EQ(Run(Command::kCacheErase, {}, "text").status.code(), StatusCode::kStorageError);
  EXPECT_TRUE(Has("text"));
  EXPECT_FALSE(fs::exists(temp_ / "audit.log"));
}

}  // namespace
}  // namespace sutra
