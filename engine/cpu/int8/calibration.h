// Runs texts through an encoder in fp32 and gathers what its products read.
// Thread rule: any thread; the team must not be in use.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "engine/cpu/float_pass.h"
#include "engine/cpu/int8/input_moments.h"
#include "engine/cpu/int8/token_texts.h"
#include "engine/cpu/packed_model.h"
#include "engine/cpu/work_team.h"

namespace sutra::cpu {

using LayerMoments = std::array<InputMoments, kLinearRoles>;

// Of the layers [layer_begin, layer_end) of `model`, which is packed in fp32 for `kernels`. The members of the team
// share the texts; the result has the same bytes for any number of them. Memory: 4 depth^2 bytes per product, and some
// megabytes of buffers per member; throws where it runs out. Logs its progress once a second.
std::vector<LayerMoments> GatherMoments(const std::shared_ptr<const PackedModel>& model, const KernelTable& kernels,
                                        const TokenTexts& texts, size_t layer_begin, size_t layer_end, WorkTeam* team);

}  // namespace sutra::cpu
