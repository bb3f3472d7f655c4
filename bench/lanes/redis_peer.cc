// A redis-server child and a raw RESP client.
#include "bench/lanes/redis_peer.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <sstream>

#include "bench/lanes/measure.h"
#include "shm/base/cpu_pause.h"

namespace sutra::bench {
namespace {

const char kGet[] = "*2\r\n$3\r\nGET\r\n$6\r\nvector\r\n";
const char kHeader[] = "$1536\r\n";
static_assert(kVectorBytes == 1536);
constexpr size_t kAnswerBytes = sizeof(kHeader) - 1 + kVectorBytes + 2;
constexpr int kStartTries = 2000;

std::string FindProgram(const char* name) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path != nullptr ? path : "");
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::string program = folder + "/" + name;
    if (access(program.c_str(), X_OK) == 0) return program;
  }
  return "";
}

}  // namespace

std::unique_ptr<RedisPeer> RedisPeer::Start(std::string* reason) {
  const std::string program = FindProgram("redis-server");
  if (program.empty()) {
    *reason = "no redis-server in PATH: run tools/setup/install_packages redis-server";
    return nullptr;
  }
  std::unique_ptr<RedisPeer> peer(new RedisPeer);
  const std::string path = peer->directory_ / "redis.sock";
  test::SpawnOptions spawn;
  spawn.args = {program,        "--port", "0",     "--unixsocket",         path, "--save", "",
                "--appendonly", "no",     "--dir", peer->directory_.path()};
  spawn.log_path = peer->directory_ / "redis.log";
  Pin(EngineCpu());
  peer->process_ = std::make_unique<test::ChildProcess>(spawn);
  Pin(ClientCpu());
  for (int tries = 0; tries < kStartTries && peer->process_->Running(); ++tries) {
    if (peer->Connect(path)) {
      peer->Send("*3\r\n$3\r\nSET\r\n$6\r\nvector\r\n" + std::string(kHeader) + std::string(kVectorBytes, 'v') +
                 "\r\n");
      peer->Receive(sizeof("+OK\r\n") - 1, false);
      peer->Gets(1, false);
      if (peer->received_.compare(0, sizeof(kHeader) - 1, kHeader) == 0) return peer;
      break;
    }
    SleepUs(2000);
  }
  *reason = "redis-server does not serve; its log: " + peer->process_->Log();
  return nullptr;
}

RedisPeer::~RedisPeer() {
  if (socket_ >= 0) close(socket_);
  if (process_ != nullptr && process_->Running()) process_->Kill();
}

bool RedisPeer::Connect(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  socket_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (socket_ >= 0 && connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) return true;
  if (socket_ >= 0) close(socket_);
  socket_ = -1;
  return false;
}

void RedisPeer::Send(const std::string& bytes) {
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t sent = send(socket_, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
    if (sent <= 0) Fail("redis-server closed the connection");
    done += static_cast<size_t>(sent);
  }
}

void RedisPeer::Receive(size_t bytes, bool spin) {
  received_.resize(bytes);
  for (size_t done = 0; done < bytes;) {
    const ssize_t got = recv(socket_, received_.data() + done, bytes - done, spin ? MSG_DONTWAIT : 0);
    if (got > 0) {
      done += static_cast<size_t>(got);
    } else if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
      CpuPause();
    } else {
      Fail("redis-server closed the connection");
    }
  }
}

void RedisPeer::Gets(int count, bool spin) {
  static const std::string get = kGet;
  for (int i = 0; i < count; ++i) {
    Send(get);
    Receive(kAnswerBytes, spin);
    Touch(received_.data(), received_.size());
  }
}

void RedisPeer::Store(const std::vector<std::string>& keys) {
  const std::string value = std::string(kHeader) + std::string(kVectorBytes, 'v') + "\r\n";
  for (const std::string& key : keys) {
    Send("*3\r\n$3\r\nSET\r\n$" + std::to_string(key.size()) + "\r\n" + key + "\r\n" + value);
    Receive(sizeof("+OK\r\n") - 1, false);
  }
}

void RedisPeer::Get(std::string_view key, bool spin) {
  request_ = "*2\r\n$3\r\nGET\r\n$";
  request_ += std::to_string(key.size());
  request_ += "\r\n";
  request_ += key;
  request_ += "\r\n";
  Send(request_);
  Receive(kAnswerBytes, spin);
  Touch(received_.data(), received_.size());
}

void RedisPeer::Pipelined(int count) {
  static const std::string burst = [] {
    std::string gets;
    for (size_t i = 0; i < kWindow; ++i) gets += kGet;
    return gets;
  }();
  for (int done = 0; done < count; done += static_cast<int>(kWindow)) {
    Send(burst);
    Receive(kAnswerBytes * kWindow, false);
    Touch(received_.data(), received_.size());
  }
}

}  // namespace sutra::bench
