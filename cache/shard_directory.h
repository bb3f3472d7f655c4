// The directory of one shard, DATA/<first 16 hex digits of the model identity>/, and the MODEL file in it that says
// which model it belongs to. Thread rule: one thread, before the shard serves.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "shm/base/log_line.h"
#include "shm/base/status.h"

namespace sutra {

class DiskIo;

struct ShardDirectory {
  std::string data;  // DATA
  std::string model_identity;
  std::string model_name;
  uint32_t width = 0;
};

struct ShardFiles {
  std::string path;          // the shard's own directory
  uint64_t segments = 0;     // log segments in it
  uint64_t quarantined = 0;  // segments that an earlier start set aside
  // The disk is too full to make the directory or its MODEL file; there is no log in it, and none can be begun before
  // another PrepareShardDirectory has succeeded.
  Status disk_full;
};

// The first 16 hex digits of the identity, and DATA/ before them.
std::string ShardName(const std::string& model_identity);
std::string ShardPath(const std::string& data, const std::string& model_identity);

// Whether a name in DATA is one that a shard's directory has, and a name in there one that a shard gives its files.
bool IsShardName(std::string_view name);
bool IsShardFile(std::string_view name);

inline constexpr uint64_t kModelFileBytesMax = 64u << 10;
// What the text of a MODEL file says; `data` stays empty, and so does everything that is not there.
ShardDirectory ParseModelFile(const std::string& text);

// Creates what is missing (mode 0700), checks MODEL against `directory`, and logs one line when segments that were set
// aside take up room. (The reserve of an engine that has ended stays: it keeps the room for the first segment of this
// one.) Other models' directories in DATA are other_identities.h's.
Result<ShardFiles> PrepareShardDirectory(DiskIo* io, const ShardDirectory& directory, const LogLine& log);

}  // namespace sutra
