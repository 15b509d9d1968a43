/**
 * NVIDIA GPUs through the CUDA driver API and NVML.
 *
 * The primary context of a device is retained when its memory is first used, not when it is listed: a context alone takes hundreds of MiB.
 * It is the one that a CUDA runtime in the same process uses too. Every call makes it current on its thread first, which costs less than a
 * microsecond.
 *
 * Placed memory is physical memory mapped into an arena of addresses, in pieces of the driver's granularity (2 MiB); a move maps it at its
 * new address and copies nothing. An arena of addresses holds no memory itself.
 */
#include "../core/device.hpp"
#include "../core/error.hpp"
#include "cuda_api.hpp"
#include <array>
#include <atomic>
#include <cstdio>
#include <mutex>

namespace darkroom {
namespace {

using cuda::Address;

std::string nameOf(const cuda::Api& api, cuda::Result result) {
  const char* name = nullptr;
  api.cuGetErrorName(result, &name);
  return name ? name : "CUDA error " + std::to_string(result);
}

void check(const cuda::Api& api, cuda::Result result, const char* what) {
  if (result == 0) return;
  const std::string code = result == cuda::outOfMemory ? "DR_OUT_OF_MEMORY" : cuda::isFatal(result) ? "DR_DEVICE_REMOVED" : "DR_DRIVER";
  throw Error(code, std::string(what) + ": " + nameOf(api, result), result);
}

/** One device's primary context, shared by all that lives on the device. */
class Primary {
public:
  Primary(const cuda::Api& api, cuda::Ordinal ordinal) : api(api), ordinal(ordinal) {}
  ~Primary() {
    if (context_) api.cuDevicePrimaryCtxRelease_v2(ordinal);
  }
  Primary(const Primary&) = delete;
  Primary& operator=(const Primary&) = delete;

  /** Makes the context current on this thread. */
  void use() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!context_) check(api, api.cuDevicePrimaryCtxRetain(&context_, ordinal), "cuDevicePrimaryCtxRetain");
    }
    check(api, api.cuCtxSetCurrent(context_), "cuCtxSetCurrent");
  }
  /** For destructors: what is on a dead device is gone anyway. */
  bool tryUse() noexcept { return context_ && api.cuCtxSetCurrent(context_) == 0; }
  bool isRetained() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return context_ != nullptr;
  }

  const cuda::Api& api;
  const cuda::Ordinal ordinal;

private:
  std::mutex mutex_;
  cuda::Context context_ = nullptr;
};

using Shared = std::shared_ptr<Primary>;

struct CudaBuffer : Buffer {
  Address address = 0;
};

struct CommittedBuffer final : CudaBuffer {
  Shared primary;
  CommittedBuffer(Shared on, std::uint64_t size) : primary(std::move(on)) {
    check(primary->api, primary->api.cuMemAlloc_v2(&address, size), "cuMemAlloc");
    bytes = held = size;
  }
  ~CommittedBuffer() override {
    if (primary->tryUse()) primary->api.cuMemFree_v2(address);
  }
};

struct PinnedBuffer final : CudaBuffer {
  Shared primary;
  PinnedBuffer(Shared on, std::uint64_t size, Kind kind_) : primary(std::move(on)) {
    void* memory = nullptr;
    constexpr unsigned portable = 1; // pinned for every context, so that two devices can copy through one buffer
    check(primary->api, primary->api.cuMemHostAlloc(&memory, size, portable), "cuMemHostAlloc");
    mapped = static_cast<char*>(memory);
    bytes = held = size;
    kind = kind_;
  }
  ~PinnedBuffer() override {
    if (primary->tryUse()) primary->api.cuMemFreeHost(mapped);
  }
};

