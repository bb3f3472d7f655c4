// Every byte that two processes share as a checked-in table: a change of layout is a diff in a review (embed_abi.py has
// the C ABI). On a wanted change: raise the version, note it in shm/LAYOUT.md, record what the version before sent
// (wire.txt), and replace the table by the file that the failing test names.
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>

#include "producer/include/sutra/embed.h"
#include "shm/base/status.h"
#include "shm/control_messages.h"
#include "shm/handshake_messages.h"
#include "shm/hot_table.h"
#include "shm/layout.h"

namespace sutra::test {
namespace {

class Table {
 public:
  void Add(const char* name, uint64_t value) { lines_ << name << ' ' << value << '\n'; }
  std::string text() const { return lines_.str(); }

 private:
  std::ostringstream lines_;
};

#define SIZE(type)                          \
  table.Add("sizeof " #type, sizeof(type)); \
  table.Add("alignof " #type, alignof(type))
#define FIELD(type, field) table.Add(#type "." #field, offsetof(type, field))
#define VALUE(name) table.Add(#name, static_cast<uint64_t>(name))

// The messages of a control session.
void AddControl(Table* control) {
  Table& table = *control;
  VALUE(kControlMagic);
  VALUE(kControlVersion);
  VALUE(kControlBodyBytesMax);
  VALUE(kStandbysMax);
  VALUE(ControlCommand::kStatus);
  VALUE(ControlCommand::kHandOver);
  VALUE(ControlCommand::kSetLogLevel);
  VALUE(ControlCommand::kRegisterStandby);
  VALUE(ControlCommand::kUpdateStandby);
  VALUE(ControlCommand::kCachePayload);
  VALUE(ControlCommand::kCachePreview);
  VALUE(ControlCommand::kCacheCommit);
  VALUE(ControlCommand::kCacheErase);
  VALUE(ControlCommand::kCacheGet);
  VALUE(ControlCommand::kCachePage);
  VALUE(ControlCommand::kCacheImport);
  VALUE(ControlCommand::kCacheCompact);
  VALUE(ControlCommand::kCacheIdentities);
  VALUE(ControlCommand::kCacheDropIdentity);
  VALUE(ControlCommand::kCacheInfo);
  VALUE(kCachePayloadBytesMax);
  VALUE(kCachePageBytesMax);
  VALUE(kCacheContainsBytesMax);
  VALUE(kCacheEverything);
  VALUE(kCacheNeverHit);
  VALUE(kCacheHotOnly);
  VALUE(kCacheAtEnd);
  SIZE(CacheCallBody);
  FIELD(CacheCallBody, token);
  FIELD(CacheCallBody, cursor);
  FIELD(CacheCallBody, older_than_s);
  FIELD(CacheCallBody, flags);
  FIELD(CacheCallBody, variant);
  FIELD(CacheCallBody, bytes_max);
  FIELD(CacheCallBody, payload_bytes);
  FIELD(CacheCallBody, identity);
  EXPECT_TRUE(std::has_unique_object_representations_v<CacheCallBody>);
  SIZE(CacheAnswerBody);
  FIELD(CacheAnswerBody, token);
  FIELD(CacheAnswerBody, entries);
  FIELD(CacheAnswerBody, bytes);
  FIELD(CacheAnswerBody, examined);
  FIELD(CacheAnswerBody, lost);
  FIELD(CacheAnswerBody, refused);
  FIELD(CacheAnswerBody, cursor);
  FIELD(CacheAnswerBody, flags);
  FIELD(CacheAnswerBody, payload_bytes);
  EXPECT_TRUE(std::has_unique_object_representations_v<CacheAnswerBody>);
  SIZE(CacheProgressBody);
  FIELD(CacheProgressBody, done);
  FIELD(CacheProgressBody, total);
  VALUE(LogVerbosity::kTrace);
  VALUE(LogVerbosity::kDebug);
  VALUE(LogVerbosity::kInfo);
  VALUE(LogVerbosity::kWarn);
  VALUE(LogVerbosity::kError);
  VALUE(StandbyState::kPreparing);
  VALUE(StandbyState::kReady);
  SIZE(ControlHeader);
  FIELD(ControlHeader, magic);
  FIELD(ControlHeader, version);
  FIELD(ControlHeader, command);
  FIELD(ControlHeader, request_id);
  FIELD(ControlHeader, body_bytes);
  FIELD(ControlHeader, status);
  FIELD(ControlHeader, retry_after_ms);
  FIELD(ControlHeader, reserved);
  EXPECT_TRUE(std::has_unique_object_representations_v<ControlHeader>);
  SIZE(HandOverBody);
  FIELD(HandOverBody, engine_generation);
  FIELD(HandOverBody, engine_pid);
  FIELD(HandOverBody, standby_pid);
  EXPECT_TRUE(std::has_unique_object_representations_v<HandOverBody>);
  SIZE(LogLevelBody);
  FIELD(LogLevelBody, verbosity);
  FIELD(LogLevelBody, reserved);
  EXPECT_TRUE(std::has_unique_object_representations_v<LogLevelBody>);
  SIZE(StandbyBody);
  FIELD(StandbyBody, pid);
  FIELD(StandbyBody, state);
  FIELD(StandbyBody, width);
  FIELD(StandbyBody, reserved);
  FIELD(StandbyBody, precision);
  FIELD(StandbyBody, identity);
  EXPECT_TRUE(std::has_unique_object_representations_v<StandbyBody>);
  SIZE(StandbyStateBody);
  FIELD(StandbyStateBody, state);
  FIELD(StandbyStateBody, reserved);
  EXPECT_TRUE(std::has_unique_object_representations_v<StandbyStateBody>);
}

std::string MakeTable() {
  Table table;
  VALUE(kLayoutMajor);
  VALUE(kLayoutMinor);
  VALUE(kRequestLaneMagic);
  VALUE(kReplyLaneMagic);
  VALUE(kEnginePageMagic);
  VALUE(kHandshakeMagic);
  VALUE(kSlotsMin);
  VALUE(kSlotsMax);
  VALUE(kTextHeadBytes);
  VALUE(kTextBytesMaxDefault);
  VALUE(kTextBytesMaxLimit);
  VALUE(kTailBytesMax);
  VALUE(kWidthMax);
  VALUE(kPageBytes);

  SIZE(LaneHeader);
  FIELD(LaneHeader, layout_version);
  FIELD(LaneHeader, header_bytes);
  FIELD(LaneHeader, magic);
  FIELD(LaneHeader, segment_bytes);
  FIELD(LaneHeader, engine_generation);
  FIELD(LaneHeader, lane_id);
  FIELD(LaneHeader, compatible_flags);
  FIELD(LaneHeader, incompatible_flags);
  FIELD(LaneHeader, slots);
  FIELD(LaneHeader, text_bytes_max);
  FIELD(LaneHeader, width);
  FIELD(LaneHeader, vector_stride_bytes);
  FIELD(LaneHeader, boot_id);
  FIELD(LaneHeader, reserved);
  SIZE(ClientLine);
  FIELD(ClientLine, sleepers);
  FIELD(ClientLine, event_armed);
  FIELD(ClientLine, hot_hits);
  FIELD(ClientLine, hot_hints);
  SIZE(EngineLine);
  FIELD(EngineLine, futex_word);
  FIELD(EngineLine, state);
  FIELD(EngineLine, close_reason);
  FIELD(EngineLine, parked);
  FIELD(EngineLine, taken);
  SIZE(RequestDescriptor);
  FIELD(RequestDescriptor, sequence);
  FIELD(RequestDescriptor, cancel_sequence);
  FIELD(RequestDescriptor, submitted_ns);
  FIELD(RequestDescriptor, deadline_ns);
  FIELD(RequestDescriptor, tag);
  FIELD(RequestDescriptor, bytes_and_options);
  FIELD(RequestDescriptor, width_and_ttl);
  FIELD(RequestDescriptor, priority_and_tail);
  SIZE(ResultDescriptor);
  FIELD(ResultDescriptor, word);
  FIELD(ResultDescriptor, tag);
  FIELD(ResultDescriptor, source);
  FIELD(ResultDescriptor, flags);
  FIELD(ResultDescriptor, token_count);
  FIELD(ResultDescriptor, width);
  FIELD(ResultDescriptor, stage_ns);
  FIELD(ResultDescriptor, retry_after_ms);
  SIZE(EnginePage);
  FIELD(EnginePage, layout_version);
  FIELD(EnginePage, page_bytes);
  FIELD(EnginePage, magic);
  FIELD(EnginePage, engine_generation);
  FIELD(EnginePage, heartbeat_ns);
  FIELD(EnginePage, state);
  FIELD(EnginePage, asleep);
  VALUE(kLaneUnused);
  VALUE(kLaneOpen);
  VALUE(kLaneDraining);
  VALUE(kLaneClosed);
  VALUE(kEngineStarting);
  VALUE(kEngineServing);
  VALUE(kEngineDraining);
  VALUE(kEngineClosed);
  VALUE(kOptionsKnown);
  VALUE(kOptionNormalize);
  VALUE(kOptionRaw);
  VALUE(kOptionReject);
  VALUE(kOptionCacheSkipLookup);
  VALUE(kOptionCacheSkipStore);
  VALUE(kSourceNone);
  VALUE(kSourceHotTable);
  VALUE(kSourceShard);
  VALUE(kSourceJoined);
  VALUE(kSourceModel);
  VALUE(kPriorityNormal);
  VALUE(kPriorityQuery);
  VALUE(kPriorityBulk);
  VALUE(kResultTruncated);
  VALUE(kStageCount);
  for (int i = 0; i < kStatusCodeCount; ++i) {
    table.Add((std::string("status ") + StatusName(static_cast<StatusCode>(i))).c_str(), static_cast<uint64_t>(i));
  }

  SIZE(HelloMessage);
  FIELD(HelloMessage, layout_major);
  FIELD(HelloMessage, slots);
  FIELD(HelloMessage, width);
  FIELD(HelloMessage, text_bytes_max);
  FIELD(HelloMessage, flags);
  FIELD(HelloMessage, model);
  FIELD(HelloMessage, client_name);
  SIZE(WelcomeMessage);
  FIELD(WelcomeMessage, layout_major);
  FIELD(WelcomeMessage, status);
  FIELD(WelcomeMessage, slots);
  FIELD(WelcomeMessage, width);
  FIELD(WelcomeMessage, text_bytes_max);
  FIELD(WelcomeMessage, tokens_max);
  FIELD(WelcomeMessage, engine_generation);
  FIELD(WelcomeMessage, lane_id);
  FIELD(WelcomeMessage, engine_now_ns);
  FIELD(WelcomeMessage, normalizes);
  FIELD(WelcomeMessage, engine_pid);
  FIELD(WelcomeMessage, retry_after_ms);
  FIELD(WelcomeMessage, hot_slots);
  FIELD(WelcomeMessage, model);
  FIELD(WelcomeMessage, identity);
  FIELD(WelcomeMessage, message);
  VALUE(kFdRequest);
  VALUE(kFdReply);
  VALUE(kFdTail);
  VALUE(kFdPage);
  VALUE(kFdEvent);
  VALUE(kWelcomeFds);
  VALUE(kFdHot);
  VALUE(kWelcomeFdsMax);
  SIZE(LockedMessage);
  SIZE(ServingMessage);

  const LaneGeometry geometry = {256, kTextBytesMaxDefault, 384};
  table.Add("lane(256,16777216,384).client_line", geometry.client_line());
  table.Add("lane(256,16777216,384).submission_ring", geometry.submission_ring());
  table.Add("lane(256,16777216,384).requests", geometry.requests());
  table.Add("lane(256,16777216,384).text_heads", geometry.text_heads());
  table.Add("lane(256,16777216,384).request_bytes", geometry.request_bytes());
  table.Add("lane(256,16777216,384).tail_bytes", geometry.tail_bytes());
  table.Add("lane(4,5000,384).tail_bytes", LaneGeometry{4, 5000, 384}.tail_bytes());
  table.Add("lane(256,16777216,384).completion_ring", geometry.completion_ring());
  table.Add("lane(256,16777216,384).results", geometry.results());
  table.Add("lane(256,16777216,384).vectors", geometry.vectors());
  table.Add("lane(256,16777216,384).vector_stride", geometry.vector_stride());
  table.Add("lane(256,16777216,384).reply_bytes", geometry.reply_bytes());

  SIZE(HotHeader);
  FIELD(HotHeader, version);
  FIELD(HotHeader, header_bytes);
  FIELD(HotHeader, magic);
  FIELD(HotHeader, segment_bytes);
  FIELD(HotHeader, engine_generation);
  FIELD(HotHeader, seed);
  FIELD(HotHeader, width);
  FIELD(HotHeader, slots);
  FIELD(HotHeader, buckets);
  FIELD(HotHeader, slot_bytes);
  FIELD(HotHeader, closed);
  FIELD(HotHeader, boot_ahead_ns);
  SIZE(HotSlot);
  FIELD(HotSlot, sequence);
  FIELD(HotSlot, digest);
  FIELD(HotSlot, expires_ns);
  FIELD(HotSlot, norm_and_tokens);
  FIELD(HotSlot, flags_and_cell);
  VALUE(kHotTableVersion);
  VALUE(kHotCellsPerBucket);
  VALUE(kHotCellsPerSlot);
  const HotGeometry hot = HotGeometry::Of(384, kHotBytesDefault);
  table.Add("hot(384,67108864).slots", hot.slots);
  table.Add("hot(384,67108864).buckets", hot.buckets());
  table.Add("hot(384,67108864).buckets_at", hot.buckets_at());
  table.Add("hot(384,67108864).slots_at", hot.slots_at());
  table.Add("hot(384,67108864).slot_bytes", hot.slot_bytes());
  table.Add("hot(384,67108864).bytes", hot.bytes());

  AddControl(&table);
  return table.text();
}

TEST(Abi, SharedLayoutIsTheCheckedInTable) {
  std::ifstream file(SUTRA_ABI_DIR "/layout.txt");
  std::stringstream checked_in;
  checked_in << file.rdbuf();
  const std::string now = MakeTable();
  if (checked_in.str() != now) {
    const std::string path = testing::TempDir() + "sutra_layout.txt";
    std::ofstream(path) << now;
    ADD_FAILURE() << "the layout changed; compare tests/abi/layout.txt with " << path;
  }
}

TEST(Abi, EverySharedStructureHasOneRepresentation) {
  EXPECT_TRUE(std::has_unique_object_representations_v<HelloMessage>);
  EXPECT_TRUE(std::has_unique_object_representations_v<WelcomeMessage>);
  EXPECT_TRUE(std::has_unique_object_representations_v<LockedMessage>);
  EXPECT_TRUE(std::has_unique_object_representations_v<ServingMessage>);
  EXPECT_TRUE(std::has_unique_object_representations_v<sutra_attach_options>);
  EXPECT_TRUE(std::has_unique_object_representations_v<sutra_info>);
  EXPECT_TRUE(std::has_unique_object_representations_v<sutra_batch_options>);
  // With a float a structure never counts as unique: the last field ends where the structure does, and the table shows
  // that none before it leaves a gap.
  EXPECT_EQ(sizeof(sutra_options), offsetof(sutra_options, prompt) + sizeof(sutra_options::prompt));
  EXPECT_EQ(sizeof(sutra_result), offsetof(sutra_result, match_id) + sizeof(sutra_result::match_id));
  // The others hold atomics, which never count as unique; their padding is spelled out as reserved bytes.
  EXPECT_TRUE(std::is_standard_layout_v<LaneHeader> && std::is_standard_layout_v<ClientLine> &&
              std::is_standard_layout_v<EngineLine> && std::is_standard_layout_v<RequestDescriptor> &&
              std::is_standard_layout_v<ResultDescriptor> && std::is_standard_layout_v<EnginePage> &&
              std::is_standard_layout_v<HotHeader> && std::is_standard_layout_v<HotSlot>);
}

}  // namespace
}  // namespace sutra::test
