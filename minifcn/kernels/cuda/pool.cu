// Pooling. A thread writes one number, so that nothing is added up in an order that could change: gradients gather from
// the windows that a pixel lies in instead of scattering to the pixels of a window.
//
// A row of blocks belongs to one plane (n, c), its threads to the places within.
#include "common.cuh"

// y and the tap i·J + j that holds the largest value: the first of equal ones, or the last NaN.
extern "C" __global__ void __launch_bounds__(256)
max_pool2d(const real* x, real* y, int* tap, offset planes, Windows g) {
    int places = g.P * g.Q, pixels = g.H * g.W;
    for (offset plane = blockIdx.y; plane < planes; plane += gridDim.y) {
        const real* image = x + plane * pixels;
        for (int place = blockIdx.x * blockDim.x + threadIdx.x; place < places; place += gridDim.x * blockDim.x) {
            int h = place / g.Q * g.stride_h - g.pad_h, left = place % g.Q * g.stride_w - g.pad_w;
            real best = 0;
            int winner = -1;
            for (int i = 0; i < g.I; i++, h += g.dil_h) {
                if (h < 0 || h >= g.H) continue;
                const real* row = image + h * g.W;
                for (int j = 0, v = left; j < g.J; j++, v += g.dil_w) {
                    if (v < 0 || v >= g.W) continue;
                    real value = row[v];
                    if (winner < 0 || value > best || is_nan(value)) {
                        best = value;
                        winner = i * g.J + j;
                    }
                }
            }
            y[plane * places + place] = winner < 0 ? -real(__int_as_float(0x7f800000)) : best;  // -inf: nothing but padding
            tap[plane * places + place] = winner < 0 ? 0 : winner;
        }
    }
}

// y[n,c,p,q] = x at the tap that was chosen for (p, q), 0 where that lies in the padding.
extern "C" __global__ void __launch_bounds__(256)
pool_take(const real* x, const int* tap, real* y, offset planes, Windows g) {
    int places = g.P * g.Q, pixels = g.H * g.W;
    for (offset plane = blockIdx.y; plane < planes; plane += gridDim.y) {
        for (int place = blockIdx.x * blockDim.x + threadIdx.x; place < places; place += gridDim.x * blockDim.x) {
            int chosen = tap[plane * places + place];
            int h = place / g.Q * g.stride_h + chosen / g.J * g.dil_h - g.pad_h;
            int v = place % g.Q * g.stride_w + chosen % g.J * g.dil_w - g.pad_w;
            y[plane * places + place] = inside(h, v, g.H, g.W) ? x[plane * pixels + h * g.W + v] : real(0);
        }
    }
}

// The adjoint of pool_take: x[n,c,h,v] = Σ y over the windows that chose (h, v).
extern "C" __global__ void __launch_bounds__(256)
pool_put(const real* y, const int* tap, real* x, offset planes, Windows g) {
    int places = g.P * g.Q, pixels = g.H * g.W;
    for (offset plane = blockIdx.y; plane < planes; plane += gridDim.y) {
        for (int pixel = blockIdx.x * blockDim.x + threadIdx.x; pixel < pixels; pixel += gridDim.x * blockDim.x) {
            real sum = 0;
            windows_at(pixel, g, [&](int p, int q, int i, int j) {
                offset place = plane * places + p * g.Q + q;
                if (tap[place] == i * g.J + j) sum += y[place];
            });
            x[plane * pixels + pixel] = sum;
        }
    }
}

// y[n,c,p,q] = scale[p,q] · Σ over the window.
extern "C" __global__ void __launch_bounds__(256)
avg_pool2d(const real* x, const real* scale, real* y, offset planes, Windows g) {
    int places = g.P * g.Q, pixels = g.H * g.W;
    for (offset plane = blockIdx.y; plane < planes; plane += gridDim.y) {
        const real* image = x + plane * pixels;
        for (int place = blockIdx.x * blockDim.x + threadIdx.x; place < places; place += gridDim.x * blockDim.x) {
            int top = place / g.Q * g.stride_h - g.pad_h, left = place % g.Q * g.stride_w - g.pad_w;
            real sum = 0;
            for (int i = 0; i < g.I; i++) {
                for (int j = 0; j < g.J; j++) {
                    int h = top + i * g.dil_h, v = left + j * g.dil_w;
                    if (inside(h, v, g.H, g.W)) sum += image[h * g.W + v];
                }
            }
            y[plane * places + place] = sum * scale[place];
        }
    }
}