/** A range of addresses. */
struct AddressArena final : Arena {
  Shared primary;
  Address address = 0;
  AddressArena(Shared on, std::uint64_t size) : primary(std::move(on)) {
    check(primary->api, primary->api.cuMemAddressReserve(&address, size, 0, 0, 0), "cuMemAddressReserve");
    bytes = size;
  }
  ~AddressArena() override {
    if (primary->tryUse()) primary->api.cuMemAddressFree(address, bytes);
  }
};

cuda::AllocationProperties pinnedOn(cuda::Ordinal ordinal) {
  cuda::AllocationProperties properties{};
  properties.type = 1;
  properties.location = {1, ordinal};
  return properties;
}

/** Physical memory, mapped into an arena. */
struct MappedBuffer final : CudaBuffer {
  Shared primary;
  std::shared_ptr<AddressArena> arena;
  cuda::Handle physical = 0;

  MappedBuffer(Shared on, std::shared_ptr<AddressArena> within, std::uint64_t offset, std::uint64_t size)
      : primary(std::move(on)), arena(std::move(within)) {
    const cuda::AllocationProperties properties = pinnedOn(primary->ordinal);
    check(primary->api, primary->api.cuMemCreate(&physical, size, &properties, 0), "cuMemCreate");
    try {
      address = mapAt(*arena, offset, size);
    } catch (...) {
      primary->api.cuMemRelease(physical);
      throw;
    }
    bytes = held = size;
  }
  ~MappedBuffer() override {
    if (!primary->tryUse()) return;
    primary->api.cuMemUnmap(address, bytes);
    primary->api.cuMemRelease(physical);
  }

  /** Mapped at the new address before it leaves the old one, so that a refusal changes nothing. */
  void remap(const std::shared_ptr<AddressArena>& target, std::uint64_t offset) {
    const Address moved = mapAt(*target, offset, bytes);
    const cuda::Result result = primary->api.cuMemUnmap(address, bytes);
    if (result != 0) primary->api.cuMemUnmap(moved, bytes);
    check(primary->api, result, "cuMemUnmap");
    address = moved;
    arena = target;
  }

private:
  Address mapAt(const AddressArena& target, std::uint64_t offset, std::uint64_t size) const {
    const Address at = target.address + offset;
    check(primary->api, primary->api.cuMemMap(at, size, 0, physical, 0), "cuMemMap");
    const cuda::Access access{{1, primary->ordinal}, 3};
    const cuda::Result result = primary->api.cuMemSetAccess(at, size, &access, 1);
    if (result != 0) primary->api.cuMemUnmap(at, size);
    check(primary->api, result, "cuMemSetAccess");
    return at;
  }
};

/** A stream of its own. A ring of events marks the tickets; waiting blocks the thread instead of burning a core. */
class CudaLane final : public Lane {
public:
  explicit CudaLane(Shared primary) : primary_(std::move(primary)) {
    constexpr unsigned nonBlocking = 1; // not ordered with the legacy default stream
    check(api(), api().cuStreamCreate(&stream_, nonBlocking), "cuStreamCreate");
    constexpr unsigned blockingWithoutTiming = 1 | 2;
    for (cuda::Event& event : events_) {
      const cuda::Result result = api().cuEventCreate(&event, blockingWithoutTiming);
      if (result != 0) release();
      check(api(), result, "cuEventCreate");
    }
  }
  ~CudaLane() override {
    if (primary_->tryUse()) release();
  }

  std::uint64_t copy(Buffer& to, std::uint64_t at, Buffer& from, std::uint64_t fromAt, std::uint64_t bytes) override {
    primary_->use();
    const Address target = static_cast<CudaBuffer&>(to).address + at;
    const Address source = static_cast<CudaBuffer&>(from).address + fromAt;
    const cuda::Result result = from.mapped ? api().cuMemcpyHtoDAsync_v2(target, from.mapped + fromAt, bytes, stream_)
                                : to.mapped ? api().cuMemcpyDtoHAsync_v2(to.mapped + at, source, bytes, stream_)
                                            : api().cuMemcpyDtoDAsync_v2(target, source, bytes, stream_);
    check(api(), result, "cuMemcpyAsync");
    return mark();
  }

