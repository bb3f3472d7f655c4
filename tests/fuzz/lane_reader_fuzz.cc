// The lane reader against a client that writes anything into its request lane, before and while it is read.
//
// The input is a program: stores anywhere in the lane, punched holes, proper submissions, takes, answers. A second
// thread keeps rewriting the words the program names, so that a value checked in one load and used in another shows.
// Oracle: whatever the lane holds, a taken request is within the engine's own bounds, and a slot is held once.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>

#include <array>
#include <atomic>
#include <memory>
#include <thread>

#include "engine/lanes/lane.h"
#include "engine/lanes/lane_reader.h"
#include "engine/lanes/sigbus_guard.h"
#include "engine/lanes/untrusted_copy.h"
#include "shm/base/cpu_pause.h"
#include "shm/base/time.h"
#include "shm/layout.h"
#include "tests/fuzz/fuzz_target.h"

namespace sutra::fuzz {
namespace {

constexpr uint32_t kTextBytesMax = 8192;

// The client's writable view of a lane.
class ClientMap {
 public:
  ClientMap(int fd, const LaneGeometry& geometry) : bytes_(geometry.request_bytes()) {
    void* base = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    FUZZ_CHECK(base != MAP_FAILED);
    lane_ = {static_cast<std::byte*>(base), geometry};
  }
  ~ClientMap() { munmap(lane_.base, bytes_); }
  const RequestLane& lane() const { return lane_; }
  SharedWord<uint64_t>& Word(uint32_t index) const {
    const auto words = static_cast<uint32_t>(bytes_ / 8);
    return *reinterpret_cast<SharedWord<uint64_t>*>(lane_.base + uint64_t{index % words} * 8);
  }

 private:
  uint64_t bytes_;
  RequestLane lane_;
};

// Rewrites a few words for as long as it is given any. One thread for the whole process.
class Mutator {
 public:
  struct Store {
    SharedWord<uint64_t>* word = nullptr;
    uint64_t values[2] = {};
  };

  Mutator() : thread_([this] { Run(); }) {}
  ~Mutator() {
    Stop();
    quit_.store(true, std::memory_order_release);
    Bump();
    thread_.join();
  }
  void Start(const std::vector<Store>& stores) {
    Stop();
    stores_ = stores;
    if (stores_.empty()) return;
    running_.store(true, std::memory_order_seq_cst);
    Bump();
  }
  // Returns when nothing is written any more: the thread sets busy and then checks whether it may run; this side
  // withdraws the permission and then checks whether it is busy; seq_cst, so that one of them sees the other.
  void Stop() {
    running_.store(false, std::memory_order_seq_cst);
    while (busy_.load(std::memory_order_seq_cst)) CpuPause();
  }

 private:
  void Bump() {
    wake_.fetch_add(1, std::memory_order_release);
    wake_.notify_one();
  }
  void Run() {
    uint32_t seen = 0;
    while (!quit_.load(std::memory_order_acquire)) {
      wake_.wait(seen, std::memory_order_acquire);
      seen = wake_.load(std::memory_order_acquire);
      busy_.store(true, std::memory_order_seq_cst);
      for (uint64_t round = 0; running_.load(std::memory_order_seq_cst); ++round) {
        for (const Store& store : stores_) store.word->store(store.values[round & 1], std::memory_order_relaxed);
      }
      busy_.store(false, std::memory_order_release);
    }
  }

  std::vector<Store> stores_;
  std::atomic<bool> running_{false}, busy_{false}, quit_{false};
  std::atomic<uint32_t> wake_{0};
  std::thread thread_;
};

LaneGeometry GeometryFrom(Input* input) {
  LaneGeometry geometry;
  geometry.slots = 2u << input->Below(4);
  geometry.text_bytes_max = std::array{256u, 300u, 4096u, kTextBytesMax}[input->Below(4)];
  geometry.width = 1 + input->Below(24);
  return geometry;
}

class Program {
 public:
  Program(Input* input, const LaneGeometry& geometry, LaneMemory memory)
      : input_(input),
        geometry_(geometry),
        client_(memory.request_fd(), geometry),
        lane_(std::make_shared<Lane>(1, std::make_shared<Client>(1, 0, 0, ""), std::move(memory), UniqueFd())),
        reader_(kTextBytesMax) {}

  void Run(Mutator* mutator) {
    for (int step = 0; step < 300 && !input_->empty() && !violated_; ++step) {
      switch (input_->Below(8)) {
        case 0: client_.Word(input_->U16()).store(input_->U64(), std::memory_order_relaxed); break;
        case 1: Submit(); break;
        case 2: PunchHole(); break;
        case 3: AnswerOne(); break;
        case 4: FillSlot(); break;
        case 5: Mutate(mutator); break;
        default: Take(); break;
      }
    }
    for (int i = 0; i < 4 && !violated_; ++i) Take();
    mutator->Stop();
    while (!waiters_.empty()) AnswerOne();
    FUZZ_CHECK(violated_ || lane_->held() == 0);
    lane_->Close(StatusCode::kProtocolViolation);
  }

 private:
  void Submit() {
    const uint32_t slot = input_->Below(geometry_.slots);
    const uint64_t position = lane_->submissions().position() + input_->Below(3);
    client_.lane().submission(position).store(RingEntry(position, slot), std::memory_order_release);
  }

