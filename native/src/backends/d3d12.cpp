/**
 * Any GPU through Direct3D 12. Only plain ID3D12Device is used, because vkd3d 1.2 has no more. What a driver may let pass (a placed resource
 * beyond its heap, a misaligned offset) the core has checked before.
 *
 * Buffers on a copy queue need no barriers: they are promoted from and decay to COMMON at every ExecuteCommandLists.
 */
#define DARKROOM_DEFINES_GUIDS // the interface ids live in this file
#include "d3d12_platform.hpp"
#include <array>

namespace darkroom {
namespace d3d12 {
namespace {

D3D12_RESOURCE_DESC linear(std::uint64_t bytes) {
  D3D12_RESOURCE_DESC description{};
  description.Dimension = D3D12_RESOURCE_DIMENSION_BUFFER;
  description.Width = bytes;
  description.Height = 1;
  description.DepthOrArraySize = 1;
  description.MipLevels = 1;
  description.SampleDesc.Count = 1;
  description.Layout = D3D12_TEXTURE_LAYOUT_ROW_MAJOR;
  return description;
}

D3D12_HEAP_PROPERTIES heapOf(Kind kind) {
  D3D12_HEAP_PROPERTIES properties{};
  properties.Type = kind == Kind::Device   ? D3D12_HEAP_TYPE_DEFAULT
                    : kind == Kind::Upload ? D3D12_HEAP_TYPE_UPLOAD
                                           : D3D12_HEAP_TYPE_READBACK;
  return properties;
}

struct ResourceBuffer : Buffer {
  Com<ID3D12Resource> resource;
};

struct CommittedBuffer final : ResourceBuffer {
  CommittedBuffer(ID3D12Device& device, std::uint64_t size, Kind kind_) {
    const D3D12_HEAP_PROPERTIES properties = heapOf(kind_);
    const D3D12_RESOURCE_DESC description = linear(size);
    const D3D12_RESOURCE_STATES state = kind_ == Kind::Device   ? D3D12_RESOURCE_STATE_COMMON
                                        : kind_ == Kind::Upload ? D3D12_RESOURCE_STATE_GENERIC_READ
                                                                : D3D12_RESOURCE_STATE_COPY_DEST;
    check(device.CreateCommittedResource(&properties, D3D12_HEAP_FLAG_NONE, &description, state, nullptr, IID_ID3D12Resource,
                                         resource.put()),
          "CreateCommittedResource");
    bytes = held = size;
    kind = kind_;
    if (kind == Kind::Device) return;
    const D3D12_RANGE nothing{0, 0}; // of an upload buffer the host reads nothing
    void* memory = nullptr;
    check(resource->Map(0, kind == Kind::Upload ? &nothing : nullptr, &memory), "Map");
    mapped = static_cast<char*>(memory);
  }
};

struct HeapArena final : Arena {
  Com<ID3D12Heap> heap;
  HeapArena(ID3D12Device& device, std::uint64_t size) {
    D3D12_HEAP_DESC description{};
    description.SizeInBytes = size;
    description.Properties = heapOf(Kind::Device);
    description.Alignment = D3D12_DEFAULT_RESOURCE_PLACEMENT_ALIGNMENT;
    description.Flags = D3D12_HEAP_FLAG_ALLOW_ONLY_BUFFERS;
    check(device.CreateHeap(&description, IID_ID3D12Heap, heap.put()), "CreateHeap");
    bytes = held = size;
  }
};

struct PlacedBuffer final : ResourceBuffer {
  // vkd3d 1.2 frees a released heap although resources are placed in it. The heap goes after the resource, which the base class holds.
  std::shared_ptr<HeapArena> arena;
  PlacedBuffer(ID3D12Device& device, std::shared_ptr<HeapArena> within, std::uint64_t offset, std::uint64_t size)
      : arena(std::move(within)) {
    const D3D12_RESOURCE_DESC description = linear(size);
    check(device.CreatePlacedResource(arena->heap.get(), offset, &description, D3D12_RESOURCE_STATE_COMMON, nullptr, IID_ID3D12Resource,
                                      resource.put()),
          "CreatePlacedResource");
    bytes = size;
  }
  ~PlacedBuffer() override { resource = {}; }
};

/** A copy queue with a ring of command lists; the fence's value is the ticket. */
class CopyLane final : public Lane {
public:
  explicit CopyLane(Com<ID3D12Device> device) : device_(std::move(device)) {
    D3D12_COMMAND_QUEUE_DESC description{};
    description.Type = D3D12_COMMAND_LIST_TYPE_COPY;
    check(device_->CreateCommandQueue(&description, IID_ID3D12CommandQueue, queue_.put()), "CreateCommandQueue");
    check(device_->CreateFence(0, D3D12_FENCE_FLAG_NONE, IID_ID3D12Fence, fence_.put()), "CreateFence");
    for (Recording& recording : ring_) {
      check(device_->CreateCommandAllocator(description.Type, IID_ID3D12CommandAllocator, recording.allocator.put()),
            "CreateCommandAllocator");
      check(device_->CreateCommandList(0, description.Type, recording.allocator.get(), nullptr, IID_ID3D12GraphicsCommandList,
                                       recording.list.put()),
            "CreateCommandList");
      check(recording.list->Close(), "Close");
    }
  }
  ~CopyLane() override { drain(); }

