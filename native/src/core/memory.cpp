#include "memory.hpp"
#include "error.hpp"
#include <algorithm>
#include <utility>

namespace darkroom {

namespace {

constexpr std::uint64_t largestAutomaticallyPlaced = 16ull << 20;

std::string number(std::uint64_t value) { return std::to_string(value); }

Error noSuch(std::uint64_t id) {
  return Error("DR_BAD_HANDLE", "there is no allocation " + number(id) + "; it was released, has expired, or was never made");
}

std::optional<Clock::time_point> deadline(std::optional<std::chrono::milliseconds> timeToLive) {
  if (!timeToLive) return std::nullopt;
  if (timeToLive->count() <= 0) throw Error("DR_INVALID", "a time to live must be at least 1 ms");
  return Clock::now() + *timeToLive;
}

/** Bytes taken from the device by the driver's books; pinned memory is RAM. */
std::uint64_t heldOf(const std::unique_ptr<Buffer>& buffer) { return buffer && buffer->kind == Kind::Device ? buffer->held : 0; }

Copier& ready(std::unique_ptr<Copier>& copier, Device& device) {
  if (!copier) copier = std::make_unique<Copier>(device);
  return *copier;
}

/** More pinned memory than is free would bring the whole machine down. @throws Error `DR_OUT_OF_MEMORY` */
void refuseBeyondRam(std::uint64_t bytes) {
  const Figures ram = systemFigures();
  if (!ram.total) return;
  const std::uint64_t free = *ram.total - std::min(ram.used.value_or(0), *ram.total);
  if (bytes > free) throw Error("DR_OUT_OF_MEMORY", number(bytes) + " bytes are more than the " + number(free) + " of RAM that are free");
}

} // namespace

/** An arena and what lies where in it. */
struct Memory::Slot {
  std::shared_ptr<Arena> arena;
  Heap heap;
  std::map<std::uint64_t, std::weak_ptr<Allocation>> residents; // by offset

  Slot(std::shared_ptr<Arena> arena, std::uint64_t granule) : arena(std::move(arena)), heap(this->arena->bytes, granule) {}
};

struct Memory::Allocation {
  std::uint64_t id = 0;
  std::size_t device = 0;
  std::uint64_t bytes = 0;
  std::uint64_t size = 0; // rounded
  Kind kind = Kind::Device;
  std::string owner;
  Clock::time_point createdAt = Clock::now();
  std::optional<Clock::time_point> expiresAt;
  std::unique_ptr<Buffer> buffer;
  std::shared_ptr<Slot> slot; // null: committed
  std::uint64_t offset = 0;
  std::uint64_t uses = 0;
  bool moving = false;
  bool isReleased = false;
};

struct Memory::Entry {
  std::unique_ptr<Device> device;
  std::vector<std::shared_ptr<Slot>> slots;
  Usage usage;
  std::once_flag asked;
  std::optional<std::uint64_t> total; // bytes; the device's own, known once it was asked

  std::mutex outMutex; // held over a copy out of, or inside, this device
  std::unique_ptr<Copier> out;
  std::mutex inMutex; // held over a copy into it from another device, taken after that one's outMutex
  std::unique_ptr<Copier> in;
  std::mutex clearMutex; // held while a new allocation is filled with zeros, beside the copies
  std::unique_ptr<Copier> clear;
};

/** Keeps `close` from ending while something is under way. @throws Error `DR_CLOSED`, and `DR_DEVICE_REMOVED` for a device that is lost */
class Memory::Busy {
public:
  explicit Busy(Memory& memory) : memory_(memory) {
    const std::lock_guard<std::mutex> lock(memory.mutex_);
    if (memory.closed_) throw Error("DR_CLOSED", "the memory is closed");
    memory.busy_++;
  }
  Busy(Memory& memory, const Entry& entry) : memory_(memory) {
    const std::lock_guard<std::mutex> lock(memory.mutex_);
    memory.refuseDead(entry);
    memory.busy_++;
  }
  ~Busy() {
    const std::lock_guard<std::mutex> lock(memory_.mutex_);
    memory_.busy_--;
    memory_.changed_.notify_all(); // under the lock: afterwards the memory may be gone
  }
  Busy(const Busy&) = delete;
  Busy& operator=(const Busy&) = delete;

private:
  Memory& memory_;
};

/** An allocation that stays where it is, alive, until the end of a scope. */
class Memory::Use {
public:
  Use(Memory& memory, std::uint64_t id) : memory_(memory) {
    std::unique_lock<std::mutex> lock(memory.mutex_);
    kept_ = memory.find(id);
    memory.changed_.wait(lock, [&] { return !kept_->moving; });
    if (kept_->isReleased) throw noSuch(id);
    memory.refuseDead(memory.entry(kept_->device));
    kept_->uses++;
    memory.busy_++;
  }
  ~Use() {
    std::unique_lock<std::mutex> lock(memory_.mutex_);
    kept_->uses--;
    if (kept_->uses == 0 && kept_->isReleased) {
      lock.unlock();
      memory_.destroy(kept_);
      lock.lock();
    }
    memory_.busy_--;
    memory_.changed_.notify_all(); // under the lock: afterwards the memory may be gone
  }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;