  std::uint64_t clear(Buffer& to) override {
    primary_->use();
    check(api(), api().cuMemsetD8Async(static_cast<CudaBuffer&>(to).address, 0, to.bytes, stream_), "cuMemsetD8Async");
    return mark();
  }

  void wait(std::uint64_t ticket) override {
    primary_->use();
    // An older ticket's event marks a later copy by now, which ends no earlier.
    check(api(), api().cuEventSynchronize(events_[ticket % events_.size()]), "cuEventSynchronize");
  }

  void drain() noexcept override {
    if (primary_->tryUse()) api().cuStreamSynchronize(stream_);
  }

private:
  const cuda::Api& api() const { return primary_->api; }
  /** Of what was started last. */
  std::uint64_t mark() {
    const std::uint64_t ticket = ++last_;
    check(api(), api().cuEventRecord(events_[ticket % events_.size()], stream_), "cuEventRecord");
    return ticket;
  }
  void release() noexcept {
    for (cuda::Event event : events_)
      if (event) api().cuEventDestroy_v2(event);
    api().cuStreamDestroy_v2(stream_);
  }

  Shared primary_;
  cuda::Stream stream_ = nullptr;
  std::array<cuda::Event, 8> events_{};
  std::uint64_t last_ = 0;
};

std::string written(const cuda::Uuid& uuid) {
  std::string text;
  for (int i = 0; i < 16; i++) {
    char hex[4];
    std::snprintf(hex, sizeof hex, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid.bytes[i]);
    text += hex;
  }
  return text;
}

class CudaDevice final : public Device {
public:
  CudaDevice(const cuda::Api& api, cuda::Ordinal ordinal) : primary_(std::make_shared<Primary>(api, ordinal)) {
    char text[256] = "";
    check(api, api.cuDeviceGetName(text, sizeof text, ordinal), "cuDeviceGetName");
    info_.name = text;
    info_.backend = "cuda";
    cuda::Uuid uuid{};
    check(api, api.cuDeviceGetUuid(&uuid, ordinal), "cuDeviceGetUuid");
    info_.uuid = written(uuid);
    info_.key = "GPU-" + *info_.uuid;
    Capabilities& capabilities = info_.capabilities;
    const auto major = attribute(cuda::computeCapabilityMajor);
    const auto minor = attribute(cuda::computeCapabilityMinor);
    if (major && minor) capabilities.computeCapability = std::to_string(*major) + "." + std::to_string(*minor);
    if (const auto integrated = attribute(cuda::isIntegrated)) capabilities.unified = *integrated != 0;
    if (api.cuDeviceGetPCIBusId(text, sizeof text, ordinal) == 0) capabilities.pci = text;
    const nvml::Api* nvml = nvml::api();
    if (nvml && nvml->nvmlSystemGetDriverVersion(text, sizeof text) == 0) capabilities.driver = text;
    std::size_t total = 0;
    if (api.cuDeviceTotalMem_v2(&total, ordinal) == 0) total_ = total;
    if (nvml && nvml->nvmlDeviceGetHandleByUUID(info_.key.c_str(), &nvml_) != 0) nvml_ = nullptr;
    if (attribute(cuda::hasVirtualMemory).value_or(0) != 0) {
      const cuda::AllocationProperties properties = pinnedOn(ordinal);
      std::size_t granularity = 0;
      if (api.cuMemGetAllocationGranularity(&granularity, &properties, 0) == 0) granule_ = granularity;
    }
  }

  const DeviceInfo& info() const override { return info_; }

  Figures figures() override {
    Figures figures;
    figures.total = total_;
    figures.source = "cuda";
    nvml::Memory memory{};
    if (nvml_ && nvml::api()->nvmlDeviceGetMemoryInfo(nvml_, &memory) == 0) {
      figures.used = memory.used;
      figures.source = "nvml";
    } else if (primary_->isRetained()) {
      primary_->use();
      std::size_t free = 0;
      std::size_t total = 0;
      check(api(), api().cuMemGetInfo_v2(&free, &total), "cuMemGetInfo");
      figures.used = total - free;
    }
    return figures;
  }

