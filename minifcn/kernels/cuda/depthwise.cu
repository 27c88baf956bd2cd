// Convolutions of one filter per channel: too little arithmetic for a matrix product, so each number is gathered
// directly. A bilinear upsampling with groups = channels is a transposed convolution of this kind, of which each pixel
// sees 2 × 2 taps at most.
//
// A row of blocks belongs to one plane (n, c), its threads to the places within. w is (C, I, J).
#include "reduce.cuh"

constexpr int THREADS = 256;

// y[n,c,p,q] = max(Σ x[n,c,h,v]·w[c,i,j] · scale[c] + b[c] + add[n,c,p,q], 0).
extern "C" __global__ void __launch_bounds__(THREADS)
conv2d(const real* x, const real* w, Finish f, real* y, offset planes, Windows g) {
    int places = g.P * g.Q;
    for (offset plane = blockIdx.y; plane < planes; plane += gridDim.y) {
        int c = plane % g.C;
        const real *image = x + plane * g.H * g.W, *filter = w + c * g.I * g.J;
        for (int place = blockIdx.x * THREADS + threadIdx.x; place < places; place += gridDim.x * THREADS) {
            int top = place / g.Q * g.stride_h - g.pad_h, left = place % g.Q * g.stride_w - g.pad_w;
            real sum = 0;
            for (int i = 0; i < g.I; i++) {
                for (int j = 0; j < g.J; j++) {
                    int h = top + i * g.dil_h, v = left + j * g.dil_w;
                    if (inside(h, v, g.H, g.W)) sum += image[h * g.W + v] * filter[i * g.J + j];
                }
            }
            y[plane * places + place] = finished(f, sum, c, plane * places + place);
        }
    }
}

// x[n,c,h,v] = Σ y[n,c,p,q]·w[c,i,j] + b[c]. Only the taps that reach (h, v) are visited: every stride-th, of dilation 1.
// Filters are `step` numbers apart: I·J, or (C + 1)·I·J on the diagonal of dense ones (C, C, I, J), and then everything
// is done only if `dense` says that the others are zero. (Four blocks to a processor leave enough registers.)
extern "C" __global__ void __launch_bounds__(THREADS, 4)
conv_transpose2d(const real* y, const real* w, const real* b, const int* dense, real* x, offset planes, Windows g,
                 int step) {
    if (dense && *dense) return;
    int pixels = g.H * g.W;
    for (offset plane = blockIdx.y; plane < planes; plane += gridDim.y) {
        int c = plane % g.C;
        const real *scores = y + plane * g.P * g.Q, *filter = w + (offset)c * step;
        for (int pixel = blockIdx.x * THREADS + threadIdx.x; pixel < pixels; pixel += gridDim.x * THREADS) {
            real sum = b ? b[c] : real(0);
            windows_at(pixel, g, [&](int p, int q, int i, int j) { sum += scores[p * g.Q + q] * filter[i * g.J + j]; });
            x[plane * pixels + pixel] = sum;
        }
    }
}

// w[c,i,j] = Σ x[n,c,h,v]·y[n,c,p,q], in float64: a block for each tap of each channel.
extern "C" __global__ void __launch_bounds__(THREADS)
conv2d_weight(const real* x, const real* y, real* w, Windows g) {
    __shared__ double parts[THREADS / WARP];
    int taps = g.I * g.J, places = g.P * g.Q;
    int c = blockIdx.x / taps, tap = blockIdx.x % taps;
    int down = tap / g.J * g.dil_h - g.pad_h, right = tap % g.J * g.dil_w - g.pad_w;
    double sum[1] = {0};
    for (int n = 0; n < g.N; n++) {
        offset plane = (offset)n * g.C + c;
        for (int place = threadIdx.x; place < places; place += THREADS) {
            int h = place / g.Q * g.stride_h + down, v = place % g.Q * g.stride_w + right;
            if (inside(h, v, g.H, g.W)) {
                sum[0] += (double)x[plane * g.H * g.W + h * g.W + v] * y[plane * places + place];
            }
        }
    }
    block_sum<1, THREADS>(sum, parts);
    if (threadIdx.x == 0) w[blockIdx.x] = sum[0];
}
