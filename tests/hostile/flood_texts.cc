// Attacks by texts: too many, too long, of the wrong class, over too many lanes.
#include <unistd.h>
#include <sutra/embed.hpp>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <memory>

#include "tests/hostile/flood_client.h"

namespace sutra::test {
namespace {

std::atomic<bool> stop_asked{false};

// `bytes` bytes that differ in their first bytes, unless they are the "same", "popular" or "invalid"; "invalid-end" is
// invalid in the last byte. "accents" is one word of three-byte letters, the dearest text for a tokenizer that looks
// for accents; "words" is many short words; "spaces" is nothing else.
std::string MakeText(const std::string& kind, size_t bytes, uint64_t number) {
  std::string text = std::to_string(getpid()) + "." + std::to_string(number) + " ";
  if (kind == "popular") {  // what the victim will ask
    text = "query " + std::to_string(number % 200);
  } else if (kind == "same") {
    text = "the same text" + std::string(bytes, 's');
  } else if (kind == "invalid") {
    text = std::string(bytes, '\xff');
  } else if (kind == "invalid-end") {
    text.append(bytes - std::min(bytes, text.size() + 1), 'x');
    text += '\xff';
  } else if (kind == "spaces") {
    text.append(bytes - std::min(bytes, text.size()), ' ');
  } else if (kind == "accents") {
    while (text.size() + 3 <= bytes) text += "\xe1\xb8\x9d";
  } else if (kind == "words") {
    static const char* const kWords[] = {"learn ", "vector ", "storage ", "concept ", "query ", "engine "};
    for (uint64_t i = number; text.size() < bytes; i = i * 1103515245 + 12345) text += kWords[(i >> 16) % 6];
    text.resize(std::max<size_t>(bytes, 1));
  } else if (text.size() < bytes) {
    text.append(bytes - text.size(), 'x');
  }
  return text;
}

// As many clients of one lane each as asked for, or as many as the engine admits.
std::vector<std::unique_ptr<embed::Client>> AttachLanes(const FloodArguments& arguments) {
  sutra_attach_options options = embed::AttachOptions();
  options.lanes_max = 1;
  options.slots = static_cast<uint32_t>(arguments.Number("slots", 256));
  options.text_bytes_max = static_cast<uint32_t>(arguments.Number("text_bytes_max", 0));
  options.client_name = "flood";
  std::vector<std::unique_ptr<embed::Client>> clients;
  const uint64_t lanes = arguments.Number("lanes", 1);
  int refusals = 0;
  while (clients.size() < lanes && refusals < 200) {
    auto client = std::make_unique<embed::Client>();
    const sutra_status status = client->Attach(arguments.socket, options);
    if (status == SUTRA_OK) {
      clients.push_back(std::move(client));
    } else if (status == SUTRA_OVERLOADED) {  // too fast: an attacker can wait
      ++refusals;
      Pause(20'000);
    } else {
      break;
    }
  }
  return clients;
}

sutra_options RequestOptions(const FloodArguments& arguments) {
  sutra_options options = embed::RequestOptions();
  options.priority = static_cast<sutra_priority>(arguments.Number("priority", SUTRA_PRIORITY_BULK));
  if (arguments.Number("store", 0) == 0) options.flags = SUTRA_CACHE_SKIP_STORE;
  options.timeout_ms = static_cast<uint32_t>(arguments.Number("timeout_ms", 90'000));
  return options;
}

}  // namespace

// Says "attached LANES", waits for SIGUSR1 if start=1, queues `texts` texts on each lane, the last of them `last` if
// given, then asks `queries` queries of the same client; says "queued TEXTS"; then, per text that was answered, "TAKEN
// BATCHED" in one line, and "end".
int QueueTexts(const FloodArguments& arguments) {
  const std::vector<std::unique_ptr<embed::Client>> clients = AttachLanes(arguments);
  if (clients.empty()) return kFloodCannotAttach;
  const std::string kind = arguments.Text("kind", "x");
  const size_t bytes = arguments.Number("bytes", 500);
  std::vector<std::string> texts;
  for (uint64_t i = 0; i < arguments.Number("texts", 1) * clients.size(); ++i) {
    texts.push_back(MakeText(kind, bytes, i));
  }
  if (!arguments.Text("last").empty()) texts.back() = arguments.Text("last");
  Say("attached " + std::to_string(clients.size()));
  if (arguments.Number("start", 0) == 1) AwaitStart();
  std::vector<embed::Ticket> tickets;
  for (size_t i = 0; i < texts.size(); ++i) {
    embed::Ticket ticket;
    if (clients[i % clients.size()]->Submit(texts[i], &ticket, RequestOptions(arguments)) != SUTRA_OK) continue;
    tickets.push_back(std::move(ticket));
  }
  for (uint64_t i = 0; i < arguments.Number("queries", 0); ++i) {
    sutra_options query = RequestOptions(arguments);
    query.priority = SUTRA_PRIORITY_QUERY;
    static_cast<void>(clients[0]->Embed(MakeText("x", bytes, texts.size() + i), query));
  }
  Say("queued " + std::to_string(tickets.size()));
  std::string times;
  for (embed::Ticket& ticket : tickets) {
    const sutra_result result = ticket.Wait(90'000);
    times += std::to_string(result.stage_ns[1]) + " " + std::to_string(result.stage_ns[3]) + " ";
    ticket.Release();
  }
  Say(times);
  Say("end");
  return 0;
}

// Says "attached LANES" and "full" when every slot holds a text; at SIGTERM "ok N", "overloaded N", "hinted N".
int FloodTexts(const FloodArguments& arguments) {
  signal(SIGTERM, [](int) { stop_asked.store(true); });
  const std::vector<std::unique_ptr<embed::Client>> clients = AttachLanes(arguments);
  if (clients.empty()) return kFloodCannotAttach;
  Say("attached " + std::to_string(clients.size()));
  const std::string kind = arguments.Text("kind", "x");
  const size_t bytes = arguments.Number("bytes", 20);
  const sutra_options options = RequestOptions(arguments);
  uint64_t ok = 0, overloaded = 0, hinted = 0, number = 0;
  bool full = false;
  while (!stop_asked.load()) {
    for (size_t i = 0; i < clients.size() && !stop_asked.load(); ++i) {
      sutra_result done[64];
      done[0] = embed::Result();
      while (const size_t count = sutra_poll(clients[i]->get(), done, sizeof(sutra_result), 64)) {
        for (size_t j = 0; j < count; ++j) {
          ok += done[j].status == SUTRA_OK;
          overloaded += done[j].status == SUTRA_OVERLOADED;
          hinted += done[j].status == SUTRA_OVERLOADED && done[j].retry_after_ms > 0;
          sutra_release(clients[i]->get(), done[j].ticket);
        }
      }
      std::string text = MakeText(kind, bytes, number++);
      for (sutra_ticket ticket = 0;
           sutra_submit(clients[i]->get(), text.data(), text.size(), &options, &ticket) == SUTRA_OK;) {
        text = MakeText(kind, bytes, number++);
      }
    }
    if (!full) Say("full");
    full = true;
    Pause(500);
  }
  Say("ok " + std::to_string(ok));
  Say("overloaded " + std::to_string(overloaded));
  Say("hinted " + std::to_string(hinted));
  return 0;
}

}  // namespace sutra::test
