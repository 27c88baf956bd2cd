// A block's product by ordinary multiplications: exact float32, or float64. A thread has TALL × WIDE of its numbers.
#pragma once
#include "implicit.cuh"

template <class T>
struct Scalar {
    static constexpr int ACROSS = 16, DOWN = T::THREADS / ACROSS;
    static constexpr int TALL = T::ROWS / DOWN, WIDE = T::COLUMNS / ACROSS;
    real sums[TALL][WIDE] = {};

    __device__ void add(const real* a, const real* b) {
        int down = threadIdx.x / ACROSS, across = threadIdx.x % ACROSS;
#pragma unroll
        for (int k = 0; k < DEPTH; k++) {
            real left[TALL], right[WIDE];
#pragma unroll
            for (int i = 0; i < TALL; i++) left[i] = a[T::at_a(down * TALL + i, k)];
#pragma unroll
            for (int j = 0; j < WIDE; j++) right[j] = b[T::at_b(k, across + j * ACROSS)];
#pragma unroll
            for (int i = 0; i < TALL; i++) {
#pragma unroll
                for (int j = 0; j < WIDE; j++) sums[i][j] += left[i] * right[j];
            }
        }
    }

    // use(row, column, value) for each of this thread's numbers
    template <class Use>
    __device__ void each(Use use) const {
        int down = threadIdx.x / ACROSS, across = threadIdx.x % ACROSS;
#pragma unroll
        for (int i = 0; i < TALL; i++) {
#pragma unroll
            for (int j = 0; j < WIDE; j++) use(down * TALL + i, across + j * ACROSS, sums[i][j]);
        }
    }
};
