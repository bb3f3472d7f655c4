// The client library as the tests use it: attached for the life of an object, answers as values.
// Thread rule: as sutra_client.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "producer/include/sutra/embed.hpp"

namespace sutra::test {

struct Reply {
  sutra_status status = SUTRA_NOT_READY;
  sutra_source source = SUTRA_SOURCE_NONE;
  uint32_t token_count = 0;
  bool truncated = false;
  uint64_t tag = 0;
  std::vector<float> vector;  // empty unless the status is ok
};

class ClientHandle {
 public:
  ClientHandle() = default;

  static sutra_attach_options DefaultOptions() {
    sutra_attach_options options = {};
    options.size = sizeof(options);
    options.client_name = "system test";
    return options;
  }
  static sutra_options RequestOptions(uint32_t flags = 0, uint32_t timeout_ms = 0) {
    sutra_options options = {};
    options.size = sizeof(options);
    options.flags = flags;
    options.timeout_ms = timeout_ms;
    return options;
  }

  sutra_status Attach(const std::string& socket, const sutra_attach_options& options = DefaultOptions()) {
    Detach();
    sutra_client* client = nullptr;
    const sutra_status status = sutra_attach(socket.c_str(), &options, &client);
    client_.reset(client);
    info_ = embed::Info();
    if (status == SUTRA_OK) return sutra_get_info(client, &info_);
    return status;
  }
  void Detach() { client_.reset(); }

  sutra_client* get() const { return client_.get(); }
  const sutra_info& info() const { return info_; }

  Reply Embed(const std::string& text, const sutra_options& options = RequestOptions()) const {
    std::vector<float> vector(info_.width);
    sutra_result result = embed::Result();
    Reply reply;
    reply.status = sutra_embed(client_.get(), text.data(), text.size(), &options, vector.data(), &result);
    Fill(result, vector.data(), &reply);
    return reply;
  }

  // One reply a text; *status is what the call itself returned.
  std::vector<Reply> EmbedBatch(const std::vector<std::string>& texts, sutra_status* status = nullptr,
                                const sutra_options& options = RequestOptions()) const {
    std::vector<const char*> pointers;
    std::vector<size_t> sizes;
    for (const std::string& text : texts) {
      pointers.push_back(text.data());
      sizes.push_back(text.size());
    }
    std::vector<float> vectors(texts.size() * info_.width);
    std::vector<sutra_result> results(texts.size(), embed::Result());
    const sutra_status returned = sutra_embed_batch(client_.get(), pointers.data(), sizes.data(), texts.size(),
                                                    &options, vectors.data(), results.data(),
                                                    sizeof(sutra_result));
    if (status != nullptr) *status = returned;
    std::vector<Reply> replies(texts.size());
    for (size_t i = 0; i < texts.size(); ++i) {
      replies[i].status = results[i].status;
      Fill(results[i], vectors.data() + i * info_.width, &replies[i]);
    }
    return replies;
  }

 private:
  struct Detacher {
    void operator()(sutra_client* client) const { sutra_detach(client); }
  };

  void Fill(const sutra_result& result, const float* vector, Reply* reply) const {
    reply->source = result.source;
    reply->token_count = result.token_count;
    reply->truncated = result.truncated != 0;
    reply->tag = result.tag;
    if (reply->status == SUTRA_OK) reply->vector.assign(vector, vector + info_.width);
  }

  std::unique_ptr<sutra_client, Detacher> client_;
  sutra_info info_ = embed::Info();
};

}  // namespace sutra::test
