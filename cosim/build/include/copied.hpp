// For the sources that cosim/build/copies.py rewrites.
#pragma once
#include <cstddef>

// N elements from `from` on go to `to`; both lie in arrays of such, which do not overlap.
template <std::size_t N, typename T> inline void copied(T& to, const T& from) {
    __builtin_memcpy(&to, &from, N * sizeof(T));
}
