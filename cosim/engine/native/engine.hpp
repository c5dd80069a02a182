// Steps all dies of a system in quanta, in one thread, in threads or in processes.
#pragma once
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <algorithm>
#include <thread>

#include "barrier.hpp"
#include "die.hpp"

namespace mxlet {

std::unique_ptr<Device> make_device(const std::string& kind, const Context& context);

enum Reason : uint32_t { LIMIT = 0, WATCH = 1, MAIL = 2, QUIET = 4, FAILED = 8, LOST = 16 };

struct Control {  // in shared memory
    Barrier barrier;
    std::atomic<uint32_t> command{0}, command_sleepers{0};
    std::atomic<uint32_t> done{0}, done_sleepers{0};
    std::atomic<uint32_t> quit{0};
    uint64_t cycle = 0;   // next to simulate; changed between quanta only
    uint64_t limit = 0;
    uint32_t mask = 0;
    uint32_t reason = LIMIT;
    bool stop = false;
};

class Engine {
  public:
    uint64_t quantum, reset_cycles;
    std::vector<std::unique_ptr<Die>> dies;
    std::vector<Channel*> channels;
    std::vector<Context*> contexts;
    std::vector<Watch> watches;
    Control* control;
    std::string message;

    Engine(uint64_t quantum, uint64_t reset_cycles) : quantum(quantum), reset_cycles(reset_cycles) {
        control = new (allocate(sizeof(Control))) Control;
    }
    ~Engine() {  // after stop()
        dies.clear();
        for (auto& [address, bytes] : shared_) munmap(address, bytes);
    }

    // Memory that forked workers and this process see alike.
    void* share(size_t bytes) {
        void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (address == MAP_FAILED) throw std::runtime_error("No shared memory left");
        shared_.emplace_back(address, bytes);
        return address;
    }
    // Zeroed, on a cache line of its own: workers write neighbouring items.
    void* allocate(size_t bytes) {
        const size_t size = (bytes + 127) / 128 * 128;
        if (size > left_) {
            left_ = std::max(size, ARENA);
            free_ = static_cast<uint8_t*>(share(left_));
        }
        left_ -= size;
        free_ += size;
        return free_ - size;
    }
    uint64_t* allocate_words(size_t count) { return static_cast<uint64_t*>(allocate(8 * count)); }

    void start(uint32_t threads, uint32_t processes) {
        for (auto& die : dies) {
            die->form_groups();
            for (size_t i = 0; i < die->contexts.size(); i++)
                die->devices.push_back(make_device(die->kinds[i], *die->contexts[i]));
        }
        workers_ = std::min<uint32_t>(std::max(threads, processes), dies.size());
        forked_ = processes > 1;
        assign();
        if (forked_) {
            for (uint32_t w = 0; w < workers_; w++) fork_worker(w);
        } else {
            for (auto& die : dies) open_waves(*die);
            for (uint32_t w = 1; w < workers_; w++)
                threads_.emplace_back([this, w] { serve(w); });
        }
        started_ = true;
    }

    uint32_t run(uint64_t limit, uint32_t mask) {
        if (lost_) return LOST;
        control->limit = limit;
        control->mask = mask;
        control->stop = false;
        const uint32_t done = control->done.load();
        announce(control->command, control->command_sleepers);
        if (forked_) {
            if (!await_change(control->done, done, control->done_sleepers,
                              [this] { return worker_died(); })) {
                lost_ = true;
                stop();
                return LOST;
            }
        } else {
            work(0);
        }
        return control->reason;
    }

    void stop() {
        if (!started_) return;
        started_ = false;
        control->quit = 1;
        announce(control->command, control->command_sleepers);
        for (auto& thread : threads_) thread.join();
        threads_.clear();
        bool clean = true;
        for (pid_t pid : pids_) clean &= reap(pid);
        pids_.clear();
        if (!clean && !lost_) throw std::runtime_error("A worker process failed while it closed");
    }

    const std::vector<pid_t>& pids() const { return pids_; }

  private:
    static constexpr size_t ARENA = 16 << 20;   // taken from the system at once
    uint8_t* free_ = nullptr;
    size_t left_ = 0;
    std::vector<std::pair<void*, size_t>> shared_;
    uint32_t workers_ = 1;
    bool forked_ = false, started_ = false, lost_ = false;
    pid_t parent_ = 0;
    std::vector<std::vector<Die*>> assigned_;
    std::vector<std::thread> threads_;
    std::vector<pid_t> pids_;

