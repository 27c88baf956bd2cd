// The implicit products of implicit.cuh in strict float32, or float64.
#include "reduce.cuh"
#include "scalar.cuh"

constexpr int STAGES = sizeof(real) == 4 ? 4 : 2;
// Two blocks to a processor leave the products enough registers: left to itself, the compiler aims at more and spills.
using Columns = Tiling<64, 64, 256, STAGES, false>;
using Turned = Tiling<64, 64, 256, STAGES == 4 ? 3 : 2, true>;

extern "C" __global__ void __launch_bounds__(256, 2)
conv2d(Problem p, Windows g, Finish f, real* y, real* parts) {
    __shared__ __align__(16) real memory[Columns::NUMBERS];
    conv2d_block<Columns, Scalar<Columns>>(p, g, f, y, parts, memory);
}

extern "C" __global__ void __launch_bounds__(256, 2) conv2d_weight(Problem p, Windows g, int taps, real* result) {
    __shared__ __align__(16) real memory[Turned::NUMBERS];
    conv2d_weight_block<Turned, Scalar<Turned>>(p, g, taps, result, memory);
}

extern "C" __global__ void __launch_bounds__(256, 2)
conv_transpose2d(Problem p, Windows g, Phases s, const real* bias, const int* dense, real* x) {
    if (dense && !*dense) return;
    __shared__ __align__(16) real memory[Columns::NUMBERS];
    conv_transpose2d_block<Columns, Scalar<Columns>>(p, g, s, bias, x, memory);
}

// The filters of the phases: a[(c·sh + a)·sw + b][(o·T + t)·R + r] = w[o, c, a + sh·(T − 1 − t), b + sw·(R − 1 − r)],
// 0 beyond the filter and from K = O·T·R to the pitch. `dense`, if given, is 0 before, and 1 afterwards where some filter
// from o to another channel c ≠ o is not zero: then the products are needed, else gathering per channel is less work
// (depthwise.cu). Both kernels look at it, so that nobody has to wait for the answer.
extern "C" __global__ void __launch_bounds__(256)
phase_filters(const real* w, real* a, int* dense, int O, int C, int I, int J, int stride_h, int stride_w, int T,
              int R, int pitch) {
    __shared__ double parts[256 / WARP];
    offset count = (offset)C * stride_h * stride_w * pitch;
    double beside[1] = {0};
    for (offset e = first_element(); e < count; e += all_threads()) {
        int k = e % pitch, row = e / pitch;
        int r = k % R, t = k / R % T, o = k / R / T;
        int in_row = row % stride_w, in_column = row / stride_w % stride_h, c = row / stride_w / stride_h;
        int i = in_column + stride_h * (T - 1 - t), j = in_row + stride_w * (R - 1 - r);
        real value = o < O && i < I && j < J ? w[(((offset)o * C + c) * I + i) * J + j] : real(0);
        if (value != 0 && o != c) beside[0] += 1;
        a[e] = value;
    }
    if (!dense) return;
    block_sum<1, 256>(beside, parts);
    if (threadIdx.x == 0 && beside[0] > 0) atomicExch(dense, 1);
}

// y (N, O, P·Q) from the parts (shares, O, N·P·Q) of its sums, and what follows.
extern "C" __global__ void __launch_bounds__(256)
finish_parts(const real* parts, Finish f, real* y, int O, int places, int per_image, int shares) {
    offset count = (offset)O * places;
    for (offset e = first_element(); e < count; e += all_threads()) {
        int o = e / places, place = e % places;
        real sum = 0;
        for (int s = 0; s < shares; s++) sum += parts[s * count + e];
        offset at = ((offset)(place / per_image) * O + o) * per_image + place % per_image;
        y[at] = finished(f, sum, o, at);
    }
}
