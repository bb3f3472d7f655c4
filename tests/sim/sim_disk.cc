// The files and names of the simulated disk, and what faults, kills and power cuts make of them.
#include "tests/sim/sim_disk.h"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace sutra::sim {
namespace {

constexpr uint64_t kSectorBytes = 512;

std::string DirectoryOf(const std::string& path) { return path.substr(0, path.rfind('/')); }

Status Error(const std::string& what, int negative_errno) {
  return Status::FromErrno(StatusCode::kStorageError, what, -negative_errno);
}

}  // namespace

void SimDisk::SetFaults(const Faults& faults) {
  MutexLock lock(mutex_);
  faults_ = faults;
  operations_ = 0;
}

uint64_t SimDisk::operations() const {
  MutexLock lock(mutex_);
  return operations_;
}

SimDisk::Failures SimDisk::failures() const {
  MutexLock lock(mutex_);
  return failures_;
}

void SimDisk::SetFileLimit(uint64_t bytes) {
  MutexLock lock(mutex_);
  file_limit_ = bytes;
}

void SimDisk::SetCapacity(uint64_t bytes) {
  MutexLock lock(mutex_);
  capacity_ = bytes;
}

int SimDisk::BeginLocked() {
  cutting_ = false;
  if (powered_off_) return -EIO;
  if (copy_every_ != 0 && --copy_in_ == 0) {
    copy_in_ = copy_every_;
    ++copied_;
    copies_.push_back(CopyLocked());
  }
  ++operations_;
  if (operations_ == faults_.power_off_at) {
    powered_off_ = cutting_ = true;
    return -EIO;
  }
  const bool fails = faults_.fail_at != 0 &&
                     (operations_ == faults_.fail_at || (faults_.fail_forever && operations_ > faults_.fail_at));
  failures_.all += fails ? 1 : 0;
  failures_.full += fails && faults_.fail_errno == ENOSPC ? 1 : 0;
  return fails ? -faults_.fail_errno : 0;
}

void SimDisk::KeepCopies(uint64_t every, uint64_t first) {
  MutexLock lock(mutex_);
  copy_every_ = every;
  copy_in_ = first;
}

std::vector<std::unique_ptr<SimDisk>> SimDisk::TakeCopies() {
  MutexLock lock(mutex_);
  return std::exchange(copies_, {});
}

std::unique_ptr<SimDisk> SimDisk::Copy() const {
  MutexLock lock(mutex_);
  return CopyLocked();
}

std::unique_ptr<SimDisk> SimDisk::CopyLocked() const {
  auto copy = std::make_unique<SimDisk>(seed_ * 1'000'003 + copied_);
  std::map<NodePtr, NodePtr> nodes{{nullptr, nullptr}};  // names share them
  const auto copied = [&](const NodePtr& node) {
    NodePtr& to = nodes[node];
    if (node != nullptr && to == nullptr) to = std::make_shared<Node>(*node);
    return to;
  };
  MutexLock lock(copy->mutex_);
  for (const auto& [name, node] : names_) copy->names_[name] = copied(node);
  for (const auto& [name, node] : durable_names_) copy->durable_names_[name] = copied(node);
  for (const auto& [directory, operations] : unsynced_names_) {
    for (const NameOperation& operation : operations) {
      copy->unsynced_names_[directory].push_back({operation.remove, operation.add, copied(operation.node)});
    }
  }
  copy->directories_ = directories_;
  copy->capacity_ = capacity_;
  copy->file_limit_ = file_limit_;
  return copy;
}

uint64_t SimDisk::UsedBytesLocked() const {
  uint64_t used = 0;
  for (const auto& [name, node] : names_) used += node->current.size();
  return used;
}

