// What the blocking calls do: one text, or any number of texts pipelined through the slots.
//
// Thread rule: any thread; a call holds a lane's mutex for short, bounded work and never while waiting.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "producer/batch_watch.h"
#include "producer/client_lane.h"
#include "producer/sized_struct.h"

namespace sutra::client {

// Submits one text, waits, and copies the vector. RETURNS its final status, which the result in `sink` has too.
sutra_status RunOne(sutra_client* client, const char* text, size_t text_bytes, const Request& request, float* vector,
                    const ResultSink& sink);

struct ErrorTexts {  // of the caller, a text each; nullptr = nowhere
  char* first = nullptr;
  size_t bytes = 0;  // of each, at least 1

  bool wanted() const { return first != nullptr; }
  void Put(size_t index, const char* text) const;  // cut where it is too long
};

struct BatchCall {  // the checked arguments of sutra_embed_batch
  const char* const* texts = nullptr;
  const size_t* text_bytes = nullptr;
  size_t count = 0;
  Request request = {};
  BatchLimits limits = {};
  ErrorTexts error_texts = {};
  float* vectors = nullptr;
  ResultSink results = {};
};

// At most `in_flight_max` texts are outstanding at once. RETURNS SUTRA_OK if every text did, else the status of the
// first text that failed, whose own cause becomes the explanation; every result and error text is written.
sutra_status RunBatch(sutra_client* client, const BatchCall& call, size_t in_flight_max);
// Gives every text of a call the same status. RETURNS it.
sutra_status FailBatch(const BatchCall& call, sutra_status status);

}  // namespace sutra::client
