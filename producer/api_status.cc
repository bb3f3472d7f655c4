// What statuses mean, and which version runs: sutra_status_text, sutra_error_text, sutra_abi_version.
#include "producer/include/sutra/embed.h"
#include "producer/thread_state.h"
#include "shm/base/status.h"
#include "shm/layout.h"

using namespace sutra;  // NOLINT: this file only implements the C functions below

namespace {

// embed.h repeats the numbers of shm/base/status.h and shm/layout.h for C.
constexpr bool Same(sutra_status status, StatusCode code) { return status == static_cast<uint32_t>(code); }
static_assert(Same(SUTRA_OK, StatusCode::kOk) && Same(SUTRA_NOT_READY, StatusCode::kNotReady) &&
              Same(SUTRA_FULL, StatusCode::kFull) && Same(SUTRA_OVERLOADED, StatusCode::kOverloaded) &&
              Same(SUTRA_EMPTY_TEXT, StatusCode::kEmptyText) && Same(SUTRA_INVALID_UTF8, StatusCode::kInvalidUtf8) &&
              Same(SUTRA_TEXT_TOO_LONG, StatusCode::kTextTooLong) && Same(SUTRA_BAD_OPTION, StatusCode::kBadOption) &&
              Same(SUTRA_DEADLINE_EXCEEDED, StatusCode::kDeadlineExceeded) &&
              Same(SUTRA_CANCELLED, StatusCode::kCancelled) && Same(SUTRA_ENGINE_GONE, StatusCode::kEngineGone) &&
              Same(SUTRA_SHUTTING_DOWN, StatusCode::kShuttingDown) &&
              Same(SUTRA_MODEL_ERROR, StatusCode::kModelError) &&
              Same(SUTRA_STORAGE_ERROR, StatusCode::kStorageError) && Same(SUTRA_REFUSED, StatusCode::kRefused) &&
              Same(SUTRA_PROTOCOL_VIOLATION, StatusCode::kProtocolViolation) &&
              Same(SUTRA_OUT_OF_MEMORY, StatusCode::kOutOfMemory) && Same(SUTRA_FORKED, StatusCode::kForked) &&
              Same(SUTRA_BAD_ARGUMENT, StatusCode::kBadArgument) && SUTRA_BAD_ARGUMENT == kStatusCodeCount - 1);
static_assert(SUTRA_NORMALIZE == kOptionNormalize && SUTRA_RAW == kOptionRaw && SUTRA_REJECT == kOptionReject &&
              SUTRA_CACHE_SKIP_LOOKUP == kOptionCacheSkipLookup && SUTRA_CACHE_SKIP_STORE == kOptionCacheSkipStore);
static_assert(SUTRA_PRIORITY_NORMAL == kPriorityNormal && SUTRA_PRIORITY_QUERY == kPriorityQuery &&
              SUTRA_PRIORITY_BULK == kPriorityBulk && SUTRA_PRIORITY_BULK == kPriorityCount - 1);
static_assert(SUTRA_SOURCE_NONE == kSourceNone && SUTRA_SOURCE_HOT_TABLE == kSourceHotTable &&
              SUTRA_SOURCE_SHARD == kSourceShard && SUTRA_SOURCE_JOINED == kSourceJoined &&
              SUTRA_SOURCE_MODEL == kSourceModel);

}  // namespace

extern "C" uint32_t sutra_abi_version(void) { return SUTRA_ABI_VERSION; }

extern "C" const char* sutra_error_text(void) { return sutra::client::CurrentThread().error_text; }

extern "C" const char* sutra_status_text(sutra_status status) {
  return StatusName(status < static_cast<uint32_t>(kStatusCodeCount) ? static_cast<StatusCode>(status)
                                                                     : StatusCode::kModelError);
}
