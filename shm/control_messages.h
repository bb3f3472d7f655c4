// The messages of a control session: commands that look at or change a live engine, over the engine's own
// SOCK_SEQPACKET socket. The first message of a connection tells by its magic what the connection is: a client's attach
// (handshake_messages.h) or a control session, an operator's or a standby's.
//
//   operator or standby                    engine
//   ControlHeader + body            ->                                   one message each; any number of them
//                                   <-     ControlHeader + body          the same command and request id, and a status
//
//   command           body of the request    body of the answer, if its status is ok; otherwise a text: cause and fix
//   status            -                      JSON, one object
//   hand over         -                      HandOverBody: the engine drains from here on
//   set log level     LogLevelBody           LogLevelBody: the level before
//   register standby  StandbyBody            -     the connection is the standby's from here on; its hang-up is its end
//   update standby    StandbyStateBody       (none is sent: the standby waits for the hang-up on the same descriptor);
//                                            also its sign of life, every kStandbyBeatMs
//   cache payload     bytes                  (none, unless it is refused): one piece of the next command's payload
//   cache ...         CacheCallBody          CacheAnswerBody
//
// A cache command takes its time: until its answer the engine sends `not ready` with the same request id and a
// CacheProgressBody, kCacheProgressPerSecondMax times a second; an asker that reads none of it is dropped. What is
// longer than a message is the payload of a command or an answer. An asker sends it before the command, in pieces of
// one message each, and the command says how many bytes there were in all. An engine hands it over in a memfd beside
// the answer, which is sealed against every change.
//
//   cache command     payload of the request     its fields                   payload and fields of the answer
//   preview           filter: bytes in a text    flags, older_than_s          - token, entries, bytes, examined, lost
//   commit            -                          token                        - entries, bytes
//   erase             text                       variant                      - entries: 1 if it was there
//   get               text                       variant                      page of one entry
//   page              -                          cursor, flags, bytes_max     page - cursor, kCacheAtEnd
//   import            page (cache_page.h)        -                            text, why the first - entries, refused
//   compact           -                          -                            - bytes before, entries: bytes after
//   identities        -                          -                            JSON, one array
//   drop identity     -                          identity                     - bytes
//   info              -                          -                            JSON, one object
//
// Every other field of a request is 0. A second descriptor has no place here, and an asker sends none at all: an engine
// that received one would have to close it, and would lose the lock of a lane's memory that way (peer_liveness.h).
//
// Numbers are never reused. An engine answers a command that it does not know with `bad option`, so commands may be
// added without a new version; a version is for a change of these structures. An answer may also be a WelcomeMessage
// without descriptors: the attach refuses a connection before it is known what it is. Fixed-size, little-endian,
// zero-filled strings. Header-only.
#pragma once

#include <bit>
#include <cstdint>
#include <utility>

