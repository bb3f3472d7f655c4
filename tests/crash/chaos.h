// Chaos over real processes: an engine that is killed, stopped, paused and started again under clients that are killed
// and started again, and a checker that knows what was promised.
//
// Every client has an event loop beside its blocking calls, and records in a file of its own, outside the system under
// test, what it was about to send and what was answered (tests/system/chaos_client.cc). Checked:
//   - each answer of each client equals the model's function of its text (the clients check, and report by exit code);
//   - each text that an engine answered, and that its figures showed as written before its death (or that it had before
//     an orderly end), is answered by the shard of the next engine (P1, P8);
//   - no engine evicts anything: the number of different texts is bounded, so the log has room for all of them however
//     long a run is. (Without that bound a long run reaches --wal-bytes-max, and what is evicted by right looks lost.)
//     Only a disk that is smaller than the log's bound, or full, may make an engine evict: then what was kept before
//     proves nothing;
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
#include "tests/kit/small_disk.h"
#include "tests/kit/wall_clock_jumps.h"

namespace sutra::test {

struct ChaosOptions {
  uint64_t seed = 1;
  int rounds = 15;
  int clients = 4;
  uint64_t texts = 5000;  // different ones per client; later answers hit these or compute them again
  std::vector<std::string> engine_args;

  // Faults of the host, beside kills, stops and pauses. Those of disks need root (SmallDisk).
  bool clock_jumps = false;        // the wall clock jumps by days and comes back; an engine starts in 1970
  bool removed_socket = false;     // the socket file is removed under the engine
  SmallDisk* data_disk = nullptr;  // mounted at `data`; full now and then, also while an engine starts
  SmallDisk* shm_disk = nullptr;   // mounted at /dev/shm; full when an engine starts
  std::string data;

  // Canaries.
  uint64_t corrupt_every = 0;         // every N-th vector of the first client's blocking calls is damaged
  uint64_t corrupt_polled_every = 0;  // every N-th vector of its event loop
  bool socket_path_taken = false;     // something foreign takes the place of a removed socket
  bool disk_stays_full = false;
  bool shm_stays_empty = false;
  int wait_ms = kWaitMs;  // for what an operator would see within seconds
};

struct ChaosTotals {
  int engine_kills = 0, engine_stops = 0, engine_pauses = 0, client_kills = 0;
  int clock_jumps = 0, removed_sockets = 0, full_disks = 0, full_shms = 0;
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
    uint64_t corrupt_every = 0, corrupt_polled_every = 0;
    std::unique_ptr<ChildProcess> process;
  };

  bool StartClient(Client* client);
  bool StartEngine();
  bool NothingEvicted();
  bool EnginesFirstFootprint();
  bool Round(int number);
  bool KillEngineUnderLoad();
  bool KillEngineAndVerify();
  bool StopEngine();
  bool PauseEngine();
  bool KillClient();
  bool JumpClock();
  bool RemoveSocket();
  bool FillDataDisk();
  bool FillShm();
  bool WaitForAnswers(uint64_t more);
  std::vector<std::string> TextsToFind() const;
  bool VerifyShard(const std::vector<std::string>& texts);
  bool CheckClients();
  bool EndClients();
  bool HoldsWhatItShould(ProcessFootprint last) const;
  bool Fail(const std::string& why);

  const ChaosOptions options_;
  std::mt19937_64 random_;
  std::vector<bool (Chaos::*)()> rounds_;  // one is drawn per round
  TempDir clock_directory_;
  WallClockJumps clock_;
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
