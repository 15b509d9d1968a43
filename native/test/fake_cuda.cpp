/**
 * A stand-in for libcuda.so.1 and libnvidia-ml.so.1 over host memory, for the tests of the CUDA backend on machines without a GPU. It keeps
 * what the real driver promises and no more: copies run later, on a thread of their stream; a call without a current context, a range that
 * is not allocated or not mapped, a double release are refused.
 *
 * Environment: DARKROOM_FAKE_GPUS, how many (2); DARKROOM_FAKE_MIB, the memory of each (2048).
 * `darkroom_fake_*` at the end are the tests' own levers.
 */
#include "backends/cuda_api.hpp"
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>

using namespace darkroom;

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

constexpr int invalidValue = 1, outOfMemory = 2, invalidDevice = 101, invalidContext = 201;
constexpr std::uint64_t pageMib = 1 << 20;

long setting(const char* name, long otherwise) {
  const char* text = std::getenv(name);
  return text ? std::strtol(text, nullptr, 10) : otherwise;
}
const int gpus = static_cast<int>(setting("DARKROOM_FAKE_GPUS", 2));
const std::uint64_t capacity = static_cast<std::uint64_t>(setting("DARKROOM_FAKE_MIB", 2048)) * pageMib;

struct Block {
  std::uint64_t bytes;
  int device;
};
struct Physical {
  int file;
  std::uint64_t bytes;
  int device;
  bool isFresh; // not mapped yet
};
struct Mapping {
  std::uint64_t bytes;
  cuda::Handle physical;
  bool isAccessible;
};

// Never destroyed: a program may end while its threads still copy.
std::mutex& mutex = *new std::mutex;
std::map<std::uint64_t, Block>& blocks = *new std::map<std::uint64_t, Block>;      // cuMemAlloc
std::map<std::uint64_t, Block>& pinned = *new std::map<std::uint64_t, Block>;      // cuMemHostAlloc
std::map<std::uint64_t, Block>& reserved = *new std::map<std::uint64_t, Block>;    // addresses
std::map<std::uint64_t, Mapping>& mappings = *new std::map<std::uint64_t, Mapping>;  // in reserved addresses
std::map<cuda::Handle, Physical>& physicals = *new std::map<cuda::Handle, Physical>;
std::map<int, std::uint64_t>& used = *new std::map<int, std::uint64_t>;          // by device
std::map<int, int>& retained = *new std::map<int, int>;                // primary contexts
cuda::Handle nextHandle = 1;
thread_local std::uintptr_t current = 0; // 0x1000 + device

std::mutex& failMutex = *new std::mutex;
std::string& failing = *new std::string;
int failure = 0;
int successesFirst = 0;
int failures = 0;
std::atomic<int> corruptCopies{0};
std::atomic<int> slowMicroseconds{0};

/** What a test has ordered this function to fail with, or 0. */
int ordered(const char* function) {
  const std::lock_guard<std::mutex> lock(failMutex);
  if (failing != function) return 0;
  if (successesFirst > 0) {
    successesFirst--;
    return 0;
  }
  if (failures == 0) return 0;
  failures--;
  return failure;
}
#define ORDERED                                                                                                                            \
  if (const int result = ordered(__func__)) return result;

int device() { return static_cast<int>(current - 0x1000); }
#define CURRENT                                                                                                                            \
  if (current == 0) return invalidContext;                                                                                                 \
  ORDERED

template <typename Map> bool covers(const Map& map, std::uint64_t at, std::uint64_t bytes) {
  auto found = map.upper_bound(at);
  if (found == map.begin()) return false;
  --found;
  return at - found->first < found->second.bytes && bytes <= found->second.bytes - (at - found->first);
}

bool isDeviceRange(std::uint64_t at, std::uint64_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (covers(blocks, at, bytes)) return true;
  auto found = mappings.upper_bound(at);
  if (found == mappings.begin()) return false;
  --found;
  return found->second.isAccessible && covers(mappings, at, bytes);
}

