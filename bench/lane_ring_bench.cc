// Lanes: 200 bytes of text in, 384 floats (1,536 bytes) out, through the real client library and a forked engine whose
// model is a cheap function of the text. Both sides touch every byte. Beside it, in the same run and on the same CPUs:
// one bounced cache line (the floor of any shared memory), a futex and an eventfd ping-pong, and Unix sockets with the
// same payload.
//
// Client and engine are pinned to two CPUs. Every figure of a run is the median of short windows, so that a preempted
// window does not spoil it; the table shows the spread over runs. The kinds of measurement take turns within a run.
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bench/bench_report.h"
#include "producer/include/sutra/embed.hpp"
#include "shm/sleep_wake.h"
#include "tests/kit/echo_engine.h"

namespace sutra::bench {
namespace {

constexpr uint32_t kWidth = 384;
constexpr size_t kTextBytes = 200;
constexpr size_t kVectorBytes = kWidth * sizeof(float);
constexpr int kWindowRoundTrips = 2000;
constexpr int kAsleepRoundTrips = 200;

int client_cpu = 0, engine_cpu = 1;
volatile float sink;

void Pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  sched_setaffinity(0, sizeof(set), &set);
}

[[noreturn]] void Fail(const char* what) {
  std::fprintf(stderr, "lane_ring_bench: %s: %s\n", what, sutra_error_text());
  std::exit(1);
}

void Touch(const float* vector, size_t count) {
  float sum = 0;
  for (size_t i = 0; i < count; i += 4) sum += vector[i] + vector[i + 1] + vector[i + 2] + vector[i + 3];
  sink = sum;
}

// Median over `windows` of the nanoseconds one of `count` operations took.
double WindowsNs(int windows, int count, const std::function<void(int)>& run) {
  std::vector<double> values;
  run(count);  // warm
  for (int i = 0; i < windows; ++i) {
    const uint64_t start_ns = MonotonicNs();
    run(count);
    values.push_back(static_cast<double>(MonotonicNs() - start_ns) / count);
  }
  return Median(values);
}

// A child process on the other CPU that runs `serve` until it is killed.
class Peer {
 public:
  explicit Peer(const std::function<void()>& serve) {
    const pid_t parent = getpid();
    Pin(engine_cpu);  // the child starts there, and not behind a parent that spins on its own CPU
    pid_ = fork();
    if (pid_ != 0) {
      Pin(client_cpu);
      return;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    serve();
    _exit(0);
  }
  ~Peer() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

 private:
  pid_t pid_;
};

double BouncedLineNs() {
  auto* word = static_cast<std::atomic<uint64_t>*>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  double ns = 0;
  {
    const Peer peer([word] {
      for (uint64_t expected = 1;; expected += 2) {
        while (word->load(std::memory_order_acquire) != expected) CpuPause();
        word->store(expected + 1, std::memory_order_release);
      }
    });
    uint64_t next = 1;
    ns = WindowsNs(40, kWindowRoundTrips, [&](int count) {
      for (int i = 0; i < count; ++i, next += 2) {
        word->store(next, std::memory_order_release);
        while (word->load(std::memory_order_acquire) != next + 1) CpuPause();
      }
    });
  }
  munmap(word, 4096);
  return ns;
}

// The least that can move these bytes: 64 fixed slots, one sequence word per slot and direction, no checks, no
// statuses, no sleeping. RETURNS nanoseconds per request with `window` in flight.
double BareSlotsNs(uint64_t window, int windows, int count) {
  struct alignas(128) Request {
    std::atomic<uint64_t> sequence;
    char text[kTextBytes];
  };
  struct alignas(128) Reply {
    std::atomic<uint64_t> sequence;
    alignas(64) float vector[kWidth];
  };
  struct Slots {
    Request requests[64];
    Reply replies[64];
  };
  auto* slots =
      static_cast<Slots*>(mmap(nullptr, sizeof(Slots), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  double ns = 0;
  {
    const Peer peer([&] {
      for (uint64_t sequence = 1;; ++sequence) {
        Request& request = slots->requests[sequence % window];
        Reply& reply = slots->replies[sequence % window];
        while (request.sequence.load(std::memory_order_acquire) != sequence) CpuPause();
        test::EchoVector(test::EchoHash(request.text, kTextBytes), reply.vector, kWidth);
        reply.sequence.store(sequence, std::memory_order_release);
      }
    });
    uint64_t submitted = 0, taken = 0;
    ns = WindowsNs(windows, count, [&](int requests) {
      const uint64_t end = taken + static_cast<uint64_t>(requests);
      while (taken < end) {
        while (submitted < end && submitted - taken < window) {
          Request& request = slots->requests[++submitted % window];
          std::memset(request.text, static_cast<int>(submitted & 0xff), kTextBytes);
          request.sequence.store(submitted, std::memory_order_release);
        }
        Reply& reply = slots->replies[++taken % window];
        while (reply.sequence.load(std::memory_order_acquire) != taken) CpuPause();
        Touch(reply.vector, kWidth);
      }
    });
  }
  munmap(slots, sizeof(Slots));
  return ns;
}

double FutexPingPongNs() {
  auto* words = static_cast<std::atomic<uint32_t>*>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  std::atomic<uint32_t>*to = words, *back = words + 32;
  const auto address = [](std::atomic<uint32_t>* word) { return reinterpret_cast<const uint32_t*>(word); };
  const auto wait_for = [&](std::atomic<uint32_t>* word, uint32_t expected) {
    for (uint32_t value; (value = word->load(std::memory_order_acquire)) != expected;) {
      FutexWait(address(word), value, kNsPerSecond);
    }
  };
  double ns = 0;
  {
    const Peer peer([&] {
      for (uint32_t i = 1;; ++i) {
        wait_for(to, i);
        back->store(i, std::memory_order_release);
        FutexWakeAll(address(back));
      }
    });
    uint32_t next = 1;
    ns = WindowsNs(10, kAsleepRoundTrips, [&](int count) {
      for (int i = 0; i < count; ++i, ++next) {
        to->store(next, std::memory_order_release);
        FutexWakeAll(address(to));
        wait_for(back, next);
      }
    });
  }
  munmap(words, 4096);
  return ns;
}

double EventFdPingPongNs() {
  const int to = eventfd(0, EFD_CLOEXEC), back = eventfd(0, EFD_CLOEXEC);
  double ns = 0;
  {
    const Peer peer([&] {
      uint64_t value;
      while (read(to, &value, 8) == 8 && write(back, &value, 8) == 8) {
      }
    });
    ns = WindowsNs(10, kAsleepRoundTrips, [&](int count) {
      uint64_t value = 1;
      for (int i = 0; i < count; ++i) {
        if (write(to, &value, 8) != 8 || read(back, &value, 8) != 8) Fail("eventfd");
      }
    });
  }
  close(to);
  close(back);
  return ns;
}

// 200 bytes out, 1,536 back over a Unix socket of `type`; with `spin` neither side sleeps.
double SocketNs(int type, bool spin) {
  int sockets[2];
  if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, sockets) != 0) Fail("socketpair");
  const int flags = spin ? MSG_DONTWAIT : 0;
  const auto receive = [flags](int fd, char* bytes, size_t count) {
    for (size_t done = 0; done < count;) {
      const ssize_t got = recv(fd, bytes + done, count - done, flags);
      if (got > 0)
        done += static_cast<size_t>(got);
      else if (got == 0)
        return false;
    }
    return true;
  };
  double ns = 0;
  {
    const Peer peer([&] {
      char text[kTextBytes];
      float vector[kWidth];
      while (receive(sockets[1], text, sizeof(text))) {
        test::EchoVector(test::EchoHash(text, sizeof(text)), vector, kWidth);
        if (send(sockets[1], vector, sizeof(vector), 0) < 0) return;
      }
    });
    char text[kTextBytes] = {};
    float vector[kWidth];
    ns = WindowsNs(10, spin ? kWindowRoundTrips : kAsleepRoundTrips, [&](int count) {
      for (int i = 0; i < count; ++i) {
        std::memcpy(text, &i, sizeof(i));
        if (send(sockets[0], text, sizeof(text), 0) < 0) Fail("send");
        receive(sockets[0], reinterpret_cast<char*>(vector), kVectorBytes);
        Touch(vector, kWidth);
      }
    });
  }
  close(sockets[0]);
  close(sockets[1]);
  return ns;
}

class LaneBench {
 public:
  LaneBench(bool engine_spins, uint32_t slots, uint32_t spin_us) {
    char directory[] = "/tmp/sutra-lane-bench-XXXXXX";
    if (mkdtemp(directory) == nullptr) Fail("mkdtemp");
    directory_ = directory;
    test::EchoOptions options;
    options.width = kWidth;
    options.spin = engine_spins;
    Pin(engine_cpu);
    engine_ = std::make_unique<test::EchoEngine>(directory_ + "/socket", options);
    Pin(client_cpu);
    sutra_attach_options attach = {};
    attach.size = sizeof(attach);
    attach.slots = slots;
    attach.lanes_max = 1;
    attach.spin_us = spin_us;
    if (sutra_attach((directory_ + "/socket").c_str(), &attach, &client_) != SUTRA_OK) Fail("attach");
    for (size_t i = 0; i < sizeof(text_); ++i) text_[i] = static_cast<char>('a' + i % 26);
  }
  ~LaneBench() {
    sutra_detach(client_);
    engine_.reset();
    rmdir(directory_.c_str());
  }
  LaneBench(const LaneBench&) = delete;
  LaneBench& operator=(const LaneBench&) = delete;

