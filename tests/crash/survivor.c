/* A client in C11 over embed.h for the chaos over real processes (survival.h): blocking batches on the main thread, and
 * an event loop on the stable descriptor. The loop sleeps without a bound, so that a wake-up that gets lost is seen.
 *   survivor --socket S --tally FILE --prefix P --seed N --deadline-ms N
 *            [--lanes N] [--slots N] [--corrupt N] [--fail-fast 1] [--leak N] [--deaf-after N]
 * SIGUSR1: ends its calls, begins no more and keeps the client attached. SIGTERM: detaches and exits.
 *   --corrupt N  damages each N-th vector; --leak N  keeps a descriptor open per N batches;
 *   --deaf-after N  its event loop misses every wake-up after N answers (canaries) */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "producer/include/sutra/embed.h"
#include "tests/crash/survivor.h"

enum { kPendingMax = 8, kBatchMax = 12, kTexts = 3000 };

static atomic_int stop_asked, quiet_asked; /* read by both threads; volatile would not do for that */
static int wake_pipe[2];
static sutra_client* client;
static uint64_t* tally;
static const char* prefix = "";
static uint64_t seed = 1, corrupt_every, corrupt_count, leak_every, deaf_after;
static sutra_options options = {.size = sizeof(sutra_options)};
static int loop_quiet;

static void OnSignal(int number) {
  const int saved = errno;
  if (number == SIGTERM) stop_asked = 1;
  quiet_asked = 1;
  (void)!write(wake_pipe[1], "x", 1);
  errno = saved;
}

static void Complain(enum TallyWord word, const char* what, uint64_t id, const char* why) {
  TallyAdd(tally, word);
  fprintf(stderr, "survivor in C %d: %s of text %llu of %s: %s\n", getpid(), what, (unsigned long long)id, prefix, why);
}

static void Check(const char* what, uint64_t id, const char* text, size_t bytes, sutra_status status,
                  const float* vector, uint32_t width, uint64_t began_ns) {
  if (TallyNowNs() - began_ns > options.timeout_ms * 1000000ull + kOverdueNs) {
    Complain(kTallyOverdue, what, id, "beyond its deadline");
  }
  if (status != SUTRA_OK) {
    Complain(kTallyLost, what, id, sutra_status_text(status));
    return;
  }
  float damaged[kSurvivorWidthMax];
  if (corrupt_every != 0 && __atomic_add_fetch(&corrupt_count, 1, __ATOMIC_RELAXED) % corrupt_every == 0) {
    memcpy(damaged, vector, width * sizeof(float));
    damaged[0] += 0.01f;
    vector = damaged;
  }
  if (IsFakeVector(text, bytes, vector, width)) {
    TallyAdd(tally, kTallyAnswers);
  } else {
    Complain(kTallyWrong, what, id, "the vector of another text, or of none");
  }
}

/* One ticket of the event loop. */
struct Pending {
  sutra_ticket ticket;
  uint64_t id, began_ns;
  int cancelled;
};

static size_t Submit(struct Pending* pending, size_t count, uint64_t* random) {
  static char text[kSurvivorTextMax];
  while (count < kPendingMax && !quiet_asked) {
    struct Pending* one = &pending[count];
    sutra_options request = options;
    one->id = NextRandom(random) % kTexts;
    request.tag = one->id;
    request.flags |= SurvivorCacheFlags(NextRandom(random));
    const size_t bytes = SurvivorText(text, prefix, one->id);
    one->began_ns = TallyNowNs();
    const sutra_status status = sutra_submit(client, text, bytes, &request, &one->ticket);
    /* No engine, or no room: the descriptor says when there is one. */
    if (status == SUTRA_ENGINE_GONE || status == SUTRA_SHUTTING_DOWN || status == SUTRA_FULL) break;
    if (status != SUTRA_OK) {
      Complain(kTallyLost, "a submit", one->id, sutra_status_text(status));
      break;
    }
    one->cancelled = NextRandom(random) % 16 == 0;
    if (one->cancelled) sutra_cancel(client, one->ticket);
    ++count;
  }
  return count;
}

static size_t Collect(const sutra_result* result, struct Pending* pending, size_t count, uint64_t* random) {
  static char text[kSurvivorTextMax];
  static float copied[kSurvivorWidthMax];
  size_t at = 0;
  while (at < count && pending[at].ticket != result->ticket) ++at;
  if (at == count || result->tag != pending[at].id) {
    Complain(kTallyWrong, "a result", result->tag, "a ticket that is not its own, or was shown before");
    return count;
  }
  const struct Pending one = pending[at];
  pending[at] = pending[count - 1];
  sutra_result taken = {.size = sizeof(taken)};
  const float* vector = result->vector;
  sutra_status status = result->status;
  const int take = NextRandom(random) % 2 == 0;
  if (take) {
    status = sutra_take(client, one.ticket, copied, kSurvivorWidthMax, &taken);
    vector = copied;
    if (status != result->status) Complain(kTallyWrong, "a ticket", one.id, "its status changed");
  }
  if (status != SUTRA_CANCELLED || !one.cancelled) {
    Check("a ticket", one.id, text, SurvivorText(text, prefix, one.id), status, vector, result->width, one.began_ns);
  }
  if (!take) sutra_release(client, one.ticket);
  TallySet(tally, kTallyLoopNs, TallyNowNs());
  return count - 1;
}