/** Work in order, on a thread. */
struct FakeStream {
  std::mutex lock;
  std::condition_variable changed;
  std::deque<std::function<void()>> work;
  bool isBusy = false, isEnding = false;
  std::thread thread{[this] { run(); }};

  void run() {
    std::unique_lock<std::mutex> held(lock);
    while (true) {
      changed.wait(held, [this] { return isEnding || !work.empty(); });
      if (work.empty()) return;
      const auto next = std::move(work.front());
      work.pop_front();
      isBusy = true;
      held.unlock();
      next();
      held.lock();
      isBusy = false;
      changed.notify_all();
    }
  }
  void add(std::function<void()> item) {
    const std::lock_guard<std::mutex> held(lock);
    work.push_back(std::move(item));
    changed.notify_all();
  }
  void finish() {
    std::unique_lock<std::mutex> held(lock);
    changed.wait(held, [this] { return work.empty() && !isBusy; });
  }
  ~FakeStream() {
    {
      const std::lock_guard<std::mutex> held(lock);
      isEnding = true;
    }
    changed.notify_all();
    thread.join();
  }
};
struct FakeEvent {
  std::mutex lock;
  std::condition_variable changed;
  std::uint64_t recorded = 0, reached = 0;
};

int copyLater(cuda::Stream stream, void* to, const void* from, std::size_t bytes) {
  reinterpret_cast<FakeStream*>(stream)->add([=] {
    if (slowMicroseconds > 0) std::this_thread::sleep_for(std::chrono::microseconds(slowMicroseconds));
    std::memcpy(to, from, bytes);
    if (corruptCopies > 0 && corruptCopies-- > 0) static_cast<unsigned char*>(to)[bytes / 2] ^= 1;
  });
  return 0;
}

void* at(std::uint64_t address) { return reinterpret_cast<void*>(address); }

} // namespace

