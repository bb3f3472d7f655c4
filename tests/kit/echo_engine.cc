#include "tests/kit/echo_engine.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "engine/lanes/sigbus_guard.h"
#include "engine/lanes/untrusted_copy.h"
#include "shm/base/random.h"
#include "shm/handshake.h"
#include "shm/handshake_messages.h"
#include "shm/hot_memory.h"
#include "shm/hot_writer.h"
#include "shm/lane_memory.h"
#include "shm/lane_ring.h"
#include "shm/peer_liveness.h"
#include "shm/prefetch.h"
#include "shm/sleep_wake.h"
#include "tests/kit/wake_calls.h"

namespace sutra::test {
namespace {

struct Held {
  uint32_t slot;
  CheckedRequest request;
  StatusCode status;
  uint64_t hash;
  std::string text;  // for the hot table
};

struct EchoLane {
  LaneMemory memory;
  UniqueFd socket, event_write;
  SubmissionReader submissions;
  CompletionWriter completions;
  std::vector<Held> held;
  std::vector<bool> holds;
};

class EchoServer {
 public:
  EchoServer(int listen_fd, const EchoOptions& options, EchoControl* control)
      : listen_fd_(listen_fd), options_(options), control_(control) {
    page_ = EnginePageMemory::Create(generation_).value();
    text_.resize(options.text_bytes_max + 8);
    if (options.hot_slots == 0) return;
    hot_memory_ = HotTableMemory::Create({options.width, options.hot_slots}, generation_).value();
    hot_ = HotWriter(hot_memory_.view());
  }

  void Run() {
    InstallSigbusGuard();
    for (uint32_t round = 0;; ++round) {
      if (round % 4096 == 0) Beat();
      bool worked = false;
      for (auto& lane : lanes_) worked = ServeLane(lane.get()) || worked;
      if (control_->hot_clear.load(std::memory_order_relaxed) != 0) {
        hot_.Clear();
        control_->hot_clear.store(0, std::memory_order_relaxed);
      }
      if (control_->drain.load(std::memory_order_relaxed) != 0) Drain();
      if (worked) continue;
      if (options_.spin && round % 16'384 != 0) {
        CpuPause();
        continue;
      }
      Sleep();
    }
  }

 private:
  // A hot table is used while the beat is near: one that is ahead leaves a loaded machine more time until the next.
  void Beat() {
    const uint64_t ahead_ns = options_.hot_slots != 0 ? kHotHeartbeatNsMax * 3 / 4 : 0;
    page_.page()->heartbeat_ns.store(MonotonicNs() + ahead_ns, std::memory_order_relaxed);
  }

  bool ServeLane(EchoLane* lane) {
    if (control_->deaf.load(std::memory_order_relaxed) != 0) return false;
    uint32_t taken = 0;
    for (; taken < options_.round_max; ++taken) {
      uint32_t slot = 0;
      const SubmissionReader::Take take = lane->submissions.Next(&slot);
      if (take == SubmissionReader::Take::kNone) break;
      if (take == SubmissionReader::Take::kViolation || lane->holds[slot]) return Violated(lane);
      if (!TakeSlot(lane, slot)) return Violated(lane);
    }
    if (control_->hold.load(std::memory_order_relaxed) == 0 && !lane->held.empty()) Answer(lane);
    return taken > 0;
  }

  bool TakeSlot(EchoLane* lane, uint32_t slot) {
    const ReplyLane reply = lane->memory.reply();
    PrefetchForWrite(reply.vector(slot), reply.geometry.vector_stride());
    PrefetchForWrite(&reply.result(slot), sizeof(ResultDescriptor));
    const UntrustedRequest untrusted(lane->memory.request(), lane->memory.tail_fd(), slot);
    Held held = {slot, {}, StatusCode::kOk, 0, {}};
    const CopyOutcome outcome = untrusted.CopyAndCheck(MonotonicNs(), text_.data(), &held.request, &held.status);
    if (outcome == CopyOutcome::kViolation) return false;
    if (outcome == CopyOutcome::kOk) {
      if (!untrusted.CopyLongText(held.request, text_.data())) return false;
      held.hash = EchoHash(text_.data(), held.request.text_bytes);
      if (hot_.slots() > 0) held.text.assign(text_.data(), held.request.text_bytes);
    }
    lane->holds[slot] = true;
    lane->held.push_back(held);
    const uint64_t total = control_->taken.fetch_add(1, std::memory_order_relaxed) + 1;
    if (total == control_->kill_at.load(std::memory_order_relaxed)) raise(SIGKILL);
    return true;
  }

