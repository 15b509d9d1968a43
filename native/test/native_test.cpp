/**
 * The suite of one backend, without Node: native_test BACKEND [OPERATIONS=10000] [SEED=1] [ONLY]
 *
 * ONLY is a part of the names of the tests to run.
 *
 * Prints `ok NAME` or `not ok NAME: why` for every test and a count. Exit codes: 0 all passed, 1 something failed, 77 not run because the
 * backend is not here (the last line says why). A device beside the first is another device of the backend, else the same one opened again.
 * Against the stand-in driver of fake_cuda.cpp it also tests what only that one can be told to do.
 */
#include "backends/library.hpp"
#include "core/error.hpp"
#include "core/memory.hpp"
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <future>
#include <iostream>
#include <random>
#include <set>
#include <sstream>
#include <thread>

using namespace darkroom;
using namespace std::chrono_literals;

namespace {

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

#define CHECK(condition)                                                                                                                   \
  if (!(condition)) throw Failure(std::string(#condition) + " is not so, line " + std::to_string(__LINE__))

/** The code of the error that a call ends with; empty when it succeeds. */
template <typename Call> std::string codeOf(Call call) {
  try {
    call();
    return "";
  } catch (const Error& error) {
    return error.what()[0] ? error.code : "an error without a message";
  }
}
#define REFUSED(code, call)                                                                                                                \
  if (const std::string got = codeOf([&] { call; }); got != (code))                                                                        \
  throw Failure(std::string(#call) + " gave '" + got + "' instead of " + (code) + ", line " + std::to_string(__LINE__))

using Bytes = std::vector<unsigned char>;

Bytes pattern(std::uint64_t size, std::uint32_t salt) {
  Bytes bytes(size);
  std::uint32_t state = salt * 2654435761u + 1;
  for (auto& byte : bytes) {
    state = state * 1664525u + 1013904223u;
    byte = static_cast<unsigned char>(state >> 24);
  }
  return bytes;
}

/** The levers of the stand-in driver, where it is the driver. */
struct Fake {
  void (*fail)(const char*, int result, int after, int times) = nullptr;
  void (*corrupt)(int) = nullptr;
  void (*slow)(int) = nullptr;
  int (*held)() = nullptr;
  explicit operator bool() const { return held != nullptr; }
};

Fake findFake(const std::string& backend) {
  Fake fake;
  void* library = backend == "cuda" ? openLibrary("libcuda.so.1") : nullptr;
  if (!library) return fake;
  fake.fail = find<void (*)(const char*, int, int, int)>(library, "darkroom_fake_fail");
  fake.corrupt = find<void (*)(int)>(library, "darkroom_fake_corrupt");
  fake.slow = find<void (*)(int)>(library, "darkroom_fake_slow");
  fake.held = find<int (*)()>(library, "darkroom_fake_held");
  return fake;
}

std::string backend;
Fake fake;

Devices twoDevices() {
  Devices devices = openBackend(backend);
  if (devices.size() < 2)
    for (auto& again : openBackend(backend)) devices.push_back(std::move(again));
  devices.resize(2);
  return devices;
}

/** Memory whose scope ends in a check that nothing of it is left. */
struct Fixture {
  Memory memory{twoDevices()};
  Control control;

  Request request(std::uint64_t bytes, std::size_t device = 0, Kind kind = Kind::Device, Placement placement = Placement::Automatic) {
    Request made;
    made.device = device;
    made.bytes = bytes;
    made.kind = kind;
    made.placement = placement;
    made.owner = "test";
    return made;
  }
  std::uint64_t make(std::uint64_t bytes, std::size_t device = 0, Kind kind = Kind::Device, Placement placement = Placement::Automatic) {
    return memory.allocate(request(bytes, device, kind, placement));
  }
  std::uint64_t filled(const Bytes& bytes, std::size_t device = 0, Kind kind = Kind::Device, Placement placement = Placement::Automatic) {
    const std::uint64_t id = make(bytes.size(), device, kind, placement);
    memory.write(id, 0, bytes.data(), bytes.size(), control);
    return id;
  }
  Bytes content(std::uint64_t id) {
    Bytes bytes(memory.inspect(id).bytes);
    memory.read(id, 0, bytes.data(), bytes.size(), control);
    return bytes;
  }
  /** Nothing is held any more, by the books and, where it can be asked, by the driver. */
  void expectNothingHeld() {
    for (std::size_t device = 0; device < memory.devices(); device++) {
      memory.trim(device);
      const Usage usage = memory.usage(device);
      CHECK(usage.live == 0 && usage.tracked == 0 && usage.pinned == 0 && usage.reserved == 0 && usage.arenas == 0);
      CHECK(usage.created == usage.released);
    }
  }
};

constexpr Kind kinds[] = {Kind::Device, Kind::Upload, Kind::Readback};

void describesItsDevices() {
  Fixture t;
  std::set<std::string> keys;
  for (const auto& device : openBackend(backend)) {
    const DeviceInfo& info = device->info();
    CHECK(!info.name.empty() && !info.key.empty() && info.backend == backend);
    CHECK(keys.insert(info.key).second);
    const Figures figures = device->figures();
    CHECK(!figures.total || *figures.total > 0); // unknown is none, never 0
    CHECK(!figures.budget || *figures.budget > 0);
    CHECK(!figures.source.empty());
    const Vitals vitals = device->vitals();
    CHECK(!vitals.utilization || (*vitals.utilization >= 0 && *vitals.utilization <= 1));
    CHECK(!vitals.source.empty());
  }
  REFUSED("DR_UNAVAILABLE", openBackend("abacus"));
}

void refusesBadInput() {
  Fixture t;
  const std::uint64_t id = t.make(1000);
  const std::uint64_t other = t.make(500);
  char data[1000] = {};
  REFUSED("DR_INVALID", t.make(0));
  REFUSED("DR_INVALID", t.make(10, 99));
  REFUSED("DR_INVALID", t.make(10, 0, Kind::Upload, Placement::Placed));
  Request brief = t.request(10);
  brief.timeToLive = 0ms;
  REFUSED("DR_INVALID", t.memory.allocate(brief));
  REFUSED("DR_BAD_HANDLE", t.memory.release(12345));
  REFUSED("DR_BAD_HANDLE", t.memory.renew(12345, 1s));
  REFUSED("DR_INVALID", t.memory.renew(id, -1s));
  REFUSED("DR_BAD_HANDLE", t.memory.inspect(0));
  REFUSED("DR_BAD_HANDLE", t.memory.write(12345, 0, data, 10, t.control));
  REFUSED("DR_INVALID", t.memory.write(id, 0, data, 0, t.control));
  REFUSED("DR_RANGE", t.memory.write(id, 1, data, 1000, t.control));
  REFUSED("DR_RANGE", t.memory.write(id, 1001, data, 1, t.control));
  REFUSED("DR_RANGE", t.memory.write(id, UINT64_MAX, data, 2, t.control)); // the sum would wrap
  REFUSED("DR_RANGE", t.memory.read(id, 500, data, 501, t.control));
  REFUSED("DR_RANGE", t.memory.copy(id, 0, other, 0, 501, t.control));
  REFUSED("DR_RANGE", t.memory.copy(id, 0, id, 10, 20, t.control)); // overlap
  REFUSED("DR_RANGE", t.memory.checksum(id, 0, 1001, t.control));
  REFUSED("DR_INVALID", t.memory.usage(7));
  REFUSED("DR_INVALID", t.memory.defragment(7, 1, t.control));
  t.memory.release(id);
  REFUSED("DR_BAD_HANDLE", t.memory.release(id)); // twice
  REFUSED("DR_BAD_HANDLE", t.memory.read(id, 0, data, 1, t.control));
  t.memory.release(other);
  t.expectNothingHeld();
}

/** Sizes around a chunk, a granule and nothing much. */
const std::vector<std::uint64_t> sizes = {1, 3, 4097, 65536, chunkBytes - 1, chunkBytes, chunkBytes + 1};

void copiesEveryByteInEveryDirection() {
  Fixture t;
  for (const std::uint64_t size : sizes) {
    const Bytes bytes = pattern(size, static_cast<std::uint32_t>(size));
    for (const Kind from : kinds) {
      const std::uint64_t source = t.filled(bytes, 0, from);
      CHECK(t.content(source) == bytes);
      CHECK(t.memory.checksum(source, 0, size, t.control) == crc32(0, bytes.data(), size));
      for (const Kind to : kinds)
        for (const std::size_t device : {std::size_t{0}, std::size_t{1}}) {
          const std::uint64_t target = t.make(size, device, to);
          t.memory.copy(source, 0, target, 0, size, t.control, size < chunkBytes);
          CHECK(t.content(target) == bytes);
          t.memory.release(target);
        }
      t.memory.release(source);
    }
  }
  t.expectNothingHeld();
}

/** More chunks than there are staging buffers, copies in flight and events or command lists in a ring. */
void keepsManyChunksInOrder() {
  Fixture t;
  const Bytes bytes = pattern(10 * chunkBytes + 7, 77);
  const std::uint64_t pinned = t.filled(bytes, 0, Kind::Upload);
  for (const std::size_t device : {std::size_t{0}, std::size_t{1}}) {
    const std::uint64_t target = t.make(bytes.size(), device);
    t.memory.copy(pinned, 0, target, 0, bytes.size(), t.control);
    CHECK(t.content(target) == bytes);
    const std::uint64_t again = t.make(bytes.size(), 0);
    t.memory.copy(target, 0, again, 0, bytes.size(), t.control);
    CHECK(t.content(again) == bytes);
    t.memory.release(again);
    t.memory.release(target);
  }
  t.memory.release(pinned);
  t.expectNothingHeld();
}

void copiesOnlyTheRangeItWasGiven() {
  Fixture t;
  for (const Placement placement : {Placement::Committed, Placement::Automatic}) {
    Bytes expected = pattern(200'000, 5);
    const std::uint64_t id = t.filled(expected, 0, Kind::Device, placement);
    const Bytes piece = pattern(70'001, 6);
    t.memory.write(id, 12'345, piece.data(), piece.size(), t.control);
    std::copy(piece.begin(), piece.end(), expected.begin() + 12'345);
    t.memory.copy(id, 12'345, id, 100'001, 80'000, t.control);
    std::copy(expected.begin() + 12'345, expected.begin() + 92'345, expected.begin() + 100'001);
    CHECK(t.content(id) == expected);
    Bytes part(333);
    t.memory.read(id, 99'900, part.data(), part.size(), t.control);
    CHECK(std::equal(part.begin(), part.end(), expected.begin() + 99'900));
    t.memory.release(id);
  }
  t.expectNothingHeld();
}

/** By release, owner and time, after a move, and beside a neighbour that stays. */
void neverShowsTheBytesOfItsLastOwner() {
  Fixture t;
  const std::vector<std::pair<Kind, Placement>> ways = {{Kind::Device, Placement::Placed},
                                                        {Kind::Device, Placement::Committed},
                                                        {Kind::Upload, Placement::Automatic},
                                                        {Kind::Readback, Placement::Automatic}};
  std::uint64_t neighbour = t.filled(pattern(100'000, 1), 0, Kind::Device, Placement::Placed);
  for (const auto& [kind, placement] : ways)
    for (const std::uint64_t size : {std::uint64_t{1}, std::uint64_t{70'001}, std::uint64_t{3 << 20}, chunkBytes + 5}) {
      const auto isEmpty = [&](std::uint64_t bytes) {
        const std::uint64_t id = t.make(bytes, 0, kind, placement);
        const bool empty = t.content(id) == Bytes(bytes, 0);
        t.memory.release(id);
        return empty;
      };
      CHECK(isEmpty(size));
      for (int round = 0; round < 3; round++) {
        const std::uint64_t gone = t.filled(Bytes(size, static_cast<Bytes::value_type>(0xab)), 0, kind, placement);
        if (round == 0) t.memory.release(gone);
        if (round == 1) {
          t.memory.releaseOwner("test");
          neighbour = t.filled(pattern(100'000, 1), 0, Kind::Device, Placement::Placed);
        }
        if (round == 2) {
          t.memory.renew(gone, 1ms);
          std::this_thread::sleep_for(3ms);
          t.memory.expire();
        }
        CHECK(isEmpty(size));
        CHECK(isEmpty(2 * size)); // over its place and beyond
      }
    }
  CHECK(t.content(neighbour) == pattern(100'000, 1));
  // What a move has left behind.
  const std::uint64_t hole = t.make(1 << 20, 0, Kind::Device, Placement::Placed);
  const std::uint64_t moved = t.filled(Bytes(1 << 20, static_cast<Bytes::value_type>(0xcd)), 0, Kind::Device, Placement::Placed);
  t.memory.release(hole);
  t.memory.defragment(0, UINT64_MAX, t.control);
  const std::uint64_t next = t.make(1 << 20, 0, Kind::Device, Placement::Placed);
  CHECK(t.content(next) == Bytes(1 << 20, 0));
  CHECK(t.content(moved) == Bytes(1 << 20, static_cast<Bytes::value_type>(0xcd)));
  for (const std::uint64_t id : {next, moved, neighbour}) t.memory.release(id);
  t.expectNothingHeld();
}

void tellsProgressAndStopsWhenAsked() {
  Fixture t;
  const Bytes bytes = pattern(6 * chunkBytes + 11, 9);
  const std::uint64_t id = t.make(bytes.size());
  const std::uint64_t far = t.make(bytes.size(), 1);
  std::uint64_t last = 0;
  int calls = 0;
  t.control.progress = [&](std::uint64_t done, std::uint64_t total) {
    CHECK(done > last && done <= total && total == bytes.size());
    last = done;
    calls++;
  };
  const auto startedAt = Clock::now();
  t.memory.write(id, 0, bytes.data(), bytes.size(), t.control, true); // the check is no progress
  CHECK(last == bytes.size());
  const auto seconds = std::chrono::duration<double>(Clock::now() - startedAt).count();
  CHECK(calls <= 1 + seconds * 30);

  // Cancelled at once, and while it runs; from host memory, to it, on the device, between two devices.
  Bytes back(bytes.size());
  t.control.progress = nullptr;
  const auto copies = [&](Control& control, int which) {
    if (which == 0) t.memory.write(id, 0, bytes.data(), bytes.size(), control);
    if (which == 1) t.memory.read(id, 0, back.data(), back.size(), control);
    if (which == 2) t.memory.copy(id, 0, far, 0, bytes.size(), control);
    if (which == 3) t.memory.checksum(id, 0, bytes.size(), control);
  };
  for (int which = 0; which < 4; which++) {
    Control control;
    control.cancelled = true;
    REFUSED("DR_CANCELLED", copies(control, which));
    for (int round = 0; round < 3; round++) {
      Control during;
      std::thread canceller([&] {
        std::this_thread::sleep_for(std::chrono::microseconds(300 * (round + 1)));
        during.cancelled = true;
      });
      const std::string code = codeOf([&] { copies(during, which); });
      canceller.join();
      CHECK(code == "DR_CANCELLED" || code.empty());
    }
  }
  t.memory.write(id, 0, bytes.data(), bytes.size(), t.control);
  CHECK(t.content(id) == bytes);
  t.memory.release(id);
  t.memory.release(far);
  t.expectNothingHeld();
}

void refusesWhatDoesNotFitAndGoesOn() {
  Fixture t;
  for (const Kind kind : kinds) REFUSED("DR_OUT_OF_MEMORY", t.make(1ull << 46, 0, kind)); // 64 TiB
  REFUSED("DR_OUT_OF_MEMORY", t.make(1ull << 46, 0, Kind::Device, Placement::Committed));
  REFUSED("DR_OUT_OF_MEMORY", t.make(UINT64_MAX, 0, Kind::Device));
  REFUSED("DR_OUT_OF_MEMORY", t.make(UINT64_MAX, 0, Kind::Device, backend == "cuda" ? Placement::Placed : Placement::Committed));
  t.memory.setLimit(0, 40ull << 20);
  std::vector<std::uint64_t> ids;
  for (int i = 0; i < 5; i++) ids.push_back(t.make(8ull << 20));
  REFUSED("DR_OUT_OF_MEMORY", t.make(1));
  CHECK(codeOf([&] { t.make(64 << 10, 1); }).empty()); // the other device has a limit of its own
  const std::uint64_t pinned = t.make(1 << 20, 0, Kind::Upload); // RAM, which the device's limit does not count
  CHECK(t.memory.usage(0).tracked == 40ull << 20 && t.memory.usage(0).pinned == 1 << 20);
  t.memory.release(pinned);
  t.memory.releaseOwner("nobody");
  CHECK(t.memory.list().size() == 6);
  t.memory.release(ids.back());
  CHECK(codeOf([&] { ids.back() = t.make(8ull << 20); }).empty());
  t.memory.setLimit(0, 1); // below what is held: it stays, nothing comes
  CHECK(t.memory.usage(0).live == 5);
  REFUSED("DR_OUT_OF_MEMORY", t.make(1));
  t.memory.setLimit(0, std::nullopt);
  const Bytes bytes = pattern(100'000, 3);
  CHECK(t.content(t.filled(bytes)) == bytes);
  CHECK(t.memory.usage(0).peak >= 40ull << 20);
  CHECK(t.memory.releaseOwner("test").size() == 7);
  t.expectNothingHeld();
}

void releasesByOwnerAndByTime() {
  Fixture t;
  Request request = t.request(70'000);
  request.owner = "session-1";
  const std::uint64_t a = t.memory.allocate(request);
  request.device = 1;
  t.memory.allocate(request);
  request.owner = "session-2";
  request.timeToLive = 30ms;
  const std::uint64_t brief = t.memory.allocate(request);
  const std::uint64_t renewed = t.memory.allocate(request);
  t.memory.renew(renewed, 1h);
  const std::uint64_t kept = t.memory.allocate(request);
  t.memory.renew(kept, std::nullopt);
  CHECK(t.memory.inspect(renewed).timeLeft > 30ms && !t.memory.inspect(kept).timeLeft && t.memory.inspect(a).owner == "session-1");
  CHECK(t.memory.expire().empty() || t.memory.inspect(renewed).id == renewed);
  std::this_thread::sleep_for(40ms);
  t.memory.expire();
  REFUSED("DR_BAD_HANDLE", t.memory.inspect(brief));
  CHECK(t.memory.usage(1).expired == 1);
  CHECK(t.memory.releaseOwner("session-1").size() == 2);
  CHECK(t.memory.releaseOwner("session-1").empty());
  CHECK(t.memory.list().size() == 2);
  CHECK(t.memory.releaseOwner("session-2").size() == 2);
  t.expectNothingHeld();
}

void letsACopyEndOnWhatWasReleasedMeanwhile() {
  Fixture t;
  const Bytes bytes = pattern(4 * chunkBytes, 4);
  const std::uint64_t id = t.make(bytes.size());
  std::promise<void> begun;
  Control control;
  control.progress = [&, isFirst = true](std::uint64_t, std::uint64_t) mutable {
    if (std::exchange(isFirst, false)) begun.set_value();
    std::this_thread::sleep_for(20ms);
  };
  std::thread copy([&] { t.memory.write(id, 0, bytes.data(), bytes.size(), control); });
  begun.get_future().wait();
  t.memory.release(id);
  const std::string again = codeOf([&] { t.memory.release(id); });
  copy.join();
  CHECK(again == "DR_BAD_HANDLE");
  t.expectNothingHeld();
}

void compactsWithoutLosingAByte() {
  Fixture t;
  std::mt19937 random(3);
  std::vector<std::pair<std::uint64_t, Bytes>> live;
  std::vector<std::uint64_t> gone;
  // Three arenas and a bit, then two of every three go.
  for (int i = 0; i < 60; i++) {
    const Bytes bytes = pattern((1 + random() % 5) << 20, random());
    const std::uint64_t id = t.filled(bytes, 0, Kind::Device, Placement::Placed);
    if (i % 3 == 0) live.emplace_back(id, bytes);
    else gone.push_back(id);
  }
  const std::uint64_t committed = t.filled(pattern(100, 1), 0, Kind::Device, Placement::Committed);
  for (const std::uint64_t id : gone) t.memory.release(id);
  const Usage before = t.memory.usage(0);
  CHECK(before.arenas >= 2 && before.fragmentation > 0);

  CHECK(t.memory.defragment(0, 0, t.control).moves == 0);
  const Compaction small = t.memory.defragment(0, 4ull << 20, t.control);
  CHECK(small.bytesMoved <= 4ull << 20);
  Control stopped;
  stopped.cancelled = true;
  REFUSED("DR_CANCELLED", t.memory.defragment(0, UINT64_MAX, stopped));
  for (const auto& [id, bytes] : live) CHECK(t.content(id) == bytes);

  std::uint64_t told = 0;
  Control control;
  control.progress = [&](std::uint64_t done, std::uint64_t) { told = done; };
  const Compaction result = t.memory.defragment(0, UINT64_MAX, control);
  CHECK(result.moves > 0 && told == result.bytesMoved && result.arenasFreed > 0);
  CHECK(backend == "cuda" ? result.bytesCopied == 0 : result.bytesCopied == result.bytesMoved);
  for (const auto& [id, bytes] : live) CHECK(t.content(id) == bytes);
  CHECK(t.content(committed) == pattern(100, 1));
  const Usage after = t.memory.usage(0);
  CHECK(after.arenas < before.arenas && after.tracked == before.tracked && after.fragmentation == 0);
  CHECK(t.memory.defragment(0, UINT64_MAX, t.control).moves == 0); // there is nothing left to gain

  // What a copy uses stays where it is.
  t.memory.release(live[0].first);
  live.erase(live.begin());
  std::promise<void> begun;
  std::promise<void> mayEnd;
  Control slow;
  slow.progress = [&](std::uint64_t, std::uint64_t) {
    begun.set_value();
    mayEnd.get_future().wait();
  };
  Bytes back(live.back().second.size());
  std::thread copy([&] { t.memory.copy(live.back().first, 0, t.make(back.size(), 1), 0, back.size(), slow); });
  begun.get_future().wait();
  std::thread defragmentation([&] { t.memory.defragment(0, UINT64_MAX, t.control); });
  std::this_thread::sleep_for(5ms);
  mayEnd.set_value();
  copy.join();
  defragmentation.join();
  for (const auto& [id, bytes] : live) CHECK(t.content(id) == bytes);
  t.memory.releaseOwner("test");
  t.expectNothingHeld();
}

/** One thread's allocations and what must be in them. */
void operate(Memory& memory, std::uint64_t operations, std::uint32_t seed, const std::string& owner) {
  std::mt19937 random(seed);
  Control control;
  const auto below = [&](std::uint64_t limit) { return limit == 0 ? 0 : random() % limit; };
  std::vector<std::pair<std::uint64_t, Bytes>> live;
  std::uint64_t held = 0;
  for (std::uint64_t operation = 0; operation < operations; operation++) {
    const auto what = below(100);
    if (live.empty() || (what < 25 && live.size() < 48 && held < 48ull << 20)) {
      Request request;
      request.device = below(2);
      request.bytes = 1 + (below(20) == 0 ? below(6 << 20) : below(300'000));
      request.kind = kinds[below(6) < 4 ? 0 : 1 + below(2)];
      request.placement = request.kind == Kind::Device && below(2) == 0 ? Placement::Placed : Placement::Automatic;
      request.owner = owner;
      Bytes bytes = pattern(request.bytes, random());
      const std::uint64_t id = memory.allocate(request);
      memory.write(id, 0, bytes.data(), bytes.size(), control);
      held += bytes.size();
      live.emplace_back(id, std::move(bytes));
      continue;
    }
    auto& [id, bytes] = live[below(live.size())];
    const std::uint64_t from = below(bytes.size());
    const std::uint64_t size = 1 + below(bytes.size() - from);
    if (what < 45) {
      const std::size_t index = below(live.size());
      memory.release(live[index].first);
      held -= live[index].second.size();
      live.erase(live.begin() + static_cast<std::ptrdiff_t>(index));
    } else if (what < 60) {
      const Bytes piece = pattern(size, random());
      memory.write(id, from, piece.data(), size, control);
      std::copy(piece.begin(), piece.end(), bytes.begin() + static_cast<std::ptrdiff_t>(from));
    } else if (what < 78) {
      Bytes back(size);
      memory.read(id, from, back.data(), size, control);
      CHECK(std::equal(back.begin(), back.end(), bytes.begin() + static_cast<std::ptrdiff_t>(from)));
    } else if (what < 94) {
      auto& [targetId, target] = live[below(live.size())];
      const std::uint64_t count = 1 + below(std::min(bytes.size() - from, static_cast<std::uint64_t>(target.size())));
      const std::uint64_t at = below(target.size() - count + 1);
      if (id == targetId && from < at + count && at < from + count) {
        CHECK(codeOf([&] { memory.copy(id, from, targetId, at, count, control); }) == "DR_RANGE");
        continue;
      }
      memory.copy(id, from, targetId, at, count, control);
      const Bytes moved(bytes.begin() + static_cast<std::ptrdiff_t>(from), bytes.begin() + static_cast<std::ptrdiff_t>(from + count));
      std::copy(moved.begin(), moved.end(), target.begin() + static_cast<std::ptrdiff_t>(at));
    } else if (what < 97) {
      CHECK(memory.checksum(id, from, size, control) == crc32(0, bytes.data() + from, size));
    } else if (what < 99) {
      memory.defragment(below(2), below(8) == 0 ? UINT64_MAX : below(16 << 20), control);
    } else {
      CHECK(memory.inspect(id).bytes == bytes.size());
      CHECK(codeOf([&] { memory.release(1ull << 50); }) == "DR_BAD_HANDLE");
    }
  }
  for (const auto& [id, bytes] : live) {
    Bytes back(bytes.size());
    memory.read(id, 0, back.data(), back.size(), control);
    CHECK(back == bytes);
    memory.release(id);
  }
}

void survivesRandomOperations(std::uint64_t operations, std::uint32_t seed) {
  Fixture t;
  operate(t.memory, operations, seed, "random");
  t.expectNothingHeld();
}

void survivesThreads(std::uint64_t operations, std::uint32_t seed) {
  Fixture t;
  std::vector<std::future<void>> threads;
  for (std::uint32_t thread = 0; thread < 4; thread++)
    threads.push_back(std::async(std::launch::async, [&, thread] {
      operate(t.memory, operations / 10, seed + thread + 1, "thread " + std::to_string(thread));
    }));
  for (auto& thread : threads) thread.get();
  t.expectNothingHeld();
}

void reportsWhatWasLeftBehind() {
  Fixture t;
  t.make(100'000);
  Request request = t.request(200);
  request.owner = "forgetful";
  request.device = 1;
  const std::uint64_t id = t.memory.allocate(request);
  const auto leaks = t.memory.close();
  CHECK(leaks.size() == 2 && leaks[1].id == id && leaks[1].owner == "forgetful" && leaks[1].bytes == 200 && leaks[1].device == 1);
  CHECK(t.memory.close().empty());
  REFUSED("DR_CLOSED", t.make(1));
  REFUSED("DR_CLOSED", t.memory.release(id));
  REFUSED("DR_CLOSED", t.content(id));
  REFUSED("DR_CLOSED", t.memory.defragment(0, 1, t.control));
  CHECK(t.memory.usage(0).tracked == 0 && t.memory.usage(1).reserved == 0);
}

void waitsForCopiesBeforeItCloses() {
  Fixture t;
  const Bytes bytes = pattern(3 * chunkBytes, 2);
  const std::uint64_t id = t.make(bytes.size());
  std::promise<void> begun;
  Control control;
  control.progress = [&, isFirst = true](std::uint64_t, std::uint64_t) mutable {
    if (std::exchange(isFirst, false)) begun.set_value();
    std::this_thread::sleep_for(10ms);
  };
  std::string code;
  std::thread copy([&] { code = codeOf([&] { t.memory.write(id, 0, bytes.data(), bytes.size(), control); }); });
  begun.get_future().wait();
  control.cancelled = true;
  const auto leaks = t.memory.close();
  copy.join();
  CHECK(code == "DR_CANCELLED" || code.empty());
  CHECK(leaks.size() == 1 && t.memory.usage(0).reserved == 0);
}

/** Only the stand-in driver fails on command. */
void takesEveryFailureOfTheDriver() {
  struct Order {
    const char* function;
    int result;
    const char* code;
  };
  const Order orders[] = {
      {"cuMemAlloc_v2", 2, "DR_OUT_OF_MEMORY"},          {"cuMemCreate", 2, "DR_OUT_OF_MEMORY"},
      {"cuMemAddressReserve", 2, "DR_OUT_OF_MEMORY"},    {"cuMemMap", 1, "DR_DRIVER"},
      {"cuMemSetAccess", 1, "DR_DRIVER"},                {"cuMemHostAlloc", 2, "DR_OUT_OF_MEMORY"},
      {"cuStreamCreate", 2, "DR_OUT_OF_MEMORY"},         {"cuEventCreate", 2, "DR_OUT_OF_MEMORY"},
      {"cuMemcpyHtoDAsync_v2", 1, "DR_DRIVER"},          {"cuMemcpyDtoHAsync_v2", 1, "DR_DRIVER"},
      {"cuEventRecord", 1, "DR_DRIVER"},                 {"cuEventSynchronize", 1, "DR_DRIVER"},
      {"cuMemcpyDtoDAsync_v2", 1, "DR_DRIVER"},
  };
  const Bytes bytes = pattern(chunkBytes + 9, 8);
  for (const Order& order : orders)
    for (const int after : {0, 1, 2}) {
      Fixture t;
      fake.fail(order.function, order.result, after, 1);
      const std::string code = codeOf([&] {
        const std::uint64_t placed = t.filled(bytes, 0, Kind::Device, Placement::Placed);
        const std::uint64_t committed = t.make(bytes.size(), 0, Kind::Device, Placement::Committed);
        t.memory.copy(placed, 0, committed, 0, bytes.size(), t.control);
        CHECK(t.content(committed) == bytes);
        for (int i = 0; i < 3; i++) t.make(1 << 20, 0, Kind::Upload);
      });
      fake.fail("", 0, 0, 0);
      if (code != order.code && !(code.empty() && after > 0))
        throw Failure(std::string(order.function) + " failing after " + std::to_string(after) + " calls gave '" + code + "'");
      CHECK(t.content(t.filled(bytes)) == bytes); // it goes on
      t.memory.releaseOwner("test");
      t.expectNothingHeld();
    }
}

void losesADeviceAsAWhole() {
  Fixture t;
  const Bytes bytes = pattern(3 * chunkBytes, 1);
  const std::uint64_t id = t.filled(bytes);
  fake.fail("cuMemcpyHtoDAsync_v2", 700, 1, 1);
  REFUSED("DR_DEVICE_REMOVED", t.memory.write(id, 0, bytes.data(), bytes.size(), t.control));
  fake.fail("", 0, 0, 0);
  CHECK(t.memory.usage(0).lost && !t.memory.usage(1).lost);
  REFUSED("DR_DEVICE_REMOVED", t.content(id));
  REFUSED("DR_DEVICE_REMOVED", t.make(1));
  REFUSED("DR_DEVICE_REMOVED", t.memory.defragment(0, 1, t.control));
  const std::uint64_t other = t.filled(bytes, 1); // the other one goes on
  REFUSED("DR_DEVICE_REMOVED", t.memory.copy(other, 0, id, 0, 10, t.control));
  CHECK(t.content(other) == bytes);
  t.memory.releaseOwner("test"); // what was on it can still be written off
  t.expectNothingHeld();
}

void keepsAnAllocationWhereItIsWhenAMoveFails() {
  Fixture t;
  for (const char* function : {"cuMemMap", "cuMemSetAccess", "cuMemUnmap"}) {
    const std::uint64_t gap = t.make(4 << 20, 0, Kind::Device, Placement::Placed);
    const Bytes bytes = pattern(4 << 20, 7);
    const std::uint64_t id = t.filled(bytes, 0, Kind::Device, Placement::Placed);
    t.memory.release(gap);
    fake.fail(function, 1, 0, 1);
    REFUSED("DR_DRIVER", t.memory.defragment(0, UINT64_MAX, t.control));
    fake.fail("", 0, 0, 0);
    CHECK(t.content(id) == bytes);
    const Compaction done = t.memory.defragment(0, UINT64_MAX, t.control);
    CHECK(done.moves == 1 && t.content(id) == bytes);
    t.memory.release(id);
  }
  t.expectNothingHeld();
}

void findsADamagedCopy() {
  Fixture t;
  const Bytes bytes = pattern(200'000, 1);
  const std::uint64_t id = t.make(bytes.size());
  const std::uint64_t other = t.make(bytes.size(), 1);
  fake.corrupt(1);
  t.memory.write(id, 0, bytes.data(), bytes.size(), t.control); // nobody asked
  CHECK(t.content(id) != bytes);
  fake.corrupt(1);
  REFUSED("DR_CORRUPT", t.memory.write(id, 0, bytes.data(), bytes.size(), t.control, true));
  t.memory.write(id, 0, bytes.data(), bytes.size(), t.control, true);
  fake.corrupt(1);
  REFUSED("DR_CORRUPT", t.memory.copy(id, 0, other, 0, bytes.size(), t.control, true));
  Bytes back(bytes.size());
  fake.corrupt(1);
  REFUSED("DR_CORRUPT", t.memory.read(id, 0, back.data(), back.size(), t.control, true));
  fake.corrupt(0);
  t.memory.releaseOwner("test");
  t.expectNothingHeld();
}

void takesDevicesOnlyWhenTheyAreUsed() {
  Fixture t;
  CHECK(fake.held() == 0); // listing makes no context
  const Figures figures = t.memory.figures(0);
  CHECK(figures.used && figures.source == "nvml" && !figures.budget);
  const Vitals vitals = t.memory.vitals(0);
  CHECK(vitals.temperature == 40 && vitals.power == 100 && !vitals.powerLimit && vitals.clock == 1500);
  fake.fail("nvmlDeviceGetMemoryInfo", 1, 0, 1000);
  CHECK(!t.memory.figures(0).used); // unknown is none
  const std::uint64_t id = t.make(3 << 20, 0, Kind::Device, Placement::Committed);
  CHECK(t.memory.figures(0).used == 3 << 20 && t.memory.figures(0).source == "cuda");
  fake.fail("", 0, 0, 0);
  t.memory.release(id);
}

} // namespace

int main(int argc, char** argv) {
  backend = argc > 1 ? argv[1] : "host";
  const std::uint64_t operations = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 10'000;
  const auto seed = static_cast<std::uint32_t>(argc > 3 ? std::strtoul(argv[3], nullptr, 10) : 1);
  try {
    for (const auto& device : openBackend(backend)) std::cout << "# " << device->info().key << "  " << device->info().name << "\n";
  } catch (const Error& error) {
    std::cout << "not run: " << error.what() << std::endl;
    return 77;
  }
  fake = findFake(backend);

  std::vector<std::pair<std::string, std::function<void()>>> tests = {
      {"describes its devices, unknown figures as none", describesItsDevices},
      {"refuses bad input and holds nothing for it", refusesBadInput},
      {"copies every byte in every direction", copiesEveryByteInEveryDirection},
      {"keeps many chunks in order", keepsManyChunksInOrder},
      {"copies only the range it was given", copiesOnlyTheRangeItWasGiven},
      {"never shows the bytes of its last owner", neverShowsTheBytesOfItsLastOwner},
      {"tells progress and stops when asked", tellsProgressAndStopsWhenAsked},
      {"refuses what does not fit and goes on", refusesWhatDoesNotFitAndGoesOn},
      {"releases by owner and by time", releasesByOwnerAndByTime},
      {"lets a copy end on what was released meanwhile", letsACopyEndOnWhatWasReleasedMeanwhile},
      {"compacts without losing a byte", compactsWithoutLosingAByte},
      {"survives " + std::to_string(operations) + " random operations", [&] { survivesRandomOperations(operations, seed); }},
      {"survives four threads at once", [&] { survivesThreads(operations, seed); }},
      {"reports what was left behind", reportsWhatWasLeftBehind},
      {"waits for copies before it closes", waitsForCopiesBeforeItCloses},
  };
  if (fake) {
    tests.emplace_back("takes devices only when they are used", takesDevicesOnlyWhenTheyAreUsed);
    tests.emplace_back("takes every failure of the driver", takesEveryFailureOfTheDriver);
    tests.emplace_back("loses a device as a whole", losesADeviceAsAWhole);
    tests.emplace_back("keeps an allocation where it is when a move fails", keepsAnAllocationWhereItIsWhenAMoveFails);
    tests.emplace_back("finds a damaged copy", findsADamagedCopy);
  }
  const std::string only = argc > 4 ? argv[4] : "";
  tests.erase(std::remove_if(tests.begin(), tests.end(), [&](const auto& test) { return test.first.find(only) == std::string::npos; }), tests.end());
  int failed = 0;
  for (const auto& [name, test] : tests) {
    const auto startedAt = Clock::now();
    try {
      test();
      if (fake && fake.held() != 0) throw Failure("the driver still holds " + std::to_string(fake.held()) + " things");
      std::cout << "ok " << name;
    } catch (const std::exception& error) {
      failed++;
      std::cout << "not ok " << name << ": " << error.what();
    }
    std::cout << "  (" << std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - startedAt).count() << " ms)" << std::endl;
  }
  std::cout << backend << ": " << tests.size() - static_cast<std::size_t>(failed) << " passed, " << failed << " failed" << std::endl;
  return failed == 0 ? 0 : 1;
}
