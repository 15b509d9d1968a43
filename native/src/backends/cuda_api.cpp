#include "cuda_api.hpp"
#include "../core/error.hpp"
#include "library.hpp"
#include <memory>

namespace darkroom::cuda {

namespace {

std::unique_ptr<Api> load() {
#ifdef _WIN32
  void* library = openLibrary("nvcuda.dll");
#else
  void* library = openLibrary("libcuda.so.1");
#endif
  if (!library) return nullptr;
  auto api = std::make_unique<Api>();
#define X(name, parameters)                                                                                                                \
  api->name = find<Result(*) parameters>(library, #name);                                                                                  \
  if (!api->name) throw Error("DR_UNAVAILABLE", "the CUDA driver is too old: it has no " #name);
  DARKROOM_CUDA_FUNCTIONS(X)
#undef X
  if (const Result result = api->cuInit(0)) {
    const char* name = nullptr;
    api->cuGetErrorName(result, &name);
    throw Error("DR_UNAVAILABLE", std::string("the CUDA driver does not start: ") + (name ? name : std::to_string(result)), result);
  }
  return api;
}

} // namespace

const Api* api() {
  // Never destroyed: process.exit() runs destructors while threads may still be copying.
  static const Api* const loaded = load().release();
  return loaded;
}

} // namespace darkroom::cuda

namespace darkroom::nvml {

namespace {

std::unique_ptr<Api> load() {
#ifdef _WIN32
  void* library = openLibrary("nvml.dll");
#else
  void* library = openLibrary("libnvidia-ml.so.1");
#endif
  if (!library) return nullptr;
  auto api = std::make_unique<Api>();
#define X(name, parameters)                                                                                                                \
  api->name = find<Result(*) parameters>(library, #name);                                                                                  \
  if (!api->name) return nullptr;
  DARKROOM_NVML_FUNCTIONS(X)
#undef X
  return api->nvmlInit_v2() == 0 ? std::move(api) : nullptr;
}

} // namespace

const Api* api() {
  // Never destroyed: process.exit() runs destructors while threads may still be copying.
  static const Api* const loaded = load().release();
  return loaded;
}

} // namespace darkroom::nvml