    // Statically: the dies with most models first, each to the worker with fewest models.
    void assign() {
        assigned_.assign(workers_, {});
        std::vector<size_t> load(workers_, 0);
        std::vector<Die*> order;
        for (auto& die : dies) order.push_back(die.get());
        std::stable_sort(order.begin(), order.end(), [](Die* a, Die* b) {
            return a->models.size() > b->models.size();
        });
        for (Die* die : order) {
            const size_t w = std::min_element(load.begin(), load.end()) - load.begin();
            load[w] += die->models.size();
            assigned_[w].push_back(die);
        }
    }

    void open_waves(Die& die) {
        for (auto& [model, path] : die.waves)
            if (!model->library->waves(model->handle, path.c_str()))
                std::snprintf(die.failure, Context::FAILURE_BYTES,
                              "%s: cannot write waveforms to %s", die.name.c_str(), path.c_str());
    }

    bool abandoned() const {
        return control->quit.load() || (forked_ && getppid() != parent_);
    }

    void work(uint32_t worker) {
        for (;;) {
            const uint64_t start = control->cycle;
            const uint64_t cycles = std::min(quantum - start % quantum, control->limit - start);
            for (Die* die : assigned_[worker]) die->quantum(start, cycles, reset_cycles);
            if (!control->barrier.arrive(workers_, [&] { complete(start + cycles); },
                                         [&] { return abandoned(); })) return;
            if (control->stop) break;
        }
        control->barrier.arrive(workers_, [&] { announce(control->done, control->done_sleepers); },
                                [&] { return abandoned(); });
    }

    // At a quantum boundary, all workers waiting: a function of shared state alone.
    void complete(uint64_t cycle) {
        control->cycle = cycle;
        uint32_t reason = 0;
        bool quiet = true;
        for (auto& die : dies) {
            quiet &= *die->quiet != 0;
            if (die->failure[0]) reason |= FAILED;
        }
        for (Watch& watch : watches)
            if (*watch.armed && *watch.value) reason |= WATCH;
        for (Context* context : contexts)
            if (context->mailbox[0] == 2) reason |= MAIL;  // answered
        if (quiet && cycle > reset_cycles) reason |= QUIET;
        control->reason = reason & (control->mask | FAILED);
        control->stop = control->reason || cycle >= control->limit;
    }

    void serve(uint32_t worker) {
        uint32_t seen = 0;
        for (;;) {
            if (!await_change(control->command, seen, control->command_sleepers,
                              [&] { return abandoned(); })) return;
            seen++;
            if (control->quit.load()) return;
            work(worker);
            if (abandoned()) return;
        }
    }

    void fork_worker(uint32_t worker) {
        parent_ = getpid();
        const pid_t pid = fork();
        if (pid < 0) throw std::runtime_error("Cannot fork a worker process");
        if (pid > 0) {
            pids_.push_back(pid);
            return;
        }
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        signal(SIGINT, SIG_IGN);  // the parent decides
        for (Die* die : assigned_[worker]) open_waves(*die);
        serve(worker);
        for (Die* die : assigned_[worker]) die->models.clear();  // closes waveforms
        _exit(0);
    }

    bool worker_died() {
        for (size_t w = 0; w < pids_.size(); w++) {
            int status = 0;
            if (waitpid(pids_[w], &status, WNOHANG) != pids_[w]) continue;
            std::string names;
            for (Die* die : assigned_[w]) names += (names.empty() ? "" : ", ") + die->name;
            message = "Worker process " + std::to_string(w) + " (" + names + ") " +
                      (WIFSIGNALED(status)
                           ? "was killed by signal " + std::to_string(WTERMSIG(status))
                           : "ended with status " + std::to_string(WEXITSTATUS(status))) +
                      " near cycle " + std::to_string(control->cycle);
            pids_.erase(pids_.begin() + w);
            return true;
        }
        return false;
    }

    // Whether the worker ended by itself and well; it has 10 s to close its files.
    static bool reap(pid_t pid) {
        int status = 0;
        for (int i = 0; i < 1000; i++) {
            if (waitpid(pid, &status, WNOHANG) != 0) return status == 0;
            usleep(10000);
        }
        kill(pid, SIGKILL);
        waitpid(pid, nullptr, 0);
        return false;
    }
};

}  // namespace mxlet
