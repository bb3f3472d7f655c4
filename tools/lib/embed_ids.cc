// Configuration, limit, tokenizer and default prompt are read by the engine's own code, so the ids are those that the
// engine computes with.
#include "tools/lib/embed_ids.h"

#include <fmt/format.h>

#include <memory>
#include <vector>

#include "engine/model/loaded_model.h"
#include "tools/lib/embed_job.h"
#include "tools/lib/program.h"

namespace sutra {

namespace {

int Loop(EmbedJob& job, const Tokenizer& tokenizer, uint32_t tokens_max) {
  std::vector<int32_t> ids;
  InputItem item;
  while (job.running()) {
    if (!job.Next(&item, 0)) {
      if (job.at_end()) break;
      if (!job.FlushAndNext(&item)) continue;
    }
    if (!item.error.empty()) {
      job.Failed(item, item.error);
      continue;
    }
    ids.clear();  // an empty text has ids (the special tokens), though the engine embeds none
    const Encoded encoded = tokenizer.Encode(item.text, tokens_max, &ids);
    if (encoded.truncated && job.options().reject) {
      job.Failed(item, AtLine(item.line, fmt::format("text too long: over {} tokens (--reject)", tokens_max)));
    } else {
      job.Ids(item, ids);
    }
  }
  return job.Finish("");
}

}  // namespace

int RunEmbedIds(const EmbedOptions& options) {
  const Result<ModelConfig> config = LoadModelConfig(options.model);
  if (!config.ok()) return Fail(kEmbedName, kEmbedUsage, config.status().message());
  const Result<std::unique_ptr<Tokenizer>> tokenizer = LoadTokenizer(config.value());
  if (!tokenizer.ok()) return Fail(kEmbedName, kEmbedUsage, tokenizer.status().message());
  const uint32_t tokens_max = options.tokens_max != 0 ? options.tokens_max : config.value().spec.tokens_max;
  return WithEmbedJob(options, 0, [&](EmbedJob& job) { return Loop(job, *tokenizer.value(), tokens_max); });
}

}  // namespace sutra
