/* What the clients of the chaos over real processes share (survival.h): the file in which each of them counts how its
 * calls ended, the fake model's function, and the texts. For C11 and C++; the client in Rust writes the same words.
 *
 * The file lies outside the system under test and is mapped shared, so that a client's SIGKILL loses nothing of it.
 * Thread rule: a word is changed by any thread of its client; the driver only reads. */
#ifndef SUTRA_TESTS_CRASH_SURVIVOR_H
#define SUTRA_TESTS_CRASH_SURVIVOR_H

#include <fcntl.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "producer/include/sutra/embed.h"

enum TallyWord {
  kTallyAnswers,     /* right vectors */
  kTallyLost,        /* calls and tickets that ended with anything else, and were not cancelled */
  kTallyWrong,       /* vectors of another text or of none; tickets that are not its own, or were shown before */
  kTallyOverdue,     /* calls and tickets that took longer than their deadline and kOverdueNs */
  kTallyBlockingNs,  /* CLOCK_MONOTONIC, when a blocking call last ended */
  kTallyLoopNs,      /* when the event loop last had an answer */
  kTallyPhase,       /* TallyPhase */
  kTallyResubmitted, /* sutra_info.resubmitted */
  kTallyEngines,     /* sutra_info.engines */
  kTallyWords
};
enum TallyPhase {
  kPhaseStarting, /* perhaps without its signal handlers: a signal might end it */
  kPhaseAttached, /* it handles SIGUSR1 and SIGTERM */
  kPhaseQuiet
};
#define kOverdueNs 5000000000ull

static inline uint64_t TallyNowNs(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}
/* RETURNS NULL if the file cannot be made or mapped. */
static inline uint64_t* TallyMap(const char* path) {
  const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return NULL;
  void* words = MAP_FAILED;
  if (ftruncate(fd, kTallyWords * 8) == 0)
    words = mmap(NULL, kTallyWords * 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  return words == MAP_FAILED ? NULL : (uint64_t*)words;
}
static inline void TallyAdd(uint64_t* tally, enum TallyWord word) {
  __atomic_fetch_add(&tally[word], 1, __ATOMIC_RELAXED);
}
static inline void TallySet(uint64_t* tally, enum TallyWord word, uint64_t value) {
  __atomic_store_n(&tally[word], value, __ATOMIC_RELAXED);
}
static inline uint64_t TallyGet(const uint64_t* tally, enum TallyWord word) {
  return __atomic_load_n(&tally[word], __ATOMIC_RELAXED);
}

static inline uint64_t FakeMix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}
#define kFakeGolden 0x9e3779b97f4a7c15u
static inline uint64_t NextRandom(uint64_t* state) { return FakeMix(*state += kFakeGolden); }

#define kSurvivorWidthMax 256
/* Whether `vector` is what the model named `fake` answers to the text, of unit length. */
static inline int IsFakeVector(const char* text, size_t bytes, const float* vector, uint32_t width) {
  double raw[kSurvivorWidthMax], sum = 0;
  uint64_t state = kFakeGolden;
  if (vector == NULL || width == 0 || width > kSurvivorWidthMax) return 0;
  for (const char* c = "fake"; *c != 0; ++c) state = FakeMix(state ^ (unsigned char)*c);
  for (size_t i = 0; i < bytes; ++i) state = FakeMix(state + kFakeGolden + (unsigned char)text[i]);
  for (uint32_t i = 0; i < width; ++i) {
    state += kFakeGolden;
    raw[i] = (double)((int64_t)((FakeMix(state) >> 40) | 1u) - ((int64_t)1 << 23)) / 8388608.0;
    sum += raw[i] * raw[i];
  }
  const double norm = sqrt(sum);
  for (uint32_t i = 0; i < width; ++i) {
    const double expected = raw[i] / norm;
    if (!(fabs(expected - (double)vector[i]) <= 2e-6 + 2e-6 * fabs(expected))) return 0;
  }
  return 1;
}

/* Half are computed and leave the log in peace, some are written into it again, the rest are hits before long. */
static inline uint32_t SurvivorCacheFlags(uint64_t random) {
  if (random % 16 < 8) return SUTRA_CACHE_SKIP_LOOKUP | SUTRA_CACHE_SKIP_STORE;
  return random % 16 == 8 ? SUTRA_CACHE_SKIP_LOOKUP : 0;
}

/* Mostly short; one in 32 goes through the tail arena. */
#define kSurvivorTextMax 8192
static inline size_t SurvivorText(char* text, const char* prefix, uint64_t id) {
  const int head = snprintf(text, 256, "%s %llu ", prefix, (unsigned long long)id);
  size_t bytes = (size_t)head, padding = (size_t)(id * 37 % (id % 32 == 31 ? 7000 : 300));
  memset(text + bytes, 'x', padding);
  return bytes + padding;
}

#endif
