// A pseudo-channel of an HBM3 stack: storage, and a judge of every command that it is given.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "hbm_faults.hpp"

namespace mxlet::pseudo {

// Least distances between commands [clock]. Values and their source: rtl/memory/hbm/timing.py,
// whose fields have the same names.
struct HbmTiming {
    uint32_t bl, cl, cwl, rcdrd, rcdwr, rp, ras, rc, wr, rtp, ccds, ccdl, rrds, rrdl, faw, wtrs,
        wtrl, rtw, rfc, rfcpb, rrefd, refi;
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

enum class HbmRowOp : uint32_t {
    ACTIVATE = 0, PRECHARGE = 1, PRECHARGE_ALL = 2, REFRESH = 3, REFRESH_BANK = 4
};

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
    uint32_t column = 0;  // of 32 bytes
};

struct HbmCounters {
    uint64_t activates = 0, precharges = 0, refreshes = 0, reads = 0, writes = 0, bank_refreshes = 0;
};

// Four bank groups of four banks, rows of 32 accesses of 32 bytes.
//
// Call `cycle` once a clock with the commands that stand on the controller's outputs in that clock
// (the row command takes effect first). A write's data are taken from `write_data` `cwl` clocks
// later; those of a read are put into `read_data` `cl` clocks later, which the controller samples
// at the end of that clock; in other clocks it is left as it is. Both have 272 bits: 256 of data,
// then 16 beside them. `skip` lets clocks pass in which nothing is given and nothing is due.
//
// A command that breaks a rule throws HbmViolation and has no effect. So does a clock in which a
// bank is overdue: JESD238 lets eight refreshes of it be postponed, so not more than nine intervals
// pass from one to the next (REFI), and not more than nine plus the number that it had since the
// start (POSTPONED). All banks share the counter of the rows to be refreshed, so each is refreshed
// once before any is again (TURN); a refresh of all banks ends the turn. A refresh of one bank keeps
// activates and refreshes of others RREFD away, and is itself RRDS, RRDL away from an activate.
// CCDR, between ranks, does not occur: there is one.
//
// Memory is the caller's, and reads as the bytes that software sees: `line_of` undoes the address
// map of rtl/memory/hbm/map.py. The bits beside the data are kept as their difference from the check
// bits of the data (see HbmFaults), so memory that nobody wrote, or that the caller wrote, is good.
// The length of commands on the buses is taken as one clock. Source: JESD238; distances around the
// refresh of one bank as in Ramulator 2.1.
class HbmPseudo {
  public:
    static constexpr uint32_t BANKS = 16, GROUPS = 4, COLUMNS = 32, ACCESS = 32, LINES = 16,
                              ROW = BANKS * COLUMNS * ACCESS, WORDS = 9;  // of 32 bits on the pins

    HbmPseudo(uint8_t* memory, uint64_t bytes, const HbmTiming& timing)
        : memory_(memory), rows_(bytes / ROW), t_(timing), due_(timing.cl + 1),
          coming_(timing.cwl + 1), faults_(bytes / ACCESS) {
        if (bytes == 0 || bytes % ROW)
            throw std::invalid_argument("Memory of an HBM pseudo-channel must be a multiple of " +
                                        std::to_string(ROW) + " bytes, not " + std::to_string(bytes));
    }

    void cycle(const HbmRowCommand& row, const HbmColumnCommand& column, const uint32_t* write_data,
               uint32_t* read_data) {
        now_++;
        Access& due = due_[now_ % due_.size()];
        if (due.valid) {
            std::memcpy(read_data, due.words, sizeof due.words);
            due.valid = false;
            under_way_--;
        }
        if (now_ > deadline_) overdue();
        if (row.valid) take(row);
        if (column.valid) take(column);
        Access& coming = coming_[now_ % coming_.size()];
        if (coming.valid) {
            store(coming.number, write_data);
            coming.valid = false;
            under_way_--;
        }
    }
    void skip(uint64_t clocks) {
        if (under_way_) fail("SKIP", "clocks were skipped while data were due");
        now_ += clocks;
        if (now_ > deadline_) overdue();
    }

    uint64_t now() const { return now_; }

    // Number of the line (64 bytes) in the caller's memory, see rtl/memory/hbm/map.py.
    static uint64_t line_of(uint32_t bank, uint32_t row, uint32_t column) {
        uint32_t group = bank % GROUPS, inner = bank / GROUPS;
        for (uint32_t bits = column; bits; bits >>= 2) group ^= bits & 3;
        for (uint32_t bits = row; bits; bits >>= 4) inner += (bits >> 2 & 3) - (bits & 3);
        return group + GROUPS * (column + LINES * (inner % 4 + 4ull * row));
    }
    const HbmCounters& counters() const { return counters_; }
    HbmFaults& faults() { return faults_; }

  private:
    static constexpr uint64_t LONG_AGO = 1u << 30;  // before any command: beyond every distance
    struct Bank {
        bool open = false;
        uint32_t row = 0;
        uint64_t activated = 0, precharged = 0, read = 0, written = 0;
        uint64_t refreshed_at = 0, refreshes = 0;
        uint64_t due = LONG_AGO;  // from where the interval to the next refresh counts
    };
    struct Access {
        bool valid = false;
        uint64_t number = 0;  // in memory
        uint32_t words[WORDS];
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
        case HbmRowOp::REFRESH: return refresh_all();
        case HbmRowOp::REFRESH_BANK: return refresh_bank(c.bank);
        }
        fail("COMMAND", "no row command " + std::to_string(uint32_t(c.op)));
    }