  std::uint64_t copy(Buffer& to, std::uint64_t at, Buffer& from, std::uint64_t fromAt, std::uint64_t bytes) override {
    Recording& recording = ring_[(last_ + 1) % ring_.size()];
    wait(recording.ticket); // what it recorded last has ended before it is recorded anew
    check(recording.allocator->Reset(), "Reset");
    check(recording.list->Reset(recording.allocator.get(), nullptr), "Reset");
    recording.list->CopyBufferRegion(static_cast<ResourceBuffer&>(to).resource.get(), at,
                                     static_cast<ResourceBuffer&>(from).resource.get(), fromAt, bytes);
    check(recording.list->Close(), "Close");
    ID3D12CommandList* lists[] = {recording.list.get()};
    queue_->ExecuteCommandLists(1, lists);
    check(queue_->Signal(fence_.get(), last_ + 1), "Signal");
    recording.ticket = ++last_;
    return last_;
  }

  void wait(std::uint64_t ticket) override {
    while (fence_->GetCompletedValue() < ticket) {
      check(fence_->SetEventOnCompletion(ticket, signal_.handle()), "SetEventOnCompletion");
      // Over vkd3d 1.2 a copy was seen to wait for ever while every thread was idle. A thread of it that comes late and
      // sets the fence back would do that; so the last value is signalled once more, behind all that was submitted.
      if (!signal_.wait()) check(queue_->Signal(fence_.get(), last_), "Signal");
    }
    // A removed device sets every fence to its highest value.
    if (fence_->GetCompletedValue() == UINT64_MAX) {
      check(device_->GetDeviceRemovedReason(), "the device was removed");
      throw Error("DR_DEVICE_REMOVED", "the device was removed");
    }
  }

  void drain() noexcept override {
    try {
      if (fence_) wait(last_);
    } catch (const Error&) { // nothing runs on a device that is gone
    }
  }

private:
  struct Recording {
    Com<ID3D12CommandAllocator> allocator;
    Com<ID3D12GraphicsCommandList> list;
    std::uint64_t ticket = 0;
  };

  Com<ID3D12Device> device_;
  Com<ID3D12CommandQueue> queue_;
  Com<ID3D12Fence> fence_;
  std::array<Recording, 8> ring_;
  Signal signal_;
  std::uint64_t last_ = 0;
};

class D3d12Device final : public Device {
public:
  explicit D3d12Device(Adapter adapter) : adapter_(std::move(adapter)) {
    adapter_.info.backend = "d3d12";
    adapter_.info.capabilities.featureLevel = featureLevel(*adapter_.device.get());
    D3D12_FEATURE_DATA_ARCHITECTURE architecture{};
    if (SUCCEEDED(adapter_.device->CheckFeatureSupport(D3D12_FEATURE_ARCHITECTURE, &architecture, sizeof architecture)))
      adapter_.info.capabilities.unified = architecture.UMA != 0;
  }
  const DeviceInfo& info() const override { return adapter_.info; }
  Figures figures() override { return adapter_.figures(); }
  Vitals vitals() override {
    Vitals vitals;
    vitals.source = "none";
    return vitals;
  }
  std::unique_ptr<Buffer> commit(std::uint64_t bytes, Kind kind) override {
    return std::make_unique<CommittedBuffer>(*adapter_.device.get(), bytes, kind);
  }
  std::unique_ptr<Lane> lane() override { return std::make_unique<CopyLane>(adapter_.device); }
  std::uint64_t granule() override { return D3D12_DEFAULT_RESOURCE_PLACEMENT_ALIGNMENT; }
  std::shared_ptr<Arena> arena(std::uint64_t bytes) override { return std::make_shared<HeapArena>(*adapter_.device.get(), bytes); }
  std::unique_ptr<Buffer> place(const std::shared_ptr<Arena>& arena, std::uint64_t offset, std::uint64_t bytes) override {
    return std::make_unique<PlacedBuffer>(*adapter_.device.get(), std::static_pointer_cast<HeapArena>(arena), offset, bytes);
  }

private:
  Adapter adapter_;
};

} // namespace

std::string featureLevel(ID3D12Device& device) {
  const D3D_FEATURE_LEVEL wanted[] = {D3D_FEATURE_LEVEL_11_0, D3D_FEATURE_LEVEL_11_1, D3D_FEATURE_LEVEL_12_0, D3D_FEATURE_LEVEL_12_1};
  D3D12_FEATURE_DATA_FEATURE_LEVELS levels{};
  levels.NumFeatureLevels = 4;
  levels.pFeatureLevelsRequested = wanted;
  if (FAILED(device.CheckFeatureSupport(D3D12_FEATURE_FEATURE_LEVELS, &levels, sizeof levels))) return "11_0";
  const auto highest = static_cast<unsigned>(levels.MaxSupportedFeatureLevel); // 0xc100 is 12_1
  return std::to_string(highest >> 12) + "_" + std::to_string(highest >> 8 & 15);
}

} // namespace d3d12

Devices openD3d12() {
  Devices devices;
  for (d3d12::Adapter& adapter : d3d12::adapters()) devices.push_back(std::make_unique<d3d12::D3d12Device>(std::move(adapter)));
  if (devices.empty()) throw Error("DR_UNAVAILABLE", "there is no Direct3D 12 device here");
  return devices;
}

} // namespace darkroom
