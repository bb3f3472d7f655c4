// Control sessions against whatever arrives on their connections: any bytes, in any number of messages, from operators,
// standbys and strangers, some of which hang up; and an asker against any answer.
// Oracle: what a stranger sends changes nothing; nothing is begun that was not confirmed; sessions and the roster stay
// within their bounds, and no descriptor stays open.
#include <sys/socket.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "engine/control/cache_reply.h"
#include "engine/control/control_client.h"
#include "engine/control/control_sessions.h"
#include "shm/base/hex.h"
#include "shm/base/time.h"
#include "shm/handshake_messages.h"
#include "shm/stats/stats_segment.h"
#include "tests/fuzz/fuzz_target.h"

namespace sutra::fuzz {
namespace {

// The number of the next descriptor: unchanged means that none was left open below it.
int NextDescriptor() {
  const int fd = dup(STDERR_FILENO);
  FUZZ_CHECK(fd >= 0);
  close(fd);
  return fd;
}

StandbyBody FittingBody() {
  return ToBody(
      {.identity = std::string(64, 'a'), .precision = "fp32", .width = 8, .pid = 4, .state = StandbyState::kReady});
}

// The fields that the command has, and sometimes another one.
CacheCallBody CacheCallFrom(ControlCommand command, Input* input) {
  CacheCallBody body = {};
  body.payload_bytes = static_cast<uint32_t>(input->Edge(16u << 20));
  if (command == ControlCommand::kCacheCommit) body.token = input->Byte();
  if (command == ControlCommand::kCachePage) body.bytes_max = static_cast<uint32_t>(input->Edge(kCachePageBytesMax));
  if (command == ControlCommand::kCacheDropIdentity) {
    for (uint32_t i = input->Below(72); i > 0; --i) body.identity[i - 1] = 'a';
  }
  if (input->Below(4) == 0) body.flags = input->Byte();
  if (input->Below(8) == 0) body.cursor = input->U64();
  if (input->Below(8) == 0) body.older_than_s = input->U64();
  if (input->Below(8) == 0) body.variant = input->U32();
  if (input->Below(8) == 0) body.identity[input->Below(72)] = static_cast<char>(input->Byte());
  return body;
}

// A valid request, or one with a part corrupted.
std::string RequestFrom(Input* input) {
  const uint32_t command = input->Below(18);
  const ControlCall call = {.request_id = input->Byte(), .command = command == 17 ? input->U32() : command};
  std::string body;
  if (command == 3) {
    const LogLevelBody level = {.verbosity = input->Below(6), .reserved = input->Below(16) == 0 ? 1u : 0u};
    body = BytesOf(level);
  } else if (command == 4) {
    StandbyBody standby = FittingBody();
    if (input->Below(4) == 0) standby.identity[input->Below(72)] = static_cast<char>(input->Byte());
    if (input->Below(4) == 0) standby.width = static_cast<uint32_t>(input->Edge(8));
    body = BytesOf(standby);
  } else if (command == 5) {
    const StandbyStateBody state = {.state = input->Below(4), .reserved = 0};
    body = BytesOf(state);
  } else if (command == static_cast<uint32_t>(ControlCommand::kCachePayload)) {
    body = input->Take(1 + input->Below(40));
  } else if (IsCacheCall(static_cast<ControlCommand>(command))) {
    body = BytesOf(CacheCallFrom(static_cast<ControlCommand>(command), input));
  }
  if (input->Below(8) == 0) body += input->Take(input->Below(100));
  std::string message = MakeControlMessage(call, body);
  if (input->Below(4) == 0)
    message[input->Below(static_cast<uint32_t>(message.size()))] = static_cast<char>(input->Byte());
  if (input->Below(8) == 0) message.resize(input->Below(static_cast<uint32_t>(message.size() + 1)));
  return message;
}

class World {
 public:
  explicit World(Input* input) : input_(input) {
    ControlSessions::Options options;
    options.model.name = "fake";
    options.model.identity = std::string(64, 'a');
    options.model.width = 8;
    options.model.precision = "fp32";
    options.engine_generation = 7;
    options.stats = stats_->writer();
    options.admin = &admin_;
    options.log = LogLine([](LogLevel, const std::string& line) {
      for (const char c : line) FUZZ_CHECK(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f);
    });
    options.set_verbosity = [this](LogVerbosity verbosity) {
      FUZZ_CHECK(trusted_ && static_cast<uint32_t>(verbosity) <= 4);
    };
    sessions_.emplace(
        std::move(options),
        ControlSessions::Loop{.watch = [this](int fd, uint64_t id) { return watched_.emplace(fd, id).second; },
                              .unwatch = [this](int fd) { FUZZ_CHECK(watched_.erase(fd) == 1); },
                              .facts =
                                  [this] {
                                    return ControlSessions::Facts{state_, 1, 1};
                                  },
                              .hand_over =
                                  [this] {
                                    FUZZ_CHECK(trusted_ && state_ == kEngineServing);
                                    FUZZ_CHECK(sessions_->standbys().Ready(now_ns_) > 0);
                                    state_ = kEngineDraining;
                                  }});
  }

