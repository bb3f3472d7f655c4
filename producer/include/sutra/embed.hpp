// C++17 wrapper of embed.h: the same calls, with owners instead of pairs of calls. Header-only; adds no state.
// Statuses are returned, never thrown. Thread rule as in embed.h.
#ifndef SUTRA_EMBED_HPP
#define SUTRA_EMBED_HPP

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "embed.h"

namespace sutra::embed {

// The defaults, with the size set, as every structure must be.
inline sutra_attach_options AttachOptions() {
  sutra_attach_options options = SUTRA_ATTACH_OPTIONS_INIT;
  return options;
}
inline sutra_options RequestOptions() {
  sutra_options options{};
  options.size = sizeof(options);
  return options;
}
inline sutra_batch_options BatchOptions() {
  sutra_batch_options options{};
  options.size = sizeof(options);
  return options;
}
inline sutra_info Info() {
  sutra_info info{};
  info.size = sizeof(info);
  return info;
}
inline sutra_result Result() {
  sutra_result result{};
  result.size = sizeof(result);
  return result;
}

// One text in flight, or its result in place. Releases on destruction; must not outlive its Client.
class Ticket {
 public:
  Ticket() = default;
  Ticket(sutra_client* client, sutra_ticket ticket) : client_(client), ticket_(ticket) {}
  Ticket(Ticket&& other) noexcept
      : client_(std::exchange(other.client_, nullptr)), ticket_(std::exchange(other.ticket_, 0)) {}
  Ticket& operator=(Ticket&& other) noexcept {
    std::swap(client_, other.client_);
    std::swap(ticket_, other.ticket_);
    return *this;
  }
  ~Ticket() { Release(); }

  explicit operator bool() const { return ticket_ != 0; }
  sutra_ticket id() const { return ticket_; }
  // result.vector is valid until Release. SUTRA_NOT_READY: the ticket stays valid.
  sutra_result Wait(uint32_t timeout_ms) {
    sutra_result result = Result();
    sutra_wait(client_, ticket_, timeout_ms, &result);
    return result;
  }
  // If it is done: copies the vector to `vector`, which has room for `floats`, and gives the slot back; result.vector
  // is `vector` then. SUTRA_NOT_READY and SUTRA_BAD_ARGUMENT (not enough room): the ticket stays valid.
  sutra_result Take(float* vector, size_t floats) {
    sutra_result result = Result();
    sutra_take(client_, ticket_, vector, floats, &result);
    if (result.status != SUTRA_NOT_READY && result.status != SUTRA_BAD_ARGUMENT) ticket_ = 0;
    return result;
  }
  void Cancel() { sutra_cancel(client_, ticket_); }
  void Release() {
    if (ticket_ != 0) sutra_release(client_, std::exchange(ticket_, 0));
  }

 private:
  sutra_client* client_ = nullptr;
  sutra_ticket ticket_ = 0;
};

// One text's outcome with a vector of its own.
struct Embedding {
  sutra_status status = SUTRA_MODEL_ERROR;
  sutra_result result = Result();  // result.vector is null: use `vector`
  std::vector<float> vector;       // empty unless status is SUTRA_OK
};

class Client {
 public:
  Client() = default;
  Client(Client&& other) noexcept : client_(std::exchange(other.client_, nullptr)), info_(other.info_) {}
  Client& operator=(Client&& other) noexcept {
    std::swap(client_, other.client_);
    std::swap(info_, other.info_);
    return *this;
  }
  ~Client() { Detach(); }

  sutra_status Attach(const std::string& path, const sutra_attach_options& options = AttachOptions()) {
    Detach();
    info_ = Info();
    const sutra_status status = sutra_attach(path.c_str(), &options, &client_);
    return status == SUTRA_OK ? sutra_get_info(client_, &info_) : status;
  }
  void Detach() { sutra_detach(std::exchange(client_, nullptr)); }

