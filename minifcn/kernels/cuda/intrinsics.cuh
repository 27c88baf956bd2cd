// What CUDA C++ has no words for, in PTX: copies to shared memory that go on in the background, and tensor cores. All
// inline PTX of the project is here. CUDA_ON_CPU is the tests' emulation, which brings its own bodies.
#pragma once

#ifndef CUDA_ON_CPU

// `bytes` of global memory to shared memory without a register between; zeros where not valid, and then nothing is read.
template <int bytes>
__device__ inline void copy_async(void* shared, const void* global, bool valid) {
    unsigned to = (unsigned)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(global), "n"(bytes),
                 "r"(valid ? bytes : 0)
                 : "memory");
}

// The copies since the last commit become one group.
__device__ inline void copy_async_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Until all groups of this thread but the latest N have arrived.
template <int N>
__device__ inline void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// x with 10 bits of mantissa, to the nearest.
__device__ inline unsigned float_to_tf32(float x) {
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}

// d (16, 8) += a (16, 8) @ b (8, 8), spread over a warp. Lane l, with g = l / 4 and q = l % 4, holds
//     a: (g, q), (g + 8, q), (g, q + 4), (g + 8, q + 4)      b: (q, g), (q + 4, g)
//     d: (g, 2q), (g, 2q + 1), (g + 8, 2q), (g + 8, 2q + 1)
// PTX ISA, "Matrix fragments for mma.m16n8k8".
__device__ inline void mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#endif
