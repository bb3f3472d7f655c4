// Proves that a shard's files are what was written, or names each place where they are not, and says what a start would
// lose. Recovery asks what can be used; this asks what is right, down to bytes that recovery does not need.
//
// Checked: MODEL; each segment of the chain (segment_verifier.h); the heat file's blocks; files that do not belong
// there, and who may read them. Not checked, because nothing says what they should be: bytes behind the last record,
// and between the records and the index.
//
// Thread rule: one thread. It reads only, and nothing but `io`, which may be an OverlayDiskIo.
// What it calls sound, a start opens without a loss (tests/cache/shard_verifier_test.cc).
#pragma once

#include <functional>
#include <string>

#include "cache/identity_survey.h"
#include "cache/verify_report.h"
#include "shm/base/status.h"

namespace sutra {

class DiskIo;

// `go_on` is asked every few milliseconds with the bytes done of all; false ends it with kCancelled. kStorageError: the
// directory cannot be read at all.
Result<VerifyReport> VerifyShard(DiskIo* io, const IdentitySurvey& survey,
                                 const std::function<bool(uint64_t done, uint64_t total)>& go_on);

}  // namespace sutra