  void Run() {
    for (int step = 0; step < 60 && !input_->empty(); ++step) {
      now_ns_ += uint64_t{input_->Byte()} * 10 * kNsPerMs;
      switch (input_->Below(9)) {
        case 0: HangUp(); break;
        case 1: sessions_->Expire(now_ns_); break;
        case 2: state_ = input_->Below(2) == 0 ? kEngineServing : kEngineDraining; break;
        case 3: sessions_->OnReady(input_->U64(), now_ns_); break;
        case 4: Speak(); break;
        case 5:
          static_cast<void>(admin_.RunOne());
          sessions_->OnCacheReply(now_ns_);
          break;
        default: Open(); break;
      }
      FUZZ_CHECK(sessions_->size() <= kStandbysMax + 2 && sessions_->size() == watched_.size());
      FUZZ_CHECK(sessions_->standbys().size() <= kStandbysMax);
      FUZZ_CHECK(sessions_->standbys().size() + 2 >= sessions_->size());
    }
    static_cast<void>(admin_.RunOne());
    sessions_->OnCacheReply(now_ns_);
    FUZZ_CHECK(!sessions_->busy());
    now_ns_ += 100 * kNsPerSecond;
    for (int i = 0; i < 3; ++i) sessions_->Expire(now_ns_);
    FUZZ_CHECK(sessions_->size() == sessions_->standbys().size());
  }

 private:
  // What a command gets is what its request may say.
  static CacheReply RunJob(const CacheJob& job, AdminThread::Turn& turn) {
    FUZZ_CHECK(IsCacheCall(job.call.command) && job.payload.size() == job.call.body.payload_bytes);
    FUZZ_CHECK(job.call.body.bytes_max <= kCachePageBytesMax && job.call.identity.size() <= 64);
    FUZZ_CHECK(job.peer.uid == geteuid());
    for (const char digit : job.call.identity) FUZZ_CHECK(HexDigitValue(digit) >= 0);
    static_cast<void>(turn.GoOn(1, 2));
    if (job.payload.empty()) return {};
    return WithPayload({}, job.payload);
  }

  static void Send(int socket, const std::string& message) {
    static_cast<void>(send(socket, message.data(), message.size(), MSG_DONTWAIT | MSG_NOSIGNAL));
  }
  std::string Message() {
    return input_->Below(4) == 0 ? std::string(input_->Take(input_->Below(200))) : RequestFrom(input_);
  }

  void Open() {
    int pair[2];
    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    UniqueFd mine(pair[0]);
    Send(mine.get(), Message());
    trusted_ = input_->Below(4) != 0;
    const size_t before = sessions_->size();
    if (input_->Below(8) == 0) mine.reset();
    sessions_->Take(UniqueFd(pair[1]),
                    {.pid = input_->Below(2) == 0 ? 0 : 9, .uid = trusted_ ? geteuid() : 4711, .gid = 4711}, now_ns_);
    FUZZ_CHECK(trusted_ || sessions_->size() == before);
    trusted_ = true;  // whoever is still there was
    if (mine && askers_.size() < 24) askers_.push_back(std::move(mine));
  }

  UniqueFd* Asker() {
    return askers_.empty() ? nullptr : &askers_[input_->Below(static_cast<uint32_t>(askers_.size()))];
  }
  void HangUp() {
    if (UniqueFd* asker = Asker(); asker != nullptr) {
      std::swap(*asker, askers_.back());
      askers_.pop_back();
    }
    Serve();
  }
  void Speak() {
    if (const UniqueFd* asker = Asker(); asker != nullptr) Send(asker->get(), Message());
    Serve();
  }
  void Serve() {
    const std::map<int, uint64_t> readable = watched_;
    for (const auto& [fd, id] : readable) sessions_->OnReady(id, now_ns_);
  }

  Input* const input_;
  std::unique_ptr<StatsSegment> stats_ = StatsSegment::CreatePrivate();
  std::map<int, uint64_t> watched_;
  std::vector<UniqueFd> askers_;
  uint64_t now_ns_ = 1;
  EngineState state_ = kEngineServing;
  bool trusted_ = true;
  AdminThread admin_{RunJob};
  std::optional<ControlSessions> sessions_;
};

// The asker's side: an answer that somebody else wrote.
void FuzzAnswer(Input* input) {
  const ControlCall call = {.request_id = 1, .command = 1};
  std::string message;
  if (input->Below(2) == 0) {
    message = MakeControlMessage(call, input->Rest(), static_cast<StatusCode>(input->Below(24)));
  } else {
    WelcomeMessage welcome = {};
    welcome.magic = kHandshakeMagic;
    welcome.status = input->Below(24);
    message = BytesOf(welcome);
    message[input->Below(static_cast<uint32_t>(message.size()))] = static_cast<char>(input->Byte());
  }
  const Result<ControlAnswer> answer = ParseAnswer({message.data(), message.size()}, call);
  if (!answer.ok()) return;
  FUZZ_CHECK(static_cast<int>(answer.value().code) < kStatusCodeCount);
  const Result<EngineStatus> status = ParseEngineStatus(answer.value().body);
  if (!status.ok()) return;
  for (const char c : EngineStatusText(status.value())) FUZZ_CHECK(static_cast<unsigned char>(c) >= 0x20 || c == '\n');
}

}  // namespace

SUTRA_FUZZ_TARGET(control, 4096) {
  const int before = NextDescriptor();
  Input input(data, size);
  if (input.Below(4) == 0) {
    FuzzAnswer(&input);
  } else {
    World(&input).Run();
  }
  FUZZ_CHECK(NextDescriptor() == before);
}

}  // namespace sutra::fuzz
