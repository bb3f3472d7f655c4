// Checks of what callers pass in: clients, pointers, options, texts. Each explains what it refuses.
// Thread rule: any thread; nothing is changed.
#pragma once

#include <stddef.h>

#include "producer/batch.h"
#include "producer/client_lane.h"
#include "producer/include/sutra/embed.h"
#include "producer/sized_struct.h"
#include "shm/handshake_messages.h"

namespace sutra::client {

// RETURNS SUTRA_OK, SUTRA_BAD_ARGUMENT for NULL, or SUTRA_FORKED.
sutra_status CheckClient(const sutra_client* client);
// RETURNS SUTRA_BAD_ARGUMENT; `argument` is the name of what is NULL.
sutra_status FailNull(const char* argument);
// RETURNS the status for a caller's structure that could not be read. REQUIRES: not kOk.
sutra_status FailStruct(const char* type, StructRead read);
// RETURNS the status for a caller's results that could not be opened (ResultSink).
sutra_status FailResults();

// Fills *hello, zeroed, with what the options ask for. RETURNS SUTRA_OK or what sutra_attach returns.
sutra_status CheckAttach(const char* path, const sutra_attach_options& options, HelloMessage* hello);
// RETURNS SUTRA_OK or what sutra_submit returns.
sutra_status CheckRequest(const sutra_client* client, const sutra_options* options, Request* request);
// Fills the limits and the error texts of *call. RETURNS SUTRA_OK or what sutra_embed_batch returns.
sutra_status CheckBatch(const sutra_batch_options* batch, BatchCall* call);
sutra_status CheckText(const sutra_client* client, const char* text, size_t text_bytes);

}  // namespace sutra::client
