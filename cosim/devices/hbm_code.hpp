// Check bits of an HBM access, as cosim/golden/secded.py defines them.
#pragma once
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>

namespace mxlet {

// 10 check bits of 256 data bits. Columns of the parity-check matrix: numbers of odd weight, 3
// first, then 5; next is the one whose rows have the least ones so far, of equals the smallest.
class HbmCode {
  public:
    static uint16_t encode(const uint8_t* data) {
        static const HbmCode code;
        uint16_t check = 0;
        for (uint32_t n = 0; n < BYTES; n++) check ^= code.table_[n][data[n]];
        return check;
    }

  private:
    static constexpr uint32_t BYTES = 32, ROWS = 10;
    std::array<std::array<uint16_t, 256>, BYTES> table_{};

    HbmCode() {
        uint32_t ones[ROWS] = {}, bit = 0;
        bool used[1u << ROWS] = {};
        for (int weight = 3; bit < 8 * BYTES; weight += 2) {
            for (uint32_t best = choose(weight, ones, used); best && bit < 8 * BYTES;
                 best = choose(weight, ones, used), bit++) {
                used[best] = true;
                for (uint32_t row = 0; row < ROWS; row++) ones[row] += best >> row & 1;
                for (uint32_t value = 0; value < 256; value++)
                    if (value >> (bit % 8) & 1) table_[bit / 8][value] ^= uint16_t(best);
            }
        }
    }
    // The next column of this weight, or 0.
    static uint32_t choose(int weight, const uint32_t* ones, const bool* used) {
        uint32_t best = 0, least = ~0u;
        for (uint32_t number = 1; number < 1u << ROWS; number++) {
            if (used[number] || std::popcount(number) != weight) continue;
            uint32_t sum = 0;
            for (uint32_t row = 0; row < ROWS; row++) sum += number >> row & 1 ? ones[row] : 0;
            if (sum < least) least = sum, best = number;
        }
        return best;
    }
};

}  // namespace mxlet
