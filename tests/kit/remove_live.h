// Removes a directory that a serving engine writes to. Any thread.
#pragma once

#include <filesystem>
#include <string>
#include <system_error>

namespace sutra::test {

// Again where the engine made a file in a directory that had just been emptied; throws what else goes wrong.
inline void RemoveLive(const std::string& path) {
  std::error_code error;
  do {
    std::filesystem::remove_all(path, error);
  } while (error == std::errc::directory_not_empty);
  if (error) throw std::filesystem::filesystem_error("removing", path, error);
}

}  // namespace sutra::test
