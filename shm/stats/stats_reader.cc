#include "shm/stats/stats_reader.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/interprocess/exceptions.hpp>
#include <boost/interprocess/shared_memory_object.hpp>
#include <cassert>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <memory>

#include "shm/base/printable.h"
#include "shm/base/time.h"
#include "shm/stats/stats_layout.h"
#include "shm/stats/stats_name.h"

namespace sutra {
namespace ipc = boost::interprocess;

namespace {

constexpr uint64_t kSegmentBytesMax = 16u << 20;  // a segment of ours has about 220 KiB
constexpr uint32_t kTableEntriesMax = 4096;
constexpr uint32_t kBanksMax = 256;
constexpr uint32_t kHistogramBucketsMax = 16 * 60;  // as far as bucket bounds fit 64 bits

// Text from the segment must not steer the reader's terminal.
std::string FieldText(std::span<const char> field) { return Printable(FieldView(field), HighBytes::kKeep); }

// A view of the private copy; all reads go through At, which refuses what does not fit.
class Bytes {
 public:
  explicit Bytes(std::span<const std::byte> bytes) : bytes_(bytes) {}
  // By subtraction, so that no offset can wrap.
  bool Fits(uint64_t offset, uint64_t count, uint64_t stride) const {
    if (offset > bytes_.size()) return false;
    return count == 0 || stride == 0 ? stride != 0 : count <= (bytes_.size() - offset) / stride;
  }
  template <typename T>
  void Copy(uint64_t offset, T* value) const {
    assert(Fits(offset, 1, sizeof(T)));  // CheckHeader made sure of it
    std::memcpy(value, bytes_.data() + offset, sizeof(T));
  }

