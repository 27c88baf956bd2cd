// Convolution as a matrix product whose second factor, the windows of the image as columns, is never stored: its parts
// are gathered from the image into shared memory as they are needed.
//
//     conv2d            y (O, N·P·Q)     = w (O, C·I·J)      @ columns (C·I·J, N·P·Q)
//     conv2d_weight     w (O, C·I·J)     = y (O, N·P·Q)      @ columnsᵀ
//     conv_transpose2d  x by its phases: = w′ (C·s·s, O·T·T) @ columns of y, which are read by windows of T × T
//
// The last one (Shi et al. 2016, appendix): with h + padding = s·u + a, 0 ≤ a < s, the taps that reach row h are
// i = a + s·t, from the scores p = u − t. So all rows of one phase a see the scores through the same T = ⌈I/s⌉ taps,
// and the s·s phases are s·s times as many filters on one set of columns. Row u of phase a is written to h, "depth to
// space".
//
// A block computes ROWS × COLUMNS numbers of the product, DEPTH terms of the sums at a time. While it multiplies one
// slab, the next STAGES − 1 are on their way. A Product says how a block multiplies: scalar.cuh, tensor_cores.cu.
#pragma once
#include "common.cuh"
#include "intrinsics.cuh"

constexpr int DEPTH = 16;
// Numbers from row to row in shared memory where the depth lies side by side, and beyond COLUMNS where the columns do:
// so that a warp of tensor_cores.cu reads from all the banks.
constexpr int BY_DEPTH = DEPTH + 4, SPARE = 8;

// Where tap k of a window reads, from the window's first pixel on: `place` within the image (C, H, W), and how far down
// and to the right. Mirrors TAP in conv_implicit.py.
struct __align__(16) Tap {
    int place, down, right, unused;
};

// The factors of the product. M rows, K terms.
struct Problem {
    const real* a;
    const real* x;  // the image, or the scores of a transposed convolution
    const Tap* taps;
    int M, K;
    int pitch;  // of a, from row to row
    int places;  // N·P·Q
};

template <int ROWS_, int COLUMNS_, int THREADS_, int STAGES_, bool COLUMNS_BY_DEPTH_>
struct Tiling {
    static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_, THREADS = THREADS_, STAGES = STAGES_;
    static constexpr bool COLUMNS_BY_DEPTH = COLUMNS_BY_DEPTH_;
    static constexpr int SLAB_A = ROWS * BY_DEPTH;
    static constexpr int SLAB_B = COLUMNS_BY_DEPTH ? COLUMNS * BY_DEPTH : DEPTH * (COLUMNS + SPARE);
    static constexpr int NUMBERS = STAGES * (SLAB_A + SLAB_B);  // of shared memory

    __device__ static int at_a(int row, int k) {
        return row * BY_DEPTH + k;
    }
    __device__ static int at_b(int k, int column) {
        return COLUMNS_BY_DEPTH ? column * BY_DEPTH + k : k * (COLUMNS + SPARE) + column;
    }
};

// Filters as they lie in memory: rows that begin at multiples of 16 bytes, zeros from K to the pitch. A thread copies
// EACH pieces of a slab, BELOW rows apart.
template <class T>
struct FilterRows {
    static constexpr int CHUNKS = DEPTH / PACK;  // of 16 bytes in a row
    static constexpr int EACH = T::ROWS * CHUNKS / T::THREADS, BELOW = T::THREADS / CHUNKS;
    const real* filters;
    const real* source;  // of this thread's first piece in the first slab
    int M, pitch, row, k;

    __device__ FilterRows(const Problem& p, int first) : filters(p.a), M(p.M - first), pitch(p.pitch) {
        row = threadIdx.x / CHUNKS;
        k = threadIdx.x % CHUNKS * PACK;
        source = p.a + (offset)(first + row) * pitch + k;
    }

