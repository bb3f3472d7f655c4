// A file system of a few KiB or MiB, in a mount namespace of the test's own: what is full there is full nowhere else.
// Children that are started later live in that namespace too. Needs root; mounted() is false without.
// Thread rule: the test's main thread, before it starts threads that look at the path.
#pragma once

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <filesystem>
#include <string>

namespace sutra::test {

inline constexpr const char* kCannotMount = "needs root and a mount namespace for a small file system";

class SmallDisk {
 public:
  // `size` as mount(8) takes it for tmpfs, e.g. "64k".
  SmallDisk(const std::string& path, const std::string& size) : path_(path) {
    std::filesystem::create_directories(path);
    mounted_ = unshare(CLONE_NEWNS) == 0 && mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
               mount("tmpfs", path_.c_str(), "tmpfs", 0, ("size=" + size).c_str()) == 0;
  }
  ~SmallDisk() {
    if (mounted_) umount2(path_.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

  bool mounted() const { return mounted_; }
  bool Resize(const std::string& size) const {
    return mount("tmpfs", path_.c_str(), "tmpfs", MS_REMOUNT, ("size=" + size).c_str()) == 0;
  }

  // Another program's file takes all the room that is left.
  void Fill() const {
    const int fd = open(Filler().c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    static const char kPage[4096] = {};
    lseek(fd, 0, SEEK_END);
    while (write(fd, kPage, sizeof(kPage)) == static_cast<ssize_t>(sizeof(kPage))) {
    }
    close(fd);
  }
  void Empty() const { unlink(Filler().c_str()); }

 private:
  std::string Filler() const { return path_ + "/another-programs-file"; }

  const std::string path_;
  bool mounted_ = false;
};

}  // namespace sutra::test