  explicit operator bool() const { return client_ != nullptr; }
  sutra_client* get() const { return client_; }
  const sutra_info& info() const { return info_; }  // as of the attach
  static const char* ErrorText() { return sutra_error_text(); }

  sutra_status Submit(std::string_view text, Ticket* ticket, const sutra_options& options = RequestOptions()) const {
    sutra_ticket id = 0;
    const sutra_status status = sutra_submit(client_, text.data(), text.size(), &options, &id);
    if (status == SUTRA_OK) *ticket = Ticket(client_, id);
    return status;
  }

  Embedding Embed(std::string_view text, const sutra_options& options = RequestOptions()) const {
    Embedding embedding;
    embedding.vector.resize(Width(options));
    embedding.status =
        sutra_embed(client_, text.data(), text.size(), &options, embedding.vector.data(), &embedding.result);
    Finish(&embedding);
    return embedding;
  }

  size_t FreeSlots() const { return sutra_free_slots(client_); }
  void CancelAll() const { sutra_cancel_all(client_); }  // also from a signal handler
  int EventFd() const { return sutra_event_fd(client_); }
  // Of the tickets that are done and were not reported before, as many as *results has entries, whose tickets their
  // owners release. RETURNS how many.
  size_t Poll(std::vector<sutra_result>* results) const {
    if (!results->empty()) results->front().size = sizeof(sutra_result);
    return sutra_poll(client_, results->data(), sizeof(sutra_result), results->size());
  }
  // The first of `tickets` that is done: SUTRA_OK, *index and *result; SUTRA_NOT_READY when the time is over.
  sutra_status WaitAny(const std::vector<sutra_ticket>& tickets, uint32_t timeout_ms, size_t* index,
                       sutra_result* result) const {
    *result = Result();
    return sutra_wait_any(client_, tickets.data(), tickets.size(), timeout_ms, index, result);
  }
  // All of `tickets`, a result each.
  sutra_status WaitAll(const std::vector<sutra_ticket>& tickets, uint32_t timeout_ms,
                       std::vector<sutra_result>* results) const {
    results->assign(tickets.size(), Result());
    return sutra_wait_all(client_, tickets.data(), tickets.size(), timeout_ms, results->data(), sizeof(sutra_result));
  }

  // In the order of the texts, one status each; *status is what the call itself returned.
  std::vector<Embedding> EmbedBatch(const std::vector<std::string_view>& texts,
                                    const sutra_options& options = RequestOptions(), sutra_status* status = nullptr,
                                    const sutra_batch_options& batch = BatchOptions()) const {
    const size_t width = Width(options);
    std::vector<const char*> pointers;
    std::vector<size_t> sizes;
    for (const std::string_view text : texts) {
      pointers.push_back(text.data());
      sizes.push_back(text.size());
    }
    std::vector<float> vectors(texts.size() * width);
    std::vector<sutra_result> results(texts.size(), Result());
    const sutra_status returned = sutra_embed_batch(client_, pointers.data(), sizes.data(), texts.size(), &options,
                                                    &batch, vectors.data(), results.data(), sizeof(sutra_result));
    if (status != nullptr) *status = returned;
    std::vector<Embedding> embeddings(texts.size());
    for (size_t i = 0; i < texts.size(); ++i) {
      embeddings[i].status = results[i].status;
      embeddings[i].result = results[i];
      embeddings[i].vector.assign(vectors.data() + i * width, vectors.data() + (i + 1) * width);
      Finish(&embeddings[i]);
    }
    return embeddings;
  }

 private:
  size_t Width(const sutra_options& options) const { return options.width != 0 ? options.width : info_.width; }
  static void Finish(Embedding* embedding) {
    embedding->result.vector = nullptr;
    embedding->result.data = nullptr;
    embedding->vector.resize(embedding->status == SUTRA_OK ? embedding->result.width : 0);
  }

  sutra_client* client_ = nullptr;
  sutra_info info_ = Info();
};

}  // namespace sutra::embed

#endif
