// Batches dealt into chunks, on one thread or divided among the members of a team.
#include "engine/cpu/cpu_encoder.h"

#include <algorithm>
#include <cassert>
#include <numeric>
#include <utility>

#include "shm/base/numbers.h"

namespace sutra::cpu {
namespace {

// A step has more parts than the team has members, so that a late or slowed-down member takes fewer of them.
constexpr size_t kPartsPerMember = 3;

// Chunks no larger than this share of an even split keep all members busy until the end.
constexpr double kUnevenMax = 1.3;

// With fewer tokens than these each, members would spend their time on reading all weights; together they read half.
constexpr size_t kTokensPerMemberMin = 32;

constexpr size_t kChunkUnit = 64;

size_t TokensOf(const TokenBatch& batch, size_t text) {
  return static_cast<size_t>(batch.offsets[text + 1] - batch.offsets[text]);
}

}  // namespace

size_t ChunkTokens(const KernelTable& kernels, const EncoderSpec& spec, const CacheSizes& caches) {
  const size_t element = ElementBytes(kernels.element);
  // Residual stream, elements, queries, keys and values; a slice of the inner activations is about one width more.
  const size_t token_bytes = spec.hidden * (sizeof(float) + 5 * element);
  const size_t fitting = (caches.l2_bytes + caches.l3_share_bytes / 4) / token_bytes / kChunkUnit * kChunkUnit;
  return std::clamp(fitting, kernels.chunk_tokens, std::max(kernels.chunk_tokens, kernels.chunk_tokens_max));
}

CpuEncoder::CpuEncoder(std::shared_ptr<const ForwardPass> pass, int threads, std::vector<uint32_t> cpus)
    : pass_(std::move(pass)),
      chunk_tokens_(ChunkTokens(pass_->kernels(), pass_->spec(), ReadCacheSizes("/"))),
      rows_max_(std::max<size_t>(chunk_tokens_ + chunk_tokens_ / 8, pass_->spec().tokens_max)),
      cpus_(std::move(cpus)),
      team_(std::max(threads, 1), cpus_) {
  const BufferArena arena;
  for (int member = 0; member < team_.threads(); ++member) workspaces_.push_back(pass_->MakeWorkspace(rows_max_));
}

Status CpuEncoder::Encode(const TokenBatch& batch, std::span<float* const> outputs) {
  const size_t members = static_cast<size_t>(team_.threads());
  const size_t tokens = batch.ids.size();
  const size_t full_chunks = std::max<size_t>(DivideRoundUp(tokens, chunk_tokens_), 1);
  longest_first_.resize(batch.texts());
  std::iota(longest_first_.begin(), longest_first_.end(), 0);
  std::sort(longest_first_.begin(), longest_first_.end(), [&batch](uint32_t a, uint32_t b) {
    return std::pair(TokensOf(batch, b), a) < std::pair(TokensOf(batch, a), b);
  });
  bool apart = members == 1;
  if (apart) {
    DealToFit(batch, full_chunks);
  } else if (tokens >= members * kTokensPerMemberMin && batch.texts() >= members) {
    DealToFit(batch, RoundUp(full_chunks, members));
    const auto largest = std::max_element(chunks_.begin(), chunks_.end(),
                                          [](const Chunk& a, const Chunk& b) { return a.tokens < b.tokens; });
    const double even = static_cast<double>(tokens) / static_cast<double>(chunks_.size());
    apart = static_cast<double>(largest->tokens) <= kUnevenMax * even;
  }
  if (!apart) DealToFit(batch, full_chunks);
  Gather(batch, outputs);
  apart ? RunApart() : RunTogether();
  return Status();
}

// Each text, the longest first, goes to the chunk that has the fewest tokens: at most a third more than what the best
// distribution has (Graham 1969), and with many short texts within one of them. RETURNS the tokens of the largest.
size_t CpuEncoder::Deal(const TokenBatch& batch, size_t chunks) {
  chunks_.assign(chunks, Chunk{});
  chunk_of_.resize(batch.texts());
  heap_.resize(chunks);
  std::iota(heap_.begin(), heap_.end(), 0);
  const auto more_tokens = [this](uint32_t a, uint32_t b) {
    return std::pair(chunks_[a].tokens, a) > std::pair(chunks_[b].tokens, b);
  };
  size_t largest = 0;
  for (const uint32_t text : longest_first_) {
    std::pop_heap(heap_.begin(), heap_.end(), more_tokens);
    Chunk& chunk = chunks_[heap_.back()];
    chunk.tokens += TokensOf(batch, text);
    ++chunk.text_end;  // a count until Gather
    chunk_of_[text] = heap_.back();
    largest = std::max(largest, chunk.tokens);
    std::push_heap(heap_.begin(), heap_.end(), more_tokens);
  }
  return largest;
}

// More chunks than asked for, if the texts are so uneven that one would not fit.
void CpuEncoder::DealToFit(const TokenBatch& batch, size_t chunks) {
  const size_t step = chunks;
  while (Deal(batch, std::min<size_t>(chunks, batch.texts())) > rows_max_) chunks += step;
}

// Lays out the texts in the order of their chunks.
void CpuEncoder::Gather(const TokenBatch& batch, std::span<float* const> outputs) {
  uint32_t next = 0;
  for (Chunk& chunk : chunks_) {
    chunk.text_begin = next;
    next += std::exchange(chunk.text_end, next);
  }
  std::vector<uint32_t>& order = longest_first_;  // no longer needed as such
  for (uint32_t text = 0; text < batch.texts(); ++text) order[chunks_[chunk_of_[text]].text_end++] = text;
  ids_.clear();
  offsets_.assign(1, 0);
  outputs_.clear();
  for (const uint32_t text : order) {
    const auto ids = batch.ids.subspan(static_cast<size_t>(batch.offsets[text]), TokensOf(batch, text));
    ids_.insert(ids_.end(), ids.begin(), ids.end());
    offsets_.push_back(static_cast<int32_t>(ids_.size()));
    outputs_.push_back(outputs[text]);
  }
}

void CpuEncoder::RunApart() {
  const KernelTable& kernels = pass_->kernels();
  std::atomic<size_t> next{0};
  team_.Run([&](int member) {
    kernels.prepare_thread();
    const Workspace& workspace = workspaces_[static_cast<size_t>(member)];
    // Relaxed: the exchange itself claims the chunk; the end of the team's run publishes the outputs.
    for (size_t i = next.fetch_add(1, std::memory_order_relaxed); i < chunks_.size();
         i = next.fetch_add(1, std::memory_order_relaxed)) {
      Steps steps(workspace.scratch.data());
      Run(chunks_[i], workspace, steps);
    }
    kernels.release_thread();
  });
}

void CpuEncoder::RunTogether() {
  const KernelTable& kernels = pass_->kernels();
  const size_t members = static_cast<size_t>(team_.threads());
  for (const Chunk& chunk : chunks_) {
    shared_steps_.Reset(pass_->steps());
    team_.Run([&](int member) {
      kernels.prepare_thread();
      Steps steps(&shared_steps_, members * kPartsPerMember, member == 0,
                  workspaces_[static_cast<size_t>(member)].scratch.data());
      Run(chunk, workspaces_[0], steps);
      kernels.release_thread();
    });
  }
}

void CpuEncoder::Run(const Chunk& chunk, const Workspace& workspace, Steps& steps) const {
  const size_t texts = chunk.text_end - chunk.text_begin;
  ChunkOfTexts part;
  part.offsets = std::span(offsets_).subspan(chunk.text_begin, texts + 1);
  part.ids = ids_.data() + part.offsets.front();
  part.outputs = std::span(outputs_).subspan(chunk.text_begin, texts);
  assert(part.rows() == chunk.tokens && part.rows() <= rows_max_);
  pass_->Run(part, workspace, steps);
}

}  // namespace sutra::cpu
