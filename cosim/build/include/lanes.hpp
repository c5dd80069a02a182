// Vectors of one value for each of eight cells, for the sources that cosim/build/lanes.py writes.
#pragma once
#include <cstdint>
#include <cstring>

// For functions that are called a few times and have more arguments than registers.
#define INLINE __attribute__((always_inline)) inline

namespace lanes {
typedef uint64_t V __attribute__((vector_size(64)));
typedef int64_t S __attribute__((vector_size(64)));

static inline V splat(uint64_t x) { return V{} + x; }
static inline V flag(S condition) { return reinterpret_cast<V>(condition) & 1; }
static inline V choose(S condition, V yes, V no) { return condition ? yes : no; }
// Sign extension from bit 63 - by.
static inline S extend(V x, int by) { return reinterpret_cast<S>(x << by) >> by; }
// Shifts by up to 63 in x86's vector instructions; larger ones give 0.
static inline V left(V x, V by) { return by < 64 ? x << (by & 63) : V{}; }
static inline V right(V x, V by) { return by < 64 ? x >> (by & 63) : V{}; }
static inline V parity(V x) {
    for (int by = 32; by; by /= 2) x ^= x >> by;
    return x & 1;
}
// Bits `low` to `low` + 63 of an argument of the simulator: 32-bit words, the lowest first.
static inline uint64_t word(const uint32_t* argument, uint32_t words, uint32_t index) {
    const uint32_t first = 2 * index;
    return argument[first] | (first + 1 < words ? uint64_t{argument[first + 1]} << 32 : 0);
}
}  // namespace lanes
