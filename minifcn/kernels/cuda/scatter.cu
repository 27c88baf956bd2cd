// Adding values where an index says. Sorted by place, the values of one place are neighbours, and the thread of the first
// one adds them up in order: no atomics, so the same bits every time. (A place to which very many go keeps one thread long.)
#include "common.cuh"

// x[place] = Σ y[from[e]] over the run of e with places[e] = place. x holds zeros before.
extern "C" __global__ void __launch_bounds__(256)
add_runs(const real* y, const long long* places, const long long* from, real* x, offset count) {
    for (offset e = first_element(); e < count; e += all_threads()) {
        long long place = places[e];
        if (e > 0 && places[e - 1] == place) continue;
        real sum = 0;
        for (offset k = e; k < count && places[k] == place; k++) sum += y[from[k]];
        x[place] = sum;
    }
}