    __device__ void load(real* shared, int from, int until) const {
#pragma unroll
        for (int s = 0; s < EACH; s++) {
            bool valid = row + s * BELOW < M && from + k < until;
            const real* at = valid ? source + (offset)s * BELOW * pitch + from : filters;
            copy_async<16>(shared + T::at_a(row + s * BELOW, k), at, valid);
        }
    }
};

// Scores y (N, O, P·Q) as rows o over all places, for a weight gradient.
template <class T>
struct ScoreRows {
    static constexpr int BELOW = T::THREADS / DEPTH, EACH = T::ROWS / BELOW;
    Problem p;
    int first;
    int per_image;  // P·Q

    __device__ void load(real* shared, int from, int until) const {
        int k = threadIdx.x % DEPTH, row = threadIdx.x / DEPTH, place = from + k;
        int n = place / per_image, pixel = place % per_image;
        const real* source = p.a + ((offset)n * p.M + first + row) * per_image + pixel;
#pragma unroll
        for (int s = 0; s < EACH; s++) {
            bool valid = first + row + s * BELOW < p.M && place < until;
            const real* at = valid ? source + (offset)s * BELOW * per_image : p.a;
            copy_async<sizeof(real)>(shared + T::at_a(row + s * BELOW, k), at, valid);
        }
    }
};

// The windows of an image as columns: a thread gathers for one column. It reads the taps of a slab before it copies, so
// that no copy has to wait for the next tap.
template <class T>
struct WindowColumns {
    static constexpr int BELOW = T::THREADS / T::COLUMNS, EACH = DEPTH / BELOW;
    Problem p;
    const real* window;  // the first pixel of this thread's window, which may lie in the padding
    int top, left, H, W;
    bool exists;

    __device__ WindowColumns(const Problem& problem, const Windows& g, int first) : p(problem), H(g.H), W(g.W) {
        int place = first + threadIdx.x % T::COLUMNS, per_image = g.P * g.Q;
        exists = place < p.places;
        int n = place / per_image, score = place % per_image;
        top = score / g.Q * g.stride_h - g.pad_h;
        left = score % g.Q * g.stride_w - g.pad_w;
        window = p.x + (offset)n * g.C * H * W + (offset)top * W + left;
    }

    __device__ void load(real* shared, int from, int until) const {
        int column = threadIdx.x % T::COLUMNS, k = threadIdx.x / T::COLUMNS;
        Tap taps[EACH];
#pragma unroll
        for (int s = 0; s < EACH; s++) taps[s] = p.taps[at_most(from + k + s * BELOW, until - 1)];
#pragma unroll
        for (int s = 0; s < EACH; s++) {
            bool valid = exists && from + k + s * BELOW < until && inside(top + taps[s].down, left + taps[s].right, H, W);
            copy_async<sizeof(real)>(shared + T::at_b(k + s * BELOW, column), valid ? window + taps[s].place : p.x, valid);
        }
    }
};

// The same columns, turned: column c·I·J + i·J + j over all places, for a weight gradient. A thread's taps stay the same.
template <class T>
struct TapColumns {
    static constexpr int BESIDE = T::THREADS / DEPTH, EACH = T::COLUMNS / BESIDE;
    Problem p;
    Windows g;
    Tap taps[EACH];
    int first, count;  // C·I·J in all

    __device__ TapColumns(const Problem& problem, const Windows& windows, int first_column, int all)
        : p(problem), g(windows), first(first_column + threadIdx.x / DEPTH), count(all) {
#pragma unroll
        for (int s = 0; s < EACH; s++) taps[s] = p.taps[at_most(first + s * BESIDE, count - 1)];
    }

