// A model's JSON files: bounded reads, and fields checked with messages that name the file. The files are untrusted.
// Thread rule: stateless.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "shm/base/status.h"

namespace sutra {

// kModelError, "the model's PATH: WHAT".
Status ModelFileError(const std::string& path, const std::string& what);

Result<nlohmann::json> ReadJsonFile(const std::string& path);
// The same for a file that must hold an object.
Result<nlohmann::json> ReadJsonObject(const std::string& path);

// Reads `key` as a whole number within [low, high].
Status ReadNumber(const nlohmann::json& object, const std::string& path, const char* key, uint32_t low, uint32_t high,
                  uint32_t* out);

// Refuses a key that is not in `known`: in a file that holds nothing but settings, it could mean anything.
Status OnlyKeys(const nlohmann::json& object, const std::string& path, std::initializer_list<std::string_view> known);

std::string StringOr(const nlohmann::json& object, const char* key, const std::string& otherwise);
bool IsTrue(const nlohmann::json& object, const char* key);

}  // namespace sutra
