// Every public call with every combination of its pointers NULL: SUTRA_BAD_ARGUMENT where a needed one is missing, the
// usual answer where only optional ones are, and never a fault.
#include <functional>
#include <string>
#include <vector>

#include "tests/producer/client_fixture.h"

namespace sutra::test {
namespace {

class NullArgument : public ClientTest {
 protected:
  void SetUp() override {
    ClientTest::SetUp();
    StartEngine();
    client_ = Attach(4);
  }
  void TearDown() override {
    client_.reset();
    ClientTest::TearDown();
  }

  // Which of a call's pointers are NULL.
  class Nulls {
   public:
    explicit Nulls(uint32_t mask) : mask_(mask) {}
    bool operator[](size_t argument) const { return (mask_ >> argument & 1) != 0; }
    template <typename T>
    T* Or(size_t argument, T* pointer) const {
      return (*this)[argument] ? nullptr : pointer;
    }

   private:
    uint32_t mask_;
  };

  struct Argument {
    const char* name;
    bool needed;
  };
  static void ForEveryCombination(const std::vector<Argument>& arguments,
                                  const std::function<sutra_status(Nulls)>& call) {
    for (uint32_t mask = 0; mask < 1u << arguments.size(); ++mask) {
      const Nulls nulls(mask);
      bool bad = false;
      std::string missing = "NULL:";
      for (size_t i = 0; i < arguments.size(); ++i) {
        if (nulls[i]) missing += std::string(" ") + arguments[i].name;
        bad = bad || (nulls[i] && arguments[i].needed);
      }
      EXPECT_EQ(call(nulls), bad ? SUTRA_BAD_ARGUMENT : SUTRA_OK) << missing << "; " << sutra_error_text();
      if (bad) {
        EXPECT_NE(std::string(sutra_error_text()).find("NULL"), std::string::npos) << sutra_error_text();
      }
    }
  }

  sutra_ticket Ticket() {
    sutra_ticket ticket = 0;
    sutra_status status;
    do {  // tickets that were released before their answer came leave no room for a moment
      status = Submit(client_, "text", &ticket);
    } while (status == SUTRA_FULL);
    EXPECT_EQ(status, SUTRA_OK);
    return ticket;
  }