EXPORT int cuInit(unsigned) { ORDERED return 0; }
EXPORT int cuDriverGetVersion(int* version) {
  *version = 13000;
  return 0;
}
EXPORT int cuGetErrorName(int result, const char** name) {
  *name = result == outOfMemory ? "CUDA_ERROR_OUT_OF_MEMORY" : result == invalidValue ? "CUDA_ERROR_INVALID_VALUE" : "CUDA_ERROR";
  return 0;
}
EXPORT int cuDeviceGetCount(int* count) {
  *count = gpus;
  return 0;
}
EXPORT int cuDeviceGet(int* ordinal, int index) {
  *ordinal = index;
  return index < gpus ? 0 : invalidDevice;
}
EXPORT int cuDeviceGetName(char* name, int size, int ordinal) {
  std::snprintf(name, static_cast<std::size_t>(size), "Fake GPU %d", ordinal);
  return 0;
}
EXPORT int cuDeviceTotalMem_v2(std::size_t* bytes, int) {
  *bytes = capacity;
  return 0;
}
EXPORT int cuDeviceGetAttribute(int* value, int which, int) {
  *value = which == cuda::computeCapabilityMajor ? 9 : which == cuda::hasVirtualMemory ? 1 : 0;
  return 0;
}
EXPORT int cuDeviceGetUuid(unsigned char* uuid, int ordinal) {
  std::memset(uuid, 0xfa, 16);
  uuid[15] = static_cast<unsigned char>(ordinal);
  return 0;
}
EXPORT int cuDeviceGetPCIBusId(char* text, int size, int ordinal) {
  std::snprintf(text, static_cast<std::size_t>(size), "0000:%02x:00.0", ordinal);
  return 0;
}
EXPORT int cuDevicePrimaryCtxRetain(std::uintptr_t* context, int ordinal) {
  ORDERED
  const std::lock_guard<std::mutex> lock(mutex);
  retained[ordinal]++;
  *context = 0x1000 + static_cast<std::uintptr_t>(ordinal);
  return 0;
}
EXPORT int cuDevicePrimaryCtxRelease_v2(int ordinal) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (retained[ordinal] == 0) return invalidValue;
  retained[ordinal]--;
  return 0;
}
EXPORT int cuCtxSetCurrent(std::uintptr_t context) {
  current = context;
  return 0;
}
EXPORT int cuMemGetInfo_v2(std::size_t* free, std::size_t* total) {
  CURRENT
  const std::lock_guard<std::mutex> lock(mutex);
  *total = capacity;
  *free = capacity - used[device()];
  return 0;
}
EXPORT int cuMemAlloc_v2(std::uint64_t* address, std::size_t bytes) {
  CURRENT
  const std::lock_guard<std::mutex> lock(mutex);
  if (bytes == 0) return invalidValue;
  if (bytes > capacity - used[device()]) return outOfMemory;
  void* memory = std::malloc(bytes);
  if (!memory) return outOfMemory;
  std::memset(memory, 0xee, std::min<std::size_t>(bytes, 4096)); // as if it had had an owner before
  *address = reinterpret_cast<std::uint64_t>(memory);
  blocks[*address] = {bytes, device()};
  used[device()] += bytes;
  return 0;
}
EXPORT int cuMemFree_v2(std::uint64_t address) {
  CURRENT
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = blocks.find(address);
  if (found == blocks.end()) return invalidValue;
  std::free(at(address));
  used[found->second.device] -= found->second.bytes;
  blocks.erase(found);
  return 0;
}
EXPORT int cuMemHostAlloc(void** memory, std::size_t bytes, unsigned) {
  CURRENT
  *memory = std::malloc(bytes);
  if (!*memory) return outOfMemory;
  std::memset(*memory, 0xee, bytes);
  const std::lock_guard<std::mutex> lock(mutex);
  pinned[reinterpret_cast<std::uint64_t>(*memory)] = {bytes, device()};
  return 0;
}
EXPORT int cuMemFreeHost(void* memory) {
  CURRENT
  const std::lock_guard<std::mutex> lock(mutex);
  if (pinned.erase(reinterpret_cast<std::uint64_t>(memory)) == 0) return invalidValue;
  std::free(memory);
  return 0;
}
EXPORT int cuMemcpyHtoDAsync_v2(std::uint64_t to, const void* from, std::size_t bytes, cuda::Stream stream) {
  CURRENT
  if (!isDeviceRange(to, bytes)) return invalidValue;
  return copyLater(stream, at(to), from, bytes);
}
EXPORT int cuMemcpyDtoHAsync_v2(void* to, std::uint64_t from, std::size_t bytes, cuda::Stream stream) {
  CURRENT
  if (!isDeviceRange(from, bytes)) return invalidValue;
  return copyLater(stream, to, at(from), bytes);
}
EXPORT int cuMemcpyDtoDAsync_v2(std::uint64_t to, std::uint64_t from, std::size_t bytes, cuda::Stream stream) {
  CURRENT
  if (!isDeviceRange(to, bytes) || !isDeviceRange(from, bytes)) return invalidValue;
  if (to < from + bytes && from < to + bytes) return invalidValue; // undefined on the real one
  return copyLater(stream, at(to), at(from), bytes);
}
EXPORT int cuMemsetD8Async(std::uint64_t to, unsigned char value, std::size_t bytes, cuda::Stream stream) {
  CURRENT
  if (!isDeviceRange(to, bytes)) return invalidValue;
  reinterpret_cast<FakeStream*>(stream)->add([=] {
    // Whole pages of zeros go back to the system: a test that allocates gigabytes need not have them.
    const std::uint64_t page = 4096, first = (to + page - 1) / page * page, last = (to + bytes) / page * page;
    const bool isGivenBack = value == 0 && first < last && (madvise(at(first), last - first, MADV_REMOVE) == 0 ||
                                                            madvise(at(first), last - first, MADV_DONTNEED) == 0);
    if (!isGivenBack) {
      std::memset(at(to), value, bytes);
      return;
    }
    std::memset(at(to), value, first - to);
    std::memset(at(last), value, to + bytes - last);
  });
  return 0;
}
EXPORT int cuStreamCreate(cuda::Stream* stream, unsigned) {
  CURRENT
  *stream = reinterpret_cast<cuda::Stream>(new FakeStream);
  return 0;
}
EXPORT int cuStreamSynchronize(cuda::Stream stream) {
  CURRENT
  reinterpret_cast<FakeStream*>(stream)->finish();
  return 0;
}
EXPORT int cuStreamDestroy_v2(cuda::Stream stream) {
  delete reinterpret_cast<FakeStream*>(stream);
  return 0;
}
EXPORT int cuEventCreate(cuda::Event* event, unsigned) {
  CURRENT
  *event = reinterpret_cast<cuda::Event>(new FakeEvent);
  return 0;
}
EXPORT int cuEventRecord(cuda::Event event, cuda::Stream stream) {
  CURRENT
  auto* of = reinterpret_cast<FakeEvent*>(event);
  std::uint64_t mark = 0;
  {
    const std::lock_guard<std::mutex> lock(of->lock);
    mark = ++of->recorded;
  }
  reinterpret_cast<FakeStream*>(stream)->add([of, mark] {
    const std::lock_guard<std::mutex> lock(of->lock);
    of->reached = mark;
    of->changed.notify_all();
  });
  return 0;
}
EXPORT int cuEventSynchronize(cuda::Event event) {
  CURRENT
  auto* of = reinterpret_cast<FakeEvent*>(event);
  std::unique_lock<std::mutex> lock(of->lock);
  const std::uint64_t mark = of->recorded;
  of->changed.wait(lock, [&] { return of->reached >= mark; });
  return 0;
}
EXPORT int cuEventDestroy_v2(cuda::Event event) {
  delete reinterpret_cast<FakeEvent*>(event);
  return 0;
}
EXPORT int cuMemGetAllocationGranularity(std::size_t* bytes, const cuda::AllocationProperties*, int) {
  *bytes = 2 << 20;
  return 0;
}
EXPORT int cuMemAddressReserve(std::uint64_t* address, std::size_t bytes, std::size_t, std::uint64_t, unsigned long long) {
  CURRENT
  void* range = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (range == MAP_FAILED) return outOfMemory;
  *address = reinterpret_cast<std::uint64_t>(range);
  const std::lock_guard<std::mutex> lock(mutex);
  reserved[*address] = {bytes, device()};
  return 0;
}
EXPORT int cuMemAddressFree(std::uint64_t address, std::size_t bytes) {
  CURRENT
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = reserved.find(address);
  if (found == reserved.end() || found->second.bytes != bytes) return invalidValue;
  const auto mapped = mappings.lower_bound(address);
  if (mapped != mappings.end() && mapped->first < address + bytes) return invalidValue; // something is mapped there still
  munmap(at(address), bytes);
  reserved.erase(found);
  return 0;
}
EXPORT int cuMemCreate(cuda::Handle* handle, std::size_t bytes, const cuda::AllocationProperties* properties, unsigned long long) {
  CURRENT
  const std::lock_guard<std::mutex> lock(mutex);
  if (bytes == 0 || bytes % (2 << 20) != 0) return invalidValue;
  if (bytes > capacity - used[properties->location.id]) return outOfMemory;
  const int file = memfd_create("fake-gpu", MFD_CLOEXEC);
  if (file < 0 || ftruncate(file, static_cast<off_t>(bytes)) != 0) return outOfMemory;
  *handle = nextHandle++;
  physicals[*handle] = {file, bytes, properties->location.id, true};
  used[properties->location.id] += bytes;
  return 0;
}
EXPORT int cuMemRelease(cuda::Handle handle) {
  CURRENT
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = physicals.find(handle);
  if (found == physicals.end()) return invalidValue;
  close(found->second.file);
  used[found->second.device] -= found->second.bytes;
  physicals.erase(found);
  return 0;
}
EXPORT int cuMemMap(std::uint64_t address, std::size_t bytes, std::size_t offset, cuda::Handle handle, unsigned long long) {
  CURRENT
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = physicals.find(handle);
  if (found == physicals.end() || offset + bytes > found->second.bytes || !covers(reserved, address, bytes)) return invalidValue;
  const auto next = mappings.lower_bound(address);
  if (next != mappings.end() && next->first < address + bytes) return invalidValue;
  if (next != mappings.begin() && std::prev(next)->first + std::prev(next)->second.bytes > address) return invalidValue;
  void* mapped = mmap(at(address), bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, found->second.file, static_cast<off_t>(offset));
  if (mapped == MAP_FAILED) return invalidValue;
  mappings[address] = {bytes, handle, false};
  if (physicals[handle].isFresh) std::memset(mapped, 0xee, 4096); // as if it had had an owner before
  physicals[handle].isFresh = false;
  return 0;
}
EXPORT int cuMemUnmap(std::uint64_t address, std::size_t bytes) {
  CURRENT
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = mappings.find(address);
  if (found == mappings.end() || found->second.bytes != bytes) return invalidValue;
  mmap(at(address), bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
  mappings.erase(found);
  return 0;
}
EXPORT int cuMemSetAccess(std::uint64_t address, std::size_t bytes, const cuda::Access* access, std::size_t count) {
  CURRENT
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = mappings.find(address);
  if (found == mappings.end() || found->second.bytes != bytes || count != 1 || access->flags != 3) return invalidValue;
  found->second.isAccessible = true;
  return 0;
}

EXPORT int nvmlInit_v2() { return 0; }
EXPORT int nvmlSystemGetDriverVersion(char* text, unsigned size) {
  std::snprintf(text, size, "0.0-fake");
  return 0;
}
EXPORT int nvmlDeviceGetHandleByUUID(const char* uuid, std::uintptr_t* handle) {
  const std::string text = uuid;
  if (text.rfind("GPU-fafafafa-fafa-fafa-fafa-fafafafafa", 0) != 0) return 6; // NOT_FOUND
  *handle = 1 + std::stoul(text.substr(text.size() - 2), nullptr, 16);
  return 0;
}
EXPORT int nvmlDeviceGetMemoryInfo(std::uintptr_t handle, nvml::Memory* memory) {
  ORDERED
  const std::lock_guard<std::mutex> lock(mutex);
  const std::uint64_t taken = used[static_cast<int>(handle) - 1];
  *memory = {capacity, capacity - taken, taken};
  return 0;
}
EXPORT int nvmlDeviceGetUtilizationRates(std::uintptr_t, nvml::Utilization* utilization) {
  *utilization = {12, 3};
  return 0;
}
EXPORT int nvmlDeviceGetTemperature(std::uintptr_t, int, unsigned* value) {
  *value = 40;
  return 0;
}
EXPORT int nvmlDeviceGetPowerUsage(std::uintptr_t, unsigned* value) {
  *value = 100'000;
  return 0;
}
EXPORT int nvmlDeviceGetEnforcedPowerLimit(std::uintptr_t, unsigned*) { return 3; } // NOT_SUPPORTED
EXPORT int nvmlDeviceGetClockInfo(std::uintptr_t, int which, unsigned* value) {
  *value = which == 1 ? 1500 : 2600;
  return 0;
}

/** From now on `function` succeeds `after` times, then returns `result` `times` times. */
EXPORT void darkroom_fake_fail(const char* function, int result, int after, int times) {
  const std::lock_guard<std::mutex> lock(failMutex);
  failing = function;
  failures = times;
  failure = result;
  successesFirst = after;
}
/** The next copies arrive with one bit turned. */
EXPORT void darkroom_fake_corrupt(int copies) { corruptCopies = copies; }
/** Each copy takes this much longer. */
EXPORT void darkroom_fake_slow(int microseconds) { slowMicroseconds = microseconds; }
/** Everything that somebody still holds: allocations, pinned memory, addresses, mappings, physical memory, contexts. */
EXPORT int darkroom_fake_held() {
  const std::lock_guard<std::mutex> lock(mutex);
  int contexts = 0;
  for (const auto& [ordinal, count] : retained) contexts += count;
  return static_cast<int>(blocks.size() + pinned.size() + reserved.size() + mappings.size() + physicals.size()) + contexts;
}