  Allocation* operator->() const { return kept_.get(); }
  Buffer& buffer() const { return *kept_->buffer; }

private:
  Memory& memory_;
  Kept kept_;
};

Memory::Memory(Devices devices, std::uint64_t arenaBytes) : arenaBytes_(arenaBytes) {
  for (auto& device : devices) {
    entries_.push_back(std::make_unique<Entry>());
    entries_.back()->device = std::move(device);
  }
}

Memory::~Memory() { close(); }

Memory::Entry& Memory::entry(std::size_t device) const {
  if (device >= entries_.size()) throw Error("DR_INVALID", "there is no device " + number(device) + " here");
  return *entries_[device];
}

template <typename Call> auto Memory::guarded(Entry& entry, Call call) -> decltype(call()) {
  try {
    return call();
  } catch (const Error& error) {
    if (error.code == "DR_DEVICE_REMOVED") {
      const std::lock_guard<std::mutex> lock(mutex_);
      entry.usage.lost = true;
    }
    throw;
  }
}

void Memory::refuseDead(const Entry& entry) const {
  if (closed_) throw Error("DR_CLOSED", "the memory is closed");
  if (entry.usage.lost) throw Error("DR_DEVICE_REMOVED", "the device " + entry.device->info().name + " is lost");
}

Memory::Kept Memory::find(std::uint64_t id) const {
  if (closed_) throw Error("DR_CLOSED", "the memory is closed");
  const auto found = allocations_.find(id);
  if (found == allocations_.end()) throw noSuch(id);
  return found->second;
}

const DeviceInfo& Memory::info(std::size_t device) const { return entry(device).device->info(); }

Figures Memory::figures(std::size_t device) {
  Entry& of = entry(device);
  const Busy busy(*this);
  return guarded(of, [&] { return of.device->figures(); });
}

Vitals Memory::vitals(std::size_t device) {
  Entry& of = entry(device);
  const Busy busy(*this);
  return guarded(of, [&] { return of.device->vitals(); });
}

Usage Memory::usage(std::size_t device) const {
  const Entry& of = entry(device);
  const std::lock_guard<std::mutex> lock(mutex_);
  Usage usage = of.usage;
  std::vector<const Heap*> heaps;
  for (const auto& slot : of.slots) {
    heaps.push_back(&slot->heap);
    usage.largestHole = std::max(usage.largestHole, slot->heap.largestFree());
  }
  usage.arenas = heaps.size();
  usage.fragmentation = fragmentation(heaps);
  return usage;
}

void Memory::setLimit(std::size_t device, std::optional<std::uint64_t> bytes) {
  Entry& of = entry(device);
  const std::lock_guard<std::mutex> lock(mutex_);
  of.usage.limit = bytes;
}

std::uint64_t Memory::allocate(const Request& request) {
  Entry& of = entry(request.device);
  if (request.bytes == 0) throw Error("DR_INVALID", "an allocation needs at least 1 byte");
  const auto expiresAt = deadline(request.timeToLive);
  const std::uint64_t granule = of.device->granule();
  const bool canPlace = granule > 0 && request.kind == Kind::Device;
  if (request.placement == Placement::Placed && !canPlace)
    throw Error("DR_INVALID", request.kind == Kind::Device ? "this device cannot place" : "upload and readback memory is always committed");
  const bool isPlaced = request.placement == Placement::Placed || (request.placement == Placement::Automatic && canPlace &&
                                                                   request.bytes >= granule && request.bytes <= largestAutomaticallyPlaced);

  const Busy busy(*this, of);
  std::call_once(of.asked, [&] { of.total = guarded(of, [&] { return of.device->figures().total; }); });
  auto made = std::make_shared<Allocation>();
  made->device = request.device;
  made->bytes = request.bytes;
  made->size = request.bytes;
  made->kind = request.kind;
  made->owner = request.owner;
  made->expiresAt = expiresAt;
  reserve(of, request, *made, isPlaced);
  try {
    std::unique_ptr<Buffer> fresh = guarded(of, [&] {
      if (!isPlaced) return of.device->commit(request.bytes, request.kind);
      return of.device->place(made->slot->arena, made->offset, made->size);
    });
    clear(of, *fresh);
    made->buffer = std::move(fresh);
  } catch (...) {
    destroy(made);
    throw;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  made->id = nextId_++;
  of.usage.live++;
  of.usage.created++;
  of.usage.reserved += heldOf(made->buffer);
  if (made->slot) made->slot->residents[made->offset] = made;
  allocations_.emplace(made->id, made);
  return made->id;
}

/** Nobody may read what its last owner left: of whatever session, key or process that was. */
void Memory::clear(Entry& of, Buffer& fresh) {
  if (fresh.isZeroed) return;
  const std::lock_guard<std::mutex> lock(of.clearMutex);
  guarded(of, [&] { ready(of.clear, *of.device).clear(fresh); });
}

/** Books the bytes, and for a placed allocation its range, making an arena where none has room. */
void Memory::reserve(Entry& of, const Request& request, Allocation& made, bool isPlaced) {
  const std::uint64_t granule = of.device->granule();
  if (request.kind != Kind::Device) {
    refuseBeyondRam(made.size);
    const std::lock_guard<std::mutex> lock(mutex_);
    of.usage.pinned += made.size;
    return;
  }
  std::unique_lock<std::mutex> lock(mutex_);
  if (isPlaced) made.size = Heap(granule, granule).rounded(request.bytes);
  Usage& usage = of.usage;
  if (of.total && made.size > *of.total)
    throw Error("DR_OUT_OF_MEMORY", number(request.bytes) + " bytes are more than the " + number(*of.total) + " that the device has");
  if (usage.limit && (made.size > *usage.limit || usage.tracked > *usage.limit - made.size))
    throw Error("DR_OUT_OF_MEMORY", number(request.bytes) + " bytes would pass the limit of " + number(*usage.limit) + "; " +
                                        number(usage.tracked) + " are held already");
  usage.tracked += made.size;
  if (isPlaced) {
    for (const auto& slot : of.slots) {
      const auto offset = slot->heap.allocate(made.size);
      if (!offset) continue;
      made.slot = slot;
      made.offset = *offset;
      break;
    }
    if (!made.slot) {
      lock.unlock();
      std::shared_ptr<Arena> arena;
      try {
        arena = guarded(of, [&] { return of.device->arena(std::max(Heap(granule, granule).rounded(arenaBytes_), made.size)); });
      } catch (...) {
        lock.lock();
        usage.tracked -= made.size;
        throw;
      }
      lock.lock();
      made.slot = std::make_shared<Slot>(std::move(arena), granule);
      made.offset = *made.slot->heap.allocate(made.size);
      usage.reserved += made.slot->arena->held;
      of.slots.push_back(made.slot);
    }
  }
  usage.peak = std::max(usage.peak, usage.tracked);
}

/** Gives the memory back; nobody else knows the allocation any more. */
void Memory::destroy(const Kept& allocation) {
  Entry& of = entry(allocation->device);
  const std::uint64_t held = heldOf(allocation->buffer);
  allocation->buffer.reset();
  std::shared_ptr<Arena> emptied; // declared first: it goes after the lock
  const std::lock_guard<std::mutex> lock(mutex_);
  (allocation->kind == Kind::Device ? of.usage.tracked : of.usage.pinned) -= allocation->size;
  of.usage.reserved -= held;
  if (const auto slot = std::exchange(allocation->slot, nullptr)) {
    slot->heap.release(allocation->offset);
    slot->residents.erase(allocation->offset);
    emptied = trimArena(of, slot);
  }
}

/** Under the lock: takes an empty arena out of the books. */
std::shared_ptr<Arena> Memory::trimArena(Entry& of, const std::shared_ptr<Slot>& slot) {
  if (slot->heap.used() > 0) return nullptr;
  const auto found = std::find(of.slots.begin(), of.slots.end(), slot);
  if (found == of.slots.end()) return nullptr;
  of.slots.erase(found);
  of.usage.reserved -= slot->arena->held;
  return slot->arena;
}

/** Under the lock: makes an id invalid; what no copy uses is handed to `dead`, to be destroyed after the lock. */
void Memory::forget(std::uint64_t id, std::vector<Kept>& dead) {
  const auto found = allocations_.find(id);
  const Kept allocation = found->second;
  allocations_.erase(found);
  allocation->isReleased = true;
  Usage& usage = entry(allocation->device).usage;
  usage.live--;
  usage.released++;
  if (allocation->uses == 0) dead.push_back(allocation);
}

void Memory::release(std::uint64_t id) {
  const Busy busy(*this);
  std::vector<Kept> dead;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    find(id);
    forget(id, dead);
  }
  for (const Kept& allocation : dead) destroy(allocation);
}

std::vector<AllocationInfo> Memory::releaseOwner(const std::string& owner) {
  std::vector<AllocationInfo> gone;
  const Busy busy(*this);
  std::vector<Kept> dead;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [id, allocation] : allocations_)
      if (allocation->owner == owner) gone.push_back(describe(*allocation));
    for (const AllocationInfo& info : gone) forget(info.id, dead);
  }
  for (const Kept& allocation : dead) destroy(allocation);
  return gone;
}

