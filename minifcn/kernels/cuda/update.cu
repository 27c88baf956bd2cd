// Updates in place: optimizer steps, each in one pass over the parameters, their gradients and what the optimizer
// remembers; and running statistics.
#include "common.cuh"

// f changes the first W of K numbers at each of n places; 16 bytes at a time where all arrays allow it.
template <int W, int K, class F>
__device__ void update(offset n, real* const (&arrays)[K], F f) {
    bool aligned = true;
    for (int k = 0; k < K; k++) aligned = aligned && (size_t)arrays[k] % 16 == 0;
    offset packs = aligned ? n / PACK : 0;
    for (offset e = first_element(); e < packs; e += all_threads()) {
        Pack held[K];
        for (int k = 0; k < K; k++) held[k] = ((const Pack*)arrays[k])[e];
        for (int l = 0; l < PACK; l++) {
            real values[K];
            for (int k = 0; k < K; k++) values[k] = held[k].at[l];
            f(values);
            for (int k = 0; k < W; k++) held[k].at[l] = values[k];
        }
        for (int k = 0; k < W; k++) ((Pack*)arrays[k])[e] = held[k];
    }
    for (offset e = packs * PACK + first_element(); e < n; e += all_threads()) {
        real values[K];
        for (int k = 0; k < K; k++) values[k] = arrays[k][e];
        f(values);
        for (int k = 0; k < W; k++) arrays[k][e] = values[k];
    }
}

// p ← p − lr·(g + decay·p)
extern "C" __global__ void __launch_bounds__(256) sgd(real* p, real* g, offset n, real lr, real decay) {
    update<1, 2>(n, {p, g}, [=](real (&at)[2]) { at[0] -= lr * (at[1] + decay * at[0]); });
}

// v ← momentum·v + (g + decay·p), p ← p − lr·v
extern "C" __global__ void __launch_bounds__(256)
sgd_momentum(real* p, real* v, real* g, offset n, real lr, real decay, real momentum) {
    update<2, 3>(n, {p, v, g}, [=](real (&at)[3]) {
        at[1] = momentum * at[1] + (at[2] + decay * at[0]);
        at[0] -= lr * at[1];
    });
}

// m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g², p ← p − step·m/(√v/unbias + eps), with decay·p added to g before.
// rest = 1 − β is rounded once: in float32, 1 − 0.999 is off by 10⁻⁵.
extern "C" __global__ void __launch_bounds__(256)
adam(real* p, real* m, real* v, real* g, offset n, real step, real decay, real beta1, real beta2, real rest1,
     real rest2, real unbias, real eps) {
    update<3, 4>(n, {p, m, v, g}, [=](real (&at)[4]) {
        real slope = at[3] + decay * at[0];
        at[1] = beta1 * at[1] + rest1 * slope;
        at[2] = beta2 * at[2] + rest2 * (slope * slope);
        at[0] -= step * at[1] / (sqrt(at[2]) / unbias + eps);
    });
}

// running ← (1 − momentum)·running + momentum·(scale·now)
extern "C" __global__ void __launch_bounds__(256)
move_average(real* running, const double* now, int count, double momentum, double scale) {
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c < count) running[c] = (1 - momentum) * running[c] + momentum * (scale * now[c]);
}
