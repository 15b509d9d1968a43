#include "copy.hpp"
#include "error.hpp"
#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

namespace darkroom {

namespace {

constexpr std::chrono::milliseconds progressEvery{34};

/** How many chunks are under way between two buffers of one device. */
constexpr unsigned depth = 4;

/** Whatever happens, nothing of the lane runs on after this scope. */
struct Drained {
  Lane& lane;
  ~Drained() { lane.drain(); }
};

} // namespace

void Control::check() const {
  if (cancelled) throw Error("DR_CANCELLED", "the copy was cancelled");
}

/** Counts bytes that have arrived. */
class Copier::Meter {
public:
  Meter(Control& control, std::uint64_t total) : control_(control), total_(total) {}

  void arrived(std::uint64_t bytes) {
    done_ += bytes;
    if (!control_.progress) return;
    const auto now = std::chrono::steady_clock::now();
    if (done_ < total_ && now - told_ < progressEvery) return;
    told_ = now;
    control_.progress(done_, total_);
  }
  void check() const { control_.check(); }

private:
  Control& control_;
  std::uint64_t total_;
  std::uint64_t done_ = 0;
  std::chrono::steady_clock::time_point told_ = std::chrono::steady_clock::now();
};

/** Puts host bytes into a buffer, one piece after another, each at most a chunk. */
class Copier::Writer {
public:
  Writer(Copier& copier, Buffer& to, std::uint64_t at, Meter& meter) : copier_(copier), to_(to), at_(at), meter_(meter) {}

  void push(const char* data, std::uint64_t bytes) {
    if (to_.mapped) {
      std::memcpy(to_.mapped + at_, data, bytes);
      meter_.arrived(bytes);
    } else {
      settle(slot_);
      Buffer& staging = copier_.staging(Kind::Upload, slot_);
      std::memcpy(staging.mapped, data, bytes);
      inFlight_[slot_] = {copier_.lane_->copy(to_, at_, staging, 0, bytes), bytes};
      slot_ ^= 1;
    }
    at_ += bytes;
  }

  void end() {
    settle(slot_);
    settle(slot_ ^ 1);
  }

private:
  void settle(unsigned slot) {
    auto& [ticket, bytes] = inFlight_[slot];
    if (bytes == 0) return;
    copier_.lane_->wait(ticket);
    meter_.arrived(std::exchange(bytes, 0));
  }

