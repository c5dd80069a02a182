// Barrier and wake-up between workers that may be threads or processes.
#pragma once
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

namespace mxlet {

inline void futex_wait(std::atomic<uint32_t>& word, uint32_t seen, long nanoseconds) {
    timespec patience{0, nanoseconds};
    syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT, seen, &patience, nullptr, 0);
}
inline void futex_wake(std::atomic<uint32_t>& word) {
    syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE, INT32_MAX, nullptr, nullptr, 0);
}

// Returns when `word` is no longer `seen`: spins, then yields the core, then sleeps. False if
// `abandoned` became true (asked at least every 20 ms).
template <typename Abandoned>
bool await_change(std::atomic<uint32_t>& word, uint32_t seen, std::atomic<uint32_t>& sleepers,
                  Abandoned abandoned) {
    for (int i = 0; i < 2000; i++) {
        if (word.load(std::memory_order_acquire) != seen) return true;
        __builtin_ia32_pause();
    }
    for (int i = 0; i < 200; i++) {
        if (word.load(std::memory_order_acquire) != seen) return true;
        sched_yield();
    }
    while (word.load() == seen) {
        if (abandoned()) return false;
        sleepers.fetch_add(1);
        futex_wait(word, seen, 20'000'000);
        sleepers.fetch_sub(1);
    }
    return true;
}
inline void announce(std::atomic<uint32_t>& word, std::atomic<uint32_t>& sleepers) {
    word.fetch_add(1);
    if (sleepers.load()) futex_wake(word);
}

// The last to arrive runs `complete` alone, then all go on. Lives in shared memory.
struct Barrier {
    std::atomic<uint32_t> generation{0}, arrived{0}, sleepers{0};

    template <typename Complete, typename Abandoned>
    bool arrive(uint32_t parties, Complete complete, Abandoned abandoned) {
        if (parties == 1) return complete(), true;
        const uint32_t seen = generation.load();
        if (arrived.fetch_add(1) + 1 == parties) {
            complete();
            arrived.store(0);
            announce(generation, sleepers);
            return true;
        }
        return await_change(generation, seen, sleepers, abandoned);
    }
};

}  // namespace mxlet
