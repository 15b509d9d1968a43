/** One error for the whole addon. It travels to JavaScript as an `Error` with `code` and `native`. */
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>

namespace darkroom {

/**
 * | code | means |
 * | --- | --- |
 * | `DR_INVALID` | an argument that no state of the device could make right |
 * | `DR_RANGE` | a range that leaves its allocation, or overlaps the other one |
 * | `DR_BAD_HANDLE` | no such allocation: never made, released, or expired |
 * | `DR_OUT_OF_MEMORY` | beyond the capacity, the soft limit, or what the driver gives |
 * | `DR_CANCELLED` | somebody asked for it |
 * | `DR_CORRUPT` | a verified copy whose two checksums differ |
 * | `DR_CLOSED` | the memory is closed or closing |
 * | `DR_DEVICE_REMOVED` | the device is gone; everything on it is lost, and no call on it succeeds again |
 * | `DR_UNAVAILABLE` | this backend has no driver or no device here |
 * | `DR_DRIVER` | any other refusal of the driver |
 */
struct Error : std::runtime_error {
  std::string code;
  /** The driver's own number (HRESULT, VkResult, CUresult), or 0. */
  std::int64_t native;

  Error(std::string code, const std::string& message, std::int64_t native = 0)
      : std::runtime_error(message), code(std::move(code)), native(native) {}
};

} // namespace darkroom
