#include "../core/device.hpp"
#include "../core/error.hpp"

namespace darkroom {

std::vector<std::string> backends() {
  return {
#ifndef __APPLE__
      "cuda",
#endif
#ifdef DARKROOM_D3D12
      "d3d12",
#endif
      "host",
  };
}

Devices openBackend(const std::string& name) {
  if (name == "host") return openHost();
#ifndef __APPLE__
  if (name == "cuda") return openCuda();
#endif
#ifdef DARKROOM_D3D12
  if (name == "d3d12") return openD3d12();
#endif
  throw Error("DR_UNAVAILABLE", "the backend " + name + " is not in this build");
}

} // namespace darkroom
