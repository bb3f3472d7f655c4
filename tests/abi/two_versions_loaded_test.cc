// Two versions of the client library that plug-ins load at run time, out of each other's sight.
#include "tests/abi/two_versions.h"

namespace sutra::test {
namespace {

class TwoVersionsLoaded : public TwoVersions {
 protected:
  static LibraryFunctions Load(const char* path) {
    void* const library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    EXPECT_NE(library, nullptr) << dlerror();
    LibraryFunctions functions = {};
    const auto find = [library](const char* name, auto* function) {
      *function = reinterpret_cast<std::remove_reference_t<decltype(*function)>>(dlsym(library, name));
      EXPECT_NE(*function, nullptr) << name;
    };
    find("sutra_attach", &functions.attach);
    find("sutra_detach", &functions.detach);
    find("sutra_get_info", &functions.get_info);
    find("sutra_embed", &functions.embed);
    find("sutra_submit", &functions.submit);
    find("sutra_wait", &functions.wait);
    find("sutra_release", &functions.release);
    find("sutra_error_text", &functions.error_text);
    // Unloading leaves the code where it is (-z nodelete): the helper thread may still run in it.
    EXPECT_EQ(dlclose(library), 0);
    return functions;
  }
};

TEST_F(TwoVersionsLoaded, AttachEmbedAndDetachIndependently) {
  ExpectIndependent(Load(SUTRA_LIBRARY), Load(SUTRA_OTHER_LIBRARY));
}

}  // namespace
}  // namespace sutra::test