  // Submit, wait, read in place, release: one at a time.
  void RoundTrips(int count) {
    for (int i = 0; i < count; ++i) {
      std::memcpy(text_, &i, sizeof(i));
      Take(Submit());
    }
  }
  // The same through sutra_embed: the vector is copied out.
  void Embeds(int count) {
    float vector[kWidth];
    for (int i = 0; i < count; ++i) {
      std::memcpy(text_, &i, sizeof(i));
      if (sutra_embed(client_, text_, kTextBytes, nullptr, vector, nullptr) != SUTRA_OK) Fail("embed");
      Touch(vector, kWidth);
    }
  }
  // `window` requests in flight, read in place.
  void Window(int count, size_t window) {
    std::vector<sutra_ticket> tickets(window);
    for (int i = 0; i < count; ++i) {
      sutra_ticket& ticket = tickets[static_cast<size_t>(i) % window];
      if (i >= static_cast<int>(window)) Take(ticket);
      std::memcpy(text_, &i, sizeof(i));
      ticket = Submit();
    }
    for (int i = count; i < count + static_cast<int>(window); ++i) Take(tickets[static_cast<size_t>(i) % window]);
  }
  // One sutra_embed_batch call for all, copied out.
  void Batch(int count) {
    std::vector<const char*> texts(static_cast<size_t>(count), text_);
    std::vector<size_t> sizes(static_cast<size_t>(count), kTextBytes);
    vectors_.resize(static_cast<size_t>(count) * kWidth);
    if (sutra_embed_batch(client_, texts.data(), sizes.data(), texts.size(), nullptr, vectors_.data(), nullptr, 0) !=
        SUTRA_OK) {
      Fail("embed_batch");
    }
    Touch(vectors_.data(), vectors_.size());
  }

