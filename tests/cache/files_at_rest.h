// A shard's directory as it is: everything about its files that a reader must not change; and entries for it that have
// unit length, as real ones do.
#pragma once

#include <sys/stat.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <span>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "tests/cache/cache_test_support.h"

namespace sutra::test {

inline std::string BytesOfFile(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

// Name -> mode, size, times and contents of every file and directory below.
inline std::map<std::string, std::string> SnapshotOf(const std::string& directory) {
  std::map<std::string, std::string> files;
  const auto add = [&](const std::filesystem::path& path) {
    struct stat info = {};
    if (lstat(path.c_str(), &info) != 0) return;
    std::string facts = std::to_string(info.st_mode) + " " + std::to_string(info.st_ino) + " " +
                        std::to_string(info.st_size) + " " + std::to_string(info.st_mtim.tv_sec) + "." +
                        std::to_string(info.st_mtim.tv_nsec) + " " + std::to_string(info.st_ctim.tv_sec) + "." +
                        std::to_string(info.st_ctim.tv_nsec) + " ";
    if (S_ISREG(info.st_mode)) facts += std::to_string(std::hash<std::string>()(BytesOfFile(path)));
    files[path] = facts;
  };
  add(directory);
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) add(entry.path());
  return files;
}

inline std::vector<float> UnitVectorOf(const std::string& text, uint32_t version, uint32_t width = kWidth) {
  std::vector<float> vector = VectorOf(text, version, width);
  double square = 0;
  for (const float value : vector) square += double{value} * double{value};
  for (float& value : vector) value = static_cast<float>(value / std::sqrt(square));
  return vector;
}

inline void PutUnit(CacheShard* shard, const std::string& text, uint32_t version = 1, uint32_t variant = 0) {
  shard->Insert(text, variant, UnitVectorOf(text, version), CacheValue{2.5f, version, false}, 0);
}

// Changes bytes of a file without any of its names or its size.
inline void Overwrite(const std::string& path, uint64_t offset, const std::string& bytes) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekp(static_cast<std::streamoff>(offset));
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}
inline void FlipBit(const std::string& path, uint64_t offset, unsigned bit = 0) {
  std::string byte = BytesOfFile(path).substr(offset, 1);
  byte[0] = static_cast<char>(static_cast<unsigned char>(byte[0]) ^ (1u << bit));
  Overwrite(path, offset, byte);
}

}  // namespace sutra::test
