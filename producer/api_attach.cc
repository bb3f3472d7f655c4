// sutra_attach, sutra_detach, sutra_get_info, and the checks of what callers pass in.
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <new>

#include "producer/lane_pool.h"

namespace sutra::client {
namespace {

constexpr int kWipeOnFork = 18;  // MADV_WIPEONFORK, spelled out for C libraries that hide it

// A word that reads 1 here and 0 in any forked child, for the price of a load. nullptr if the kernel cannot do it.
const uint32_t* MakeForkDetector() {
  void* page = mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return nullptr;
  if (madvise(page, kPageBytes, kWipeOnFork) != 0) {
    munmap(page, kPageBytes);
    return nullptr;
  }
  auto* word = static_cast<uint32_t*>(page);
  *word = 1;
  return word;
}

void FreeClient(sutra_client* client, bool forked) {
  const uint32_t count = client->lane_count.load(std::memory_order_acquire);  // SYNC C2 (acquire)
  for (uint32_t i = 0; i < count; ++i) {
    DestroyLane(client->lanes[i].load(std::memory_order_relaxed), forked);  // relaxed: ordered by the count
  }
  if (!forked) pthread_mutex_destroy(&client->open_mutex);
  if (client->not_forked != nullptr) munmap(const_cast<uint32_t*>(client->not_forked), kPageBytes);
  client->~sutra_client();
  free(client);
}

sutra_status FillHello(const sutra_attach_options& options, HelloMessage* hello) {
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
  return SUTRA_OK;
}

}  // namespace

sutra_status CheckClient(const sutra_client* client) {
  if (client == nullptr) return FailNull("client");
  return IsForked(client) ? FailForked() : SUTRA_OK;
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

sutra_status CheckRequest(const sutra_client* client, const sutra_options* options, Request* request) {
  if (options == nullptr) {  // the common case, on the way of every text
    *request = {};
    request->timeout_ns = 30 * kNsPerSecond;
    return SUTRA_OK;
  }
  sutra_options copy;
  const StructRead read = ReadStruct(options, kOptionsBytesFirst, &copy, sizeof(copy));
  if (read != StructRead::kOk) return FailStruct("sutra_options", read);
  if ((copy.flags & ~kOptionsKnown) != 0) {
    return Fail(SUTRA_BAD_OPTION, "unknown option bits 0x%x in flags: known are 0x%x", copy.flags & ~kOptionsKnown,
                kOptionsKnown);
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
  request->timeout_ns = copy.timeout_ms == 0 ? 30 * kNsPerSecond : copy.timeout_ms * kNsPerMs;
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
    return Fail(SUTRA_TEXT_TOO_LONG, "a text of %zu bytes: the limit is %u; split it, or attach with a larger "
                "text_bytes_max", text_bytes, client->info.text_bytes_max);
  }
  return SUTRA_OK;
}

}  // namespace sutra::client

using namespace sutra;          // NOLINT: this file only implements the C functions below
using namespace sutra::client;  // NOLINT

extern "C" sutra_status sutra_attach(const char* path, const sutra_attach_options* options, sutra_client** client) {
  if (client == nullptr) return FailNull("client");
  *client = nullptr;
  if (path == nullptr) return FailNull("path");
  sutra_attach_options copy;
  const StructRead read = ReadStruct(options, kAttachOptionsBytesFirst, &copy, sizeof(copy));
  if (read != StructRead::kOk) return FailStruct("sutra_attach_options", read);
  void* memory = calloc(1, sizeof(sutra_client));
  if (memory == nullptr) return Fail(SUTRA_OUT_OF_MEMORY, "no memory for a client");
  sutra_client* made = new (memory) sutra_client();
  pthread_mutex_init(&made->open_mutex, nullptr);
  made->pid = getpid();
  made->not_forked = MakeForkDetector();
  made->lanes_max = copy.lanes_max == 0 ? kLanesDefault : copy.lanes_max < kLanesLimit ? copy.lanes_max : kLanesLimit;
  made->spin_ns = uint64_t{copy.spin_us == 0 ? 30 : copy.spin_us} * 1000;
  made->backoff_ns = kBackoffNsMin;
  sutra_status status = FillHello(copy, &made->hello);
  if (status == SUTRA_OK && strlen(path) >= sizeof(made->path)) {
    status = Fail(SUTRA_REFUSED, "socket path of %zu bytes: the limit is %zu; use a shorter directory", strlen(path),
                  sizeof(made->path) - 1);
  }
  if (status == SUTRA_OK) {
    strcpy(made->path, path);
    status = OpenFirstLane(made, sutra::MonotonicNs() + (copy.timeout_ms == 0 ? 5000 : copy.timeout_ms) * sutra::kNsPerMs);
  }
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
  auto* mutex = const_cast<pthread_mutex_t*>(&client->open_mutex);
  pthread_mutex_lock(mutex);
  const sutra_info copy = client->info;
  pthread_mutex_unlock(mutex);
  WriteStruct(&copy, sizeof(copy), info, bytes);
  return SUTRA_OK;
}