// x[n,c,h,v] = Σ over the windows that hold (h, v) of scale[p,q]·y[n,c,p,q].
extern "C" __global__ void __launch_bounds__(256)
avg_pool2d_adjoint(const real* y, const real* scale, real* x, offset planes, Windows g) {
    int places = g.P * g.Q, pixels = g.H * g.W;
    for (offset plane = blockIdx.y; plane < planes; plane += gridDim.y) {
        const real* scores = y + plane * places;
        for (int pixel = blockIdx.x * blockDim.x + threadIdx.x; pixel < pixels; pixel += gridDim.x * blockDim.x) {
            real sum = 0;
            windows_at(pixel, g, [&](int p, int q, int, int) { sum += scores[p * g.Q + q] * scale[p * g.Q + q]; });
            x[plane * pixels + pixel] = sum;
        }
    }
}

// The rows ⌊p·H/P⌋ … ⌈(p+1)·H/P⌉ of adaptive pooling's window p.
__device__ inline int window_start(int p, int H, int P) {
    return (offset)p * H / P;
}

__device__ inline int window_end(int p, int H, int P) {
    return ((offset)(p + 1) * H + P - 1) / P;
}

// y[n,c,p,q] = the mean of the window (p, q).
extern "C" __global__ void __launch_bounds__(256)
adaptive_avg_pool2d(const real* x, real* y, offset planes, int H, int W, int P, int Q) {
    for (offset plane = blockIdx.y; plane < planes; plane += gridDim.y) {
        const real* image = x + plane * H * W;
        for (int place = blockIdx.x * blockDim.x + threadIdx.x; place < P * Q; place += gridDim.x * blockDim.x) {
            int p = place / Q, q = place % Q;
            int top = window_start(p, H, P), bottom = window_end(p, H, P);
            int left = window_start(q, W, Q), right = window_end(q, W, Q);
            real sum = 0;
            for (int h = top; h < bottom; h++) {
                for (int v = left; v < right; v++) sum += image[h * W + v];
            }
            y[plane * P * Q + place] = sum / ((bottom - top) * (right - left));
        }
    }
}

// The adjoint: x[n,c,h,v] = Σ over the windows that hold (h, v) of y over the window's size. Two blocks to a processor
// leave enough registers: left to itself, the compiler aims at more and spills.
extern "C" __global__ void __launch_bounds__(256, 2)
adaptive_avg_pool2d_adjoint(const real* y, real* x, offset planes, int H, int W, int P, int Q) {
    for (offset plane = blockIdx.y; plane < planes; plane += gridDim.y) {
        const real* scores = y + plane * P * Q;
        for (int pixel = blockIdx.x * blockDim.x + threadIdx.x; pixel < H * W; pixel += gridDim.x * blockDim.x) {
            int h = pixel / W, v = pixel % W;
            // windows p with p·H/P ≤ h and (p+1)·H/P > h, after rounding: those of the pixel's own interval
            int end_p = window_end(h, P, H), first_q = window_start(v, Q, W), end_q = window_end(v, Q, W);
            real sum = 0;
            for (int p = window_start(h, P, H); p < end_p; p++) {
                real row = 0;
                for (int q = first_q; q < end_q; q++) {
                    row += scores[p * Q + q] / (window_end(q, W, Q) - window_start(q, W, Q));
                }
                sum += row / (window_end(p, H, P) - window_start(p, H, P));
            }
            x[plane * H * W + pixel] = sum;
        }
    }
}
