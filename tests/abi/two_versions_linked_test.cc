// A program that links two shared objects of others, which link two versions of the client library: each object gets
// the functions of its own, by the names of the versions that the library gives its symbols.
#include "tests/abi/two_versions.h"

extern "C" sutra::test::LibraryFunctions FirstLibraryUser();
extern "C" sutra::test::LibraryFunctions OtherLibraryUser();

namespace sutra::test {
namespace {

class TwoVersionsLinked : public TwoVersions {};

TEST_F(TwoVersionsLinked, AttachEmbedAndDetachIndependently) {
  ExpectIndependent(FirstLibraryUser(), OtherLibraryUser());
}

}  // namespace
}  // namespace sutra::test
