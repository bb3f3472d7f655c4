// Redis as a user would otherwise run it on one host: a server of its own on a Unix socket in a private directory,
// without persistence and without a TCP port, and a client that speaks RESP itself, so that no client library is
// measured. Thread rule: the bench's main thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tests/kit/child_process.h"
#include "tests/kit/temp_dir.h"

namespace sutra::bench {

class RedisPeer {
 public:
  // Starts redis-server on the engine's CPU, stores one value of kVectorBytes. Null with *reason when that cannot be.
  static std::unique_ptr<RedisPeer> Start(std::string* reason);
  ~RedisPeer();
  RedisPeer(const RedisPeer&) = delete;
  RedisPeer& operator=(const RedisPeer&) = delete;

  // `count` GETs, one at a time. With `spin` the client polls its socket instead of sleeping in it.
  void Gets(int count, bool spin);
  // `count` GETs in bursts of kWindow: one write of the burst, then all its answers.
  void Pipelined(int count);
  // The same by keys of the caller's: stores a value of kVectorBytes under each; one GET of a stored key.
  void Store(const std::vector<std::string>& keys);
  void Get(std::string_view key, bool spin);
  // The server, so that it can be held still while another comparator runs.
  test::ChildProcess& process() { return *process_; }

 private:
  RedisPeer() = default;
  bool Connect(const std::string& path);
  void Send(const std::string& bytes);
  void Receive(size_t bytes, bool spin);

  test::TempDir directory_;
  std::unique_ptr<test::ChildProcess> process_;
  int socket_ = -1;
  std::string received_, request_;
};

}  // namespace sutra::bench
