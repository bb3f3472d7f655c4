// A shard whose files lie in DATA, without the engine that wrote them: whose it is, and the configuration by which its
// own code opens it (CacheShard::Open) so that nothing is evicted for want of room.
//
// Through an OverlayDiskIo that changes nothing (disk/disk_io_overlay.h), with or without an engine that writes
// meanwhile: then what is read is what a crash at about that moment would leave. Through any other DiskIo only under
// the lock on DATA, as an engine opens it.
//
// Thread rule: one thread. It reads only.
#pragma once

#include "cache/cache_shard.h"
#include "cache/identity_survey.h"
#include "shm/base/status.h"

namespace sutra {

class DiskIo;

// Whose the shard is: by the newest header of a segment that is right in itself, or, without one, by its MODEL file
// (which has no checksum, and alone knows the name).
// kStorageError: neither can be read.
Result<ShardDirectory> ModelAtRest(DiskIo* io, const IdentitySurvey& survey);

// How to open it. kRefused: a start would refuse the log, and why.
Result<CacheConfig> ConfigAtRest(DiskIo* io, const IdentitySurvey& survey);

}  // namespace sutra
