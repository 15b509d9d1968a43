/** DirectML is for computing; memory needs none of it. Whether it is here is worth knowing, so it is probed and reported. */
#pragma once
#include <string>

namespace darkroom {

struct DirectMl {
  bool isHere = false;
  std::string detail; // where it lies, or why there is none
};

DirectMl probeDirectMl();

} // namespace darkroom