void Memory::renew(std::uint64_t id, std::optional<std::chrono::milliseconds> timeToLive) {
  const auto expiresAt = deadline(timeToLive);
  const std::lock_guard<std::mutex> lock(mutex_);
  find(id)->expiresAt = expiresAt;
}

std::vector<AllocationInfo> Memory::expire() {
  std::vector<AllocationInfo> gone;
  const Busy busy(*this);
  std::vector<Kept> dead;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto now = Clock::now();
    for (const auto& [id, allocation] : allocations_)
      if (allocation->expiresAt && *allocation->expiresAt <= now) gone.push_back(describe(*allocation));
    for (const AllocationInfo& info : gone) {
      entry(info.device).usage.expired++;
      forget(info.id, dead);
    }
  }
  for (const Kept& allocation : dead) destroy(allocation);
  return gone;
}

AllocationInfo Memory::describe(const Allocation& allocation) const {
  const auto now = Clock::now();
  const auto ms = [](Clock::duration duration) { return std::chrono::duration_cast<std::chrono::milliseconds>(duration); };
  std::optional<std::chrono::milliseconds> left;
  if (allocation.expiresAt) left = std::max(ms(*allocation.expiresAt - now), std::chrono::milliseconds(0));
  return {allocation.id,    allocation.device,           allocation.bytes, allocation.kind,    allocation.slot != nullptr,
          allocation.owner, ms(now - allocation.createdAt), left,             allocation.uses > 0};
}

