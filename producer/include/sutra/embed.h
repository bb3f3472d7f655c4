/* Sutra embedding client: text in, vector out, through lock-free rings shared with a co-located engine process.
 *
 * Thread-safety: a sutra_client may be used by any number of threads at once; a ticket by one thread at a time (any
 * thread), only releases of one ticket may race, and a wait for several tickets with each other's. No thread waits for
 * another's request. A signal neither ends nor lengthens a wait; in a signal handler only sutra_cancel_all. No call is
 * a cancellation point: pthread_cancel ends a thread after its call. (Not supported: asynchronous cancellation, and
 * leaving a call by longjmp.)
 *
 * The library's thread ("sutra-client", one per client, all signals blocked) attaches, watches for the engine's death
 * and moves requests to the next engine, so that no submit, poll or info does or waits for any of it. Exec and exit
 * need no detach before them.
 *
 * Engine death, stop or hand-over: what the engine had answered counts. Requests that it had not answered go on at the
 * next engine at the socket, in the same tickets and calls, until their deadline (embedding twice gives the same
 * vector); each ticket ends once. Calls that wait, wait through it. sutra_submit, which never waits, returns
 * SUTRA_ENGINE_GONE while there is no engine; the event descriptor says when there is one again. An engine of another
 * model identity, width or layout is not the next one: then everything that is left ends with SUTRA_ENGINE_GONE, and
 * sutra_result.reason says why. SUTRA_FAIL_FAST: the request ends with SUTRA_ENGINE_GONE (SUTRA_SHUTTING_DOWN in an
 * orderly stop) instead of moving, and a blocking call with it does not wait for an engine. Vectors delivered in place
 * stay valid. A stopped engine is not dead: requests end with SUTRA_DEADLINE_EXCEEDED at their deadline.
 *
 * Fork: in a child every call with its parent's client returns SUTRA_FORKED (sutra_poll and sutra_free_slots 0,
 * sutra_event_fd -1, sutra_release and sutra_cancel_all nothing), and vectors that were delivered in place are not
 * mapped. Detach and attach in the child.
 *
 * Stale tickets: one that is 0, released, of another client, or kept over detach and attach is SUTRA_BAD_ARGUMENT, and
 * sutra_release does nothing with it. A request ends once: its status never changes after a call returned it.
 *
 * ABI: every structure starts with `size`, which the caller sets to sizeof before the call, in structures that the
 * library writes too. A caller may be older than the library (no byte beyond `size` is read or written) or newer (what
 * the library does not know is zeroed in results; in options it must be zero, else SUTRA_BAD_OPTION).
 * SUTRA_BAD_ARGUMENT: a size below the first version's or over 4096, or NULL where the call does not say that it may
 * be. Options that this version does not serve yet are SUTRA_BAD_OPTION, and sutra_error_text names them. Needs libc
 * only; keeps no descriptor below 3. C11 and C++17. */
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

/* Enumerations are uint32_t with named constants: the size of a C enum is its compiler's choice, and a newer library
 * may return a number that an older header's enum does not have. Numbers are never reused. */
typedef uint32_t sutra_status; /* treat an unknown number as SUTRA_MODEL_ERROR */
#define SUTRA_OK 0u
#define SUTRA_NOT_READY 1u  /* the wait timed out; the ticket stays valid */
#define SUTRA_FULL 2u       /* no free slot: release tickets or attach with more slots */
#define SUTRA_OVERLOADED 3u /* the engine refuses work for now: submit again after retry_after_ms */
#define SUTRA_EMPTY_TEXT 4u /* zero bytes; NUL is an ordinary character */
#define SUTRA_INVALID_UTF8 5u
#define SUTRA_TEXT_TOO_LONG 6u /* over sutra_info.text_bytes_max, or over tokens_max with SUTRA_REJECT */
#define SUTRA_BAD_OPTION 7u    /* unknown option bit, or a width the model does not have */
#define SUTRA_DEADLINE_EXCEEDED 8u
#define SUTRA_CANCELLED 9u
#define SUTRA_ENGINE_GONE 10u   /* died, or came back as another model or layout */
#define SUTRA_SHUTTING_DOWN 11u /* draining: attach again soon */
#define SUTRA_MODEL_ERROR 12u
#define SUTRA_STORAGE_ERROR 13u
#define SUTRA_REFUSED 14u /* permission, quota or version; sutra_error_text says which */
#define SUTRA_PROTOCOL_VIOLATION 15u
#define SUTRA_OUT_OF_MEMORY 16u
#define SUTRA_FORKED 17u
#define SUTRA_BAD_ARGUMENT 18u /* NULL where a pointer is needed, a size that is not set, or a stale ticket */

