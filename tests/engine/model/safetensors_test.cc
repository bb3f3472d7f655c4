// The weights file as untrusted input: each kind of damage is refused with a message that names the file.
#include "engine/model/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "tests/kit/seed.h"
#include "tests/kit/temp_dir.h"
#include "tests/kit/tiny_model.h"

namespace sutra {
namespace {

class Safetensors : public testing::Test {
 protected:
  Result<std::shared_ptr<SafetensorsFile>> Open(const std::string& header, const std::string& data) {
    return OpenBytes(SafetensorsBytes(header, data));
  }
  Result<std::shared_ptr<SafetensorsFile>> OpenBytes(const std::string& bytes) {
    directory_.Write("model.safetensors", bytes);
    return SafetensorsFile::Open(path());
  }
  void ExpectDamaged(const std::string& header, const std::string& data, const std::string& what) {
    const auto opened = Open(header, data);
    ASSERT_FALSE(opened.ok()) << header;
    EXPECT_EQ(opened.code(), StatusCode::kModelError);
    EXPECT_NE(opened.status().message().find(path()), std::string::npos) << opened.status().message();
    EXPECT_NE(opened.status().message().find(what), std::string::npos) << opened.status().message();
  }
  std::string path() const { return directory_ / "model.safetensors"; }

  test::TempDir directory_;
};

const std::string kTwo = R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                             "b": {"dtype": "F16", "shape": [1, 2], "data_offsets": [8, 12]}})";

TEST_F(Safetensors, TensorsAreFoundWithTypeShapeAndBytes) {
  std::string data(12, '\0');
  const float values[] = {1.5F, -2.0F};
  std::memcpy(data.data(), values, 8);
  data.replace(8, 4, std::string("\x00\x3c\x01\x80", 4));  // halves 1.0 and the smallest negative one
  const auto file = Open(kTwo, data);
  ASSERT_TRUE(file.ok()) << file.status().message();
  ASSERT_NE(file.value()->Find("a"), nullptr);
  const TensorView* a = file.value()->Load("a").value();
  EXPECT_EQ(a->type, TensorType::kF32);
  EXPECT_EQ(a->shape, std::vector<uint64_t>{2});
  float out[2] = {};
  a->CopyTo(out);
  EXPECT_EQ(out[0], 1.5F);
  EXPECT_EQ(out[1], -2.0F);
  file.value()->Load("b").value()->CopyTo(out);
  EXPECT_EQ(out[0], 1.0F);
  EXPECT_EQ(out[1], -0x1p-24F);
  EXPECT_EQ(file.value()->Find("c"), nullptr);
}

TEST_F(Safetensors, MetadataOfStringsAndPaddingSpacesAreAccepted) {
  EXPECT_TRUE(Open(R"({"__metadata__": {"format": "pt"}}   )", "").ok());
  ExpectDamaged(R"({"__metadata__": {"format": 1}})", "", "__metadata__");
  ExpectDamaged(R"({"__metadata__": "pt"})", "", "__metadata__");
}

TEST_F(Safetensors, HalfPrecisionCoversInfinityAndSubnormals) {
  const auto file = Open(R"({"h": {"dtype": "F16", "shape": [3], "data_offsets": [0, 6]}})",
                         std::string("\x00\x7c\x00\xfc\xff\x03", 6));
  ASSERT_TRUE(file.ok());
  float out[3] = {};
  file.value()->Load("h").value()->CopyTo(out);
  EXPECT_EQ(out[0], INFINITY);
  EXPECT_EQ(out[1], -INFINITY);
  EXPECT_EQ(out[2], 1023 * 0x1p-24F);
}

TEST_F(Safetensors, MissingFileNamesItAndTheFix) {
  const auto opened = SafetensorsFile::Open(directory_ / "none.safetensors");
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.status().os_error(), ENOENT);
  EXPECT_NE(opened.status().message().find("none.safetensors"), std::string::npos);
  EXPECT_NE(opened.status().message().find("fetch the model again"), std::string::npos);
}

TEST_F(Safetensors, AGitLfsPointerIsNamedWithTheCommandThatFetchesTheFile) {
  const auto opened = OpenBytes(
      "version https://git-lfs.github.com/spec/v1\noid "
      "sha256:53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db\nsize 90868376\n");
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.code(), StatusCode::kModelError);
  for (const char* part : {"model.safetensors", "git-lfs pointer", "git lfs pull"}) {
    EXPECT_NE(opened.status().message().find(part), std::string::npos) << opened.status().message();
  }
  EXPECT_EQ(opened.status().message().find("claims"), std::string::npos) << opened.status().message();
}

TEST_F(Safetensors, DirectoryInPlaceOfTheFileIsRefused) { EXPECT_FALSE(SafetensorsFile::Open(directory_.path()).ok()); }

TEST_F(Safetensors, TruncationAnywhereIsRefused) {
  const std::string whole = SafetensorsBytes(kTwo, std::string(12, 'x'));
  for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
    EXPECT_FALSE(OpenBytes(whole.substr(0, bytes)).ok()) << bytes;
  }
  EXPECT_TRUE(OpenBytes(whole).ok());
  EXPECT_FALSE(OpenBytes(whole + "x").ok()) << "bytes that do not belong to any tensor";
}