 private:
  std::span<const std::byte> bytes_;
};

// The fields of StatsHeader that an observer needs, as plain values.
struct Header {
  alignas(StatsHeader) std::byte raw[sizeof(StatsHeader)];
  const StatsHeader& fields() const { return *reinterpret_cast<const StatsHeader*>(raw); }
};

Status NotStats(const std::string& why) { return Status(StatusCode::kRefused, "not a usable stats segment: " + why); }

Status CheckHeader(const Bytes& bytes, const StatsHeader& h) {
  if (h.magic != kStatsMagic) return NotStats("invalid magic number");
  if (h.counters > kTableEntriesMax || h.gauges > kTableEntriesMax || h.histograms > kTableEntriesMax ||
      h.histogram_buckets > kHistogramBucketsMax) {
    return NotStats("a table has more entries than any engine creates");
  }
  if (h.counter_stride_bytes < sizeof(uint64_t) || h.counter_stride_bytes > 4096) {
    return NotStats("invalid counter stride");
  }
  const uint64_t histogram_bytes = offsetof(StatsHistogram, buckets) + uint64_t{h.histogram_buckets} * 8;
  if (h.histogram_stride_bytes < histogram_bytes) return NotStats("invalid histogram stride");
  if (h.banks == 0 || h.banks > kBanksMax) return NotStats("invalid number of banks");
  // Of numbers below 2^12 and 2^32: neither product wraps.
  if (h.counter_bank_bytes < uint64_t{h.counters} * h.counter_stride_bytes ||
      h.histogram_bank_bytes < uint64_t{h.histograms} * h.histogram_stride_bytes) {
    return NotStats("a bank is shorter than its table");
  }
  if (!bytes.Fits(h.counter_labels_offset, h.counters, sizeof(StatsLabel)) ||
      !bytes.Fits(h.gauge_labels_offset, h.gauges, sizeof(StatsLabel)) ||
      !bytes.Fits(h.histogram_labels_offset, h.histograms, sizeof(StatsLabel)) ||
      !bytes.Fits(h.counters_offset, h.banks, h.counter_bank_bytes) ||
      !bytes.Fits(h.gauges_offset, h.gauges, h.counter_stride_bytes) ||
      !bytes.Fits(h.histograms_offset, h.banks, h.histogram_bank_bytes)) {
    return NotStats("a table lies outside the segment");
  }
  return Status();
}

std::string LabelAt(const Bytes& bytes, uint64_t table, uint32_t index) {
  StatsLabel label;
  bytes.Copy(table + uint64_t{index} * sizeof(StatsLabel), &label);
  return FieldText(label.text);
}

uint64_t WordAt(const Bytes& bytes, uint64_t offset) {
  uint64_t value = 0;
  bytes.Copy(offset, &value);
  return value;
}

// Tables of the same words, one per bank; a value is the sum.
struct Banks {
  uint32_t count = 1;
  uint64_t bytes = 0;  // from one to the next
};

std::map<std::string, uint64_t> ReadWords(const Bytes& bytes, uint64_t labels, uint64_t words, uint32_t count,
                                          uint32_t stride, Banks banks) {
  std::map<std::string, uint64_t> values;
  for (uint32_t i = 0; i < count; ++i) {
    uint64_t value = 0;
    for (uint32_t bank = 0; bank < banks.count; ++bank) {
      value += WordAt(bytes, words + bank * banks.bytes + uint64_t{i} * stride);
    }
    values[LabelAt(bytes, labels, i)] = value;
  }
  return values;
}

HistogramSnapshot ReadHistogram(const Bytes& bytes, uint64_t first, uint32_t buckets, Banks banks) {
  HistogramSnapshot histogram;
  histogram.buckets.resize(buckets);
  for (uint32_t bank = 0; bank < banks.count; ++bank) {
    const uint64_t offset = first + bank * banks.bytes;
    histogram.count += WordAt(bytes, offset + offsetof(StatsHistogram, count));
    histogram.sum += WordAt(bytes, offset + offsetof(StatsHistogram, sum));
    histogram.max = std::max(histogram.max, WordAt(bytes, offset + offsetof(StatsHistogram, max)));
    for (uint32_t i = 0; i < buckets; ++i) {
      histogram.buckets[i] += WordAt(bytes, offset + offsetof(StatsHistogram, buckets) + uint64_t{i} * 8);
    }
  }
  return histogram;
}

Status OpenFailed(const std::string& name, int os_error) {
  std::string message = "stats segment /dev/shm/" + name + ": " + std::strerror(os_error);
  if (os_error == EACCES) {
    message += ". Only its owner and group may read it; start the engine with a wider stats mode, or run as its user";
  }
  return Status(os_error == ENOENT ? StatusCode::kEngineGone : StatusCode::kRefused, message, os_error);
}

// A read that ended early: the file became shorter after it was opened.
Status ReadFailed(const std::string& name) { return NotStats("/dev/shm/" + name + " was truncated"); }

// A regular file whose owner is the uid in its name: anyone may put files of any name into /dev/shm.
bool Genuine(const std::string& name, struct stat* info) {
  const std::string path = "/dev/shm/" + name;
  if (lstat(path.c_str(), info) != 0 || !S_ISREG(info->st_mode)) return false;
  const std::string owner = kStatsNamePrefix + std::to_string(info->st_uid) + ".";
  return name.compare(0, owner.size(), owner) == 0;
}

// Names of the genuine segments on this host, newest first: those that this user may read, or the others.
std::vector<std::string> Segments(bool readable) {
  std::vector<std::pair<uint64_t, std::string>> found;
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir("/dev/shm"), closedir);
  if (directory == nullptr) return {};
  while (const dirent* entry = readdir(directory.get())) {
    const std::string name = entry->d_name;
    struct stat info {};
    if (name.compare(0, sizeof(kStatsNamePrefix) - 1, kStatsNamePrefix) != 0 || !Genuine(name, &info)) continue;
    if ((access(("/dev/shm/" + name).c_str(), R_OK) == 0) != readable) continue;
    found.emplace_back(ToNs(info.st_ctim), name);
  }
  std::sort(found.rbegin(), found.rend());
  std::vector<std::string> names;
  for (auto& [created, name] : found) names.push_back(std::move(name));
  return names;
}

// The first name that ends as `own` does: with the digest of the socket's path.
std::string WithDigestOf(const std::string& own, const std::vector<std::string>& names) {
  const std::string digest = own.substr(own.rfind('.'));
  for (const std::string& name : names) {
    if (name.size() > digest.size() && name.compare(name.size() - digest.size(), digest.size(), digest) == 0)
      return name;
  }
  return {};
}

Status NotReadable(const std::string& socket_path, const std::string& name) {
  struct stat info {};
  if (!Genuine(name, &info)) return OpenFailed(name, ENOENT);
  char mode[8];
  std::snprintf(mode, sizeof(mode), "%04o", info.st_mode & 07777);
  return Status(StatusCode::kRefused,
                "an engine of uid " + std::to_string(info.st_uid) + " publishes statistics for socket " + socket_path +
                    ", but uid " + std::to_string(geteuid()) + " may not read /dev/shm/" + name + " (mode " + mode +
                    "): use sudo, or start the engine with --stats-mode 0644",
                EACCES);
}

}  // namespace

