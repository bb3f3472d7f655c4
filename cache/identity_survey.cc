// Names are judged before anything is opened; segments are opened by descriptor and read through /proc/self/fd, so that
// the log's own reader works on exactly the file that was checked.
#include "cache/identity_survey.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "cache/cache_shard.h"
#include "cache/disk/disk_io.h"
#include "cache/wal/believed_time.h"
#include "cache/wal/wal_format.h"
#include "shm/base/time.h"

namespace sutra {
namespace {

// "": there is none, or it cannot be read.
std::string ReadModelFile(const OpenDirectory& directory) {
  const Result<UniqueFd> file = directory.OpenFile("MODEL");
  if (!file.ok()) return {};
  std::string text(kModelFileBytesMax, '\0');
  const ssize_t bytes = pread(file.value().get(), text.data(), text.size(), 0);
  text.resize(bytes > 0 ? static_cast<size_t>(bytes) : 0);
  return text;
}

}  // namespace

uint64_t IdentitySurvey::ExpiryNs() const {
  if (expiry.known) return expiry.expiry_newest_ns;
  return used_ns < kClockSetNs ? UINT64_MAX : used_ns + kTtlSecondsMax * kNsPerSecond;
}

Result<IdentitySurvey> SurveyIdentity(const OpenDirectory& data, const std::string& name) {
  IdentitySurvey survey;
  survey.name = name;
  survey.path = data.path() + "/" + name;
  const Result<OpenDirectory> directory = data.OpenChild(name);
  if (directory.code() == StatusCode::kRefused) {
    survey.foreign = directory.status().message();
    return survey;
  }
  if (!directory.ok()) return directory.status();
  survey.directory = directory->identity();
  const Result<std::vector<OpenDirectory::Item>> items = directory->List();
  if (!items.ok()) return items.status();
  for (const OpenDirectory::Item& item : items.value()) {
    const bool file = S_ISREG(item.mode);
    if (file) survey.bytes += item.bytes;
    if (survey.foreign.empty() && (!file || !IsShardFile(item.name))) {
      survey.foreign =
          "it holds " + std::string(FileTypeName(item.mode)) + " '" + item.name + "', which no engine made there";
    }
    survey.used_ns = std::max(survey.used_ns, item.changed_ns);
    if (const uint64_t number = SegmentNumber(item.name); number != 0) survey.segments.push_back(number);
  }
  std::sort(survey.segments.begin(), survey.segments.end());
  survey.model = ParseModelFile(ReadModelFile(directory.value()));
  const std::string& identity = survey.model.model_identity;
  if (survey.foreign.empty() && !identity.empty() && identity.compare(0, name.size(), name) != 0) {
    survey.foreign = "its MODEL file says that it belongs to another identity, " + identity;
  }
  return survey;
}

void ReadExpiry(const OpenDirectory& data, DiskIo* io, uint64_t now_ns, const std::function<bool()>& go_on,
                IdentitySurvey* survey) {
  survey->expiry = LogExpiry();
  survey->whole = false;
  const Result<OpenDirectory> directory = data.OpenChild(survey->name);
  SegmentExpectation expected;
  expected.width = survey->model.width;
  const bool readable = directory.ok() && directory->identity() == survey->directory &&
                        ParseIdentity(survey->model.model_identity, &expected.model);
  if (!readable) survey->expiry.known = survey->segments.empty() && directory.ok();
  for (auto number = survey->segments.rbegin(); readable && number != survey->segments.rend(); ++number) {
    if (!go_on()) return;
    const Result<UniqueFd> file = directory->OpenFile(SegmentName(*number));
    if (!file.ok()) {
      survey->expiry.known = false;
      break;
    }
    expected.number = *number;
    AddSegmentExpiry(io, "/proc/self/fd/" + std::to_string(file.value().get()), expected, &survey->expiry);
    posix_fadvise(file.value().get(), 0, 0, POSIX_FADV_DONTNEED);  // nobody reads it again soon
    if (!survey->expiry.known) break;
    if (survey->expiry.expiry_newest_ns > now_ns && *number != survey->segments.front()) return;
  }
  survey->whole = true;
}

}  // namespace sutra
