// What each attacker does. Everything but the punching and the parked threads goes through the public client header.
#include <dirent.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "bench/lanes/attackers.h"
#include "bench/lanes/measure.h"
#include "producer/include/sutra/embed.hpp"
#include "shm/base/time.h"
#include "shm/layout.h"

namespace sutra::bench {
namespace {

constexpr uint64_t kAttachSeconds = 20;  // an attach may be limited in its rate: then it is tried again

struct Lane {
  embed::Client client;
  std::vector<sutra_result> done;
};

struct Shape {
  int lanes;
  uint32_t slots;
  uint32_t text_bytes_max;
};

void Say(const std::string& line) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

// As many lanes of the shape as the engine grants. Says "ready" or "refused".
std::vector<Lane> AttachLanes(const std::string& socket, const Shape& shape, bool say = true) {
  sutra_attach_options options = embed::AttachOptions();
  options.slots = shape.slots;
  options.lanes_max = 1;
  options.text_bytes_max = shape.text_bytes_max;
  options.client_name = "lane bench attacker";
  std::vector<Lane> lanes;
  std::string reason;
  for (const uint64_t deadline = MonotonicNs() + kAttachSeconds * kNsPerSecond;
       static_cast<int>(lanes.size()) < shape.lanes && MonotonicNs() < deadline;) {
    Lane lane;
    const sutra_status status = lane.client.Attach(socket, options);
    if (status == SUTRA_OK) {
      lane.done.resize(shape.slots, embed::Result());
      lanes.push_back(std::move(lane));
      continue;
    }
    reason = sutra_error_text();
    if (status == SUTRA_REFUSED) break;  // a quota; anything else may pass
    SleepUs(5000);
  }
  if (lanes.empty()) {
    Say("refused: " + reason);
  } else if (say) {
    Say("ready: " + std::to_string(lanes.size()) + " of " + std::to_string(shape.lanes) + " lanes" +
        (reason.empty() ? "" : " (" + reason + ")"));
  }
  return lanes;
}

// Keeps every lane full for ever: `next` names the text and its options.
template <typename Next>
[[noreturn]] void KeepFull(std::vector<Lane>* lanes, const Next& next) {
  for (;;) {
    bool idle = true;
    for (size_t i = 0; i < lanes->size(); ++i) {
      Lane& lane = (*lanes)[i];
      const size_t answered = sutra_poll(lane.client.get(), lane.done.data(), sizeof(sutra_result), lane.done.size());
      for (size_t j = 0; j < answered; ++j) sutra_release(lane.client.get(), lane.done[j].ticket);
      for (size_t j = 0; j < lane.done.size(); ++j) {
        sutra_ticket ticket = 0;
        const auto& [text, options] = next(i);
        if (sutra_submit(lane.client.get(), text.data(), text.size(), &options, &ticket) != SUTRA_OK) break;
        idle = false;
      }
    }
    if (idle) SleepUs(200);
  }
}

using Request = std::pair<const std::string&, const sutra_options&>;

// A different text each time, without writing the whole of it again.
void Number(std::string* text, uint64_t number) {
  const std::string digits = std::to_string(1'000'000'000 + number);
  text->replace(0, digits.size(), digits);
}

int Bulk(const std::string& socket) {
  std::vector<Lane> lanes = AttachLanes(socket, {.lanes = 20, .slots = 4096, .text_bytes_max = 256});
  if (lanes.empty()) return 1;
  sutra_options options = embed::RequestOptions();
  options.priority = SUTRA_PRIORITY_BULK;
  std::string text = BenchText("bulk", 0);
  uint64_t number = 0;
  KeepFull(&lanes, [&](size_t) {
    Number(&text, number++);
    return Request(text, options);
  });
}

int LongTexts(const std::string& socket, int process) {
  constexpr size_t kBytes = 64 << 10;
  std::vector<Lane> lanes = AttachLanes(socket, {.lanes = 60, .slots = 4, .text_bytes_max = kBytes});
  if (lanes.empty()) return 1;
  sutra_options options = embed::RequestOptions();
  options.priority = SUTRA_PRIORITY_BULK;
  options.flags = SUTRA_CACHE_SKIP_STORE;
  std::string text = "0000000000  ";  // a multiple of three, so that the letters end with the text
  while (text.size() + 3 <= kBytes) text += "\xe1\xb8\x9d";
  auto number = static_cast<uint64_t>(process) * 100'000'000;
  KeepFull(&lanes, [&](size_t) {
    Number(&text, number++);
    return Request(text, options);
  });
}

int ManyLanes(const std::string& socket) {
  std::vector<Lane> lanes = AttachLanes(socket, {.lanes = 50, .slots = 32, .text_bytes_max = 256});
  if (lanes.empty()) return 1;
  const sutra_options options = embed::RequestOptions();
  const std::string text = BenchText("everybody's", 0);
  KeepFull(&lanes, [&](size_t) { return Request(text, options); });
}

// The lane's memfds that this process may write: the request lane, and the file of the long texts.
std::vector<int> OwnLaneFiles() {
  std::vector<int> files;
  DIR* folder = opendir("/proc/self/fd");
  while (const dirent* entry = readdir(folder)) {
    const int fd = std::atoi(entry->d_name);
    char target[256] = {};
    if (readlink(("/proc/self/fd/" + std::string(entry->d_name)).c_str(), target, sizeof(target) - 1) <= 0) continue;
    if (std::strstr(target, "/memfd:sutra-") != target || (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY) continue;
    if ((fcntl(fd, F_GET_SEALS) & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != 0) continue;
    files.push_back(fd);
  }
  closedir(folder);
  return files;
}

off_t FileBytes(int fd) {
  struct stat status = {};
  return fstat(fd, &status) == 0 ? status.st_size : 0;
}

void Fill(int fd, off_t from, off_t to) {
  static const std::string bytes(1 << 20, 'x');
  while (from < to) {
    const auto count = std::min<off_t>(static_cast<off_t>(bytes.size()), to - from);
    if (pwrite(fd, bytes.data(), static_cast<size_t>(count), from) < 0) return;
    from += count;
  }
}

int Punch(const std::string& socket) {
  constexpr off_t kHead = 2 << 20;  // the rings and what else the engine would object to
  constexpr int kSmallPunches = 2000;
  // A quarter of the bytes that the engine gives to lanes bounds one lane: ask for less and less.
  std::vector<Lane> lanes;
  for (const uint32_t slots : {4096u, 1024u, 256u}) {
    lanes = AttachLanes(socket, {.lanes = 1, .slots = slots, .text_bytes_max = 64 << 10}, false);
    if (!lanes.empty()) break;
  }
  const std::vector<int> files = OwnLaneFiles();
  if (lanes.empty()) return 1;
  off_t all_bytes = 0;
  for (const int fd : files) all_bytes += FileBytes(fd);
  for (uint64_t rounds = 0;; ++rounds) {
    for (const int fd : files) {
      const off_t bytes = FileBytes(fd);
      Fill(fd, kHead, bytes);
      // A hole in a large file takes long, and so does filling it again; a small one can be punched all the time.
      for (int punches = bytes > kHead ? 1 : kSmallPunches; punches > 0; --punches) {
        if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, bytes) == 0) continue;
        if (rounds == 0) Say("refused: punching: " + std::string(std::strerror(errno)));
        return 1;
      }
    }
    if (rounds == 0) Say("ready: punching " + std::to_string(all_bytes >> 20) + " MiB of its own lane");
  }
}

// The start of the first mapping of this lane file.
char* Mapping(const char* name) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find(name) != std::string::npos) return reinterpret_cast<char*>(std::strtoull(line.c_str(), nullptr, 16));
  }
  return nullptr;
}