    __device__ void load(real* shared, int from, int until) const {
        int k = threadIdx.x % DEPTH, place = from + k, per_image = g.P * g.Q;
        int n = place / per_image, score = place % per_image;
        int top = score / g.Q * g.stride_h - g.pad_h, left = score % g.Q * g.stride_w - g.pad_w;
        const real* window = p.x + (offset)n * g.C * g.H * g.W + (offset)top * g.W + left;
#pragma unroll
        for (int s = 0; s < EACH; s++) {
            bool valid = place < until && first + s * BESIDE < count &&
                         inside(top + taps[s].down, left + taps[s].right, g.H, g.W);
            const real* at = valid ? window + taps[s].place : p.x;
            copy_async<sizeof(real)>(shared + T::at_b(k, threadIdx.x / DEPTH + s * BESIDE), at, valid);
        }
    }
};

// The terms begin … end that fall to this block of gridDim.z: whole slabs.
__device__ inline void share(int K, int& begin, int& end) {
    int slabs = divide_up(K, DEPTH), each = divide_up(slabs, gridDim.z);
    begin = at_most(blockIdx.z * each * DEPTH, K);
    end = at_most(begin + each * DEPTH, K);
}

// product += a @ b over the terms begin … end.
template <class T, class Product, class A, class B>
__device__ void multiply(Product& product, const A& a, const B& b, real* memory, int begin, int end) {
    real *slabs_a = memory, *slabs_b = memory + T::STAGES * T::SLAB_A;
    int slabs = divide_up(end - begin, DEPTH);
    for (int s = 0; s < T::STAGES - 1; s++) {
        if (s < slabs) {
            a.load(slabs_a + s * T::SLAB_A, begin + s * DEPTH, end);
            b.load(slabs_b + s * T::SLAB_B, begin + s * DEPTH, end);
        }
        copy_async_commit();  // also of nothing, so that waiting can count
    }
    for (int s = 0; s < slabs; s++) {
        copy_async_wait<T::STAGES - 2>();
        __syncthreads();  // slab s is here, and all are done with slab s − 1, whose place the next one takes
        int next = s + T::STAGES - 1, stage = next % T::STAGES;
        if (next < slabs) {
            a.load(slabs_a + stage * T::SLAB_A, begin + next * DEPTH, end);
            b.load(slabs_b + stage * T::SLAB_B, begin + next * DEPTH, end);
        }
        copy_async_commit();
        product.add(slabs_a + s % T::STAGES * T::SLAB_A, slabs_b + s % T::STAGES * T::SLAB_B);
    }
    copy_async_wait<0>();
    __syncthreads();  // so that the memory can be used again
}

// y (N, O, P·Q), or with several shares of the sums their parts, (shares, M, places) in `parts`.
template <class T, class Product>
__device__ void conv2d_block(const Problem& p, const Windows& g, const Finish& f, real* y, real* parts, real* memory) {
    int first_row = blockIdx.y * T::ROWS, first_place = blockIdx.x * T::COLUMNS, begin, end;
    share(p.K, begin, end);
    FilterRows<T> a(p, first_row);
    WindowColumns<T> b(p, g, first_place);
    Product product;
    multiply<T>(product, a, b, memory, begin, end);
    int per_image = g.P * g.Q;
    product.each([&](int column) {
        int place = first_place + column;
        bool exists = place < p.places, whole = gridDim.z == 1;
        // of row 0; one division for all rows of a column
        offset at = whole ? (offset)(place / per_image) * p.M * per_image + place % per_image
                          : (offset)blockIdx.z * p.M * p.places + place;
        offset step = whole ? per_image : p.places;
        return [=](int row, real value) {
            int o = first_row + row;
            if (!exists || o >= p.M) return;
            if (whole) {
                y[at + o * step] = finished(f, value, o, at + o * step);
            } else {
                parts[at + o * step] = value;
            }
        };
    });
}

