// A weights file of any bytes: refused with a message, or every tensor lies within the file and can be read.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/model/families/family.h"
#include "engine/model/safetensors.h"
#include "tests/fuzz/fuzz_target.h"

namespace sutra::fuzz {
namespace {

// The file lives in memory; the path leads to it as long as the descriptor is open.
class MemoryFile {
 public:
  explicit MemoryFile(std::string_view bytes) : fd_(memfd_create("weights", MFD_CLOEXEC)) {
    FUZZ_CHECK(fd_ >= 0);
    FUZZ_CHECK(write(fd_, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
  }
  ~MemoryFile() { close(fd_); }
  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

 private:
  int fd_;
};

constexpr EncoderSpec kTinySpec = {
    .hidden = 2, .layers = 1, .heads = 1, .intermediate = 2, .vocabulary = 2, .positions = 2};

}  // namespace

SUTRA_FUZZ_TARGET(safetensors, 16384) {
  std::string bytes;
  if (size > 0 && data[0] % 4 != 0) {
    // The length in front is correct, so that the JSON is what is tested; the file ends in `data[0]` zero bytes of
    // data.
    const uint64_t header_bytes = size - 1;
    bytes.append(reinterpret_cast<const char*>(&header_bytes), sizeof(header_bytes));
    bytes.append(reinterpret_cast<const char*>(data) + 1, size - 1);
    bytes.append(data[0], '\0');
  } else if (size > 0) {
    bytes.assign(reinterpret_cast<const char*>(data) + 1, size - 1);
  }
  const MemoryFile file(bytes);
  const Result<std::shared_ptr<SafetensorsFile>> opened = SafetensorsFile::Open(file.path());
  if (!opened.ok()) {
    FUZZ_CHECK(opened.code() == StatusCode::kModelError && !opened.status().message().empty());
    return;
  }
  const SafetensorsFile& weights = **opened;
  uint64_t covered = 0;
  for (const auto& [name, tensor] : weights.tensors()) {
    FUZZ_CHECK(weights.Find(name) == &tensor);
    FUZZ_CHECK((*opened)->Load(name).ok());
    Touch({reinterpret_cast<const char*>(tensor.bytes().data()), tensor.bytes().size()});
    covered += tensor.bytes().size();
    if (tensor.type == TensorType::kOther) continue;
    FUZZ_CHECK(ToFloats(tensor).size() == tensor.count);
    FUZZ_CHECK(tensor.Floats() == nullptr || tensor.bytes().size() == tensor.count * sizeof(float));
  }
  FUZZ_CHECK(covered <= weights.size());
  const Result<EncoderWeights> found = kBertFamily.find_weights(*opened, kTinySpec);
  FUZZ_CHECK(found.ok() || !found.status().message().empty());
}

}  // namespace sutra::fuzz
