#include "producer/request_check.h"

#include <string.h>

#include "producer/cancel_all.h"
#include "producer/lane_pool.h"

namespace sutra::client {

sutra_status CheckClient(const sutra_client* client) {
  if (client == nullptr) return FailNull("client");
  if (!IsForked(client)) return SUTRA_OK;
  return Fail(SUTRA_FORKED, "this client belongs to the parent process: call sutra_attach in the child");
}

sutra_status FailNull(const char* argument) {
  return Fail(SUTRA_BAD_ARGUMENT, "%s is NULL: the call needs it", argument);
}

sutra_status FailStruct(const char* type, StructRead read) {
  if (read == StructRead::kUnknownField) {
    return Fail(SUTRA_BAD_OPTION, "%s: fields are set that this library does not know: use the library of your header",
                type);
  }
  return Fail(SUTRA_BAD_ARGUMENT, "%s.size is not set: set size = sizeof(%s) before the call", type, type);
}

sutra_status FailResults() {
  return Fail(SUTRA_BAD_ARGUMENT,
              "sutra_result.size is not set, or result_stride is below it: set size = sizeof(sutra_result) before the "
              "call");
}

sutra_status CheckAttach(const char* path, const sutra_attach_options& options, HelloMessage* hello) {
  hello->magic = kHandshakeMagic;
  hello->layout_major = kLayoutMajor;
  hello->layout_minor = kLayoutMinor;
  hello->slots = options.slots;  // 0 = the engine's default
  hello->width = options.width;
  hello->text_bytes_max = options.text_bytes_max;
  if (hello->slots != 0 &&
      (hello->slots < kSlotsMin || hello->slots > kSlotsMax || (hello->slots & (hello->slots - 1)) != 0)) {
    return Fail(SUTRA_BAD_OPTION, "slots = %u: it must be a power of two from %u to %u", hello->slots, kSlotsMin,
                kSlotsMax);
  }
  if (options.reserved != 0) return Fail(SUTRA_BAD_OPTION, "reserved = %u: it must be zero", options.reserved);
  if (options.text_bytes_max > kTextBytesMaxLimit) {
    return Fail(SUTRA_BAD_OPTION, "text_bytes_max = %u: the limit is %u", options.text_bytes_max, kTextBytesMaxLimit);
  }
  if (options.model != nullptr) {
    if (strlen(options.model) >= sizeof(hello->model)) {
      return Fail(SUTRA_BAD_OPTION, "model name of %zu bytes: the limit is %zu", strlen(options.model),
                  sizeof(hello->model) - 1);
    }
    strcpy(hello->model, options.model);
  }
  if (options.client_name != nullptr) strncpy(hello->client_name, options.client_name, sizeof(hello->client_name) - 1);
  if (strlen(path) >= sizeof(sutra_client::path)) {
    return Fail(SUTRA_REFUSED, "socket path of %zu bytes: the limit is %zu; use a shorter directory", strlen(path),
                sizeof(sutra_client::path) - 1);
  }
  return SUTRA_OK;
}

namespace {

constexpr uint32_t kFlagsKnown = kOptionsKnown | SUTRA_FAIL_FAST;  // the last one is the library's own business
constexpr size_t kIdentityPrefixMin = 8;                           // as the engine's, for an attach

bool IsServedModel(const sutra_info& info, const char* model) {
  if (model == nullptr || model[0] == '\0' || strcmp(model, info.model) == 0) return true;
  const size_t length = strlen(model);
  return length >= kIdentityPrefixMin && strncmp(model, info.identity, length) == 0;
}

// Options that are part of the ABI before an engine serves them: each is named, none is ignored.
sutra_status CheckReserved(const sutra_client* client, const sutra_options& options) {
  const sutra_info& info = client->info;
  if (!IsServedModel(info, options.model)) {
    return Fail(SUTRA_BAD_OPTION, "model %.60s: other models than the client's (%.60s, identity %.16s) are not served",
                options.model, info.model, info.identity);
  }
  if (options.data_type != SUTRA_DATA_F32) {
    return Fail(SUTRA_BAD_OPTION, "data_type %u: only SUTRA_DATA_F32 (0) is served yet", options.data_type);
  }
  if (options.truncate_side != SUTRA_TRUNCATE_END) {
    return Fail(SUTRA_BAD_OPTION, "truncate_side %u: only SUTRA_TRUNCATE_END (0) is served yet", options.truncate_side);
  }
  if (options.tokens_max != 0 && options.tokens_max != info.tokens_max) {
    return Fail(SUTRA_BAD_OPTION, "tokens_max %u: only the model's (0 or %u) is served yet", options.tokens_max,
                info.tokens_max);
  }
  if (!(options.near_threshold == 0)) {  // NaN, too
    return Fail(SUTRA_BAD_OPTION, "near_threshold %g: only exact answers (0) are served yet",
                static_cast<double>(options.near_threshold));
  }
  if (options.prompt_name != nullptr) {
    return Fail(SUTRA_BAD_OPTION,
                "prompt_name: the model's prompts are not served yet: NULL, and the prompt in the text");
  }
  if (options.prompt != nullptr) {
    return Fail(SUTRA_BAD_OPTION, "prompt: not served yet: NULL, and the prompt in the text");
  }
  return SUTRA_OK;
}

}  // namespace

sutra_status CheckBatch(const sutra_batch_options* batch, BatchCall* call) {
  sutra_batch_options copy;
  const StructRead read = ReadStruct(batch, kBatchOptionsBytesFirst, &copy, sizeof(copy));
  if (read != StructRead::kOk) return FailStruct("sutra_batch_options", read);
  if (copy.error_texts != nullptr && copy.error_text_bytes == 0) {
    return Fail(SUTRA_BAD_ARGUMENT, "error_text_bytes is 0: each of error_texts needs room for one byte at least");
  }
  call->limits = {.timeout_ns = copy.timeout_ms * kNsPerMs, .progress = copy.progress, .context = copy.context};
  call->error_texts = {.first = copy.error_texts, .bytes = copy.error_text_bytes};
  return SUTRA_OK;
}

sutra_status CheckRequest(const sutra_client* client, const sutra_options* options, Request* request) {
  if (options == nullptr) {  // the common case, on the path of every text
    *request = Request();
    request->cancel_epoch = CancelEpoch(client);
    return SUTRA_OK;
  }
  sutra_options copy;
  const StructRead read = ReadStruct(options, kOptionsBytesFirst, &copy, sizeof(copy));
  if (read != StructRead::kOk) return FailStruct("sutra_options", read);
  if ((copy.flags & ~kFlagsKnown) != 0) {
    return Fail(SUTRA_BAD_OPTION, "unknown option bits 0x%x in flags: the known ones are 0x%x",
                copy.flags & ~kFlagsKnown, kFlagsKnown);
  }
  if ((copy.flags & (SUTRA_NORMALIZE | SUTRA_RAW)) == (SUTRA_NORMALIZE | SUTRA_RAW)) {
    return Fail(SUTRA_BAD_OPTION, "SUTRA_NORMALIZE and SUTRA_RAW exclude each other: set one of them");
  }
  if (copy.width > client->info.width) {
    return Fail(SUTRA_BAD_OPTION, "width %u: the model's vectors have %u floats", copy.width, client->info.width);
  }
  if (copy.priority >= kPriorityCount) {
    return Fail(SUTRA_BAD_OPTION, "priority %u: %u normal, %u query, %u bulk", copy.priority, SUTRA_PRIORITY_NORMAL,
                SUTRA_PRIORITY_QUERY, SUTRA_PRIORITY_BULK);
  }
  if (const sutra_status status = CheckReserved(client, copy); status != SUTRA_OK) return status;
  request->cancel_epoch = CancelEpoch(client);
  request->tag = copy.tag;
  request->timeout_ns = copy.timeout_ms == 0 ? kRequestTimeoutNsDefault : copy.timeout_ms * kNsPerMs;
  request->flags = copy.flags & kOptionsKnown;
  request->fail_fast = (copy.flags & SUTRA_FAIL_FAST) != 0;
  request->width = copy.width;
  request->ttl_s = copy.ttl_s;
  request->priority = copy.priority;
  return SUTRA_OK;
}

sutra_status CheckText(const sutra_client* client, const char* text, size_t text_bytes) {
  if (text_bytes == 0) return Fail(SUTRA_EMPTY_TEXT, "the text has zero bytes");
  if (text == nullptr) return FailNull("text");
  if (text_bytes > client->info.text_bytes_max) {
    return Fail(SUTRA_TEXT_TOO_LONG,
                "a text of %zu bytes: the limit is %u; split it, or attach with a larger "
                "text_bytes_max",
                text_bytes, client->info.text_bytes_max);
  }
  return SUTRA_OK;
}

}  // namespace sutra::client