/* sutra_options.flags */
#define SUTRA_NORMALIZE 0x01u         /* unit length (default: as the model's card says) */
#define SUTRA_RAW 0x02u               /* pooled, not normalised */
#define SUTRA_REJECT 0x04u            /* SUTRA_TEXT_TOO_LONG instead of truncating at tokens_max */
#define SUTRA_CACHE_SKIP_LOOKUP 0x08u /* compute even if cached */
#define SUTRA_CACHE_SKIP_STORE 0x10u
#define SUTRA_FAIL_FAST 0x20u /* end with the engine instead of moving to the next one */

typedef uint32_t sutra_priority;
#define SUTRA_PRIORITY_NORMAL 0u
#define SUTRA_PRIORITY_QUERY 1u /* served first */
#define SUTRA_PRIORITY_BULK 2u  /* served last */

typedef uint32_t sutra_source; /* treat an unknown number as SUTRA_SOURCE_NONE */
#define SUTRA_SOURCE_NONE 0u
#define SUTRA_SOURCE_HOT_TABLE 1u /* read by this client itself, from memory that the engine shares */
#define SUTRA_SOURCE_SHARD 2u     /* the engine's cache */
#define SUTRA_SOURCE_JOINED 3u    /* shared the computation of another request */
#define SUTRA_SOURCE_MODEL 4u

typedef uint32_t sutra_data_type; /* of a vector's elements */
#define SUTRA_DATA_F32 0u
#define SUTRA_DATA_F16 1u    /* not served yet */
#define SUTRA_DATA_INT8 2u   /* not served yet */
#define SUTRA_DATA_BINARY 3u /* not served yet: one bit per dimension */

typedef uint32_t sutra_truncate_side; /* what is cut off a text that is too long */
#define SUTRA_TRUNCATE_END 0u
#define SUTRA_TRUNCATE_START 1u /* not served yet */

typedef uint32_t sutra_reason; /* with SUTRA_ENGINE_GONE; treat an unknown number as SUTRA_REASON_NONE */
#define SUTRA_REASON_NONE 0u
#define SUTRA_REASON_DIED 1u           /* with SUTRA_FAIL_FAST; every other request goes on at the next engine */
#define SUTRA_REASON_OTHER_LAYOUT 2u   /* the next engine needs another client library, or takes only shorter texts */
#define SUTRA_REASON_OTHER_IDENTITY 3u /* the next engine serves another model: detach and attach to accept it */

typedef struct sutra_client sutra_client;
typedef uint64_t sutra_ticket; /* 0 is never a ticket */

typedef struct sutra_attach_options { /* zero = default, but for spin_us */
  uint32_t size;
  uint32_t slots;          /* per lane, a power of two; default: the engine's (256) */
  uint32_t lanes_max;      /* lanes the client may open as threads need them, default 4 */
  uint32_t width;          /* refuse an engine whose vectors have another width */
  uint32_t text_bytes_max; /* of one text; default: the engine's (16 MiB) */
  uint32_t timeout_ms;     /* of the attach, default 5000 */
  uint32_t spin_us;        /* spin for so long before sleeping in a wait; 0 = never spin; see also sutra_event_fd */
  uint32_t reserved;       /* zero */
  const char* model;       /* refuse an engine that serves another model (name or identity prefix); NULL = any */
  const char* client_name; /* shown to the operator; may be NULL */
} sutra_attach_options;
/* The defaults, also those that are not zero: what NULL instead of options stands for. */
#define SUTRA_SPIN_US_DEFAULT 30u
#define SUTRA_ATTACH_OPTIONS_INIT \
  { sizeof(sutra_attach_options), 0, 0, 0, 0, 0, SUTRA_SPIN_US_DEFAULT, 0, NULL, NULL }

