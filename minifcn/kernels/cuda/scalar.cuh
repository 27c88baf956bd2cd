// A block's product by ordinary multiplications: exact float32, or float64. A thread has TALL × WIDE of its numbers.
#pragma once
#include "implicit.cuh"

template <class T>
struct Scalar {
    static constexpr int ACROSS = 16, DOWN = T::THREADS / ACROSS;
    static constexpr int TALL = T::ROWS / DOWN, WIDE = T::COLUMNS / ACROSS;
    real sums[TALL][WIDE] = {};

    // Shared memory is read 16 bytes at a time, or reading would take longer than multiplying.
    __device__ void add(const real* a, const real* b) {
        int row = threadIdx.x / ACROSS * TALL, column = threadIdx.x % ACROSS * WIDE;
#pragma unroll
        for (int k = 0; k < DEPTH; k += PACK) {
            Pack left[TALL];
#pragma unroll
            for (int i = 0; i < TALL; i++) left[i] = *(const Pack*)&a[T::at_a(row + i, k)];
            if constexpr (T::COLUMNS_BY_DEPTH) {
                Pack right[WIDE];
#pragma unroll
                for (int j = 0; j < WIDE; j++) right[j] = *(const Pack*)&b[T::at_b(k, column + j)];
#pragma unroll
                for (int l = 0; l < PACK; l++) {
#pragma unroll
                    for (int i = 0; i < TALL; i++) {
#pragma unroll
                        for (int j = 0; j < WIDE; j++) sums[i][j] += left[i].at[l] * right[j].at[l];
                    }
                }
            } else {
#pragma unroll
                for (int l = 0; l < PACK; l++) {
                    Pack right[WIDE / PACK];
#pragma unroll
                    for (int j = 0; j < WIDE / PACK; j++) {
                        right[j] = *(const Pack*)&b[T::at_b(k + l, column + j * PACK)];
                    }
#pragma unroll
                    for (int i = 0; i < TALL; i++) {
#pragma unroll
                        for (int j = 0; j < WIDE; j++) sums[i][j] += left[i].at[l] * right[j / PACK].at[j % PACK];
                    }
                }
            }
        }
    }

    // use(row, value) for each of this thread's numbers, where begin(column) gives the use of a column
    template <class Begin>
    __device__ void each(Begin begin) const {
        int row = threadIdx.x / ACROSS * TALL, column = threadIdx.x % ACROSS * WIDE;
#pragma unroll
        for (int j = 0; j < WIDE; j++) {
            auto use = begin(column + j);
#pragma unroll
            for (int i = 0; i < TALL; i++) use(row + i, sums[i][j]);
        }
    }
};
