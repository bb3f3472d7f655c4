// Internal to LoadModelConfig: the files that only sentence-transformers writes and reads.
// Thread rule: stateless.
#pragma once

#include <optional>
#include <string>

#include "engine/model/model_config.h"
#include "shm/base/status.h"

namespace sutra {

// modules.json: Transformer, Pooling and, optionally, Normalize. Sets transformer_dir and normalizes, and the path of
// the pooling module's configuration. Without the file, `pooling_path` stays empty.
Status ReadPipeline(ModelConfig* config, std::optional<std::string>* pooling_path);

// The pooling module's config.json.
Status ReadPooling(const std::string& path, ModelConfig* config);

// config_sentence_transformers.json: default prompt and truncate_dim.
Status ReadSentenceTransformersConfig(ModelConfig* config);

// sentence_bert_config.json or one of its older names: do_lower_case, and max_seq_length if it is given.
Status ReadTransformerModule(ModelConfig* config, std::optional<uint32_t>* tokens_max);

}  // namespace sutra
