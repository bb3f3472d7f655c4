// What the fake model must answer, known without an engine; and the texts that tests send.
// Thread-safe: functions of their arguments.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "tests/kit/client_handle.h"

namespace sutra::test {

inline constexpr uint32_t kTestWidth = 48;
inline constexpr const char* kFakeName = "fake";

// The model's own answer: unit length; with `raw`, as pooled.
std::vector<float> ExpectedVector(std::string_view text, bool raw = false, uint32_t width = kTestWidth,
                                  std::string_view name = kFakeName);

// Equal up to the rounding of dividing by a norm and multiplying again. Vectors of two texts never are.
bool SameVector(const std::vector<float>& left, const std::vector<float>& right);

// Empty if the reply is ok and is the vector of `text`; otherwise what is wrong with it.
std::string WhatIsWrong(const Reply& reply, std::string_view text);

// A valid text of 1..bytes_max bytes: ASCII, several scripts, occasionally NUL.
std::string RandomText(std::mt19937_64& random, size_t bytes_max = 700);

// `count` texts "PREFIX 0 ..", all different.
std::vector<std::string> NumberedTexts(const std::string& prefix, size_t count);

// The text behind a number in the oracle file of a chaos client (tests/crash).
std::string ChaosText(const std::string& prefix, uint64_t id);

}  // namespace sutra::test
