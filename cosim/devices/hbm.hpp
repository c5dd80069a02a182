// One channel of an HBM3 stack: storage, and a judge of every command that it is given.
#pragma once
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace mxlet {

// Least distances between commands [clock]. Values and their source: rtl/memory/hbm_timing.py,
// whose fields have the same names.
struct HbmTiming {
    uint32_t bl, cl, cwl, rcdrd, rcdwr, rp, ras, rc, wr, rtp, ccds, ccdl, rrds, rrdl, faw, wtrs,
        wtrl, rtw, rfc, refi;
};

// A command that the device refuses; `rule` is the name of the constraint, in capitals.
struct HbmViolation : std::runtime_error {
    std::string rule;
    uint64_t cycle;
    HbmViolation(const std::string& rule, uint64_t cycle, const std::string& what)
        : std::runtime_error("HBM rule " + rule + " broken at clock " + std::to_string(cycle) + ": " +
                             what),
          rule(rule), cycle(cycle) {}
};

enum class HbmRowOp : uint32_t { ACTIVATE = 0, PRECHARGE = 1, PRECHARGE_ALL = 2, REFRESH = 3 };

struct HbmRowCommand {
    bool valid = false;
    HbmRowOp op = HbmRowOp::ACTIVATE;
    uint32_t bank = 0;  // bits 1:0 bank group, 3:2 bank in the group
    uint32_t row = 0;
};

struct HbmColumnCommand {
    bool valid = false;
    bool write = false;
    uint32_t bank = 0;
    uint32_t column = 0;
};

struct HbmCounters {
    uint64_t activates = 0, precharges = 0, refreshes = 0, reads = 0, writes = 0;
};

// The two pseudo-channels of a channel in lock step, 64 bytes an access, four bank groups of four
// banks, 32 accesses a row.
//
// Call `cycle` once a clock with the commands that stand on the controller's outputs in that clock
// (the row command takes effect first). A write's data and mask (bit n: byte n) stand beside its
// command. `read_data` receives the data of the read given `cl` clocks before, which the controller
// samples at the end of the same clock; in other clocks it is left as it is. A command that breaks
// a rule throws HbmViolation and has no effect; so does a clock that is more than nine refresh
// intervals after the last refresh (JESD238 lets eight be postponed).
//
// Memory is the caller's: line (64 bytes) number bank group + 4 x (column + 32 x (bank in the
// group + 4 x row)), the address map of rtl/memory/hbm_controller.py, so that it reads as the
// bytes that software sees. Writes land at once; WTRS and WTRL keep reads behind them.
// The length of commands on the buses is taken as one clock. Source: JESD238.
class HbmChannel {
  public:
    static constexpr uint32_t BANKS = 16, GROUPS = 4, COLUMNS = 32, LINE = 64, ROW = 16 * 32 * LINE;

    HbmChannel(uint8_t* memory, uint64_t bytes, const HbmTiming& timing)
        : memory_(memory), rows_(bytes / ROW), t_(timing), due_(timing.cl + 1) {
        if (bytes == 0 || bytes % ROW)
            throw std::invalid_argument("Memory of an HBM channel must be a multiple of " +
                                        std::to_string(ROW) + " bytes, not " + std::to_string(bytes));
    }

    void cycle(const HbmRowCommand& row, const HbmColumnCommand& column, const uint32_t* write_data,
               uint64_t write_mask, uint32_t* read_data) {
        now_++;
        Due& due = due_[now_ % due_.size()];
        if (due.valid) {
            std::memcpy(read_data, due.line, LINE);
            due.valid = false;
        }
        if (now_ - refreshed_ > 9 * uint64_t(t_.refi)) fail("REFI", "no refresh for nine intervals");
        if (row.valid) take(row);
        if (column.valid) take(column, write_data, write_mask);
    }

    uint64_t now() const { return now_; }
    const HbmCounters& counters() const { return counters_; }

  private:
    static constexpr uint64_t LONG_AGO = 1u << 30;  // before any command: beyond every distance
    struct Bank {
        bool open = false;
        uint32_t row = 0;
        uint64_t activated = 0, precharged = 0, read = 0, written = 0;
    };
    struct Due {
        bool valid = false;
        uint8_t line[LINE];
    };

    [[noreturn]] void fail(const std::string& rule, const std::string& what) const {
        throw HbmViolation(rule, now_ - LONG_AGO, what);
    }
    void apart(const char* rule, uint64_t since, uint64_t least, uint32_t bank) const {
        if (now_ - since < least)
            fail(rule, std::to_string(now_ - since) + " clocks instead of " + std::to_string(least) +
                           ", bank " + std::to_string(bank));
    }

    void take(const HbmRowCommand& c) {
        if (c.bank >= BANKS) fail("BANK", "no bank " + std::to_string(c.bank));
        apart("RFC", refreshed_at_, t_.rfc, c.bank);
        switch (c.op) {
        case HbmRowOp::ACTIVATE: return activate(c.bank, c.row);
        case HbmRowOp::PRECHARGE: return precharge(c.bank, c.bank);
        case HbmRowOp::PRECHARGE_ALL: return precharge(0, BANKS - 1);
        case HbmRowOp::REFRESH: return refresh();
        }
        fail("COMMAND", "no row command " + std::to_string(uint32_t(c.op)));
    }

    void activate(uint32_t number, uint32_t row) {
        Bank& bank = banks_[number];
        if (row >= rows_) fail("ROW", "no row " + std::to_string(row));
        if (bank.open) fail("OPEN", "activate of the open bank " + std::to_string(number));
        apart("RP", bank.precharged, t_.rp, number);
        apart("RC", bank.activated, t_.rc, number);
        for (uint32_t other = 0; other < BANKS; other++) {
            const bool same = other % GROUPS == number % GROUPS;
            apart(same ? "RRDL" : "RRDS", banks_[other].activated, same ? t_.rrdl : t_.rrds, number);
        }
        apart("FAW", four_[activates_ % 4], t_.faw, number);
        four_[activates_++ % 4] = bank.activated = now_;
        bank.open = true;
        bank.row = row;
        counters_.activates++;
    }

    void precharge(uint32_t first, uint32_t last) {
        for (uint32_t n = first; n <= last; n++) {
            if (!banks_[n].open) continue;  // no effect, JESD238
            apart("RAS", banks_[n].activated, t_.ras, n);
            apart("RTP", banks_[n].read, t_.rtp, n);
            apart("WR", banks_[n].written, t_.cwl + t_.bl + t_.wr, n);
        }
        for (uint32_t n = first; n <= last; n++) {
            if (!banks_[n].open) continue;
            banks_[n].open = false;
            banks_[n].precharged = now_;
            counters_.precharges++;
        }
    }

    void refresh() {
        for (uint32_t n = 0; n < BANKS; n++) {
            if (banks_[n].open) fail("OPEN", "refresh with the open bank " + std::to_string(n));
            apart("RP", banks_[n].precharged, t_.rp, n);
            apart("RC", banks_[n].activated, t_.rc, n);
        }
        refreshed_ = refreshed_at_ = now_;
        counters_.refreshes++;
    }

    void take(const HbmColumnCommand& c, const uint32_t* data, uint64_t mask) {
        if (c.bank >= BANKS || c.column >= COLUMNS) fail("COLUMN", "no such bank or column");
        const Bank& bank = banks_[c.bank];
        if (!bank.open) fail("CLOSED", "access to the closed bank " + std::to_string(c.bank));
        const uint32_t group = c.bank % GROUPS;
        if (c.write) {
            apart("RCDWR", bank.activated, t_.rcdwr, c.bank);
            apart("RTW", read_, t_.rtw, c.bank);
        } else {
            apart("RCDRD", bank.activated, t_.rcdrd, c.bank);
            apart("WTRS", written_, t_.cwl + t_.bl + t_.wtrs, c.bank);
            apart("WTRL", written_group_[group], t_.cwl + t_.bl + t_.wtrl, c.bank);
        }
        apart("CCDS", c.write ? written_ : read_, t_.ccds, c.bank);
        apart("CCDL", (c.write ? written_group_ : read_group_)[group], t_.ccdl, c.bank);
        access(c, data, mask);
    }

    void access(const HbmColumnCommand& c, const uint32_t* data, uint64_t mask) {
        Bank& bank = banks_[c.bank];
        const uint32_t group = c.bank % GROUPS;
        const uint64_t line = group + GROUPS * (c.column + COLUMNS * (c.bank / GROUPS + 4ull * bank.row));
        uint8_t* place = memory_ + LINE * line;
        if (c.write) {
            written_ = written_group_[group] = bank.written = now_;
            const uint8_t* bytes = reinterpret_cast<const uint8_t*>(data);
            for (uint32_t n = 0; n < LINE; n++)
                if (mask >> n & 1) place[n] = bytes[n];
            counters_.writes++;
        } else {
            read_ = read_group_[group] = bank.read = now_;
            Due& due = due_[(now_ + t_.cl) % due_.size()];
            due.valid = true;
            std::memcpy(due.line, place, LINE);
            counters_.reads++;
        }
    }

    uint8_t* memory_;
    uint64_t rows_;
    HbmTiming t_;
    uint64_t now_ = LONG_AGO, refreshed_ = LONG_AGO, refreshed_at_ = 0;
    uint64_t read_ = 0, written_ = 0, read_group_[GROUPS] = {}, written_group_[GROUPS] = {};
    uint64_t four_[4] = {}, activates_ = 0;
    Bank banks_[BANKS];
    std::vector<Due> due_;
    HbmCounters counters_;
};

}  // namespace mxlet
