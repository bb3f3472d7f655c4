// sutra_poll for tests that want the tickets alone.
// Thread rule: as sutra_poll.
#pragma once

#include <cstddef>
#include <vector>

#include "producer/include/sutra/embed.hpp"

namespace sutra::test {

inline size_t PollTickets(sutra_client* client, sutra_ticket* tickets, size_t count) {
  std::vector<sutra_result> results(count, embed::Result());
  const size_t found = sutra_poll(client, results.data(), sizeof(sutra_result), count);
  for (size_t i = 0; i < found; ++i) tickets[i] = results[i].ticket;
  return found;
}

}  // namespace sutra::test
