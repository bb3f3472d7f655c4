// The n-th call of the library that takes memory or a descriptor (malloc, mmap, socket, ...) fails, for every n: each
// call of a client ends with a clear status, nothing is left, and the next attach works. The linker sends the library's
// calls here (--wrap), so that they can also be told to lie.
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "producer/lane_pool.h"
#include "producer/resubmission.h"
#include "producer/slot_end.h"
#include "tests/kit/poll_tickets.h"
#include "tests/producer/client_fixture.h"
#include "tests/producer/lane_fixture.h"

namespace sutra::test {
namespace {

// Of this thread only: the engine's process and gtest's other threads are never counted.
thread_local int fail_at = 0;  // the how-manieth call from now fails; 0 = none
thread_local int failures = 0;
thread_local int sockets_opened = 0;
// The same of the library's helper thread.
std::atomic<int> helper_fail_at = 0, helper_failures = 0;
thread_local std::function<void()>* before_get_lock = nullptr;  // called before the next look at the engine's lock

bool IsHelper() {
  char name[16] = {};
  return pthread_getname_np(pthread_self(), name, sizeof(name)) == 0 && std::string(name) == "sutra-client";
}

bool FailsNow(int cause) {
  if (helper_fail_at != 0 && IsHelper()) {
    if (--helper_fail_at != 0) return false;
    ++helper_failures;
    errno = cause;
    return true;
  }
  if (fail_at == 0 || --fail_at != 0) return false;
  ++failures;
  errno = cause;
  return true;
}

}  // namespace
}  // namespace sutra::test

extern "C" {
void* __real_malloc(size_t bytes);
void* __real_mmap(void* address, size_t bytes, int protection, int flags, int fd, off_t offset);
int __real_madvise(void* address, size_t bytes, int advice);
int __real_fallocate(int fd, int mode, off_t offset, off_t bytes);
int __real_socket(int domain, int type, int protocol);
int __real_fcntl(int fd, int command, ...);
int __real_eventfd(unsigned count, int flags);
int __real_epoll_create1(int flags);
int __real_timerfd_create(int clock, int flags);
int __real_pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*start)(void*), void* argument);

void* __wrap_malloc(size_t bytes) { return sutra::test::FailsNow(ENOMEM) ? nullptr : __real_malloc(bytes); }
void* __wrap_mmap(void* address, size_t bytes, int protection, int flags, int fd, off_t offset) {
  if (sutra::test::FailsNow(ENOMEM)) return MAP_FAILED;
  return __real_mmap(address, bytes, protection, flags, fd, offset);
}
int __wrap_madvise(void* address, size_t bytes, int advice) {
  const bool populates = advice == 22 || advice == 23;  // MADV_POPULATE_READ and _WRITE; all other advice is a hint
  return populates && sutra::test::FailsNow(EFAULT) ? -1 : __real_madvise(address, bytes, advice);
}
int __wrap_fallocate(int fd, int mode, off_t offset, off_t bytes) {
  return sutra::test::FailsNow(ENOSPC) ? -1 : __real_fallocate(fd, mode, offset, bytes);
}
int __wrap_socket(int domain, int type, int protocol) {
  ++sutra::test::sockets_opened;
  return sutra::test::FailsNow(EMFILE) ? -1 : __real_socket(domain, type, protocol);
}
int __wrap_eventfd(unsigned count, int flags) {
  return sutra::test::FailsNow(EMFILE) ? -1 : __real_eventfd(count, flags);
}
int __wrap_epoll_create1(int flags) { return sutra::test::FailsNow(EMFILE) ? -1 : __real_epoll_create1(flags); }
int __wrap_timerfd_create(int clock, int flags) {
  return sutra::test::FailsNow(EMFILE) ? -1 : __real_timerfd_create(clock, flags);
}
int __wrap_pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*start)(void*), void* argument) {
  if (sutra::test::FailsNow(EAGAIN)) return EAGAIN;
  return __real_pthread_create(thread, attributes, start, argument);
}
int __wrap_fcntl(int fd, int command, ...) {
  va_list arguments;
  va_start(arguments, command);
  void* argument = va_arg(arguments, void*);
  va_end(arguments);
  if (command == F_DUPFD_CLOEXEC && sutra::test::FailsNow(EMFILE)) return -1;
  if (command == F_GETLK && sutra::test::before_get_lock != nullptr) {
    auto* hook = sutra::test::before_get_lock;
    sutra::test::before_get_lock = nullptr;
    (*hook)();
  }
  return __real_fcntl(fd, command, argument);
}
}