  Vitals vitals() override {
    Vitals vitals;
    vitals.source = nvml_ ? "nvml" : "none";
    if (!nvml_) return vitals;
    const nvml::Api& nvml = *nvml::api();
    nvml::Utilization utilization{};
    if (nvml.nvmlDeviceGetUtilizationRates(nvml_, &utilization) == 0) {
      vitals.utilization = utilization.gpu / 100.0;
      vitals.memoryUtilization = utilization.memory / 100.0;
    }
    unsigned value = 0;
    if (nvml.nvmlDeviceGetTemperature(nvml_, 0, &value) == 0) vitals.temperature = value;
    if (nvml.nvmlDeviceGetPowerUsage(nvml_, &value) == 0) vitals.power = value / 1000.0;
    if (nvml.nvmlDeviceGetEnforcedPowerLimit(nvml_, &value) == 0) vitals.powerLimit = value / 1000.0;
    if (nvml.nvmlDeviceGetClockInfo(nvml_, 1, &value) == 0) vitals.clock = value;
    if (nvml.nvmlDeviceGetClockInfo(nvml_, 2, &value) == 0) vitals.memoryClock = value;
    return vitals;
  }

  std::unique_ptr<Buffer> commit(std::uint64_t bytes, Kind kind) override {
    primary_->use();
    if (kind == Kind::Device) return std::make_unique<CommittedBuffer>(primary_, bytes);
    return std::make_unique<PinnedBuffer>(primary_, bytes, kind);
  }
  std::unique_ptr<Lane> lane() override {
    primary_->use();
    return std::make_unique<CudaLane>(primary_);
  }
  std::uint64_t granule() override { return granule_; }
  std::shared_ptr<Arena> arena(std::uint64_t bytes) override {
    primary_->use();
    return std::make_shared<AddressArena>(primary_, bytes);
  }
  std::unique_ptr<Buffer> place(const std::shared_ptr<Arena>& arena, std::uint64_t offset, std::uint64_t bytes) override {
    primary_->use();
    return std::make_unique<MappedBuffer>(primary_, std::static_pointer_cast<AddressArena>(arena), offset, bytes);
  }
  std::uint64_t move(std::unique_ptr<Buffer>& buffer, const std::shared_ptr<Arena>& arena, std::uint64_t offset, Lane&) override {
    primary_->use();
    static_cast<MappedBuffer&>(*buffer).remap(std::static_pointer_cast<AddressArena>(arena), offset);
    return 0;
  }

private:
  const cuda::Api& api() const { return primary_->api; }
  std::optional<int> attribute(int which) const {
    int value = 0;
    if (api().cuDeviceGetAttribute(&value, which, primary_->ordinal) != 0) return std::nullopt;
    return value;
  }

  Shared primary_;
  DeviceInfo info_;
  nvml::Device nvml_ = nullptr;
  std::optional<std::uint64_t> total_;
  std::uint64_t granule_ = 0;
};

} // namespace

Devices openCuda() {
  const cuda::Api* api = cuda::api();
  if (!api) throw Error("DR_UNAVAILABLE", "there is no NVIDIA driver here");
  int count = 0;
  check(*api, api->cuDeviceGetCount(&count), "cuDeviceGetCount");
  Devices devices;
  for (int index = 0; index < count; index++) {
    cuda::Ordinal ordinal = 0;
    check(*api, api->cuDeviceGet(&ordinal, index), "cuDeviceGet");
    devices.push_back(std::make_unique<CudaDevice>(*api, ordinal));
  }
  if (devices.empty()) throw Error("DR_UNAVAILABLE", "the NVIDIA driver shows no device");
  return devices;
}

} // namespace darkroom
