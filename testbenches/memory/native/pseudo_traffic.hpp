// Requests to an HbmChannel, what must come back, and what memory must hold in the end.
#pragma once
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <unordered_map>

#include "pseudo_options.hpp"
#include "layout.hpp"  // bit positions of the payloads, written by the test

namespace mxlet::pseudo {

// Up to 64 bits from bit `at` of a payload, and to it.
template <typename Words> uint64_t get(const Words& words, int at, int bits) {
    unsigned __int128 value = 0;
    for (int n = 0; n < 3 && at / 32 + n <= (at + bits - 1) / 32; n++)
        value |= static_cast<unsigned __int128>(words[at / 32 + n]) << 32 * n;
    return uint64_t(value >> at % 32) & (~0ull >> (64 - bits));
}
template <typename Words> void put(Words& words, int at, int bits, uint64_t value) {
    const unsigned __int128 one = 1, mask = ((one << bits) - 1) << at % 32;
    const unsigned __int128 shifted = static_cast<unsigned __int128>(value) << at % 32 & mask;
    for (int n = 0; n < 3 && at / 32 + n <= (at + bits - 1) / 32; n++)
        words.data()[at / 32 + n] = (words[at / 32 + n] & ~uint32_t(mask >> 32 * n)) |
                                    uint32_t(shifted >> 32 * n);
}

struct Request {
    uint64_t line = 0, mask = ~0ull;
    uint32_t name = 0, agent = 0;
    bool write = false, registers = false;
    uint8_t data[64];

    template <typename Words> void to(Words& words) const {
        put(words, REQUEST_LINE, 30, line);
        put(words, REQUEST_NAME, NAME_BITS, name);
        put(words, REQUEST_WRITE, 1, write);
        put(words, REQUEST_REGISTERS, 1, registers);
        put(words, REQUEST_MASK, 64, mask);
        for (int n = 0; n < 8; n++) {
            uint64_t word;
            std::memcpy(&word, data + 8 * n, 8);
            put(words, REQUEST_DATA + 64 * n, 64, word);
        }
    }
};

struct Expected {
    bool write, refused, registers, poison;
    uint32_t agent;
    uint64_t line, accepted, accepted_hbm;
    uint8_t data[64];
};

// Several requesters that take turns. Each has at most `under_way` requests without an answer, which
// reaches it `far` clocks after it left the channel; a copier writes a line once it has read it.
class Traffic {
  public:
    Request request;

    Traffic(const Options& options, std::vector<uint8_t>& memory)
        : options_(options), lines_(memory.size() / 64),
          agents_(std::max<uint64_t>(1, options.agents)) {
        random_.seed(options.seed);
        if (options.fill)
            for (size_t n = 0; n < memory.size(); n += 4) {
                const uint32_t word = random_();
                std::memcpy(&memory[n], &word, 4);
            }
        model_ = memory;
        for (Agent& agent : agents_) agent.base = random_() % lines_, agent.away = random_() % 4096;
        next_at_ = options.quiet;
    }

    uint32_t random() { return random_(); }
    void served(uint64_t hbm) { served_ = hbm; }  // row 1 of bank 0 was accessed

    // Faults, each in an access of its own; remembers what cannot be read.
    void break_things(HbmFaults& faults, uint64_t accesses) {
        const uint64_t count = options_.flips + options_.stuck + options_.doubled;
        std::vector<uint64_t> parts(count);  // of memory, for faults of every kind everywhere
        std::iota(parts.begin(), parts.end(), 0);
        std::shuffle(parts.begin(), parts.end(), random_);
        for (uint64_t n = 0; n < count; n++) {
            const uint64_t access = parts[n] * (accesses / count) + random_() % (accesses / count);
            const uint32_t bit = random_() % HbmFaults::BITS;
            if (n >= options_.flips && n < options_.flips + options_.stuck) {
                faults.stick(access, bit, random_() % 2);
                continue;
            }
            faults.flip(access, n < options_.flips ? n % HbmFaults::BITS : bit % 266);
            if (n < options_.flips) continue;
            faults.flip(access, (bit % 266 + 1 + random_() % 265) % 266);  // not in the spare bits
            lost_.insert(access);
        }
        for (uint64_t row = 0; row < options_.failed; row++) {
            faults.fail_row(5, uint32_t(row));
            for (uint32_t column = 0; column < HbmPseudo::LINES; column++)
                failed_.insert(HbmPseudo::line_of(5, uint32_t(row), column));
        }
    }
    bool done() const {
        return answered_ == options_.count + 1 && expected_.empty();
    }
    bool moved(uint64_t now) const { return now < moved_ + 2 || done() || now < next_at_; }

