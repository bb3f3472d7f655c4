// Three instruction streams run side by side over neighbouring blocks, because the crc32 instruction has a latency of
// three cycles (two on many aarch64 cores) and a throughput of one; a precomputed table moves a checksum over one block
// of zeros, which joins them.
#include "shm/base/crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#define SUTRA_CRC_TARGET __attribute__((target("sse4.2")))
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#define SUTRA_CRC_TARGET  // the assembler is told for each instruction
#endif

namespace sutra {
namespace {

constexpr uint32_t kPolynomial = 0x82f63b78u;  // reflected
constexpr size_t kStreamBytes = 256;

using ByteTable = std::array<uint32_t, 256>;

constexpr std::array<ByteTable, 8> MakeSliceTables() {
  std::array<ByteTable, 8> tables{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? kPolynomial : 0);
    tables[0][i] = crc;
  }
  for (uint32_t i = 0; i < 256; ++i) {
    for (size_t t = 1; t < 8; ++t) tables[t][i] = (tables[t - 1][i] >> 8) ^ tables[0][tables[t - 1][i] & 0xff];
  }
  return tables;
}
constexpr std::array<ByteTable, 8> kSlices = MakeSliceTables();

uint64_t LoadWord(const unsigned char* bytes) {
  uint64_t word;
  std::memcpy(&word, bytes, sizeof(word));
  return word;
}

#if defined(SUTRA_CRC_TARGET)
// [k][b]: what byte k of a checksum with value b becomes after kStreamBytes zero bytes. The map is linear, so
// four look-ups and exclusive ors move a whole checksum.
std::array<ByteTable, 4> MakeShiftTables() {
  std::array<ByteTable, 4> tables{};
  for (uint32_t k = 0; k < 4; ++k) {
    for (uint32_t value = 0; value < 256; ++value) {
      uint32_t crc = value << (8 * k);
      for (size_t i = 0; i < kStreamBytes; ++i) crc = (crc >> 8) ^ kSlices[0][crc & 0xff];
      tables[k][value] = crc;
    }
  }
  return tables;
}

#if defined(__x86_64__)
SUTRA_CRC_TARGET inline uint64_t StepWord(uint64_t crc, uint64_t word) { return _mm_crc32_u64(crc, word); }
SUTRA_CRC_TARGET inline uint32_t StepByte(uint32_t crc, unsigned char byte) { return _mm_crc32_u8(crc, byte); }
bool HasInstruction() { return __builtin_cpu_supports("sse4.2") != 0; }
#else
// Of the optional extension CRC32 of Armv8.0, mandatory from Armv8.1 on. Not by intrinsics: g++ and clang name them
// differently for a function of its own target.
inline uint64_t StepWord(uint64_t crc, uint64_t word) {
  auto state = static_cast<uint32_t>(crc);
  asm(".arch_extension crc\ncrc32cx %w0, %w0, %1" : "+r"(state) : "r"(word));
  return state;
}
inline uint32_t StepByte(uint32_t crc, unsigned char byte) {
  asm(".arch_extension crc\ncrc32cb %w0, %w0, %w1" : "+r"(crc) : "r"(uint32_t{byte}));
  return crc;
}
bool HasInstruction() { return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0; }
#endif

SUTRA_CRC_TARGET uint32_t Crc32cHardware(const unsigned char* bytes, size_t size, uint32_t crc) {
  static const std::array<ByteTable, 4> shift = MakeShiftTables();
  const auto move = [](uint64_t value) {
    return shift[0][value & 0xff] ^ shift[1][(value >> 8) & 0xff] ^ shift[2][(value >> 16) & 0xff] ^
           shift[3][(value >> 24) & 0xff];
  };
  uint64_t first = crc;
  while (size >= 3 * kStreamBytes) {
    uint64_t second = 0;
    uint64_t third = 0;
    for (size_t i = 0; i < kStreamBytes; i += 8) {
      first = StepWord(first, LoadWord(bytes + i));
      second = StepWord(second, LoadWord(bytes + kStreamBytes + i));
      third = StepWord(third, LoadWord(bytes + 2 * kStreamBytes + i));
    }
    first = move(move(first) ^ second) ^ third;
    bytes += 3 * kStreamBytes;
    size -= 3 * kStreamBytes;
  }
  for (; size >= 8; size -= 8, bytes += 8) first = StepWord(first, LoadWord(bytes));
  auto tail = static_cast<uint32_t>(first);
  for (; size > 0; --size, ++bytes) tail = StepByte(tail, *bytes);
  return tail;
}
#endif

uint32_t Crc32cTable(const unsigned char* bytes, size_t size, uint32_t crc) {
  for (; size >= 8; size -= 8, bytes += 8) {
    const uint64_t word = LoadWord(bytes) ^ crc;
    crc = 0;
    for (size_t k = 0; k < 8; ++k) crc ^= kSlices[7 - k][(word >> (8 * k)) & 0xff];
  }
  for (; size > 0; --size, ++bytes) crc = (crc >> 8) ^ kSlices[0][(crc ^ *bytes) & 0xff];
  return crc;
}

}  // namespace

uint32_t Crc32cPortable(const void* data, size_t size, uint32_t crc) {
  return ~Crc32cTable(static_cast<const unsigned char*>(data), size, ~crc);
}

uint32_t Crc32c(const void* data, size_t size, uint32_t crc) {
#if defined(SUTRA_CRC_TARGET)
  static const bool has_instruction = HasInstruction();
  if (has_instruction) return ~Crc32cHardware(static_cast<const unsigned char*>(data), size, ~crc);
#endif
  return Crc32cPortable(data, size, crc);
}

}  // namespace sutra