TEST_F(Safetensors, HeaderLengthBeyondFileOrLimitIsRefused) {
  std::string bytes = SafetensorsBytes("{}", "");
  for (const uint64_t length : {uint64_t{3}, uint64_t{1} << 24, uint64_t{1} << 40, ~uint64_t{0}, ~uint64_t{0} - 7}) {
    std::memcpy(bytes.data(), &length, 8);
    EXPECT_FALSE(OpenBytes(bytes).ok()) << length;
  }
}

TEST_F(Safetensors, HeaderThatIsNoObjectIsRefused) {
  for (const char* header : {"", " {}", "[]", "null", "{", "{}x", "{\"a\": 1}", "{\"\xff\": 1}"}) {
    EXPECT_FALSE(Open(header, "").ok()) << header;
  }
}

TEST_F(Safetensors, DeepNestingIsRefusedWithoutRecursion) {
  const std::string deep = "{\"a\": " + std::string(100000, '[') + std::string(100000, ']') + "}";
  ExpectDamaged(deep, "", "nests too deeply");
}

TEST_F(Safetensors, DuplicateNamesAreRefused) {
  ExpectDamaged(R"({"a": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]},
                    "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})",
                "xxxx", "twice");
  ExpectDamaged(R"({"a": {"dtype": "F32", "shape": [1], "shape": [1], "data_offsets": [0, 4]}})", "xxxx", "twice");
}

TEST_F(Safetensors, SpanMustFitTypeAndShape) {
  for (const char* shape : {"[2]", "[0]", "[1, 1, 2]"}) {
    ExpectDamaged(R"({"a": {"dtype": "F32", "shape": )" + std::string(shape) + R"(, "data_offsets": [0, 4]}})", "xxxx",
                  "does not fit");
  }
  ExpectDamaged(R"({"a": {"dtype": "F32", "shape": [4294967296, 4294967296, 4294967296], "data_offsets": [0, 0]}})", "",
                "beyond 64 bits");
  ExpectDamaged(R"({"a": {"dtype": "F64", "shape": [4611686018427387904], "data_offsets": [0, 0]}})", "",
                "beyond 64 bits");
}

TEST_F(Safetensors, OffsetsMustStayWithinTheFile) {
  ExpectDamaged(R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [1, 5]}})", "xxxx", "beyond the end");
  ExpectDamaged(R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}})", "xxxx", "beyond the end");
  ExpectDamaged(R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [18446744073709551612, 0]}})", "xxxx",
                "beyond the end");
}

TEST_F(Safetensors, OverlapAndHoleAreRefused) {
  const std::string second = R"("b": {"dtype": "F32", "shape": [1], "data_offsets": )";
  const std::string first = R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, )";
  ExpectDamaged(first + second + "[0, 4]}}", "xxxx", "overlaps");
  ExpectDamaged(first + second + "[2, 6]}}", "xxxxxx", "overlaps");
  ExpectDamaged(first + second + "[8, 12]}}", "xxxxxxxxxxxx", "hole");
  EXPECT_TRUE(Open(first + second + "[4, 8]}}", "xxxxxxxx").ok());
}

TEST_F(Safetensors, MalformedEntriesAreRefused) {
  for (const char* entry :
       {"1", "{}", R"({"dtype": "F32", "shape": [1]})", R"({"dtype": "F32", "shape": 1, "data_offsets": [0, 4]})",
        R"({"dtype": 5, "shape": [1], "data_offsets": [0, 4]})",
        R"({"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]})",
        R"({"dtype": "F32", "shape": [1.5], "data_offsets": [0, 4]})",
        R"({"dtype": "Q4", "shape": [1], "data_offsets": [0, 4]})",
        R"({"dtype": "F32", "shape": [1], "data_offsets": [0]})",
        R"({"dtype": "F32", "shape": [1], "data_offsets": ["0", 4]})",
        R"({"dtype": "F32", "shape": [1], "data_offsets": [0, 4], "more": 1})"}) {
    EXPECT_FALSE(Open("{\"a\": " + std::string(entry) + "}", "xxxx").ok()) << entry;
  }
}

TEST_F(Safetensors, FloatsAreAlignedInMemoryWhereverTheyLieInTheFile) {
  const auto file = Open(R"({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}, )"
                         R"("b": {"dtype": "F32", "shape": [1], "data_offsets": [1, 5]}, )"
                         R"("c": {"dtype": "U8", "shape": [3], "data_offsets": [5, 8]}})",
                         std::string("\0\0\0\x80\x3f\0\0\0", 8));
  ASSERT_TRUE(file.ok()) << file.status().message();
  const TensorView* b = file.value()->Load("b").value();
  EXPECT_EQ(reinterpret_cast<uintptr_t>(b->bytes().data()) % alignof(float), 0U);
  EXPECT_EQ(*b->Floats(), 1.0F);
  EXPECT_EQ(file.value()->Load("c").value()->Floats(), nullptr) << "no floats";
}

