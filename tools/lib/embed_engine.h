// sutra-embed through an engine: texts in, vectors out, and on with the next engine when this one stops or dies.
// Thread rule: the program's main thread.
#pragma once

#include "tools/lib/embed_options.h"

namespace sutra {

int RunEmbedEngine(const EmbedOptions& options);  // the exit code

}  // namespace sutra