typedef struct sutra_info {
  uint32_t size;
  uint32_t width;      /* floats per vector */
  uint32_t tokens_max; /* of one text, special tokens included */
  uint32_t text_bytes_max;
  uint32_t slots;      /* per lane */
  uint32_t normalizes; /* 1 = vectors have unit length by default */
  uint32_t engine_pid; /* for display */
  uint32_t reserved;
  uint64_t engine_generation;
  char model[128];
  char identity[72];    /* 64 hex digits: weights, tokenizer, configuration, precision, device class */
  uint32_t lanes;       /* open now; 0 = there is no engine now */
  uint32_t engines;     /* that this client was attached to, one after another */
  uint64_t resubmitted; /* requests that went on at the next engine */
} sutra_info;

typedef struct sutra_options { /* of a request; zero = default */
  uint32_t size;
  uint32_t flags;
  uint32_t width; /* 0 = the model's */
  uint32_t ttl_s; /* 0 = the engine's default (24 h) */
  sutra_priority priority;
  uint32_t timeout_ms; /* deadline from now; 0 = 30 s */
  uint64_t tag;        /* the caller's, returned in the result */
  sutra_data_type data_type;
  sutra_truncate_side truncate_side;
  uint32_t tokens_max;     /* of this text; 0 = the model's; others are not served yet */
  float near_threshold;    /* a cosine: a cached text that is as near will do; 0 = exact answers only; not served yet */
  const char* model;       /* name or identity prefix; NULL = the client's; others are not served yet */
  const char* prompt_name; /* of the model's prompts; not served yet */
  const char* prompt;      /* put before the text; not served yet */
} sutra_options;

typedef struct sutra_result {
  uint32_t size;
  sutra_status status;
  sutra_source source;
  uint32_t width;      /* floats at vector */
  const float* vector; /* in place, read-only, 64-byte aligned; valid until sutra_release; NULL unless SUTRA_OK */
  uint32_t token_count;
  uint32_t truncated; /* 1 = only the first tokens_max tokens were used */
  uint64_t tag;
  uint64_t stage_ns[6];    /* submitted, taken, tokenised, batched, computed, published; 0 = not passed */
  uint32_t retry_after_ms; /* SUTRA_OVERLOADED: submit again after so long; 0 = unknown */
  sutra_reason reason;     /* SUTRA_ENGINE_GONE: why */
  sutra_ticket ticket;     /* 0 in results of the blocking calls */
  const void* data;        /* the vector in data_type; for SUTRA_DATA_F32 the same as vector */
  sutra_data_type data_type;
  uint32_t bytes;       /* at data */
  uint32_t approximate; /* 1 = of a near text (near_threshold), not of this one */
  float cosine;         /* of an approximate answer: how near */
  uint64_t match_id;    /* of an approximate answer: which entry of the cache */
} sutra_result;

typedef struct sutra_batch_options { /* of a blocking batch; zero = default */
  uint32_t size;
  uint32_t timeout_ms; /* of the whole call; 0 = none but the texts' own */
  /* Called on the calling thread, at most every 100 ms and once at the end, with the number of texts that are done.
   * Nonzero stops the batch: the texts that are left end with SUTRA_CANCELLED, and it is not called again, not even at
   * the end. Must not call sutra_detach. */
  int (*progress)(void* context, size_t done, size_t count);
  void* context;
  char* error_texts; /* count texts of error_text_bytes each: NUL-terminated, cut where too long, "" if ok */
  size_t error_text_bytes;
} sutra_batch_options;

/* Attaches to the engine at the Unix socket `path`; `options` may be NULL. RETURNS SUTRA_OK and *client, otherwise
 * *client is NULL: SUTRA_ENGINE_GONE when nothing listens there or the engine dies meanwhile, SUTRA_REFUSED,
 * SUTRA_OVERLOADED, SUTRA_SHUTTING_DOWN, SUTRA_OUT_OF_MEMORY, SUTRA_DEADLINE_EXCEEDED, SUTRA_BAD_OPTION. */
