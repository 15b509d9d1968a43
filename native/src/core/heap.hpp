/**
 * An offset allocator: it deals out ranges of a heap that it never touches, so that one implementation serves host memory, D3D12 heaps and
 * CUDA address ranges, and can be tested without any of them.
 *
 * Best fit, lowest address first, free neighbours joined at once: P. R. Wilson et al., "Dynamic Storage Allocation: A Survey and Critical
 * Review", 1995, which finds both address-ordered policies the least fragmenting. An offset allocator apart from its memory is the form of
 * S. Aaltonen's OffsetAllocator. TLSF (M. Masmano et al., 2004) would give O(1) for O(log n) here; a heap of 64 MiB in granules of 64 KiB
 * has at most 1,024 ranges, and a driver call costs a hundred times as much as either.
 */
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

namespace darkroom {

/** Not thread-safe. All figures are bytes; every range begins and ends on a granule. */
class Heap {
public:
  /** @throws Error `DR_INVALID` unless `granule` is positive and `capacity` a positive multiple of it */
  Heap(std::uint64_t capacity, std::uint64_t granule);

  /** The offset of a new range of `bytes`, rounded up to granules; none when no hole is large enough, or for 0 bytes. */
  std::optional<std::uint64_t> allocate(std::uint64_t bytes);
  /** Takes exactly this range, if it begins on a granule, lies inside the heap and is free. */
  bool allocateAt(std::uint64_t offset, std::uint64_t bytes);
  /** @throws Error `DR_BAD_HANDLE` when no range begins there: a double release changes nothing */
  void release(std::uint64_t offset);

  std::uint64_t capacity() const { return capacity_; }
  std::uint64_t used() const { return used_; }
  std::uint64_t largestFree() const { return bySize_.empty() ? 0 : bySize_.rbegin()->first; }
  /** Live ranges, offset → size. */
  const std::map<std::uint64_t, std::uint64_t>& ranges() const { return ranges_; }
  /** Free ranges, offset → size; no two touch. */
  const std::map<std::uint64_t, std::uint64_t>& holes() const { return holes_; }
  /** The size that `bytes` take here. */
  std::uint64_t rounded(std::uint64_t bytes) const;

private:
  void take(std::map<std::uint64_t, std::uint64_t>::iterator hole, std::uint64_t offset, std::uint64_t size);
  void addHole(std::uint64_t offset, std::uint64_t size);
  void dropHole(std::map<std::uint64_t, std::uint64_t>::iterator hole);

  std::uint64_t capacity_;
  std::uint64_t granule_;
  std::uint64_t used_ = 0;
  std::map<std::uint64_t, std::uint64_t> ranges_;
  std::map<std::uint64_t, std::uint64_t> holes_;
  std::set<std::pair<std::uint64_t, std::uint64_t>> bySize_; // the holes again, as (size, offset)
};

/** How broken the free space of some heaps is: 0 = one hole holds all of it or there is none, towards 1 = many small ones. */
double fragmentation(const std::vector<const Heap*>& heaps);

/** One range to be moved. Source and target never overlap, so a plain copy is right. */
struct Move {
  std::size_t fromHeap;
  std::uint64_t from;
  std::size_t toHeap;
  std::uint64_t to;
  std::uint64_t bytes;
};

/**
 * Which moves, made in this order, compact the heaps: first the emptiest heaps are emptied into the holes of the others, as long as one
 * fits as a whole; then in each heap the ranges slide down. A range larger than the gap below it goes up to another hole and down again,
 * because an overlapping copy is undefined on every API; without such a hole it stays.
 *
 * Each target is free when its turn comes, provided that nothing else changed meanwhile: whoever carries out a move takes the target with
 * `allocateAt` first and skips the move when that fails.
 *
 * @param isMovable whether the range that begins there may move; asked about the heaps as they are now
 * @param maxBytes the sum of the moves' bytes
 */
std::vector<Move> planMoves(std::vector<Heap> heaps, const std::function<bool(std::size_t heap, std::uint64_t offset)>& isMovable,
                            std::uint64_t maxBytes);

} // namespace darkroom
