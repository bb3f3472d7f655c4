#include "shm/base/enum_names.h"

#include <gtest/gtest.h>

namespace sutra {
namespace {

enum class Fruit { kApple, kPear = 7 };
constexpr std::pair<const char*, Fruit> kFruitNames[] = {{"pear", Fruit::kPear}, {"apple", Fruit::kApple}};

TEST(EnumNames, GoBothWaysWhateverTheOrder) {
  EXPECT_STREQ(NameOf(kFruitNames, Fruit::kApple), "apple");
  EXPECT_STREQ(NameOf(kFruitNames, Fruit::kPear), "pear");
  EXPECT_EQ(EnumOf(kFruitNames, "apple"), Fruit::kApple);
  EXPECT_EQ(EnumOf(kFruitNames, "pear"), Fruit::kPear);
}

TEST(EnumNames, AnUnknownNameIsNothing) {
  for (const char* text : {"", "Apple", "apple ", "plum"}) EXPECT_EQ(EnumOf(kFruitNames, text), std::nullopt) << text;
}

TEST(EnumNamesDeathTest, AnEnumeratorWithoutANameIsOurBug) {
  EXPECT_DEATH(NameOf(kFruitNames, static_cast<Fruit>(3)), "every enumerator has a name");
}

}  // namespace
}  // namespace sutra
