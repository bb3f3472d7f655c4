// LongText: the bytes of a text that is too long for the text heap, shared by its entry and whoever compares it.
//
// Thread rule: references may be taken and released by any thread; the bytes never change.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <string_view>

namespace sutra {

class LongText {
 public:
  struct Release {
    void operator()(LongText* text) const { text->ReleaseOne(); }
  };
  using Ptr = std::unique_ptr<LongText, Release>;

  // Throws std::bad_alloc.
  static Ptr Copy(std::string_view text) {
    void* memory = ::operator new(sizeof(LongText) + text.size());
    Ptr copy(new (memory) LongText(text.size()));
    std::memcpy(static_cast<void*>(copy.get() + 1), text.data(), text.size());
    return copy;
  }
  // As a word of a slot.
  static uint64_t WordOf(LongText* text) { return std::bit_cast<uint64_t>(text); }
  static LongText* FromWord(uint64_t word) { return std::bit_cast<LongText*>(word); }

  std::string_view view() const { return {static_cast<const char*>(static_cast<const void*>(this + 1)), bytes_}; }
  // REQUIRES: nobody can release the last one meanwhile.
  Ptr AddReference() {
    references_.fetch_add(1, std::memory_order_relaxed);  // relaxed: the caller's lock keeps one meanwhile
    return Ptr(this);
  }

 private:
  explicit LongText(size_t bytes) : bytes_(bytes) {}
  void ReleaseOne() {
    if (references_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;  // the last one frees what others have read
    this->~LongText();
    ::operator delete(this);
  }

  const size_t bytes_;
  std::atomic<uint32_t> references_{1};
};

}  // namespace sutra