    void activate(uint32_t number, uint32_t row) {
        Bank& bank = banks_[number];
        if (row >= rows_) fail("ROW", "no row " + std::to_string(row));
        if (bank.open) fail("OPEN", "activate of the open bank " + std::to_string(number));
        apart("RP", bank.precharged, t_.rp, number);
        apart("RC", bank.activated, t_.rc, number);
        apart("RFCPB", bank.refreshed_at, t_.rfcpb, number);
        apart("RREFD", refreshed_bank_, t_.rrefd, number);
        activates_apart(number);
        apart("FAW", four_[activates_ % 4], t_.faw, number);
        four_[activates_++ % 4] = bank.activated = now_;
        bank.open = true;
        bank.row = row;
        counters_.activates++;
    }

    void activates_apart(uint32_t number) const {
        for (uint32_t other = 0; other < BANKS; other++) {
            const bool same = other % GROUPS == number % GROUPS;
            apart(same ? "RRDL" : "RRDS", banks_[other].activated, same ? t_.rrdl : t_.rrds, number);
        }
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

    void refresh_allowed(uint32_t n) const {
        if (banks_[n].open) fail("OPEN", "refresh with the open bank " + std::to_string(n));
        apart("RP", banks_[n].precharged, t_.rp, n);
        apart("RC", banks_[n].activated, t_.rc, n);
        apart("RFCPB", banks_[n].refreshed_at, t_.rfcpb, n);
    }

    void refresh_all() {
        for (uint32_t n = 0; n < BANKS; n++) refresh_allowed(n);
        for (Bank& bank : banks_) bank.due = now_, bank.refreshes++;
        refreshed_at_ = now_;
        turn_ = 0;
        counters_.refreshes++;
        find_deadline();
    }

    void refresh_bank(uint32_t number) {
        refresh_allowed(number);
        apart("RREFD", refreshed_bank_, t_.rrefd, number);
        activates_apart(number);
        if (turn_ >> number & 1) fail("TURN", "second refresh of bank " + std::to_string(number));
        turn_ |= 1u << number;
        if (turn_ + 1 == 1u << BANKS) turn_ = 0;
        Bank& bank = banks_[number];
        bank.due = bank.refreshed_at = refreshed_bank_ = now_;
        bank.refreshes++;
        counters_.bank_refreshes++;
        find_deadline();
    }

    uint64_t interval_end(const Bank& bank) const { return bank.due + 9 * uint64_t(t_.refi); }
    uint64_t turn_end(const Bank& bank) const {
        return LONG_AGO + (9 + bank.refreshes) * uint64_t(t_.refi);
    }
    void find_deadline() {
        deadline_ = ~0ull;
        for (const Bank& bank : banks_)
            deadline_ = std::min({deadline_, interval_end(bank), turn_end(bank)});
    }
    [[noreturn]] void overdue() const {
        for (uint32_t n = 0; n < BANKS; n++)
            if (now_ > interval_end(banks_[n]))
                fail("REFI", "no refresh of bank " + std::to_string(n) + " for nine intervals");
        fail("POSTPONED", "more than eight refreshes of a bank are missing");
    }

    void take(const HbmColumnCommand& c) {
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
        access(c);
    }

    void access(const HbmColumnCommand& c) {
        Bank& bank = banks_[c.bank];
        const uint32_t group = c.bank % GROUPS;
        const uint64_t number = 2 * line_of(c.bank, bank.row, c.column / 2) + c.column % 2;
        under_way_++;
        if (c.write) {
            written_ = written_group_[group] = bank.written = now_;
            Access& coming = coming_[(now_ + t_.cwl) % coming_.size()];
            coming.valid = true;
            coming.number = number;
            counters_.writes++;
        } else {
            read_ = read_group_[group] = bank.read = now_;
            Access& due = due_[(now_ + t_.cl) % due_.size()];
            due.valid = true;
            faults_.read(number, c.bank, bank.row, memory_ + ACCESS * number, due.words);
            counters_.reads++;
        }
    }

    void store(uint64_t number, const uint32_t* words) {
        std::memcpy(memory_ + ACCESS * number, words, ACCESS);
        faults_.write(number, words);
    }

    uint8_t* memory_;
    uint64_t rows_;
    HbmTiming t_;
    uint64_t now_ = LONG_AGO, refreshed_at_ = 0, refreshed_bank_ = 0;
    uint64_t deadline_ = LONG_AGO + 9 * uint64_t(t_.refi);
    uint32_t turn_ = 0;  // banks that had their refresh of this turn
    uint64_t read_ = 0, written_ = 0, read_group_[GROUPS] = {}, written_group_[GROUPS] = {};
    uint64_t four_[4] = {}, activates_ = 0;
    Bank banks_[BANKS];
    std::vector<Access> due_, coming_;
    uint32_t under_way_ = 0;
    HbmFaults faults_;
    HbmCounters counters_;
};

}  // namespace mxlet::pseudo
