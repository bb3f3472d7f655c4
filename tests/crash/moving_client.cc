// A client with requests of every kind under way, to be moved from engine to engine:
//   sutra-moving-client SOCKET COUNT FLAGS
// Submits COUNT texts as tickets and embeds as many in a blocking batch, says "submitted", waits for all of them,
// embeds one more, and says "right". FLAGS are sutra_options.flags. Exit codes: 2 usage; 3 a wrong answer; 4 a status
// that may not happen here; 5 cannot attach.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "tests/system/test_client.h"

namespace sutra::test {
namespace {

constexpr uint32_t kTimeoutMs = 120'000;  // of each text: longer than any restart

int Check(const Reply& reply, const std::string& text) {
  const std::string wrong = WhatIsWrong(reply, text);
  if (wrong.empty()) return 0;
  return Complain(reply.status == SUTRA_OK ? kWrongAnswer : kBadStatus, text + ": " + wrong);
}

int WaitFor(sutra_client* client, sutra_ticket ticket, const std::string& text) {
  sutra_result result = embed::Result();
  Reply reply;
  reply.status = sutra_wait(client, ticket, kTimeoutMs, &result);
  reply.source = result.source;
  if (reply.status == SUTRA_OK) reply.vector.assign(result.vector, result.vector + result.width);
  sutra_release(client, ticket);
  return Check(reply, text);
}

int Run(const std::string& socket, size_t count, uint32_t flags) {
  ClientHandle client;
  if (client.Attach(socket) != SUTRA_OK) return Complain(kCannotAttach, sutra_error_text());
  const sutra_options options = ClientHandle::RequestOptions(flags, kTimeoutMs);
  // Of this process alone: a text that is in the cache is answered before anything dies.
  const std::string own = " of " + std::to_string(getpid());
  const std::vector<std::string> texts = NumberedTexts("a ticket that moves" + own, count);
  std::vector<sutra_ticket> tickets(count);
  for (size_t i = 0; i < count; ++i) {
    const sutra_status status = sutra_submit(client.get(), texts[i].data(), texts[i].size(), &options, &tickets[i]);
    if (status != SUTRA_OK) return Complain(kBadStatus, sutra_status_text(status));
  }
  int batch_code = 0;
  std::thread batch([&] {
    // Some are longer than a slot's head: they move through the tail file.
    std::vector<std::string> in_batch = NumberedTexts("a batch that moves" + own, count);
    for (size_t i = 0; i < count; i += 4) in_batch[i].resize(600, 'l');
    const std::vector<Reply> replies = client.EmbedBatch(in_batch, nullptr, options);
    for (size_t i = 0; i < count && batch_code == 0; ++i) batch_code = Check(replies[i], in_batch[i]);
  });
  Say("submitted");
  int code = 0;
  for (size_t i = 0; i < count; ++i) {
    const int of_this = WaitFor(client.get(), tickets[i], texts[i]);
    if (code == 0) code = of_this;
  }
  batch.join();
  if (code == 0) code = batch_code;
  const std::string last = "after the move";
  if (code == 0) code = Check(client.Embed(last, options), last);
  if (code == 0) Say("right");
  return code;
}

}  // namespace
}  // namespace sutra::test

int main(int argc, char** argv) {
  if (argc != 4) return sutra::test::kUsage;
  return sutra::test::Run(argv[1], std::strtoull(argv[2], nullptr, 10),
                          static_cast<uint32_t>(std::strtoul(argv[3], nullptr, 0)));
}
