// Batch normalisation and sums over channels. Ioffe & Szegedy 2015, algorithm 1 and the gradients of §3.
//
// Sums go in two stages: a block adds up its slice of a channel in float64, always in the same order, and a second
// kernel adds up the slices. Slices cut the numbers n·M + m of a channel, M = H·W, into equal runs.
#include "reduce.cuh"

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / WARP;

// What normalising x (N,C,M) comes to for one channel: y = (x − centre)·scale + shift. The mean is taken off first,
// since x·scale − mean·scale would cancel beside a mean of many deviations; what rounding the mean left over is in the
// shift.
struct Affine {
    real centre, scale, shift;
};

__device__ inline Affine affine(double mean, double var, double gamma, double beta, double eps) {
    double scale = gamma / sqrt(var + eps);
    real centre = mean;
    Affine a = {centre, real(scale), real(beta - (mean - centre) * scale)};
    return a;
}

// use(place) for this thread's places, every THREADS-th, in the block's slice of channel c of an array (N,C,M): found in
// steps that need no division.
template <class Use>
__device__ void walk_units(int c, int N, int C, int M, Use use) {
    offset count = (offset)N * M, length = (count + gridDim.y - 1) / gridDim.y;
    offset begin = blockIdx.y * length, end = begin + length < count ? begin + length : count;
    offset e = begin + threadIdx.x;
    int m = e % M, step = THREADS % M;
    offset place = (e / M * C + c) * M + m;
    offset over_rows = (offset)(C - 1) * M;             // from the end of a plane to the channel's next one
    offset step_rows = (offset)(THREADS / M) * C * M;   // of all the planes that a step skips
    for (; e < end; e += THREADS) {
        use(place);
        place += step_rows + step;
        m += step;
        if (m >= M) {
            m -= M;
            place += over_rows;
        }
    }
}

// use(values of K arrays) at these places, 16 bytes at a time where the arrays allow it.
template <int K, class Use>
__device__ void walk_channel(int c, int N, int C, int M, const real* const (&arrays)[K], Use use) {
    if (M % PACK == 0 && all_aligned(arrays)) {
        walk_units(c, N, C, M / PACK, [&](offset place) {
            Pack packs[K];
            for (int k = 0; k < K; k++) packs[k] = ((const Pack*)arrays[k])[place];
            for (int l = 0; l < PACK; l++) {
                real values[K];
                for (int k = 0; k < K; k++) values[k] = packs[k].at[l];
                use(values);
            }
        });
    } else {
        walk_units(c, N, C, M, [&](offset place) {
            real values[K];
            for (int k = 0; k < K; k++) values[k] = arrays[k][place];
            use(values);
        });
    }
}

// sums[c][slice] = Σ x. (Four blocks to a processor leave enough registers: left to itself, the compiler spills.)
extern "C" __global__ void __launch_bounds__(THREADS, 4)
channel_sum(const real* x, double* sums, int N, int C, int M) {
    __shared__ double parts[WARPS];
    int c = blockIdx.x, slices = gridDim.y;
    double sum[1] = {0};
    walk_channel<1>(c, N, C, M, {x}, [&](const real (&v)[1]) { sum[0] += v[0]; });
    block_sum<1, THREADS>(sum, parts);
    if (threadIdx.x == 0) sums[c * slices + blockIdx.y] = sum[0];
}

// total[c] = Σ sums[c][slice], slices in order.
extern "C" __global__ void __launch_bounds__(THREADS)
channel_sum_total(const double* sums, real* total, int C, int slices) {
    int c = blockIdx.x * THREADS + threadIdx.x;
    if (c >= C) return;
    double sum = 0;
    for (int s = 0; s < slices; s++) sum += sums[c * slices + s];
    total[c] = sum;
}

// sums[c][slice] = (Σ (x − x₀), Σ (x − x₀)²) with x₀ the channel's first number. Taking off any number of the
// channel's own size keeps the difference of the two sums, the variance, from cancelling.
extern "C" __global__ void __launch_bounds__(THREADS)
batch_norm_sums(const real* x, double2* sums, int N, int C, int M) {
    __shared__ double parts[2 * WARPS];
    int c = blockIdx.x, slices = gridDim.y;
    double first = x[(offset)c * M];
    double sum[2] = {0, 0};
    walk_channel<1>(c, N, C, M, {x}, [&](const real (&v)[1]) {
        double value = v[0] - first;
        sum[0] += value;
        sum[1] += value * value;
    });
    block_sum<2, THREADS>(sum, parts);
    if (threadIdx.x == 0) {
        double2 both = {sum[0], sum[1]};
        sums[c * slices + blockIdx.y] = both;
    }
}

