/**
 * Where Windows and vkd3d differ, for d3d12.cpp alone. On Windows the devices come from DXGI; elsewhere from vkd3d, which is D3D12 over
 * Vulkan, and the figures from the Vulkan device beneath. Nothing is linked: d3d12.dll, dxgi.dll, libvkd3d.so.1 and libvulkan.so.1 are
 * opened at run time.
 */
#pragma once
#include "../core/device.hpp"
#include "../core/error.hpp"
#include <functional>
#include <utility>

// Struct-returning methods take a hidden pointer after `this`, as Microsoft's compiler has it.
#define WIDL_EXPLICIT_AGGREGATE_RETURNS 1
#define NOMINMAX
#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#ifdef DARKROOM_DEFINES_GUIDS
#include <initguid.h> // before the interfaces
#endif
#include <d3d12.h>
#include <dxgi1_6.h>
#else
#define VKD3D_NO_PROTOTYPES
#ifdef DARKROOM_DEFINES_GUIDS
#define INITGUID
#endif
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <vulkan/vulkan.h>
#include <vkd3d.h>
#endif

namespace darkroom::d3d12 {

/** A reference to a COM object. */
template <typename T> class Com {
public:
  Com() = default;
  Com(const Com& other) : object_(other.object_) {
    if (object_) object_->AddRef();
  }
  Com(Com&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Com& operator=(Com other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Com() {
    if (object_) object_->Release();
  }
  T* get() const { return object_; }
  T* operator->() const { return object_; }
  explicit operator bool() const { return object_ != nullptr; }
  /** Where a function puts a new object. */
  void** put() { return reinterpret_cast<void**>(&object_); }

private:
  T* object_ = nullptr;
};

/** Throws what an HRESULT stands for. */
inline void check(HRESULT result, const char* what) {
  if (SUCCEEDED(result)) return;
  const auto number = static_cast<unsigned>(result);
  // DXGI_ERROR_DEVICE_REMOVED, _HUNG, _RESET, _DRIVER_INTERNAL_ERROR
  const bool isLost = number == 0x887a0005u || number == 0x887a0006u || number == 0x887a0007u || number == 0x887a0020u;
  char text[160];
  std::snprintf(text, sizeof text, "%s: 0x%08x", what, number);
  throw Error(result == E_OUTOFMEMORY ? "DR_OUT_OF_MEMORY" : isLost ? "DR_DEVICE_REMOVED" : "DR_DRIVER", text, result);
}

/** What a fence sets. */
class Signal {
public:
#ifdef _WIN32
  Signal() : handle_(CreateEventA(nullptr, FALSE, FALSE, nullptr)) {}
  ~Signal() { CloseHandle(handle_); }
  HANDLE handle() { return handle_; }
  bool wait() { return WaitForSingleObject(handle_, INFINITE) == WAIT_OBJECT_0; }
#else
  Signal() = default;
  HANDLE handle() { return this; }
  /** False when it was not set for a tenth of a second: `CopyLane::wait` says why that is looked at. */
  bool wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    const bool wasSet = changed_.wait_for(lock, std::chrono::milliseconds(100), [this] { return isSet_; });
    isSet_ = false;
    return wasSet;
  }
  void set() {
    const std::lock_guard<std::mutex> lock(mutex_);
    isSet_ = true;
    changed_.notify_all();
  }
#endif
  Signal(const Signal&) = delete;
  Signal& operator=(const Signal&) = delete;

private:
#ifdef _WIN32
  HANDLE handle_;
#else
  std::mutex mutex_;
  std::condition_variable changed_;
  bool isSet_ = false;
#endif
};

/** A device as the platform shows it. */
struct Adapter {
  std::shared_ptr<void> keeps; // what must outlive the device, so it is declared first
  DeviceInfo info;
  Com<ID3D12Device> device;
  std::function<Figures()> figures;
};

/** @throws Error `DR_UNAVAILABLE` when the libraries or the devices are not here */
std::vector<Adapter> adapters();

/** `11_0` for D3D_FEATURE_LEVEL_11_0, of the highest that the device has. */
std::string featureLevel(ID3D12Device& device);

} // namespace darkroom::d3d12
