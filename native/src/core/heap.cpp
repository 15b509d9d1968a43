#include "heap.hpp"
#include "error.hpp"
#include <algorithm>
#include <numeric>

namespace darkroom {

Heap::Heap(std::uint64_t capacity, std::uint64_t granule) : capacity_(capacity), granule_(granule) {
  if (granule == 0 || capacity == 0 || capacity % granule != 0)
    throw Error("DR_INVALID", "a heap needs a positive granule and a capacity that is a positive multiple of it");
  addHole(0, capacity);
}

std::uint64_t Heap::rounded(std::uint64_t bytes) const {
  const std::uint64_t over = bytes % granule_;
  if (over == 0) return bytes;
  return bytes > UINT64_MAX - granule_ ? UINT64_MAX : bytes + (granule_ - over);
}

std::optional<std::uint64_t> Heap::allocate(std::uint64_t bytes) {
  if (bytes == 0) return std::nullopt;
  const std::uint64_t size = rounded(bytes);
  const auto fit = bySize_.lower_bound({size, 0});
  if (fit == bySize_.end()) return std::nullopt;
  const std::uint64_t offset = fit->second;
  take(holes_.find(offset), offset, size);
  return offset;
}

bool Heap::allocateAt(std::uint64_t offset, std::uint64_t bytes) {
  if (bytes == 0 || offset % granule_ != 0) return false;
  const std::uint64_t size = rounded(bytes);
  auto hole = holes_.upper_bound(offset);
  if (hole == holes_.begin()) return false;
  --hole;
  const std::uint64_t before = offset - hole->first;
  if (before >= hole->second || hole->second - before < size) return false;
  take(hole, offset, size);
  return true;
}

void Heap::release(std::uint64_t offset) {
  const auto range = ranges_.find(offset);
  if (range == ranges_.end()) throw Error("DR_BAD_HANDLE", "no range begins at offset " + std::to_string(offset));
  std::uint64_t size = range->second;
  used_ -= size;
  ranges_.erase(range);
  auto above = holes_.lower_bound(offset);
  if (above != holes_.begin()) {
    const auto below = std::prev(above);
    if (below->first + below->second == offset) {
      offset = below->first;
      size += below->second;
      dropHole(below);
    }
  }
  above = holes_.lower_bound(offset + size);
  if (above != holes_.end() && above->first == offset + size) {
    size += above->second;
    dropHole(above);
  }
  addHole(offset, size);
}

void Heap::take(std::map<std::uint64_t, std::uint64_t>::iterator hole, std::uint64_t offset, std::uint64_t size) {
  const auto [start, length] = *hole;
  dropHole(hole);
  if (offset > start) addHole(start, offset - start);
  if (start + length > offset + size) addHole(offset + size, start + length - offset - size);
  ranges_.emplace(offset, size);
  used_ += size;
}

void Heap::addHole(std::uint64_t offset, std::uint64_t size) {
  holes_.emplace(offset, size);
  bySize_.emplace(size, offset);
}

void Heap::dropHole(std::map<std::uint64_t, std::uint64_t>::iterator hole) {
  bySize_.erase({hole->second, hole->first});
  holes_.erase(hole);
}

double fragmentation(const std::vector<const Heap*>& heaps) {
  std::uint64_t free = 0;
  std::uint64_t largest = 0; // what is free at most as one hole a heap
  for (const Heap* heap : heaps) {
    free += heap->capacity() - heap->used();
    largest += heap->largestFree();
  }
  return free == 0 ? 0 : 1 - static_cast<double>(largest) / static_cast<double>(free);
}

namespace {

class Planner {
public:
  Planner(std::vector<Heap>& heaps, const std::function<bool(std::size_t, std::uint64_t)>& isMovable, std::uint64_t maxBytes)
      : heaps_(heaps), budget_(maxBytes) {
    for (std::size_t heap = 0; heap < heaps.size(); heap++)
      for (const auto& range : heaps[heap].ranges())
        if (!isMovable(heap, range.first)) pinned_.insert({heap, range.first});
  }

