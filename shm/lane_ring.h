// The four ends of a lane's two rings. Client: SubmissionWriter, CompletionReader. Engine: SubmissionReader,
// CompletionWriter. Each ring has one writing thread and one reading thread at a time; the callers ensure it.
// Header-only and free of the C++ runtime.
//
// Invariants:
//   - An entry carries its position, which publishes it: there is no shared index, and each hop moves one cache line.
//   - Zero is never an entry: a hole punched by a hostile client reads as "nothing yet".
//   - No end waits for the other. The submission ring cannot overflow because a slot is submitted only once until it is
//     answered; the completion ring may be lapped by design, and the reader notices and scans the result words instead.
//   - A process that dies between two stores loses at most the entry it was about to publish.
#pragma once

#include <assert.h>

#include <atomic>
#include <cstdint>

#include "shm/base/status.h"
#include "shm/layout.h"

namespace sutra {

static_assert(RingEntry(0, 0) != 0, "zero is never an entry");

class SubmissionWriter {
 public:
  SubmissionWriter() = default;
  explicit SubmissionWriter(const RequestLane& lane) : lane_(lane) {}

  // The slot's descriptor and text must be written before; from this store on the engine may take the slot.
  void Publish(uint32_t slot) {
    assert(slot < lane_.geometry.slots);
    // SYNC L1 (release): publishes descriptor and text of `slot`; meets SYNC L1 (acquire) in SubmissionReader::Next.
    lane_.submission(position_).store(RingEntry(position_, slot), std::memory_order_release);
    ++position_;
  }
  uint64_t position() const { return position_; }

 private:
  RequestLane lane_;
  uint64_t position_ = 0;  // next to publish; private, so that a restart of the reader cannot move it
};

class SubmissionReader {
 public:
  enum class Take : uint8_t { kNone, kTaken, kViolation };

  SubmissionReader() = default;
  explicit SubmissionReader(const RequestLane& lane) : lane_(lane) {}

  // Takes at most one entry. kViolation is final for the lane: no client of this layout writes such an entry.
  // The caller's private slot table refuses a slot number that is in range but already held by the engine.
  Take Next(uint32_t* slot) {
    // SYNC L1 (acquire): see SubmissionWriter::Publish.
    const uint64_t entry = lane_.submission(position_).load(std::memory_order_acquire);
    if (entry == 0) return Take::kNone;
    const uint64_t entry_position = RingEntryPosition(entry);
    if (entry_position != position_) {
      const bool last_lap = position_ >= lane_.geometry.slots && entry_position == position_ - lane_.geometry.slots;
      return last_lap ? Take::kNone : Take::kViolation;
    }
    const uint32_t entry_slot = RingEntrySlot(entry);
    if (entry_slot >= lane_.geometry.slots) return Take::kViolation;
    *slot = entry_slot;
    ++position_;
    return Take::kTaken;
  }
  // Whether Next would find an entry, valid or not.
  bool HasNext() const {
    SubmissionReader copy = *this;
    uint32_t slot = 0;
    return copy.Next(&slot) != Take::kNone;
  }
  // Submissions taken so far; the engine copies it into EngineLine::taken for observers.
  uint64_t position() const { return position_; }

 private:
  RequestLane lane_;
  uint64_t position_ = 0;
};

class CompletionWriter {
 public:
  CompletionWriter() = default;
  explicit CompletionWriter(const ReplyLane& lane) : lane_(lane) {}

  // The vector and the other fields of the result descriptor must be written before. Never waits: a client that does
  // not read its completions loses only its index into them. The caller wakes sleeping clients (sleep_wake.h), once per
  // batch.
  void Publish(uint32_t slot, uint64_t sequence, StatusCode status) {
    assert(slot < lane_.geometry.slots);
    // SYNC L2 (release): publishes vector and result of `slot`; meets SYNC L2 (acquire) in LoadResultWord.
    lane_.result(slot).word.store(ResultWord(sequence, static_cast<uint8_t>(status)), std::memory_order_release);
    // SYNC L3 (release): a reader that sees the entry sees the result word; meets SYNC L3 (acquire) in
    // CompletionReader::Next.
    lane_.completion(position_).store(RingEntry(position_, slot), std::memory_order_release);
    ++position_;
  }
  uint64_t position() const { return position_; }

 private:
  ReplyLane lane_;
  uint64_t position_ = 0;
};

// The truth about a slot: `sequence << 8 | status` of its last answer.
inline uint64_t LoadResultWord(const ReplyLane& lane, uint32_t slot) {
  // SYNC L2 (acquire): see CompletionWriter::Publish.
  return lane.result(slot).word.load(std::memory_order_acquire);
}
constexpr uint64_t ResultWordSequence(uint64_t word) { return word >> 8; }
constexpr StatusCode ResultWordStatus(uint64_t word) {
  return (word & 0xff) < static_cast<uint64_t>(kStatusCodeCount) ? static_cast<StatusCode>(word & 0xff)
                                                                 : StatusCode::kModelError;
}

class CompletionReader {
 public:
  enum class Read : uint8_t {
    kNone,
    kSlot,  // *slot has an answer (its result word says which)
    kGap,   // the engine lapped this reader: scan the result words of all slots, then go on reading
  };

  CompletionReader() = default;
  explicit CompletionReader(const ReplyLane& lane) : lane_(lane) {}

  Read Next(uint32_t* slot) {
    // SYNC L3 (acquire): see CompletionWriter::Publish.
    const uint64_t entry = lane_.completion(position_).load(std::memory_order_acquire);
    // No entry was ever published without a position, and only a position may move this reader, which never goes back:
    // a reader that a broken engine could send back would read forever.
    if (entry >> 16 == 0) return Read::kNone;
    const uint64_t entry_position = RingEntryPosition(entry);
    if (entry_position < position_) return Read::kNone;  // of the previous lap
    const uint32_t entry_slot = RingEntrySlot(entry);
    const bool expected = entry_position == position_ && entry_slot < lane_.geometry.slots;
    // After a gap every answer up to this entry is visible in the result words, so reading goes on behind it.
    position_ = entry_position + 1;
    if (!expected) return Read::kGap;
    *slot = entry_slot;
    return Read::kSlot;
  }
  uint64_t position() const { return position_; }

 private:
  ReplyLane lane_;
  uint64_t position_ = 0;
};

}  // namespace sutra
