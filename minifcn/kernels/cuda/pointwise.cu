// One value in, one value out: ReLU, sums, what follows a convolution, and dropout.
#include "common.cuh"
#include "philox.cuh"

extern "C" __global__ void __launch_bounds__(256) add(const real* x, const real* y, real* z, offset n) {
    map<2>(n, {x, y}, z, [](const real (&v)[2]) { return v[0] + v[1]; });
}

// A NaN stays a NaN: it is not ≤ 0.
extern "C" __global__ void __launch_bounds__(256) relu(const real* x, real* y, offset n) {
    map<1>(n, {x}, y, [](const real (&v)[1]) { return v[0] <= 0 ? real(0) : v[0]; });
}

extern "C" __global__ void __launch_bounds__(256) relu_grad(const real* gy, const real* y, real* gx, offset n) {
    map<2>(n, {gy, y}, gx, [](const real (&v)[2]) { return v[1] <= 0 ? real(0) : v[0]; });
}

// What follows a convolution, in place, on planes (n, o) of M = P·Q scores.
extern "C" __global__ void __launch_bounds__(256) epilogue(real* y, Finish f, offset planes, int O, int M) {
    map_planes<2>(planes, M, {y, f.add ? f.add : y}, y, [=](offset plane) {
        int o = plane % O;
        real factor = f.scale ? f.scale[o] : real(1), shift = f.b ? f.b[o] : real(0);
        return [=](const real (&v)[2]) {
            real value = v[0] * factor + shift + (f.add ? v[1] : real(0));
            return f.relu && value <= 0 ? real(0) : value;
        };
    });
}

// result[e] = Σ parts[share][e], shares in order.
extern "C" __global__ void __launch_bounds__(256) add_parts(const real* parts, real* result, offset count, int shares) {
    for (offset e = first_element(); e < count; e += all_threads()) {
        real sum = 0;
        for (int s = 0; s < shares; s++) sum += parts[s * count + e];
        result[e] = sum;
    }
}

// y[e] = x[e]·factor where random word number start + e is at least the threshold, else 0. One evaluation gives four
// words, so a thread does the elements that share it.
extern "C" __global__ void __launch_bounds__(256)
dropout(const real* x, real* y, offset n, unsigned long long seed, unsigned long long start,
        unsigned long long threshold, real factor) {
    int before = start % 4;  // words of the first evaluation that come before the start
    for (offset group = first_element(); group * 4 < n + before; group += all_threads()) {
        uint4 words = philox4x32(start / 4 + group, seed);
        unsigned word[4] = {words.x, words.y, words.z, words.w};
        for (int k = 0; k < 4; k++) {
            offset e = group * 4 + k - before;
            if (e >= 0 && e < n) y[e] = word[k] >= threshold ? x[e] * factor : real(0);
        }
    }
}

// The same with one word for each run of `period` elements, such as the plane of a channel.
extern "C" __global__ void __launch_bounds__(256)
dropout_runs(const real* x, real* y, offset n, unsigned long long seed, unsigned long long start, offset period,
             unsigned long long threshold, real factor) {
    for (offset e = first_element(); e < n; e += all_threads()) {
        unsigned long long place = start + e / period;
        uint4 words = philox4x32(place / 4, seed);
        int k = place % 4;
        unsigned word = k == 0 ? words.x : k == 1 ? words.y : k == 2 ? words.z : words.w;
        y[e] = word >= threshold ? x[e] * factor : real(0);
    }
}
