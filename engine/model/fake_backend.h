// A stand-in for a model: vectors are a deterministic function of token ids and model name, tokens are bytes. For tests
// and lane benchmarks, which can therefore compute every answer without an engine.
//
// Thread rule: as ModelBackend; FakeVector is stateless.
// The environment can make it fail and wait (constructor options win):
//   SUTRA_FAKE_FAIL_AT=N    the N-th batch (1 is the first) fails with kModelError; later ones work again; of each
//                           worker
//   SUTRA_FAKE_DELAY_US=U   each batch takes at least U microseconds
//   SUTRA_FAKE_TOKENS_MAX=T tokens per text (default 8192)
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/model_backend.h"

namespace sutra {

struct FakeOptions {
  std::string name = "fake";
  uint32_t width = 384;
  std::optional<uint32_t> tokens_max = std::nullopt;
  std::optional<uint64_t> fail_at = std::nullopt;
  std::optional<uint64_t> delay_us = std::nullopt;
};

Result<std::unique_ptr<ModelBackend>> MakeFakeBackend(const FakeOptions& options);
Result<std::unique_ptr<ModelBackend>> MakeFakeBackend(const std::string& name, uint32_t width);

// The fake model's vector for these ids: `width` finite floats within [-1, 1), not normalised, never all zero.
std::vector<float> FakeVector(std::span<const int32_t> ids, std::string_view name, uint32_t width);
// The same for a text that was not truncated.
std::vector<float> FakeVector(std::string_view text, std::string_view name, uint32_t width);

}  // namespace sutra
