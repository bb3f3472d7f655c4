// embed.h and embed.hpp must be plain C++17; compiled with -std=c++17 -pedantic-errors and warnings as errors.
#include "sutra/embed.hpp"

static_assert(__cplusplus == 201703L, "this file shows that C++17 suffices");
static_assert(std::is_same_v<sutra_status, uint32_t> && std::is_same_v<sutra_source, uint32_t> &&
              std::is_same_v<sutra_priority, uint32_t>);

const char* HeaderCxx17() {
  sutra::embed::Client client;
  const sutra::embed::Embedding none = client.Embed("text");
  return sutra_status_text(none.status);
}
