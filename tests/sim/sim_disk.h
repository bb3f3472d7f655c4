// SimDisk: a disk in memory that behaves as badly as real ones may. Behind the same seam as io_uring and plain calls.
//
// Rules:
//  - A file has durable bytes and a list of unsynced operations; a directory likewise. Reads see everything (page
//    cache).
//  - Sync makes a file's operations durable. When it is made to fail, it drops a random subset of them permanently and
//    the next sync succeeds, as with real kernels.
//  - A sync that was begun makes durable, when it ends, what was written before it began. Whether it is done (SyncDone)
//    is a matter of chance where a test wants that (SetSlowSyncs).
//  - A power cut applies, drops, tears (512-byte sectors) or fills with garbage each unsynced operation on its own;
//    directory operations apply or not.
//  - The n-th operation can fail, once or from then on, be short, or be the one at which the power goes.
//  - A block of a file can be unreadable, as over a bad sector: every read that touches it fails with EIO.
// Thread-safe. Deterministic for one seed when one thread uses it.
#pragma once

#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "cache/disk/disk_io.h"

namespace sutra::sim {

class SimDisk : public DiskIo {
 public:
  explicit SimDisk(uint64_t seed = 1) : seed_(seed), random_(seed) {}

  struct Faults {
    uint64_t fail_at = 0;  // number of the operation (from 1, counted from SetFaults) that fails; 0: none
    int fail_errno = 5;    // EIO
    bool fail_forever = false;
    uint64_t power_off_at = 0;
    uint64_t short_at = 0;  // this write moves `short_bytes` only
    size_t short_bytes = 0;
    unsigned noise_percent = 0;  // chance of EINTR, EAGAIN or a short write
  };
  void SetFaults(const Faults& faults);
  uint64_t operations() const;   // since SetFaults
  struct Failures {              // operations that a fault has made fail, since the disk was made
    uint64_t all = 0, full = 0;  // full: with ENOSPC
  };
  Failures failures() const;
  void SetCapacity(uint64_t bytes);
  void SetFileLimit(uint64_t bytes);  // like RLIMIT_FSIZE, for what is allocated

  // The chance, each time that SyncDone is asked, that a sync under way is not done yet.
  void SetSlowSyncs(unsigned percent);
  bool SyncDone(FileHandle file) override;

  // What is left after a power cut. Open handles become invalid; faults are cleared.
  void PowerCut();
  // What is left after the process was killed: everything that was done.
  void ProcessKill();

  // Keeps a copy of the disk as it is before each `every`-th operation from now on, the `first`-th one first; 0: none.
  // A copy has no open files and no faults.
  void KeepCopies(uint64_t every, uint64_t first);
  std::vector<std::unique_ptr<SimDisk>> TakeCopies();
  std::unique_ptr<SimDisk> Copy() const;

  // Direct access to what a file holds, for damage at rest. Changes are durable.
  std::vector<std::byte> Bytes(const std::string& path) const;
  void SetBytes(const std::string& path, std::vector<std::byte> bytes);
  std::vector<std::string> Paths() const;
  // Makes the block that holds byte `offset` unreadable, until SetBytes replaces the file.
  void SpoilBlock(const std::string& path, uint64_t offset);
  // What reads were asked for since the disk was made, failed ones included.
  struct ReadCost {
    uint64_t calls = 0, bytes = 0;
  };
  ReadCost read_cost() const;

  const char* name() const override { return "simulated"; }
  Result<uint64_t> Size(FileHandle file) override;
  void DropCache(FileHandle file) override;
  Status SyncDirectory(const std::string& path) override;
  Status Unlink(const std::string& path) override;
  Status MakeDirectory(const std::string& path) override;
  Result<std::vector<std::string>> List(const std::string& path) override;

 protected:
  int RawOpen(const std::string& path, OpenMode mode) override;
  Status RawRename(const std::string& from, const std::string& to) override;
  void RawClose(FileHandle file) override;
  int64_t RawRead(FileHandle file, uint64_t offset, std::span<std::byte> into) override;
  int RawAllocate(FileHandle file, uint64_t bytes, AllocateFill fill) override;
  void RawSubmit(const Operation& operation) override SUTRA_REQUIRES(in_flight_mutex_);
  Completion RawReap() override SUTRA_REQUIRES(in_flight_mutex_);
  void RawBeginSync(FileHandle file) override;
  int RawSync(FileHandle file) override;

