/**
 * The offset allocator and the planner behind a line protocol, for the property tests. Each line of stdin is a command, each answer one line.
 *
 *   heap CAPACITY GRANULE          a further heap; answers its number
 *   take HEAP BYTES                answers the offset, or `none`
 *   at HEAP OFFSET BYTES           answers `yes` or `no`
 *   give HEAP OFFSET               answers `ok`, or the error's code
 *   state HEAP                     answers `used largestFree ; offset:size ... ; offset:size ...`, ranges then holes
 *   plan MAXBYTES [HEAP:OFFSET…]   what follows is pinned; answers `from:offset>to:offset=bytes ...`
 *   fragmentation                  answers a number from 0 to 1
 *   reset                          forgets the heaps
 */
#include "core/error.hpp"
#include "core/heap.hpp"
#include <iostream>
#include <set>
#include <sstream>

using namespace darkroom;

int main() {
  std::vector<Heap> heaps;
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream in(line);
    std::string command;
    std::size_t heap = 0;
    std::uint64_t a = 0;
    std::uint64_t b = 0;
    in >> command;
    try {
      if (command == "heap") {
        in >> a >> b;
        heaps.emplace_back(a, b);
        std::cout << heaps.size() - 1;
      } else if (command == "take") {
        in >> heap >> a;
        const auto offset = heaps.at(heap).allocate(a);
        if (offset) std::cout << *offset;
        else std::cout << "none";
      } else if (command == "at") {
        in >> heap >> a >> b;
        std::cout << (heaps.at(heap).allocateAt(a, b) ? "yes" : "no");
      } else if (command == "give") {
        in >> heap >> a;
        heaps.at(heap).release(a);
        std::cout << "ok";
      } else if (command == "state") {
        in >> heap;
        const Heap& of = heaps.at(heap);
        std::cout << of.used() << ' ' << of.largestFree() << " ;";
        for (const auto& [offset, size] : of.ranges()) std::cout << ' ' << offset << ':' << size;
        std::cout << " ;";
        for (const auto& [offset, size] : of.holes()) std::cout << ' ' << offset << ':' << size;
      } else if (command == "plan") {
        std::set<std::pair<std::size_t, std::uint64_t>> pinned;
        char colon = 0;
        in >> a;
        while (in >> heap >> colon >> b) pinned.insert({heap, b});
        const auto moves = planMoves(heaps, [&](std::size_t of, std::uint64_t offset) { return pinned.count({of, offset}) == 0; }, a);
        for (const Move& move : moves)
          std::cout << move.fromHeap << ':' << move.from << '>' << move.toHeap << ':' << move.to << '=' << move.bytes << ' ';
      } else if (command == "fragmentation") {
        std::vector<const Heap*> all;
        for (const Heap& each : heaps) all.push_back(&each);
        std::cout << fragmentation(all);
      } else if (command == "reset") {
        heaps.clear();
        std::cout << "ok";
      } else {
        std::cout << "unknown command";
      }
    } catch (const Error& error) {
      std::cout << error.code;
    }
    std::cout << std::endl;
  }
}
