// What every fuzz target consists of: its registration, its input, and how it fails.
//
// A target is a function of bytes. The same source is a libFuzzer program (SUTRA_LIBFUZZER) and a part of
// fuzz_replay_test, which runs the checked-in corpus and seeded mutations of it without clang.
// Thread rule: one thread per process calls a target.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace sutra::fuzz {

struct FuzzTarget {
  const char* name;
  void (*run)(const uint8_t* data, size_t size);
  size_t bytes_max;  // larger inputs find nothing new
};

inline std::vector<FuzzTarget>& Targets() {
  static std::vector<FuzzTarget> targets;
  return targets;
}

struct Registration {
  Registration(const char* name, void (*run)(const uint8_t*, size_t), size_t bytes_max) {
    Targets().push_back({name, run, bytes_max});
  }
};

// A broken invariant ends the process: libFuzzer keeps the input, and the replay test fails with it.
#define FUZZ_CHECK(condition)                                                                \
  do {                                                                                       \
    if (!(condition)) {                                                                      \
      std::fprintf(stderr, "%s:%d: broken invariant: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                          \
    }                                                                                        \
  } while (false)

#if defined(SUTRA_LIBFUZZER)
#define SUTRA_FUZZ_TARGET(name, bytes_max)                                  \
  static void FuzzOne(const uint8_t* data, size_t size);                    \
  extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) { \
    if (size <= (bytes_max)) FuzzOne(data, size);                           \
    return 0;                                                               \
  }                                                                         \
  static void FuzzOne(const uint8_t* data, size_t size)
#else
#define SUTRA_FUZZ_TARGET(name, bytes_max)                                                    \
  static void FuzzOne(const uint8_t* data, size_t size);                                      \
  static const ::sutra::fuzz::Registration registration_of_##name(#name, FuzzOne, bytes_max); \
  static void FuzzOne(const uint8_t* data, size_t size)
#endif

// Reads numbers from the input; past its end everything is zero, so that every input is a whole program.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), left_(size) {}

  bool empty() const { return left_ == 0; }
  size_t left() const { return left_; }
  uint8_t Byte() { return static_cast<uint8_t>(Number(1)); }
  uint16_t U16() { return static_cast<uint16_t>(Number(2)); }
  uint32_t U32() { return static_cast<uint32_t>(Number(4)); }
  uint64_t U64() { return Number(8); }
  uint32_t Below(uint32_t bound) { return bound <= 256 ? Byte() % bound : U32() % bound; }

  // Mostly small, sometimes at a boundary: the values with which lengths and counts fail.
  uint64_t Edge(uint64_t edge) {
    const uint8_t choice = Byte();
    if (choice < 128) return choice % 64;
    if (choice < 192) return edge + choice - 160;
    if (choice < 224) return U64();
    return choice % 2 == 0 ? UINT64_MAX - choice % 8 : UINT32_MAX - choice % 8;
  }

  std::string_view Take(size_t count) {
    const size_t kept = count < left_ ? count : left_;
    const std::string_view taken(reinterpret_cast<const char*>(data_), kept);
    data_ += kept;
    left_ -= kept;
    return taken;
  }
  std::string_view Rest() { return Take(left_); }

 private:
  uint64_t Number(size_t bytes) {
    uint64_t value = 0;
    const std::string_view taken = Take(bytes);
    if (!taken.empty()) std::memcpy(&value, taken.data(), taken.size());
    return value;
  }

  const uint8_t* data_;
  size_t left_;
};

// Reads every byte, so that the address sanitizer detects a view past its memory.
inline void Touch(std::string_view bytes) {
  volatile unsigned sum = 0;
  for (const char byte : bytes) sum = sum + static_cast<unsigned char>(byte);
}

}  // namespace sutra::fuzz
