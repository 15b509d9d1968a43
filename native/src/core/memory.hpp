/**
 * The memory of all devices of one backend: allocations with ids, owners and times to live, a soft limit per device, copies, defragmentation
 * and the report of what was left behind.
 *
 * Threads: every function may be called from any thread. One lock guards the books and is never held over a driver call. Copies out of a
 * device are made one after another, those into it from other devices beside them.
 *
 * Life of an allocation: made → (in use by copies | being moved)* → released, by its id, its owner, its time or the end. Its id is invalid at
 * once; its memory goes back when the last copy that uses it has ended. Ids are never used twice. What fresh memory holds is undefined.
 */
#pragma once
#include "copy.hpp"
#include "device.hpp"
#include "heap.hpp"
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>

namespace darkroom {

using Clock = std::chrono::steady_clock;

enum class Placement {
  Automatic, // placed from one granule to 16 MiB, committed beyond
  Committed, // a driver allocation of its own; it never moves
  Placed,    // inside an arena that it shares; defragmentation moves it
};

struct Request {
  std::size_t device = 0;
  std::uint64_t bytes = 0;
  Kind kind = Kind::Device;
  Placement placement = Placement::Automatic;
  std::string owner;
  std::optional<std::chrono::milliseconds> timeToLive;
};

struct AllocationInfo {
  std::uint64_t id;
  std::size_t device;
  std::uint64_t bytes;
  Kind kind;
  bool placed;
  std::string owner;
  std::chrono::milliseconds age;
  std::optional<std::chrono::milliseconds> timeLeft;
  bool inUse;
};

/** What this process holds of a device. */
struct Usage {
  std::uint64_t live = 0;     // allocations
  std::uint64_t tracked = 0;  // bytes of the live ones of kind Device, rounded up as the device does
  std::uint64_t reserved = 0; // bytes of the device taken from the driver: `tracked`, and what is free in arenas
  std::uint64_t pinned = 0;   // bytes of the live ones of the other kinds: RAM, not the device's memory
  std::uint64_t peak = 0;     // the highest `tracked`
  std::optional<std::uint64_t> limit;
  std::uint64_t created = 0;
  std::uint64_t released = 0;
  std::uint64_t expired = 0; // of the released ones, those whose time was over
  std::uint64_t arenas = 0;
  double fragmentation = 0; // of the arenas, 0 to 1
  std::uint64_t largestHole = 0;
  bool lost = false;
};

struct Compaction {
  std::uint64_t moves = 0;
  std::uint64_t bytesMoved = 0;
  std::uint64_t bytesCopied = 0; // 0 where the device maps the same memory elsewhere
  std::uint64_t arenasFreed = 0;
  double before = 0; // fragmentation
  double after = 0;
};

class Memory {
public:
  /** @param arenaBytes rounded up to each device's granule */
  explicit Memory(Devices devices, std::uint64_t arenaBytes = 64ull << 20);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  std::size_t devices() const { return entries_.size(); }
  /** @throws Error `DR_INVALID` for a device that is not there, as all functions that take one */
  const DeviceInfo& info(std::size_t device) const;
  Figures figures(std::size_t device);
  Vitals vitals(std::size_t device);
  Usage usage(std::size_t device) const;
  /** The most that may be `tracked`; what is held already stays. None: as much as the driver gives. */
  void setLimit(std::size_t device, std::optional<std::uint64_t> bytes);

  /** Filled with zeros. @throws Error `DR_INVALID`, `DR_OUT_OF_MEMORY`, `DR_DEVICE_REMOVED`, `DR_CLOSED`; then nothing is held that was not before */
  std::uint64_t allocate(const Request& request);
  /** @throws Error `DR_BAD_HANDLE` for an id that is not alive */
  void release(std::uint64_t id);
  /** Releases what an owner has. @returns what that was */
  std::vector<AllocationInfo> releaseOwner(const std::string& owner);
  /** From now on; none: for good. @throws Error `DR_BAD_HANDLE` */
  void renew(std::uint64_t id, std::optional<std::chrono::milliseconds> timeToLive);
  /** Releases what has outlived its time. @returns what that was */
  std::vector<AllocationInfo> expire();
  AllocationInfo inspect(std::uint64_t id) const;
  std::vector<AllocationInfo> list() const;

  /**
   * Copies; each returns when it has ended. Ranges must lie inside, have at least one byte, and must not overlap inside one allocation.
   * @param verify compares the CRC-32 of both sides afterwards, `DR_CORRUPT` when they differ; the devices are read once more for it
   * @throws Error `DR_BAD_HANDLE`, `DR_RANGE`, `DR_INVALID`, `DR_CANCELLED`, `DR_CORRUPT`, `DR_DEVICE_REMOVED`
   */
  void write(std::uint64_t id, std::uint64_t at, const void* data, std::uint64_t bytes, Control& control, bool verify = false);
  void read(std::uint64_t id, std::uint64_t at, void* data, std::uint64_t bytes, Control& control, bool verify = false);
  void copy(std::uint64_t from, std::uint64_t fromAt, std::uint64_t to, std::uint64_t at, std::uint64_t bytes, Control& control,
            bool verify = false);
  std::uint32_t checksum(std::uint64_t id, std::uint64_t at, std::uint64_t bytes, Control& control);

  /**
   * Moves placed allocations that no copy uses, and lets emptied arenas go. Ids stay as they are. Stops between two moves when cancelled;
   * what has moved has moved.
   */
  Compaction defragment(std::size_t device, std::uint64_t maxBytes, Control& control);
  /** Lets go of what copies keep between them: pinned chunks. */
  void trim(std::size_t device);

  /**
   * Refuses everything from now on, waits for the copies that run (cancel them first), and releases what is left.
   * @returns what nobody released: the leaks
   */
  std::vector<AllocationInfo> close();

private:
  struct Allocation;
  struct Slot;
  struct Entry;
  class Busy;
  class Use;
  using Kept = std::shared_ptr<Allocation>;

  Entry& entry(std::size_t device) const;
  /** Runs a driver call; remembers a device that is gone. */
  template <typename Call> auto guarded(Entry& entry, Call call) -> decltype(call());
  void refuseDead(const Entry& entry) const;
  Kept find(std::uint64_t id) const;
  AllocationInfo describe(const Allocation& allocation) const;
  void forget(std::uint64_t id, std::vector<Kept>& dead);
  void destroy(const Kept& allocation);
  void clear(Entry& entry, Buffer& fresh);
  void reserve(Entry& entry, const Request& request, Allocation& made, bool isPlaced);
  std::shared_ptr<Arena> trimArena(Entry& entry, const std::shared_ptr<Slot>& slot);
  void checkRange(const Use& use, std::uint64_t at, std::uint64_t bytes) const;
  bool moveOne(Entry& entry, const std::vector<std::shared_ptr<Slot>>& slots, const Move& move, Compaction& result);

  std::uint64_t arenaBytes_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::unique_ptr<Entry>> entries_;
  std::map<std::uint64_t, Kept> allocations_;
  std::uint64_t nextId_ = 1;
  std::uint64_t busy_ = 0; // calls that `close` waits for
  bool closed_ = false;
};

} // namespace darkroom
