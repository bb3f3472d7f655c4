// Simulated disks that do not do what they report: canaries for the runs with power cuts.
#pragma once

#include "tests/sim/sim_disk.h"

namespace sutra::sim {

// Reports that it synced, but does not.
class LyingDisk final : public SimDisk {
 public:
  using SimDisk::SimDisk;

 protected:
  void RawSubmit(const Operation& operation) override SUTRA_REQUIRES(in_flight_mutex_) {
    Operation unsynced = operation;
    unsynced.then_sync = false;
    SimDisk::RawSubmit(unsynced);
    lie_ = operation.then_sync;
  }
  Completion RawReap() override SUTRA_REQUIRES(in_flight_mutex_) {
    Completion completion = SimDisk::RawReap();
    if (lie_ && completion.write >= 0) completion.sync = 0;
    return completion;
  }
  int RawSync(FileHandle) override SUTRA_REQUIRES(in_flight_mutex_) { return 0; }

 private:
  bool lie_ = false;
};

// Makes directory changes durable only by chance.
class ForgetfulDirectoryDisk final : public SimDisk {
 public:
  using SimDisk::SimDisk;
  Status SyncDirectory(const std::string&) override { return {}; }
};

}  // namespace sutra::sim
