// Builds the double array; see vocab_trie.h.
#include "engine/tokenizer/vocab_trie.h"

#include <algorithm>
#include <cassert>
#include <span>

namespace sutra {

// Places node after node. Only a few blocks stay open for placement, and a block where placement failed often enough is
// closed, so that no vocabulary can make the search for a free place quadratic.
class VocabTrie::Builder {
 public:
  Builder(std::vector<uint64_t>* units, size_t units_max) : units_(units), units_max_(units_max) {
    units_->assign(kBlock, 0);
    base_taken_.assign(kBlock, false);
    base_taken_[0] = true;
  }

  // Adds a whole trie below a new root and stores the root's base. Returns false when the units run out.
  bool AddRoot(std::span<const Entry> entries, uint32_t* root_base) {
    pending_.clear();
    if (!PlaceChildren(entries, 0, root_base)) return false;
    while (!pending_.empty()) {
      const Pending node = pending_.back();
      pending_.pop_back();
      uint32_t base = 0;
      if (!PlaceChildren(node.entries, node.depth, &base)) return false;
      (*units_)[node.unit] |= uint64_t{base} << 9;
    }
    return true;
  }

 private:
  static constexpr uint32_t kBlock = 256;
  static constexpr size_t kOpenBlocks = 8;
  static constexpr uint32_t kMissesMax = 8;

  struct OpenBlock {
    uint32_t first_unit;
    uint32_t misses;
  };

  struct Pending {
    std::span<const Entry> entries;  // the keys through this node that go on past it
    size_t depth;
    uint32_t unit;
  };

  bool PlaceChildren(std::span<const Entry> entries, size_t depth, uint32_t* base) {
    *base = 0;
    if (entries.empty()) return true;
    bytes_.clear();
    for (const Entry& entry : entries) {
      const auto byte = static_cast<uint8_t>(entry.first[depth]);
      if (bytes_.empty() || bytes_.back() != byte) bytes_.push_back(byte);
    }
    if (!FindBase(base)) return false;
    assert(*base != 0 && !base_taken_[*base]);
    base_taken_[*base] = true;
    size_t first = 0;
    for (const uint8_t byte : bytes_) {
      size_t past = first;
      while (past < entries.size() && static_cast<uint8_t>(entries[past].first[depth]) == byte) ++past;
      const uint32_t unit = *base ^ byte;
      assert(((*units_)[unit] & kUsed) == 0);
      (*units_)[unit] = kUsed | byte;
      // The key that ends here, if any, sorts before those that continue.
      if (entries[first].first.size() == depth + 1) {
        (*units_)[unit] |= static_cast<uint64_t>(entries[first].second + 1) << 33;
        ++first;
      }
      if (first < past) pending_.push_back({entries.subspan(first, past - first), depth + 1, unit});
      first = past;
    }
    return true;
  }

  bool FindBase(uint32_t* base) {
    for (size_t index = 0; index < open_.size(); ++index) {
      for (uint32_t low = 0; low < kBlock; ++low) {
        const uint32_t candidate = open_[index].first_unit + low;
        if (!base_taken_[candidate] && Fits(candidate)) {
          *base = candidate;
          return true;
        }
      }
      if (++open_[index].misses == kMissesMax) open_.erase(open_.begin() + static_cast<std::ptrdiff_t>(index--));
    }
    if (units_->size() + kBlock > units_max_) return false;
    *base = static_cast<uint32_t>(units_->size());
    if (open_.size() == kOpenBlocks) open_.erase(open_.begin());
    open_.push_back({*base, 0});
    units_->resize(units_->size() + kBlock, 0);
    base_taken_.resize(units_->size(), false);
    return true;
  }

  bool Fits(uint32_t base) const {
    return std::all_of(bytes_.begin(), bytes_.end(), [&](uint8_t byte) { return !((*units_)[base ^ byte] & kUsed); });
  }

  std::vector<uint64_t>* units_;
  const size_t units_max_;
  std::vector<bool> base_taken_;
  std::vector<OpenBlock> open_;
  std::vector<Pending> pending_;
  std::vector<uint8_t> bytes_;  // the distinct next bytes of the node being placed
};

bool VocabTrie::Build(const std::vector<Entry>& words, const std::vector<Entry>& continuations, size_t units_max) {
  Builder builder(&units_, units_max);
  if (builder.AddRoot(words, &word_base_) && builder.AddRoot(continuations, &continuation_base_)) return true;
  units_.assign(256, 0);
  word_base_ = continuation_base_ = 0;
  return false;
}

}  // namespace sutra