void* Park(void* word) {
  for (;;) {
    syscall(SYS_futex, word, FUTEX_WAIT, *static_cast<volatile uint32_t*>(word), nullptr, nullptr, 0);
  }
}

int WakeStorm(const std::string& socket) {
  std::vector<Lane> lanes = AttachLanes(socket, {.lanes = 1, .slots = 256, .text_bytes_max = 256}, false);
  if (lanes.empty()) return 1;
  char *reply = Mapping("sutra-reply"), *request = Mapping("sutra-request");
  if (reply == nullptr || request == nullptr) {
    Say("refused: this lane's mappings are not where they were");
    return 1;
  }
  void* word = reply + sizeof(LaneHeader) + offsetof(EngineLine, futex_word);
  auto* sleepers = reinterpret_cast<ClientLine*>(request + sizeof(LaneHeader));
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 32 << 10);
  int parked = 0;
  for (pthread_t thread; parked < 4000 && pthread_create(&thread, &small, Park, word) == 0;) ++parked;
  sleepers->sleepers.store(1, std::memory_order_relaxed);
  Say((parked > 0 ? "ready: " : "refused: ") + std::to_string(parked) + " threads parked");
  const sutra_options options = embed::RequestOptions();
  for (;;) {
    (void)lanes[0].client.Embed("attacker", options);
    SleepUs(200);
  }
}

