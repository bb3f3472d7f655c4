// Boost.Interprocess creates, sizes and maps; only this file and stats_reader.cc include it.
#include "shm/stats/stats_segment.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/interprocess/exceptions.hpp>
#include <boost/interprocess/mapped_region.hpp>
#include <boost/interprocess/permissions.hpp>
#include <boost/interprocess/shared_memory_object.hpp>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <span>
#include <string_view>

#include "shm/base/numbers.h"
#include "shm/stats/labels.h"
#include "shm/stats/stats_name.h"

namespace sutra {
namespace ipc = boost::interprocess;

namespace {

constexpr uint32_t kCounters = static_cast<uint32_t>(Counter::kCount);
constexpr uint32_t kGauges = static_cast<uint32_t>(Gauge::kCount);
constexpr uint32_t kHistograms = static_cast<uint32_t>(Histogram::kCount);

constexpr uint64_t Align(uint64_t value) { return RoundUp(value, 128); }  // two lines: they are fetched in pairs

constexpr uint64_t kCounterLabelsOffset = Align(sizeof(StatsHeader));
constexpr uint64_t kGaugeLabelsOffset = Align(kCounterLabelsOffset + kCounters * sizeof(StatsLabel));
constexpr uint64_t kHistogramLabelsOffset = Align(kGaugeLabelsOffset + kGauges * sizeof(StatsLabel));
constexpr uint64_t kCountersOffset = Align(kHistogramLabelsOffset + kHistograms * sizeof(StatsLabel));
constexpr uint64_t kGaugesOffset = kCountersOffset + kStatsBanks * kStatsCounterBankBytes;
constexpr uint64_t kHistogramsOffset = Align(kGaugesOffset + uint64_t{kGauges} * kStatsWordStride);
constexpr uint64_t kSegmentBytes = kHistogramsOffset + kStatsBanks * kStatsHistogramBankBytes;

// Header strings may change while observers copy them: each byte is stored whole, the last one always stays zero.
void StoreText(std::span<char> field, std::string_view text) {
  const size_t length = std::min(text.size(), field.size() - 1);
  for (size_t i = 0; i + 1 < field.size(); ++i) {
    // Relaxed: text for display; it publishes nothing.
    std::atomic_ref<char>(field[i]).store(i < length ? text[i] : '\0', std::memory_order_relaxed);
  }
}

void StoreLabels(std::byte* table, std::span<const char* const> labels) {
  auto* label = reinterpret_cast<StatsLabel*>(table);
  for (const char* text : labels) StoreText((label++)->text, text);
}

Status CreateFailed(const std::string& name, int os_error, const char* what) {
  const std::string path = "/dev/shm/" + name;
  std::string message = "stats segment " + path + ": ";
  if (os_error == EEXIST) {
    struct stat info {};
    const bool known = stat(path.c_str(), &info) == 0;
    message += "the name is taken by a file" + (known ? " of uid " + std::to_string(info.st_uid) : std::string()) +
               " that this user may not remove. Ask that user or root to run: rm " + path;
    return Status(StatusCode::kRefused, message, EEXIST);
  }
  if (os_error == ENOSPC || os_error == ENOMEM) {
    message += "no room for " + std::to_string(kSegmentBytes) +
               " bytes in /dev/shm. Remove what ended engines left there (sutra-stat --prune), or enlarge it: "
               "mount -o remount,size=256M /dev/shm (Docker: --shm-size)";
    return Status(StatusCode::kStorageError, message, os_error);
  }
  if (os_error == EACCES || os_error == EPERM) {
    message += "no permission to create files in /dev/shm. Check its mode (ls -ld /dev/shm should say drwxrwxrwt)";
    return Status(StatusCode::kRefused, message, os_error);
  }
  if (os_error == EFBIG) message += "raise the limit of file sizes (ulimit -f, LimitFSIZE=): ";
  return Status(StatusCode::kStorageError, message + what, os_error);
}

// All of it: a page that is missing when it is written to raises SIGBUS. Boost's truncate may leave that to us.
int Allocate(int fd, uint64_t bytes) {
  int error;
  do {
    error = posix_fallocate(fd, 0, static_cast<off_t>(bytes));
  } while (error == EINTR);
  return error;
}

}  // namespace

struct StatsSegment::Mapping {
  ipc::mapped_region region;       // of the shared segment
  void* private_memory = nullptr;  // instead of it
  ~Mapping() { free(private_memory); }
};

StatsSegment::StatsSegment() : mapping_(std::make_unique<Mapping>()) {}
StatsSegment::~StatsSegment() = default;

Result<std::unique_ptr<StatsSegment>> StatsSegment::Create(const StatsSegmentOptions& options) {
  Result<std::string> name = StatsSegmentName(options.socket_path, geteuid());
  if (!name.ok()) return name.status();
  struct HalfMade {
    std::string name;
    ~HalfMade() {
      if (!name.empty()) ipc::shared_memory_object::remove(name.c_str());
    }
  } half_made;  // a start that fails leaves nothing
  try {
    ipc::shared_memory_object::remove(name->c_str());
    ipc::permissions permissions;
    permissions.set_permissions(static_cast<int>(options.mode));
    ipc::shared_memory_object object(ipc::create_only, name->c_str(), ipc::read_write, permissions);
    half_made.name = *name;
    object.truncate(static_cast<ipc::offset_t>(kSegmentBytes));
    if (const int error = Allocate(object.get_mapping_handle().handle, kSegmentBytes); error != 0) {
      return CreateFailed(*name, error, std::strerror(error));
    }
    std::unique_ptr<StatsSegment> segment(new StatsSegment);
    ipc::mapped_region(object, ipc::read_write, 0, kSegmentBytes).swap(segment->mapping_->region);
    segment->base_ = static_cast<std::byte*>(segment->mapping_->region.get_address());
    segment->name_ = *name;
    segment->Fill(options);
    half_made.name.clear();
    return segment;
  } catch (const ipc::interprocess_exception& error) {
    const bool exists = error.get_error_code() == ipc::already_exists_error;
    return CreateFailed(*name, exists ? EEXIST : error.get_native_error(), error.what());
  } catch (const std::exception& error) {
    return Status(StatusCode::kOutOfMemory, "stats segment " + *name + ": " + error.what());
  }
}

std::unique_ptr<StatsSegment> StatsSegment::CreatePrivate() {
  std::unique_ptr<StatsSegment> segment(new StatsSegment);
  segment->mapping_->private_memory = aligned_alloc(128, Align(kSegmentBytes));
  assert(segment->mapping_->private_memory != nullptr);
  std::fill_n(static_cast<std::byte*>(segment->mapping_->private_memory), Align(kSegmentBytes), std::byte{0});
  segment->base_ = static_cast<std::byte*>(segment->mapping_->private_memory);
  segment->Fill(StatsSegmentOptions{});
  return segment;
}

Status StatsSegment::Remove(const std::string& socket_path) {
  Result<std::string> name = StatsSegmentName(socket_path, geteuid());
  if (!name.ok()) return name.status();
  const std::string path = "/" + *name;
  if (shm_unlink(path.c_str()) == 0 || errno == ENOENT) return Status();
  return Status::FromErrno(StatusCode::kRefused, "removing /dev/shm" + path, errno);
}

StatsHeader& StatsSegment::header() const { return *reinterpret_cast<StatsHeader*>(base_); }

// The memory is zero when this is called.
void StatsSegment::Fill(const StatsSegmentOptions& options) {
  StatsHeader& h = header();
  assert(h.version.load(std::memory_order_relaxed) == 0);  // relaxed: nobody reads before this publishes it, once
  h.header_bytes = sizeof(StatsHeader);
  h.magic = kStatsMagic;
  h.segment_bytes = kSegmentBytes;
  h.engine_generation = options.engine_generation;
  h.counters = kCounters;
  h.gauges = kGauges;
  h.histograms = kHistograms;
  h.histogram_buckets = kHistogramBuckets;
  h.counter_labels_offset = kCounterLabelsOffset;
  h.gauge_labels_offset = kGaugeLabelsOffset;
  h.histogram_labels_offset = kHistogramLabelsOffset;
  h.counters_offset = kCountersOffset;
  h.gauges_offset = kGaugesOffset;
  h.histograms_offset = kHistogramsOffset;
  h.counter_stride_bytes = kStatsWordStride;
  h.histogram_stride_bytes = sizeof(StatsHistogram);
  h.banks = kStatsBanks;
  h.counter_bank_bytes = kStatsCounterBankBytes;
  h.histogram_bank_bytes = kStatsHistogramBankBytes;
  const bool no_boot_id = std::all_of(options.boot_id.begin(), options.boot_id.end(), [](uint8_t b) { return b == 0; });
  const BootId boot_id = no_boot_id ? HostBootId() : options.boot_id;
  std::copy(boot_id.begin(), boot_id.end(), h.boot_id);
  StoreLabels(base_ + kCounterLabelsOffset, kCounterLabels);
  StoreLabels(base_ + kGaugeLabelsOffset, kGaugeLabels);
  StoreLabels(base_ + kHistogramLabelsOffset, kHistogramLabels);
  SetModel(options.model, options.identity, options.precision, options.device);
  SetDiskIo(options.disk_io);
  StoreText(h.version_text, options.version_text);
  const Result<std::string> socket = RealSocketPath(options.socket_path);
  StoreText(h.socket, socket.ok() ? socket.value() : options.socket_path);
  // SYNC T1 (release): publishes header and label tables; meets SYNC T1 (acquire) in StatsReader::Snapshot.
  h.version.store(uint32_t{kStatsMajor} << 16 | kStatsMinor, std::memory_order_release);
}

StatsWriter StatsSegment::writer() const {
  return StatsWriter(base_ + kCountersOffset, base_ + kGaugesOffset, base_ + kHistogramsOffset);
}

void StatsSegment::SetModel(const std::string& model, const std::string& identity, const std::string& precision,
                            const std::string& device) {
  StatsHeader& h = header();
  StoreText(h.model, model);
  StoreText(h.identity, identity);
  StoreText(h.precision, precision);
  StoreText(h.device, device);
}

void StatsSegment::SetDiskIo(const std::string& disk_io) { StoreText(header().disk_io, disk_io); }

}  // namespace sutra