void SimDisk::ApplyLocked(std::vector<std::byte>* bytes, const FileOperation& operation, bool torn) {
  if (operation.data.empty()) {
    if (bytes->size() < operation.size) bytes->resize(operation.size);
    return;
  }
  const uint64_t end = operation.offset + operation.data.size();
  if (bytes->size() < end) bytes->resize(end);
  for (uint64_t at = 0; at < operation.data.size(); at += kSectorBytes) {
    const uint64_t size = std::min<uint64_t>(kSectorBytes, operation.data.size() - at);
    const uint64_t fate = torn ? RandomLocked(3) : 0;  // new, old, garbage
    std::byte* to = bytes->data() + operation.offset + at;
    if (fate == 0) std::copy_n(operation.data.data() + at, size, to);
    for (uint64_t i = 0; fate == 2 && i < size; ++i) to[i] = static_cast<std::byte>(random_());
  }
}

void SimDisk::PowerCut() {
  MutexLock lock(mutex_);
  for (auto& [directory, operations] : unsynced_names_) {
    for (const NameOperation& operation : operations) {
      if (RandomLocked(2) == 0) continue;
      if (!operation.remove.empty()) durable_names_.erase(operation.remove);
      if (!operation.add.empty()) durable_names_[operation.add] = operation.node;
    }
  }
  unsynced_names_.clear();
  names_ = durable_names_;
  for (auto& [name, node] : names_) {
    std::shuffle(node->unsynced.begin(), node->unsynced.end(), random_);
    for (const FileOperation& operation : node->unsynced) {
      const uint64_t fate = RandomLocked(4);  // 0: dropped, 1: whole, 2 and 3: torn or garbage
      if (fate != 0) ApplyLocked(&node->durable, operation, fate >= 2);
    }
    node->unsynced.clear();
    node->begun = kNoSync;
    node->current = node->durable;
  }
  handles_.clear();
  faults_ = Faults{};
  operations_ = 0;
  powered_off_ = false;
}

void SimDisk::ProcessKill() {
  MutexLock lock(mutex_);
  handles_.clear();
  faults_ = Faults{};
  operations_ = 0;
  powered_off_ = false;
}

std::vector<std::byte> SimDisk::Bytes(const std::string& path) const {
  MutexLock lock(mutex_);
  const auto found = names_.find(path);
  return found == names_.end() ? std::vector<std::byte>() : found->second->current;
}

void SimDisk::SetBytes(const std::string& path, std::vector<std::byte> bytes) {
  MutexLock lock(mutex_);
  auto node = std::make_shared<Node>();
  node->durable = node->current = std::move(bytes);
  names_[path] = durable_names_[path] = node;
  directories_[DirectoryOf(path)] = true;
}

std::vector<std::string> SimDisk::Paths() const {
  MutexLock lock(mutex_);
  std::vector<std::string> paths;
  for (const auto& [name, node] : names_) paths.push_back(name);
  return paths;
}

void SimDisk::SpoilBlock(const std::string& path, uint64_t offset) {
  MutexLock lock(mutex_);
  names_.at(path)->unreadable.insert(offset / kDiskBlockBytes);
}

SimDisk::ReadCost SimDisk::read_cost() const {
  MutexLock lock(mutex_);
  return read_cost_;
}

Result<uint64_t> SimDisk::Size(FileHandle file) {
  MutexLock lock(mutex_);
  if (const int error = BeginLocked(); error < 0) return Error("reading a size", error);
  const auto found = handles_.find(file);
  if (found == handles_.end()) return Error("reading a size", -EBADF);
  return uint64_t{found->second.node->current.size()};
}

void SimDisk::DropCache(FileHandle file) {
  MutexLock lock(mutex_);
  const auto found = handles_.find(file);
  if (powered_off_ || found == handles_.end() || !found->second.node->unsynced.empty()) return;
  found->second.node->current = found->second.node->durable;
}

int SimDisk::RawOpen(const std::string& path, OpenMode mode) {
  MutexLock lock(mutex_);
  if (const int error = BeginLocked(); error < 0) return error;
  const auto found = names_.find(path);
  NodePtr node;
  if (!CreatesFile(mode)) {
    if (found == names_.end()) return -ENOENT;
    node = found->second;
  } else {
    if (found != names_.end()) return -EEXIST;
    if (directories_.count(DirectoryOf(path)) == 0) return -ENOENT;
    node = names_[path] = std::make_shared<Node>();
    unsynced_names_[DirectoryOf(path)].push_back(NameOperation{"", path, node});
  }
  handles_[next_handle_] = Handle{node, IsLogFile(mode), mode == OpenMode::kRead};
  return next_handle_++;
}

