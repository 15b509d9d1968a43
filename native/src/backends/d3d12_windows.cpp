/** Direct3D 12 on Windows: adapters and memory budgets from DXGI. */
#include "d3d12_platform.hpp"
#include "library.hpp"

namespace darkroom::d3d12 {
namespace {

constexpr UINT softwareAdapter = 2; // DXGI_ADAPTER_FLAG_SOFTWARE

std::string utf8(const wchar_t* text) {
  char converted[512] = "";
  WideCharToMultiByte(CP_UTF8, 0, text, -1, converted, sizeof converted, nullptr, nullptr);
  return converted;
}

/** Budget and usage are this process's own, as DXGI counts. */
Figures query(IDXGIAdapter3* adapter, std::uint64_t dedicated) {
  Figures figures;
  figures.source = "dxgi";
  figures.usedIsOwn = true;
  if (dedicated > 0) figures.total = dedicated;
  DXGI_QUERY_VIDEO_MEMORY_INFO memory{};
  if (adapter && SUCCEEDED(adapter->QueryVideoMemoryInfo(0, DXGI_MEMORY_SEGMENT_GROUP_LOCAL, &memory))) {
    figures.budget = memory.Budget;
    figures.used = memory.CurrentUsage;
  }
  return figures;
}

/** Kept for the life of the process: releasing the last one has crashed a DXGI implementation after everything else was over. */
IDXGIFactory4* factory() {
  static IDXGIFactory4* kept = [] {
    void* dxgi = openLibrary("dxgi.dll");
    if (!dxgi) throw Error("DR_UNAVAILABLE", "there is no dxgi.dll here");
    const auto create = find<HRESULT(WINAPI*)(UINT, REFIID, void**)>(dxgi, "CreateDXGIFactory2");
    if (!create) throw Error("DR_UNAVAILABLE", "dxgi.dll is too old");
    IDXGIFactory4* made = nullptr;
    const HRESULT result = create(0, IID_IDXGIFactory4, reinterpret_cast<void**>(&made));
    if (FAILED(result)) throw Error("DR_UNAVAILABLE", "DXGI does not start", result);
    return made;
  }();
  return kept;
}

} // namespace

std::vector<Adapter> adapters() {
  void* library = openLibrary("d3d12.dll");
  if (!library) throw Error("DR_UNAVAILABLE", "there is no d3d12.dll here");
  const auto create = find<HRESULT(WINAPI*)(IUnknown*, D3D_FEATURE_LEVEL, REFIID, void**)>(library, "D3D12CreateDevice");
  if (!create) throw Error("DR_UNAVAILABLE", "d3d12.dll has no D3D12CreateDevice");
  std::vector<Adapter> found;
  for (UINT index = 0;; index++) {
    Com<IDXGIAdapter1> shown;
    if (factory()->EnumAdapters1(index, reinterpret_cast<IDXGIAdapter1**>(shown.put())) != S_OK) break;
    Adapter adapter;
    if (FAILED(create(reinterpret_cast<IUnknown*>(shown.get()), D3D_FEATURE_LEVEL_11_0, IID_ID3D12Device, adapter.device.put()))) continue;
    DXGI_ADAPTER_DESC1 description{};
    shown->GetDesc1(&description);
    char luid[32];
    std::snprintf(luid, sizeof luid, "%08lx%08lx", static_cast<unsigned long>(description.AdapterLuid.HighPart),
                  static_cast<unsigned long>(description.AdapterLuid.LowPart));
    adapter.info.name = utf8(description.Description);
    adapter.info.luid = luid;
    adapter.info.key = std::string("luid-") + luid;
    adapter.info.software = (description.Flags & softwareAdapter) != 0;
    Com<IDXGIAdapter3> asked;
    shown->QueryInterface(IID_IDXGIAdapter3, asked.put());
    adapter.figures = [asked, dedicated = static_cast<std::uint64_t>(description.DedicatedVideoMemory)] { return query(asked.get(), dedicated); };
    found.push_back(std::move(adapter));
  }
  return found;
}

} // namespace darkroom::d3d12
