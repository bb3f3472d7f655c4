/* embed.h must be plain C11; compiled with -std=c11 -pedantic-errors. */
#include "sutra/embed.h"

_Static_assert(SUTRA_FORKED == 17, "numbers are never reused");
_Static_assert(sizeof(sutra_ticket) == 8, "a ticket is a 64-bit number");

const char *sutra_header_c11(void) { return sutra_status_text(SUTRA_OK); }
