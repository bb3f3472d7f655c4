// A model's JSON files are read within bounds and their fields checked.
#include "engine/model/json_file.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/kit/temp_dir.h"
#include "tests/kit/tiny_model.h"

namespace sutra {
namespace {

TEST(JsonFile, MissingBrokenAndHugeFilesAreNamedWithTheCause) {
  test::TempDir directory;
  const auto message = [&](const std::string& text) {
    directory.Write("file.json", text);
    return ReadJsonFile(directory / "file.json").status().message();
  };
  EXPECT_NE(ReadJsonFile(directory / "none.json").status().message().find("none.json"), std::string::npos);
  EXPECT_NE(message("{").find("not valid JSON"), std::string::npos);
  EXPECT_NE(message(std::string((1 << 20) + 1, ' ')).find("1 MiB"), std::string::npos);
  directory.Write("file.json", R"({"a": 1})");
  EXPECT_EQ(ReadJsonFile(directory / "file.json").value()["a"], 1);
}

TEST(JsonFile, NumbersOutsideTheirRangeAreRefusedWithIt) {
  const auto object = nlohmann::json::parse(R"({"good": 7, "big": 11, "negative": -1, "text": "7", "part": 7.5})");
  uint32_t value = 0;
  EXPECT_TRUE(ReadNumber(object, "f", "good", 1, 10, &value).ok());
  EXPECT_EQ(value, 7U);
  for (const char* key : {"big", "negative", "text", "part"}) {
    const Status status = ReadNumber(object, "f", key, 1, 10, &value);
    EXPECT_NE(status.message().find("from 1 to 10"), std::string::npos) << key;
  }
  EXPECT_NE(ReadNumber(object, "f", "none", 1, 10, &value).message().find("lacks none"), std::string::npos);
  EXPECT_EQ(value, 7U);
}

TEST(JsonFile, FieldsOfAnotherTypeCountAsAbsent) {
  const nlohmann::json object = {{"text", "x"}, {"number", 1}, {"yes", true}};
  EXPECT_EQ(StringOr(object, "text", "-"), "x");
  EXPECT_EQ(StringOr(object, "number", "-"), "-");
  EXPECT_TRUE(IsTrue(object, "yes"));
  EXPECT_FALSE(IsTrue(object, "number"));
  EXPECT_FALSE(IsTrue(object, "none"));
}

}  // namespace
}  // namespace sutra
