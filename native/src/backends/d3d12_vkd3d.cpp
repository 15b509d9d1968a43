/** Direct3D 12 on Linux: vkd3d over any Vulkan driver. */
#include "d3d12_platform.hpp"
#include "library.hpp"
#include <cstdlib>
#include <cstring>

namespace darkroom::d3d12 {
namespace {

HRESULT setSignal(HANDLE handle) {
  static_cast<Signal*>(handle)->set();
  return S_OK;
}

/** The Vulkan functions of one instance. */
struct Vulkan {
  PFN_vkEnumeratePhysicalDevices enumerate;
  PFN_vkGetPhysicalDeviceProperties properties;
  PFN_vkGetPhysicalDeviceProperties2 properties2;
  PFN_vkGetPhysicalDeviceMemoryProperties2 memory;
  PFN_vkEnumerateDeviceExtensionProperties extensions;
};

struct Instance {
  PFN_vkd3d_create_device createDevice = nullptr;
  PFN_vkd3d_instance_decref release = nullptr;
  vkd3d_instance* instance = nullptr;
  Vulkan vulkan{};
  VkInstance handle = nullptr;

  Instance() {
    setenv("VKD3D_DEBUG", "none", 0); // it writes to stderr what it lacks
    void* vkd3d = openLibrary("libvkd3d.so.1");
    void* loader = openLibrary("libvulkan.so.1");
    if (!vkd3d || !loader) throw Error("DR_UNAVAILABLE", std::string("there is no ") + (vkd3d ? "libvulkan.so.1" : "libvkd3d.so.1") + " here");
    const auto create = find<PFN_vkd3d_create_instance>(vkd3d, "vkd3d_create_instance");
    const auto ask = find<PFN_vkGetInstanceProcAddr>(loader, "vkGetInstanceProcAddr");
    const auto beneath = find<PFN_vkd3d_instance_get_vk_instance>(vkd3d, "vkd3d_instance_get_vk_instance");
    createDevice = find<PFN_vkd3d_create_device>(vkd3d, "vkd3d_create_device");
    release = find<PFN_vkd3d_instance_decref>(vkd3d, "vkd3d_instance_decref");
    if (!create || !ask || !beneath || !createDevice || !release) throw Error("DR_UNAVAILABLE", "libvkd3d.so.1 is too old");

    vkd3d_application_info application{};
    application.type = VKD3D_STRUCTURE_TYPE_APPLICATION_INFO;
    application.application_name = "darkroom";
    application.api_version = VKD3D_API_VERSION_1_2;
    vkd3d_instance_create_info wanted{};
    wanted.type = VKD3D_STRUCTURE_TYPE_INSTANCE_CREATE_INFO;
    wanted.next = &application;
    wanted.pfn_signal_event = setSignal;
    wanted.wchar_size = sizeof(wchar_t);
    wanted.pfn_vkGetInstanceProcAddr = ask;
    const HRESULT result = create(&wanted, &instance);
    if (FAILED(result)) throw Error("DR_UNAVAILABLE", "vkd3d finds no Vulkan driver that it can use", result);
    handle = beneath(instance);
    vulkan.enumerate = reinterpret_cast<PFN_vkEnumeratePhysicalDevices>(ask(handle, "vkEnumeratePhysicalDevices"));
    vulkan.properties = reinterpret_cast<PFN_vkGetPhysicalDeviceProperties>(ask(handle, "vkGetPhysicalDeviceProperties"));
    vulkan.properties2 = reinterpret_cast<PFN_vkGetPhysicalDeviceProperties2>(ask(handle, "vkGetPhysicalDeviceProperties2KHR"));
    vulkan.memory = reinterpret_cast<PFN_vkGetPhysicalDeviceMemoryProperties2>(ask(handle, "vkGetPhysicalDeviceMemoryProperties2KHR"));
    vulkan.extensions = reinterpret_cast<PFN_vkEnumerateDeviceExtensionProperties>(ask(handle, "vkEnumerateDeviceExtensionProperties"));
  }
  ~Instance() {
    if (instance) release(instance);
  }
  Instance(const Instance&) = delete;
  Instance& operator=(const Instance&) = delete;
};

bool hasBudget(const Vulkan& vulkan, VkPhysicalDevice device) {
  std::uint32_t count = 0;
  if (vulkan.extensions(device, nullptr, &count, nullptr) != VK_SUCCESS) return false;
  std::vector<VkExtensionProperties> extensions(count);
  if (vulkan.extensions(device, nullptr, &count, extensions.data()) != VK_SUCCESS) return false;
  for (const auto& extension : extensions)
    if (std::strcmp(extension.extensionName, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME) == 0) return true;
  return false;
}

/** Of all device-local heaps. `heapUsage` is what this process uses, so it says nothing about the others. */
Figures query(const Vulkan& vulkan, VkPhysicalDevice device, bool isBudgetKnown) {
  VkPhysicalDeviceMemoryBudgetPropertiesEXT budget{};
  budget.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT;
  VkPhysicalDeviceMemoryProperties2 properties{};
  properties.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2;
  if (isBudgetKnown) properties.pNext = &budget;
  vulkan.memory(device, &properties);
  Figures figures;
  figures.source = isBudgetKnown ? "vulkan, VK_EXT_memory_budget" : "vulkan";
  figures.usedIsOwn = isBudgetKnown;
  const auto add = [](std::optional<std::uint64_t>& sum, std::uint64_t value) { sum = sum.value_or(0) + value; };
  const VkPhysicalDeviceMemoryProperties& memory = properties.memoryProperties;
  for (std::uint32_t heap = 0; heap < memory.memoryHeapCount; heap++) {
    if (!(memory.memoryHeaps[heap].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT)) continue;
    add(figures.total, memory.memoryHeaps[heap].size);
    if (!isBudgetKnown) continue;
    add(figures.budget, budget.heapBudget[heap]);
    add(figures.used, budget.heapUsage[heap]);
  }
  return figures;
}

std::string hex(const std::uint8_t* bytes, int count, bool isUuid) {
  std::string text;
  for (int i = 0; i < count; i++) {
    char digits[4];
    std::snprintf(digits, sizeof digits, "%s%02x", isUuid && (i == 4 || i == 6 || i == 8 || i == 10) ? "-" : "", bytes[i]);
    text += digits;
  }
  return text;
}

void identify(DeviceInfo& info, const Vulkan& vulkan, VkPhysicalDevice device, std::size_t index) {
  VkPhysicalDeviceProperties plain{};
  vulkan.properties(device, &plain);
  info.name = plain.deviceName;
  info.software = plain.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU;
  info.key = "vulkan-" + std::to_string(index);
  if (!vulkan.properties2) return;
  VkPhysicalDeviceIDProperties ids{};
  ids.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ID_PROPERTIES;
  VkPhysicalDeviceProperties2 properties{};
  properties.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2;
  properties.pNext = &ids;
  vulkan.properties2(device, &properties);
  info.uuid = hex(ids.deviceUUID, VK_UUID_SIZE, true);
  info.key = "GPU-" + *info.uuid;
  if (ids.deviceLUIDValid) info.luid = hex(ids.deviceLUID, VK_LUID_SIZE, false);
}

} // namespace

std::vector<Adapter> adapters() {
  const auto instance = std::make_shared<Instance>();
  const Vulkan& vulkan = instance->vulkan;
  std::uint32_t count = 0;
  if (vulkan.enumerate(instance->handle, &count, nullptr) != VK_SUCCESS) count = 0;
  std::vector<VkPhysicalDevice> physical(count);
  if (count > 0 && vulkan.enumerate(instance->handle, &count, physical.data()) < VK_SUCCESS) count = 0;
  std::vector<Adapter> found;
  for (std::uint32_t index = 0; index < count; index++) {
    Adapter adapter;
    adapter.keeps = instance;
    identify(adapter.info, vulkan, physical[index], index);
    vkd3d_device_create_info wanted{};
    wanted.type = VKD3D_STRUCTURE_TYPE_DEVICE_CREATE_INFO;
    wanted.minimum_feature_level = D3D_FEATURE_LEVEL_11_0;
    wanted.instance = instance->instance;
    wanted.vk_physical_device = physical[index];
    wanted.adapter_luid.LowPart = index + 1;
    if (FAILED(instance->createDevice(&wanted, IID_ID3D12Device, adapter.device.put()))) continue;
    const bool isBudgetKnown = hasBudget(vulkan, physical[index]);
    adapter.figures = [instance, device = physical[index], isBudgetKnown] { return query(instance->vulkan, device, isBudgetKnown); };
    found.push_back(std::move(adapter));
  }
  return found;
}

} // namespace darkroom::d3d12
