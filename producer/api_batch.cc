// The blocking calls: sutra_embed and sutra_embed_batch.
#include "producer/batch.h"
#include "producer/lane_pool.h"
#include "producer/request_check.h"

using namespace sutra;          // NOLINT: this file only implements the C functions below
using namespace sutra::client;  // NOLINT

extern "C" sutra_status sutra_embed_batch(sutra_client* client, const char* const* texts, const size_t* text_bytes,
                                          size_t count, const sutra_options* options, const sutra_batch_options* batch,
                                          float* vectors, sutra_result* results, size_t result_stride) {
  BatchCall call = {.texts = texts, .text_bytes = text_bytes, .count = count, .vectors = vectors};
  if (count > 0 && !call.results.Open(results, result_stride)) return FailResults();
  sutra_status status = CheckClient(client);
  if (status == SUTRA_OK && count > 0 && (texts == nullptr || text_bytes == nullptr || vectors == nullptr)) {
    status = FailNull("texts, text_bytes or vectors");
  }
  if (status == SUTRA_OK) status = CheckBatch(batch, &call);
  if (status == SUTRA_OK) status = CheckRequest(client, options, &call.request);
  return status == SUTRA_OK ? RunBatch(client, call, client->info.slots) : FailBatch(call, status);
}

extern "C" sutra_status sutra_embed(sutra_client* client, const char* text, size_t text_bytes,
                                    const sutra_options* options, float* vector, sutra_result* result) {
  ResultSink sink;
  if (!sink.Open(result)) return FailResults();
  Request request = {};
  sutra_status status = CheckClient(client);
  if (status == SUTRA_OK && vector == nullptr) status = FailNull("vector");
  if (status == SUTRA_OK) status = CheckRequest(client, options, &request);
  if (status == SUTRA_OK) status = CheckText(client, text, text_bytes);
  if (status == SUTRA_OK) return RunOne(client, text, text_bytes, request, vector, sink);
  sink.PutStatus(0, status, 0);
  return status;
}
