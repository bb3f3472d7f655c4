/* FROZEN: the structures of the first version of embed.h, as programs were compiled that have shorter ones, and the
 * functions whose signatures have not changed since. Never edit it: it stands for programs that are in use. */
#ifndef SUTRA_EMBED_H
#define SUTRA_EMBED_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SUTRA_ABI_VERSION 1
#if defined(__GNUC__)
#define SUTRA_API __attribute__((visibility("default")))
#else
#define SUTRA_API
#endif

typedef uint32_t sutra_status;
#define SUTRA_OK 0u
#define SUTRA_NOT_READY 1u
#define SUTRA_FULL 2u
#define SUTRA_OVERLOADED 3u
#define SUTRA_EMPTY_TEXT 4u
#define SUTRA_INVALID_UTF8 5u
#define SUTRA_TEXT_TOO_LONG 6u
#define SUTRA_BAD_OPTION 7u
#define SUTRA_DEADLINE_EXCEEDED 8u
#define SUTRA_CANCELLED 9u
#define SUTRA_ENGINE_GONE 10u
#define SUTRA_SHUTTING_DOWN 11u
#define SUTRA_MODEL_ERROR 12u
#define SUTRA_STORAGE_ERROR 13u
#define SUTRA_REFUSED 14u
#define SUTRA_PROTOCOL_VIOLATION 15u
#define SUTRA_OUT_OF_MEMORY 16u
#define SUTRA_FORKED 17u
#define SUTRA_BAD_ARGUMENT 18u

#define SUTRA_NORMALIZE 0x01u
#define SUTRA_RAW 0x02u
#define SUTRA_REJECT 0x04u
#define SUTRA_CACHE_SKIP_LOOKUP 0x08u
#define SUTRA_CACHE_SKIP_STORE 0x10u

typedef uint32_t sutra_priority;
#define SUTRA_PRIORITY_NORMAL 0u
#define SUTRA_PRIORITY_QUERY 1u
#define SUTRA_PRIORITY_BULK 2u

typedef uint32_t sutra_source;
#define SUTRA_SOURCE_NONE 0u
#define SUTRA_SOURCE_HOT_TABLE 1u
#define SUTRA_SOURCE_SHARD 2u
#define SUTRA_SOURCE_JOINED 3u
#define SUTRA_SOURCE_MODEL 4u

typedef struct sutra_client sutra_client;
typedef uint64_t sutra_ticket;

typedef struct sutra_attach_options {
  uint32_t size;
  uint32_t slots;
  uint32_t lanes_max;
  uint32_t width;
  uint32_t text_bytes_max;
  uint32_t timeout_ms;
  uint32_t spin_us;
  uint32_t reserved;
  const char* model;
  const char* client_name;
} sutra_attach_options;

typedef struct sutra_info {
  uint32_t size;
  uint32_t width;
  uint32_t tokens_max;
  uint32_t text_bytes_max;
  uint32_t slots;
  uint32_t normalizes;
  uint32_t engine_pid;
  uint32_t reserved;
  uint64_t engine_generation;
  char model[128];
  char identity[72];
} sutra_info;

typedef struct sutra_options {
  uint32_t size;
  uint32_t flags;
  uint32_t width;
  uint32_t ttl_s;
  sutra_priority priority;
  uint32_t timeout_ms;
  uint64_t tag;
} sutra_options;

typedef struct sutra_result {
  uint32_t size;
  sutra_status status;
  sutra_source source;
  uint32_t width;
  const float* vector;
  uint32_t token_count;
  uint32_t truncated;
  uint64_t tag;
  uint64_t stage_ns[6];
  uint32_t retry_after_ms;
  uint32_t reserved;
} sutra_result;

SUTRA_API sutra_status sutra_attach(const char* path, const sutra_attach_options* options, sutra_client** client);

SUTRA_API void sutra_detach(sutra_client* client);

SUTRA_API sutra_status sutra_get_info(const sutra_client* client, sutra_info* info);

SUTRA_API sutra_status sutra_submit(sutra_client* client, const char* text, size_t text_bytes,
                                    const sutra_options* options, sutra_ticket* ticket);

SUTRA_API sutra_status sutra_submit_many(sutra_client* client, const char* const* texts, const size_t* text_bytes,
                                         size_t count, const sutra_options* options, sutra_ticket* tickets,
                                         size_t* submitted);

SUTRA_API sutra_status sutra_wait(sutra_client* client, sutra_ticket ticket, uint32_t timeout_ms, sutra_result* result);

SUTRA_API int sutra_event_fd(sutra_client* client);

SUTRA_API sutra_status sutra_cancel(sutra_client* client, sutra_ticket ticket);

SUTRA_API void sutra_release(sutra_client* client, sutra_ticket ticket);

SUTRA_API sutra_status sutra_embed(sutra_client* client, const char* text, size_t text_bytes,
                                   const sutra_options* options, float* vector, sutra_result* result);

SUTRA_API const char* sutra_status_text(sutra_status status);

SUTRA_API const char* sutra_error_text(void);

#ifdef __cplusplus
}
#endif
#endif
