// Sixteen blocks at a time, so that memory does not depend on the number of slots and a write of the log waits for
// microseconds only.
#include "cache/heat_file.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "cache/disk/disk_io.h"
#include "shm/base/crc32c.h"
#include "shm/base/numbers.h"

namespace sutra {
namespace {

constexpr size_t kBlocksAtOnce = 16;
constexpr size_t kSlotsPerBlock = 2040;

uint64_t BlockCount(uint64_t slots) { return DivideRoundUp(slots, kSlotsPerBlock); }

}  // namespace

struct HeatFile::Block {
  uint32_t crc = 0;  // of what follows
  uint32_t number = 0;
  uint64_t hash_seed = 0;
  std::array<SlotTable::Heat, kSlotsPerBlock> slots = {};

  uint32_t CrcNow() const {
    return Crc32c(std::as_bytes(std::span(this, 1)).data() + sizeof(crc), sizeof(*this) - sizeof(crc));
  }
};

void HeatFile::Fill(uint64_t number, Block* block) const {
  static_assert(std::is_trivially_copyable_v<Block> && sizeof(Block) == kDiskBlockBytes);
  *block = Block{};
  block->number = static_cast<uint32_t>(number);
  block->hash_seed = store_->seed();
  store_->CopyHeat(number * kSlotsPerBlock, block->slots);
  block->crc = block->CrcNow();
}

uint32_t HeatFile::CrcOfAll() const {
  uint32_t crc = 0;
  bool any = false;
  Block block;
  for (uint64_t number = 0; number < BlockCount(store_->slots_used()); ++number) {
    Fill(number, &block);
    crc = Crc32c(&block, sizeof(block), crc);
    any = any || std::any_of(block.slots.begin(), block.slots.end(), [](const auto& heat) { return heat.state != 0; });
  }
  return any ? crc : 0;
}

bool HeatFile::IsRight(std::span<const std::byte> bytes, uint64_t number) {
  Block block;
  if (bytes.size() != sizeof(block)) return false;
  std::memcpy(&block, bytes.data(), sizeof(block));
  return block.number == number && block.crc == block.CrcNow();
}

void HeatFile::Restore() {
  ReadBlocks();
  restored_.store(true, std::memory_order_relaxed);
}

void HeatFile::ReadBlocks() {
  const Result<FileHandle> file = io_->Open(directory_ + "/heat", OpenMode::kRead);
  if (!file.ok()) return;
  written_crc_.reset();  // where nothing is hot any more, the file must not say for good that something was
  std::vector<Block> chunk(kBlocksAtOnce);
  for (uint64_t first = 0;; first += kBlocksAtOnce) {
    const std::span<std::byte> bytes = std::as_writable_bytes(std::span(chunk));
    const Result<size_t> read = io_->Read(*file, first * sizeof(Block), bytes);
    if (!read.ok()) break;
    const size_t blocks = *read / sizeof(Block);
    for (size_t i = 0; i < blocks; ++i) {
      const Block& block = chunk[i];
      if (block.number != first + i || block.hash_seed != store_->seed() || block.crc != block.CrcNow()) continue;
      store_->RestoreHeat(block.number * kSlotsPerBlock, block.slots);
    }
    if (blocks < kBlocksAtOnce) break;
  }
  io_->Close(*file);
}

Status HeatFile::Write() {
  if (!restored_.load(std::memory_order_relaxed)) return {};
  const uint32_t crc = CrcOfAll();
  if (crc == written_crc_) return {};
  const std::string path = directory_ + "/heat", temporary = path + ".tmp";
  Status status = io_->Unlink(temporary);  // of an engine that died over it
  if (!status.ok() && status.os_error() != ENOENT) return status;
  const Result<FileHandle> file = io_->Open(temporary, OpenMode::kCreate);
  if (!file.ok()) return file.status();
  status = WriteBlocks(*file);
  io_->Close(*file);
  if (status.ok()) status = io_->Rename(temporary, path);
  if (status.ok()) {
    written_crc_ = crc;
    return {};
  }
  const Status removed = io_->Unlink(temporary);
  static_cast<void>(removed);  // the next one tries again
  return status;
}

Status HeatFile::WriteBlocks(int file) {
  const uint64_t blocks = BlockCount(store_->slots_used());
  std::vector<Block> chunk;
  for (uint64_t first = 0; first < blocks; first += chunk.size()) {
    chunk.resize(std::min<uint64_t>(kBlocksAtOnce, blocks - first));
    for (size_t i = 0; i < chunk.size(); ++i) Fill(first + i, &chunk[i]);
    const Status status = io_->Write(file, first * sizeof(Block), std::as_bytes(std::span(chunk)), false);
    if (!status.ok()) return status;
  }
  return {};
}

}  // namespace sutra
