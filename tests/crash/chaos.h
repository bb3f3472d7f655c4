// Chaos over real processes: an engine that is killed, stopped, paused and started again under clients that are killed
// and started again, and a checker that knows what was promised.
//
// Every client records in a file of its own, outside the system under test, what it was about to send and what was
// answered (tests/system/test_client.cc). Checked:
//   - each answer of each client equals the model's function of its text (the clients check, and report by exit code);
//   - each text that an engine answered, and that its figures showed as written before its death (or that it had before
//     an orderly end), is answered by the shard of the next engine (P1, P8);
//   - the engine that ends the run holds no more descriptors, lane mappings and threads than one that just began.
// Thread rule: one thread. A run is a function of its seed, except for the operating system's timing.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "tests/kit/engine_process.h"

namespace sutra::test {

struct ChaosOptions {
  uint64_t seed = 1;
  int rounds = 15;
  int clients = 4;
  uint64_t corrupt_every = 0;            // canary: every N-th vector of the first client is damaged
  std::vector<std::string> engine_args;  // canary: an engine that does not keep what it should
};

struct ChaosTotals {
  int engine_kills = 0, engine_stops = 0, engine_pauses = 0, client_kills = 0;
  uint64_t acknowledged = 0;  // texts answered, over all clients
  uint64_t verified = 0;      // texts expected in the shard after a kill, and found
  std::string failure;        // empty: everything held
};
std::string ToText(const ChaosTotals& totals);

class Chaos {
 public:
  explicit Chaos(ChaosOptions options);
  ChaosTotals Run();

 private:
  struct Client {
    std::string prefix, oracle;
    uint64_t corrupt_every = 0;
    std::unique_ptr<ChildProcess> process;
  };

  bool StartClient(Client* client);
  bool StartEngine();
  bool EnginesFirstFootprint();
  bool Round();
  bool KillEngineUnderLoad();
  bool KillEngineAndVerify();
  bool StopEngine();
  bool PauseEngine();
  bool KillClient();
  bool WaitForAnswers(uint64_t more);
  std::vector<std::string> TextsToFind() const;
  bool VerifyShard(const std::vector<std::string>& texts);
  bool CheckClients();
  bool EndClients();
  bool Fail(const std::string& why);

  const ChaosOptions options_;
  std::mt19937_64 random_;
  EngineProcess engine_;
  std::vector<Client> clients_;
  ProcessFootprint first_footprint_;
  std::set<uint64_t> kept_generations_;  // engines whose answers must all be there: ended in good order, or verified
  ChaosTotals totals_;
};

// What a client's file lists as answered, and by which engine; a line that a kill tore does not count.
struct Acknowledged {
  uint64_t id = 0, generation = 0;
  bool operator==(const Acknowledged&) const = default;
};
std::vector<Acknowledged> AcknowledgedIn(const std::string& oracle);

}  // namespace sutra::test