AllocationInfo Memory::inspect(std::uint64_t id) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return describe(*find(id));
}

std::vector<AllocationInfo> Memory::list() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<AllocationInfo> all;
  for (const auto& [id, allocation] : allocations_) all.push_back(describe(*allocation));
  return all;
}

void Memory::checkRange(const Use& use, std::uint64_t at, std::uint64_t bytes) const {
  if (bytes == 0) throw Error("DR_INVALID", "a copy needs at least 1 byte");
  if (at > use->bytes || bytes > use->bytes - at)
    throw Error("DR_RANGE", number(bytes) + " bytes from " + number(at) + " on leave allocation " + number(use->id) + " of " +
                                number(use->bytes) + " bytes");
}

namespace {

void compare(std::uint32_t source, std::uint32_t target) {
  if (source != target) throw Error("DR_CORRUPT", "the copy arrived damaged: its checksum is not that of its source");
}

/** The checks after a copy are watched for a cancel, but are no progress of it. */
struct Silent {
  Control& control;
  std::function<void(std::uint64_t, std::uint64_t)> progress = std::exchange(control.progress, nullptr);
  ~Silent() { control.progress = std::move(progress); }
};

} // namespace

void Memory::write(std::uint64_t id, std::uint64_t at, const void* data, std::uint64_t bytes, Control& control, bool verify) {
  const Use use(*this, id);
  checkRange(use, at, bytes);
  Entry& of = entry(use->device);
  const std::lock_guard<std::mutex> lock(of.outMutex);
  guarded(of, [&] {
    Copier& copier = ready(of.out, *of.device);
    copier.write(use.buffer(), at, data, bytes, control);
    if (!verify) return;
    const Silent silent{control};
    compare(crc32(0, data, bytes), copier.checksum(use.buffer(), at, bytes, control));
  });
}

