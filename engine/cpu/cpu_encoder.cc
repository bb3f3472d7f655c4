// Batches cut into chunks, on one thread or divided among the members of a team.
#include "engine/cpu/cpu_encoder.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "shm/base/numbers.h"

namespace sutra::cpu {
namespace {

// A step has more parts than the team has members, so that a late or slowed-down member takes fewer of them.
constexpr size_t kPartsPerMember = 3;

// Chunks no larger than this share of an even split keep all members busy until the end.
constexpr double kUnevenMax = 1.3;

}  // namespace

CpuEncoder::CpuEncoder(std::shared_ptr<const ForwardPass> pass, int threads)
    : pass_(std::move(pass)), team_(std::max(threads, 1)) {
  rows_max_ = std::max<size_t>(pass_->kernels().chunk_tokens, pass_->spec().tokens_max);
  const BufferArena arena;
  for (int member = 0; member < team_.threads(); ++member) workspaces_.push_back(pass_->MakeWorkspace(rows_max_));
}

Status CpuEncoder::Encode(const TokenBatch& batch, std::span<float* const> outputs) {
  const KernelTable& kernels = pass_->kernels();
  const size_t members = static_cast<size_t>(team_.threads());
  const size_t tokens = batch.ids.size();
  const size_t even = std::min(rows_max_, std::max<size_t>(1, DivideRoundUp(tokens, members)));
  const bool balanced = CutIntoChunks(batch, std::min(kernels.chunk_tokens, even));
  if (members == 1 || (chunks_.size() >= members && balanced)) {
    std::atomic<size_t> next{0};
    team_.Run([&](int member) {
      kernels.prepare_thread();
      const Workspace& workspace = workspaces_[static_cast<size_t>(member)];
      // Relaxed: the exchange itself claims the chunk; the end of the team's run publishes the outputs.
      for (size_t i = next.fetch_add(1, std::memory_order_relaxed); i < chunks_.size();
           i = next.fetch_add(1, std::memory_order_relaxed)) {
        Steps steps(workspace.scratch.data());
        Run(batch, chunks_[i], workspace, steps, outputs);
      }
      kernels.release_thread();
    });
  } else {
    (void)CutIntoChunks(batch, kernels.chunk_tokens);
    for (const Chunk& chunk : chunks_) {
      shared_steps_.Reset(pass_->steps());
      team_.Run([&](int member) {
        kernels.prepare_thread();
        Steps steps(&shared_steps_, members * kPartsPerMember, member == 0,
                    workspaces_[static_cast<size_t>(member)].scratch.data());
        Run(batch, chunk, workspaces_[0], steps, outputs);
        kernels.release_thread();
      });
    }
  }
  return Status();
}

void CpuEncoder::Run(const TokenBatch& batch, const Chunk& chunk, const Workspace& workspace, Steps& steps,
                     std::span<float* const> outputs) const {
  const size_t texts = chunk.text_end - chunk.text_begin;
  ChunkOfTexts part;
  part.offsets = batch.offsets.subspan(chunk.text_begin, texts + 1);
  part.ids = batch.ids.data() + part.offsets.front();
  part.outputs = outputs.subspan(chunk.text_begin, texts);
  assert(part.rows() <= rows_max_);
  pass_->Run(part, workspace, steps);
}

// Puts whole texts, in order, into chunks until each is full. False if a chunk is much larger than asked for.
bool CpuEncoder::CutIntoChunks(const TokenBatch& batch, size_t tokens_per_chunk) {
  chunks_.clear();
  size_t largest = 0;
  for (uint32_t text = 0; text < batch.texts();) {
    Chunk chunk{text, text + 1};
    const int32_t begin = batch.offsets[text];
    while (chunk.text_end < batch.texts() &&
           static_cast<size_t>(batch.offsets[chunk.text_end + 1] - begin) <= tokens_per_chunk) {
      ++chunk.text_end;
    }
    largest = std::max(largest, static_cast<size_t>(batch.offsets[chunk.text_end] - begin));
    chunks_.push_back(chunk);
    text = chunk.text_end;
  }
  return static_cast<double>(largest) <= kUnevenMax * static_cast<double>(tokens_per_chunk);
}

}  // namespace sutra::cpu
