// A shared object that links one version of the client library, as a plug-in of somebody else's would.
#include "tests/abi/library_functions.h"

namespace sutra::test {

// LIBRARY_USER is the name of this object's function.
extern "C" __attribute__((visibility("default"))) LibraryFunctions LIBRARY_USER() {
  return {sutra_attach, sutra_detach, sutra_get_info, sutra_embed,
          sutra_submit, sutra_wait,   sutra_release,  sutra_error_text};
}

}  // namespace sutra::test
