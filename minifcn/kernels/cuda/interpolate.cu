// Interpolation: an output is a·(one input) + b·(the next) along each axis. Tables say which: for output p of an axis
// the input low[p], its factor a[p], and b[p], the factor of low[p] + 1. Where b is 0 the next is not read, so that a
// NaN or an infinite value reaches only the outputs beside it.
#include "common.cuh"

struct Axis {
    const int* low;
    const real *a, *b;
    const int* first;  // by input: the first output that reads it or the input before it
    int in, out;
};

__device__ inline real along_row(const real* row, const Axis& axis, int q) {
    int v = axis.low[q];
    real value = axis.a[q] * row[v];
    if (axis.b[q] != 0) value += axis.b[q] * row[v + 1];
    return value;
}

extern "C" __global__ void __launch_bounds__(256)
interpolate(const real* x, real* y, offset planes, Axis rows, Axis columns) {
    int places = rows.out * columns.out;
    for (offset plane = blockIdx.y; plane < planes; plane += gridDim.y) {
        const real* image = x + plane * rows.in * columns.in;
        for (int place = blockIdx.x * blockDim.x + threadIdx.x; place < places; place += gridDim.x * blockDim.x) {
            int p = place / columns.out, q = place % columns.out;
            const real* row = image + rows.low[p] * columns.in;
            real value = rows.a[p] * along_row(row, columns, q);
            if (rows.b[p] != 0) value += rows.b[p] * along_row(row + columns.in, columns, q);
            y[plane * places + place] = value;
        }
    }
}

// The factor with which output p reads input h.
__device__ inline real factor(const Axis& axis, int p, int h) {
    return axis.low[p] == h ? axis.a[p] : axis.low[p] + 1 == h ? axis.b[p] : real(0);
}

// The adjoint: x[n,c,h,v] = Σ of the outputs that read (h, v), each times the factor with which it does.
extern "C" __global__ void __launch_bounds__(256)
interpolate_adjoint(const real* y, real* x, offset planes, Axis rows, Axis columns) {
    int pixels = rows.in * columns.in;
    for (offset plane = blockIdx.y; plane < planes; plane += gridDim.y) {
        const real* scores = y + plane * rows.out * columns.out;
        for (int pixel = blockIdx.x * blockDim.x + threadIdx.x; pixel < pixels; pixel += gridDim.x * blockDim.x) {
            int h = pixel / columns.in, v = pixel % columns.in;
            real sum = 0;
            for (int p = rows.first[h]; p < rows.out && rows.low[p] <= h; p++) {
                real by_row = factor(rows, p, h);
                if (by_row == 0) continue;
                for (int q = columns.first[v]; q < columns.out && columns.low[q] <= v; q++) {
                    real by_column = factor(columns, q, v);
                    if (by_column != 0) sum += by_row * by_column * scores[p * columns.out + q];
                }
            }
            x[plane * pixels + pixel] = sum;
        }
    }
}