  ClientPtr client_;
  const sutra_options options_ = RequestOptions();
};

TEST_F(NullArgument, Attach) {
  const sutra_attach_options options = AttachOptions(4);
  ForEveryCombination({{"path", true}, {"options", false}, {"client", true}}, [&](Nulls nulls) {
    sutra_client* made = client_.get();  // anything but NULL
    const sutra_status status = sutra_attach(nulls.Or(0, path_.c_str()), nulls.Or(1, &options), nulls.Or(2, &made));
    if (!nulls[2]) {
      EXPECT_EQ(made != nullptr, status == SUTRA_OK);
      sutra_detach(made);
    }
    return status;
  });
}

TEST_F(NullArgument, DetachAndReleaseDoNothing) {
  sutra_detach(nullptr);
  sutra_release(nullptr, 0);
  sutra_release(nullptr, Ticket());
}

TEST_F(NullArgument, GetInfo) {
  ForEveryCombination({{"client", true}, {"info", true}}, [&](Nulls nulls) {
    sutra_info info = embed::Info();
    return sutra_get_info(nulls.Or(0, client_.get()), nulls.Or(1, &info));
  });
}

TEST_F(NullArgument, Submit) {
  ForEveryCombination({{"client", true}, {"text", true}, {"options", false}, {"ticket", true}}, [&](Nulls nulls) {
    sutra_ticket ticket = 0;
    const sutra_status status =
        sutra_submit(nulls.Or(0, client_.get()), nulls.Or(1, "text"), 4, nulls.Or(2, &options_), nulls.Or(3, &ticket));
    EXPECT_EQ(ticket != 0, status == SUTRA_OK);
    sutra_release(client_.get(), ticket);
    return status;
  });
}

TEST_F(NullArgument, AnEmptyTextMayBeNull) {
  sutra_ticket ticket = 0;
  EXPECT_EQ(sutra_submit(client_.get(), nullptr, 0, nullptr, &ticket), SUTRA_EMPTY_TEXT);
}

TEST_F(NullArgument, SubmitMany) {
  const Texts texts = ManyTexts(2);
  ForEveryCombination({{"client", true},
                       {"texts", true},
                       {"text_bytes", true},
                       {"options", false},
                       {"tickets", true},
                       {"submitted", true}},
                      [&](Nulls nulls) {
                        sutra_ticket tickets[2] = {};
                        size_t submitted = 7;
                        const sutra_status status =
                            sutra_submit_many(nulls.Or(0, client_.get()), nulls.Or(1, texts.pointers.data()),
                                              nulls.Or(2, texts.sizes.data()), 2, nulls.Or(3, &options_),
                                              nulls.Or(4, tickets), nulls.Or(5, &submitted));
                        if (!nulls[5]) {
                          EXPECT_EQ(submitted, status == SUTRA_OK ? 2u : 0u);
                        }
                        for (const sutra_ticket ticket : tickets) sutra_release(client_.get(), ticket);
                        return status;
                      });
  size_t submitted = 7;
  EXPECT_EQ(sutra_submit_many(client_.get(), nullptr, nullptr, 0, nullptr, nullptr, &submitted), SUTRA_OK);
  EXPECT_EQ(submitted, 0u);
}

TEST_F(NullArgument, ATextAmongManyEndsTheSubmit) {
  Texts texts = ManyTexts(3);
  texts.pointers[1] = nullptr;
  sutra_ticket tickets[3];
  size_t submitted = 0;
  EXPECT_EQ(
      sutra_submit_many(client_.get(), texts.pointers.data(), texts.sizes.data(), 3, nullptr, tickets, &submitted),
      SUTRA_BAD_ARGUMENT);
  EXPECT_EQ(submitted, 1u);
}

TEST_F(NullArgument, Wait) {
  ForEveryCombination({{"client", true}, {"result", false}}, [&](Nulls nulls) {
    const sutra_ticket ticket = Ticket();
    sutra_result result = embed::Result();
    const sutra_status status = sutra_wait(nulls.Or(0, client_.get()), ticket, 60'000, nulls.Or(1, &result));
    if (!nulls[1]) {
      EXPECT_EQ(result.status, status);
    }
    sutra_release(client_.get(), ticket);
    return status;
  });
}

TEST_F(NullArgument, PollFindsNothing) {
  const sutra_ticket ticket = Ticket();
  sutra_result found = embed::Result(), unset = {};
  constexpr size_t kStride = sizeof(sutra_result);
  while (sutra_poll(client_.get(), &found, kStride, 1) == 0) {
    EXPECT_EQ(sutra_poll(nullptr, &found, kStride, 1), 0u);
    EXPECT_EQ(sutra_poll(client_.get(), nullptr, kStride, 1), 0u);
    EXPECT_EQ(sutra_poll(nullptr, nullptr, kStride, 1), 0u);
    EXPECT_EQ(sutra_poll(client_.get(), nullptr, 0, 0), 0u);
    EXPECT_EQ(sutra_poll(client_.get(), &unset, kStride, 1), 0u);
    EXPECT_EQ(sutra_poll(client_.get(), &found, kStride - 1, 1), 0u);
  }
  EXPECT_EQ(found.ticket, ticket) << "the calls with NULL took no report away";
}

TEST_F(NullArgument, WaitAny) {
  ForEveryCombination({{"client", true}, {"tickets", true}, {"index", true}, {"result", false}}, [&](Nulls nulls) {
    const sutra_ticket ticket = Ticket();
    size_t index = 99;
    sutra_result result = embed::Result();
    const sutra_status status = sutra_wait_any(nulls.Or(0, client_.get()), nulls.Or(1, &ticket), 1, 60'000,
                                               nulls.Or(2, &index), nulls.Or(3, &result));
    if (!nulls[3]) {
      EXPECT_EQ(result.status, status);
    }
    sutra_release(client_.get(), ticket);
    return status;
  });
}

TEST_F(NullArgument, WaitAll) {
  ForEveryCombination({{"client", true}, {"tickets", true}, {"results", false}}, [&](Nulls nulls) {
    const sutra_ticket ticket = Ticket();
    sutra_result result = embed::Result();
    const sutra_status status = sutra_wait_all(nulls.Or(0, client_.get()), nulls.Or(1, &ticket), 1, 60'000,
                                               nulls.Or(2, &result), sizeof(result));
    if (!nulls[2]) {
      EXPECT_EQ(result.status, status);
    }
    sutra_release(client_.get(), ticket);
    return status;
  });
}

TEST_F(NullArgument, Take) {
  ForEveryCombination({{"client", true}, {"vector", true}, {"result", false}}, [&](Nulls nulls) {
    const sutra_ticket ticket = Ticket();
    EXPECT_EQ(sutra_wait(client_.get(), ticket, 60'000, nullptr), SUTRA_OK);
    float vector[16];
    sutra_result result = embed::Result();
    const sutra_status status =
        sutra_take(nulls.Or(0, client_.get()), ticket, nulls.Or(1, vector), 16, nulls.Or(2, &result));
    if (!nulls[2]) {
      EXPECT_EQ(result.status, status);
    }
    sutra_release(client_.get(), ticket);
    return status;
  });
}

TEST_F(NullArgument, FreeSlotsAreNone) { EXPECT_EQ(sutra_free_slots(nullptr), 0u); }

TEST_F(NullArgument, EventFdIsNone) { EXPECT_EQ(sutra_event_fd(nullptr), -1); }

TEST_F(NullArgument, Cancel) {
  ForEveryCombination({{"client", true}}, [&](Nulls nulls) {
    const sutra_ticket ticket = Ticket();
    const sutra_status status = sutra_cancel(nulls.Or(0, client_.get()), ticket);
    sutra_release(client_.get(), ticket);
    return status;
  });
}

TEST_F(NullArgument, Embed) {
  ForEveryCombination(
      {{"client", true}, {"text", true}, {"options", false}, {"vector", true}, {"result", false}}, [&](Nulls nulls) {
        float vector[16];
        sutra_result result = embed::Result();
        const sutra_status status = sutra_embed(nulls.Or(0, client_.get()), nulls.Or(1, "text"), 4,
                                                nulls.Or(2, &options_), nulls.Or(3, vector), nulls.Or(4, &result));
        if (!nulls[4]) {
          EXPECT_EQ(result.status, status);
        }
        return status;
      });
}

TEST_F(NullArgument, EmbedBatch) {
  const Texts texts = ManyTexts(2);
  ForEveryCombination({{"client", true},
                       {"texts", true},
                       {"text_bytes", true},
                       {"options", false},
                       {"vectors", true},
                       {"results", false}},
                      [&](Nulls nulls) {
                        float vectors[32];
                        sutra_result results[2] = {embed::Result(), embed::Result()};
                        const sutra_status status =
                            sutra_embed_batch(nulls.Or(0, client_.get()), nulls.Or(1, texts.pointers.data()),
                                              nulls.Or(2, texts.sizes.data()), 2, nulls.Or(3, &options_), nullptr,
                                              nulls.Or(4, vectors), nulls.Or(5, results), sizeof(sutra_result));
                        if (!nulls[5]) {
                          for (const sutra_result& result : results) EXPECT_EQ(result.status, status);
                        }
                        return status;
                      });
}

TEST_F(NullArgument, ATextOfABatchGetsItsOwnStatus) {
  Texts texts = ManyTexts(3);
  texts.pointers[1] = nullptr;
  float vectors[48];
  std::vector<sutra_result> results(3, embed::Result());
  EXPECT_EQ(sutra_embed_batch(client_.get(), texts.pointers.data(), texts.sizes.data(), 3, nullptr, nullptr, vectors,
                              results.data(), sizeof(sutra_result)),
            SUTRA_BAD_ARGUMENT);
  EXPECT_EQ(results[0].status, SUTRA_OK);
  EXPECT_EQ(results[1].status, SUTRA_BAD_ARGUMENT);
  EXPECT_EQ(results[2].status, SUTRA_OK);
}

TEST_F(NullArgument, TextsAreNeverNull) {
  EXPECT_NE(sutra_status_text(SUTRA_OK), nullptr);
  EXPECT_NE(sutra_error_text(), nullptr);
}

}  // namespace
}  // namespace sutra::test
