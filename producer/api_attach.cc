// The life of a client: sutra_attach, sutra_detach, sutra_get_info.
#include "producer/lane_helper.h"
#include "producer/lane_open.h"
#include "producer/request_check.h"

using namespace sutra;          // NOLINT: this file only implements the C functions below
using namespace sutra::client;  // NOLINT

extern "C" sutra_status sutra_attach(const char* path, const sutra_attach_options* options, sutra_client** client) {
  if (client == nullptr) return FailNull("client");
  *client = nullptr;
  if (path == nullptr) return FailNull("path");
  sutra_attach_options copy = SUTRA_ATTACH_OPTIONS_INIT;
  if (options != nullptr) {
    const StructRead read = ReadStruct(options, kAttachOptionsBytesFirst, &copy, sizeof(copy));
    if (read != StructRead::kOk) return FailStruct("sutra_attach_options", read);
  }
  HelloMessage hello = {};
  sutra_status status = CheckAttach(path, copy, &hello);
  if (status != SUTRA_OK) return status;
  sutra_client* made = NewClient(path, copy, hello);
  if (made == nullptr) return Fail(SUTRA_OUT_OF_MEMORY, "no memory for a client");
  const uint64_t timeout_ms = copy.timeout_ms == 0 ? kAttachTimeoutMsDefault : copy.timeout_ms;
  status = OpenHelper(made);
  if (status == SUTRA_OK) status = OpenFirstLane(made, MonotonicNs() + timeout_ms * kNsPerMs);
  if (status == SUTRA_OK) status = StartHelper(made);
  if (status != SUTRA_OK) {
    FreeClient(made, false);
    return status;
  }
  *client = made;
  return SUTRA_OK;
}

extern "C" void sutra_detach(sutra_client* client) {
  if (client != nullptr) FreeClient(client, IsForked(client));
}

extern "C" sutra_status sutra_get_info(const sutra_client* client, sutra_info* info) {
  if (const sutra_status status = CheckClient(client); status != SUTRA_OK) return status;
  if (info == nullptr) return FailNull("info");
  const uint32_t bytes = StructBytes(info, kInfoBytesFirst);
  if (bytes == 0) return FailStruct("sutra_info", StructRead::kUnknownSize);
  sutra_info copy = client->info;
  {
    const MutexLock lock(client->attempt_mutex);
    copy.engine_pid = client->engine_pid;
    copy.engine_generation = client->engine_generation;
    copy.engines = client->engines;
    copy.resubmitted = client->resubmitted.load(std::memory_order_relaxed);  // relaxed: only a count
  }
  copy.lanes = OpenLanes(client);
  WriteStruct(&copy, sizeof(copy), info, bytes);
  return SUTRA_OK;
}
