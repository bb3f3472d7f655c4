// The asker's side of cache commands, against real sessions whose commands the test makes up, and against an engine
// that lies.
#include "engine/control/cache_control.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "engine/control/cache_page.h"
#include "engine/control/cache_reply.h"
#include "shm/handshake.h"
#include "tests/engine/control/control_world.h"

namespace sutra {
namespace {

using test::ControlWorld;

const std::string kIdentity(64, 'a');

CacheControl At(const std::string& path, uint64_t patience_ns = 60 * kNsPerSecond) {
  return CacheControl({.socket_path = path, .patience_ns = patience_ns});
}

CacheEntry Entry(const std::string& text) {
  CacheEntry entry;
  entry.text = text;
  entry.vector.assign(8, 0);
  entry.left_s = 5;
  return entry;
}
std::string PageOf(const std::string& text) {
  CachePageWriter page(kIdentity, 8);
  page.Add(Entry(text));
  return std::move(page).Take();
}

// Answers with what it was asked, so that each field is seen to arrive.
CacheReply Echo(const CacheJob& job, AdminThread::Turn&) {
  const CacheCallBody& call = job.call.body;
  CacheReply reply;
  reply.body = {.token = call.token + 1,
                .entries = call.older_than_s + call.variant,
                .bytes = job.payload.size(),
                .examined = call.flags,
                .lost = 5,
                .refused = 6,
                .cursor = call.cursor + call.bytes_max,
                .flags = kCacheAtEnd,
                .payload_bytes = 0};
  switch (job.call.command) {
    case ControlCommand::kCacheGet: return WithPayload(std::move(reply), PageOf(job.payload));
    case ControlCommand::kCachePage: return WithPayload(std::move(reply), PageOf("x"));
    case ControlCommand::kCacheDropIdentity: reply.body.bytes = job.call.identity.size(); return reply;
    case ControlCommand::kCacheImport: return WithPayload(std::move(reply), "why");
    case ControlCommand::kCacheIdentities: return WithPayload(std::move(reply), "[]");
    case ControlCommand::kCacheInfo: return WithPayload(std::move(reply), "{}");
    default: return reply;
  }
}

TEST(CacheControl, EveryCommandAndEveryFieldArrives) {
  const ControlWorld world(Echo);
  CacheControl control = At(world.path());
  const Result<CacheAdmin::Preview> preview =
      control.Preview({.everything = false, .contains = "words", .older_than_s = 9, .never_hit = true});
  ASSERT_TRUE(preview.ok()) << preview.status().message();
  EXPECT_EQ(preview->token, 1u);
  EXPECT_EQ(preview->entries, 9u);
  EXPECT_EQ(preview->bytes, 5u);
  EXPECT_EQ(preview->examined, kCacheNeverHit);
  EXPECT_EQ(preview->lost, 5u);
  CacheFilter everything;
  everything.everything = true;
  EXPECT_EQ(control.Preview(everything)->examined, kCacheEverything);
  EXPECT_EQ(control.Commit(41)->entries, 0u);
  EXPECT_TRUE(control.Erase("text", 7).value());
  EXPECT_FALSE(control.Erase("text", 0).value());
  EXPECT_EQ(control.Get("text", 0)->text, "text");
  const Result<CacheControl::Page> page = control.ReadPage(CacheAdmin::Which::kHot, 100, 11);
  ASSERT_TRUE(page.ok()) << page.status().message();
  EXPECT_EQ(page->cursor, 111u);
  EXPECT_TRUE(page->at_end);
  EXPECT_EQ(page->bytes, PageOf("x"));
  const Result<CacheControl::Imported> imported = control.Import("page");
  ASSERT_TRUE(imported.ok()) << imported.status().message();
  EXPECT_EQ(imported->refused, 6u);
  EXPECT_EQ(imported->first, "why");
  EXPECT_EQ(control.Compact()->bytes_before, 0u);
  EXPECT_EQ(control.Identities().value(), "[]");
  EXPECT_EQ(control.Info().value(), "{}");
  EXPECT_EQ(control.DropIdentity(std::string(64, 'b')).value(), 64u);
  EXPECT_EQ(control.DropIdentity(std::string(100, 'b')).code(), StatusCode::kBadOption);
}

TEST(CacheControl, ALongTextAndALongAnswerGoThrough) {
  const ControlWorld world(Echo);
  std::string text(16u << 20, 'x');
  text.back() = 'y';
  const Result<CacheEntry> entry = At(world.path()).Get(text, 0);
  ASSERT_TRUE(entry.ok()) << entry.status().message();
  EXPECT_TRUE(entry->text == text);
  EXPECT_EQ(At(world.path()).Import(std::string(kCachePayloadBytesMax + 1, 'x')).code(), StatusCode::kBadOption);
}

TEST(CacheControl, WhatTheEngineRefusesIsAnErrorWithItsWords) {
  const ControlWorld world([](const CacheJob&, AdminThread::Turn&) {
    return Failed(Status(StatusCode::kStorageError, "the disk\n is full"));
  });
  const Status status = At(world.path()).Erase("text", 0).status();
  EXPECT_EQ(status.code(), StatusCode::kStorageError);
  EXPECT_NE(status.message().find("the disk? is full"), std::string::npos) << status.message();
}

TEST(CacheControl, ItWaitsWhileTheEngineSaysHowFarItIs) {
  std::atomic<int> told{0};
  const ControlWorld world([&told](const CacheJob&, AdminThread::Turn& turn) {
    while (turn.GoOn(3, 4) && told.load() < 3) {
    }
    return CacheReply();
  });
  CacheControl control({.socket_path = world.path(), .progress = [&told](uint64_t done, uint64_t total) {
                          EXPECT_TRUE(done == 3 && total == 4);
                          told.fetch_add(1);
                          return true;
                        }});
  EXPECT_TRUE(control.Compact().ok());
  EXPECT_GE(told.load(), 3);
}

TEST(CacheControl, NoEndsTheCommand) {
  std::atomic<bool> ended{false};
  {
    ControlWorld world([&ended](const CacheJob&, AdminThread::Turn& turn) {
      while (turn.GoOn(3, 4)) {
      }
      ended.store(!turn.leaving());
      return CacheReply();
    });
    CacheControl control({.socket_path = world.path(), .progress = [](uint64_t, uint64_t) { return false; }});
    EXPECT_EQ(control.Compact().code(), StatusCode::kCancelled);
    while (!ended.load()) std::this_thread::yield();
  }
}

TEST(CacheControl, TwoOperatorsTakeTurns) {
  std::atomic<int> at_once{0}, most{0}, runs{0};
  const ControlWorld world([&](const CacheJob&, AdminThread::Turn&) {
    most.store(std::max(most.load(), at_once.fetch_add(1) + 1));
    for (int i = 0; i < 1000; ++i) std::this_thread::yield();
    at_once.fetch_sub(1);
    runs.fetch_add(1);
    return CacheReply();
  });
  // Longer than a socket's buffer: who is refused meanwhile has more to say, and is answered all the same.
  const std::string text(1'000'000, 'x');
  const auto operate = [&world, &text] {
    for (int i = 0; i < 20; ++i) {
      const Result<bool> there = At(world.path()).Erase(text, 0);
      EXPECT_TRUE(there.ok()) << there.status().message();
    }
  };
  std::thread other(operate);
  operate();
  other.join();
  EXPECT_EQ(most.load(), 1);
  EXPECT_EQ(runs.load(), 40);
}

TEST(CacheControl, AnOpeningCacheIsWaitedForUntilPatienceEnds) {
  std::atomic<int> left{3};
  const ControlWorld world([&left](const CacheJob&, AdminThread::Turn&) {
    if (left.fetch_sub(1) <= 0) return CacheReply();
    CacheReply reply = Failed(Status(StatusCode::kOverloaded, "opening"));
    reply.retry_after_ms = 1;
    return reply;
  });
  EXPECT_TRUE(At(world.path()).Erase("text", 0).ok());
  left.store(1'000'000);
  EXPECT_EQ(At(world.path(), 20 * kNsPerMs).Erase("text", 0).code(), StatusCode::kOverloaded);
}

TEST(CacheControl, WithoutAnEngineItSaysSo) {
  EXPECT_EQ(At("/nonexistent/socket").Info().code(), StatusCode::kEngineGone);
}

// An engine that answers the next command with these bytes and descriptors, and hangs up.
class LyingEngine {
 public:
  LyingEngine(CacheAnswerBody body, std::vector<int> fds, std::string text = "")
      : listener_(std::move(ListeningSocket::Open(path(), 0600)).value()) {
    thread_ = std::thread([this, body, fds = std::move(fds), text = std::move(text)] {
      pollfd item = {listener_.fd(), POLLIN, 0};
      EXPECT_EQ(poll(&item, 1, 60'000), 1);
      const UniqueFd socket(accept4(listener_.fd(), nullptr, nullptr, SOCK_CLOEXEC));
      std::vector<char> buffer(kControlMessageBytesMax);
      ssize_t count;
      ControlCall call;
      do {
        count = recv(socket.get(), buffer.data(), buffer.size(), 0);
        if (count > 0) call = CallOf({buffer.data(), static_cast<size_t>(count)});
      } while (count > 0 && call.command == static_cast<uint32_t>(ControlCommand::kCachePayload));
      const std::string message = MakeControlMessage(call, text.empty() ? BytesOf(body) : std::string_view(text));
      EXPECT_EQ(SendMessage(socket.get(), message.data(), message.size(), fds.data(), fds.size(), 0),
                MessageOutcome::kOk);
    });
  }
  ~LyingEngine() { thread_.join(); }
  std::string path() const { return directory_ / "s"; }

 private:
  test::TempDir directory_;
  ListeningSocket listener_;
  std::thread thread_;
};

int NextDescriptor() {
  const UniqueFd fd(dup(STDERR_FILENO));
  return fd.get();
}

TEST(CacheControl, ALyingEngineIsNotBelieved) {
  const std::string page = PageOf("text");
  const UniqueFd good = MakeSealedPayload(page).value();
  const std::string other = PageOf("other");
  const UniqueFd another = MakeSealedPayload(other).value();
  const UniqueFd unsealed(memfd_create("test", MFD_CLOEXEC));
  ASSERT_EQ(write(unsealed.get(), page.data(), page.size()), static_cast<ssize_t>(page.size()));
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const UniqueFd reading(ends[0]), writing(ends[1]);
  const auto code = [](uint64_t bytes, std::vector<int> fds, const std::string& text = "") {
    CacheAnswerBody body = {};
    body.payload_bytes = static_cast<uint32_t>(bytes);
    const LyingEngine engine(body, std::move(fds), text);
    return At(engine.path()).Get("text", 0).code();
  };
  const int before = NextDescriptor();
  EXPECT_EQ(code(page.size(), {good.get()}), StatusCode::kOk);
  EXPECT_EQ(code(page.size(), {good.get(), good.get(), reading.get()}), StatusCode::kOk) << "only the first counts";
  EXPECT_EQ(code(page.size(), {}), StatusCode::kProtocolViolation);
  EXPECT_EQ(code(page.size() + 1, {good.get()}), StatusCode::kProtocolViolation);
  EXPECT_EQ(code(page.size(), {unsealed.get()}), StatusCode::kProtocolViolation);
  EXPECT_EQ(code(page.size(), {reading.get()}), StatusCode::kProtocolViolation);
  EXPECT_EQ(code(0, {good.get()}), StatusCode::kProtocolViolation) << "no page at all";
  EXPECT_EQ(code(0, {}, "short"), StatusCode::kProtocolViolation);
  EXPECT_EQ(code(other.size(), {another.get()}), StatusCode::kProtocolViolation) << "another entry";
  EXPECT_EQ(NextDescriptor(), before) << "a descriptor stayed open";
}

}  // namespace
}  // namespace sutra