void Memory::read(std::uint64_t id, std::uint64_t at, void* data, std::uint64_t bytes, Control& control, bool verify) {
  const Use use(*this, id);
  checkRange(use, at, bytes);
  Entry& of = entry(use->device);
  const std::lock_guard<std::mutex> lock(of.outMutex);
  guarded(of, [&] {
    Copier& copier = ready(of.out, *of.device);
    copier.read(use.buffer(), at, data, bytes, control);
    if (!verify) return;
    const Silent silent{control};
    compare(copier.checksum(use.buffer(), at, bytes, control), crc32(0, data, bytes));
  });
}

void Memory::copy(std::uint64_t from, std::uint64_t fromAt, std::uint64_t to, std::uint64_t at, std::uint64_t bytes, Control& control,
                  bool verify) {
  const Use source(*this, from);
  const Use target(*this, to);
  checkRange(source, fromAt, bytes);
  checkRange(target, at, bytes);
  if (from == to && fromAt < at + bytes && at < fromAt + bytes)
    throw Error("DR_RANGE", "the two ranges overlap inside allocation " + number(from));
  Entry& of = entry(source->device);
  const std::lock_guard<std::mutex> out(of.outMutex);
  if (source->device == target->device) {
    guarded(of, [&] {
      Copier& copier = ready(of.out, *of.device);
      copier.copy(target.buffer(), at, source.buffer(), fromAt, bytes, control);
      if (!verify) return;
      const Silent silent{control};
      compare(copier.checksum(source.buffer(), fromAt, bytes, control), copier.checksum(target.buffer(), at, bytes, control));
    });
    return;
  }
  Entry& into = entry(target->device);
  const std::lock_guard<std::mutex> in(into.inMutex);
  Copier& reader = guarded(of, [&]() -> Copier& { return ready(of.out, *of.device); });
  Copier& writer = guarded(into, [&]() -> Copier& { return ready(into.in, *into.device); });
  reader.transfer(writer, target.buffer(), at, source.buffer(), fromAt, bytes, control);
  if (!verify) return;
  const Silent silent{control};
  const std::uint32_t sum = guarded(of, [&] { return reader.checksum(source.buffer(), fromAt, bytes, control); });
  compare(sum, guarded(into, [&] { return writer.checksum(target.buffer(), at, bytes, control); }));
}

std::uint32_t Memory::checksum(std::uint64_t id, std::uint64_t at, std::uint64_t bytes, Control& control) {
  const Use use(*this, id);
  checkRange(use, at, bytes);
  Entry& of = entry(use->device);
  const std::lock_guard<std::mutex> lock(of.outMutex);
  return guarded(of, [&] { return ready(of.out, *of.device).checksum(use.buffer(), at, bytes, control); });
}

