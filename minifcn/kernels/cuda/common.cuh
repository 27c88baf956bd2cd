// What every family of kernels uses. The compiler's options give REAL, which is float or double.
//
// Letters: n batch, c/o channels in/out, h,v image, i,j filter, p,q scores; sizes N C O H W I J P Q.
// Places within one plane (H·W or P·Q) are int; offsets into whole arrays are `offset`, since those may pass 2^31.
#pragma once

typedef REAL real;
typedef long long offset;

// As many numbers as one 16-byte load or store moves.
constexpr int PACK = 16 / sizeof(real);
struct __align__(16) Pack {
    real at[PACK];
};

// How windows of I × J taps lie over an image of H × W: score (p, q) reads h = p·stride + i·dilation − padding and
// likewise v. Mirrors WINDOWS in launch.py.
struct Windows {
    int N, C, H, W, I, J, P, Q;
    int stride_h, stride_w, pad_h, pad_w, dil_h, dil_w;
};

__device__ inline bool inside(int h, int v, int H, int W) {
    return h >= 0 && h < H && v >= 0 && v < W;
}

__device__ inline bool is_nan(real x) {
    return x != x;
}

__device__ inline int at_least(int a, int b) {
    return a > b ? a : b;
}

__device__ inline int at_most(int a, int b) {
    return a < b ? a : b;
}

__device__ inline int divide_up(int a, int b) {
    return (a + b - 1) / b;
}

// use(p, i) for the windows p of an axis that hold row h by their tap i: h = p·stride + i·dilation − padding. Of dilation
// 1, windows are counted, ⌈I/stride⌉ at most; else taps, as most windows step over h.
template <class Use>
__device__ inline void windows_along(int h, int stride, int padding, int dilation, int taps, int count, Use use) {
    int from_first = h + padding;
    if (dilation == 1) {
        int beyond = from_first - (taps - 1), last = at_most(from_first / stride, count - 1);
        for (int p = beyond <= 0 ? 0 : divide_up(beyond, stride); p <= last; p++) use(p, from_first - p * stride);
    } else {
        for (int i = 0, down = from_first; i < taps && down >= 0; i++, down -= dilation) {
            int p = down / stride;
            if (p * stride == down && p < count) use(p, i);
        }
    }
}

// use(p, q, i, j) for the windows (p, q) that hold a pixel h·W + v, by their tap (i, j): what a gradient gathers from.
template <class Use>
__device__ inline void windows_at(int pixel, const Windows& g, Use use) {
    int h = pixel / g.W, v = pixel % g.W;
    windows_along(h, g.stride_h, g.pad_h, g.dil_h, g.I, g.P, [&](int p, int i) {
        windows_along(v, g.stride_w, g.pad_w, g.dil_w, g.J, g.Q, [&](int q, int j) { use(p, q, i, j); });
    });
}

// What follows a convolution: max(value·scale[o] + b[o] + add[at], 0); null pointers leave their part out. Mirrors FINISH
// in launch.py.
struct Finish {
    const real *scale, *b, *add;
    int relu;
};

__device__ inline real finished(const Finish& f, real value, int o, offset at) {
    if (f.scale) value *= f.scale[o];
    if (f.b) value += f.b[o];
    if (f.add) value += f.add[at];
    return f.relu && value <= 0 ? real(0) : value;
}

// This thread's place among all threads of a grid with one axis, and their number.
__device__ inline offset first_element() {
    return blockIdx.x * (offset)blockDim.x + threadIdx.x;
}

__device__ inline offset all_threads() {
    return gridDim.x * (offset)blockDim.x;
}

// Whether all arrays begin at a multiple of 16 bytes.
template <int K>
__device__ inline bool all_aligned(const real* const (&arrays)[K]) {
    for (int k = 0; k < K; k++) {
        if ((size_t)arrays[k] % sizeof(Pack) != 0) return false;
    }
    return true;
}

// out[e] = f(in[0][e], …) of one number, or of one pack.
template <int K, class F>
__device__ inline void map_one(offset e, const real* const (&in)[K], real* out, F f) {
    real values[K];
    for (int k = 0; k < K; k++) values[k] = in[k][e];
    out[e] = f(values);
}

template <int K, class F>
__device__ inline void map_pack(offset e, const real* const (&in)[K], real* out, F f) {
    Pack given[K], result;
    for (int k = 0; k < K; k++) given[k] = ((const Pack*)in[k])[e];
    for (int l = 0; l < PACK; l++) {
        real values[K];
        for (int k = 0; k < K; k++) values[k] = given[k].at[l];
        result.at[l] = f(values);
    }
    ((Pack*)out)[e] = result;
}

// out[e] = f(in[0][e], …) for n elements, 16 bytes at a time where the arrays allow it. out may be one of the inputs.
template <int K, class F>
__device__ void map(offset n, const real* const (&in)[K], real* out, F f) {
    offset packs = all_aligned(in) && all_aligned({out}) ? n / PACK : 0;
    for (offset e = first_element(); e < packs; e += all_threads()) map_pack(e, in, out, f);
    for (offset e = packs * PACK + first_element(); e < n; e += all_threads()) map_one(e, in, out, f);
}

// The same for planes of M numbers, where begin(plane) gives the f of a plane. A row of blocks belongs to one plane.
template <int K, class Begin>
__device__ void map_planes(offset planes, int M, const real* const (&in)[K], real* out, Begin begin) {
    bool packed = M % PACK == 0 && all_aligned(in) && all_aligned({out});
    int first = blockIdx.x * blockDim.x + threadIdx.x, step = gridDim.x * blockDim.x;
    for (offset plane = blockIdx.y; plane < planes; plane += gridDim.y) {
        auto f = begin(plane);
        if (packed) {
            for (int e = first; e < M / PACK; e += step) map_pack(plane * (M / PACK) + e, in, out, f);
        } else {
            for (int m = first; m < M; m += step) map_one(plane * M + m, in, out, f);
        }
    }
}