    // Whether there is a request in this clock.
    bool next(uint64_t now) {
        while (!late_.empty() && late_.front().first <= now) {
            arrive(late_.front().second);
            late_.pop_front();
        }
        if (sent_ > options_.count || now <= next_at_) return false;
        if (sent_ == options_.count) {  // the last one: the counters, when all else is done
            if (answered_ < sent_ || now < moved_ + 400) return false;
            request = Request{};
            request.registers = true;
            request.name = 1;
            return true;
        }
        if (random_() % 100 >= options_.request) return false;
        for (uint64_t tries = 0; tries < agents_.size(); tries++) {
            Agent& agent = agents_[turn_++ % agents_.size()];
            if (agent.under_way >= options_.under_way) continue;
            request = Request{};
            request.agent = uint32_t(&agent - agents_.data());
            if (!make(agent)) continue;
            do request.name = random_() % (1u << NAME_BITS);
            while (expected_.count(request.name));
            for (int n = 0; n < 64; n += 4) {
                const uint32_t word = random_();
                std::memcpy(request.data + n, &word, 4);
            }
            return true;
        }
        return false;
    }

    void accept(uint64_t now, uint64_t hbm) {
        Request& r = request;
        Expected e{r.write, r.registers ? r.write || r.line : r.line >= lines_, r.registers, false,
                   r.agent, r.line, now, hbm, {}};
        if (!e.refused && !r.registers) {
            uint8_t* place = &model_[64 * r.line];
            e.poison = failed_.count(r.line);
            for (uint64_t half = 0; half < 2; half++) {
                const bool lost = lost_.count(2 * r.line + half);
                e.poison |= lost;
                if (lost && r.write && uint32_t(r.mask >> 32 * half) == ~0u) lost_.erase(2 * r.line + half);
            }
            if (r.write)
                for (int n = 0; n < 64; n++) place[n] = r.mask >> n & 1 ? r.data[n] : place[n];
            else
                std::memcpy(e.data, place, 64);
        }
        expected_[r.name] = e;
        if (sent_ == 300) victim_from_ = hbm;
        agents_[r.agent].under_way++;
        sent_++;
        moved_ = now;
        most_ = std::max<uint64_t>(most_, expected_.size());
        if (options_.gap) next_at_ = ~0ull;
    }

    template <typename Words> bool check(const Words& words, uint64_t now, uint64_t hbm) {
        auto found = expected_.find(uint32_t(get(words, RESPONSE_NAME, NAME_BITS)));
        if (found == expected_.end()) return std::puts("error=an answer that nobody asked for"), false;
        const Expected e = found->second;
        expected_.erase(found);
        const uint64_t error = get(words, RESPONSE_ERROR, 2);
        const uint64_t right = e.refused ? 1 : e.poison && !e.write && !e.registers ? 2 : 0;
        bool good = get(words, RESPONSE_WRITE, 1) == e.write && error == right;
        if (good && e.registers && !e.refused) {
            for (int n = 0; n < 16; n++) counters_[n] = get(words, RESPONSE_DATA + 32 * n, 32);
        } else if (!e.write && !right) {
            for (int n = 0; n < 8 && good; n++) {
                uint64_t word;
                std::memcpy(&word, e.data + 8 * n, 8);
                good = get(words, RESPONSE_DATA + 64 * n, 64) == word;
            }
        }
        if (!good)
            std::printf("error=answer %llu to a %s of line %llu is wrong, error %llu\n",
                        (unsigned long long)answered_, e.write ? "write" : "read",
                        (unsigned long long)e.line, (unsigned long long)error);
        if (answered_ < 4) {
            latencies_[answered_] = now - e.accepted;
            hbm_latencies_[answered_] = hbm - e.accepted_hbm;
        }
        if (!e.write && !e.registers) {
            latency_ += now - e.accepted;
            worst_ = std::max(worst_, now - e.accepted);
            read_++;
        }
        answered_++;
        moved_ = now;
        if (options_.gap) next_at_ = now + options_.gap;
        late_.push_back({now + options_.far, e});
        return good;
    }

    // But for what cannot be read.
    bool same(const std::vector<uint8_t>& memory) const {
        for (uint64_t access = 0; access < 2 * lines_; access++)
            if (!lost_.count(access) && !failed_.count(access / 2) &&
                std::memcmp(&memory[32 * access], &model_[32 * access], 32))
                return false;
        return true;
    }