  void FillSlot() {
    const uint32_t slot = input_->Below(geometry_.slots);
    RequestDescriptor& descriptor = client_.lane().request(slot);
    const auto set = [](SharedWord<uint64_t>& word, uint64_t value) { word.store(value, std::memory_order_relaxed); };
    set(descriptor.sequence, input_->Below(4) == 0 ? input_->U64() : 1 + input_->Byte());
    set(descriptor.deadline_ns, input_->Below(4) == 0 ? input_->U64() : MonotonicNs() + 1'000'000'000);
    set(descriptor.submitted_ns, input_->Below(4) == 0 ? input_->U64() : MonotonicNs());
    const auto bytes = static_cast<uint32_t>(input_->Edge(geometry_.text_bytes_max));
    set(descriptor.bytes_and_options, uint64_t{input_->Byte()} << 32 | bytes);
    set(descriptor.width_and_ttl, input_->Edge(geometry_.width) << (input_->Byte() % 2 * 32));
    set(descriptor.priority_and_tail, input_->Edge(3) | input_->Edge(geometry_.tail_bytes()) << 8);
    set(descriptor.tag, input_->Byte());
    const std::string_view text = input_->Take(input_->Below(40));
    if (!text.empty()) std::memcpy(client_.lane().text_head(slot), text.data(), text.size());
  }

  void PunchHole() {
    const bool tail = input_->Below(2) == 0;
    const auto pages = static_cast<uint32_t>((tail ? geometry_.tail_bytes() : geometry_.request_bytes()) / kPageBytes);
    const off_t offset = static_cast<off_t>(uint64_t{input_->Below(pages)} * kPageBytes);
    FUZZ_CHECK(fallocate(tail ? lane_->memory().tail_fd() : lane_->memory().request_fd(),
                         FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, static_cast<off_t>(kPageBytes)) == 0);
  }

  void Mutate(Mutator* mutator) {
    std::vector<Mutator::Store> stores(input_->Below(4));
    for (Mutator::Store& store : stores) {
      if (input_->Below(2) == 0) {
        store.word = &client_.Word(input_->U16());
      } else {  // a descriptor: where reading twice does harm
        const auto base = static_cast<uint32_t>(geometry_.requests() / 8);
        store.word = &client_.Word(base + input_->Byte() % (geometry_.slots * 8));
      }
      store.values[0] = store.word->load(std::memory_order_relaxed);
      store.values[1] = input_->Edge(geometry_.text_bytes_max);
    }
    mutator->Start(stores);
  }

  void Take() {
    LaneReader::Taken taken;
    const char* why = nullptr;
    const uint64_t before = lane_->submissions().position();
    switch (reader_.Take(lane_, &taken, &why)) {
      case LaneReader::Next::kNone: FUZZ_CHECK(lane_->submissions().position() == before); return;
      case LaneReader::Next::kViolation:
        FUZZ_CHECK(why != nullptr && *why != '\0');
        violated_ = true;
        return;
      case LaneReader::Next::kTaken: break;
    }
    FUZZ_CHECK(lane_->submissions().position() == before + 1);
    const Waiter& waiter = taken.waiter;
    FUZZ_CHECK(waiter.lane == lane_ && waiter.slot < geometry_.slots);
    FUZZ_CHECK(waiter.sequence != 0 && waiter.sequence >> 56 == 0);
    FUZZ_CHECK(waiter.submitted_ns <= waiter.taken_ns && waiter.deadline_ns != 0);
    FUZZ_CHECK(taken.text.size() <= geometry_.text_bytes_max);
    Touch(taken.text);
    if (taken.status == StatusCode::kOk) {
      FUZZ_CHECK(!taken.text.empty());
      FUZZ_CHECK((waiter.options & ~kOptionsKnown) == 0 && waiter.deadline_ns > waiter.taken_ns);
      FUZZ_CHECK(waiter.deadline_ns - waiter.taken_ns <= kRequestNsMax);
    }
    for (const Waiter& other : waiters_) FUZZ_CHECK(other.slot != waiter.slot);
    static_cast<void>(lane_->Cancelled(waiter.slot, waiter.sequence));
    waiters_.push_back(waiter);
    FUZZ_CHECK(lane_->held() == waiters_.size());
  }

  void AnswerOne() {
    if (waiters_.empty()) return;
    const Waiter waiter = waiters_.back();
    waiters_.pop_back();
    lane_->vector(waiter.slot)[geometry_.width - 1] = 1.0F;
    FUZZ_CHECK(lane_->Publish(waiter.slot, waiter.sequence, Answer()) == Lane::Published::kDone);
    FUZZ_CHECK(LoadResultWord(lane_->reply(), waiter.slot) == ResultWord(waiter.sequence, 0));
    static_cast<void>(lane_->Wake());
  }

  Input* const input_;
  const LaneGeometry geometry_;
  const ClientMap client_;
  const std::shared_ptr<Lane> lane_;
  LaneReader reader_;
  std::vector<Waiter> waiters_;
  bool violated_ = false;
};

}  // namespace

SUTRA_FUZZ_TARGET(lane_reader, 4096) {
  static const bool guarded = InstallSigbusGuard();
  FUZZ_CHECK(guarded);
  static Mutator mutator;
  Input input(data, size);
  const LaneGeometry geometry = GeometryFrom(&input);
  Result<LaneMemory> memory = LaneMemory::Create(geometry, LaneIdentity{1, 1, {}});
  FUZZ_CHECK(memory.ok());
  Program(&input, geometry, std::move(memory).value()).Run(&mutator);
}

}  // namespace sutra::fuzz
