// A data directory as the commands see it: which caches are in it, and who holds its lock.
//
// Thread rule: one thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cache/audit_log.h"
#include "cache/identity_survey.h"
#include "shm/base/engine_lock.h"
#include "shm/base/status.h"

namespace sutra {

// The one cache in it whose identity begins so, or the only one. kNotReady: there is none; kBadOption: several.
Result<IdentitySurvey> ChooseShard(const std::string& data, const std::string& identity);
// All caches of a model: by its name, or by how its identity begins.
Result<std::vector<IdentitySurvey>> ShardsOfModel(const std::string& data, const std::string& model);

// A shard's files while an engine may write them. `read` looks at them as the survey says; it is called again where a
// segment went meanwhile, which the engine had written anew elsewhere: what was read then is neither what is there nor
// what was. RETURNS false when it never came out even.
bool ReadWhileItStays(const std::string& data, const std::string& name,
                      const std::function<void(const Result<IdentitySurvey>& survey)>& read);
Status WrittenTooFast(const std::string& path);

// Who holds DATA/LOCK: an engine's socket, if one of this host says that it is that process.
struct LockHolder {
  bool held = false;
  uint64_t pid = 0;    // 0: not known
  std::string socket;  // "": it could not be found
  std::string model;   // that it serves
  std::string identity;
};
LockHolder HolderOfData(const std::string& data);

// The lock on DATA, which belongs to an engine otherwise. An audit line is written under it.
class DataLock {
 public:
  // From here on root is the user to whom DATA belongs. kRefused: somebody else holds it; the message says what to do.
  static Result<DataLock> Take(const std::string& data);
  // Removes the lock file that this one has created.
  ~DataLock();
  DataLock(DataLock&&) = default;
  DataLock& operator=(DataLock&&) = delete;

  bool InPlace() const { return lock_->InPlace(); }
  // Writes down what is to be done, does it, and writes down what came of it, or its error. Returns when no client
  // answers from the memory of an engine that held the lock before, as an engine does that confirms a removal.
  template <typename T>
  Result<T> Audited(const char* command, const std::string& what, const std::function<Result<T>()>& act,
                    const std::function<std::string(const T&)>& words) {
    if (Status status = Say(command, what, nullptr); !status.ok()) return status;
    Result<T> result = act();
    const std::string came = result.ok() ? words(*result) : result.status().message();
    const Status status = Say(command, what, &came);
    AwaitDoubt();
    if (result.ok() && !status.ok()) return status;
    return result;
  }

 private:
  DataLock(std::string data, EngineLock lock);
  Status Say(const char* command, const std::string& what, const std::string* result);
  void AwaitDoubt() const;

  std::string data_;
  std::unique_ptr<EngineLock> lock_;
  uint64_t taken_ns_;
};

}  // namespace sutra
