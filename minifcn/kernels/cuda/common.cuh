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

// Which windows p of an axis can hold row h = p·stride + i·dilation − padding: first … last.
struct Range {
    int first, last;
};

__device__ inline Range range_at(int h, int stride, int padding, int dilation, int taps, int count) {
    int from_first = h + padding, beyond = from_first - (taps - 1) * dilation;
    Range range = {beyond <= 0 ? 0 : divide_up(beyond, stride), at_most(from_first / stride, count - 1)};
    return range;
}

// use(p, q, i, j) for the windows (p, q) that hold a pixel h·W + v, by their tap (i, j): what a gradient gathers from. Of
// a stride s and dilation 1 they are ⌈I/s⌉·⌈J/s⌉ at most.
template <class Use>
__device__ inline void windows_at(int pixel, const Windows& w, Use use) {
    int h = pixel / w.W, v = pixel % w.W;
    Range rows = range_at(h, w.stride_h, w.pad_h, w.dil_h, w.I, w.P);
    Range columns = range_at(v, w.stride_w, w.pad_w, w.dil_w, w.J, w.Q);
    for (int p = rows.first; p <= rows.last; p++) {
        int down = h + w.pad_h - p * w.stride_h, i = down / w.dil_h;
        if (i * w.dil_h != down) continue;
        for (int q = columns.first; q <= columns.last; q++) {
            int right = v + w.pad_w - q * w.stride_w, j = right / w.dil_w;
            if (j * w.dil_w == right) use(p, q, i, j);
        }
    }
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
