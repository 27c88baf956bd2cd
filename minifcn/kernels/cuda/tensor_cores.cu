// The implicit products of implicit.cuh by tensor cores: factors rounded to TF32, 10 bits of mantissa, sums in float32.
#include "implicit.cuh"

// A warp has TALL × WIDE of the block's numbers, in pieces of 16 × 8.
template <class T, int TALL_, int WIDE_>
struct TensorCores {
    static constexpr int TALL = TALL_ / 16, WIDE = WIDE_ / 8, ACROSS = T::COLUMNS / WIDE_;
    float sums[TALL][WIDE][4] = {};

    __device__ static int first_row() {
        return threadIdx.x / 32 / ACROSS * TALL_;
    }
    __device__ static int first_column() {
        return threadIdx.x / 32 % ACROSS * WIDE_;
    }

    __device__ void add(const float* a, const float* b) {
        int g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;  // as mma_m16n8k8_tf32 spreads the matrices
#pragma unroll
        for (int k = 0; k < DEPTH; k += 8) {
            unsigned left[TALL][4], right[WIDE][2];
#pragma unroll
            for (int i = 0; i < TALL; i++) {
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    int row = first_row() + i * 16 + g + e % 2 * 8;
                    left[i][e] = float_to_tf32(a[T::at_a(row, k + q + e / 2 * 4)]);
                }
            }
#pragma unroll
            for (int j = 0; j < WIDE; j++) {
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    right[j][e] = float_to_tf32(b[T::at_b(k + q + e * 4, first_column() + j * 8 + g)]);
                }
            }
#pragma unroll
            for (int i = 0; i < TALL; i++) {
#pragma unroll
                for (int j = 0; j < WIDE; j++) mma_m16n8k8_tf32(sums[i][j], left[i], right[j]);
            }
        }
    }

    // use(row, value) for each of this thread's numbers, where begin(column) gives the use of a column
    template <class Begin>
    __device__ void each(Begin begin) const {
        int g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
#pragma unroll
        for (int j = 0; j < WIDE * 2; j++) {
            auto use = begin(first_column() + j / 2 * 8 + 2 * q + j % 2);
#pragma unroll
            for (int i = 0; i < TALL * 2; i++) {
                use(first_row() + i / 2 * 16 + i % 2 * 8 + g, sums[i / 2][j / 2][i % 2 * 2 + j % 2]);
            }
        }
    }
};

// Blocks of 64 × 64 for small results, so that there are enough of them; of 128 × 128, which read less; and of 64 × 128
// for few rows.
using Small = Tiling<64, 64, 128, 4, false>;
using Flat = Tiling<64, 128, 256, 3, false>;
using Large = Tiling<128, 128, 256, 2, false>;
using SmallTurned = Tiling<64, 64, 128, 4, true>;
using FlatTurned = Tiling<64, 128, 256, 3, true>;
using LargeTurned = Tiling<128, 128, 256, 2, true>;

extern "C" __global__ void __launch_bounds__(128)
conv2d_small(Problem p, Windows g, Finish f, real* y, real* parts) {
    __shared__ __align__(16) real memory[Small::NUMBERS];
    conv2d_block<Small, TensorCores<Small, 32, 32>>(p, g, f, y, parts, memory);
}

extern "C" __global__ void __launch_bounds__(256)
conv2d_flat(Problem p, Windows g, Finish f, real* y, real* parts) {
    __shared__ __align__(16) real memory[Flat::NUMBERS];
    conv2d_block<Flat, TensorCores<Flat, 32, 32>>(p, g, f, y, parts, memory);
}

extern "C" __global__ void __launch_bounds__(256)
conv2d_large(Problem p, Windows g, Finish f, real* y, real* parts) {
    __shared__ __align__(16) real memory[Large::NUMBERS];
    conv2d_block<Large, TensorCores<Large, 64, 32>>(p, g, f, y, parts, memory);
}

extern "C" __global__ void __launch_bounds__(128)
conv2d_weight_small(Problem p, Windows g, int taps, real* result) {
    __shared__ __align__(16) real memory[SmallTurned::NUMBERS];
    conv2d_weight_block<SmallTurned, TensorCores<SmallTurned, 32, 32>>(p, g, taps, result, memory);
}

extern "C" __global__ void __launch_bounds__(256)
conv2d_weight_flat(Problem p, Windows g, int taps, real* result) {
    __shared__ __align__(16) real memory[FlatTurned::NUMBERS];
    conv2d_weight_block<FlatTurned, TensorCores<FlatTurned, 32, 32>>(p, g, taps, result, memory);
}

extern "C" __global__ void __launch_bounds__(256)
conv2d_weight_large(Problem p, Windows g, int taps, real* result) {
    __shared__ __align__(16) real memory[LargeTurned::NUMBERS];
    conv2d_weight_block<LargeTurned, TensorCores<LargeTurned, 64, 32>>(p, g, taps, result, memory);
}

extern "C" __global__ void __launch_bounds__(128)
conv_transpose2d(Problem p, Windows g, Phases s, const real* bias, const int* dense, real* x) {
    if (dense && !*dense) return;
    __shared__ __align__(16) real memory[Small::NUMBERS];
    conv_transpose2d_block<Small, TensorCores<Small, 32, 32>>(p, g, s, bias, x, memory);
}