Result<StatsSnapshot> ParseStats(std::span<const std::byte> data) {
  const Bytes bytes(data);
  if (data.size() < sizeof(StatsHeader)) return NotStats("shorter than its header");
  Header header;
  std::memcpy(header.raw, data.data(), sizeof(header.raw));
  const StatsHeader& h = header.fields();
  const uint32_t version = h.version.load(std::memory_order_relaxed);  // a private copy: no pair needed
  if (version == 0) return Status(StatusCode::kNotReady, "the engine is still filling its stats segment");
  if (version >> 16 != kStatsMajor) {
    return Status(StatusCode::kRefused, "stats segment has layout " + std::to_string(version >> 16) + "." +
                                            std::to_string(version & 0xffff) + ", this program reads " +
                                            std::to_string(kStatsMajor) + ".x: use the tool of the engine's version");
  }
  if (Status status = CheckHeader(bytes, h); !status.ok()) return status;

  StatsSnapshot snapshot;
  snapshot.major = static_cast<uint16_t>(version >> 16);
  snapshot.minor = static_cast<uint16_t>(version);
  snapshot.engine_generation = h.engine_generation;
  std::copy(std::begin(h.boot_id), std::end(h.boot_id), snapshot.boot_id.begin());
  snapshot.model = FieldText(h.model);
  snapshot.identity = FieldText(h.identity);
  snapshot.precision = FieldText(h.precision);
  snapshot.device = FieldText(h.device);
  snapshot.socket = FieldText(h.socket);
  snapshot.disk_io = FieldText(h.disk_io);
  snapshot.version_text = FieldText(h.version_text);
  snapshot.counters = ReadWords(bytes, h.counter_labels_offset, h.counters_offset, h.counters, h.counter_stride_bytes,
                                {h.banks, h.counter_bank_bytes});
  snapshot.gauges = ReadWords(bytes, h.gauge_labels_offset, h.gauges_offset, h.gauges, h.counter_stride_bytes, Banks());
  for (uint32_t i = 0; i < h.histograms; ++i) {
    const uint64_t offset = h.histograms_offset + uint64_t{i} * h.histogram_stride_bytes;
    snapshot.histograms[LabelAt(bytes, h.histogram_labels_offset, i)] =
        ReadHistogram(bytes, offset, h.histogram_buckets, {h.banks, h.histogram_bank_bytes});
  }
  return snapshot;
}

uint64_t StatsSnapshot::counter(const std::string& label) const {
  const auto found = counters.find(label);
  return found == counters.end() ? 0 : found->second;
}

uint64_t StatsSnapshot::gauge(const std::string& label) const {
  const auto found = gauges.find(label);
  return found == gauges.end() ? 0 : found->second;
}

const HistogramSnapshot& StatsSnapshot::histogram(const std::string& label) const {
  static const HistogramSnapshot kEmpty;
  const auto found = histograms.find(label);
  return found == histograms.end() ? kEmpty : found->second;
}

// Read, not mapped: a read of a page that the segment lacks gives zeros or ends early, where a load would raise SIGBUS
// (a segment that was truncated, or one with holes while /dev/shm is full).
struct StatsReader::Mapping {
  ipc::shared_memory_object object;
  uint64_t bytes = 0;
  ino_t inode = 0;

  int descriptor() const { return object.get_mapping_handle().handle; }
};

