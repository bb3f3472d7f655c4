/* Embeds one text and prints its vector: embed_one SOCKET [TEXT] */
#include <stdio.h>
#include <string.h>
#include <sutra/embed.h>

int main(int argc, char** argv) {
  sutra_client* client;
  sutra_ticket ticket;
  sutra_result result = {.size = sizeof(result)};
  const char* text = argc > 2 ? argv[2] : "Revenue grew by twelve percent in the third quarter.";
  if (argc < 2) {
    fprintf(stderr, "usage: %s SOCKET [TEXT]\n", argv[0]);
    return 2;
  }
  if (sutra_attach(argv[1], NULL, &client) != SUTRA_OK) {
    fprintf(stderr, "attach: %s\n", sutra_error_text());
    return 1;
  }
  sutra_status status = sutra_submit(client, text, strlen(text), NULL, &ticket);
  if (status == SUTRA_OK) {
    status = sutra_wait(client, ticket, 30000, &result);
    if (status == SUTRA_OK) { /* result.vector lies in shared memory: read it in place, then release */
      printf("%u floats from %u tokens:", result.width, result.token_count);
      for (unsigned i = 0; i < result.width && i < 8; ++i) printf(" %.6f", result.vector[i]);
      printf(" ...\n");
    }
    sutra_release(client, ticket);
  }
  if (status != SUTRA_OK) fprintf(stderr, "embed: %s: %s\n", sutra_status_text(status), sutra_error_text());
  sutra_detach(client);
  return status == SUTRA_OK ? 0 : 1;
}
