// The functions of one copy of the client library, for a process that has two.
#pragma once

#include "producer/include/sutra/embed.h"

namespace sutra::test {

struct LibraryFunctions {
  decltype(&sutra_attach) attach;
  decltype(&sutra_detach) detach;
  decltype(&sutra_get_info) get_info;
  decltype(&sutra_embed) embed;
  decltype(&sutra_submit) submit;
  decltype(&sutra_wait) wait;
  decltype(&sutra_release) release;
  decltype(&sutra_error_text) error_text;
};

}  // namespace sutra::test