  Copier& copier_;
  Buffer& to_;
  std::uint64_t at_;
  Meter& meter_;
  unsigned slot_ = 0;
  std::pair<std::uint64_t, std::uint64_t> inFlight_[2] = {}; // (ticket, bytes); 0 bytes: none
};

void Copier::write(Buffer& to, std::uint64_t at, const void* data, std::uint64_t bytes, Control& control) {
  const Drained drained{*lane_};
  Meter meter(control, bytes);
  Writer writer(*this, to, at, meter);
  for (std::uint64_t done = 0; done < bytes; done += chunkBytes) {
    control.check();
    writer.push(static_cast<const char*>(data) + done, std::min(chunkBytes, bytes - done));
  }
  writer.end();
}

void Copier::stream(Buffer& from, std::uint64_t at, std::uint64_t bytes, Meter& meter, const Sink& sink) {
  if (from.mapped) {
    for (std::uint64_t done = 0; done < bytes; done += chunkBytes) {
      meter.check();
      sink(from.mapped + at + done, std::min(chunkBytes, bytes - done));
    }
    return;
  }
  const auto start = [&](std::uint64_t done, unsigned slot) {
    return lane_->copy(staging(Kind::Readback, slot), 0, from, at + done, std::min(chunkBytes, bytes - done));
  };
  std::uint64_t ticket = start(0, 0);
  unsigned slot = 0;
  for (std::uint64_t done = 0; done < bytes; done += chunkBytes, slot ^= 1) {
    meter.check();
    const std::uint64_t current = ticket;
    if (done + chunkBytes < bytes) ticket = start(done + chunkBytes, slot ^ 1);
    lane_->wait(current);
    sink(readback_[slot]->mapped, std::min(chunkBytes, bytes - done));
  }
}

void Copier::read(Buffer& from, std::uint64_t at, void* data, std::uint64_t bytes, Control& control) {
  const Drained drained{*lane_};
  Meter meter(control, bytes);
  char* to = static_cast<char*>(data);
  stream(from, at, bytes, meter, [&](const char* piece, std::uint64_t size) {
    std::memcpy(to, piece, size);
    to += size;
    meter.arrived(size);
  });
}

void Copier::copy(Buffer& to, std::uint64_t at, Buffer& from, std::uint64_t fromAt, std::uint64_t bytes, Control& control) {
  // D3D12 keeps upload memory readable and readback memory writable for the device, and nothing else; the host does those.
  if (from.mapped && (to.mapped || from.kind == Kind::Readback)) return write(to, at, from.mapped + fromAt, bytes, control);
  if (to.mapped && to.kind == Kind::Upload) return read(from, fromAt, to.mapped + at, bytes, control);
  const Drained drained{*lane_};
  Meter meter(control, bytes);
  std::array<std::pair<std::uint64_t, std::uint64_t>, depth> inFlight{}; // (ticket, bytes)
  const auto settle = [&](std::pair<std::uint64_t, std::uint64_t>& entry) {
    if (entry.second == 0) return;
    lane_->wait(entry.first);
    meter.arrived(std::exchange(entry.second, 0));
  };
  unsigned slot = 0;
  for (std::uint64_t done = 0; done < bytes; done += chunkBytes, slot = (slot + 1) % depth) {
    control.check();
    settle(inFlight[slot]);
    const std::uint64_t size = std::min(chunkBytes, bytes - done);
    inFlight[slot] = {lane_->copy(to, at + done, from, fromAt + done, size), size};
  }
  for (unsigned left = 0; left < depth; left++) settle(inFlight[(slot + left) % depth]);
}

void Copier::transfer(Copier& target, Buffer& to, std::uint64_t at, Buffer& from, std::uint64_t fromAt, std::uint64_t bytes,
                      Control& control) {
  const Drained source{*lane_};
  const Drained sink{*target.lane_};
  Meter meter(control, bytes);
  Writer writer(target, to, at, meter);
  stream(from, fromAt, bytes, meter, [&](const char* piece, std::uint64_t size) { writer.push(piece, size); });
  writer.end();
}

void Copier::clear(Buffer& to) {
  if (to.mapped) {
    std::memset(to.mapped, 0, to.bytes);
    return;
  }
  const Drained drained{*lane_};
  std::uint64_t ticket = lane_->clear(to);
  if (ticket == 0) {
    if (!zeros_) {
      zeros_ = device_.commit(chunkBytes, Kind::Upload);
      std::memset(zeros_->mapped, 0, chunkBytes);
    }
    for (std::uint64_t done = 0; done < to.bytes; done += chunkBytes)
      ticket = lane_->copy(to, done, *zeros_, 0, std::min(chunkBytes, to.bytes - done));
  }
  lane_->wait(ticket);
}

std::uint32_t Copier::checksum(Buffer& from, std::uint64_t at, std::uint64_t bytes, Control& control) {
  const Drained drained{*lane_};
  Meter meter(control, bytes);
  std::uint32_t sum = 0;
  stream(from, at, bytes, meter, [&](const char* piece, std::uint64_t size) {
    sum = crc32(sum, piece, size);
    meter.arrived(size);
  });
  return sum;
}

Buffer& Copier::staging(Kind kind, unsigned slot) {
  std::unique_ptr<Buffer>& buffer = (kind == Kind::Upload ? upload_ : readback_)[slot];
  if (!buffer) buffer = device_.commit(chunkBytes, kind);
  return *buffer;
}

void Copier::trim() {
  lane_->drain();
  zeros_.reset();
  for (unsigned slot = 0; slot < 2; slot++) {
    upload_[slot].reset();
    readback_[slot].reset();
  }
}

namespace {

using Tables = std::array<std::array<std::uint32_t, 256>, 8>;

Tables makeTables() {
  Tables tables{};
  for (std::uint32_t byte = 0; byte < 256; byte++) {
    std::uint32_t value = byte;
    for (int bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320u ^ (value >> 1) : value >> 1;
    tables[0][byte] = value;
  }
  for (std::uint32_t byte = 0; byte < 256; byte++)
    for (std::size_t table = 1; table < 8; table++)
      tables[table][byte] = tables[0][tables[table - 1][byte] & 0xff] ^ (tables[table - 1][byte] >> 8);
  return tables;
}

} // namespace

std::uint32_t crc32(std::uint32_t seed, const void* data, std::uint64_t bytes) {
  static const Tables t = makeTables();
  const auto* p = static_cast<const unsigned char*>(data);
  std::uint32_t sum = ~seed;
  for (; bytes >= 8; bytes -= 8, p += 8) {
    const std::uint32_t low = sum ^ (p[0] | p[1] << 8 | p[2] << 16 | static_cast<std::uint32_t>(p[3]) << 24);
    sum = t[7][low & 0xff] ^ t[6][low >> 8 & 0xff] ^ t[5][low >> 16 & 0xff] ^ t[4][low >> 24] ^ t[3][p[4]] ^ t[2][p[5]] ^ t[1][p[6]] ^
          t[0][p[7]];
  }
  for (; bytes > 0; bytes--, p++) sum = t[0][(sum ^ *p) & 0xff] ^ (sum >> 8);
  return ~sum;
}

} // namespace darkroom
