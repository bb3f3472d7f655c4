// Names of enumerators, as options, logs and messages write them: an enumeration's header lists them once, as an array
// of pairs, and these two functions go from one to the other. Stateless and thread-safe.
#pragma once

#include <cassert>
#include <cstddef>
#include <optional>
#include <string_view>
#include <utility>

namespace sutra {

template <typename Enum, size_t kCount>
using EnumNames = const std::pair<const char*, Enum>[kCount];

// REQUIRES: the table names every enumerator.
template <typename Enum, size_t kCount>
constexpr const char* NameOf(EnumNames<Enum, kCount>& names, Enum value) {
  for (const auto& [name, known] : names) {
    if (known == value) return name;
  }
  assert(false && "every enumerator has a name");
  return "";
}

// Nothing if no enumerator has this name.
template <typename Enum, size_t kCount>
constexpr std::optional<Enum> EnumOf(EnumNames<Enum, kCount>& names, std::string_view text) {
  for (const auto& [name, value] : names) {
    if (text == name) return value;
  }
  return std::nullopt;
}

}  // namespace sutra
