/**
 * What a backend is to the core. Sizes and offsets are bytes. A figure that the driver does not give is empty, never 0.
 *
 * Threads: `Device` may be called from any thread. A `Lane` belongs to one thread at a time. Buffers may be destroyed on any thread, not
 * while a lane uses them. All of it throws `Error`; destructors never throw, and on a lost device they let go of what is gone anyway.
 */
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace darkroom {

enum class Kind {
  Device,   // what kernels work on; the host may not see it
  Upload,   // host memory that the device reads at full speed (pinned)
  Readback, // host memory that the device writes at full speed (pinned)
};

struct Capabilities {
  std::optional<std::string> computeCapability; // "9.0"
  std::optional<std::string> featureLevel;      // "12_1"
  std::optional<std::string> driver;
  std::optional<std::string> pci;               // "0000:17:00.0"
  std::optional<bool> unified;                  // device and host share one memory
};

struct DeviceInfo {
  /** The same for the same device in any process and any order: `GPU-<uuid>`, `luid-<hex>`, `host`. */
  std::string key;
  std::string name;
  std::string backend; // "host", "cuda", "d3d12"
  /** By which Python's view of the device is found, when the driver tells it: lower-case hex with dashes. */
  std::optional<std::string> uuid;
  std::optional<std::string> luid;
  bool software = false;
  Capabilities capabilities;
};

/** Memory of the whole device, whoever uses it. */
struct Figures {
  std::optional<std::uint64_t> total;
  /** What this process may use before the system takes memory away from it. */
  std::optional<std::uint64_t> budget;
  std::optional<std::uint64_t> used;
  /** Whether `used` is what this process uses, as DXGI counts, or what everybody does. */
  bool usedIsOwn = false;
  std::string source;
};

struct Vitals {
  std::optional<double> utilization;       // 0 to 1
  std::optional<double> memoryUtilization; // 0 to 1, of the memory's bandwidth
  std::optional<double> temperature;       // degrees Celsius
  std::optional<double> power;             // watts
  std::optional<double> powerLimit;        // watts
  std::optional<double> clock;             // MHz
  std::optional<double> memoryClock;       // MHz
  std::string source;
};

struct Buffer {
  std::uint64_t bytes = 0;
  Kind kind = Kind::Device;
  /** What it takes from the driver beyond its arena. */
  std::uint64_t held = 0;
  /** Where the host sees it, or null. */
  char* mapped = nullptr;
  /** Whether the system has just made it, and so holds zeros. */
  bool isZeroed = false;
  virtual ~Buffer() = default;
};

/** A piece of device memory, or of device addresses, in which buffers are placed. Every buffer in it keeps it alive. */
struct Arena {
  std::uint64_t bytes = 0;
  std::uint64_t held = 0;
  virtual ~Arena() = default;
};

/** One queue of copies of a device, carried out in order. */
class Lane {
public:
  virtual ~Lane() = default;
  /** Starts a copy between two buffers of this device and returns its ticket; tickets grow. Ranges are inside and do not overlap. */
  virtual std::uint64_t copy(Buffer& to, std::uint64_t at, Buffer& from, std::uint64_t fromAt, std::uint64_t bytes) = 0;
  /** Starts to fill a whole buffer with zeros and returns its ticket; 0 where the device has no command for that. */
  virtual std::uint64_t clear(Buffer&) { return 0; }
  /** Returns when the copy with this ticket, and so every earlier one, has ended. */
  virtual void wait(std::uint64_t ticket) = 0;
  /** Returns when nothing of this lane runs any more, whether it went well or not. */
  virtual void drain() noexcept = 0;
};

class Device {
public:
  virtual ~Device() = default;
  virtual const DeviceInfo& info() const = 0;
  virtual Figures figures() = 0;
  virtual Vitals vitals() = 0;

  virtual std::unique_ptr<Buffer> commit(std::uint64_t bytes, Kind kind) = 0;
  virtual std::unique_ptr<Lane> lane() = 0;

  /** What placed buffers begin and end on; 0 when this device cannot place. */
  virtual std::uint64_t granule() = 0;
  /** @param bytes a multiple of the granule */
  virtual std::shared_ptr<Arena> arena(std::uint64_t bytes) = 0;
  /** The caller has checked that the range lies in the arena and is nobody else's: drivers do not. */
  virtual std::unique_ptr<Buffer> place(const std::shared_ptr<Arena>& arena, std::uint64_t offset, std::uint64_t bytes) = 0;
  /**
   * Gives `buffer` a new place, the contents with it; the ranges do not overlap. When it throws, the buffer is where it was.
   * @returns the bytes that had to be copied
   */
  virtual std::uint64_t move(std::unique_ptr<Buffer>& buffer, const std::shared_ptr<Arena>& arena, std::uint64_t offset, Lane& lane) {
    std::unique_ptr<Buffer> moved = place(arena, offset, buffer->bytes);
    lane.wait(lane.copy(*moved, 0, *buffer, 0, buffer->bytes));
    buffer = std::move(moved);
    return buffer->bytes;
  }
};

using Devices = std::vector<std::unique_ptr<Device>>;

/** Each opens a backend. @throws Error `DR_UNAVAILABLE` when its driver or its devices are not here */
Devices openHost();
Devices openCuda();
Devices openD3d12();

/** The machine's RAM, where pinned memory comes from; limits of cgroups are the caller's to know. */
Figures systemFigures();

/** The backends in this build, best first. */
std::vector<std::string> backends();
/** @throws Error `DR_UNAVAILABLE`, also for a name that is no backend */
Devices openBackend(const std::string& name);

} // namespace darkroom