SUTRA_API sutra_status sutra_attach(const char* path, const sutra_attach_options* options, sutra_client** client);
/* REQUIRES: no other thread is in a call with `client` (may be NULL), and none uses it afterwards: a second detach is
 * undefined. Outstanding tickets end; vectors and the event descriptor become invalid. The same after fork (frees the
 * child's copy) and after the engine's death. */
SUTRA_API void sutra_detach(sutra_client* client);
/* RETURNS SUTRA_OK and *info, also after the engine's death: then of the engine that was attached last. */
SUTRA_API sutra_status sutra_get_info(const sutra_client* client, sutra_info* info);

/* Submits one text: copies it, never attaches or blocks. `options` may be NULL. RETURNS SUTRA_OK and *ticket, or (no
 * ticket then) SUTRA_FULL: no free slot, or no room for a long text; the library's thread may open another lane, up to
 * lanes_max; SUTRA_TEXT_TOO_LONG, SUTRA_EMPTY_TEXT, SUTRA_BAD_OPTION, SUTRA_OUT_OF_MEMORY, SUTRA_ENGINE_GONE and
 * SUTRA_SHUTTING_DOWN while there is no engine, SUTRA_FORKED. */
SUTRA_API sutra_status sutra_submit(sutra_client* client, const char* text, size_t text_bytes,
                                    const sutra_options* options, sutra_ticket* ticket);
/* Submits as many texts as there are free slots, with one doorbell; *submitted says how many (tickets[0..*submitted)).
 * RETURNS the status of the first text that was not taken, or SUTRA_OK. */
SUTRA_API sutra_status sutra_submit_many(sutra_client* client, const char* const* texts, const size_t* text_bytes,
                                         size_t count, const sutra_options* options, sutra_ticket* tickets,
                                         size_t* submitted);
/* RETURNS how many texts a submit would take now, if they are short; other threads may take them first. 0 also for a
 * bad argument and while there is no engine. */
SUTRA_API size_t sutra_free_slots(sutra_client* client);

/* Waits up to timeout_ms (0 = check once) for a ticket; `result` may be NULL. RETURNS SUTRA_NOT_READY (the ticket
 * stays valid, and the result has its tag and nothing else), otherwise the ticket's final status, also in
 * result->status. SUTRA_BAD_ARGUMENT for a stale ticket. The ticket holds its slot until sutra_release. */
SUTRA_API sutra_status sutra_wait(sutra_client* client, sutra_ticket ticket, uint32_t timeout_ms, sutra_result* result);
/* Waits until one of `count` tickets is done; a ticket that was reported before is done at once. RETURNS SUTRA_OK,
 * *index and, unless NULL, *result, whose status is the ticket's; SUTRA_NOT_READY when the time is over;
 * SUTRA_BAD_ARGUMENT if any of them is stale or count is 0. */
SUTRA_API sutra_status sutra_wait_any(sutra_client* client, const sutra_ticket* tickets, size_t count,
                                      uint32_t timeout_ms, size_t* index, sutra_result* result);
/* Waits until all of `count` tickets are done. `results` (may be NULL) as in sutra_embed_batch, written for every
 * ticket, also at a time-out. RETURNS SUTRA_OK if all ended with it; SUTRA_NOT_READY if one is not done when the time
 * is over; else the status of the first that failed. SUTRA_BAD_ARGUMENT if any of them is stale. */
SUTRA_API sutra_status sutra_wait_all(sutra_client* client, const sutra_ticket* tickets, size_t count,
                                      uint32_t timeout_ms, sutra_result* results, size_t result_stride);
/* If the ticket is done: copies its vector to `vector`, which has room for vector_floats, and releases it. RETURNS what
 * sutra_wait with timeout 0 would; result->vector (`result` may be NULL) is `vector` then. Unless it is
 * SUTRA_NOT_READY or SUTRA_BAD_ARGUMENT (a stale ticket, or not enough room), the ticket is released. */
SUTRA_API sutra_status sutra_take(sutra_client* client, sutra_ticket ticket, float* vector, size_t vector_floats,
                                  sutra_result* result);

