// Takes the directory of a model identity out of a data directory, wholly or not at all: first it gets another name
// (NAME.removing) in one durable step, so that no start ever recovers what is left of it; a removal that a crash cut
// short is ended by the next engine (other_identities.h).
//
// Thread rule: any thread; blocks on the disk. REQUIRES: the lock on DATA is held, and the directory is not served.
// Invariants: nothing outside of DATA is touched, links are not followed; a directory with a name in it that no engine
// gives is somebody else's, and is left alone.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "cache/disk/open_directory.h"
#include "cache/identity_survey.h"
#include "shm/base/log_line.h"
#include "shm/base/status.h"

namespace sutra {

struct IdentityRemoval {
  std::function<bool()> may_go_on;  // false: the engine ends, or its lock is lost. Asked before every change
  LogLine log;
};

std::string SetAsideName(const std::string& name);
bool IsSetAside(std::string_view name);

// All that are named like one, without what is set aside; none of them read beyond MODEL and names.
Result<std::vector<IdentitySurvey>> SurveyIdentities(const OpenDirectory& data);

// After this no start recovers it. kCancelled: nothing happened. REQUIRES: it is not foreign.
Status SetIdentityAside(const OpenDirectory& data, const IdentitySurvey& survey, const IdentityRemoval& removal);
// Removes a directory that was set aside, with its files. kCancelled: the next engine goes on with it.
Status RemoveSetAside(const OpenDirectory& data, const std::string& name, const IdentityRemoval& removal);

}  // namespace sutra
