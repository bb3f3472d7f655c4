// Finds tensors by name, checks them against the shapes that a family requires, reads and hashes them.
#include "engine/model/encoder_weights.h"

#include <algorithm>
#include <atomic>
#include <future>
#include <optional>
#include <utility>

#include "shm/base/sha256.h"

namespace sutra {

Status TensorFinder::Problem(const std::string& what, const std::string& fix) const {
  return Status(StatusCode::kModelError, "the weights " + file_.path() + " " + what + "; " + fix);
}

const TensorView* TensorFinder::Get(const std::string& name, const std::vector<uint64_t>& shape) {
  constexpr char kForeign[] =
      "config.json and the weights belong to different models, or the download is incomplete: fetch the model again";
  if (!status_.ok()) return nullptr;
  const TensorView* found = file_.Find(prefix_ + name);
  if (found == nullptr) {
    status_ = Problem("lack the tensor " + prefix_ + name, kForeign);
  } else if (found->shape != shape) {
    status_ = Problem("hold " + prefix_ + name + " in another shape than config.json says", kForeign);
  } else if (found->type == TensorType::kOther) {
    status_ = Problem("hold " + prefix_ + name + " as " + found->type_name + "; supported: F32, F16, BF16",
                      "save the model again in one of these types (in transformers: "
                      "model.to(torch.float32).save_pretrained(...))");
  } else {
    return found;
  }
  return nullptr;
}

LinearTensors TensorFinder::Linear(const std::string& name, uint64_t out, uint64_t in) {
  return {Get(name + ".weight", {out, in}), Get(name + ".bias", {out})};
}

NormTensors TensorFinder::Norm(const std::string& name, uint64_t width) {
  const bool old_names = file_.Find(prefix_ + name + ".gamma") != nullptr;
  return {Get(name + (old_names ? ".gamma" : ".weight"), {width}),
          Get(name + (old_names ? ".beta" : ".bias"), {width})};
}

uint64_t TensorFinder::Rows(const std::string& name, uint64_t otherwise) const {
  const TensorView* found = file_.Find(prefix_ + name);
  return found != nullptr && found->shape.size() == 2 && found->shape[0] > 0 ? found->shape[0] : otherwise;
}

namespace {

std::vector<const TensorView*> ByRole(const EncoderWeights& weights) {
  std::vector<const TensorView*> tensors = {weights.words, weights.positions, weights.segments};
  const auto add_linear = [&tensors](const LinearTensors& linear) {
    tensors.insert(tensors.end(), {linear.weight, linear.bias});
  };
  const auto add_norm = [&tensors](const NormTensors& norm) { tensors.insert(tensors.end(), {norm.gain, norm.shift}); };
  add_norm(weights.embedding_norm);
  for (const LayerTensors& layer : weights.layers) {
    for (const LinearTensors* linear :
         {&layer.query, &layer.key, &layer.value, &layer.attention_out, &layer.ffn_in, &layer.ffn_out}) {
      add_linear(*linear);
    }
    add_norm(layer.attention_norm);
    add_norm(layer.ffn_norm);
  }
  return tensors;
}

// How many bytes were read, as the thread that reads tells the one that hashes.
class BytesRead {
 public:
  // Release: who sees the sum sees the bytes; meets the acquire in Await.
  void Add(uint64_t bytes) {
    sum_.fetch_add(bytes, std::memory_order_release);
    sum_.notify_one();
  }
  void GiveUp() { Add(kGivenUp); }
  // RETURNS the sum once it is more than `known`; nothing if reading was given up before.
  std::optional<uint64_t> Await(uint64_t known) const {
    sum_.wait(known, std::memory_order_acquire);
    const uint64_t sum = sum_.load(std::memory_order_acquire);
    if (sum >= kGivenUp) return std::nullopt;
    return sum;
  }

 private:
  static constexpr uint64_t kGivenUp = uint64_t{1} << 63;
  std::atomic<uint64_t> sum_{0};
};

Result<std::string> Digest(const std::vector<const TensorView*>& tensors, const BytesRead& read) {
  Sha256 hash;
  uint64_t sum = 0;     // of the bytes that were there at the last look
  uint64_t before = 0;  // of the tensors before this one
  for (const TensorView* tensor : tensors) {
    std::string line = tensor->type_name;
    for (const uint64_t extent : tensor->shape) line += " " + std::to_string(extent);
    hash.Add(line + "\n");
    for (uint64_t done = 0; done < tensor->byte_count;) {
      if (sum == before + done) {
        const std::optional<uint64_t> more = read.Await(sum);
        if (!more.has_value()) return std::string();
        sum = *more;
      }
      const uint64_t there = std::min(sum - before, tensor->byte_count);
      hash.Add(tensor->bytes().subspan(done, there - done));
      done = there;
    }
    before += tensor->byte_count;
  }
  return hash.FinishHex();
}

}  // namespace

Status ReadWeights(EncoderWeights* weights) {
  const std::vector<const TensorView*> tensors = ByRole(*weights);
  BytesRead read;
  std::future<Result<std::string>> digest = std::async(std::launch::async, [&] { return Digest(tensors, read); });
  // However this ends, the other thread must not wait for what does not come.
  const std::unique_ptr<BytesRead, void (*)(BytesRead*)> give_up(&read, [](BytesRead* bytes) { bytes->GiveUp(); });
  const auto progress = [&read](uint64_t bytes) { read.Add(bytes); };
  // The table of words is served from where it was read; all else is packed and goes.
  const std::span<const TensorView* const> all = tensors;
  for (const auto& together : {all.first(1), all.subspan(1)}) {
    if (Status status = weights->file->LoadTogether(together, progress); !status.ok()) return status;
  }
  Result<std::string> hex = digest.get();
  if (!hex.ok()) return hex.status();
  weights->digest = std::move(hex).value();
  return Status();
}

std::vector<float> ToFloats(const TensorView& tensor) {
  std::vector<float> values(tensor.count);
  tensor.CopyTo(values.data());
  return values;
}

}  // namespace sutra