void SimDisk::RawClose(FileHandle file) {
  MutexLock lock(mutex_);
  handles_.erase(file);
}

int64_t SimDisk::RawRead(FileHandle file, uint64_t offset, std::span<std::byte> into) {
  MutexLock lock(mutex_);
  ++read_cost_.calls;
  read_cost_.bytes += into.size();
  if (const int error = BeginLocked(); error < 0) return error;
  const auto found = handles_.find(file);
  if (found == handles_.end()) return -EBADF;
  const std::set<uint64_t>& unreadable = found->second.node->unreadable;
  const auto spoiled = unreadable.lower_bound(offset / kDiskBlockBytes);
  if (spoiled != unreadable.end() && *spoiled * kDiskBlockBytes < offset + into.size()) return -EIO;
  const std::vector<std::byte>& bytes = found->second.node->current;
  if (offset >= bytes.size()) return 0;
  uint64_t size = std::min<uint64_t>(into.size(), bytes.size() - offset);
  if (faults_.noise_percent > 0 && RandomLocked(100) < faults_.noise_percent) {
    if (RandomLocked(2) == 0) return -EINTR;
    size = 1 + RandomLocked(size);
  }
  std::copy_n(bytes.data() + offset, size, into.data());
  return static_cast<int64_t>(size);
}

int SimDisk::RawAllocate(FileHandle file, uint64_t bytes, AllocateFill fill) {
  MutexLock lock(mutex_);
  if (const int error = BeginLocked(); error < 0) return error;
  const auto found = handles_.find(file);
  if (found == handles_.end()) return -EBADF;
  Node& node = *found->second.node;
  if (bytes > file_limit_) return -EFBIG;
  if (UsedBytesLocked() + bytes - std::min<uint64_t>(bytes, node.current.size()) > capacity_) return -ENOSPC;
  if (node.current.size() < bytes) node.current.resize(bytes);
  FileOperation operation;
  operation.size = bytes;
  node.unsynced.push_back(operation);
  return fill == AllocateFill::kZeroed ? SyncNodeLocked(&node, node.unsynced.size()) : 0;
}

void SimDisk::RawSubmit(const Operation& operation) {
  MutexLock lock(mutex_);
  completion_ = Completion{};
  const int error = BeginLocked();
  const bool cut = cutting_;
  const auto found = handles_.find(operation.file);
  if (found == handles_.end()) {
    completion_.write = -EBADF;
    return;
  }
  const Handle& handle = found->second;
  if (handle.whole_blocks &&
      (operation.offset % kDiskBlockBytes != 0 || operation.data.size() % kDiskBlockBytes != 0)) {
    completion_.write = -EINVAL;
    return;
  }
  if (error < 0 && !cut) {
    completion_.write = error;
    return;
  }
  uint64_t size = operation.data.size();
  if (!cut && operations_ == faults_.short_at) size = std::min<uint64_t>(size, faults_.short_bytes);
  if (!cut && faults_.noise_percent > 0 && RandomLocked(100) < faults_.noise_percent) {
    const uint64_t kind = RandomLocked(3);
    if (kind < 2) {
      completion_.write = kind == 0 ? -EINTR : -EAGAIN;
      completion_.sync = -ECANCELED;
      return;
    }
    size = RandomLocked(size + 1);
  }
  Node& node = *handle.node;
  FileOperation done;
  done.offset = operation.offset;
  done.data.assign(operation.data.begin(), operation.data.begin() + static_cast<std::ptrdiff_t>(size));
  if (size > 0) {
    ApplyLocked(&node.current, done, false);
    node.unsynced.push_back(std::move(done));
  }
  completion_.write = cut ? error : static_cast<int64_t>(size);
  if (!operation.then_sync || cut) return;
  completion_.sync = size < operation.data.size() ? -ECANCELED : SyncNodeLocked(&node, node.unsynced.size());
}

DiskIo::Completion SimDisk::RawReap() { return completion_; }

