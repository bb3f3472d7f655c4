// A file is read as it was written, or not at all.
#include "engine/cpu/int8/packed_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <span>
#include <thread>

#include "shm/base/sha256.h"
#include "shm/base/unique_fd.h"
#include "tests/engine/cpu/int8/quantised_tiny_model.h"
#include "tests/kit/temp_dir.h"

namespace sutra::cpu {
namespace {

class PackedFile : public testing::Test {
 protected:
  PackedFile() : model_(LoadTinyModel({.layers = 1})), written_(QuantiseTinyModel(model_)) {
    written_->quality = {.kernels = "a set", .cosine_min = 0.9995, .cosine_mean = 0.9999, .texts = 77, .text = "'no.'"};
  }

  Status Read(const std::string& identity) {
    read_ = {};
    read_.rest = written_->rest;
    return ReadPackedFile(Path(), identity, &read_);
  }
  std::string Path() const { return PackedFilePath(directory_.path() + "/packed", identity_); }
  std::string Bytes() const {
    std::ifstream in(Path(), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void SetBytes(const std::string& bytes) { std::ofstream(Path(), std::ios::binary | std::ios::trunc) << bytes; }
  // Not read, and nothing of it taken over.
  void ExpectRefused(const std::string& why) {
    const Status status = Read(identity_);
    EXPECT_EQ(status.code(), StatusCode::kStorageError) << why;
    EXPECT_NE(status.message().find(Path()), std::string::npos) << status.message();
    EXPECT_TRUE(read_.layers.empty()) << why;
  }

  const std::string identity_ = std::string(60, 'a') + "0123";
  const test::TempDir directory_;
  const LoadedModel model_;
  const std::shared_ptr<QuantisedModel> written_;
  QuantisedModel read_;
};

TEST_F(PackedFile, IsReadAsItWasWrittenByItsOwnerAlone) {
  EXPECT_EQ(Read(identity_).code(), StatusCode::kNotReady);
  ASSERT_TRUE(WritePackedFile(Path(), identity_, *written_).ok());
  const Status status = Read(identity_);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(BytesOf(read_.layers), BytesOf(written_->layers));
  EXPECT_EQ(read_.quality.kernels, "a set");
  EXPECT_EQ(read_.quality.cosine_min, 0.9995);
  EXPECT_EQ(read_.quality.cosine_mean, 0.9999);
  EXPECT_EQ(read_.quality.texts, 77U);
  EXPECT_EQ(read_.quality.text, "'no.'");
  struct stat found = {};
  ASSERT_EQ(stat(Path().c_str(), &found), 0);
  EXPECT_EQ(found.st_mode & 07777, 0600U);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory_.path() + "/packed"), {}), 1) << "no left-over";
}

TEST_F(PackedFile, AnyChangedByteIsNoticed) {
  ASSERT_TRUE(WritePackedFile(Path(), identity_, *written_).ok());
  const std::string whole = Bytes();
  std::mt19937 random(9);
  for (int i = 0; i < 400; ++i) {
    // Each byte of the header and of the digest, and some of the arrays.
    const size_t at = i < 264 ? static_cast<size_t>(i) : i < 296 ? whole.size() - 296 + i : random() % whole.size();
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << (random() % 8)));
    SetBytes(damaged);
    ExpectRefused("byte " + std::to_string(at));
  }
}

TEST_F(PackedFile, AnyOtherLengthIsRefused) {
  ASSERT_TRUE(WritePackedFile(Path(), identity_, *written_).ok());
  const std::string whole = Bytes();
  for (const size_t length : {size_t{0}, size_t{1}, size_t{263}, size_t{264}, whole.size() / 2, whole.size() - 1}) {
    SetBytes(whole.substr(0, length));
    ExpectRefused(std::to_string(length) + " bytes");
  }
  SetBytes(whole + "x");
  ExpectRefused("one byte more");
}

TEST_F(PackedFile, FilesOfAnotherModelAreRefused) {
  ASSERT_TRUE(WritePackedFile(Path(), identity_, *written_).ok());
  EXPECT_EQ(Read(std::string(64, 'b')).code(), StatusCode::kStorageError);
  const LoadedModel wider = LoadTinyModel({.intermediate = 192, .layers = 1});
  QuantisedModel other;
  other.rest = SharedPackedModel(wider.config.spec, wider.weights, Element::kF32, PackedParts::kAllButProducts);
  EXPECT_EQ(ReadPackedFile(Path(), identity_, &other).code(), StatusCode::kStorageError);
}

