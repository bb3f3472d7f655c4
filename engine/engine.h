// One engine, as a sequence of steps that main.cc names: the Status of each start-up step says what failed and how to
// fix it; Serve returns when the drain is over; Stop leaves nothing unfinished.
//
// Thread rule: the main thread, which is also the loop thread.
// Invariants: each step is taken at most once, in the order in which the steps are declared here; members are declared
// in that order too, so that they are destroyed in reverse: the workers before what they use, the locks last.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "cache/cache_shard.h"
#include "cache/disk/disk_io.h"
#include "engine/backend_choice.h"
#include "engine/config.h"
#include "engine/control/admin_thread.h"
#include "engine/control/cache_commands.h"
#include "engine/exit_code.h"
#include "engine/file_watch.h"
#include "engine/identity_keeper.h"
#include "engine/lanes/listening_socket.h"
#include "engine/serving/device_worker.h"
#include "engine/serving/engine_loop.h"
#include "engine/serving/hot_refill.h"
#include "engine/serving/long_worker.h"
#include "engine/serving/served_model.h"
#include "engine/shard_opener.h"
#include "engine/standby.h"
#include "engine/start_traces.h"
#include "shm/base/engine_lock.h"
#include "shm/base/log_line.h"
#include "shm/stats/stats_segment.h"

namespace sutra {

class Engine {
 public:
  explicit Engine(const EngineConfig& config);
  ~Engine();  // of a start that failed: takes away what it had created

  // Blocks signals, guards against faults in clients' memory, raises the limit of descriptors. Before any thread
  // exists.
  Status PrepareProcess();
  // DATA/LOCK (unless there is no cache), then SOCKET.lock. kRefused: another engine holds one; the message names it.
  Status Lock();
  // SIGTERM and SIGINT end the process meanwhile, with exit code 0.
  Status LoadModel();
  // Instead of Lock, and after LoadModel: waits until the engine that holds the locks has ended. kCancelled: a signal
  // came first. kRefused: that engine serves another model.
  Status LockInTurn();
  // The stats segment, the engine page, the hot table, the socket (not shown yet): whatever may be short is found to be
  // so before the cache is touched.
  Status Reserve();
  // In the directory named after the model's identity. An engine that took over opens it behind: clients that lost
  // their engine are served by the model meanwhile.
  Status OpenCache();
  // The loop, the workers, and the socket where clients find them.
  Status Show();

  EngineLoop::End Serve();
  // Requests taken are answered, stored and synced before the lanes are marked closed. The locks are given back once
  // nothing here touches what they protect: the next engine does not wait until the memory is given back, too.
  ExitCode Stop(EngineLoop::End end);

 private:
  CacheConfig MakeCacheConfig() const;
  Acceptor::Options MakeAttachOptions();
  ServedModel::Options MakeModelOptions();
  FileWatch::Options MakeWatchOptions();
  OtherIdentities::Options MakeIdentityOptions() const;
  ControlSessions::Options MakeControlOptions();
  CacheCommands::Options MakeCommandOptions();
  bool HasLog() const;
  void ShowAll(const EngineLoop::Vitals& vitals);
  Status MakeHotTable();
  void FillHotTable();
  void KeepIdentities();
  Status StartWorkers();
  const ModelInfo& info() const { return backends_.front()->info(); }
  Result<std::unique_ptr<CacheShard>> OpenShard();
  void OpenCacheBehind();
  std::string DataLockPath() const;
  std::string SocketLockPath() const;
  Status MakeDataDirectory();
  Result<Standby::Turn> AwaitTurn();
  Status AwaitFreeSocket();
  void BeginTurn();
  void RemoveTraces();
  [[noreturn]] void LeaveWhileLoading();

  const EngineConfig& config_;
  LogBudgets client_logs_;  // for messages that clients can provoke
  std::optional<Shutdown> shutdown_;
  StartTraces traces_;
  bool served_ = false;
  uint64_t locked_ns_ = 0;     // since when the locks are held
  uint64_t took_over_ns_ = 0;  // when the locks of the engine before were free; 0: there was none
  std::optional<EngineLock> data_lock_, socket_lock_;
  uint64_t files_max_ = 0;  // descriptors
  ClientTable::Limits lane_limits_;
  uint64_t generation_ = 0;
  Backends backends_;
  std::unique_ptr<HotCache> hot_;  // null: there is none
  std::unique_ptr<DiskIo> disk_;
  std::unique_ptr<CacheShard> cache_;  // null with --no-cache
  std::unique_ptr<StatsSegment> stats_segment_;
  StatsWriter stats_;
  EnginePageMemory page_;
  std::optional<ListeningSocket> listener_;
  std::optional<FileWatch> watch_;
  std::optional<ServedModel> model_;
  std::optional<ShardOpener> opener_;
  std::optional<CacheCommands> commands_;  // none with --no-cache, and then no thread
  std::optional<AdminThread> admin_;
  std::optional<EngineLoop> loop_;
  std::deque<DeviceWorker> workers_;  // one per backend
  std::optional<LongWorker> long_worker_;
  std::optional<HotRefill> hot_refill_;
  std::optional<IdentityKeeper> identity_keeper_;
};

}  // namespace sutra
