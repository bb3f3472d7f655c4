// The only way data of a client enters the engine: copy once, check the copy, use only the copy.
// Bytes that the client may change meanwhile are read as relaxed atomic 64-bit words, never with memcpy; a changed byte
// can thus give a wrong text (the client's own loss), never a torn check. The copy is what gets hashed and embedded, so
// a client that edits its text after the check cannot poison the cache.
//
// Thread rule: the thread that owns the lane's SubmissionReader. The guard is per thread and does not nest.
// Invariants: no offset and no length from the client is used before it was bounded by the engine's own geometry; a
// fault while copying (SIGBUS) ends in kViolation, never in the engine's death.
#pragma once

#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <atomic>

#include "shm/base/status.h"
#include "shm/layout.h"

namespace sutra {

inline constexpr uint64_t kRequestNsMax = 24ull * 3600 * 1'000'000'000;  // a later deadline is cut to this
inline constexpr uint64_t kSubmittedAgeNsMax = 3600ull * 1'000'000'000;

// SIGBUS inside a guarded copy jumps back to it; any other SIGBUS goes to the handler that was there before.
namespace sigbus {

// The jump leaves the handler without restoring the signal mask, which saves a system call a copy: SA_NODEFER left the
// mask as it was. TSan runs handlers with every signal blocked, whatever the flags say.
#if defined(__SANITIZE_THREAD__)
inline constexpr int kSaveMask = 1;
#else
inline constexpr int kSaveMask = 0;
#endif

struct Guard {
  sigjmp_buf environment;
};
inline thread_local Guard* volatile current = nullptr;
inline struct sigaction previous_action;

inline void Handle(int signal_number, siginfo_t* info, void* context) {
  Guard* guard = current;
  if (guard != nullptr) {
    current = nullptr;
    siglongjmp(guard->environment, 1);
  }
  if ((previous_action.sa_flags & SA_SIGINFO) != 0 && previous_action.sa_sigaction != nullptr) {
    previous_action.sa_sigaction(signal_number, info, context);
    return;
  }
  if (previous_action.sa_handler == SIG_IGN) return;
  if (previous_action.sa_handler != SIG_DFL) {
    previous_action.sa_handler(signal_number);
    return;
  }
  sigaction(SIGBUS, &previous_action, nullptr);  // the default action on return, at the faulting instruction
}

}  // namespace sigbus

// Once, at start-up, before the first copy. RETURNS false if the kernel refuses (errno says why).
inline bool InstallSigbusGuard() {
  struct sigaction action = {};
  action.sa_sigaction = sigbus::Handle;
  action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  struct sigaction before = {};
  if (sigaction(SIGBUS, nullptr, &before) != 0) return false;
  if ((before.sa_flags & SA_SIGINFO) != 0 && before.sa_sigaction == sigbus::Handle) return true;
  sigbus::previous_action = before;
  return sigaction(SIGBUS, &action, nullptr) == 0;
}

// Runs `copy`; RETURNS false if it faulted. `copy` must own nothing that a jump would leak.
template <typename Copy>
[[nodiscard]] __attribute__((noinline)) bool RunGuarded(const Copy& copy) {
  sigbus::Guard guard;
  if (sigsetjmp(guard.environment, sigbus::kSaveMask) != 0) return false;
  sigbus::current = &guard;
  std::atomic_signal_fence(std::memory_order_seq_cst);  // the guard stands before the first load of the copy
  copy();
  std::atomic_signal_fence(std::memory_order_seq_cst);
  sigbus::current = nullptr;
  return true;
}

// A checked, private copy of a request descriptor. All numbers are in range.
struct CheckedRequest {
  uint64_t sequence = 0;      // 1 .. 2^56 - 1
  uint64_t submitted_ns = 0;  // at most now
  uint64_t deadline_ns = 0;   // never 0; at most kRequestNsMax from now; may be past
  uint64_t tag = 0;
  uint32_t text_bytes = 0;
  uint32_t options = 0;   // RequestOption bits
  uint32_t width = 0;     // 1 .. the lane's width
  uint32_t ttl_s = 0;     // 0 = the engine's default
  uint32_t priority = kPriorityNormal;  // RequestPriority
};

enum class CopyOutcome : uint8_t {
  kOk,
  kAnswer,     // the request cannot be served: answer its sequence with the status beside
  kViolation,  // no client library writes this: the lane is lost
};

class UntrustedRequest {
 public:
  // `request_fd` is the engine's descriptor of the request lane, for the tail of long texts.
  UntrustedRequest(const RequestLane& lane, int request_fd, uint32_t slot)
      : lane_(lane), request_fd_(request_fd), slot_(slot) {}

