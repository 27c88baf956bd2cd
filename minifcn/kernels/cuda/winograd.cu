// The transforms of Winograd's F(4,3), between which batched matrix products do the work (Lavin & Gray 2016, §4; where
// the matrices come from: kernels/conv_winograd.py, with which a test compares them).
//
// A tile is 4 × 4 scores, made of 6 × 6 pixels; ξ counts the 36 points. Arrays between the transforms:
//     U[ξ] (O, C) filters      V[ξ] (C, T) pixels      M[ξ], Z[ξ] (O, T) scores
// A thread transforms one tile of one channel; neighbours have neighbouring tiles, so that they write side by side.
#include "common.cuh"

constexpr int SCORES = 4, TAPS = 3, POINTS = 6;

struct ScoresT {  // Aᵀ (4, 6)
    __device__ static constexpr real at(int a, int k) {
        constexpr real matrix[SCORES][POINTS] = {
            {1, 1, 1, 1, 1, 0}, {0, 1, -1, 2, -2, 0}, {0, 1, 1, 4, 4, 0}, {0, 1, -1, 8, -8, 1}};
        return matrix[a][k];
    }
};

struct Filters {  // G (6, 3)
    __device__ static constexpr real at(int a, int k) {
        constexpr real matrix[POINTS][TAPS] = {
            {real(1) / 4, 0, 0},
            {-real(1) / 6, -real(1) / 6, -real(1) / 6},
            {-real(1) / 6, real(1) / 6, -real(1) / 6},
            {real(1) / 24, real(1) / 12, real(1) / 6},
            {real(1) / 24, -real(1) / 12, real(1) / 6},
            {0, 0, 1}};
        return matrix[a][k];
    }
};

struct PixelsT {  // Bᵀ (6, 6)
    __device__ static constexpr real at(int a, int k) {
        constexpr real matrix[POINTS][POINTS] = {
            {4, 0, -5, 0, 1, 0},  {0, -4, -4, 1, 1, 0}, {0, 4, -4, -1, 1, 0},
            {0, -2, -1, 2, 1, 0}, {0, 2, -1, -2, 1, 0}, {0, 4, 0, -5, 0, 1}};
        return matrix[a][k];
    }
};

template <class Matrix>
struct Turned {
    __device__ static constexpr real at(int a, int k) {
        return Matrix::at(k, a);
    }
};

// out (A, A) = matrix (A, K) @ in (K, K) @ matrixᵀ. Unrolled, so that the matrix's zeros and ones cost nothing.
template <class Matrix, int A, int K>
__device__ inline void both_axes(const real (&in)[K][K], real (&out)[A][A]) {
    real half[A][K];
#pragma unroll
    for (int a = 0; a < A; a++) {
#pragma unroll
        for (int l = 0; l < K; l++) {
            real sum = 0;
#pragma unroll
            for (int k = 0; k < K; k++) {
                if (Matrix::at(a, k) != 0) sum += Matrix::at(a, k) * in[k][l];
            }
            half[a][l] = sum;
        }
    }
#pragma unroll
    for (int a = 0; a < A; a++) {
#pragma unroll
        for (int b = 0; b < A; b++) {
            real sum = 0;
#pragma unroll
            for (int l = 0; l < K; l++) {
                if (Matrix::at(b, l) != 0) sum += Matrix::at(b, l) * half[a][l];
            }
            out[a][b] = sum;
        }
    }
}

// Some tile rows of some images. Mirrors TILES in conv_winograd.py.
struct Tiles {
    int images, first_row, rows, columns;  // tile rows first_row … first_row + rows − 1, `columns` tiles in each
};

// The image, row and column of tile t, counted over images, the tile rows that are taken, and columns.
__device__ inline void locate(const Tiles& tiles, int t, int& n, int& row, int& column) {
    column = t % tiles.columns;
    row = tiles.first_row + t / tiles.columns % tiles.rows;
    n = t / tiles.columns / tiles.rows;
}

// The K × K patch of a plane (H, W) whose first place is (top, left), zeros beyond the border.
template <int K>
__device__ inline void read_patch(const real* plane, int top, int left, int H, int W, real (&patch)[K][K]) {
#pragma unroll
    for (int k = 0; k < K; k++) {
#pragma unroll
        for (int l = 0; l < K; l++) {
            patch[k][l] = inside(top + k, left + l, H, W) ? plane[(top + k) * W + left + l] : real(0);
        }
    }
}

// out[ξ][channel][tile] for the channels of a row of blocks.
template <int A>
__device__ inline void write_points(const real (&points)[A][A], real* out, offset step) {
#pragma unroll
    for (int a = 0; a < A; a++) {
#pragma unroll
        for (int b = 0; b < A; b++) out[(a * A + b) * step] = points[a][b];
    }
}

