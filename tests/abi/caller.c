/* A program that uses the library with the structures of some version of the header: CALLER_HEADER. Compiled with an
 * older and a newer one than the library's, and with its own. CALLER_NEWER: every structure ends with a field
 * `not_yet_known`, which the library has never heard of.
 *   caller SOCKET
 * Exit code 0; otherwise a line on standard error says what was not as the header promises. */
#include CALLER_HEADER

#include <stdio.h>
#include <string.h>

static sutra_client* client;

#define CHECK(condition)                                                                       \
  do {                                                                                         \
    if (!(condition)) {                                                                        \
      fprintf(stderr, "line %d: not so: %s (%s)\n", __LINE__, #condition, sutra_error_text()); \
      return 1;                                                                                \
    }                                                                                          \
  } while (0)

/* A structure of this header, with something of the caller's right behind it. */
#define GUARDED(type, name)                       \
  struct {                                        \
    type known;                                   \
    unsigned char guard[64];                      \
  } name;                                         \
  memset(&(name), 0xa5, sizeof(name));            \
  memset(&(name).known, 0, sizeof((name).known)); \
  (name).known.size = sizeof((name).known)

static int IsUntouched(const unsigned char* guard) {
  for (int i = 0; i < 64; ++i) {
    if (guard[i] != 0xa5) return 0;
  }
  return 1;
}

static int CheckAttach(const char* path) {
  GUARDED(sutra_attach_options, options);
  options.known.slots = 8;
  options.known.lanes_max = 1;
  options.known.client_name = "caller";
#ifdef CALLER_NEWER
  options.known.not_yet_known[1] = 1;
  CHECK(sutra_attach(path, &options.known, &client) == SUTRA_BAD_OPTION && client == NULL);
  options.known.not_yet_known[1] = 0;
#endif
  CHECK(sutra_attach(path, &options.known, &client) == SUTRA_OK);
  GUARDED(sutra_info, info);
#ifdef CALLER_NEWER
  info.known.not_yet_known[0] = 7;
#endif
  CHECK(sutra_get_info(client, &info.known) == SUTRA_OK);
  CHECK(info.known.size == sizeof(sutra_info) && info.known.slots == 8 && info.known.width == 16);
  CHECK(strcmp(info.known.model, "echo-model") == 0 && strlen(info.known.identity) == 64);
#ifdef CALLER_NEWER
  CHECK(info.known.not_yet_known[0] == 0);
#endif
  CHECK(IsUntouched(info.guard) && IsUntouched(options.guard));
  return 0;
}

static int CheckEmbed(void) {
  GUARDED(sutra_options, options);
  options.known.tag = 41;
  GUARDED(sutra_result, result);
  float vector[16] = {0};
#ifdef CALLER_NEWER
  options.known.not_yet_known[3] = 1;
  CHECK(sutra_embed(client, "text", 4, &options.known, vector, &result.known) == SUTRA_BAD_OPTION);
  options.known.not_yet_known[3] = 0;
  result.known.not_yet_known[0] = 7;
#endif
  CHECK(sutra_embed(client, "text", 4, &options.known, vector, &result.known) == SUTRA_OK);
  CHECK(result.known.size == sizeof(sutra_result) && result.known.status == SUTRA_OK && result.known.tag == 41);
  CHECK(result.known.vector == vector && result.known.width == 16 && vector[0] != 0);
#ifdef CALLER_NEWER
  CHECK(result.known.not_yet_known[0] == 0);
#endif
  CHECK(IsUntouched(options.guard) && IsUntouched(result.guard));
  return 0;
}

static int CheckTickets(void) {
  GUARDED(sutra_options, options);
  options.known.tag = 42;
  GUARDED(sutra_result, result);
  const char* const texts[] = {"one", "two"};
  const size_t bytes[] = {3, 3};
  sutra_ticket tickets[2] = {0, 0};
  size_t submitted = 0;
  CHECK(sutra_submit_many(client, texts, bytes, 2, &options.known, tickets, &submitted) == SUTRA_OK && submitted == 2);
  for (int i = 0; i < 2; ++i) {
    CHECK(sutra_wait(client, tickets[i], 60000, &result.known) == SUTRA_OK);
    CHECK(result.known.tag == 42 && result.known.vector != NULL && result.known.stage_ns[0] != 0);
    CHECK(IsUntouched(result.guard));
    sutra_release(client, tickets[i]);
  }
  CHECK(sutra_wait(client, tickets[0], 0, &result.known) == SUTRA_BAD_ARGUMENT && IsUntouched(result.guard));
  result.known.size = 4;
  CHECK(sutra_wait(client, tickets[0], 0, &result.known) == SUTRA_BAD_ARGUMENT);
  return 0;
}

int main(int count, char** arguments) {
  if (count != 2) return 2;
  const int failed = CheckAttach(arguments[1]) || CheckEmbed() || CheckTickets();
  sutra_detach(client);
  return failed;
}