  // REQUIRES slot < slots. On kAnswer `request` holds sequence, tag and submitted_ns, `status` the reason.
  CopyOutcome CopyAndCheck(uint64_t now_ns, CheckedRequest* request, StatusCode* status) const {
    // The text follows right after: its lines travel together with the descriptor's.
    for (uint32_t offset = 0; offset < kTextHeadBytes; offset += 64) {
      __builtin_prefetch(lane_.text_head(slot_) + offset);
    }
    Words words;
    if (!RunGuarded([&] { LoadWords(&words); })) return CopyOutcome::kViolation;
    if (words.sequence == 0 || words.sequence >> 56 != 0) return CopyOutcome::kViolation;
    const auto text_bytes = static_cast<uint32_t>(words.bytes_and_options);
    if (text_bytes > lane_.geometry.text_bytes_max) return CopyOutcome::kViolation;

    request->sequence = words.sequence;
    request->tag = words.tag;
    request->text_bytes = text_bytes;
    const bool plausible = words.submitted_ns <= now_ns && now_ns - words.submitted_ns <= kSubmittedAgeNsMax;
    request->submitted_ns = plausible ? words.submitted_ns : now_ns;
    request->deadline_ns = words.deadline_ns == 0 ? request->submitted_ns + kRequestNsDefault : words.deadline_ns;
    if (request->deadline_ns > now_ns && request->deadline_ns - now_ns > kRequestNsMax) {
      request->deadline_ns = now_ns + kRequestNsMax;
    }
    request->options = static_cast<uint32_t>(words.bytes_and_options >> 32);
    request->width = static_cast<uint32_t>(words.width_and_ttl);
    request->ttl_s = static_cast<uint32_t>(words.width_and_ttl >> 32);
    *status = Check(words.priority, request);
    return *status == StatusCode::kOk ? CopyOutcome::kOk : CopyOutcome::kAnswer;
  }

  // Copies text_bytes of the checked request to `text`. RETURNS false = violation (a fault or a short read).
  [[nodiscard]] bool CopyText(const CheckedRequest& request, char* text) const {
    const uint32_t head_bytes = request.text_bytes < kTextHeadBytes ? request.text_bytes : kTextHeadBytes;
    if (!RunGuarded([&] { LoadHead(text, head_bytes); })) return false;
    const uint32_t tail_bytes = request.text_bytes - head_bytes;
    // pread neither faults nor allocates: reading an untouched mapping would allocate pages on the engine's account.
    for (uint32_t done = 0; done < tail_bytes;) {
      const ssize_t count = pread(request_fd_, text + head_bytes + done, tail_bytes - done,
                                  static_cast<off_t>(lane_.text_tail_offset(slot_) + done));
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return false;
      done += static_cast<uint32_t>(count);
    }
    return true;
  }

  // The caller no longer wants the request (a hint, read at any time while the engine holds the slot).
  bool Cancelled(uint64_t sequence) const {
    bool cancelled = false;
    // relaxed: a hint that publishes nothing
    const auto look = [&] {
      cancelled = lane_.request(slot_).cancel_sequence.load(std::memory_order_relaxed) == sequence;
    };
    return RunGuarded(look) && cancelled;
  }

 private:
  struct Words {
    uint64_t sequence, submitted_ns, deadline_ns, tag, bytes_and_options, width_and_ttl, priority;
  };

  void LoadWords(Words* words) const {
    // relaxed: the entry's SYNC L1 acquire ordered these after the client's writes; later changes are the client's loss
    const RequestDescriptor& descriptor = lane_.request(slot_);
    words->sequence = descriptor.sequence.load(std::memory_order_relaxed);
    words->submitted_ns = descriptor.submitted_ns.load(std::memory_order_relaxed);
    words->deadline_ns = descriptor.deadline_ns.load(std::memory_order_relaxed);
    words->tag = descriptor.tag.load(std::memory_order_relaxed);
    words->bytes_and_options = descriptor.bytes_and_options.load(std::memory_order_relaxed);
    words->width_and_ttl = descriptor.width_and_ttl.load(std::memory_order_relaxed);
    words->priority = descriptor.priority.load(std::memory_order_relaxed);
  }

  void LoadHead(char* text, uint32_t bytes) const {
    const SharedWord<uint64_t>* words = lane_.text_words(slot_);
    uint32_t done = 0;
    for (; done + 8 <= bytes; done += 8) {
      const uint64_t word = words[done / 8].load(std::memory_order_relaxed);  // relaxed: as in LoadWords
      memcpy(text + done, &word, 8);
    }
    if (done < bytes) {
      const uint64_t word = words[done / 8].load(std::memory_order_relaxed);  // relaxed: as in LoadWords
      memcpy(text + done, &word, bytes - done);
    }
  }

  StatusCode Check(uint64_t priority, CheckedRequest* request) const {
    if (request->text_bytes == 0) return StatusCode::kEmptyText;
    if ((request->options & ~kOptionsKnown) != 0) return StatusCode::kBadOption;
    const uint32_t both = kOptionNormalize | kOptionRaw;
    if ((request->options & both) == both) return StatusCode::kBadOption;
    if (request->width > lane_.geometry.width) return StatusCode::kBadOption;
    if (request->width == 0) request->width = lane_.geometry.width;
    if (priority >= kPriorityCount) return StatusCode::kBadOption;
    request->priority = static_cast<uint32_t>(priority);
    return StatusCode::kOk;
  }

  RequestLane lane_;
  int request_fd_;
  uint32_t slot_;
};

}  // namespace sutra
