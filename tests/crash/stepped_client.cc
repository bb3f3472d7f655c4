// A client that stops right before one operation and right after it, for a tracer that steps through it (stepper.h):
//   sutra-stepped-client OPERATION SOCKET TEXT
// Everything that an operation needs once (pages, bound symbols, a lane) is there before the first stop. The texts
// kStepperKnown... are in the engine's cache; TEXT is the operation's own.
// Exit codes: 2 usage; 3 the preparation failed.
#include <sys/ptrace.h>

#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <string>

#include "producer/include/sutra/embed.hpp"
#include "tests/crash/stepper.h"

namespace sutra::test {
namespace {

constexpr int kTicketsMax = 4;

struct Client {
  std::string socket, text;
  sutra_client* client = nullptr;
  sutra_attach_options options = embed::AttachOptions();
  sutra_ticket tickets[kTicketsMax] = {};
  const char* texts[kTicketsMax] = {};
  size_t text_bytes[kTicketsMax] = {};
  size_t submitted = 0;
  sutra_result result = embed::Result(), results[kTicketsMax] = {};
  float vector[4096] = {};
  std::unique_ptr<CommonLock> lock;  // of a canary
};

void Require(bool held, const char* what) {
  if (held) return;
  std::fprintf(stderr, "stepped client: %s failed: %s\n", what, sutra_error_text());
  std::exit(3);
}

void Submit(Client& c, const std::string& text, sutra_ticket* ticket) {
  Require(sutra_submit(c.client, text.data(), text.size(), nullptr, ticket) == SUTRA_OK, "a submit");
}
void Embed(Client& c, const std::string& text) {
  Require(sutra_embed(c.client, text.data(), text.size(), nullptr, c.vector, &c.result) == SUTRA_OK, "an embed");
}
void Poll(Client& c) {
  c.results[0].size = sizeof(sutra_result);
  sutra_poll(c.client, c.results, sizeof(sutra_result), kTicketsMax);
}

void Attach(Client& c) {
  Require(sutra_attach(c.socket.c_str(), &c.options, &c.client) == SUTRA_OK, "the attach");
  // Touches what every later call touches.
  for (int i = 0; i < 2; ++i) {
    Embed(c, kStepperKnown);
    Embed(c, kStepperKnownLong);
    Submit(c, kStepperKnown, &c.tickets[0]);
    Require(sutra_wait(c.client, c.tickets[0], 60'000, &c.result) == SUTRA_OK, "a wait");
    Poll(c);
    sutra_release(c.client, c.tickets[0]);
  }
}
// The answer is there, and nobody has looked at it: the text after it is answered.
void SubmitAnswered(Client& c) {
  Attach(c);
  Submit(c, kStepperKnown, &c.tickets[0]);
  Embed(c, kStepperKnownLong);
}
void SubmitUnanswered(Client& c) {
  Attach(c);
  Submit(c, c.text, &c.tickets[0]);
}

struct Operation {
  const char* name;
  void (*prepare)(Client& c);
  void (*run)(Client& c);
};
const Operation kOperations[] = {
    {"attach", [](Client&) {}, [](Client& c) { sutra_attach(c.socket.c_str(), &c.options, &c.client); }},
    {"detach", Attach, [](Client& c) { sutra_detach(c.client); }},
    {"send", Attach, [](Client& c) { sutra_submit(c.client, c.text.data(), c.text.size(), nullptr, &c.tickets[0]); }},
    {"send-many",
     [](Client& c) {
       Attach(c);
       for (int i = 0; i < kTicketsMax; ++i) {
         c.texts[i] = c.text.data();
         c.text_bytes[i] = c.text.size() - static_cast<size_t>(i);
       }
     },
     [](Client& c) {
       sutra_submit_many(c.client, c.texts, c.text_bytes, kTicketsMax, nullptr, c.tickets, &c.submitted);
     }},
    {"receive", SubmitAnswered, [](Client& c) { sutra_wait(c.client, c.tickets[0], 60'000, &c.result); }},
    {"receive-spinning",
     [](Client& c) {
       c.options.spin_us = 5000;
       SubmitUnanswered(c);
     },
     [](Client& c) { sutra_wait(c.client, c.tickets[0], 60'000, &c.result); }},
    {"receive-asleep",
     [](Client& c) {
       c.options.spin_us = 0;
       SubmitUnanswered(c);
     },
     [](Client& c) { sutra_wait(c.client, c.tickets[0], 60'000, &c.result); }},
    {"embed", Attach, [](Client& c) { Embed(c, kStepperKnown); }},
    {"poll", SubmitAnswered, Poll},
    {"poll-event-loop",
     [](Client& c) {
       SubmitAnswered(c);
       Require(sutra_event_fd(c.client) >= 0, "the event descriptor");
     },
     Poll},
    {"release", SubmitAnswered, [](Client& c) { sutra_release(c.client, c.tickets[0]); }},
    {"release-unanswered", SubmitUnanswered, [](Client& c) { sutra_release(c.client, c.tickets[0]); }},
    {"cancel", SubmitUnanswered, [](Client& c) { sutra_cancel(c.client, c.tickets[0]); }},
    // Canaries.
    {"count-to-a-thousand", [](Client&) {},
     [](Client&) {
       asm volatile("mov $1000, %%ecx\n0: dec %%ecx\njnz 0b" : : : "ecx", "cc");
     }},
    {"take-the-common-lock",
     [](Client& c) {
       c.lock = std::make_unique<CommonLock>(c.socket);
       c.lock->Acquire();
       c.lock->Release();
     },
     [](Client& c) {
       c.lock->Acquire();
       c.lock->Release();
     }},
};

int Run(const std::string& name, const std::string& socket, const std::string& text) {
  static Client client;  // zeroed and touched before the first stop
  client.socket = socket;
  client.text = text;
  for (const Operation& operation : kOperations) {
    if (name != operation.name) continue;
    Require(ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) == 0, "PTRACE_TRACEME");
    operation.prepare(client);
    asm volatile("int3" : : : "memory");  // the tracer takes over
    operation.run(client);
    // The operation is over: Stepper::AtEnd knows these bytes.
    asm volatile("int3\n0: pause\njmp 0b" : : : "memory");
  }
  std::fprintf(stderr, "stepped client: no operation '%s'\n", name.c_str());
  return 2;
}

}  // namespace
}  // namespace sutra::test

int main(int argc, char** argv) { return argc == 4 ? sutra::test::Run(argv[1], argv[2], argv[3]) : 2; }