namespace sutra::test {
namespace {

class ClientFault : public ClientTest {
 protected:
  struct Left {
    size_t descriptors = 0, mappings = 0, threads = 0;
    bool operator==(const Left&) const = default;
  };
  static Left LookAround() {
    Left left;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      (void)entry;
      ++left.descriptors;
    }
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
      (void)entry;
      ++left.threads;
    }
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) left.mappings += line.find("/memfd:") != std::string::npos;
    return left;
  }

  // All kinds of calls, from attach to detach. RETURNS how many of the statuses were not SUTRA_OK.
  int UseAll() {
    int refused = 0;
    const auto take = [&](sutra_status status) {
      if (status == SUTRA_OK) return true;
      ++refused;
      EXPECT_EQ(status, SUTRA_OUT_OF_MEMORY) << sutra_error_text();
      EXPECT_NE(std::string(sutra_error_text()), "");
      return false;
    };
    const sutra_attach_options options = AttachOptions(32, 1);
    sutra_client* client = nullptr;
    if (!take(sutra_attach(path_.c_str(), &options, &client))) {
      EXPECT_EQ(client, nullptr);
      return refused;
    }
    for (const std::string& text : {std::string("short"), std::string(5000, 'l')}) {
      float vector[16];
      if (take(sutra_embed(client, text.data(), text.size(), nullptr, vector, nullptr))) {
        EXPECT_TRUE(IsEchoOf(text, vector, 16));
      }
      sutra_ticket ticket = 0;
      if (take(sutra_submit(client, text.data(), text.size(), nullptr, &ticket))) {
        sutra_result result = embed::Result();
        EXPECT_EQ(sutra_wait(client, ticket, 60'000, &result), SUTRA_OK);
        EXPECT_TRUE(IsEchoOf(text, result.vector, result.width));
        sutra_release(client, ticket);
      }
    }
    const Texts texts = ManyTexts(300, 30);
    std::vector<float> vectors(300 * 16);
    std::vector<sutra_result> results(300, embed::Result());
    (void)take(sutra_embed_batch(client, texts.pointers.data(), texts.sizes.data(), 300, nullptr, nullptr,
                                 vectors.data(), results.data(), sizeof(sutra_result)));
    for (size_t i = 0; i < 300; ++i) {
      if (results[i].status == SUTRA_OK) {
        EXPECT_TRUE(IsEchoOf(texts.strings[i], &vectors[i * 16], 16));
      } else {
        EXPECT_EQ(results[i].status, SUTRA_OUT_OF_MEMORY);
      }
    }
    if (sutra_event_fd(client) < 0) {
      ++refused;
      EXPECT_NE(std::string(sutra_error_text()).find("limit of open files"), std::string::npos) << sutra_error_text();
    }
    sutra_ticket none;
    EXPECT_EQ(PollTickets(client, &none, 1), 0u);
    sutra_detach(client);
    return refused;
  }
};

TEST_F(ClientFault, WhicheverAllocationFailsTheStatusIsClearAndNothingIsLeft) {
  StartEngine();
  ASSERT_EQ(UseAll(), 0);
  const Left before = LookAround();
  int n = 1, refused = 0;
  for (;; ++n) {
    fail_at = n;
    failures = 0;
    const int now = UseAll();
    const bool reached = failures > 0;
    fail_at = 0;
    ASSERT_TRUE(LookAround() == before) << "left behind by failure " << n;
    if (!reached) break;
    refused += now > 0;
    ASSERT_EQ(UseAll(), 0) << "after failure " << n;
  }
  EXPECT_GT(n, 20) << "the sweep reached too few calls to be one";
  EXPECT_GT(refused, 10);
}

TEST_F(ClientFault, CanaryWhatIsLeftIsSeen) {
  StartEngine();
  Attach(4);  // the first thread of a process may bring another one, of a sanitizer
  const Left before = LookAround();
  ClientPtr client = Attach(4);
  EXPECT_EQ(LookAround().descriptors, before.descriptors + 7);  // five of the lane, two of the helper thread
  EXPECT_EQ(LookAround().threads, before.threads + 1);
  EXPECT_EQ(LookAround().mappings, before.mappings + 4);
  client.reset();
  EXPECT_TRUE(LookAround() == before);
}

// Of one lane, in a client that may open two: the second lane is an improvement, so a failure costs nothing.
TEST_F(ClientFault, ALaneThatCannotBeAddedLeavesTheClientWithTheOthers) {
  StartEngine();
  const ClientPtr client = Attach(2, 2);
  const auto attempts = [&] {
    const MutexLock lock(client->attempt_mutex);
    return client->attempts;
  };
  sutra_ticket tickets[3] = {};
  ASSERT_EQ(Submit(client, "a", &tickets[0]), SUTRA_OK);
  ASSERT_EQ(Submit(client, "b", &tickets[1]), SUTRA_OK);
  const Left before = LookAround();
  for (int n = 1;; ++n) {
    const uint64_t attempts_before = attempts();
    client->open_after_ns = 0;
    helper_failures = 0;
    helper_fail_at = n;
    sutra_status status = Submit(client, "c", &tickets[2]);
    while (attempts() == attempts_before) std::this_thread::yield();
    helper_fail_at = 0;
    if (helper_failures == 0) {
      // The helper may have been so quick that the same call found the new lane.
      if (status == SUTRA_FULL) status = Submit(client, "c", &tickets[2]);
      EXPECT_EQ(status, SUTRA_OK) << sutra_error_text();
      EXPECT_GT(n, 5);
      break;
    }
    EXPECT_EQ(status, SUTRA_FULL);
    EXPECT_TRUE(LookAround() == before) << n;
  }
}

// Something listens and answers nothing: an engine that is stopped, or in a long start.
TEST_F(ClientFault, NoSubmitAttachesOrWaitsForAnAttach) {
  StartEngine();
  const ClientPtr client = Attach(2, 2);
  engine_.reset();
  const int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  path_.copy(address.sun_path, sizeof(address.sun_path) - 1);
  ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(listen(listener, 8), 0);
  sockets_opened = 0;
  for (int attempt = 0; attempt < 3; ++attempt) {
    const int connection = accept(listener, nullptr, nullptr);  // the helper's
    ASSERT_GE(connection, 0);
    int calls = 0;
    char bytes[4096];
    while (recv(connection, bytes, sizeof(bytes), MSG_DONTWAIT) != 0) {  // until it gives up
      sutra_ticket ticket = 0;
      const sutra_status status = Submit(client, "x", &ticket);
      ASSERT_TRUE(status == SUTRA_ENGINE_GONE) << sutra_status_text(status);
      sutra_info info = embed::Info();
      ASSERT_EQ(sutra_get_info(client.get(), &info), SUTRA_OK);
      ASSERT_EQ(PollTickets(client.get(), &ticket, 1), 0u);
      ++calls;
    }
    EXPECT_GT(calls, 1) << "a call waited for the attempt";
    close(connection);
  }
  EXPECT_EQ(sockets_opened, 0) << "a call attached by itself";
  EXPECT_NE(std::string(sutra_error_text()).find("no answer in time"), std::string::npos) << sutra_error_text();
  close(listener);
  unlink(path_.c_str());
}

class LaneFault : public LaneTest {};

TEST_F(LaneFault, AFailedLongTextLeavesNoPageUncounted) {
  const std::string text(8000, 't');
  fail_at = 1;
  failures = 0;
  {
    const MutexLock lock(lane_->mutex);
    uint32_t slot = 0;
    EXPECT_EQ(client::SubmitLocked(lane_, text.data(), 8000, {}, MonotonicNs(), client::SlotPhase::kTicket, &slot),
              SUTRA_OUT_OF_MEMORY);
    EXPECT_NE(std::string(sutra_error_text()).find("No space left"), std::string::npos) << sutra_error_text();
    EXPECT_EQ(lane_->tail.memory_bytes(), 0u);
    EXPECT_EQ(lane_->tail.used_bytes(), 0u);
    EXPECT_EQ(lane_->free_count, 4u);
  }
  EXPECT_EQ(failures, 1);
  const uint32_t slot = Submit(text);
  const MutexLock lock(lane_->mutex);
  EXPECT_EQ(lane_->slots[slot].tail_pages, 2u);
  EXPECT_EQ(lane_->tail.memory_bytes(), 8192u);
  EXPECT_EQ(lane_->tail.used_bytes(), 8192u);
}

TEST_F(LaneFault, AMoveThatRunsOutOfMemoryMovesNothingAndTheNextOneMovesAll) {
  const uint32_t slots[] = {Submit("short"), Submit(std::string(8000, 't'))};
  ASSERT_EQ(Die(), SUTRA_ENGINE_GONE);
  std::atomic<uint64_t> moved = 0;
  failures = 0;
  for (int call = 1; moved.load() == 0; ++call) {
    ASSERT_LT(call, 20) << "it does not end";
    EngineEnd next;
    const client::LaneConnection connection = next.Connect();
    fail_at = call;
    const sutra_status status = client::MoveLane(lane_, connection, MonotonicNs(), &moved);
    fail_at = 0;
    if (status == SUTRA_OK) {
      EXPECT_EQ(next.Take(), static_cast<int>(slots[0]));
      EXPECT_EQ(next.Take(), static_cast<int>(slots[1]));
      continue;
    }
    ASSERT_EQ(status, SUTRA_OUT_OF_MEMORY) << sutra_error_text();
    EXPECT_EQ(next.Take(), -1) << "call " << call;
    EXPECT_EQ(moved.load(), 0u);
    for (const uint32_t slot : slots) EXPECT_EQ(client::SettleSlot(lane_, slot, 0), SUTRA_NOT_READY);
  }
  EXPECT_EQ(moved.load(), 2u);
  EXPECT_GE(failures, 2) << "the attachment, and the long text's pages";
  for (const uint32_t slot : slots) Release(slot);
}

// The state is read, then the lock: in between the engine closes the lane in order and exits.
TEST_F(LaneFault, AnEngineThatStopsBetweenTwoLooksDidNotCrash) {
  std::function<void()> stop = [&] {
    engine_.SetState(kLaneClosed, StatusCode::kShuttingDown);
    engine_.Die();
  };
  before_get_lock = &stop;
  EXPECT_FALSE(Alive());
  EXPECT_EQ(lane_->lost.load(std::memory_order_relaxed), SUTRA_SHUTTING_DOWN);  // relaxed: one thread
}

}  // namespace
}  // namespace sutra::test
