// Lane memory made and given back by another thread.
#include "engine/lanes/lane_maker.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/stat.h>

#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "shm/base/time.h"

namespace sutra {
namespace {

constexpr LaneShare kMuch = {.lanes = 8, .bytes = 8ull << 30};
constexpr LaneGeometry kGeometry = {8, 4096, 4};

class LaneMakerTest : public ::testing::Test {
 protected:
  LaneMakerTest() { EXPECT_TRUE(maker_->Start().ok()); }

  void Order(uint64_t id, const LaneGeometry& geometry = kGeometry) {
    maker_->Make({.id = id, .geometry = geometry, .identity = {77, id, {}}, .charge = Charge()});
  }
  ClientTable::Charge Charge() {
    ClientTable::Bound bound;
    return std::move(clients_->Take(client_, 1000, &bound)).value();
  }
  LaneMaker::Made Await() {
    for (;;) {
      if (std::optional<LaneMaker::Made> made = maker_->TakeMade()) return std::move(*made);
      pollfd item = {maker_->fd(), POLLIN, 0};
      poll(&item, 1, -1);
    }
  }
  std::shared_ptr<Lane> Shared(LaneMaker::Made made) {
    const auto charge = std::make_shared<ClientTable::Charge>(std::move(made.charge));
    auto lane = std::make_unique<Lane>(made.id, client_, std::move(made.memory), UniqueFd());
    return {lane.release(), [maker = maker_, charge](Lane* ended) {
              maker->GiveBack(std::unique_ptr<Lane>(ended), std::move(*charge));
            }};
  }
  void AwaitNoCharge() {
    while (clients_->total().lanes > 0) poll(nullptr, 0, 1);
  }
  static int64_t Pages(const UniqueFd& fd) {
    struct stat info = {};
    EXPECT_EQ(fstat(fd.get(), &info), 0);
    return info.st_blocks / 8;
  }

  const std::shared_ptr<ClientTable> clients_ =
      std::make_shared<ClientTable>(ClientTable::Limits{.total = kMuch, .per_uid = kMuch, .per_client = kMuch});
  const ClientPtr client_ = clients_->Find(-1, 1000, 0, "client");
  std::shared_ptr<LaneMaker> maker_ = std::make_shared<LaneMaker>(kMuch.lanes);
};

TEST_F(LaneMakerTest, WhatWasOrderedComesInOrderAndTheDescriptorSaysSo) {
  for (const uint64_t id : {5, 6, 7}) Order(id);
  for (const uint64_t id : {5, 6, 7}) {
    const LaneMaker::Made made = Await();
    EXPECT_EQ(made.id, id);
    EXPECT_TRUE(made.status.ok()) << made.status.message();
    EXPECT_EQ(made.memory.request().header().lane_id, id);
  }
  EXPECT_FALSE(maker_->TakeMade().has_value());
  pollfd item = {maker_->fd(), POLLIN, 0};
  EXPECT_EQ(poll(&item, 1, 0), 0) << "nothing to take, nothing to wake for";
}

TEST_F(LaneMakerTest, AnOrderThatFailsFailsAlone) {
  Order(1, {3, 4096, 4});
  Order(2);
  const LaneMaker::Made failed = Await();
  EXPECT_EQ(failed.id, 1u);
  EXPECT_EQ(failed.status.code(), StatusCode::kRefused);
  EXPECT_TRUE(Await().status.ok());
}

TEST_F(LaneMakerTest, ALaneIsGivenBackWhoeverDropsItAndThenItsChargeEnds) {
  Order(1);
  std::shared_ptr<Lane> lane = Shared(Await());
  const UniqueFd kept(fcntl(lane->memory().tail_fd(), F_DUPFD_CLOEXEC, 0));
  ASSERT_EQ(fallocate(kept.get(), 0, 0, 8192), 0);
  EXPECT_EQ(Pages(kept), 2);
  EXPECT_EQ(clients_->total().lanes, 1u);
  std::thread([&] { lane.reset(); }).join();
  AwaitNoCharge();
  EXPECT_EQ(Pages(kept), 0) << "the memory goes before the charge does";
  while (maker_->ending() > 0) poll(nullptr, 0, 1);
  pollfd item = {maker_->fd(), POLLIN, 0};
  EXPECT_EQ(poll(&item, 1, -1), 1) << "whoever waits for the charge is woken";
}

TEST_F(LaneMakerTest, MemoryThatNoLaneGotIsGivenBackToo) {
  Order(1);
  LaneMaker::Made made = Await();
  maker_->GiveBack(std::move(made.memory), std::move(made.charge));
  AwaitNoCharge();
}

TEST_F(LaneMakerTest, AnEngineThatLeavesLeavesTheTextsToItsClients) {
  Order(1);
  std::shared_ptr<Lane> lane = Shared(Await());
  const UniqueFd kept(fcntl(lane->memory().request_fd(), F_DUPFD_CLOEXEC, 0));
  const int64_t pages = Pages(kept);
  EXPECT_GT(pages, 0);
  maker_->KeepTexts();
  lane.reset();
  AwaitNoCharge();
  EXPECT_EQ(Pages(kept), pages);
}

TEST_F(LaneMakerTest, TheEndOfTheMakerGivesEverythingBack) {
  for (uint64_t id = 1; id <= 4; ++id) Order(id);
  std::shared_ptr<Lane> lane = Shared(Await());  // its end holds the maker, too
  maker_.reset();
  EXPECT_GT(clients_->total().lanes, 0u);
  lane.reset();
  EXPECT_EQ(clients_->total().lanes, 0u);
}

TEST(LaneMaker, WithoutAThreadNothingIsLeftEither) {
  const auto clients =
      std::make_shared<ClientTable>(ClientTable::Limits{.total = kMuch, .per_uid = kMuch, .per_client = kMuch});
  {
    LaneMaker maker(1);
    ClientTable::Bound bound;
    const ClientPtr client = clients->Find(-1, 1000, 0, "client");
    maker.GiveBack(LaneMemory(), std::move(clients->Take(client, 1, &bound)).value());
    EXPECT_EQ(maker.ending(), 1u);
  }
  EXPECT_EQ(clients->total().lanes, 0u);
}

}  // namespace
}  // namespace sutra