// Of a later engine, say: its checksum is right.
TEST_F(PackedFile, AnotherFormatIsRefusedWhateverItsChecksum) {
  ASSERT_TRUE(WritePackedFile(Path(), identity_, *written_).ok());
  const std::string whole = Bytes();
  const auto with_checksum = [](std::string bytes) {
    Sha256 hash;
    const size_t covered = bytes.size() - sizeof(Sha256Digest);
    hash.Add(std::as_bytes(std::span(bytes).first(covered)));
    const Sha256Digest digest = hash.Finish().value();
    for (size_t i = 0; i < digest.size(); ++i) bytes[covered + i] = static_cast<char>(digest[i]);
    return bytes;
  };
  SetBytes(with_checksum(whole));
  ASSERT_TRUE(Read(identity_).ok()) << "the canary: the checksum is made as the writer makes it";
  for (const size_t at : {size_t{0}, size_t{8}, size_t{12}}) {  // magic, version, layers
    std::string other = whole;
    ++other[at];
    SetBytes(with_checksum(other));
    ExpectRefused("byte " + std::to_string(at));
  }
}

TEST_F(PackedFile, AFailedWriteLeavesNothingBehind) {
  std::filesystem::create_directories(Path());  // where the file should get its name
  EXPECT_EQ(WritePackedFile(Path(), identity_, *written_).code(), StatusCode::kStorageError);
  EXPECT_FALSE(std::filesystem::exists(Path() + ".tmp"));
}

TEST_F(PackedFile, WhatOthersCouldHavePutThereIsRefused) {
  ASSERT_TRUE(WritePackedFile(Path(), identity_, *written_).ok());
  ASSERT_EQ(chmod(Path().c_str(), 0620), 0);
  ExpectRefused("the group may write it");
  ASSERT_EQ(chmod(Path().c_str(), 0600), 0);
  const std::string elsewhere = directory_.path() + "/elsewhere";
  std::filesystem::rename(Path(), elsewhere);
  std::filesystem::create_symlink(elsewhere, Path());
  ExpectRefused("a link");
  std::filesystem::remove(Path());
  ASSERT_EQ(mkfifo(Path().c_str(), 0600), 0);
  ExpectRefused("a pipe");
  std::filesystem::remove(Path());
  std::filesystem::create_directory(Path());
  ExpectRefused("a directory");
}

TEST_F(PackedFile, AFileThatADeadWriterLeftIsReplacedAndThatOfALiveOneIsNot) {
  std::filesystem::create_directory(directory_.path() + "/packed");
  const std::string temporary = Path() + ".tmp";
  std::ofstream(temporary) << "half a file";
  ASSERT_TRUE(WritePackedFile(Path(), identity_, *written_).ok());
  EXPECT_TRUE(Read(identity_).ok());
  EXPECT_FALSE(std::filesystem::exists(temporary));

  std::filesystem::remove(Path());
  const UniqueFd live(open(temporary.c_str(), O_WRONLY | O_CREAT, 0600));
  ASSERT_EQ(flock(live.get(), LOCK_EX), 0);
  EXPECT_FALSE(WritePackedFile(Path(), identity_, *written_).ok());
  EXPECT_TRUE(std::filesystem::exists(temporary));
  EXPECT_EQ(Read(identity_).code(), StatusCode::kNotReady);
}

// A writer that took another's file for a left-over would give its name to half a file.
TEST_F(PackedFile, OfManyWritersAtOnceEveryReaderSeesWholeFiles) {
  ASSERT_TRUE(WritePackedFile(Path(), identity_, *written_).ok());
  std::vector<std::thread> writers;
  std::atomic<int> left{4};
  for (int i = 0; i < 4; ++i) {
    writers.emplace_back([&] {
      for (int round = 0; round < 100; ++round) static_cast<void>(WritePackedFile(Path(), identity_, *written_).ok());
      left.fetch_sub(1);
    });
  }
  do {
    const Status status = Read(identity_);
    EXPECT_TRUE(status.ok()) << status.message();
  } while (left.load() > 0 && !HasFailure());
  for (std::thread& writer : writers) writer.join();
  EXPECT_TRUE(Read(identity_).ok());
}

TEST_F(PackedFile, APipeUnderTheTemporaryNameIsReplacedAndNotWaitedFor) {
  std::filesystem::create_directory(directory_.path() + "/packed");
  ASSERT_EQ(mkfifo((Path() + ".tmp").c_str(), 0600), 0);
  const Status status = WritePackedFile(Path(), identity_, *written_);
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_TRUE(Read(identity_).ok());
}

TEST_F(PackedFile, AFolderThatCannotBeMadeIsAnError) {
  const std::string path = PackedFilePath(directory_.path() + "/no/such/folder", identity_);
  const Status status = WritePackedFile(path, identity_, *written_);
  EXPECT_EQ(status.code(), StatusCode::kStorageError);
  EXPECT_NE(status.message().find("no/such"), std::string::npos) << status.message();
}

}  // namespace
}  // namespace sutra::cpu
