/**
 * Copy rates of one backend beside what a bare driver call reaches in the same run: native_bench BACKEND [MIB=1024] [ROUNDS=7] [--report]
 *
 * Prints a table in GB/s, the best of the rounds, which take turns. Exit codes: 0 pinned host to device reaches 90 % of the bare call, with
 * progress 85 %, and control reads stay below 10 ms at p99 while the device copies; 1 it does not; 77 the backend is not here. With
 * --report it only prints.
 */
#include "backends/cuda_api.hpp"
#include "core/error.hpp"
#include "core/memory.hpp"
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <thread>

using namespace darkroom;

namespace {

double seconds(const std::function<void()>& call) {
  const auto startedAt = Clock::now();
  call();
  return std::chrono::duration<double>(Clock::now() - startedAt).count();
}

struct Row {
  std::string name;
  std::uint64_t bytes;
  std::function<void()> call;
  double best = 1e99;
  double rate() const { return static_cast<double>(bytes) / best / 1e9; }
};

/** One copy of everything at once, by the driver's own call. */
class Bare {
public:
  virtual ~Bare() = default;
  virtual void hostToDevice() = 0;
};

class BareCuda final : public Bare {
public:
  explicit BareCuda(std::uint64_t bytes) : bytes_(bytes), cuda_(*cuda::api()) {
    cuda::Context context = nullptr;
    must(cuda_.cuDevicePrimaryCtxRetain(&context, 0));
    must(cuda_.cuCtxSetCurrent(context));
    must(cuda_.cuMemAlloc_v2(&device_, bytes));
    must(cuda_.cuMemHostAlloc(&host_, bytes, 0));
    std::memset(host_, 1, bytes);
    must(cuda_.cuStreamCreate(&stream_, 1));
  }
  ~BareCuda() override {
    cuda_.cuStreamDestroy_v2(stream_);
    cuda_.cuMemFreeHost(host_);
    cuda_.cuMemFree_v2(device_);
    cuda_.cuDevicePrimaryCtxRelease_v2(0);
  }
  void hostToDevice() override {
    must(cuda_.cuMemcpyHtoDAsync_v2(device_, host_, bytes_, stream_));
    must(cuda_.cuStreamSynchronize(stream_));
  }

private:
  static void must(int result) {
    if (result != 0) throw Error("DR_DRIVER", "a bare driver call failed: " + std::to_string(result), result);
  }
  std::uint64_t bytes_;
  const cuda::Api& cuda_;
  cuda::Address device_ = 0;
  void* host_ = nullptr;
  cuda::Stream stream_ = nullptr;
};

/** Elsewhere the backend's own single copy is one driver call: CopyBufferRegion and a fence, or memcpy. */
class BareLane final : public Bare {
public:
  BareLane(const std::string& backend, std::uint64_t bytes)
      : devices_(openBackend(backend)), from_(devices_[0]->commit(bytes, Kind::Upload)), to_(devices_[0]->commit(bytes, Kind::Device)),
        lane_(devices_[0]->lane()) {
    std::memset(from_->mapped, 1, bytes);
  }
  void hostToDevice() override { lane_->wait(lane_->copy(*to_, 0, *from_, 0, to_->bytes)); }

private:
  Devices devices_;
  std::unique_ptr<Buffer> from_;
  std::unique_ptr<Buffer> to_;
  std::unique_ptr<Lane> lane_;
};

double percentile(std::vector<double>& values, double share) {
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<std::size_t>(share * static_cast<double>(values.size())))];
}

