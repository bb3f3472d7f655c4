// The client library as the tests use it: embed.hpp with answers as values of their own.
// Thread rule: as sutra_client.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "producer/include/sutra/embed.hpp"

namespace sutra::test {

struct Reply {
  // What was stored comes from the shard, or from the hot table if it is known to be asked for.
  bool FromCache() const { return source == SUTRA_SOURCE_SHARD || source == SUTRA_SOURCE_HOT_TABLE; }

  sutra_status status = SUTRA_NOT_READY;
  sutra_source source = SUTRA_SOURCE_NONE;
  uint32_t token_count = 0;
  bool truncated = false;
  uint64_t tag = 0;
  std::vector<float> vector;  // empty unless the status is ok
};

class ClientHandle {
 public:
  static sutra_attach_options DefaultOptions() {
    sutra_attach_options options = embed::AttachOptions();
    options.client_name = "system test";
    return options;
  }
  static sutra_options RequestOptions(uint32_t flags = 0, uint32_t timeout_ms = 0) {
    sutra_options options = embed::RequestOptions();
    options.flags = flags;
    options.timeout_ms = timeout_ms;
    return options;
  }

  sutra_status Attach(const std::string& socket, const sutra_attach_options& options = DefaultOptions()) {
    return client_.Attach(socket, options);
  }
  void Detach() { client_.Detach(); }

  sutra_client* get() const { return client_.get(); }
  const sutra_info& info() const { return client_.info(); }

  Reply Embed(const std::string& text, const sutra_options& options = RequestOptions()) const {
    return AsReply(client_.Embed(text, options));
  }

  // One reply per text; *status is what the call itself returned.
  std::vector<Reply> EmbedBatch(const std::vector<std::string>& texts, sutra_status* status = nullptr,
                                const sutra_options& options = RequestOptions()) const {
    std::vector<Reply> replies;
    for (embed::Embedding& embedding : client_.EmbedBatch({texts.begin(), texts.end()}, options, status)) {
      replies.push_back(AsReply(std::move(embedding)));
    }
    return replies;
  }

 private:
  static Reply AsReply(embed::Embedding embedding) {
    Reply reply;
    reply.status = embedding.status;
    reply.source = embedding.result.source;
    reply.token_count = embedding.result.token_count;
    reply.truncated = embedding.result.truncated != 0;
    reply.tag = embedding.result.tag;
    reply.vector = std::move(embedding.vector);
    return reply;
  }

  embed::Client client_;
};

}  // namespace sutra::test
