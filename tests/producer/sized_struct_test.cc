// Structures of older and newer callers: what lies behind them stays untouched, what one side does not know is zero.
#include "producer/sized_struct.h"

#include <cstddef>
#include <cstring>
#include <vector>

#include "tests/producer/client_fixture.h"

namespace sutra::test {
namespace {

using client::kInfoBytesFirst;
using client::kOptionsBytesFirst;
using client::kResultBytesFirst;
using client::kStructBytesMax;
using client::ReadStruct;
using client::ResultSink;
using client::StructBytes;
using client::StructRead;
using client::WriteStruct;

// Three versions of one structure; a library knows the second.
struct V1 {
  uint32_t size, a;
};
struct V2 {
  uint32_t size, a;
  uint64_t b;
};
struct V3 {
  uint32_t size, a;
  uint64_t b, c;
};

constexpr uint64_t kCanary = 0xdeadbeefcafef00d;
template <typename T>
struct Guarded {
  T known = {};
  uint64_t canary = kCanary;
};

TEST(SizedStruct, SizesFromTheFirstVersionToAPageAreKnown) {
  for (const uint32_t size : {8u, 9u, 24u, kStructBytesMax}) EXPECT_EQ(StructBytes(&size, 8), size);
  for (const uint32_t size : {0u, 4u, 7u, kStructBytesMax + 1, UINT32_MAX}) EXPECT_EQ(StructBytes(&size, 8), 0u);
}

TEST(SizedStruct, OlderOptionsAreReadUpToTheirSize) {
  Guarded<V1> older;
  older.known = {sizeof(V1), 7};
  V2 read = {1, 2, 3};
  EXPECT_EQ(ReadStruct(&older.known, sizeof(V1), &read, sizeof(read)), StructRead::kOk);
  EXPECT_EQ(read.a, 7u);
  EXPECT_EQ(read.b, 0u) << "the canary behind the caller's structure was read";
}

TEST(SizedStruct, NewerOptionsAreReadUnlessTheyAskForSomethingUnknown) {
  V3 newer = {sizeof(V3), 7, 8, 0};
  V2 read;
  EXPECT_EQ(ReadStruct(&newer, sizeof(V1), &read, sizeof(read)), StructRead::kOk);
  EXPECT_EQ(read.a, 7u);
  EXPECT_EQ(read.b, 8u);
  newer.c = 1;
  EXPECT_EQ(ReadStruct(&newer, sizeof(V1), &read, sizeof(read)), StructRead::kUnknownField);
}

TEST(SizedStruct, NoOptionsAreZerosAndAnUnknownSizeIsRefused) {
  V2 read = {1, 2, 3};
  EXPECT_EQ(ReadStruct(nullptr, sizeof(V1), &read, sizeof(read)), StructRead::kOk);
  EXPECT_EQ(read.size + read.a + read.b, 0u);
  const V2 unset = {0, 7, 8};
  EXPECT_EQ(ReadStruct(&unset, sizeof(V1), &read, sizeof(read)), StructRead::kUnknownSize);
}

TEST(SizedStruct, OlderResultIsWrittenUpToItsSize) {
  const V2 library = {0, 7, 8};
  Guarded<V1> older;
  WriteStruct(&library, sizeof(library), &older.known, sizeof(V1));
  EXPECT_EQ(older.known.size, sizeof(V1));
  EXPECT_EQ(older.known.a, 7u);
  EXPECT_EQ(older.canary, kCanary);
}

TEST(SizedStruct, NewerResultIsZeroWhereTheLibraryKnowsNothing) {
  const V2 library = {0, 7, 8};
  Guarded<V3> newer;
  newer.known = {sizeof(V3), 1, 2, 3};
  WriteStruct(&library, sizeof(library), &newer.known, sizeof(V3));
  EXPECT_EQ(newer.known.size, sizeof(V3));
  EXPECT_EQ(newer.known.b, 8u);
  EXPECT_EQ(newer.known.c, 0u);
  EXPECT_EQ(newer.canary, kCanary);
}

TEST(SizedStruct, SinkRefusesASizeOrStrideThatIsNone) {
  sutra_result results[2] = {embed::Result(), embed::Result()};
  ResultSink sink;
  EXPECT_TRUE(sink.Open(results, sizeof(sutra_result)));
  EXPECT_FALSE(sink.Open(results, sizeof(sutra_result) - 1));
  EXPECT_FALSE(sink.Open(results, 0));
  results[0].size = kResultBytesFirst - 1;
  EXPECT_FALSE(sink.Open(results));
  results[0].size = kStructBytesMax + 1;
  EXPECT_FALSE(sink.Open(results));
}

TEST(SizedStruct, SinkForNobodyStoresNothing) {
  ResultSink sink;
  EXPECT_TRUE(sink.Open(nullptr, 0));
  sink.PutStatus(1000, SUTRA_FORKED, 1);
}

TEST(SizedStruct, SinkFillsTheCallersOwnStructureWhereItIsTheLibrarys) {
  struct Record {
    sutra_result result = embed::Result();
    uint64_t canary = kCanary;
  } records[2];
  ResultSink sink;
  sutra_result spare;
  ASSERT_TRUE(sink.Open(&records[0].result, sizeof(Record)));
  EXPECT_EQ(sink.Fill(0, &spare), &records[0].result);
  EXPECT_EQ(sink.Fill(1, &spare), &records[1].result);
  records[0].result.size = kResultBytesFirst;
  ASSERT_EQ(sink.Open(&records[0].result, sizeof(Record)), true);
  const bool same = kResultBytesFirst == sizeof(sutra_result);
  EXPECT_EQ(sink.Fill(0, &spare), same ? &records[0].result : &spare) << "a structure of the first version";
  sink.PutStatus(1, SUTRA_FULL, 9);
  EXPECT_EQ(records[1].result.status, SUTRA_FULL);
  EXPECT_EQ(records[1].result.tag, 9u);
  EXPECT_EQ(records[1].canary, kCanary);
}

TEST(SizedStruct, SinkConvertsWhereTheStrideLeavesStructuresUnaligned) {
  constexpr size_t kStride = sizeof(sutra_result) + 2;
  alignas(8) std::byte memory[2 * kStride] = {};
  const sutra_result first = embed::Result();
  std::memcpy(memory, &first, sizeof(first));
  ResultSink sink;
  sutra_result spare;
  ASSERT_TRUE(sink.Open(reinterpret_cast<sutra_result*>(memory), kStride));
  EXPECT_EQ(sink.Fill(1, &spare), &spare);
  sink.PutStatus(1, SUTRA_FULL, 9);
  sutra_result second;
  std::memcpy(&second, memory + kStride, sizeof(second));
  EXPECT_EQ(second.status, SUTRA_FULL);
  EXPECT_EQ(second.tag, 9u);
}

// Through the calls. A structure of the first version, with something else of the caller's right behind it.
template <uint32_t bytes>
struct FirstVersion {
  alignas(8) std::byte memory[bytes] = {};
  uint64_t canary = kCanary;
  explicit FirstVersion(uint32_t size = bytes) { std::memcpy(memory, &size, sizeof(size)); }
};

template <typename T>
struct Newer {
  T known;
  uint64_t unknown = 77;
  uint64_t canary = kCanary;
  explicit Newer(const T& value) : known(value) { known.size = offsetof(Newer, canary); }
};

class SizedStructCalls : public ClientTest {};

TEST_F(SizedStructCalls, InfoOfAFirstVersionCallerEndsAtItsSize) {
  StartEngine();
  const ClientPtr client = Attach();
  FirstVersion<kInfoBytesFirst> info;
  auto* as_info = reinterpret_cast<sutra_info*>(info.memory);
  ASSERT_EQ(sutra_get_info(client.get(), as_info), SUTRA_OK);
  EXPECT_EQ(as_info->size, kInfoBytesFirst);
  EXPECT_EQ(as_info->width, 16u);
  EXPECT_STREQ(as_info->model, "echo-model");
  EXPECT_EQ(info.canary, kCanary);
}

TEST_F(SizedStructCalls, InfoOfANewerCallerIsZeroBehindWhatIsKnown) {
  StartEngine();
  const ClientPtr client = Attach();
  Newer<sutra_info> info(embed::Info());
  ASSERT_EQ(sutra_get_info(client.get(), &info.known), SUTRA_OK);
  EXPECT_EQ(info.known.size, offsetof(Newer<sutra_info>, canary));
  EXPECT_EQ(info.unknown, 0u);
  EXPECT_EQ(info.canary, kCanary);
}

TEST_F(SizedStructCalls, ResultsOfOlderAndNewerCallersEndAtTheirSize) {
  StartEngine();
  const ClientPtr client = Attach();
  float vector[16];
  FirstVersion<kResultBytesFirst> first;
  auto* as_result = reinterpret_cast<sutra_result*>(first.memory);
  ASSERT_EQ(sutra_embed(client.get(), "text", 4, nullptr, vector, as_result), SUTRA_OK);
  EXPECT_EQ(as_result->width, 16u);
  EXPECT_EQ(first.canary, kCanary);

  Newer<sutra_result> newer(embed::Result());
  ASSERT_EQ(sutra_embed(client.get(), "text", 4, nullptr, vector, &newer.known), SUTRA_OK);
  EXPECT_EQ(newer.known.vector, vector);
  EXPECT_EQ(newer.unknown, 0u);
  EXPECT_EQ(newer.canary, kCanary);

  sutra_ticket ticket = 0;
  ASSERT_EQ(Submit(client, "text", &ticket), SUTRA_OK);
  newer.unknown = 77;
  EXPECT_EQ(sutra_wait(client.get(), ticket, 60'000, &newer.known), SUTRA_OK);
  EXPECT_TRUE(IsEchoOf("text", newer.known.vector, newer.known.width));
  EXPECT_EQ(newer.unknown, 0u);
  EXPECT_EQ(newer.canary, kCanary);
  EXPECT_EQ(sutra_wait(client.get(), ticket, 60'000, as_result), SUTRA_OK);
  EXPECT_EQ(first.canary, kCanary);
}

TEST_F(SizedStructCalls, BatchResultsLieAStrideApartAndTakeTheFirstOnesSize) {
  StartEngine();
  const ClientPtr client = Attach(2);
  const Texts texts = ManyTexts(10);
  std::vector<float> vectors(10 * 16);
  std::vector<FirstVersion<kResultBytesFirst>> records(10, FirstVersion<kResultBytesFirst>(0));
  auto* first = reinterpret_cast<sutra_result*>(records[0].memory);
  first->size = kResultBytesFirst;
  ASSERT_EQ(sutra_embed_batch(client.get(), texts.pointers.data(), texts.sizes.data(), 10, nullptr, nullptr,
                              vectors.data(), first, sizeof(records[0])),
            SUTRA_OK);
  for (size_t i = 0; i < 10; ++i) {
    const auto* result = reinterpret_cast<const sutra_result*>(records[i].memory);
    EXPECT_EQ(result->size, kResultBytesFirst);
    EXPECT_EQ(result->status, SUTRA_OK);
    EXPECT_EQ(result->vector, &vectors[i * 16]);
    EXPECT_EQ(records[i].canary, kCanary) << i;
  }

  std::vector<Newer<sutra_result>> newer(10, Newer<sutra_result>(embed::Result()));
  ASSERT_EQ(sutra_embed_batch(client.get(), texts.pointers.data(), texts.sizes.data(), 10, nullptr, nullptr,
                              vectors.data(), &newer[0].known, sizeof(newer[0])),
            SUTRA_OK);
  for (const Newer<sutra_result>& record : newer) {
    EXPECT_EQ(record.known.status, SUTRA_OK);
    EXPECT_EQ(record.unknown, 0u);
    EXPECT_EQ(record.canary, kCanary);
  }
}

TEST_F(SizedStructCalls, UnknownSizesAreABadArgumentAndNothingIsTouched) {
  StartEngine();
  const ClientPtr client = Attach();
  sutra_ticket ticket = 0;
  ASSERT_EQ(Submit(client, "text", &ticket), SUTRA_OK);
  float vectors[16] = {};
  const char* text = "text";
  const size_t text_bytes = 4;
  for (const uint32_t size : {0u, 4u, kResultBytesFirst - 1, kStructBytesMax + 1, UINT32_MAX}) {
    Guarded<sutra_result> result;
    result.known.size = size;
    result.known.status = 99;
    EXPECT_EQ(sutra_wait(client.get(), ticket, 60'000, &result.known), SUTRA_BAD_ARGUMENT) << size;
    EXPECT_EQ(sutra_embed(client.get(), text, text_bytes, nullptr, vectors, &result.known), SUTRA_BAD_ARGUMENT);
    EXPECT_EQ(sutra_embed_batch(client.get(), &text, &text_bytes, 1, nullptr, nullptr, vectors, &result.known,
                                sizeof(sutra_result)),
              SUTRA_BAD_ARGUMENT);
    EXPECT_NE(std::string(sutra_error_text()).find("sutra_result.size"), std::string::npos) << sutra_error_text();
    EXPECT_EQ(result.known.size, size);
    EXPECT_EQ(result.known.status, 99u);

    sutra_info info = {};
    info.size = size < kResultBytesFirst ? size : kInfoBytesFirst - 1;
    EXPECT_EQ(sutra_get_info(client.get(), &info), SUTRA_BAD_ARGUMENT);
    EXPECT_EQ(info.width, 0u);
    sutra_options options = {};
    options.size = size < kResultBytesFirst - 1 ? size : kOptionsBytesFirst - 1;
    EXPECT_EQ(Embed(client, "text", &options), SUTRA_BAD_ARGUMENT);
    sutra_attach_options attach = {};
    attach.size = size < kResultBytesFirst - 1 ? size : client::kAttachOptionsBytesFirst - 1;
    EXPECT_EQ(AttachStatus(attach), SUTRA_BAD_ARGUMENT);
  }
  sutra_result result = embed::Result();
  EXPECT_EQ(
      sutra_embed_batch(client.get(), &text, &text_bytes, 1, nullptr, nullptr, vectors, &result, sizeof(result) - 1),
      SUTRA_BAD_ARGUMENT);
  EXPECT_EQ(sutra_wait(client.get(), ticket, 60'000, &result), SUTRA_OK) << "the ticket lives on";
}

}  // namespace
}  // namespace sutra::test