 private:
  struct FileOperation {
    uint64_t offset = 0;
    std::vector<std::byte> data;
    uint64_t size = 0;  // an allocation when data is empty
  };
  static constexpr size_t kNoSync = SIZE_MAX;
  struct Node {
    std::vector<std::byte> durable;
    std::vector<std::byte> current;
    std::vector<FileOperation> unsynced;
    size_t begun = kNoSync;         // how many of the unsynced operations the sync under way covers
    std::set<uint64_t> unreadable;  // numbers of blocks
  };
  using NodePtr = std::shared_ptr<Node>;
  struct NameOperation {
    std::string remove;  // name to remove, if any
    std::string add;     // name to add, if any
    NodePtr node;
  };
  struct Handle {
    NodePtr node;
    bool whole_blocks = false;
    bool read_only = false;
  };

  // Counts an operation; 0 or the negative errno it fails with.
  int BeginLocked() SUTRA_REQUIRES(mutex_);
  int SyncNodeLocked(Node* node, size_t operations) SUTRA_REQUIRES(mutex_);  // the first of the unsynced ones
  void ApplyLocked(std::vector<std::byte>* bytes, const FileOperation& operation, bool torn) SUTRA_REQUIRES(mutex_);
  uint64_t UsedBytesLocked() const SUTRA_REQUIRES(mutex_);
  std::unique_ptr<SimDisk> CopyLocked() const SUTRA_REQUIRES(mutex_);
  uint64_t RandomLocked(uint64_t below) SUTRA_REQUIRES(mutex_) {
    return std::uniform_int_distribution<uint64_t>(0, below - 1)(random_);
  }

  const uint64_t seed_;
  mutable Mutex mutex_;
  std::mt19937_64 random_ SUTRA_GUARDED_BY(mutex_);
  Faults faults_ SUTRA_GUARDED_BY(mutex_);
  uint64_t operations_ SUTRA_GUARDED_BY(mutex_) = 0;
  Failures failures_ SUTRA_GUARDED_BY(mutex_);
  ReadCost read_cost_ SUTRA_GUARDED_BY(mutex_);
  unsigned slow_syncs_percent_ SUTRA_GUARDED_BY(mutex_) = 0;
  uint64_t capacity_ SUTRA_GUARDED_BY(mutex_) = UINT64_MAX;
  uint64_t file_limit_ SUTRA_GUARDED_BY(mutex_) = UINT64_MAX;
  bool powered_off_ SUTRA_GUARDED_BY(mutex_) = false;
  bool cutting_ SUTRA_GUARDED_BY(mutex_) = false;  // the operation under way is the one at which the power goes
  std::map<std::string, NodePtr> names_ SUTRA_GUARDED_BY(mutex_);
  std::map<std::string, NodePtr> durable_names_ SUTRA_GUARDED_BY(mutex_);
  std::map<std::string, std::vector<NameOperation>> unsynced_names_ SUTRA_GUARDED_BY(mutex_);  // by directory
  std::map<std::string, bool> directories_ SUTRA_GUARDED_BY(mutex_);
  std::map<FileHandle, Handle> handles_ SUTRA_GUARDED_BY(mutex_);
  FileHandle next_handle_ SUTRA_GUARDED_BY(mutex_) = 3;
  uint64_t copy_every_ SUTRA_GUARDED_BY(mutex_) = 0;
  uint64_t copy_in_ SUTRA_GUARDED_BY(mutex_) = 0;  // operations until the next copy
  uint64_t copied_ SUTRA_GUARDED_BY(mutex_) = 0;
  std::vector<std::unique_ptr<SimDisk>> copies_ SUTRA_GUARDED_BY(mutex_);
  Completion completion_ SUTRA_GUARDED_BY(in_flight_mutex_);
};

}  // namespace sutra::sim