// w (O, C·I·J), or its parts, (shares, O, C·I·J): begin with p.M = O, p.K = N·P·Q.
template <class T, class Product>
__device__ void conv2d_weight_block(const Problem& p, const Windows& g, int taps, real* result, real* memory) {
    int first_row = blockIdx.y * T::ROWS, first_column = blockIdx.x * T::COLUMNS, begin, end;
    share(p.K, begin, end);
    ScoreRows<T> a = {p, first_row, g.P * g.Q};
    TapColumns<T> b(p, g, first_column, taps);
    Product product;
    multiply<T>(product, a, b, memory, begin, end);
    product.each([&](int column) {
        int tap = first_column + column;
        return [=](int row, real value) {
            int o = first_row + row;
            if (o < p.M && tap < taps) result[((offset)blockIdx.z * p.M + o) * taps + tap] = value;
        };
    });
}

// How the rows (c, a, b) and places (n, u, v) of the phases lie in x (N, C, H, W): h = (u + u0)·sh + a − padding.
struct Phases {
    int C, H, W, stride_h, stride_w, first_h, first_v;  // first: u0·s − padding
};

// Where a column's pixels begin, or what a row adds to that: an offset into x, and rows and columns of the image.
struct __align__(16) Spot {
    offset place;
    int h, v;
};

// x from its phases, through shared memory, so that a warp writes pixels side by side: b runs fastest, then v. Where rows
// and columns lie is worked out once for each, as divisions would take longer than the sums.
template <class T, class Product>
__device__ void conv_transpose2d_block(const Problem& p, const Windows& g, const Phases& s, const real* bias, real* x,
                                       real* memory) {
    constexpr int PITCH = T::COLUMNS + 1, VALUES = T::ROWS * PITCH;
    static_assert(VALUES % PACK == 0 && VALUES * sizeof(real) + (T::COLUMNS + T::ROWS) * sizeof(Spot) +
                      T::ROWS * sizeof(real) <= T::NUMBERS * sizeof(real), "a block's pixels must fit its shared memory");
    int first_row = blockIdx.y * T::ROWS, first_place = blockIdx.x * T::COLUMNS;
    FilterRows<T> a(p, first_row);
    WindowColumns<T> b(p, g, first_place);
    Product product;
    multiply<T>(product, a, b, memory, 0, p.K);
    product.each([&](int column) {
        return [=](int row, real value) { memory[row * PITCH + column] = value; };
    });
    Spot *columns = (Spot*)(memory + VALUES), *rows = columns + T::COLUMNS;
    real* biases = (real*)(rows + T::ROWS);
    for (int k = threadIdx.x; k < T::COLUMNS; k += T::THREADS) {
        int place = first_place + k, per_image = g.P * g.Q, n = place / per_image, score = place % per_image;
        int h = score / g.Q * s.stride_h + s.first_h, v = score % g.Q * s.stride_w + s.first_v;
        if (place >= p.places) h = s.H;  // beyond the image, whatever the row
        columns[k] = {((offset)n * s.C * s.H + h) * s.W + v, h, v};
    }
    for (int k = threadIdx.x; k < T::ROWS; k += T::THREADS) {
        int phase = first_row + k, right = phase % s.stride_w, down = phase / s.stride_w % s.stride_h;
        int c = phase / s.stride_w / s.stride_h;
        if (phase >= p.M) down = s.H - s.first_h;  // below the image, whatever the column
        rows[k] = {((offset)c * s.H + down) * s.W + right, down, right};
        biases[k] = bias && phase < p.M ? bias[c] : real(0);
    }
    __syncthreads();
    // runs of 2^shift rows are those of one b each, where a block has whole ones; else in any order
    int shift = 0;
    while (T::ROWS % s.stride_w == 0 && 1 << shift < s.stride_w) shift++;
    for (int e = threadIdx.x; e < T::ROWS * T::COLUMNS; e += T::THREADS) {
        int run = e >> shift, row = (run / T::COLUMNS << shift) + (e & ((1 << shift) - 1)), column = run % T::COLUMNS;
        Spot from = columns[column], by = rows[row];
        if (inside(from.h + by.h, from.v + by.v, s.H, s.W)) {
            x[from.place + by.place] = memory[row * PITCH + column] + biases[row];
        }
    }
}
