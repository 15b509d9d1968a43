/** Libraries that are opened at run time, so that one build serves machines with and without them. They stay open until the process ends. */
#pragma once
#include <string>

namespace darkroom {

/** Null when it is not here. */
void* openLibrary(const char* name);
/** Null when the library has no such function. */
void* findSymbol(void* library, const char* name);

template <typename Function> Function find(void* library, const char* name) {
  return reinterpret_cast<Function>(findSymbol(library, name));
}

} // namespace darkroom
