// HeatFile: which entries were hot, kept over a restart in the file `heat` of the shard's directory, two bytes a slot.
// Without it every entry would begin anew in the small queue (store/eviction.h), and the first bulk job after a start
// would push out what everybody asks for.
//
// It is advice. Each block of 4 KiB has a checksum of its own, each slot eight bits of its entry's hash; what is torn,
// rotten, old or missing leaves the entries that it speaks of where a start puts them. It is written beside the old
// one and renamed, without a sync.
//
//   block: crc32c (4) | number (4) | hash seed of the log (8) | 2040 slots: state (1), tag (1)
//
// Thread rule: one Write at a time, and one Restore before it, each on any thread.
#pragma once

#include <atomic>
#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "cache/store/slot_table.h"
#include "shm/base/status.h"

namespace sutra {

class DiskIo;

class HeatFile {
 public:
  // Of the shard in `directory`, whose log has this seed.
  HeatFile(SlotTable* store, DiskIo* io, std::string directory)
      : store_(store), io_(io), directory_(std::move(directory)) {}

  // Gives the entries that are there again what the file says of them. A file that cannot be read says nothing.
  void Restore();
  // Writes down what is hot now, if that has changed; nothing before Restore, which still needs what was hot.
  Status Write();

  // Whether a block of the file has its checksum and its number.
  static bool IsRight(std::span<const std::byte> block, uint64_t number);

 private:
  struct Block;
  void ReadBlocks();
  void Fill(uint64_t number, Block* block) const;
  // 0 if nothing is hot.
  uint32_t CrcOfAll() const;
  Status WriteBlocks(int file);

  SlotTable* const store_;
  DiskIo* const io_;
  const std::string directory_;
  std::atomic<bool> restored_{false};        // relaxed: no data behind it
  std::optional<uint32_t> written_crc_ = 0;  // of all that was written last; nothing: an earlier engine has written
};

}  // namespace sutra