 private:
  sutra_ticket Submit() {
    sutra_ticket ticket = 0;
    if (sutra_submit(client_, text_, kTextBytes, nullptr, &ticket) != SUTRA_OK) Fail("submit");
    return ticket;
  }
  void Take(sutra_ticket ticket) {
    sutra_result result = embed::Result();
    if (sutra_wait(client_, ticket, 10'000, &result) != SUTRA_OK) Fail("wait");
    Touch(result.vector, kWidth);
    sutra_release(client_, ticket);
  }

  std::string directory_;
  std::unique_ptr<test::EchoEngine> engine_;
  sutra_client* client_ = nullptr;
  char text_[kTextBytes];
  std::vector<float> vectors_;
};

double ThousandsASecond(double ns) { return 1e6 / ns; }

using Values = std::map<std::string, std::vector<double>>;

// One run: each kind once, ours and the comparators in turn.
void MeasureOnce(Values* values) {
  const auto add = [values](const char* key, double value) {
    (*values)[key].push_back(value);
    return value;
  };
  const double line_before_ns = BouncedLineNs();
  double trip_ns;
  {
    LaneBench lane(true, 256, 1'000'000);  // a client that was preempted spins on instead of sleeping
    trip_ns = add("round_trip_ns", WindowsNs(40, kWindowRoundTrips, [&](int count) { lane.RoundTrips(count); }));
    add("embed_ns", WindowsNs(40, kWindowRoundTrips, [&](int count) { lane.Embeds(count); }));
    add("window64_k_per_s", ThousandsASecond(WindowsNs(60, 8192, [&](int count) { lane.Window(count, 64); })));
    add("batch_k_per_s", ThousandsASecond(WindowsNs(30, 8192, [&](int count) { lane.Batch(count); })));
  }
  // The host may have moved the CPUs meanwhile: the floor is measured before and after the figures that it divides.
  const double line_ns = add("line_ns", (line_before_ns + BouncedLineNs()) / 2);
  add("round_trip_over_line", trip_ns / line_ns);
  {
    LaneBench lane(false, 256, 1);
    add("asleep_ns", WindowsNs(10, kAsleepRoundTrips, [&](int count) { lane.RoundTrips(count); }));
  }
  add("bare_round_trip_ns", BareSlotsNs(1, 40, kWindowRoundTrips));
  add("bare_window64_k_per_s", ThousandsASecond(BareSlotsNs(64, 60, 8192)));
  add("futex_ns", FutexPingPongNs());
  add("asleep_over_eventfd", values->at("asleep_ns").back() / add("eventfd_ns", EventFdPingPongNs()));
  add("stream_spin_ns", SocketNs(SOCK_STREAM, true));
  add("stream_ns", SocketNs(SOCK_STREAM, false));
  add("seqpacket_ns", SocketNs(SOCK_SEQPACKET, false));
}

int Main(int argc, char** argv) {
  int runs = 5;
  bool json = false;
  CLI::App app("Lane benchmark: round trip and windowed rate beside known alternatives");
  app.add_option("--runs", runs, "runs behind every median")->check(CLI::Range(1, 1000))->capture_default_str();
  bool realtime = false;
  app.add_flag("--realtime", realtime, "run before everything else (SCHED_FIFO, needs root): for busy machines");
  app.add_flag("--json", json, "one JSON object as the last line");
  CLI11_PARSE(app, argc, argv);

  cpu_set_t allowed;
  sched_getaffinity(0, sizeof(allowed), &allowed);
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &allowed)) cpus.push_back(cpu);
  }
  if (cpus.size() < 2) {
    std::fprintf(stderr, "lane_ring_bench: needs two CPUs, but this process may use only one\n");
    return 1;
  }
  client_cpu = cpus.front();
  engine_cpu = cpus.back();
  // Spinning beside other work measures the scheduler; a higher priority, where it is allowed, keeps the work out.
  const sched_param first = {1};
  const bool ruthless = realtime && sched_setscheduler(0, SCHED_FIFO, &first) == 0;
  const bool raised = setpriority(PRIO_PROCESS, 0, -20) == 0;
  Pin(client_cpu);
  Values values;
  for (int run = 0; run < runs; ++run) MeasureOnce(&values);

