// The directory of one shard, DATA/<first 16 hex digits of the model identity>/, and the MODEL file in it that says
// which model it belongs to. Thread rule: one thread, before the shard serves.
#pragma once

#include <cstdint>
#include <string>

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

// DATA/<first 16 hex digits of the identity>.
std::string ShardPath(const std::string& data, const std::string& model_identity);

// Creates what is missing (mode 0700), checks MODEL against `directory`, and logs one line when DATA holds other models
// too, and one when segments that were set aside take up room. (The reserve of an engine that has ended stays: it keeps
// the room for the first segment of this one.)
Result<ShardFiles> PrepareShardDirectory(DiskIo* io, const ShardDirectory& directory, const LogLine& log);

}  // namespace sutra
