// Softmax cross-entropy per pixel from logits x (N,C,M): a thread has one pixel (n, m) and walks over its classes, which
// neighbouring threads read side by side. Shifting by the largest logit leaves the softmax as it is and keeps exp from
// overflowing. (Four blocks to a processor leave enough registers.)
#include "reduce.cuh"

__device__ inline real exponential(real x) {
    return sizeof(real) == 4 ? expf(x) : exp(x);
}

__device__ inline real logarithm(real x) {
    return sizeof(real) == 4 ? logf(x) : log(x);
}

struct Softmax {
    real top, sum;  // the largest logit, and Σ exp(logit − top)
};

// In one pass: when a larger logit turns up, the sum so far is scaled down to it.
__device__ inline Softmax softmax_of(const real* logits, int C, int M) {
    Softmax s = {logits[0], 1};
    for (int c = 1; c < C; c++) {
        real value = logits[(offset)c * M];
        if (value > s.top) {
            // logits of −∞ before the first finite one count for nothing (and −∞ − −∞ is no number)
            bool nothing = s.top == -real(__int_as_float(0x7f800000));
            s.sum = (nothing ? real(0) : s.sum * exponential(s.top - value)) + 1;
            s.top = value;
        } else {
            s.sum += value == s.top ? real(1) : exponential(value - s.top);
        }
    }
    return s;
}

// loss[n,m] = weight[t]·(log Σ_c exp x[n,c,m] − x[n,t,m]), 0 where t = target[n,m] is ignored.
extern "C" __global__ void __launch_bounds__(256, 4)
cross_entropy(const real* x, const long long* target, const real* weight, real* loss, offset pixels, int C, int M,
              long long ignore_index) {
    for (offset pixel = first_element(); pixel < pixels; pixel += all_threads()) {
        long long t = target[pixel];
        if (t == ignore_index) {
            loss[pixel] = 0;
            continue;
        }
        const real* logits = x + (pixel / M * C) * M + pixel % M;
        Softmax s = softmax_of(logits, C, M);
        real value = logarithm(s.sum) + (s.top - logits[t * M]);
        loss[pixel] = weight ? value * weight[t] : value;
    }
}

// gx[n,c,m] = gy[n,m]·weight[t]·(softmax(x)[n,c,m] − [c = t]), 0 where t is ignored, whatever its logits are.
extern "C" __global__ void __launch_bounds__(256, 4)
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
        Softmax s = softmax_of(logits, C, M);
        real factor = weight ? gy[pixel] * weight[t] : gy[pixel];
        for (int c = 0; c < C; c++) {
            real share = exponential(logits[(offset)c * M] - s.top) / s.sum;
            gx[at + (offset)c * M] = factor * (c == t ? share - 1 : share);
        }
    }
}

// sums[slice] = (how many labels are out of range, Σ weight[t] of the others), ignored ones left out.
extern "C" __global__ void __launch_bounds__(256)
label_sums(const long long* labels, const double* weight, double2* sums, offset count, int classes,
           long long ignore_index) {
    __shared__ double parts[2 * 256 / WARP];
    double sum[2] = {0, 0};
    for (offset e = first_element(); e < count; e += all_threads()) {
        long long t = labels[e];
        if (t == ignore_index) continue;
        if (t < 0 || t >= classes) {
            sum[0] += 1;
        } else {
            sum[1] += weight ? weight[t] : 1.0;
        }
    }
    block_sum<2, 256>(sum, parts);
    if (threadIdx.x == 0) {
        double2 both = {sum[0], sum[1]};
        sums[blockIdx.x] = both;
    }
}

// total = Σ sums[slice], by one block.
extern "C" __global__ void __launch_bounds__(256) label_totals(const double2* sums, double2* total, int slices) {
    __shared__ double parts[2 * 256 / WARP];
    double sum[2] = {0, 0};
    for (int s = threadIdx.x; s < slices; s += 256) {
        sum[0] += sums[s].x;
        sum[1] += sums[s].y;
    }
    block_sum<2, 256>(sum, parts);
    if (threadIdx.x == 0) {
        double2 both = {sum[0], sum[1]};
        *total = both;
    }
}
