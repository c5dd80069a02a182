// Interface of one Verilated model to the engine; ports are filled in by cosim/build/model.py.
#include "Vmodel.h"
#include "verilated.h"
#if @WAVES@
#include "verilated_fst_c.h"
#endif
#include <algorithm>
#include <cstdint>
#include <memory>

#if @TOGETHER@
void step_together(Vmodel___024root** models, uint32_t count);
#endif

namespace {
struct Model {
    VerilatedContext context;  // before the model: it is used by its constructor and destructor
    std::unique_ptr<Vmodel> verilated;
#if @WAVES@
    std::unique_ptr<VerilatedFstC> waves;
#endif
};
struct Port {
    const char* name;
    uint32_t bits;
    uint32_t input;
};
const Port ports[] = {
@PORTS@};
}  // namespace

#define API extern "C" __attribute__((visibility("default")))

API uint32_t model_port_count() { return @COUNT@; }
API const Port* model_ports() { return ports; }

API void* model_create() {
    Model* self = new Model;
    self->context.threads(1);  // no pool of threads: they would not survive a fork
#if @WAVES@
    self->context.traceEverOn(true);
#endif
    self->verilated = std::make_unique<Vmodel>(&self->context, "die");
    self->verilated->p_clk = 0;
    self->verilated->eval();  // initial values, settled
    return self;
}

API void* model_port(void* handle, uint32_t index) {
    Vmodel* model = static_cast<Model*>(handle)->verilated.get();
    switch (index) {
@POINTERS@    default: return nullptr;
    }
}

namespace {
#if @EVALUATIONS@ == 1
void change_clocks(Vmodel* model, uint32_t tick) {  // registers load on every change
    model->p_clk ^= 1;
#if @SECOND@
    model->p_hbm_clk ^= tick;
#endif
}
#endif

void cycle_one(Model* self, uint64_t cycle, uint32_t tick) {
    Vmodel* model = self->verilated.get();
#if @EVALUATIONS@ == 1
    change_clocks(model, tick);
    model->eval();
#else
    model->p_clk = 0;  // the inputs settle while the clock is low, as a clock gate needs it
#if @SECOND@
    model->p_hbm_clk = 0;
#endif
    model->eval();
#if @WAVES@
    if (self->waves) self->waves->dump(2 * cycle);
#endif
    model->p_clk = 1;
#if @SECOND@
    model->p_hbm_clk = tick;
#endif
    model->eval();
#if @WAVES@
    if (self->waves) self->waves->dump(2 * cycle + 1);
#endif
#endif
}
}  // namespace

// One clock cycle of several models, with a rising edge of `hbm_clk` at that of `clk` if `tick` is
// 1. The inputs are those that the edge samples.
API void model_cycle(void* const* handles, uint32_t count, uint64_t cycle, uint32_t tick) {
    Model* const* models = reinterpret_cast<Model* const*>(handles);
#if @TOGETHER@
    constexpr uint32_t MOST = 32;  // at once
    while (count > 1) {
        Vmodel___024root* roots[MOST];
        const uint32_t now = std::min(count, MOST);
        for (uint32_t i = 0; i < now; i++) {
            change_clocks(models[i]->verilated.get(), tick);
            roots[i] = models[i]->verilated->rootp;
        }
        step_together(roots, now);
        models += now;
        count -= now;
    }
#endif
    for (uint32_t i = 0; i < count; i++) cycle_one(models[i], cycle, tick);
}

API int model_waves(void* handle, const char* path) {
#if @WAVES@
    Model* self = static_cast<Model*>(handle);
    self->waves = std::make_unique<VerilatedFstC>();
    self->verilated->trace(self->waves.get(), 99);
    self->waves->open(path);
    return self->waves->isOpen();
#else
    return 0;
#endif
}

API void model_destroy(void* handle) {
    Model* self = static_cast<Model*>(handle);
#if @WAVES@
    if (self->waves) self->waves->close();
#endif
    self->verilated->final();
    delete self;
}
