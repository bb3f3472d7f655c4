// The decision table is total and unambiguous, and its rows say what reliability needs of them.
#include "cache/wal/recovery_table.h"

#include <gtest/gtest.h>

namespace sutra {
namespace {

TEST(RecoveryTable, EverySegmentCombinationMatchesExactlyOneRow) {
  for (int header = 0; header < kHeaderStateCount; ++header) {
    for (unsigned position = 0; position < 2; ++position) {
      int matches = 0;
      for (const SegmentRow& row : SegmentRows()) {
        matches += (row.header_mask >> header & 1) != 0 && (row.position_mask >> position & 1) != 0;
      }
      EXPECT_EQ(matches, 1) << "header " << header << ", position " << position;
    }
  }
}

TEST(RecoveryTable, EveryRecordCombinationMatchesExactlyOneRow) {
  for (int bound = 0; bound < kBoundCount; ++bound) {
    for (int record = 0; record < kRecordStateCount; ++record) {
      for (int follow = 0; follow < kFollowCount; ++follow) {
        int matches = 0;
        for (const RecordRow& row : RecordRows()) {
          matches += (row.bound_mask >> bound & 1) != 0 && (row.record_mask >> record & 1) != 0 &&
                     (row.follow_mask >> follow & 1) != 0;
        }
        EXPECT_EQ(matches, 1) << "bound " << bound << ", record " << record << ", follow " << follow;
      }
    }
  }
}

TEST(RecoveryTable, AcknowledgedDataIsNeverCutAway) {
  for (int record = 0; record < kRecordStateCount; ++record) {
    const auto state = static_cast<RecordState>(record);
    for (const RecordDecision decision :
         {DecideRecord(Bound::kOpen, state, Follow::kAcked), DecideRecord(Bound::kBelow, state, Follow::kNone)}) {
      EXPECT_NE(decision, RecordDecision::kCutTorn);
      EXPECT_NE(decision, RecordDecision::kCutUnordered);
      // The end of a full segment is the only end that may come here: nothing follows it.
      if (state != RecordState::kEndOfSegment) {
        EXPECT_NE(decision, RecordDecision::kCleanEnd);
      }
    }
  }
}

TEST(RecoveryTable, OnlyWhatMayHoldARemovalIsVoid) {
  for (const Bound bound : {Bound::kOpen, Bound::kBelow}) {
    EXPECT_EQ(DecideRecord(bound, RecordState::kBadInsertBody, Follow::kAcked), RecordDecision::kDropInsert);
    EXPECT_EQ(DecideRecord(bound, RecordState::kBadWatermark, Follow::kAcked), RecordDecision::kSkipWatermark);
    for (const RecordState state : {RecordState::kMissing, RecordState::kUnwritten, RecordState::kUnreadable,
                                    RecordState::kBadHeader, RecordState::kBadBody, RecordState::kWrongSequence}) {
      EXPECT_EQ(DecideRecord(bound, state, Follow::kAcked), RecordDecision::kVoid);
    }
  }
}

TEST(RecoveryTable, WhatLiesBehindTheCutIsIgnored) {
  for (int record = 0; record < kRecordStateCount; ++record) {
    EXPECT_EQ(DecideRecord(Bound::kReached, static_cast<RecordState>(record), Follow::kAcked), RecordDecision::kEnd);
  }
}

TEST(RecoveryTable, LooksAheadOnlyWhereItMatters) {
  EXPECT_FALSE(NeedsLookAhead(Bound::kOpen, RecordState::kGood));
  EXPECT_FALSE(NeedsLookAhead(Bound::kBelow, RecordState::kBadHeader));
  EXPECT_TRUE(NeedsLookAhead(Bound::kOpen, RecordState::kUnwritten));
  EXPECT_TRUE(NeedsLookAhead(Bound::kOpen, RecordState::kBadInsertBody));
}

}  // namespace
}  // namespace sutra