// V = Bᵀ d B of every tile d of x (images, C, H, W); padding rows and columns lie before the image.
extern "C" __global__ void __launch_bounds__(128)
pixels(const real* x, real* v, Tiles tiles, int C, int H, int W, int pad_h, int pad_w) {
    int T = tiles.images * tiles.rows * tiles.columns;
    for (int c = blockIdx.y; c < C; c += gridDim.y) {
        for (int t = blockIdx.x * blockDim.x + threadIdx.x; t < T; t += gridDim.x * blockDim.x) {
            int n, row, column;
            locate(tiles, t, n, row, column);
            real patch[POINTS][POINTS], points[POINTS][POINTS];
            const real* plane = x + ((offset)n * C + c) * H * W;
            read_patch<POINTS>(plane, row * SCORES - pad_h, column * SCORES - pad_w, H, W, patch);
            both_axes<PixelsT>(patch, points);
            write_points<POINTS>(points, v + (offset)c * T + t, (offset)C * T);
        }
    }
}

// Z = A d Aᵀ of every tile d of y (images, O, P, Q): what the scores' cotangents are in a weight gradient.
extern "C" __global__ void __launch_bounds__(128)
scores_adjoint(const real* y, real* z, Tiles tiles, int O, int P, int Q) {
    int T = tiles.images * tiles.rows * tiles.columns;
    for (int o = blockIdx.y; o < O; o += gridDim.y) {
        for (int t = blockIdx.x * blockDim.x + threadIdx.x; t < T; t += gridDim.x * blockDim.x) {
            int n, row, column;
            locate(tiles, t, n, row, column);
            real patch[SCORES][SCORES], points[POINTS][POINTS];
            read_patch<SCORES>(y + ((offset)n * O + o) * P * Q, row * SCORES, column * SCORES, P, Q, patch);
            both_axes<Turned<ScoresT>>(patch, points);
            write_points<POINTS>(points, z + (offset)o * T + t, (offset)O * T);
        }
    }
}

// y = Aᵀ M A of every tile, and what follows a convolution. y and its `add` are (images, O, P, Q). (Two blocks to a
// processor leave enough registers: left to itself, the compiler spills for some.)
extern "C" __global__ void __launch_bounds__(128, 2)
scores(const real* m, real* y, Finish f, Tiles tiles, int O, int P, int Q) {
    int T = tiles.images * tiles.rows * tiles.columns;
    for (int o = blockIdx.y; o < O; o += gridDim.y) {
        for (int t = blockIdx.x * blockDim.x + threadIdx.x; t < T; t += gridDim.x * blockDim.x) {
            int n, row, column;
            locate(tiles, t, n, row, column);
            real points[POINTS][POINTS], patch[SCORES][SCORES];
#pragma unroll
            for (int a = 0; a < POINTS; a++) {
#pragma unroll
                for (int k = 0; k < POINTS; k++) points[a][k] = m[((offset)(a * POINTS + k) * O + o) * T + t];
            }
            both_axes<ScoresT>(points, patch);
            offset plane = ((offset)n * O + o) * P * Q;
#pragma unroll
            for (int a = 0; a < SCORES; a++) {
#pragma unroll
                for (int k = 0; k < SCORES; k++) {
                    int p = row * SCORES + a, q = column * SCORES + k;
                    if (p >= P || q >= Q) continue;
                    offset at = plane + p * Q + q;
                    y[at] = finished(f, patch[a][k], o, at);
                }
            }
        }
    }
}

// U = G g Gᵀ of every filter g of w (O, C, 3, 3). `turned` gives those of the transposed convolution, U[ξ] (C, O) of
// filters turned by 180°; w then has `groups` groups of O/groups filters, each for its own C outputs.
extern "C" __global__ void __launch_bounds__(128)
filters(const real* w, real* u, int O, int C, int groups, int turned) {
    int per_group = O / groups, count = O * C;
    for (int k = blockIdx.x * blockDim.x + threadIdx.x; k < count; k += gridDim.x * blockDim.x) {
        int o = k / C, c = k % C, g = o / per_group;
        real taps[TAPS][TAPS], points[POINTS][POINTS];
#pragma unroll
        for (int i = 0; i < TAPS; i++) {
#pragma unroll
            for (int j = 0; j < TAPS; j++) {
                int tap = i * TAPS + j;
                taps[i][j] = w[(offset)k * TAPS * TAPS + (turned ? TAPS * TAPS - 1 - tap : tap)];
            }
        }
        both_axes<Filters>(taps, points);
        offset at = turned ? ((offset)g * C + c) * per_group + o % per_group : k;
        write_points<POINTS>(points, u + at, count);
    }
}

// The adjoint of `filters`: w (O, C, 3, 3) = Gᵀ U G.
extern "C" __global__ void __launch_bounds__(128) filters_adjoint(const real* u, real* w, int O, int C) {
    int count = O * C;
    for (int k = blockIdx.x * blockDim.x + threadIdx.x; k < count; k += gridDim.x * blockDim.x) {
        real points[POINTS][POINTS], taps[TAPS][TAPS];
#pragma unroll
        for (int a = 0; a < POINTS; a++) {
#pragma unroll
            for (int b = 0; b < POINTS; b++) points[a][b] = u[(offset)(a * POINTS + b) * count + k];
        }
        both_axes<Turned<Filters>>(points, taps);
#pragma unroll
        for (int i = 0; i < TAPS; i++) {
#pragma unroll
            for (int j = 0; j < TAPS; j++) w[(offset)k * TAPS * TAPS + i * TAPS + j] = taps[i][j];
        }
    }
}