// Random changes of a good file either fail or leave every view within the file; the sanitizers watch the reads.
TEST_F(Safetensors, RandomDamageNeverReadsOutside) {
  std::mt19937 random(static_cast<uint32_t>(test::TestSeed(20250301)));
  const std::string good = SafetensorsBytes(kTwo, std::string(12, 'x'));
  int refused = 0;
  for (int round = 0; round < 1000; ++round) {
    std::string bytes = good;
    for (uint32_t change = 0; change <= random() % 3; ++change) {
      bytes[random() % bytes.size()] =
          static_cast<char>(random() % 4 == 0 ? random() % 256 : "0123456789[]{},:\""[random() % 17]);
    }
    const auto file = OpenBytes(bytes);
    if (!file.ok()) {
      ++refused;
      continue;
    }
    for (const auto& [name, tensor] : file.value()->tensors()) {
      ASSERT_TRUE(file.value()->Load(name).ok());
      std::vector<float> out(tensor.count);
      if (tensor.type != TensorType::kOther) tensor.CopyTo(out.data());
    }
  }
  EXPECT_GT(refused, 300) << "the damage must reach the parser";
}

// A mapping would end the process with SIGBUS here.
TEST_F(Safetensors, FileThatBecomesShorterBeforeATensorIsReadIsAnError) {
  const std::string whole = SafetensorsBytes(kTwo, std::string(12, 'x'));
  for (size_t bytes = whole.size() - 12; bytes < whole.size(); ++bytes) {
    const auto file = OpenBytes(whole);
    ASSERT_TRUE(file.ok());
    std::filesystem::resize_file(path(), bytes);
    const auto loaded = file.value()->Load("b");
    ASSERT_FALSE(loaded.ok()) << bytes;
    EXPECT_NE(loaded.status().message().find("became shorter"), std::string::npos) << loaded.status().message();
  }
}

TEST_F(Safetensors, TensorsLoadedTogetherAreAlignedAndToldPartByPart) {
  const std::string header = R"({"a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}, )"
                             R"("b": {"dtype": "F32", "shape": [700000], "data_offsets": [3, 2800003]}, )"
                             R"("c": {"dtype": "F32", "shape": [0], "data_offsets": [2800003, 2800003]}})";
  std::string data(2'800'003, '\0');
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i % 251);
  const auto file = Open(header, data);
  ASSERT_TRUE(file.ok()) << file.status().message();
  const TensorView* const tensors[] = {file.value()->Find("b"), file.value()->Find("c"), file.value()->Find("a")};
  std::vector<uint64_t> parts;
  ASSERT_TRUE(file.value()->LoadTogether(tensors, [&](uint64_t bytes) { parts.push_back(bytes); }).ok());
  EXPECT_EQ(parts, (std::vector<uint64_t>{1 << 20, 1 << 20, 2'800'000 - (2 << 20), 3}));
  for (const TensorView* tensor : tensors) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor->memory.get()) % 64, 0U) << tensor->name;
  }
  EXPECT_EQ(std::memcmp(tensors[0]->bytes().data(), data.data() + 3, 2'800'000), 0);
  EXPECT_EQ(std::memcmp(tensors[2]->bytes().data(), data.data(), 3), 0);
}

TEST_F(Safetensors, FileThatFailedOnceIsNotReadAgain) {
  const std::string whole = SafetensorsBytes(kTwo, std::string(12, 'x'));
  const auto file = OpenBytes(whole);
  ASSERT_TRUE(file.ok());
  std::filesystem::resize_file(path(), whole.size() - 1);
  ASSERT_FALSE(file.value()->Load("b").ok());
  directory_.Write("model.safetensors", whole);
  EXPECT_NE(file.value()->Load("b").status().message().find("became shorter"), std::string::npos);
  EXPECT_FALSE(file.value()->Load("a").ok());
}

TEST_F(Safetensors, LoadedTensorKeepsItsValuesWhateverHappensToTheFile) {
  // Large enough for a mapping of its own.
  const std::string header = R"({"t": {"dtype": "F32", "shape": [100000], "data_offsets": [0, 400000]}})";
  const std::string data(400'000, '\x3f');
  const auto file = Open(header, data);
  ASSERT_TRUE(file.ok()) << file.status().message();
  const TensorView tensor = *file.value()->Load("t").value();
  std::ofstream(path(), std::ios::binary | std::ios::in) << SafetensorsBytes(header, std::string(400'000, '\0'));
  EXPECT_EQ(std::memcmp(tensor.bytes().data(), data.data(), data.size()), 0) << "overwritten in place";
  std::filesystem::resize_file(path(), 0);
  EXPECT_EQ(std::memcmp(tensor.bytes().data(), data.data(), data.size()), 0) << "truncated";
  std::filesystem::remove(path());
  EXPECT_EQ(std::memcmp(tensor.bytes().data(), data.data(), data.size()), 0) << "removed";
  EXPECT_EQ(tensor.Floats()[99'999], 0.747058809F);
}

}  // namespace
}  // namespace sutra
