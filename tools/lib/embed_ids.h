// sutra-embed --ids: token ids as the engine would compute them, without an engine.
// Thread rule: the program's main thread.
#pragma once

#include "tools/lib/embed_options.h"

namespace sutra {

int RunEmbedIds(const EmbedOptions& options);  // the exit code

}  // namespace sutra
