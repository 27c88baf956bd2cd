// The windows of an image as columns, cols[n, c·I·J + i·J + j, p·Q + q] = x[n,c,h,v], and back. Only score rows
// from … from + rows − 1 are taken, so that columns of a large image can be made part by part: then cols has rows·Q
// columns.
#include "common.cuh"

// A thread has one score of one channel and copies its I·J taps; neighbours write side by side.
extern "C" __global__ void __launch_bounds__(256)
unfold(const real* x, real* cols, offset planes, Windows g, int from, int rows) {
    int places = rows * g.Q;
    for (offset plane = blockIdx.y; plane < planes; plane += gridDim.y) {
        const real* image = x + plane * g.H * g.W;
        real* out = cols + plane * g.I * g.J * places;
        for (int place = blockIdx.x * blockDim.x + threadIdx.x; place < places; place += gridDim.x * blockDim.x) {
            int top = (from + place / g.Q) * g.stride_h - g.pad_h, left = place % g.Q * g.stride_w - g.pad_w;
            for (int i = 0; i < g.I; i++) {
                for (int j = 0; j < g.J; j++) {
                    int h = top + i * g.dil_h, v = left + j * g.dil_w;
                    out[(offset)(i * g.J + j) * places + place] = inside(h, v, g.H, g.W) ? image[h * g.W + v] : real(0);
                }
            }
        }
    }
}

// The adjoint: a thread has one pixel and gathers what was read from it, plus b[c] where a bias is given. With `more` the
// sum goes on top of what x holds, of columns that came before. (Four blocks to a processor leave enough registers.)
extern "C" __global__ void __launch_bounds__(256, 4)
fold(const real* cols, real* x, const real* b, offset planes, Windows g, int from, int rows, int more) {
    int places = rows * g.Q, pixels = g.H * g.W;
    for (offset plane = blockIdx.y; plane < planes; plane += gridDim.y) {
        const real* in = cols + plane * g.I * g.J * places;
        real start = b ? b[plane % g.C] : real(0);
        for (int pixel = blockIdx.x * blockDim.x + threadIdx.x; pixel < pixels; pixel += gridDim.x * blockDim.x) {
            real sum = more ? x[plane * pixels + pixel] : start;
            windows_at(pixel, g, [&](int p, int q, int i, int j) {
                if (p >= from && p < from + rows) sum += in[(offset)(i * g.J + j) * places + (p - from) * g.Q + q];
            });
            x[plane * pixels + pixel] = sum;
        }
    }
}
