/**
 * The part of the CUDA driver API and of NVML that is used here, declared by hand so that building needs no toolkit. Names with `_v2` are
 * the exported ones: NVIDIA keeps an exported name's signature for good. Sources: CUDA Driver API reference, NVML API reference.
 */
#pragma once
#include <cstddef>
#include <cstdint>

namespace darkroom::cuda {

using Result = int; // CUresult, 0 = success
using Ordinal = int;
using Context = struct ContextOpaque*;
using Stream = struct StreamOpaque*;
using Event = struct EventOpaque*;
using Address = unsigned long long;
using Handle = unsigned long long;

constexpr Result outOfMemory = 2;

/** After these the process's context is dead for good; CUDA itself calls them sticky. */
constexpr bool isFatal(Result result) {
  switch (result) {
  case 4:   // DEINITIALIZED
  case 46:  // DEVICE_UNAVAILABLE
  case 201: // INVALID_CONTEXT
  case 214: // ECC_UNCORRECTABLE
  case 220: // NVLINK_UNCORRECTABLE
  case 700: // ILLEGAL_ADDRESS
  case 702: // LAUNCH_TIMEOUT
  case 709: // CONTEXT_IS_DESTROYED
  case 710: // ASSERT
  case 714: // HARDWARE_STACK_ERROR
  case 715: // ILLEGAL_INSTRUCTION
  case 716: // MISALIGNED_ADDRESS
  case 717: // INVALID_ADDRESS_SPACE
  case 718: // INVALID_PC
  case 719: // LAUNCH_FAILED
    return true;
  default:
    return false;
  }
}

constexpr int computeCapabilityMajor = 75;
constexpr int computeCapabilityMinor = 76;
constexpr int isIntegrated = 18;
constexpr int hasVirtualMemory = 102;

struct Uuid {
  unsigned char bytes[16];
};
struct Location {
  int type; // 1: device
  int id;
};
struct AllocationProperties {
  int type; // 1: pinned
  int handleTypes;
  Location location;
  void* win32MetaData;
  unsigned char compression;
  unsigned char gpuDirect;
  unsigned short usage;
  unsigned char reserved[4];
};
struct Access {
  Location location;
  int flags; // 3: read and write
};
static_assert(sizeof(AllocationProperties) == 32 && sizeof(Access) == 12 && sizeof(Uuid) == 16, "the layout of CUDA's own structs");

#define DARKROOM_CUDA_FUNCTIONS(X)                                                                                                         \
  X(cuInit, (unsigned))                                                                                                                    \
  X(cuDriverGetVersion, (int*))                                                                                                            \
  X(cuGetErrorName, (Result, const char**))                                                                                                \
  X(cuDeviceGetCount, (int*))                                                                                                              \
  X(cuDeviceGet, (Ordinal*, int))                                                                                                          \
  X(cuDeviceGetName, (char*, int, Ordinal))                                                                                                \
  X(cuDeviceTotalMem_v2, (std::size_t*, Ordinal))                                                                                          \
  X(cuDeviceGetAttribute, (int*, int, Ordinal))                                                                                            \
  X(cuDeviceGetUuid, (Uuid*, Ordinal))                                                                                                     \
  X(cuDeviceGetPCIBusId, (char*, int, Ordinal))                                                                                            \
  X(cuDevicePrimaryCtxRetain, (Context*, Ordinal))                                                                                         \
  X(cuDevicePrimaryCtxRelease_v2, (Ordinal))                                                                                               \
  X(cuCtxSetCurrent, (Context))                                                                                                            \
  X(cuMemGetInfo_v2, (std::size_t*, std::size_t*))                                                                                         \
  X(cuMemAlloc_v2, (Address*, std::size_t))                                                                                                \
  X(cuMemFree_v2, (Address))                                                                                                               \
  X(cuMemHostAlloc, (void**, std::size_t, unsigned))                                                                                       \
  X(cuMemFreeHost, (void*))                                                                                                                \
  X(cuMemcpyHtoDAsync_v2, (Address, const void*, std::size_t, Stream))                                                                     \
  X(cuMemcpyDtoHAsync_v2, (void*, Address, std::size_t, Stream))                                                                           \
  X(cuMemcpyDtoDAsync_v2, (Address, Address, std::size_t, Stream))                                                                         \
  X(cuMemsetD8Async, (Address, unsigned char, std::size_t, Stream))                                                                        \
  X(cuStreamCreate, (Stream*, unsigned))                                                                                                   \
  X(cuStreamSynchronize, (Stream))                                                                                                         \
  X(cuStreamDestroy_v2, (Stream))                                                                                                          \
  X(cuEventCreate, (Event*, unsigned))                                                                                                     \
  X(cuEventRecord, (Event, Stream))                                                                                                        \
  X(cuEventSynchronize, (Event))                                                                                                           \
  X(cuEventDestroy_v2, (Event))                                                                                                            \
  X(cuMemGetAllocationGranularity, (std::size_t*, const AllocationProperties*, int))                                                       \
  X(cuMemAddressReserve, (Address*, std::size_t, std::size_t, Address, unsigned long long))                                                \
  X(cuMemAddressFree, (Address, std::size_t))                                                                                              \
  X(cuMemCreate, (Handle*, std::size_t, const AllocationProperties*, unsigned long long))                                                  \
  X(cuMemRelease, (Handle))                                                                                                                \
  X(cuMemMap, (Address, std::size_t, std::size_t, Handle, unsigned long long))                                                             \
  X(cuMemUnmap, (Address, std::size_t))                                                                                                    \
  X(cuMemSetAccess, (Address, std::size_t, const Access*, std::size_t))

/** The driver's functions; all of them are there (they are since CUDA 10.2). */
struct Api {
#define X(name, parameters) Result(*name) parameters = nullptr;
  DARKROOM_CUDA_FUNCTIONS(X)
#undef X
};

/** The driver, opened and initialised once per process, or null where there is none. @throws Error when it is there and refuses */
const Api* api();

} // namespace darkroom::cuda

namespace darkroom::nvml {

using Result = int;
using Device = struct DeviceOpaque*;

struct Memory {
  unsigned long long total, free, used;
};
struct Utilization {
  unsigned gpu, memory; // percent
};

#define DARKROOM_NVML_FUNCTIONS(X)                                                                                                         \
  X(nvmlInit_v2, ())                                                                                                                       \
  X(nvmlSystemGetDriverVersion, (char*, unsigned))                                                                                         \
  X(nvmlDeviceGetHandleByUUID, (const char*, Device*))                                                                                     \
  X(nvmlDeviceGetMemoryInfo, (Device, Memory*))                                                                                            \
  X(nvmlDeviceGetUtilizationRates, (Device, Utilization*))                                                                                 \
  X(nvmlDeviceGetTemperature, (Device, int, unsigned*))                                                                                    \
  X(nvmlDeviceGetPowerUsage, (Device, unsigned*))                                                                                          \
  X(nvmlDeviceGetEnforcedPowerLimit, (Device, unsigned*))                                                                                  \
  X(nvmlDeviceGetClockInfo, (Device, int, unsigned*))

struct Api {
#define X(name, parameters) Result(*name) parameters = nullptr;
  DARKROOM_NVML_FUNCTIONS(X)
#undef X
};

/** NVML, opened once per process, or null: then the figures it would give are unknown. */
const Api* api();

} // namespace darkroom::nvml
