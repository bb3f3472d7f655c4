// How close int8 comes to fp32: the vectors of both, text by text.
// Thread rule: any thread; the encoders must not be in use.
#pragma once

#include <string>
#include <vector>

#include "engine/cpu/int8/quantised_model.h"
#include "engine/cpu/int8/token_texts.h"
#include "engine/model/encoder.h"
#include "engine/tokenizer/tokenizer.h"
#include "shm/base/status.h"

namespace sutra::cpu {

struct QualityTexts {
  TokenTexts tokens;
  std::vector<std::string> names;  // the text itself where it is short, else what it is
};

// The built-in texts: the shortest ones (which int8 serves worst), long ones, numbers, code, many scripts, random ids.
QualityTexts BuiltInTexts(const Tokenizer& tokenizer, uint32_t vocabulary, uint32_t tokens_max);

// The cosines between the vectors, of `width` floats, that two encoders compute. A vector that is not finite or is zero
// has cosine -1. `kernels` of the result stays empty.
Result<Int8Quality> CompareEncoders(Encoder& exact, Encoder& quantised, size_t width, const QualityTexts& texts);

}  // namespace sutra::cpu