    template <typename Print> void report(Print print) const {
        print("most_under_way", most_), print("mean_read", read_ ? latency_ / read_ : 0);
        print("worst_read", worst_);
        for (int n = 0; n < 4; n++) {
            print(("latency" + std::to_string(n)).c_str(), latencies_[n]);
            print(("hbm_latency" + std::to_string(n)).c_str(), hbm_latencies_[n]);
        }
        print("victim", served_ ? served_ - victim_from_ : 0);
        for (int n = 0; n < 16; n++) print((std::string("at_") + COUNTERS[n]).c_str(), counters_[n]);
    }

  private:
    struct Agent {
        uint64_t under_way = 0, next = 0, base = 0, away = 0;
        std::deque<uint64_t> writes;  // lines that a copier has read
    };

    void arrive(const Expected& e) {
        Agent& agent = agents_[e.agent];
        agent.under_way--;
        if (pattern_ == "copiers" && !e.write) agent.writes.push_back((e.line + lines_ / 2 + agent.away) % lines_);
    }

    // The next request of an agent; false if it has none.
    bool make(Agent& agent) {
        Request& r = request;
        const uint64_t number = sent_;
        r.line = number % lines_;
        if (pattern_ == "write") r.write = true;
        if (pattern_ == "random") r.line = random_() % lines_;
        if (pattern_ == "readers") r.line = (agent.base + agent.next++) % lines_;
        if (pattern_ == "writers") {
            r.line = (agent.base + agent.next++) % lines_;
            r.write = true;
        }
        if (pattern_ == "copiers") {
            if (!agent.writes.empty()) {
                r.line = agent.writes.front();
                r.write = true;
                agent.writes.pop_front();
                return true;
            }
            r.line = (agent.base + agent.next++) % (lines_ / 2);
        }
        if (pattern_ == "copy") {  // `burst` lines read, as many written elsewhere
            const uint64_t burst = options_.burst;
            r.write = number / burst % 2;
            r.line = (number / burst / 2 * burst + number % burst + (r.write ? lines_ / 2 : 0)) % lines_;
        }
        if (pattern_ == "strided")
            r.line = number * options_.stride % lines_ + number * options_.stride / lines_ %
                                                                options_.stride;
        if (pattern_ == "update") {  // reads and writes of random lines
            r.line = random_() % lines_;
            r.write = random_() % 2;
        }
        if (pattern_ == "mixed") {  // few rows and banks, so that everything meets
            r.write = random_() % 2;
            r.line = (random_() % 2 ? random_() % 4 : random_() % lines_) / 2;
            if (random_() % 16 == 0) r.line = lines_ + random_() % lines_;
            if (random_() % 64 == 0) r.line = (1ull << 29) + random_() % lines_;
            r.registers = random_() % 32 == 0;
            if (r.registers) r.line = random_() % 4 ? 0 : random_() % 8;
            if (random_() % 2) r.mask = uint64_t(random_()) << 32 | random_();
            if (random_() % 8 == 0) r.mask = random_() % 2 ? 0xFFFFFFFFull : 0;
        }
        if (pattern_ == "partial") r.write = true, r.mask = 0xFFFF0000FFFFull;
        if (pattern_ == "bank") r.line = HbmPseudo::line_of(0, random_() % (lines_ / 256), random_() % 16);
        if (pattern_ == "echo") {  // a line is written, then read
            r.line = number / 2;
            r.write = number % 2 == 0;
        }
        if (pattern_ == "conflict") r.line = HbmPseudo::line_of(0, number > 0, number % 16);
        if (pattern_ == "starve") {  // bank 0: one access to row 1 among accesses to row 0
            const bool victim = number == 300;
            r.line = HbmPseudo::line_of(0, victim, number % 16);
            r.write = victim ? options_.victim & 1 : options_.victim >> 1;
        }
        return true;
    }

    const Options options_;
    const std::string& pattern_ = options_.pattern;
    std::mt19937 random_;
    std::vector<uint8_t> model_;
    uint64_t lines_, turn_ = 0, sent_ = 0, answered_ = 0, moved_ = 0, next_at_ = 0, most_ = 0;
    uint64_t latency_ = 0, worst_ = 0, read_ = 0, victim_from_ = 0, served_ = 0, latencies_[4] = {}, hbm_latencies_[4] = {};
    uint64_t counters_[16] = {};
    std::vector<Agent> agents_;
    std::set<uint64_t> lost_, failed_;  // accesses; lines
    std::unordered_map<uint32_t, Expected> expected_;
    std::deque<std::pair<uint64_t, Expected>> late_;
};

}  // namespace mxlet::pseudo
