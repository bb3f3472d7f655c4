// Finding and loading the torch plug-in, and refusing files that are not one.
#include "engine/torch/plugin_loader.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/kit/temp_dir.h"
#include "tests/kit/tiny_model.h"

namespace sutra {
namespace {

class PluginLoader : public testing::Test {
 protected:
  void TearDown() override {
    unsetenv("SUTRA_TORCH_PLUGIN");
    unsetenv("SUTRA_LIBTORCH_DIR");
  }
};

TEST_F(PluginLoader, LooksBesideTheProgramUnlessAFileIsNamed) {
  const std::vector<std::string> paths = TorchPluginPaths("/opt/sutra/bin");
  ASSERT_EQ(paths.size(), 2U);
  EXPECT_EQ(paths[0], "/opt/sutra/bin/../lib/sutra/libsutra_torch.so");
  setenv("SUTRA_TORCH_PLUGIN", "/elsewhere/plugin.so", 1);
  EXPECT_EQ(TorchPluginPaths("/opt/sutra/bin"), std::vector<std::string>{"/elsewhere/plugin.so"});
}

TEST_F(PluginLoader, FileThatIsNoLibraryIsRefusedByName) {
  test::TempDir directory;
  directory.Write("plugin.so", "not a library");
  const auto plugin = LoadTorchPluginFile(directory / "plugin.so");
  EXPECT_EQ(plugin.code(), StatusCode::kModelError);
  EXPECT_NE(plugin.status().message().find(directory / "plugin.so"), std::string::npos);
}

TEST_F(PluginLoader, LibraryThatIsNoPluginIsRefused) {
  const auto plugin = LoadTorchPluginFile("libm.so.6");
  EXPECT_NE(plugin.status().message().find("not a Sutra plug-in"), std::string::npos) << plugin.status().message();
}

TEST_F(PluginLoader, LibtorchFolderThatHoldsNoneIsNamed) {
  setenv("SUTRA_LIBTORCH_DIR", "/nowhere", 1);
  const auto plugin = LoadTorchPluginFile("libm.so.6");
  EXPECT_NE(plugin.status().message().find("/nowhere/"), std::string::npos) << plugin.status().message();
}

}  // namespace
}  // namespace sutra