Compaction Memory::defragment(std::size_t device, std::uint64_t maxBytes, Control& control) {
  Entry& of = entry(device);
  const Busy busy(*this, of);
  const std::lock_guard<std::mutex> out(of.outMutex);
  std::vector<std::shared_ptr<Slot>> slots;
  std::vector<Heap> heaps;
  Compaction result;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    slots = of.slots;
    for (const auto& slot : slots) heaps.push_back(slot->heap);
  }
  result.before = usage(device).fragmentation;
  const auto isMovable = [&](std::size_t slot, std::uint64_t offset) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto resident = slots[slot]->residents.find(offset);
    const Kept allocation = resident == slots[slot]->residents.end() ? nullptr : resident->second.lock();
    return allocation && allocation->uses == 0 && !allocation->isReleased;
  };
  const std::vector<Move> moves = planMoves(heaps, isMovable, maxBytes);
  std::uint64_t total = 0;
  for (const Move& move : moves) total += move.bytes;
  std::uint64_t done = 0;
  for (const Move& move : moves) {
    control.check();
    moveOne(of, slots, move, result);
    done += move.bytes;
    if (control.progress) control.progress(done, total);
  }
  result.after = usage(device).fragmentation;
  return result;
}

/** @returns whether it could be made: what was planned may have been released or taken by now */
bool Memory::moveOne(Entry& of, const std::vector<std::shared_ptr<Slot>>& slots, const Move& move, Compaction& result) {
  const auto& source = slots[move.fromHeap];
  const auto& target = slots[move.toHeap];
  Kept allocation;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    refuseDead(of);
    const auto isThere = [&](const std::shared_ptr<Slot>& slot) { return std::find(of.slots.begin(), of.slots.end(), slot) != of.slots.end(); };
    const auto resident = source->residents.find(move.from);
    if (resident == source->residents.end() || !isThere(source) || !isThere(target)) return false;
    allocation = resident->second.lock();
    if (!allocation || allocation->uses > 0 || allocation->isReleased || allocation->size != move.bytes) return false;
    if (!target->heap.allocateAt(move.to, move.bytes)) return false;
    allocation->uses++;
    allocation->moving = true;
  }
  std::uint64_t copied = 0;
  std::exception_ptr failure;
  try {
    copied = guarded(of, [&] { return of.device->move(allocation->buffer, target->arena, move.to, ready(of.out, *of.device).lane()); });
  } catch (...) {
    failure = std::current_exception();
  }
  bool isDead = false;
  std::shared_ptr<Arena> emptied;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (failure) target->heap.release(move.to);
    else {
      source->heap.release(move.from);
      source->residents.erase(move.from);
      target->residents[move.to] = allocation;
      allocation->slot = target;
      allocation->offset = move.to;
      emptied = trimArena(of, source);
      result.moves++;
      result.bytesMoved += move.bytes;
      result.bytesCopied += copied;
      if (emptied) result.arenasFreed++;
    }
    allocation->moving = false;
    isDead = --allocation->uses == 0 && allocation->isReleased;
    changed_.notify_all();
  }
  if (isDead) destroy(allocation);
  if (failure) std::rethrow_exception(failure);
  return true;
}

void Memory::trim(std::size_t device) {
  Entry& of = entry(device);
  const Busy busy(*this);
  {
    const std::lock_guard<std::mutex> lock(of.outMutex);
    if (of.out) of.out->trim();
  }
  {
    const std::lock_guard<std::mutex> lock(of.inMutex);
    if (of.in) of.in->trim();
  }
  const std::lock_guard<std::mutex> lock(of.clearMutex);
  if (of.clear) of.clear->trim();
}

std::vector<AllocationInfo> Memory::close() {
  std::vector<AllocationInfo> leaks;
  std::vector<Kept> dead;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    if (std::exchange(closed_, true)) return {};
    changed_.wait(lock, [this] { return busy_ == 0; });
    for (const auto& [id, allocation] : allocations_) leaks.push_back(describe(*allocation));
    for (const AllocationInfo& leak : leaks) forget(leak.id, dead);
  }
  for (const Kept& allocation : dead) destroy(allocation);
  dead.clear();
  for (const auto& of : entries_) {
    of->out.reset();
    of->in.reset();
    of->clear.reset();
  }
  return leaks;
}

} // namespace darkroom
