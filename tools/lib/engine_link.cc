#include "tools/lib/engine_link.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

namespace sutra {

std::string WithErrorText(sutra_status status) {
  const std::string name = sutra_status_text(status);
  const std::string text = sutra_error_text();
  if (text.empty()) return name;
  return text.find(name) != std::string::npos ? text : name + ": " + text;
}

bool MeansLoss(sutra_status status) {
  return status == SUTRA_ENGINE_GONE || status == SUTRA_SHUTTING_DOWN || status == SUTRA_PROTOCOL_VIOLATION;
}

sutra_status EngineLink::Open(uint32_t timeout_ms, SharedClient* client, sutra_info* info) const {
  sutra_attach_options attach = embed::AttachOptions();
  attach.slots = options_.slots;
  attach.lanes_max = 1;
  attach.width = options_.width;
  attach.timeout_ms = timeout_ms;
  attach.model = options_.model.empty() ? nullptr : options_.model.c_str();
  attach.client_name = options_.client_name.c_str();
  sutra_client* raw = nullptr;
  sutra_status status = sutra_attach(options_.socket.c_str(), &attach, &raw);
  if (status == SUTRA_REFUSED && attach.slots != 0) {  // where texts are long, only its default number of slots may fit
    attach.slots = 0;
    status = sutra_attach(options_.socket.c_str(), &attach, &raw);
  }
  if (status != SUTRA_OK) return status;
  client->reset(raw, sutra_detach);
  *info = embed::Info();
  return sutra_get_info(raw, info);
}

Result<EngineLink> EngineLink::Attach(const LinkOptions& options) {
  EngineLink link(options);
  const sutra_status status = link.Open(0, &link.client_, &link.info_);
  if (status == SUTRA_OK) return link;
  return Status(static_cast<StatusCode>(status), "attaching to " + options.socket + ": " + WithErrorText(status));
}

Status EngineLink::Reattach() {
  SharedClient client;
  sutra_info info = embed::Info();
  const sutra_status status = Open(attempt_ms_, &client, &info);
  assert(attempt_ms_ <= kAttemptMsMax);
  attempt_ms_ = std::min(2 * attempt_ms_, kAttemptMsMax);
  if (status != SUTRA_OK) return Status(StatusCode::kNotReady, WithErrorText(status));
  if (info.width != info_.width || std::memcmp(info.identity, info_.identity, sizeof(info.identity)) != 0) {
    return Status(StatusCode::kRefused,
                  std::string("the next engine serves another model (") + info.model + ", identity " +
                      std::string(info.identity, 16) + "; before: " + info_.model + ", identity " +
                      std::string(info_.identity, 16) + "), and vectors of two models do not belong into one output");
  }
  client_ = std::move(client);
  info_ = info;
  attempt_ms_ = kAttemptMsMin;
  return Status();
}

}  // namespace sutra