// mean[c] and the biased var[c] from the slices' sums.
extern "C" __global__ void __launch_bounds__(THREADS)
batch_norm_moments(const real* x, const double2* sums, double* mean, double* var, int C, int M, int slices,
                   offset count) {
    int c = blockIdx.x * THREADS + threadIdx.x;
    if (c >= C) return;
    double sum = 0, squares = 0;
    for (int s = 0; s < slices; s++) {
        sum += sums[c * slices + s].x;
        squares += sums[c * slices + s].y;
    }
    double shifted = sum / count;
    double spread = squares / count - shifted * shifted;
    mean[c] = x[(offset)c * M] + shifted;
    var[c] = spread < 0 ? 0 : spread;  // rounding only; a NaN stays
}

// y = (x − mean)/√(var + eps)·γ + β, statistics in float64 or, of a network in use, in the dtype of x.
template <class Statistic>
__device__ void normalise(const real* x, real* y, const real* gamma, const real* beta, const Statistic* mean,
                          const Statistic* var, offset planes, int C, int M, double eps) {
    map_planes<1>(planes, M, {x}, y, [=](offset plane) {
        int c = plane % C;
        Affine a = affine(mean[c], var[c], gamma[c], beta[c], eps);
        return [=](const real (&v)[1]) { return (v[0] - a.centre) * a.scale + a.shift; };
    });
}

extern "C" __global__ void __launch_bounds__(THREADS)
batch_norm(const real* x, real* y, const real* gamma, const real* beta, const double* mean, const double* var,
           offset planes, int C, int M, double eps) {
    normalise(x, y, gamma, beta, mean, var, planes, C, M, eps);
}

extern "C" __global__ void __launch_bounds__(THREADS)
batch_norm_inference(const real* x, real* y, const real* gamma, const real* beta, const real* mean, const real* var,
                     offset planes, int C, int M, double eps) {
    normalise(x, y, gamma, beta, mean, var, planes, C, M, eps);
}

// sums[c][slice] = (Σ gy, Σ gy·x̂), x̂ = (x − mean)/σ.
extern "C" __global__ void __launch_bounds__(THREADS)
batch_norm_grad_sums(const real* gy, const real* x, const double* mean, const double* var, double2* sums, int N, int C,
                     int M, double eps) {
    __shared__ double parts[2 * WARPS];
    int c = blockIdx.x, slices = gridDim.y;
    double middle = mean[c], over_sigma = 1 / sqrt(var[c] + eps);
    double sum[2] = {0, 0};
    walk_channel<2>(c, N, C, M, {gy, x}, [&](const real (&v)[2]) {
        sum[0] += v[0];
        sum[1] += v[0] * ((v[1] - middle) * over_sigma);
    });
    block_sum<2, THREADS>(sum, parts);
    if (threadIdx.x == 0) {
        double2 both = {sum[0], sum[1]};
        sums[c * slices + blockIdx.y] = both;
    }
}

// gβ = Σ gy and gγ = Σ gy·x̂, and for batch_norm_grad, of each channel: gx = gy·factor[0] + (x − centre)·factor[1] +
// factor[2], which is γ/σ·(gy − gβ/count − x̂·gγ/count).
extern "C" __global__ void __launch_bounds__(THREADS)
batch_norm_grad_factors(const double2* sums, const real* gamma, const double* mean, const double* var, real* ggamma,
                        real* gbeta, double* factors, int C, int slices, offset count, double eps) {
    int c = blockIdx.x * THREADS + threadIdx.x;
    if (c >= C) return;
    double sum = 0, product = 0;
    for (int s = 0; s < slices; s++) {
        sum += sums[c * slices + s].x;
        product += sums[c * slices + s].y;
    }
    double over_sigma = 1 / sqrt(var[c] + eps), slope = gamma[c] * over_sigma;
    double by_x = -slope * over_sigma * product / count;
    real centre = mean[c];
    gbeta[c] = sum;
    ggamma[c] = product;
    factors[3 * c] = slope;
    factors[3 * c + 1] = by_x;
    factors[3 * c + 2] = -slope * sum / count - (mean[c] - centre) * by_x;
}

extern "C" __global__ void __launch_bounds__(THREADS)
batch_norm_grad(const real* gy, const real* x, const double* mean, const double* factors, real* gx, offset planes,
                int C, int M) {
    map_planes<2>(planes, M, {gy, x}, gx, [=](offset plane) {
        int c = plane % C;
        real centre = mean[c], by_gy = factors[3 * c], by_x = factors[3 * c + 1], shift = factors[3 * c + 2];
        return [=](const real (&v)[2]) { return v[0] * by_gy + (v[1] - centre) * by_x + shift; };
    });
}
