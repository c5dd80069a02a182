// The two LZ4 functions that Verilator's FST writer calls, so that waveforms need no liblz4.
// The output is a valid LZ4 block of literals only: signal names are stored as they are.
// Source: LZ4 block format description (github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md).
#pragma once
#include <cstdint>
#include <cstring>

static inline int LZ4_compressBound(int size) { return size + size / 255 + 16; }

static inline int LZ4_compress_default(const char* from, char* to, int size, int capacity) {
    if (capacity < LZ4_compressBound(size)) return 0;
    uint8_t* out = reinterpret_cast<uint8_t*>(to);
    if (size < 15) {
        *out++ = static_cast<uint8_t>(size << 4);
    } else {
        *out++ = 0xF0;
        int rest = size - 15;
        for (; rest >= 255; rest -= 255) *out++ = 255;
        *out++ = static_cast<uint8_t>(rest);
    }
    std::memcpy(out, from, size);
    return static_cast<int>(reinterpret_cast<char*>(out) - to) + size;
}
