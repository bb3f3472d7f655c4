// What a start creates in the file system, so that a start that fails takes it away again: the directories of --data,
// and the shard's own directory in it.
//
// Thread rule: the main thread, before the engine serves. REQUIRES of Remove: the lock on DATA is held, so that no
// other engine has begun to use what is removed; the lock's own file is the lock's affair.
#pragma once

#include <string>
#include <vector>

namespace sutra {

class StartTraces {
 public:
  // Before `path` and its missing parents are made: those that are missing now will be removed again, if they are
  // empty then.
  void WillMakeDirectory(const std::string& path);
  // Before a tree is made at `path`: if there is nothing now, all of it will be removed again.
  void WillMakeTree(const std::string& path);

  void RemoveTrees();
  void RemoveDirectories();

 private:
  std::vector<std::string> directories_;  // parents first
  std::vector<std::string> trees_;
};

}  // namespace sutra
