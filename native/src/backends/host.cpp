/** System RAM as a device: the backend of machines without a GPU, and of every test that needs none. */
#include "../core/device.hpp"
#include "../core/error.hpp"
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <mutex>
#include <sstream>
#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace darkroom {
namespace {

constexpr std::uint64_t hostGranule = 64 << 10;

/** Memory that costs nothing until it is touched. */
char* take(std::uint64_t bytes) {
  if (bytes > SIZE_MAX) return nullptr;
  return static_cast<char*>(std::calloc(1, static_cast<std::size_t>(bytes)));
}

#ifdef __linux__
/** The number after `name` in a file of `name: number kB` lines. */
std::optional<std::uint64_t> kibibytes(const char* file, const std::string& name) {
  std::ifstream in(file);
  std::string line;
  while (std::getline(in, line)) {
    if (line.rfind(name + ":", 0) != 0) continue;
    std::uint64_t value = 0;
    if (std::istringstream(line.substr(name.size() + 1)) >> value) return value << 10;
  }
  return std::nullopt;
}
#endif

} // namespace

Figures systemFigures() {
  Figures figures;
#ifdef __linux__
  figures.total = kibibytes("/proc/meminfo", "MemTotal");
  const auto available = kibibytes("/proc/meminfo", "MemAvailable");
  if (figures.total && available) figures.used = *figures.total - std::min(*available, *figures.total);
  figures.source = "meminfo";
#elif defined(_WIN32)
  MEMORYSTATUSEX status{};
  status.dwLength = sizeof status;
  if (GlobalMemoryStatusEx(&status)) {
    figures.total = status.ullTotalPhys;
    figures.used = status.ullTotalPhys - status.ullAvailPhys;
  }
  figures.source = "GlobalMemoryStatusEx";
#elif defined(__APPLE__)
  std::uint64_t total = 0;
  std::size_t size = sizeof total;
  if (sysctlbyname("hw.memsize", &total, &size, nullptr, 0) == 0) figures.total = total;
  figures.source = "sysctl";
#endif
  return figures;
}

namespace {

struct HostBuffer : Buffer {
  HostBuffer(std::uint64_t size, Kind kind_) {
    mapped = take(size);
    if (!mapped) throw Error("DR_OUT_OF_MEMORY", "the system has no " + std::to_string(size) + " bytes of memory left");
    bytes = held = size;
    kind = kind_;
    isZeroed = true;
  }
  ~HostBuffer() override { std::free(mapped); }
};

struct HostArena : Arena {
  char* memory;
  explicit HostArena(std::uint64_t size) : memory(take(size)) {
    if (!memory) throw Error("DR_OUT_OF_MEMORY", "the system has no " + std::to_string(size) + " bytes of memory left");
    bytes = held = size;
  }
  ~HostArena() override { std::free(memory); }

  /** Whether nothing was placed there or further on: then it holds zeros still. */
  bool isFresh(std::uint64_t offset, std::uint64_t size) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const bool fresh = offset >= usedUpTo_;
    usedUpTo_ = std::max(usedUpTo_, offset + size);
    return fresh;
  }

private:
  std::mutex mutex_;
  std::uint64_t usedUpTo_ = 0;
};

struct PlacedHostBuffer : Buffer {
  std::shared_ptr<Arena> arena;
  PlacedHostBuffer(const std::shared_ptr<Arena>& within, std::uint64_t offset, std::uint64_t size) : arena(within) {
    bytes = size;
    auto& memory = static_cast<HostArena&>(*within);
    mapped = memory.memory + offset;
    isZeroed = memory.isFresh(offset, size);
  }
};

/** The host copies at once; a ticket is always past. */
class HostLane final : public Lane {
public:
  std::uint64_t copy(Buffer& to, std::uint64_t at, Buffer& from, std::uint64_t fromAt, std::uint64_t bytes) override {
    std::memcpy(to.mapped + at, from.mapped + fromAt, bytes);
    return ++ticket_;
  }
  void wait(std::uint64_t) override {}
  void drain() noexcept override {}

private:
  std::uint64_t ticket_ = 0;
};

class HostDevice final : public Device {
public:
  HostDevice() {
    info_.key = "host";
    info_.name = "system memory";
    info_.backend = "host";
    info_.software = true;
    info_.capabilities.unified = true;
  }
  const DeviceInfo& info() const override { return info_; }
  Figures figures() override { return systemFigures(); }
  Vitals vitals() override {
    Vitals vitals;
    vitals.source = "none";
    return vitals;
  }
  std::unique_ptr<Buffer> commit(std::uint64_t bytes, Kind kind) override {
    refuseBeyondAvailable(bytes);
    return std::make_unique<HostBuffer>(bytes, kind);
  }
  std::unique_ptr<Lane> lane() override { return std::make_unique<HostLane>(); }
  std::uint64_t granule() override { return hostGranule; }
  std::shared_ptr<Arena> arena(std::uint64_t bytes) override {
    refuseBeyondAvailable(bytes);
    return std::make_shared<HostArena>(bytes);
  }
  std::unique_ptr<Buffer> place(const std::shared_ptr<Arena>& arena, std::uint64_t offset, std::uint64_t bytes) override {
    return std::make_unique<PlacedHostBuffer>(arena, offset, bytes);
  }

private:
  /** A system that overcommits would grant it and kill somebody later. */
  void refuseBeyondAvailable(std::uint64_t bytes) {
    const Figures now = systemFigures();
    if (!now.total || !now.used) return;
    const std::uint64_t available = *now.total - std::min(*now.used, *now.total);
    if (bytes > available)
      throw Error("DR_OUT_OF_MEMORY", std::to_string(bytes) + " bytes are more than the " + std::to_string(available) + " that are free");
  }

  DeviceInfo info_;
};

} // namespace

Devices openHost() {
  Devices devices;
  devices.push_back(std::make_unique<HostDevice>());
  return devices;
}

} // namespace darkroom
