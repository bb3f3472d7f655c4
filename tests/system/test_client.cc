// A client process for the tests, one duty per run:
//   attach                 attaches, reports it, waits for a signal
//   hold     --count N     submits N texts, reports it, never takes an answer
//   stream   --count N     embeds N texts in batches and checks every vector; N = 0: until SIGTERM
//   ingest   --count N --bytes B [--query 1]   keeps N texts of class bulk waiting, after one query if asked, until
//   SIGTERM cycle                  attaches, embeds one text, detaches; repeats until killed scan     --canary1 A
//   --canary2 B   embeds, then looks for the text AB in all shared memory of this process chaos chaos_client.cc
// Exit codes: 0 all answers correct; 2 usage; 3 a wrong answer; 4 a status that may not happen here; 5 cannot attach.
// `--corrupt N` damages every N-th vector before the check: the canary of every harness that uses this program.
#include "tests/system/test_client.h"
#include "tests/kit/poll_tickets.h"

#include <poll.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <random>

namespace sutra::test {

std::atomic<int> stop_asked = 0;

namespace {

int Attach(const Arguments& arguments, ClientHandle* client) {
  if (client->Attach(arguments.Text("socket")) == SUTRA_OK) return 0;
  return Complain(kCannotAttach, sutra_error_text());
}

int WaitForSignal() {
  while (stop_asked == 0) poll(nullptr, 0, 100);
  return 0;
}

int RunAttach(const Arguments& arguments) {
  ClientHandle client;
  if (const int code = Attach(arguments, &client); code != 0) return code;
  Say("attached");
  return WaitForSignal();
}

int RunHold(const Arguments& arguments) {
  ClientHandle client;
  if (const int code = Attach(arguments, &client); code != 0) return code;
  const std::vector<std::string> texts = NumberedTexts("held " + arguments.Text("seed"), arguments.Number("count", 10));
  for (const std::string& text : texts) {
    sutra_ticket ticket = 0;
    const sutra_status status = sutra_submit(client.get(), text.data(), text.size(), nullptr, &ticket);
    if (status != SUTRA_OK) return Complain(kBadStatus, sutra_status_text(status));
  }
  Say("submitted");
  return WaitForSignal();
}

int RunStream(const Arguments& arguments) {
  ClientHandle client;
  if (const int code = Attach(arguments, &client); code != 0) return code;
  std::mt19937_64 random(arguments.Number("seed", 1));
  Corruptor corruptor(arguments.Number("corrupt", 0));
  const uint64_t count = arguments.Number("count", 0);
  const uint64_t batch_max = arguments.Number("batch", 32);
  Say("attached");
  std::vector<std::string> known;
  for (uint64_t done = 0; stop_asked == 0 && (count == 0 || done < count);) {
    std::vector<std::string> texts;
    for (uint64_t size = 1 + random() % batch_max; texts.size() < size;) {
      const bool again = !known.empty() && random() % 2 == 0;
      texts.push_back(again ? known[random() % known.size()] : RandomText(random));
      if (known.size() < 500) known.push_back(texts.back());
    }
    std::vector<Reply> replies = client.EmbedBatch(texts);
    for (size_t i = 0; i < texts.size(); ++i) {
      corruptor.Pass(&replies[i]);
      if (const std::string wrong = WhatIsWrong(replies[i], texts[i]); !wrong.empty()) {
        return Complain(replies[i].status == SUTRA_OK ? kWrongAnswer : kBadStatus,
                        "text " + std::to_string(done + i) + ": " + wrong);
      }
    }
    done += texts.size();
    if (done / 1000 != (done - texts.size()) / 1000) Say("done " + std::to_string(done));
  }
  Say("right");
  return 0;
}

// Whatever is answered, or refused, is replaced by another text.
int RunIngest(const Arguments& arguments) {
  sutra_attach_options options = ClientHandle::DefaultOptions();
  options.slots = 4096;
  options.lanes_max = 1;
  ClientHandle client;
  if (client.Attach(arguments.Text("socket"), options) != SUTRA_OK) return Complain(kCannotAttach, sutra_error_text());
  sutra_options bulk = ClientHandle::RequestOptions(0, 60'000), query = bulk;
  bulk.priority = SUTRA_PRIORITY_BULK;
  query.priority = SUTRA_PRIORITY_QUERY;
  uint64_t number = 0, waiting = 0;
  const auto submit = [&] {
    std::string text = "ingest " + std::to_string(getpid()) + " " + std::to_string(number++) + " ";
    text.resize(std::max<size_t>(text.size(), arguments.Number("bytes", 32)), 'x');
    sutra_ticket ticket = 0;
    const bool submitted = sutra_submit(client.get(), text.data(), text.size(), &bulk, &ticket) == SUTRA_OK;
    waiting += submitted;
    return submitted;
  };
  const uint64_t count = arguments.Number("count", 1000);
  while (waiting < count) {
    if (!submit()) poll(nullptr, 0, 1);
  }
  if (arguments.Number("query", 0) != 0) {
    const Reply reply = client.Embed("the ingest's query", query);
    if (reply.status != SUTRA_OK) return Complain(kBadStatus, sutra_status_text(reply.status));
  }
  Say("ingesting");
  while (stop_asked == 0) {
    sutra_ticket done[64];
    const size_t found = PollTickets(client.get(), done, 64);
    for (size_t i = 0; i < found; ++i) sutra_release(client.get(), done[i]);
    waiting -= found;
    while (waiting < count && submit()) {
    }
    if (found == 0) poll(nullptr, 0, 1);
  }
  return 0;
}

int RunCycle(const Arguments& arguments) {
  Say("cycling");
  for (uint64_t round = 0; stop_asked == 0; ++round) {
    ClientHandle client;
    if (const int code = Attach(arguments, &client); code != 0) return code;
    const std::string text = "cycle " + std::to_string(round % 8);
    const Reply reply = client.Embed(text);
    if (const std::string wrong = WhatIsWrong(reply, text); !wrong.empty()) return Complain(kWrongAnswer, wrong);
  }
  return 0;
}

// What a client can read of the engine's and of others' memory: the shared files that this process has mapped. The text
// is given in two halves, so that only the client that it belongs to has the whole text in memory.
int RunScan(const Arguments& arguments) {
  ClientHandle client;
  if (const int code = Attach(arguments, &client); code != 0) return code;
  // Through the lane, where the scan must be able to see it, whether or not it is in the hot table.
  const Reply reply = client.Embed("a harmless text", ClientHandle::RequestOptions(SUTRA_CACHE_SKIP_LOOKUP));
  if (reply.status != SUTRA_OK) return Complain(kBadStatus, sutra_status_text(reply.status));
  const std::string half1 = arguments.Text("canary1"), half2 = arguments.Text("canary2");
  std::ifstream maps("/proc/self/maps");
  uint64_t shared_bytes = 0;
  for (std::string line; std::getline(maps, line);) {
    if (line.find("memfd:") == std::string::npos) continue;
    unsigned long begin = 0, end = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx", &begin, &end) != 2 || line.find(" r") == std::string::npos) continue;
    const char* base = reinterpret_cast<const char*>(begin);
    const size_t size = end - begin;
    shared_bytes += size;
    const char* at = base;
    while (true) {
      at = static_cast<const char*>(memmem(at, size - static_cast<size_t>(at - base), half1.data(), half1.size()));
      if (at == nullptr) break;
      at += half1.size();
      const size_t left = size - static_cast<size_t>(at - base);
      if (left >= half2.size() && std::memcmp(at, half2.data(), half2.size()) == 0) {
        return Complain(kWrongAnswer, "another client's text is readable in " + line);
      }
    }
  }
  if (shared_bytes == 0) return Complain(kBadStatus, "no shared memory found: the scan saw nothing");
  Say("nothing found in " + std::to_string(shared_bytes) + " bytes");
  return 0;
}

int Run(const Arguments& arguments) {
  if (arguments.duty == "attach") return RunAttach(arguments);
  if (arguments.duty == "hold") return RunHold(arguments);
  if (arguments.duty == "stream") return RunStream(arguments);
  if (arguments.duty == "ingest") return RunIngest(arguments);
  if (arguments.duty == "cycle") return RunCycle(arguments);
  if (arguments.duty == "scan") return RunScan(arguments);
  if (arguments.duty == "chaos") return RunChaos(arguments);
  return Complain(kUsage, "unknown duty '" + arguments.duty + "'");
}

}  // namespace
}  // namespace sutra::test

int main(int argc, char** argv) {
  struct sigaction action = {};
  action.sa_handler = [](int) { sutra::test::stop_asked = 1; };
  sigaction(SIGTERM, &action, nullptr);
  sutra::test::Arguments arguments;
  if (argc > 1) arguments.duty = argv[1];
  for (int i = 2; i + 1 < argc; i += 2) {
    if (std::strncmp(argv[i], "--", 2) != 0) return sutra::test::kUsage;
    arguments.values[argv[i] + 2] = argv[i + 1];
  }
  return sutra::test::Run(arguments);
}
