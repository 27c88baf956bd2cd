// Softmax cross-entropy per pixel from logits x (N,C,M): a thread has one pixel (n, m) and walks over its classes, which
// neighbouring threads read side by side. Shifting by the largest logit leaves the softmax as it is and keeps exp from
// overflowing.
#include "common.cuh"

__device__ inline real exponential(real x) {
    return sizeof(real) == 4 ? expf(x) : exp(x);
}

__device__ inline real logarithm(real x) {
    return sizeof(real) == 4 ? logf(x) : log(x);
}

__device__ inline real largest(const real* logits, int C, int M) {
    real top = logits[0];
    for (int c = 1; c < C; c++) {
        real value = logits[(offset)c * M];
        if (value > top || is_nan(value)) top = value;
    }
    return top;
}

__device__ inline real sum_of_exponentials(const real* logits, real top, int C, int M) {
    real sum = 0;
    for (int c = 0; c < C; c++) sum += exponential(logits[(offset)c * M] - top);
    return sum;
}

// loss[n,m] = weight[t]·(log Σ_c exp x[n,c,m] − x[n,t,m]), 0 where t = target[n,m] is ignored.
extern "C" __global__ void __launch_bounds__(256)
cross_entropy(const real* x, const long long* target, const real* weight, real* loss, offset pixels, int C, int M,
              long long ignore_index) {
    for (offset pixel = first_element(); pixel < pixels; pixel += all_threads()) {
        long long t = target[pixel];
        if (t == ignore_index) {
            loss[pixel] = 0;
            continue;
        }
        const real* logits = x + (pixel / M * C) * M + pixel % M;
        real top = largest(logits, C, M);
        real value = logarithm(sum_of_exponentials(logits, top, C, M)) + (top - logits[t * M]);
        loss[pixel] = weight ? value * weight[t] : value;
    }
}

// gx[n,c,m] = gy[n,m]·weight[t]·(softmax(x)[n,c,m] − [c = t]), 0 where t is ignored, whatever its logits are.
extern "C" __global__ void __launch_bounds__(256)
cross_entropy_grad(const real* gy, const real* x, const long long* target, const real* weight, real* gx, offset pixels,
                   int C, int M, long long ignore_index) {
    for (offset pixel = first_element(); pixel < pixels; pixel += all_threads()) {
        long long t = target[pixel];
        offset at = (pixel / M * C) * M + pixel % M;
        const real* logits = x + at;
        if (t == ignore_index) {
            for (int c = 0; c < C; c++) gx[at + (offset)c * M] = 0;
            continue;
        }
        real top = largest(logits, C, M), sum = sum_of_exponentials(logits, top, C, M);
        real factor = weight ? gy[pixel] * weight[t] : gy[pixel];
        for (int c = 0; c < C; c++) {
            real share = exponential(logits[(offset)c * M] - top) / sum;
            gx[at + (offset)c * M] = factor * (c == t ? share - 1 : share);
        }
    }
}