int bench(const std::string& backend, std::uint64_t bytes, int rounds, bool onlyReport) {
  Memory memory(openBackend(backend));
  std::printf("%s, %s, %llu MiB, best of %d rounds\n", backend.c_str(), memory.info(0).name.c_str(),
              static_cast<unsigned long long>(bytes >> 20), rounds);
  const auto make = [&](Kind kind, std::uint64_t size, Placement placement) {
    Request request;
    request.bytes = size;
    request.kind = kind;
    request.placement = placement;
    request.owner = "bench";
    return memory.allocate(request);
  };
  const std::uint64_t up = make(Kind::Upload, bytes, Placement::Automatic);
  const std::uint64_t back = make(Kind::Readback, bytes, Placement::Automatic);
  const std::uint64_t one = make(Kind::Device, bytes, Placement::Committed);
  const std::uint64_t two = make(Kind::Device, bytes, Placement::Committed);
  std::vector<char> pageable(bytes, 2);
  Control plain;
  Control watched;
  std::uint64_t told = 0;
  watched.progress = [&](std::uint64_t done, std::uint64_t) { told = done; };
  memory.write(up, 0, pageable.data(), bytes, plain);

  std::unique_ptr<Bare> bare;
  if (backend == "cuda") bare = std::make_unique<BareCuda>(bytes);
  else bare = std::make_unique<BareLane>(backend, bytes);
  std::vector<Row> rows = {
      {"bare driver call, pinned host to device", bytes, [&] { bare->hostToDevice(); }},
      {"pinned host to device", bytes, [&] { memory.copy(up, 0, one, 0, bytes, plain); }},
      {"pinned host to device, with progress", bytes, [&] { memory.copy(up, 0, one, 0, bytes, watched); }},
      {"device to pinned host", bytes, [&] { memory.copy(one, 0, back, 0, bytes, plain); }},
      {"device to device", bytes, [&] { memory.copy(one, 0, two, 0, bytes, plain); }},
      {"pageable host to device", bytes, [&] { memory.write(one, 0, pageable.data(), bytes, plain); }},
      {"device to pageable host", bytes, [&] { memory.read(one, 0, pageable.data(), bytes, plain); }},
      {"checksum on the host of device memory", bytes, [&] { memory.checksum(one, 0, bytes, plain); }},
  };
  for (int round = 0; round < rounds; round++)
    for (Row& row : rows) row.best = std::min(row.best, seconds(row.call));
  for (const Row& row : rows)
    std::printf("  %-42s %9.2f GB/s  %5.1f %% of the bare call\n", row.name.c_str(), row.rate(), 100 * row.rate() / rows[0].rate());

  // Defragmentation: every other of many placed allocations goes, the rest is compacted.
  std::vector<std::uint64_t> placed;
  for (int i = 0; i < 64; i++) placed.push_back(make(Kind::Device, 8ull << 20, Placement::Placed));
  for (std::size_t i = 0; i < placed.size(); i += 2) memory.release(placed[i]);
  Compaction compaction;
  const double time = seconds([&] { compaction = memory.defragment(0, UINT64_MAX, plain); });
  std::printf("  defragmentation: %llu moves of %llu MiB in %.2f ms, %llu bytes copied, %llu arenas freed\n",
              static_cast<unsigned long long>(compaction.moves), static_cast<unsigned long long>(compaction.bytesMoved >> 20), time * 1e3,
              static_cast<unsigned long long>(compaction.bytesCopied), static_cast<unsigned long long>(compaction.arenasFreed));
  const double allocation = seconds([&] {
    for (int i = 0; i < 100; i++) memory.release(make(Kind::Device, 4ull << 20, Placement::Placed));
  });
  std::printf("  allocate and release 4 MiB, placed: %.1f us\n", allocation / 100 * 1e6);
  // Filled with zeros, where the driver does not give them.
  for (const Placement placement : {Placement::Placed, Placement::Committed}) {
    double best = 1e9;
    for (int round = 0; round < rounds; round++)
      best = std::min(best, seconds([&] { memory.release(make(Kind::Device, bytes, placement)); }));
    std::printf("  allocate and release %llu MiB of zeros, %s: %.2f ms\n", static_cast<unsigned long long>(bytes >> 20),
                placement == Placement::Placed ? "placed" : "committed", best * 1e3);
  }

  // Control reads while the device copies without a pause.
  Control endless;
  std::thread busy([&] {
    try {
      while (true) memory.copy(up, 0, one, 0, bytes, endless);
    } catch (const Error&) { // cancelled, below
    }
  });
  std::vector<double> reads;
  for (int i = 0; i < 400; i++) {
    reads.push_back(1e3 * seconds([&] {
                      memory.figures(0);
                      memory.vitals(0);
                      memory.usage(0);
                      memory.list();
                    }));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  endless.cancelled = true;
  busy.join();
  const double median = percentile(reads, 0.5);
  const double p99 = percentile(reads, 0.99);
  std::printf("  control read while it copies: p50 %.3f ms, p99 %.3f ms\n", median, p99);

  const double pinned = rows[1].rate() / rows[0].rate();
  const double withProgress = rows[2].rate() / rows[0].rate();
  memory.releaseOwner("bench");
  memory.trim(0);
  const bool isClean = memory.usage(0).reserved == 0 && told == bytes;
  const bool isGood = pinned >= 0.9 && withProgress >= 0.85 && p99 <= 10 && isClean;
  std::printf("%s: pinned %.1f %% (at least 90), with progress %.1f %% (at least 85), control p99 %.3f ms (at most 10)%s: %s\n",
              backend.c_str(), 100 * pinned, 100 * withProgress, p99, isClean ? "" : ", something is held still",
              isGood ? "good" : "not good enough");
  return isGood || onlyReport ? 0 : 1;
}

} // namespace

int main(int argc, char** argv) {
  bool onlyReport = false;
  std::vector<std::string> words;
  for (int i = 1; i < argc; i++) {
    if (std::string(argv[i]) == "--report") onlyReport = true;
    else words.emplace_back(argv[i]);
  }
  const std::string backend = words.empty() ? "host" : words[0];
  const std::uint64_t mib = words.size() > 1 ? std::strtoull(words[1].c_str(), nullptr, 10) : 1024;
  const int rounds = words.size() > 2 ? std::atoi(words[2].c_str()) : 7;
  try {
    return bench(backend, mib << 20, rounds, onlyReport);
  } catch (const Error& error) {
    std::printf("%s: %s: %s\n", backend.c_str(), error.code == "DR_UNAVAILABLE" ? "not run" : error.code.c_str(), error.what());
    return error.code == "DR_UNAVAILABLE" ? 77 : 1;
  }
}