namespace sutra {

static_assert(std::endian::native == std::endian::little);

inline constexpr uint64_t kControlMagic = 0x4C54434152545553;  // "SUTRACTL"
inline constexpr uint32_t kControlVersion = 1;
inline constexpr uint32_t kControlBodyBytesMax = 16'384;
inline constexpr uint64_t kControlStepMsMax = 1000;       // of silence in an operator's session, on the engine's side
inline constexpr uint64_t kControlSessionMsMax = 10'000;  // of an operator's session
inline constexpr uint32_t kStandbysMax = 16;
inline constexpr int kStandbyBeatMs = 1000;
inline constexpr uint64_t kStandbySilentMs = 5000;            // from then on it is not ready, whatever it said last
inline constexpr uint32_t kCachePayloadBytesMax = 32u << 20;  // the longest text with its vector, and pages
inline constexpr uint32_t kCachePageBytesMax = 8u << 20;      // that may be asked for
inline constexpr uint32_t kCacheContainsBytesMax = 4096;      // of a filter
inline constexpr uint32_t kCacheProgressPerSecondMax = 4;

enum class ControlCommand : uint32_t {
  kStatus = 1,
  kHandOver = 2,
  kSetLogLevel = 3,
  kRegisterStandby = 4,
  kUpdateStandby = 5,
  kCachePayload = 6,
  kCachePreview = 7,
  kCacheCommit = 8,
  kCacheErase = 9,
  kCacheGet = 10,
  kCachePage = 11,
  kCacheImport = 12,
  kCacheCompact = 13,
  kCacheIdentities = 14,
  kCacheDropIdentity = 15,
  kCacheInfo = 16,
};
inline constexpr std::pair<const char*, ControlCommand> kControlCommandNames[] = {
    {"status", ControlCommand::kStatus},
    {"hand over", ControlCommand::kHandOver},
    {"set log level", ControlCommand::kSetLogLevel},
    {"register standby", ControlCommand::kRegisterStandby},
    {"update standby", ControlCommand::kUpdateStandby},
    {"cache payload", ControlCommand::kCachePayload},
    {"cache preview", ControlCommand::kCachePreview},
    {"cache commit", ControlCommand::kCacheCommit},
    {"cache erase", ControlCommand::kCacheErase},
    {"cache get", ControlCommand::kCacheGet},
    {"cache page", ControlCommand::kCachePage},
    {"cache import", ControlCommand::kCacheImport},
    {"cache compact", ControlCommand::kCacheCompact},
    {"cache identities", ControlCommand::kCacheIdentities},
    {"cache drop identity", ControlCommand::kCacheDropIdentity},
    {"cache info", ControlCommand::kCacheInfo}};
// Those with a CacheCallBody.
constexpr bool IsCacheCall(ControlCommand command) {
  return command >= ControlCommand::kCachePreview && command <= ControlCommand::kCacheInfo;
}

// What a running engine's log shows; the names are those of --log-level.
enum class LogVerbosity : uint32_t { kTrace = 0, kDebug = 1, kInfo = 2, kWarn = 3, kError = 4 };
inline constexpr std::pair<const char*, LogVerbosity> kLogVerbosityNames[] = {{"trace", LogVerbosity::kTrace},
                                                                              {"debug", LogVerbosity::kDebug},
                                                                              {"info", LogVerbosity::kInfo},
                                                                              {"warn", LogVerbosity::kWarn},
                                                                              {"err", LogVerbosity::kError}};

// `preparing`: it would not serve at once, whatever the reason. `ready`: its model is loaded and it waits for the
// locks.
enum class StandbyState : uint32_t { kPreparing = 1, kReady = 2 };
inline constexpr std::pair<const char*, StandbyState> kStandbyStateNames[] = {{"preparing", StandbyState::kPreparing},
                                                                              {"ready", StandbyState::kReady}};

struct ControlHeader {
  uint64_t magic;
  uint32_t version;
  uint32_t command;         // ControlCommand
  uint64_t request_id;      // the asker's; repeated in the answer
  uint32_t body_bytes;      // that follow in the same message
  uint32_t status;          // StatusCode of an answer; 0 in a request
  uint32_t retry_after_ms;  // of an answer `overloaded`: worth another try then; otherwise 0
  uint32_t reserved;        // 0
};
static_assert(sizeof(ControlHeader) == 40);

struct HandOverBody {
  uint64_t engine_generation;  // of the engine that leaves
  uint32_t engine_pid;
  uint32_t standby_pid;  // of one that is ready; which of several comes first is not decided here
};
static_assert(sizeof(HandOverBody) == 16);

struct LogLevelBody {
  uint32_t verbosity;  // LogVerbosity
  uint32_t reserved;   // 0
};
static_assert(sizeof(LogLevelBody) == 8);

struct StandbyBody {
  uint32_t pid;  // as the standby knows it: shown if the engine cannot see the process
  uint32_t state;
  uint32_t width;
  uint32_t reserved;   // 0
  char precision[16];  // "fp32"
  char identity[72];   // 64 hex digits
};
static_assert(sizeof(StandbyBody) == 104);

struct StandbyStateBody {
  uint32_t state;
  uint32_t reserved;  // 0
};
static_assert(sizeof(StandbyStateBody) == 8);

// Flags of a CacheCallBody.
inline constexpr uint32_t kCacheEverything = 1;  // preview: the filter's `everything`
inline constexpr uint32_t kCacheNeverHit = 2;    // preview: the filter's `never_hit`
inline constexpr uint32_t kCacheHotOnly = 4;     // page
// Flags of a CacheAnswerBody.
inline constexpr uint32_t kCacheAtEnd = 1;

struct CacheCallBody {
  uint64_t token;
  uint64_t cursor;  // 0 = from the beginning
  uint64_t older_than_s;
  uint32_t flags;
  uint32_t variant;
  uint32_t bytes_max;      // of a page; one entry comes even if it is longer
  uint32_t payload_bytes;  // that came before
  char identity[72];       // 64 hex digits, or the first 16
};
static_assert(sizeof(CacheCallBody) == 112);

struct CacheAnswerBody {
  uint64_t token;
  uint64_t entries;
  uint64_t bytes;
  uint64_t examined;
  uint64_t lost;
  uint64_t refused;
  uint64_t cursor;
  uint32_t flags;
  uint32_t payload_bytes;  // of the memfd beside the message; 0 = there is none
};
static_assert(sizeof(CacheAnswerBody) == 64);

struct CacheProgressBody {
  uint64_t done;
  uint64_t total;  // 0 = not known yet
};
static_assert(sizeof(CacheProgressBody) == 16);

}  // namespace sutra
