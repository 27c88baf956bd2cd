// Philox-4x32-10 (Salmon et al. 2011, §3.3), the same numbers as kernels/philox.py draws on the CPU.
#pragma once

// The four words of the counter (block, 0) with the key `seed`.
__device__ inline uint4 philox4x32(unsigned long long block, unsigned long long seed) {
    unsigned c0 = (unsigned)block, c1 = (unsigned)(block >> 32), c2 = 0, c3 = 0;
    unsigned k0 = (unsigned)seed, k1 = (unsigned)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        unsigned a_low = 0xD2511F53u * c0, a_high = __umulhi(0xD2511F53u, c0);
        unsigned b_low = 0xCD9E8D57u * c2, b_high = __umulhi(0xCD9E8D57u, c2);
        c0 = b_high ^ c1 ^ k0;
        c1 = b_low;
        c2 = a_high ^ c3 ^ k1;
        c3 = a_low;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    uint4 words = {c0, c1, c2, c3};
    return words;
}
