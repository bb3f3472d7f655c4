// Attacks through the contents of the request lane and of the tail file: indices, lengths, the one offset that a client
// chooses (of a long text in the tail file), content, and the segments as a whole. The other places follow from the
// geometry (shm/layout.h), so attacks on them rewrite the header instead.
#include <sys/stat.h>

#include <atomic>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <random>
#include <thread>

#include "engine/lanes/untrusted_copy.h"
#include "shm/lane_ring.h"
#include "tests/hostile/hostile_fixture.h"
#include "tests/kit/seed.h"

namespace sutra::test {
namespace {

// What must become of the attacker.
enum class End {
  kViolation,  // loses its lane, counted
  kAnswered,   // gets `answer`, keeps its lane
  kHarmless,   // keeps or loses its lane; either is fine
};

struct LaneAttack {
  const char* name;
  End end;
  StatusCode answer;
  // Does the harm. For kAnswered it submits in slot 0 with sequence 1.
  void (*run)(RawClient& client);
};

constexpr auto kRelaxed = std::memory_order_relaxed;  // an attacker has no ordering to keep

// A submission whose descriptor was corrupted before it was published.
void SubmitSpoilt(RawClient& client, void (*spoil)(RequestDescriptor& descriptor)) {
  client.FillSlot(0, "a text with a spoilt descriptor", 1);
  spoil(client.request().request(0));
  client.PublishEntry(0, RingEntry(0, 0));
  client.Ring();
}

// A long text (a hole: zeros) that its descriptor places at `offset` of the tail file.
constexpr uint64_t kLongTextBytes = 1000;
void SubmitLong(RawClient& client, uint64_t offset) {
  client.FillSlot(0, "", 1);
  RequestDescriptor& descriptor = client.request().request(0);
  descriptor.bytes_and_options.store(kLongTextBytes, kRelaxed);
  descriptor.priority_and_tail.store(PriorityAndTail(kPriorityNormal, offset), kRelaxed);
  client.PublishEntry(0, RingEntry(0, 0));
  client.Ring();
}

void Entry(RawClient& client, uint64_t entry) {
  client.FillSlot(0, "an attack by index", 1);
  client.PublishEntry(client.position(), entry);
  client.Ring();
}

// Writes two values in turn from another thread, while `meanwhile` submits.
void Flicker(SharedWord<uint64_t>& word, uint64_t one, uint64_t other, const std::function<void()>& meanwhile) {
  std::atomic<bool> stop{false};
  std::thread thread([&] {
    while (!stop.load(kRelaxed)) {
      word.store(one, kRelaxed);
      word.store(other, kRelaxed);
    }
  });
  meanwhile();
  stop.store(true, kRelaxed);
  thread.join();
}

// Submits again and again in slot 0 for as long as the lane answers: an attack may have silenced its own lane.
void SubmitMany(RawClient& client, int count, std::string_view text) {
  for (int i = 0; i < count; ++i) {
    const uint64_t sequence = client.Submit(0, text);
    if (!client.WaitAnswer(0, sequence, 1000).has_value()) return;
  }
}

void FillWords(RawClient& client, const std::function<uint64_t()>& value) {
  for (size_t i = 0; i < client.word_count(); ++i) client.words()[i].store(value(), kRelaxed);
  client.Ring();
}

void RewriteHeader(RawClient& client, void (*rewrite)(LaneHeader& header)) {
  rewrite(client.request().header());
  client.Submit(0, "after the header was rewritten");
}

constexpr auto kNone = StatusCode::kOk;

const LaneAttack kAttacks[] = {
    // Indices.
    {"TailFarAhead", End::kViolation, kNone, [](RawClient& c) { Entry(c, RingEntry(100'000, 0)); }},
    {"TailOneTooFar", End::kViolation, kNone, [](RawClient& c) { Entry(c, RingEntry(1, 0)); }},
    {"TailBehind", End::kViolation, kNone,
     [](RawClient& c) {
       SubmitMany(c, 3, "first some proper ones");
       Entry(c, RingEntry(c.position() - 1, 0));
     }},
    {"TailIsMax", End::kViolation, kNone, [](RawClient& c) { Entry(c, UINT64_MAX); }},
    {"EntryWithoutPosition", End::kViolation, kNone, [](RawClient& c) { Entry(c, 5); }},
    {"SlotOneOver", End::kViolation, kNone, [](RawClient& c) { Entry(c, RingEntry(0, c.geometry().slots)); }},
    {"SlotIsMax", End::kViolation, kNone, [](RawClient& c) { Entry(c, RingEntry(0, 0xffff)); }},
    {"EntryOfTheLastLap", End::kHarmless, kNone,
     [](RawClient& c) {
       SubmitMany(c, static_cast<int>(c.geometry().slots), "a whole lap");
       Entry(c, RingEntry(c.position() - c.geometry().slots, 0));
     }},
    {"TailMovedBackAfterPublish", End::kHarmless, kNone,
     [](RawClient& c) {
       for (int i = 0; i < 200; ++i) {
         c.FillSlot(0, "taken back", 1);
         c.PublishEntry(0, RingEntry(0, 0));
         c.PublishEntry(0, 0);
       }
       c.Ring();
     }},
    {"TailFlickeringWhilePolled", End::kHarmless, kNone,
     [](RawClient& c) {
       Flicker(c.request().submission(5), RingEntry(5, 0), RingEntry(7, 3), [&] { SubmitMany(c, 100, "flicker"); });
     }},
    {"OneSlotTwice", End::kViolation, kNone,
     [](RawClient& c) {
       c.FillSlot(0, "held when it comes again", 1);
       c.PublishEntry(1, RingEntry(1, 0));  // the second first, so that both are there at once
       c.PublishEntry(0, RingEntry(0, 0));
       c.Ring();
     }},

    // Lengths.
    {"LengthZero", End::kAnswered, StatusCode::kEmptyText, [](RawClient& c) { c.Submit(0, ""); }},
    {"LengthOneOver", End::kViolation, kNone,
     [](RawClient& c) {
       c.FillSlot(0, "x", 1);
       c.request().request(0).bytes_and_options.store(c.geometry().text_bytes_max + 1, kRelaxed);
       c.PublishEntry(0, RingEntry(0, 0));
       c.Ring();
     }},
    {"LengthMax32", End::kViolation, kNone,
     [](RawClient& c) {
       SubmitSpoilt(c, [](RequestDescriptor& d) { d.bytes_and_options.store(UINT32_MAX, kRelaxed); });
     }},
    {"LengthMax64", End::kViolation, kNone,
     [](RawClient& c) {
       SubmitSpoilt(c, [](RequestDescriptor& d) { d.bytes_and_options.store(UINT64_MAX, kRelaxed); });
     }},
    {"LengthMaxOfTheSlot", End::kAnswered, kNone,
     [](RawClient& c) { c.Submit(0, std::string(c.geometry().text_bytes_max, 'm')); }},
    {"LengthOverWhatWasWritten", End::kAnswered, kNone,  // the tail is a hole: zeros, and NUL is a character
     [](RawClient& c) { SubmitSpoilt(c, [](RequestDescriptor& d) { d.bytes_and_options.store(5000, kRelaxed); }); }},
    {"LengthChangingBetweenTwoReads", End::kHarmless, kNone,
     [](RawClient& c) {
       Flicker(c.request().request(0).bytes_and_options, 4, UINT32_MAX, [&] { SubmitMany(c, 50, "four and more"); });
     }},

    // Offsets in the tail file.
    {"TailOneByteOver", End::kViolation, kNone,
     [](RawClient& c) { SubmitLong(c, c.geometry().tail_bytes() - kLongTextBytes + 1); }},
    {"TailAtTheEnd", End::kViolation, kNone, [](RawClient& c) { SubmitLong(c, c.geometry().tail_bytes()); }},
    {"TailOffsetMax", End::kViolation, kNone, [](RawClient& c) { SubmitLong(c, UINT64_MAX >> 8); }},
    {"TailOffsetWraps", End::kViolation, kNone,
     [](RawClient& c) { SubmitLong(c, (UINT64_MAX >> 8) - kLongTextBytes + 1); }},
    {"TailUpToTheLastByte", End::kAnswered, kNone,  // an arena: any place in the file is valid
     [](RawClient& c) { SubmitLong(c, c.geometry().tail_bytes() - kLongTextBytes); }},
    {"TailOffsetOfAShortText", End::kAnswered, kNone,
     [](RawClient& c) {
       SubmitSpoilt(c, [](RequestDescriptor& d) { d.priority_and_tail.store(UINT64_MAX << 8, kRelaxed); });
     }},
    {"TailOffsetChangingBetweenTwoReads", End::kHarmless, kNone,
     [](RawClient& c) {
       Flicker(c.request().request(0).priority_and_tail, 0, UINT64_MAX << 8,
               [&] { SubmitMany(c, 50, std::string(kLongTextBytes, 'f')); });
     }},

    // Other numbers of a request.
    {"SequenceZero", End::kViolation, kNone,
     [](RawClient& c) { SubmitSpoilt(c, [](RequestDescriptor& d) { d.sequence.store(0, kRelaxed); }); }},
    {"SequenceTooLong", End::kViolation, kNone,
     [](RawClient& c) { SubmitSpoilt(c, [](RequestDescriptor& d) { d.sequence.store(1ull << 56, kRelaxed); }); }},
    {"SequenceUsedAgain", End::kHarmless, kNone,
     [](RawClient& c) {
       for (uint32_t slot = 0; slot < 4; ++slot) {
         c.FillSlot(slot, "the same number", 1);
         c.PublishEntry(slot, RingEntry(slot, slot));
       }
       c.Ring();
     }},
    {"UnknownOptions", End::kAnswered, StatusCode::kBadOption,
     [](RawClient& c) {
       SubmitSpoilt(c,
                    [](RequestDescriptor& d) { d.bytes_and_options.store(uint64_t{0xffffffe0} << 32 | 5, kRelaxed); });
     }},
    {"WidthMax", End::kAnswered, StatusCode::kBadOption,
     [](RawClient& c) { SubmitSpoilt(c, [](RequestDescriptor& d) { d.width_and_ttl.store(UINT64_MAX, kRelaxed); }); }},
    {"TtlMax", End::kAnswered, kNone,
     [](RawClient& c) {
       SubmitSpoilt(c, [](RequestDescriptor& d) { d.width_and_ttl.store(uint64_t{UINT32_MAX} << 32, kRelaxed); });
     }},
    {"PriorityMax", End::kAnswered, StatusCode::kBadOption,
     [](RawClient& c) {
       SubmitSpoilt(c, [](RequestDescriptor& d) { d.priority_and_tail.store(UINT64_MAX, kRelaxed); });
     }},
    {"DeadlineMax", End::kAnswered, kNone,
     [](RawClient& c) { SubmitSpoilt(c, [](RequestDescriptor& d) { d.deadline_ns.store(UINT64_MAX, kRelaxed); }); }},
    {"DeadlineInThePast", End::kAnswered, StatusCode::kDeadlineExceeded,
     [](RawClient& c) { SubmitSpoilt(c, [](RequestDescriptor& d) { d.deadline_ns.store(1, kRelaxed); }); }},
    {"SubmittedInTheFuture", End::kAnswered, kNone,
     [](RawClient& c) { SubmitSpoilt(c, [](RequestDescriptor& d) { d.submitted_ns.store(UINT64_MAX, kRelaxed); }); }},

    // Content.
    {"InvalidUtf8", End::kAnswered, StatusCode::kInvalidUtf8, [](RawClient& c) { c.Submit(0, "good \xc3\x28 bad"); }},
    {"Surrogates", End::kAnswered, StatusCode::kInvalidUtf8,
     [](RawClient& c) { c.Submit(0, "\xed\xa0\x80\xed\xb0\x80"); }},
    {"EmbeddedZeros", End::kAnswered, kNone, [](RawClient& c) { c.Submit(0, std::string(300, '\0')); }},
    {"NothingButCombiningMarks", End::kAnswered, kNone,
     [](RawClient& c) {
       std::string marks = "e";
       while (marks.size() + 2 <= c.geometry().text_bytes_max) marks += "\xcc\x81";
       c.Submit(0, marks);
     }},
    {"TextEditedAfterPublish", End::kHarmless, kNone,
     [](RawClient& c) {
       auto& word = *reinterpret_cast<SharedWord<uint64_t>*>(c.request().text_head(0));
       Flicker(word, 0x6161616161616161, 0x6262626262626262, [&] { SubmitMany(c, 200, "aaaaaaaa"); });
     }},

    // The segment as a whole.
    {"SegmentOfZeros", End::kHarmless, kNone, [](RawClient& c) { FillWords(c, [] { return uint64_t{0}; }); }},
    {"SegmentOfOnes", End::kViolation, kNone, [](RawClient& c) { FillWords(c, [] { return UINT64_MAX; }); }},
    {"SegmentOfNoise", End::kViolation, kNone,
     [](RawClient& c) {
       std::mt19937_64 random(FreshTestSeed());
       FillWords(c, [&] { return random() | 1; });
     }},
    {"SegmentOfNoiseWhilePolled", End::kHarmless, kNone,
     [](RawClient& c) {
       std::mt19937_64 random(FreshTestSeed());
       for (int i = 0; i < 20; ++i) {
         c.Submit(static_cast<uint32_t>(i) % c.geometry().slots, "before the noise");
         for (int k = 0; k < 2000; ++k) c.words()[random() % c.word_count()].store(random(), kRelaxed);
       }
     }},
    {"HolesEverywhere", End::kHarmless, kNone,
     [](RawClient& c) {
       SubmitMany(c, 3, "before the holes");
       for (int i = 0; i < 50; ++i) {
         c.Submit(static_cast<uint32_t>(i) % c.geometry().slots, "and a hole under it");
         EXPECT_TRUE(c.PunchHole(0, c.geometry().request_bytes()));
         EXPECT_TRUE(c.PunchTail(0, c.geometry().tail_bytes()));
       }
     }},
    {"VersionRewrittenLive", End::kAnswered, kNone,
     [](RawClient& c) { RewriteHeader(c, [](LaneHeader& h) { h.layout_version.store(0xdead, kRelaxed); }); }},
    {"GeometryRewrittenLive", End::kAnswered, kNone,
     [](RawClient& c) {
       RewriteHeader(c, [](LaneHeader& h) {
         h.slots = 1u << 31;
         h.text_bytes_max = UINT32_MAX;
         h.segment_bytes = UINT64_MAX;
         h.vector_stride_bytes = 0;
       });
     }},
    {"GenerationOfThePast", End::kAnswered, kNone,
     [](RawClient& c) {
       RewriteHeader(c, [](LaneHeader& h) {
         h.engine_generation -= 1;
         h.lane_id += 1;
       });
     }},
    {"ReservedBytesSet", End::kAnswered, kNone,
     [](RawClient& c) {
       std::memset(c.request().client().reserved, 0xff, sizeof(ClientLine::reserved));
       RewriteHeader(c, [](LaneHeader& h) { std::memset(h.reserved, 0xff, sizeof(h.reserved)); });
     }},
};

class LaneAttackTest : public HostileTest, public testing::WithParamInterface<LaneAttack> {};

TEST_P(LaneAttackTest, EndsWithEngineAliveAndNeighbourRight) {
  const LaneAttack& attack = GetParam();
  RawClient client = Attach();
  ASSERT_TRUE(client.lane_ready());
  attack.run(client);
  if (attack.end == End::kViolation) {
    ExpectViolation(client);
  } else if (attack.end == End::kAnswered) {
    const std::optional<StatusCode> answer = client.WaitAnswer(0, 1, kWaitMs);
    ASSERT_TRUE(answer.has_value()) << "the lane was closed";
    EXPECT_EQ(StatusName(*answer), StatusName(attack.answer));
  }
  EXPECT_TRUE(neighbour_->WaitAnswers(kAnswersAfterwards));
  // Whatever an editor of published texts managed: both texts still have their own vectors.
  ClientHandle other;
  ASSERT_EQ(other.Attach(engine_->socket()), SUTRA_OK);
  for (const char* text : {"aaaaaaaa", "bbbbbbbb"}) EXPECT_EQ(WhatIsWrong(other.Embed(text), text), "");
}

INSTANTIATE_TEST_SUITE_P(Attacks, LaneAttackTest, testing::ValuesIn(kAttacks),
                         [](const auto& attack) { return std::string(attack.param.name); });

// A page fault inside a mapped hole waits until the client has finished punching it, and every lane with it. So the
// file that a client can make large is not mapped at all: what is mapped of a lane is small, whatever its texts are.
TEST_F(HostileTest, TheEngineMapsNoFileInWhichAClientCanPunchALargeHole) {
  HelloMessage hello = RawClient::Hello();
  hello.slots = kSlotsMax;
  RawClient client = RawClient::Attach(engine_->socket(), hello);
  ASSERT_TRUE(client.lane_ready()) << client.welcome().message;
  ASSERT_EQ(client.geometry().tail_bytes(), kTailBytesMax);
  const std::string text(5000, 't');
  const uint64_t sequence = client.Submit(0, text);
  EXPECT_EQ(client.WaitAnswer(0, sequence, kWaitMs), StatusCode::kOk) << "a long text is read all the same";
  std::ifstream maps("/proc/" + std::to_string(engine_->process().pid()) + "/maps");
  int request_lanes = 0;
  for (std::string line; std::getline(maps, line);) {
    EXPECT_EQ(line.find("sutra-tail-file"), std::string::npos) << line;
    if (line.find("sutra-request-lane") == std::string::npos) continue;
    ++request_lanes;
    uint64_t from = 0, to = 0;
    ASSERT_EQ(std::sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64, &from, &to), 2);
    EXPECT_LE(to - from, 2u << 20) << line;
  }
  EXPECT_EQ(request_lanes, 2) << "the attacker's and the neighbour's: the names have changed, this test sees nothing";
}

// The descriptors that a client keeps after its lane has ended keep no pages of what it wrote.
TEST_F(HostileTest, AClosedLanesTextsAreGivenBackThoughTheClientKeepsTheDescriptors) {
  RawClient client = Attach();
  const uint64_t sequence = client.Submit(0, std::string(5000, 't'));
  EXPECT_EQ(client.WaitAnswer(0, sequence, kWaitMs), StatusCode::kOk);
  const auto pages = [](int fd) {
    struct stat info = {};
    EXPECT_EQ(fstat(fd, &info), 0);
    return info.st_blocks;
  };
  EXPECT_GT(pages(client.request_fd()), 0);
  EXPECT_GT(pages(client.tail_fd()), 0);
  client.socket_owner() = UniqueFd();
  EXPECT_TRUE(engine_->WaitStats(
      [&](const StatsSnapshot&) { return pages(client.request_fd()) == 0 && pages(client.tail_fd()) == 0; }));
  ExpectOnlyNeighbourLeft();
}

TEST_F(HostileTest, AnOddTextGetsItsOwnVectorFromARawClient) {
  RawClient client = Attach();
  const std::string text = "an odd number of bytes, through a hand-made lane";
  const uint64_t sequence = client.Submit(3, text);
  ASSERT_EQ(client.WaitAnswer(3, sequence, kWaitMs), StatusCode::kOk);
  EXPECT_TRUE(SameVector(client.Vector(3), ExpectedVector(text)));
}

}  // namespace
}  // namespace sutra::test