  void Answer(EchoLane* lane) {
    if (options_.reverse) std::reverse(lane->held.begin(), lane->held.end());
    const ReplyLane reply = lane->memory.reply();
    for (const Held& held : lane->held) {
      StatusCode status = held.status == StatusCode::kOk ? options_.answer : held.status;
      if (IsCancelled(lane->memory.request(), held.slot, held.request.sequence)) {
        status = StatusCode::kCancelled;
        control_->cancelled.fetch_add(1, std::memory_order_relaxed);
      }
      ResultDescriptor& result = reply.result(held.slot);
      if (status == StatusCode::kOk) EchoVector(held.hash, reply.vector(held.slot), held.request.width);
      if (options_.spoil_every != 0 && ++vectors_ % options_.spoil_every == 0) reply.vector(held.slot)[0] += 1.0f;
      if (status == StatusCode::kOk && hot_.slots() > 0) Publish(held);
      result.tag = held.request.tag;
      result.source = kSourceModel;
      result.flags = 0;
      result.token_count = held.request.text_bytes;
      result.width = held.request.width;
      std::memset(result.stage_ns, 0, sizeof(result.stage_ns));
      result.stage_ns[kSubmitted] = held.request.submitted_ns;
      lane->holds[held.slot] = false;
      lane->completions.Publish(held.slot, held.request.sequence, status);
    }
    control_->answered.fetch_add(lane->held.size(), std::memory_order_relaxed);
    lane->held.clear();
    Wake(lane);
  }

  void Publish(const Held& held) {
    HotKey key = hot_.KeyOf(held.text, 0);
    uint32_t slot = hot_.Find(&key);
    if (slot == HotWriter::kNoSlot) slot = hot_next_++ % hot_.slots();
    std::vector<float> vector(options_.width);
    EchoVector(held.hash, vector.data(), options_.width);
    if (!hot_memory_.Back(slot)) return;
    hot_.Write(slot, &key, vector,
               {.norm = 1, .token_count = held.request.text_bytes, .flags = 0, .expires_ns = UINT64_MAX});
  }

  void Wake(EchoLane* lane) {
    const WakeNeeds needs = LookForSleepers(lane->memory.request());
    if (needs.sleepers) WakeSleepers(lane->memory.reply());
    const char byte = 1;
    if (needs.event && write(lane->event_write.get(), &byte, 1) < 0) return;  // full: the event loop has been woken
  }

  bool Violated(EchoLane* lane) {
    control_->violations.fetch_add(1, std::memory_order_relaxed);
    Close(lane, StatusCode::kProtocolViolation);
    return true;
  }

  void Close(EchoLane* lane, StatusCode reason) {
    EngineLine& line = lane->memory.reply().engine();
    line.close_reason.store(static_cast<uint32_t>(reason), std::memory_order_relaxed);
    line.state.store(kLaneClosed, std::memory_order_release);  // SYNC L7 (release): answers and reason before it
    Wake(lane);
    WakeSleepers(lane->memory.reply());
    lane->socket = UniqueFd();
    Remove(lane);
  }

  void Remove(EchoLane* lane) {
    control_->lanes_lost.fetch_add(1, std::memory_order_relaxed);
    lanes_.erase(std::find_if(lanes_.begin(), lanes_.end(), [&](const auto& item) { return item.get() == lane; }));
  }

  [[noreturn]] void Drain() {
    while (!lanes_.empty()) {
      EchoLane* lane = lanes_.back().get();
      if (!lane->held.empty()) Answer(lane);
      Close(lane, StatusCode::kShuttingDown);
    }
    _exit(0);
  }

  void Sleep() {
    AnnounceEngineAsleep(page_.page());
    std::vector<pollfd> fds = {{listen_fd_, POLLIN, 0}};
    bool ready = false;
    for (auto& lane : lanes_) {
      fds.push_back({lane->socket.get(), POLLIN, 0});
      ready = ready || HasWork(lane.get());
    }
    poll(fds.data(), fds.size(), ready || options_.spin ? 0 : 20);
    AnnounceEngineAwake(page_.page());
    Beat();
    for (size_t i = fds.size() - 1; i > 0; --i) {
      if (fds[i].revents != 0) ReadSocket(lanes_[i - 1].get());
    }
    if (fds[0].revents != 0) Accept();
  }

  bool HasWork(EchoLane* lane) {
    SubmissionReader look = lane->submissions;
    uint32_t slot;
    return look.Next(&slot) != SubmissionReader::Take::kNone && control_->deaf.load(std::memory_order_relaxed) == 0;
  }

  void ReadSocket(EchoLane* lane) {
    char bytes[64];
    for (;;) {
      const ssize_t count = recv(lane->socket.get(), bytes, sizeof(bytes), MSG_DONTWAIT);
      if (count > 0) continue;
      if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
      break;
    }
    if (!LockHolderAlive(lane->memory.request_fd())) Remove(lane);
  }

