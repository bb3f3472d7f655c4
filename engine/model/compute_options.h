// How a model may be computed: the enumerations and limits behind --precision, --device, --executor, --cpu-isa,
// --threads and --core-groups.
// engine/config.cc parses them; Name gives the text that options, logs and the stats segment use.
#pragma once

#include <cstdint>
#include <utility>

#include "shm/base/enum_names.h"

namespace sutra {

// kAuto means fp32 or bf16; int8 loses more and is taken only where it is asked for.
enum class Precision : uint8_t { kAuto, kF32, kBf16, kInt8 };
inline constexpr std::pair<const char*, Precision> kPrecisionNames[] = {
    {"auto", Precision::kAuto}, {"fp32", Precision::kF32}, {"bf16", Precision::kBf16}, {"int8", Precision::kInt8}};

enum class Device : uint8_t { kCpu, kCuda };
inline constexpr std::pair<const char*, Device> kDeviceNames[] = {{"cpu", Device::kCpu}, {"cuda", Device::kCuda}};

enum class Executor : uint8_t { kAuto, kCpu, kTorch };
inline constexpr std::pair<const char*, Executor> kExecutorNames[] = {
    {"auto", Executor::kAuto}, {"cpu", Executor::kCpu}, {"torch", Executor::kTorch}};

// The instructions that our CPU kernels may use at most. In order: each allows all before it, and kAuto all that the
// CPU has. It is a cap: nothing is used that the CPU lacks.
enum class CpuIsa : uint8_t { kPortable, kAvx2, kAvxVnni, kAvx512, kAvx512Vnni, kAvx512Bf16, kAmx, kAuto };
inline constexpr std::pair<const char*, CpuIsa> kCpuIsaNames[] = {{"auto", CpuIsa::kAuto},
                                                                  {"portable", CpuIsa::kPortable},
                                                                  {"avx2", CpuIsa::kAvx2},
                                                                  {"avx_vnni", CpuIsa::kAvxVnni},
                                                                  {"avx512", CpuIsa::kAvx512},
                                                                  {"avx512_vnni", CpuIsa::kAvx512Vnni},
                                                                  {"avx512_bf16", CpuIsa::kAvx512Bf16},
                                                                  {"amx", CpuIsa::kAmx}};

constexpr const char* Name(Precision precision) { return NameOf(kPrecisionNames, precision); }
constexpr const char* Name(Device device) { return NameOf(kDeviceNames, device); }
constexpr const char* Name(Executor executor) { return NameOf(kExecutorNames, executor); }
constexpr const char* Name(CpuIsa isa) { return NameOf(kCpuIsaNames, isa); }

// How close the int8 vector of every built-in text has to be to that in fp32: the default of --int8-cosine-min.
inline constexpr double kInt8CosineMin = 0.999;

// Threads that compute: the upper bound of --threads and of its default.
inline constexpr uint32_t kThreadsMax = 255;

// Groups of cores that compute a batch each: the upper bound of --core-groups and of what is found.
inline constexpr uint32_t kCoreGroupsMax = 32;

}  // namespace sutra
