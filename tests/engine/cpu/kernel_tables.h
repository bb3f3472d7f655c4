// What the tests of the kernels share: every kernel set that this CPU can run, operands with the exact values that a
// kernel sees, and memory that ends at a page which must not be touched.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bit>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "engine/cpu/aligned_buffer.h"
#include "engine/cpu/features.h"
#include "engine/cpu/kernels/kernels.h"
#include "engine/cpu/packed_model.h"
#include "tests/engine/cpu/amx_emulation.h"

namespace sutra::cpu {

inline std::vector<const KernelTable*> KernelTables() {
  const Features& features = DetectFeatures();
  std::vector<const KernelTable*> tables;
  const auto add = [&](bool present, const KernelTable* table) {
    if (present && table != nullptr) tables.push_back(table);
  };
  add(true, PortableKernels(Element::kF32));
  add(true, PortableKernels(Element::kBf16));
  add(features.avx2, Avx2Kernels());
  add(features.avx512, Avx512Kernels());
  add(features.avx512_bf16, Avx512Bf16Kernels());
  add(features.avx512_bf16, EmulatedAmxKernels());
  add(features.amx_bf16, AmxKernels());
  return tables;
}

inline std::string KernelTableName(const testing::TestParamInfo<const KernelTable*>& info) { return info.param->name; }

// What a number becomes as an element.
inline double AsElement(Element element, double value) {
  const auto rounded = static_cast<float>(value);
  if (element == Element::kF32) return static_cast<double>(rounded);
  return static_cast<double>(std::bit_cast<float>(static_cast<uint32_t>(ToBf16(rounded)) << 16));
}

// A matrix held as elements, with the exact values the kernel sees; spare rows behind it.
struct Elements {
  Elements(Element kind, size_t count)
      : element(kind), memory((count + 64 * 1024) * sizeof(float)), values(count, 0.0) {}
  void Set(size_t i, double value) {
    values[i] = AsElement(element, value);
    if (element == Element::kF32) {
      memory.As<float>()[i] = static_cast<float>(value);
    } else {
      memory.As<uint16_t>()[i] = ToBf16(static_cast<float>(value));
    }
  }
  double Get(size_t i) const {
    if (element == Element::kF32) return static_cast<double>(memory.As<float>()[i]);
    return static_cast<double>(std::bit_cast<float>(static_cast<uint32_t>(memory.As<uint16_t>()[i]) << 16));
  }
  Element element;
  AlignedBuffer memory;
  std::vector<double> values;
};

// `count` values of T that end where the next byte is a fault.
template <typename T>
class GuardedArray {
 public:
  explicit GuardedArray(size_t count) : count_(count) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t used = (count * sizeof(T) + page - 1) / page * page;
    bytes_ = used + page;
    memory_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory_ == MAP_FAILED || mprotect(static_cast<char*>(memory_) + used, page, PROT_NONE) != 0) std::abort();
    void* begin = static_cast<char*>(memory_) + used - count * sizeof(T);
    values_ = static_cast<T*>(begin);
  }
  ~GuardedArray() { munmap(memory_, bytes_); }
  GuardedArray(const GuardedArray&) = delete;
  GuardedArray& operator=(const GuardedArray&) = delete;

  T* data() const { return values_; }
  T& operator[](size_t i) const { return values_[i]; }
  std::span<T> values() const { return {values_, count_}; }

 private:
  size_t count_;
  size_t bytes_ = 0;
  void* memory_ = nullptr;
  T* values_ = nullptr;
};

// One test for each set that this CPU has.
class CpuKernels : public testing::TestWithParam<const KernelTable*> {
 protected:
  void SetUp() override { table_->prepare_thread(); }
  void TearDown() override { table_->release_thread(); }
  bool is_f32() const { return table_->element == Element::kF32; }
  // Of a result stored as an element.
  double Rounding() const { return is_f32() ? 1e-5 : 1.0 / 128; }
  double Normal() { return normal_(random_); }

  const KernelTable* const table_ = GetParam();
  std::mt19937 random_{3};
  std::normal_distribution<double> normal_;
};

}  // namespace sutra::cpu