  void Accept() {
    UniqueFd socket(accept4(listen_fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket) return;
    const uint64_t deadline_ns = MonotonicNs() + kAttachStepMsMax * kNsPerMs;
    HelloMessage hello = {};
    size_t fds = 0, received = 0;
    if (ReceiveMessage(socket.get(), &hello, sizeof(hello), nullptr, 0, &fds, &received, deadline_ns) !=
        MessageOutcome::kOk) {
      return;
    }
    if (options_.hostile == Hostile::kSilent) {
      silent_.push_back(std::move(socket));
      return;
    }
    WelcomeMessage welcome = MakeWelcome(hello);
    if (welcome.status != 0) {
      (void)SendMessage(socket.get(), &welcome, options_.welcome_bytes, nullptr, 0, deadline_ns);
      return;
    }
    OpenLane(std::move(socket), welcome, deadline_ns);
  }

  WelcomeMessage MakeWelcome(const HelloMessage& hello) {
    WelcomeMessage welcome = {};
    welcome.magic = options_.hostile == Hostile::kWrongMagic ? 1 : kHandshakeMagic;
    welcome.layout_major = options_.layout_major;
    welcome.layout_minor = options_.layout_major == kLayoutMajor ? kLayoutMinor : 0;
    welcome.slots = std::min(hello.slots == 0 ? kSlotsDefault : hello.slots, options_.slots_max);
    welcome.width = options_.width;
    welcome.text_bytes_max = hello.text_bytes_max == 0 ? options_.text_bytes_max : hello.text_bytes_max;
    welcome.tokens_max = 256;
    welcome.hot_slots = hello.layout_minor >= 1 ? hot_.slots() : 0;
    welcome.engine_generation = generation_;
    welcome.lane_id = ++lane_id_;
    welcome.engine_now_ns = MonotonicNs();
    welcome.engine_pid = static_cast<uint32_t>(getpid());
    std::strncpy(welcome.model, options_.model.c_str(), sizeof(welcome.model) - 1);
    std::strncpy(welcome.identity, options_.identity.c_str(), sizeof(welcome.identity) - 1);
    const std::string asked = hello.model;
    std::string refusal;
    if (options_.refuse != StatusCode::kOk)
      refusal = "told to refuse";
    else if (hello.layout_major != options_.layout_major)
      refusal = "other layout";
    else if (hello.width != 0 && hello.width != options_.width)
      refusal = "the model has another width";
    else if (!asked.empty() && asked != options_.model && options_.identity.rfind(asked, 0) != 0)
      refusal = "other model";
    else if (welcome.text_bytes_max > options_.text_bytes_max)
      refusal = "texts too long";
    if (!refusal.empty()) {
      welcome.status =
          static_cast<uint32_t>(options_.refuse != StatusCode::kOk ? options_.refuse : StatusCode::kRefused);
      std::strncpy(welcome.message, refusal.c_str(), sizeof(welcome.message) - 1);
      welcome.text_bytes_max = options_.text_bytes_max;  // as the engine: what it serves, not what was asked for
    }
    return welcome;
  }

  void OpenLane(UniqueFd socket, const WelcomeMessage& welcome, uint64_t deadline_ns) {
    auto lane = std::make_unique<EchoLane>();
    LaneIdentity identity;
    identity.engine_generation = generation_;
    identity.lane_id = welcome.lane_id;
    identity.boot_id = boot_id_;
    const LaneGeometry geometry = {welcome.slots, welcome.text_bytes_max, welcome.width};
    LaneGeometry made = geometry;
    if (options_.hostile == Hostile::kOtherWidthInHeader) made.width = geometry.width - 1;  // same size, other header
    auto memory = LaneMemory::Create(made, identity);
    if (!memory.ok()) return;
    lane->memory = std::move(memory).value();
    int pipe_fds[2];
    if (pipe2(pipe_fds, O_CLOEXEC) != 0) return;
    UniqueFd event_read(pipe_fds[0]);
    lane->event_write = UniqueFd(pipe_fds[1]);
    fcntl(lane->event_write.get(), F_SETFL, O_NONBLOCK);

    int fds[kWelcomeFdsMax];
    fds[kFdRequest] = lane->memory.request_fd();
    fds[kFdReply] = lane->memory.reply_fd();
    fds[kFdTail] = lane->memory.tail_fd();
    fds[kFdPage] = page_.fd();
    fds[kFdEvent] = event_read.get();
    fds[kFdHot] = hot_memory_.fd();
    UniqueFd fake;
    if (options_.hostile == Hostile::kUnsealed || options_.hostile == Hostile::kWrongSize) {
      const bool wrong_size = options_.hostile == Hostile::kWrongSize;
      fake = UniqueFd(memfd_create("hostile", MFD_CLOEXEC | MFD_ALLOW_SEALING));
      const auto bytes = static_cast<off_t>(geometry.request_bytes() - (wrong_size ? kPageBytes : 0));
      if (ftruncate(fake.get(), bytes) != 0) return;
      if (wrong_size) fcntl(fake.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
      fds[kFdRequest] = fake.get();
    }
    if (options_.hostile == Hostile::kNotAPipe) fds[kFdEvent] = lane->memory.reply_fd();
    const size_t fd_count = options_.hostile == Hostile::kNoDescriptors ? 0
                            : welcome.hot_slots != 0                    ? size_t{kWelcomeFdsMax}
                                                                        : size_t{kWelcomeFds};
    if (SendMessage(socket.get(), &welcome, sizeof(welcome), fds, fd_count, deadline_ns) != MessageOutcome::kOk) return;

    LockedMessage locked = {};
    size_t fds_received = 0, received = 0;
    if (ReceiveMessage(socket.get(), &locked, sizeof(locked), nullptr, 0, &fds_received, &received, deadline_ns) !=
            MessageOutcome::kOk ||
        !LockHolderAlive(lane->memory.request_fd())) {
      return;
    }
    lane->submissions = SubmissionReader(lane->memory.request());
    lane->completions = CompletionWriter(lane->memory.reply());
    lane->holds.resize(geometry.slots);
    const ServingMessage serving = {kHandshakeMagic, 0, 0};
    if (SendMessage(socket.get(), &serving, sizeof(serving), nullptr, 0, deadline_ns) != MessageOutcome::kOk) return;
    lane->socket = std::move(socket);
    lanes_.push_back(std::move(lane));
    control_->lanes_opened.fetch_add(1, std::memory_order_relaxed);
  }

  int listen_fd_;
  EchoOptions options_;
  EchoControl* control_;
  const uint64_t generation_ = RandomSeed();
  uint64_t lane_id_ = 0;
  uint64_t vectors_ = 0;
  const BootId boot_id_ = HostBootId();
  HotTableMemory hot_memory_;
  HotWriter hot_;  // without slots: there is none
  uint32_t hot_next_ = 0;
  EnginePageMemory page_;
  std::vector<std::unique_ptr<EchoLane>> lanes_;
  std::vector<UniqueFd> silent_;
  std::vector<char> text_;
};

}  // namespace

EchoEngine::EchoEngine(const std::string& path, const EchoOptions& options) : path_(path) {
  void* shared = mmap(nullptr, sizeof(EchoControl), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) std::abort();
  control_ = new (shared) EchoControl();
  const int listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  unlink(path.c_str());
  if (bind(listen_fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 || listen(listen_fd, 64) != 0) {
    std::perror("echo engine");
    std::abort();
  }
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    EchoServer(listen_fd, options, control_).Run();
    _exit(1);
  }
  close(listen_fd);
}

EchoEngine::~EchoEngine() {
  Kill();
  munmap(control_, sizeof(EchoControl));
  unlink(path_.c_str());
}

void EchoEngine::Kill() {
  if (pid_ < 0) return;
  kill(pid_, SIGKILL);
  WaitForExit();
}

void EchoEngine::Stop() {
  if (pid_ < 0) return;  // a pid of -1 would mean every process
  kill(pid_, SIGSTOP);
  int status;
  waitpid(pid_, &status, WUNTRACED);
}

void EchoEngine::Continue() {
  if (pid_ >= 0) kill(pid_, SIGCONT);
}

int EchoEngine::WaitForExit() {
  int status = 0;
  if (pid_ >= 0) waitpid(pid_, &status, 0);
  pid_ = -1;
  return status;
}

uint64_t EchoHash(const char* text, size_t text_bytes) {
  uint64_t hash = text_bytes * 0x9e3779b97f4a7c15;
  size_t done = 0;
  for (; done + 8 <= text_bytes; done += 8) {
    uint64_t word;
    std::memcpy(&word, text + done, 8);
    hash = (hash ^ word) * 0xff51afd7ed558ccd;
    hash ^= hash >> 29;
  }
  uint64_t rest = 0;
  std::memcpy(&rest, text + done, text_bytes - done);
  hash = (hash ^ rest) * 0xc4ceb9fe1a85ec53;
  return hash ^ hash >> 32;
}

void EchoVector(uint64_t hash, float* vector, uint32_t width) {
  const auto seed = static_cast<uint32_t>(hash);
  for (uint32_t i = 0; i < width; ++i) {
    vector[i] = static_cast<float>(static_cast<int32_t>((seed + i * 0x9e3779b9u) >> 8)) * (1.0f / 16777216.0f);
  }
}

bool IsEchoOf(const std::string& text, const float* vector, uint32_t width) {
  std::vector<float> expected(width);
  EchoVector(EchoHash(text.data(), text.size()), expected.data(), width);
  return std::memcmp(expected.data(), vector, width * sizeof(float)) == 0;
}

}  // namespace sutra::test
