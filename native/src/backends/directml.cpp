#include "directml.hpp"
#ifdef _WIN32
#include "d3d12_platform.hpp"
#include "library.hpp"

namespace darkroom {

// {6dbd6437-96fd-423f-a98c-ae5e7c2a573f}: IDMLDevice, declared by hand because no header of it is everywhere.
static const GUID dmlDevice = {0x6dbd6437, 0x96fd, 0x423f, {0xa9, 0x8c, 0xae, 0x5e, 0x7c, 0x2a, 0x57, 0x3f}};

DirectMl probeDirectMl() {
  void* library = openLibrary("DirectML.dll");
  if (!library) return {false, "there is no DirectML.dll here"};
  const auto create = find<HRESULT(WINAPI*)(IUnknown*, UINT, REFIID, void**)>(library, "DMLCreateDevice");
  if (!create) return {false, "DirectML.dll has no DMLCreateDevice"};
  char path[MAX_PATH] = "";
  GetModuleFileNameA(static_cast<HMODULE>(library), path, sizeof path);
  try {
    for (const d3d12::Adapter& adapter : d3d12::adapters()) {
      d3d12::Com<IUnknown> device;
      const HRESULT result = create(reinterpret_cast<IUnknown*>(adapter.device.get()), 0, dmlDevice, device.put());
      if (SUCCEEDED(result)) return {true, path};
    }
  } catch (const Error& error) {
    return {false, error.what()};
  }
  return {false, std::string(path) + " is here, and no device of this machine serves it"};
}

} // namespace darkroom
#else
namespace darkroom {

DirectMl probeDirectMl() { return {false, "DirectML is a part of Windows"}; }

} // namespace darkroom
#endif
