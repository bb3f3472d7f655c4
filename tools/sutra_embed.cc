// sutra-embed: texts in, vectors (or token ids) out, one result per input line in the input's order. Single-threaded.
// Exit codes: embed_options.h.
#include "tools/lib/embed_engine.h"
#include "tools/lib/embed_ids.h"
#include "tools/lib/embed_options.h"
#include "tools/lib/program.h"

int main(int argc, char** argv) {
  sutra::StartProgram();
  sutra::EmbedOptions options;
  if (const auto code = sutra::ParseEmbedOptions(argc, argv, &options)) return *code;
  return options.ids ? sutra::RunEmbedIds(options) : sutra::RunEmbedEngine(options);
}
