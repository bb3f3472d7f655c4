/* embed.h must be plain C11; compiled with -std=c11 -pedantic-errors. */
#include "sutra/embed.h"

#if SUTRA_OK != 0 || SUTRA_BAD_ARGUMENT != 18
#error "constants are usable by the preprocessor, and numbers are never reused"
#endif
_Static_assert(sizeof(sutra_ticket) == 8, "a ticket is a 64-bit number");
_Static_assert(_Generic((sutra_status)0, uint32_t : 1, default : 0), "an enumeration is a uint32_t");
_Static_assert(_Generic(SUTRA_OK, uint32_t : 1, default : 0), "and so are its constants");

sutra_attach_options sutra_header_c11_defaults(void) {
  const sutra_attach_options defaults = SUTRA_ATTACH_OPTIONS_INIT;
  return defaults;
}
const char* sutra_header_c11(void) { return sutra_status_text(SUTRA_OK); }