int AttachStorm(const std::string& socket) {
  sutra_attach_options options = embed::AttachOptions();
  bool said = false;
  for (uint64_t tries = 0; tries < 1'000'000'000; ++tries) {
    embed::Client client;
    const sutra_status status = client.Attach(socket, options);
    if (!said) Say(status == SUTRA_OK ? "ready: attaching" : "ready: attaching, the first was refused");
    said = true;
  }
  return 0;
}

int IdleLanes(const std::string& socket, int process) {
  constexpr int kEach = 59, kAll = 999;
  const std::vector<Lane> lanes =
      AttachLanes(socket, {.lanes = std::min(kEach, kAll - process * kEach), .slots = 16, .text_bytes_max = 4096});
  if (lanes.empty()) return 1;
  for (;;) pause();
}

// What the machine alone does to two busy CPUs: its host may take one away for milliseconds.
int Busy(const std::string& socket) {
  const std::vector<Lane> lanes = AttachLanes(socket, {.lanes = 1, .slots = 4, .text_bytes_max = 256});
  if (lanes.empty()) return 1;
  for (volatile uint64_t count = 0;; count = count + 1) {
  }
}

int Ingest(const std::string& socket) {
  std::vector<Lane> lanes = AttachLanes(socket, {.lanes = 4, .slots = 1024, .text_bytes_max = 256});
  if (lanes.empty()) return 1;
  sutra_options bulk = embed::RequestOptions(), query = embed::RequestOptions();
  bulk.priority = SUTRA_PRIORITY_BULK;
  query.priority = SUTRA_PRIORITY_QUERY;
  std::string text = BenchText("ingest", 0);
  uint64_t number = 0;
  KeepFull(&lanes, [&](size_t lane) {  // the first lane asks queries
    Number(&text, number++);
    return Request(text, lane == 0 ? query : bulk);
  });
}

}  // namespace

int AttackMain(const std::string& name, const std::string& socket, int number) {
  setpriority(PRIO_PROCESS, 0, 19);
  if (name == "bulk") return Bulk(socket);
  if (name == "long_texts") return LongTexts(socket, number);
  if (name == "lanes250") return ManyLanes(socket);
  if (name == "punch") return Punch(socket);
  if (name == "wake_storm") return WakeStorm(socket);
  if (name == "attach_storm") return AttachStorm(socket);
  if (name == "busy") return Busy(socket);
  if (name == "idle") return IdleLanes(socket, number);
  if (name == "ingest") return Ingest(socket);
  Say("refused: there is no attack '" + name + "'");
  return 2;
}

}  // namespace sutra::bench