/* Reports up to `count` tickets of this client that are done and were not reported before, by a wait or here, as
 * results with ticket, tag, status and vector in place, result_stride bytes apart (results[0].size is the size of each
 * and is written to all); never blocks. Only tickets that a submit returned, or is about to return on another thread;
 * the blocking calls have none. RETURNS how many; 0 for a bad argument. As many as `count`: there may be more, so poll
 * again. */
SUTRA_API size_t sutra_poll(sutra_client* client, sutra_result* results, size_t result_stride, size_t count);
/* A descriptor for event loops (epoll, tokio's AsyncFd), the same one until sutra_detach; owned by the client, only to
 * be waited for. It becomes readable when tickets of any lane may be done, by answers, at a deadline or by
 * sutra_cancel_all; when the engine died or the next one is attached; and when there is room again after SUTRA_FULL, or
 * an engine after SUTRA_ENGINE_GONE or SUTRA_SHUTTING_DOWN, until the thread that was told so, or one that polls,
 * submits again (sutra_submit_many with no texts does for a caller who dropped them). After it, and once before the
 * first wait, call sutra_poll until it returns fewer than it had room for: that arms the descriptor, which otherwise
 * stays readable. It also stays readable for spin_us after an answer, unless that never pays off, so that a caller who
 * polls in a loop costs the engine no system call per answer. RETURNS -1 without descriptors or for a bad argument. */
SUTRA_API int sutra_event_fd(sutra_client* client);

/* A hint: the engine may still answer. The ticket still has to be released. SUTRA_BAD_ARGUMENT for a stale ticket.
 * Without an engine the ticket ends with SUTRA_CANCELLED at once. */
SUTRA_API sutra_status sutra_cancel(sutra_client* client, sutra_ticket ticket);
/* Ends with SUTRA_CANCELLED every ticket that was submitted before this call and is not done, and every blocking call
 * under way: at once, whatever the engine does; tickets still have to be released. From any thread and from a signal
 * handler: takes no lock, allocates nothing, keeps errno. Waits that other threads are in end within milliseconds. */
SUTRA_API void sutra_cancel_all(sutra_client* client);
/* Ends the ticket; its vector becomes invalid; an unfinished request is cancelled and its slot returns when answered.
 * `client` may be NULL. Does nothing with a stale ticket. A dead engine's memory goes with the last ticket that had
 * been submitted to it. */
SUTRA_API void sutra_release(sutra_client* client, sutra_ticket ticket);

/* Submit, wait, copy `width` floats to `vector`, release. `options` and `result` may be NULL; result->vector is
 * `vector`. Waits for a free slot and, without SUTRA_FAIL_FAST, for an engine, until the deadline. RETURNS what
 * sutra_submit or sutra_wait would. */
SUTRA_API sutra_status sutra_embed(sutra_client* client, const char* text, size_t text_bytes,
                                   const sutra_options* options, float* vector, sutra_result* result);
/* Any number of texts, pipelined through the slots: vectors[i * width] and results[i] in the order of the texts, one
 * status per text. `options`, `batch` and `results` may be NULL, and every array if count is 0. Results lie
 * result_stride bytes apart, usually sizeof(sutra_result); results[0].size is the size of each and is written to all.
 * RETURNS SUTRA_OK if every text got SUTRA_OK, else the status of the first text that failed, which sutra_error_text
 * explains; vectors of failed texts are left alone. A text's deadline counts from its submission; while there is no
 * engine, from the last answer. */
SUTRA_API sutra_status sutra_embed_batch(sutra_client* client, const char* const* texts, const size_t* text_bytes,
                                         size_t count, const sutra_options* options, const sutra_batch_options* batch,
                                         float* vectors, sutra_result* results, size_t result_stride);

/* SUTRA_ABI_VERSION of the library that runs. */
SUTRA_API uint32_t sutra_abi_version(void);
SUTRA_API const char* sutra_status_text(sutra_status status);
/* The last failure's explanation for this thread (never NULL): cause and fix, e.g. the two layout versions. */
SUTRA_API const char* sutra_error_text(void);

#ifdef __cplusplus
}
#endif
#endif
