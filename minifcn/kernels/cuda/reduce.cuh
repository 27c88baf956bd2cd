// Sums over the threads of a block, added in an order that never changes: bit-identical from run to run.
#pragma once
#include "common.cuh"

constexpr int WARP = 32;

__device__ inline double warp_sum(double value) {
    for (int step = WARP / 2; step > 0; step /= 2) value += __shfl_down_sync(0xffffffffu, value, step);
    return value;  // of all lanes, in lane 0
}

// The sums of K numbers per thread, known to thread 0 afterwards. THREADS, a multiple of 32, is the block's size, and
// parts K·THREADS/32 numbers of shared memory.
template <int K, int THREADS>
__device__ void block_sum(double (&values)[K], double* parts) {
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    for (int k = 0; k < K; k++) {
        double sum = warp_sum(values[k]);
        if (lane == 0) parts[k * (THREADS / WARP) + warp] = sum;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int k = 0; k < K; k++) {
            values[k] = 0;
            for (int w = 0; w < THREADS / WARP; w++) values[k] += parts[k * (THREADS / WARP) + w];
        }
    }
    __syncthreads();  // so that parts can be written again
}
