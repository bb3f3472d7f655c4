// The list of model families.
#include "engine/model/families/family.h"

namespace sutra {
namespace {

constexpr const Family* kFamilies[] = {&kBertFamily};

}  // namespace

const Family* FindFamily(std::string_view model_type) {
  for (const Family* family : kFamilies) {
    if (family->model_type == model_type) return family;
  }
  return nullptr;
}

std::string SupportedFamilies() {
  std::string names;
  for (const Family* family : kFamilies) {
    names += (names.empty() ? "" : ", ") + std::string(family->model_type) + " (" + family->members + ")";
  }
  return names;
}

}  // namespace sutra