static void* RunLoop(void* unused) {
  struct Pending pending[kPendingMax];
  size_t count = 0;
  uint64_t random = seed ^ 0x5bd1e995, answers = 0;
  while (!stop_asked) {
    sutra_result results[4];
    size_t found;
    do {
      for (size_t i = 0; i < 4; ++i) results[i].size = sizeof(results[i]);
      found = sutra_poll(client, results, sizeof(results[0]), 4);
      for (size_t i = 0; i < found; ++i) count = Collect(&results[i], pending, count, &random);
      answers += found;
    } while (found == 4);
    count = Submit(pending, count, &random);
    __atomic_store_n(&loop_quiet, quiet_asked && count == 0, __ATOMIC_RELEASE);
    struct pollfd ready[] = {{sutra_event_fd(client), POLLIN, 0}, {wake_pipe[0], POLLIN, 0}};
    if (deaf_after != 0 && answers > deaf_after) ready[0].fd = -1;
    if (quiet_asked && count > 0) ready[1].fd = -1; /* stays readable */
    if (quiet_asked && count == 0) {
      ready[0].fd = ready[1].fd = -1;
      poll(NULL, 0, 20);
    } else {
      poll(ready, 2, -1);
      poll(NULL, 0, 1); /* leaves the other processes of a small machine their share */
    }
  }
  for (size_t i = 0; i < count; ++i) sutra_release(client, pending[i].ticket);
  return unused;
}

static void EmbedBatch(uint64_t* random) {
  static char texts[kBatchMax][kSurvivorTextMax];
  static float vectors[kBatchMax * kSurvivorWidthMax];
  const char* pointers[kBatchMax];
  size_t bytes[kBatchMax];
  uint64_t ids[kBatchMax];
  sutra_result results[kBatchMax];
  sutra_info info = {.size = sizeof(info)};
  sutra_get_info(client, &info);
  sutra_options request = options;
  request.flags |= SurvivorCacheFlags(NextRandom(random));
  const size_t count = 1 + NextRandom(random) % kBatchMax;
  for (size_t i = 0; i < count; ++i) {
    ids[i] = NextRandom(random) % kTexts;
    pointers[i] = texts[i];
    bytes[i] = SurvivorText(texts[i], prefix, ids[i]);
    results[i].size = sizeof(results[i]);
  }
  const uint64_t began_ns = TallyNowNs();
  sutra_embed_batch(client, pointers, bytes, count, &request, NULL, vectors, results, sizeof(results[0]));
  for (size_t i = 0; i < count; ++i) {
    Check("a call", ids[i], texts[i], bytes[i], results[i].status, vectors + i * info.width, info.width, began_ns);
  }
  TallySet(tally, kTallyBlockingNs, TallyNowNs());
  TallySet(tally, kTallyResubmitted, info.resubmitted);
  TallySet(tally, kTallyEngines, info.engines);
}

static void RunBatches(void) {
  uint64_t random = seed;
  for (uint64_t batch = 1; !quiet_asked; ++batch) {
    EmbedBatch(&random);
    if (leak_every != 0 && batch % leak_every == 0 && dup(wake_pipe[0]) < 0) return;
    poll(NULL, 0, 1);
  }
  while (!stop_asked) {
    if (__atomic_load_n(&loop_quiet, __ATOMIC_ACQUIRE)) TallySet(tally, kTallyPhase, kPhaseQuiet);
    poll(NULL, 0, 5);
  }
}

int main(int argc, char** argv) {
  const char* socket = "";
  const char* tally_file = "";
  sutra_attach_options attach = SUTRA_ATTACH_OPTIONS_INIT;
  attach.client_name = "survivor in C";
  for (int i = 1; i + 1 < argc; i += 2) {
    const uint64_t number = strtoull(argv[i + 1], NULL, 10);
    if (strcmp(argv[i], "--socket") == 0) socket = argv[i + 1];
    if (strcmp(argv[i], "--tally") == 0) tally_file = argv[i + 1];
    if (strcmp(argv[i], "--prefix") == 0) prefix = argv[i + 1];
    if (strcmp(argv[i], "--seed") == 0) seed = number;
    if (strcmp(argv[i], "--deadline-ms") == 0) options.timeout_ms = (uint32_t)number;
    if (strcmp(argv[i], "--lanes") == 0) attach.lanes_max = (uint32_t)number;
    if (strcmp(argv[i], "--slots") == 0) attach.slots = (uint32_t)number;
    if (strcmp(argv[i], "--corrupt") == 0) corrupt_every = number;
    if (strcmp(argv[i], "--fail-fast") == 0 && number != 0) options.flags |= SUTRA_FAIL_FAST;
    if (strcmp(argv[i], "--leak") == 0) leak_every = number;
    if (strcmp(argv[i], "--deaf-after") == 0) deaf_after = number;
  }
  tally = TallyMap(tally_file);
  if (tally == NULL || pipe2(wake_pipe, O_CLOEXEC | O_NONBLOCK) != 0) return 2;
  struct sigaction action = {.sa_handler = OnSignal, .sa_flags = SA_RESTART};
  sigaction(SIGTERM, &action, NULL);
  sigaction(SIGUSR1, &action, NULL);
  while (!stop_asked && sutra_attach(socket, &attach, &client) != SUTRA_OK) poll(NULL, 0, 5);
  if (client == NULL) return 0;
  TallySet(tally, kTallyPhase, kPhaseAttached);
  pthread_t loop;
  if (pthread_create(&loop, NULL, RunLoop, NULL) != 0) return 2;
  RunBatches();
  pthread_join(loop, NULL);
  sutra_detach(client);
  return 0;
}