  constexpr struct {
    const char *key, *title;
  } kRows[] = {{"line_ns", "ns, bounced cache line, round trip"},
               {"round_trip_ns", "ns, lane, both spinning, read in place"},
               {"round_trip_over_line", "  over the bounced line (<= 9, aim 6.5)"},
               {"bare_round_trip_ns", "ns, bare slots: no checks, statuses, sleeping"},
               {"embed_ns", "ns, lane, sutra_embed, both spinning, copied out"},
               {"stream_spin_ns", "ns, Unix stream socket, both spinning"},
               {"window64_k_per_s", "k/s, lane, 64 in flight, read in place (>= 3000)"},
               {"bare_window64_k_per_s", "k/s, bare slots, 64 in flight"},
               {"batch_k_per_s", "k/s, lane, sutra_embed_batch of 8192, copied out"},
               {"asleep_ns", "ns, lane, both sides asleep"},
               {"asleep_over_eventfd", "  over the eventfd ping-pong (<= 1.3, aim 1.1)"},
               {"eventfd_ns", "ns, eventfd ping-pong, 8 bytes"},
               {"futex_ns", "ns, futex ping-pong"},
               {"stream_ns", "ns, Unix stream socket, blocking"},
               {"seqpacket_ns", "ns, Unix seqpacket socket, blocking"}};
  Report report("lanes");
  for (const auto& row : kRows) report.Add(row.key, row.title, values[row.key]);
  const bool far = Median(values["line_ns"]) > 80;
  report.Note("200 B of text in, 1,536 B of vector out, both sides touch every byte (all but the ping-pongs)");
  report.Note("client on CPU " + std::to_string(client_cpu) + ", engine on CPU " + std::to_string(engine_cpu) +
              (far ? ", far: different cores; " : ", near: two threads of one core; ") +
              (ruthless ? "real-time priority"
               : raised ? "nice -20"
                        : "normal priority: other work shows"));
  report.AddValue("runs", runs);
  report.AddValue("far", far ? 1 : 0);
  report.Print(json);
  return 0;
}

}  // namespace
}  // namespace sutra::bench

int main(int argc, char** argv) { return sutra::bench::Main(argc, argv); }
