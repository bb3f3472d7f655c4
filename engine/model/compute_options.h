// How a model may be computed: the enumerations and the limit behind --precision, --device, --executor and --threads.
// engine/config.cc parses them; Name gives the text that options, logs and the stats segment use.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sutra {

enum class Precision : uint8_t { kAuto, kF32, kBf16 };
inline constexpr const char* kPrecisionNames[] = {"auto", "fp32", "bf16"};

enum class Device : uint8_t { kCpu, kCuda };
inline constexpr const char* kDeviceNames[] = {"cpu", "cuda"};

enum class Executor : uint8_t { kAuto, kCpu, kTorch };
inline constexpr const char* kExecutorNames[] = {"auto", "cpu", "torch"};

constexpr const char* Name(Precision precision) { return kPrecisionNames[static_cast<size_t>(precision)]; }
constexpr const char* Name(Device device) { return kDeviceNames[static_cast<size_t>(device)]; }
constexpr const char* Name(Executor executor) { return kExecutorNames[static_cast<size_t>(executor)]; }

// Threads that compute one batch. --threads allows as many, and its default never exceeds it.
inline constexpr uint32_t kThreadsMax = 255;

}  // namespace sutra