void SimDisk::RawBeginSync(FileHandle file) {
  MutexLock lock(mutex_);
  const auto found = handles_.find(file);
  if (found != handles_.end()) found->second.node->begun = found->second.node->unsynced.size();
}

int SimDisk::RawSync(FileHandle file) {
  MutexLock lock(mutex_);
  const auto found = handles_.find(file);
  if (found == handles_.end()) return powered_off_ ? -EIO : -EBADF;
  Node* node = found->second.node.get();
  return SyncNodeLocked(node, std::min(node->begun, node->unsynced.size()));
}

bool SimDisk::SyncDone(FileHandle) {
  MutexLock lock(mutex_);
  return slow_syncs_percent_ == 0 || RandomLocked(100) >= slow_syncs_percent_;
}

void SimDisk::SetSlowSyncs(unsigned percent) {
  MutexLock lock(mutex_);
  slow_syncs_percent_ = percent;
}

int SimDisk::SyncNodeLocked(Node* node, size_t operations) {
  node->begun = kNoSync;
  const int error = BeginLocked();
  if (error < 0) {
    // The kernel marks pages clean after a failure: some never reach the disk, and the next sync reports success.
    if (!powered_off_) {
      std::vector<FileOperation> kept;
      for (FileOperation& operation : node->unsynced) {
        if (RandomLocked(2) != 0) kept.push_back(std::move(operation));
      }
      node->unsynced = std::move(kept);
    }
    return error;
  }
  const auto end = node->unsynced.begin() + static_cast<std::ptrdiff_t>(operations);
  for (auto at = node->unsynced.begin(); at != end; ++at) ApplyLocked(&node->durable, *at, false);
  node->unsynced.erase(node->unsynced.begin(), end);
  return 0;
}

Status SimDisk::SyncDirectory(const std::string& path) {
  MutexLock lock(mutex_);
  if (const int error = BeginLocked(); error < 0) return Error("syncing the directory " + path, error);
  for (const NameOperation& operation : unsynced_names_[path]) {
    if (!operation.remove.empty()) durable_names_.erase(operation.remove);
    if (!operation.add.empty()) durable_names_[operation.add] = operation.node;
  }
  unsynced_names_[path].clear();
  return {};
}

Status SimDisk::RawRename(const std::string& from, const std::string& to) {
  MutexLock lock(mutex_);
  if (const int error = BeginLocked(); error < 0 && !cutting_) return Error("renaming " + from, error);
  const auto found = names_.find(from);
  if (found == names_.end()) return Error("renaming " + from, -ENOENT);
  const NodePtr node = found->second;
  names_.erase(found);
  names_[to] = node;
  unsynced_names_[DirectoryOf(from)].push_back(NameOperation{from, to, node});
  return cutting_ ? Error("renaming " + from, -EIO) : Status();
}

Status SimDisk::Unlink(const std::string& path) {
  MutexLock lock(mutex_);
  if (const int error = BeginLocked(); error < 0 && !cutting_) return Error("removing " + path, error);
  if (names_.erase(path) == 0) return Error("removing " + path, -ENOENT);
  unsynced_names_[DirectoryOf(path)].push_back(NameOperation{path, "", nullptr});
  return cutting_ ? Error("removing " + path, -EIO) : Status();
}

Status SimDisk::MakeDirectory(const std::string& path) {
  MutexLock lock(mutex_);
  if (const int error = BeginLocked(); error < 0) return Error("creating the directory " + path, error);
  for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    directories_[path.substr(0, end)] = true;
    if (end == std::string::npos) return {};
  }
}

Result<std::vector<std::string>> SimDisk::List(const std::string& path) {
  MutexLock lock(mutex_);
  if (const int error = BeginLocked(); error < 0) return Error("listing " + path, error);
  if (directories_.count(path) == 0) return Error("listing " + path, -ENOENT);
  std::vector<std::string> names;
  const auto add = [&](const std::string& full) {
    if (full.size() > path.size() + 1 && DirectoryOf(full) == path) names.push_back(full.substr(path.size() + 1));
  };
  for (const auto& [name, node] : names_) add(name);
  for (const auto& [name, there] : directories_) add(name);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace sutra::sim
