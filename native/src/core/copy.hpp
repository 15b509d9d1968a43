/**
 * The copy engine: bytes move in chunks of 16 MiB, a few in flight, so that a copy can tell how far it is and stop at the next chunk.
 * Host memory goes through two pinned chunks in turn: while one is on the wire, the host fills or empties the other.
 *
 * Every function returns only when the device no longer touches what it was given, whether it went well, failed or was cancelled.
 * After a failure or a cancel the target holds some of the new bytes and some of the old.
 */
#pragma once
#include "device.hpp"
#include <atomic>
#include <chrono>
#include <functional>

namespace darkroom {

#ifndef DARKROOM_CHUNK_BYTES
#define DARKROOM_CHUNK_BYTES (16ull << 20)
#endif
constexpr std::uint64_t chunkBytes = DARKROOM_CHUNK_BYTES;

/** How a caller watches a job and stops it. */
struct Control {
  std::atomic<bool> cancelled{false};
  /** Called on the copying thread, at most 30 times a second and once at the end; bytes that have arrived, of how many. */
  std::function<void(std::uint64_t done, std::uint64_t total)> progress;

  /** @throws Error `DR_CANCELLED` */
  void check() const;
};

/** A lane and the pinned chunks it needs for copies from and to host memory, made when first used. Not thread-safe. */
class Copier {
public:
  explicit Copier(Device& device) : device_(device), lane_(device.lane()) {}

  void write(Buffer& to, std::uint64_t at, const void* data, std::uint64_t bytes, Control& control);
  void read(Buffer& from, std::uint64_t at, void* data, std::uint64_t bytes, Control& control);
  /** Between two buffers of this device; the ranges do not overlap. */
  void copy(Buffer& to, std::uint64_t at, Buffer& from, std::uint64_t fromAt, std::uint64_t bytes, Control& control);
  /** To a buffer of another device, through the host; both devices work at the same time. */
  void transfer(Copier& target, Buffer& to, std::uint64_t at, Buffer& from, std::uint64_t fromAt, std::uint64_t bytes, Control& control);
  /** Fills a whole buffer with zeros. */
  void clear(Buffer& to);
  /** CRC-32 of a range, by reading it back. */
  std::uint32_t checksum(Buffer& from, std::uint64_t at, std::uint64_t bytes, Control& control);

  Lane& lane() { return *lane_; }
  /** Lets the pinned chunks go. */
  void trim();

private:
  class Meter;
  class Writer;
  using Sink = std::function<void(const char* data, std::uint64_t bytes)>;
  void stream(Buffer& from, std::uint64_t at, std::uint64_t bytes, Meter& meter, const Sink& sink);
  Buffer& staging(Kind kind, unsigned slot);

  Device& device_;
  std::unique_ptr<Lane> lane_;
  std::unique_ptr<Buffer> upload_[2];
  std::unique_ptr<Buffer> readback_[2];
  std::unique_ptr<Buffer> zeros_;
};

/** CRC-32 (IEEE 802.3, as zlib and PNG have it), eight bytes at a time: M. Kounavis and F. Berry, "A Systematic Approach to Building High
 * Performance Software-based CRC Generators", 2005. Finds damaged copies; no defence against somebody who wants to deceive. */
std::uint32_t crc32(std::uint32_t seed, const void* data, std::uint64_t bytes);

} // namespace darkroom