  std::vector<Move> plan() {
    std::vector<std::size_t> order(heaps_.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      return std::pair(heaps_[a].used(), b) < std::pair(heaps_[b].used(), a); // of two alike the later one goes
    });
    for (const std::size_t heap : order) empty(heap);
    for (std::size_t heap = 0; heap < heaps_.size(); heap++) slide(heap);
    return std::move(moves_);
  }

private:
  bool isPinned(std::size_t heap, std::uint64_t offset) const { return pinned_.count({heap, offset}) > 0; }

  /** Moves all ranges of a heap to the others, or none. */
  void empty(std::size_t heap) {
    if (heaps_[heap].used() == 0 || heaps_[heap].used() > budget_) return;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges; // (size, offset), the large ones first: they find room hardest
    for (const auto& [offset, size] : heaps_[heap].ranges()) {
      if (isPinned(heap, offset)) return;
      ranges.emplace_back(size, offset);
    }
    std::sort(ranges.rbegin(), ranges.rend());
    std::vector<Move> moves;
    for (const auto& [size, offset] : ranges) {
      std::optional<Move> move;
      for (std::size_t other = 0; other < heaps_.size() && !move; other++) {
        if (other == heap || heaps_[other].used() == 0) continue; // filling an empty heap gains nothing
        if (const auto to = heaps_[other].allocate(size)) move = Move{heap, offset, other, *to, size};
      }
      if (!move) {
        for (const Move& made : moves) heaps_[made.toHeap].release(made.to);
        return;
      }
      moves.push_back(*move);
    }
    for (const Move& made : moves) {
      heaps_[heap].release(made.from);
      record(made);
    }
  }

  /** Closes the gaps of a heap from below. */
  void slide(std::size_t heap) {
    std::uint64_t floor = 0; // everything below lies where it will stay
    while (true) {
      const auto next = heaps_[heap].ranges().lower_bound(floor);
      if (next == heaps_[heap].ranges().end()) return;
      const auto [offset, size] = *next;
      const std::uint64_t gap = offset - floor;
      if (gap == 0 || isPinned(heap, offset) || !(gap >= size ? down(heap, offset, floor, size) : around(heap, offset, floor, size)))
        floor = offset + size;
      else floor += size;
    }
  }

  bool down(std::size_t heap, std::uint64_t offset, std::uint64_t to, std::uint64_t size) {
    if (size > budget_ || !heaps_[heap].allocateAt(to, size)) return false;
    heaps_[heap].release(offset);
    record({heap, offset, heap, to, size});
    return true;
  }

  /** By way of another hole, in this heap or in another that is in use. */
  bool around(std::size_t heap, std::uint64_t offset, std::uint64_t to, std::uint64_t size) {
    if (size > budget_ / 2) return false;
    for (std::size_t step = 0; step < heaps_.size(); step++) {
      const std::size_t other = (heap + step) % heaps_.size();
      if (heaps_[other].used() == 0) continue;
      const auto aside = heaps_[other].allocate(size);
      if (!aside) continue;
      heaps_[heap].release(offset);
      if (!heaps_[heap].allocateAt(to, size)) throw Error("DR_DRIVER", "the planner lost count of its gaps");
      heaps_[other].release(*aside);
      record({heap, offset, other, *aside, size});
      record({other, *aside, heap, to, size});
      return true;
    }
    return false;
  }

  void record(const Move& move) {
    budget_ -= move.bytes;
    moves_.push_back(move);
  }

  std::vector<Heap>& heaps_;
  std::uint64_t budget_;
  std::set<std::pair<std::size_t, std::uint64_t>> pinned_;
  std::vector<Move> moves_;
};

} // namespace

std::vector<Move> planMoves(std::vector<Heap> heaps, const std::function<bool(std::size_t, std::uint64_t)>& isMovable,
                            std::uint64_t maxBytes) {
  return Planner(heaps, isMovable, maxBytes).plan();
}

} // namespace darkroom