StatsReader::StatsReader() = default;
StatsReader::StatsReader(StatsReader&&) noexcept = default;
StatsReader& StatsReader::operator=(StatsReader&&) noexcept = default;
StatsReader::~StatsReader() = default;

Status StatsReader::Reopen() {
  struct stat info {};
  if (lstat(("/dev/shm/" + name_).c_str(), &info) != 0) return OpenFailed(name_, errno);
  if (!S_ISREG(info.st_mode)) return Status(StatusCode::kRefused, "/dev/shm/" + name_ + " is not a regular file");
  try {
    auto mapping = std::make_unique<Mapping>();
    ipc::shared_memory_object(ipc::open_only, name_.c_str(), ipc::read_only).swap(mapping->object);
    if (fstat(mapping->descriptor(), &info) != 0) return OpenFailed(name_, errno);
    const auto bytes = static_cast<uint64_t>(info.st_size);
    if (bytes == 0) return Status(StatusCode::kNotReady, "stats segment /dev/shm/" + name_ + " is being created");
    if (bytes < sizeof(StatsHeader) || bytes > kSegmentBytesMax) {
      return NotStats("/dev/shm/" + name_ + " has " + std::to_string(bytes) + " bytes");
    }
    mapping->bytes = bytes;
    mapping->inode = info.st_ino;
    mapping_ = std::move(mapping);
    return Status();
  } catch (const ipc::interprocess_exception& error) {
    return OpenFailed(name_, error.get_native_error());
  } catch (const std::exception& error) {
    return Status(StatusCode::kOutOfMemory, "stats segment " + name_ + ": " + error.what());
  }
}

Result<StatsReader> StatsReader::OpenName(const std::string& name) {
  StatsReader reader;
  reader.name_ = name;
  if (Status status = reader.Reopen(); !status.ok()) return status;
  return reader;
}

Result<StatsReader> StatsReader::OpenSocket(const std::string& socket_path) {
  Result<std::string> own = StatsSegmentName(socket_path, geteuid());
  if (!own.ok()) return own.status();
  struct stat info {};
  if (Genuine(*own, &info)) return OpenName(*own);
  if (const std::string name = WithDigestOf(*own, List()); !name.empty()) return OpenName(name);
  if (const std::string name = WithDigestOf(*own, ListUnreadable()); !name.empty()) {
    return NotReadable(socket_path, name);
  }
  return Status(StatusCode::kEngineGone,
                "no engine has published statistics for socket " + socket_path + " (looked for /dev/shm/" + *own + ")",
                ENOENT);
}

std::vector<std::string> StatsReader::List() { return Segments(true); }
std::vector<std::string> StatsReader::ListUnreadable() { return Segments(false); }

bool StatsReader::Replaced() const {
  struct stat info {};
  return stat(("/dev/shm/" + name_).c_str(), &info) == 0 && mapping_ != nullptr && info.st_ino != mapping_->inode;
}

Result<StatsSnapshot> StatsReader::Snapshot() const {
  // SYNC T1 (acquire): header and label tables are complete once the version is there; meets SYNC T1 (release) in
  // StatsSegment::Fill. A system call of its own, so that the copy below is later.
  uint32_t version = 0;
  static_assert(offsetof(StatsHeader, version) == 0 && sizeof(StatsHeader::version) == sizeof(version));
  if (pread(mapping_->descriptor(), &version, sizeof(version), 0) != sizeof(version)) return ReadFailed(name_);
  std::atomic_thread_fence(std::memory_order_acquire);
  if (version == 0) return Status(StatusCode::kNotReady, "the engine is still filling its stats segment");
  std::vector<uint64_t> copy(mapping_->bytes / 8);  // of values for display, which change meanwhile
  const auto bytes = static_cast<ssize_t>(copy.size() * 8);
  if (pread(mapping_->descriptor(), copy.data(), static_cast<size_t>(bytes), 0) != bytes) return ReadFailed(name_);
  Result<StatsSnapshot> snapshot = ParseStats(std::as_bytes(std::span(copy)));
  if (snapshot.ok()) {
    snapshot->taken_monotonic_ns = MonotonicNs();
    snapshot->taken_wall_ns = WallNs();
  }
  return snapshot;
}

}  // namespace sutra
