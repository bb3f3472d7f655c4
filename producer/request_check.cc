#include "producer/request_check.h"

#include <string.h>

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

sutra_status CheckRequest(const sutra_client* client, const sutra_options* options, Request* request) {
  if (options == nullptr) {  // the common case, on the path of every text
    *request = Request();
    return SUTRA_OK;
  }
  sutra_options copy;
  const StructRead read = ReadStruct(options, kOptionsBytesFirst, &copy, sizeof(copy));
  if (read != StructRead::kOk) return FailStruct("sutra_options", read);
  if ((copy.flags & ~kOptionsKnown) != 0) {
    return Fail(SUTRA_BAD_OPTION, "unknown option bits 0x%x in flags: the known ones are 0x%x",
                copy.flags & ~kOptionsKnown, kOptionsKnown);
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
  request->tag = copy.tag;
  request->timeout_ns = copy.timeout_ms == 0 ? kRequestTimeoutNsDefault : copy.timeout_ms * kNsPerMs;
  request->flags = copy.flags;
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
