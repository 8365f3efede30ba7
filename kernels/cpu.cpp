// The CPU kernel: a direct convolution in registers, plain C++ without torch, for every valid problem.
//
// A task is one group's up to 128 output channels at 960 bytes' worth of positions. It packs what it needs
// of x into scratch, a few input channels at a time: padded with zeros, widened to the accumulator's type,
// and split by stride, so that every tap reads consecutive elements. A register tile of output channels x
// vectors of positions then runs over (c, k). fp16 and bf16 accumulate in float. Where rows of y are shorter
// than a vector, positions run on through the batch.
//
// Sums are blocked: at most 256 products in one chain, chains added in the order of (c, k). That order
// depends on the problem alone, never on the threads. The vector width is chosen at run time, so that a
// compiled file may move between machines; code inlines into the functions that carry a target attribute,
// hence always_inline and no lambdas.
#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <numeric>
#include <type_traits>

#include "problem.h"

// The flags say -O1, with which the binding compiles a quarter sooner; loops need more.
#pragma GCC optimize("O3")

namespace conv1d {
namespace cpu {

#define CONV1D_INLINE inline __attribute__((always_inline))

constexpr int64_t kOutputBlock = 128;  // output channels of one task
constexpr int64_t kColumnBlockBytes =
    960;                            // accumulators a task has for one output channel: 5 AVX-512 tiles
constexpr int64_t kFoldBelow = 16;  // positions in a row of y below which the batch is folded in
constexpr int64_t kChain = 256;     // products added one after the other
constexpr int64_t kScratchBytes = 256 * 1024;  // packed x of one task, unless one channel alone needs more
constexpr int64_t kLineBytes = 64;             // a cache line, and the widest vector

template <typename To, typename From>
CONV1D_INLINE To bit_cast(From value) {
    static_assert(sizeof(To) == sizeof(From), "a bit cast keeps the size");
    To result;
    std::memcpy(&result, &value, sizeof(To));
    return result;
}

template <typename T>
struct Native {
    using Stored = T;
    using Acc = T;
    static CONV1D_INLINE Acc widen(Stored value) { return value; }
    static CONV1D_INLINE Stored narrow(Acc value) { return value; }
};

struct Bfloat16 {
    using Stored = uint16_t;
    using Acc = float;
    static CONV1D_INLINE Acc widen(Stored bits) { return bit_cast<float>(uint32_t(bits) << 16); }
    static CONV1D_INLINE Stored narrow(Acc value) {  // to nearest, ties to even
        const uint32_t bits = bit_cast<uint32_t>(value);
        const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
        return uint16_t(value != value ? 0x7fc0 : rounded);
    }
};

// Without branches, so that the compiler vectorises the loops over it.
struct Float16 {
    using Stored = uint16_t;
    using Acc = float;
    static CONV1D_INLINE Acc widen(Stored bits) {
        const uint32_t sign = uint32_t(bits & 0x8000) << 16;
        const uint32_t magnitude = uint32_t(bits & 0x7fff) << 13;
        const uint32_t rebiased = magnitude + (112u << 23);  // exponent bias 15 -> 127
        const uint32_t special = magnitude + (224u << 23);   // inf and nan: all exponent bits set
        // A subnormal is fraction * 2^-24: written as 2^-14 * (1 + fraction/1024), less 2^-14.
        const uint32_t subnormal = bit_cast<uint32_t>(bit_cast<float>(magnitude + (113u << 23)) - 0x1p-14f);
        const uint32_t finite = magnitude < (1u << 23) ? subnormal : rebiased;
        return bit_cast<float>(sign | (magnitude >= (31u << 23) ? special : finite));
    }
    static CONV1D_INLINE Stored narrow(Acc value) {  // to nearest, ties to even
        const uint32_t bits = bit_cast<uint32_t>(value);
        const uint32_t magnitude = bits & 0x7fffffff;
        const uint32_t normal = (magnitude - (112u << 23) + 0xfff + ((magnitude >> 13) & 1)) >> 13;
        // Below 2^-14 the unit is 2^-24, which is the unit of floats in [0.5, 1).
        const uint32_t subnormal = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - (126u << 23);
        const uint32_t finite = magnitude < (113u << 23) ? subnormal : normal;
        const uint32_t special = magnitude > 0x7f800000 ? 0x7e00 : 0x7c00;
        return uint16_t((bits >> 16 & 0x8000) | (magnitude >= (143u << 23) ? special : finite));
    }
};

struct AlignedDelete {
    void operator()(void* memory) const { ::operator delete[](memory, std::align_val_t(kLineBytes)); }
};
template <typename T>
using Scratch = std::unique_ptr<T[], AlignedDelete>;
template <typename T>
Scratch<T> allocate(int64_t count) {
    return Scratch<T>(static_cast<T*>(::operator new[](count * sizeof(T), std::align_val_t(kLineBytes))));
}

constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// How the work splits into tasks. A column is a position, or, where the batch is folded, a pair (n, p),
// counted as n*P + p.
struct Tasks {
    int64_t images, columns;               // `images` times `columns` is N times P
    int64_t column_block;                  // columns of one task
    int64_t output_blocks, column_blocks;  // how many along o and along the columns
    int64_t count;

    explicit Tasks(const Problem& p) {
        const bool fold = p.P < kFoldBelow;
        images = fold ? 1 : p.N;
        columns = fold ? p.N * p.P : p.P;
        column_block = kColumnBlockBytes / std::max<int64_t>(sizeof(float), element_bytes(p.dtype));
        output_blocks = divide_up(p.O, kOutputBlock);
        column_blocks = divide_up(columns, column_block);
        count = images * p.G * output_blocks * column_blocks;
    }
};

// How one input channel lies in scratch. Taps whose positions agree modulo the stride read the same
// elements, shifted, and share a row: of stride / gcd(stride, dilation) rows, row r begins r*dilation %
// stride elements of x after the first column's own and goes on in steps of the stride. Where dilation is so
// wide that such rows would be mostly unread, or columns are folded, each tap gets a row of its own.
struct Window {
    int64_t rows;       // rows a channel
    int64_t extra;      // elements of a row beyond one a column
    int64_t row_elems;  // from row to row: an odd number of cache lines, to spread over the cache's sets

    Window(const Problem& p, const Tasks& tasks, int64_t acc_bytes) {
        const int64_t lanes = kLineBytes / acc_bytes;
        const int64_t columns = std::min(tasks.columns, tasks.column_block);
        const int64_t shared_rows = std::min(p.K, p.stride / std::gcd(p.stride, p.dilation));
        const int64_t shared_extra = (p.K - 1) * p.dilation / p.stride;
        const bool share = tasks.images == p.N && shared_rows * (columns + shared_extra) <= p.K * columns;
        rows = share ? shared_rows : p.K;
        extra = share ? shared_extra : 0;
        row_elems = ((divide_up(columns, lanes) + divide_up(extra, lanes)) | 1) * lanes;
    }
    int64_t channel_elems() const { return rows * row_elems; }
    // Where row `row` begins, in elements of x after the first column's own.
    int64_t row_shift(const Problem& p, int64_t row) const {
        return rows == p.K ? row * p.dilation : row * p.dilation % p.stride;
    }
    // Where tap k's first element lies in a channel's scratch.
    int64_t tap_offset(const Problem& p, int64_t k) const {
        const int64_t row = k % rows;
        return row * row_elems + (k * p.dilation - row_shift(p, row)) / p.stride;
    }
};

// A run of `count` columns that lie in one row of y.
struct Segment {
    int64_t n, p, count;
    Segment(const Problem& problem, int64_t column, int64_t column_end)
        : n(column / problem.P),
          p(column % problem.P),
          count(std::min(problem.P - p, column_end - column)) {}
};

// dst[i] = src[i * hop], widened.
template <typename Type>
CONV1D_INLINE void widen_row(typename Type::Acc* __restrict__ dst,
                             const typename Type::Stored* __restrict__ src, int64_t count, int64_t hop) {
    if (hop == 1) {
        for (int64_t i = 0; i < count; ++i) dst[i] = Type::widen(src[i]);
    } else if (hop == 2) {
        for (int64_t i = 0; i < count; ++i) dst[i] = Type::widen(src[i * 2]);
    } else {
        for (int64_t i = 0; i < count; ++i) dst[i] = Type::widen(src[i * hop]);
    }
}

// dst[i] = x[first + i*stride], widened, and zero outside 0 <= l < L.
template <typename Type>
CONV1D_INLINE void pack_row(const Problem& p,
                            typename Type::Acc* dst,           // [count]
                            const typename Type::Stored* src,  // x[n, c, 0]
                            int64_t count, int64_t first) {
    const int64_t begin = first >= 0 ? 0 : std::min(count, divide_up(-first, p.stride));
    const int64_t end =
        first >= p.L ? begin : std::max(begin, std::min(count, (p.L - 1 - first) / p.stride + 1));
    std::fill(dst, dst + begin, typename Type::Acc(0));
    widen_row<Type>(dst + begin, src + (first + begin * p.stride) * p.x_stride_l, end - begin,
                    p.stride * p.x_stride_l);
    std::fill(dst + end, dst + count, typename Type::Acc(0));
}

// sums[o][i] = sum over j of w[o][j] * x[offsets[j] + i], for kO output channels and kV vectors of columns.
template <typename Acc, int kBytes, int kO, int kV>
CONV1D_INLINE void multiply_tile(
    const Acc* __restrict__ x,            // scratch at the tile's first column
    const int64_t* __restrict__ offsets,  // [products] of each (c, k) in scratch
    const Acc* __restrict__ w,            // [kO][products], w_stride apart
    int64_t w_stride, int64_t products,
    Acc* __restrict__ sums) {  // [kO][kV * lanes]
    typedef Acc Vector __attribute__((vector_size(kBytes)));
    constexpr int kLanes = kBytes / sizeof(Acc);
    for (int64_t begin = 0; begin < products; begin += kChain) {
        const int64_t end = std::min(products, begin + kChain);
        Vector acc[kO][kV] = {};
        for (int64_t j = begin; j < end; ++j) {
            Vector x_frag[kV];
            for (int v = 0; v < kV; ++v) std::memcpy(&x_frag[v], x + offsets[j] + v * kLanes, kBytes);
            for (int o = 0; o < kO; ++o) {
                const Acc w_value = w[o * w_stride + j];
                for (int v = 0; v < kV; ++v) acc[o][v] += x_frag[v] * w_value;
            }
        }
        for (int o = 0; o < kO; ++o) {
            for (int v = 0; v < kV; ++v) {
                Acc* sum = sums + (o * kV + v) * kLanes;
                if (begin > 0) {
                    Vector before;
                    std::memcpy(&before, sum, kBytes);
                    acc[o][v] += before;
                }
                std::memcpy(sum, &acc[o][v], kBytes);
            }
        }
    }
}

template <typename Acc>
using Tile = void (*)(const Acc*, const int64_t*, const Acc*, int64_t, int64_t, Acc*);

constexpr int64_t kTileVectors = 3;

// One task: outputs [o_begin, o_begin + outputs) of group g at columns [column_begin, column_begin +
// columns).
struct Task {
    int64_t image, g, o_begin, outputs, column_begin, columns;

    Task(const Problem& p, const Tasks& tasks, int64_t index) {
        column_begin = index % tasks.column_blocks * tasks.column_block;
        index /= tasks.column_blocks;
        o_begin = index % tasks.output_blocks * kOutputBlock;
        index /= tasks.output_blocks;
        g = index % p.G;
        image = index / p.G;
        columns = std::min(tasks.columns - column_begin, tasks.column_block);
        outputs = std::min(p.O - o_begin, kOutputBlock);
    }
};

// Packs what a task reads of input channel c, counted over all groups, into `scratch`.
template <typename Type>
CONV1D_INLINE void pack_channel(const Problem& p, const Window& window, const Task& task, int64_t c,
                                int64_t padded_columns,         // columns rounded up to whole vectors
                                typename Type::Acc* scratch) {  // [rows][row_elems]
    const auto* x =
        static_cast<const typename Type::Stored*>(p.x) + task.image * p.x_stride_n + c * p.x_stride_c;
    for (int64_t row = 0; row < window.rows; ++row) {
        typename Type::Acc* packed = scratch + row * window.row_elems;
        for (int64_t i = 0; i < task.columns;) {
            const Segment segment(p, task.column_begin + i, task.column_begin + task.columns);
            pack_row<Type>(p, packed + i, x + segment.n * p.x_stride_n, segment.count + window.extra,
                           segment.p * p.stride - p.pad_left + window.row_shift(p, row));
            i += segment.count;
        }
        // Columns past the last one are computed and not stored.
        std::fill(packed + task.columns + window.extra, packed + padded_columns + window.extra,
                  typename Type::Acc(0));
    }
}

// Adds the bias to output channel o's sums of `count` columns from `column` on, and writes them to y.
template <typename Type>
CONV1D_INLINE void store_columns(const Problem& p, const Task& task, int64_t o, int64_t column,
                                 int64_t count, const typename Type::Acc* __restrict__ sums) {
    using Stored = typename Type::Stored;
    const int64_t output = task.g * p.O + task.o_begin + o;
    const auto bias =
        p.bias ? Type::widen(static_cast<const Stored*>(p.bias)[output]) : typename Type::Acc(0);
    for (int64_t i = 0; i < count;) {
        const Segment segment(p, column + i, column + count);
        Stored* __restrict__ y =
            static_cast<Stored*>(p.y) + ((task.image + segment.n) * p.G * p.O + output) * p.P + segment.p;
        for (int64_t j = 0; j < segment.count; ++j) y[j] = Type::narrow(sums[i + j] + bias);
        i += segment.count;
    }
}

// Tasks [begin, end), on one thread.
template <typename Type, typename Target>
CONV1D_INLINE void run_tasks(const Problem& p, int64_t begin, int64_t end) {
    using Stored = typename Type::Stored;
    using Acc = typename Type::Acc;
    constexpr int64_t kLanes = Target::kBytes / sizeof(Acc);
    constexpr bool kWiden = !std::is_same<Stored, Acc>::value;

    const Tasks tasks(p);
    const Window window(p, tasks, sizeof(Acc));
    const int64_t most_outputs = std::min(p.O, kOutputBlock);
    // Input channels packed at a time.
    const int64_t fitting = kScratchBytes / int64_t(sizeof(Acc)) / window.channel_elems();
    const int64_t chunk = std::max<int64_t>(1, std::min({p.C, kChain / p.K, fitting}));

    const auto x_scratch = allocate<Acc>(chunk * window.channel_elems());
    const auto w_scratch = allocate<Acc>(kWiden ? most_outputs * chunk * p.K : 0);
    const auto offsets = allocate<int64_t>(chunk * p.K);  // of (c, k) in x_scratch
    for (int64_t c = 0; c < chunk; ++c)
        for (int64_t k = 0; k < p.K; ++k)
            offsets[c * p.K + k] = c * window.channel_elems() + window.tap_offset(p, k);
    // [outputs][column_block]: sums of the chunks so far.
    const auto partial = allocate<Acc>(chunk < p.C ? most_outputs * tasks.column_block : 0);

    for (int64_t index = begin; index < end; ++index) {
        const Task task(p, tasks, index);
        const int64_t vectors = divide_up(task.columns, kLanes);
        const Stored* w = static_cast<const Stored*>(p.w) + (task.g * p.O + task.o_begin) * p.C * p.K;

        for (int64_t c_begin = 0; c_begin < p.C; c_begin += chunk) {
            const int64_t channels = std::min(chunk, p.C - c_begin);
            const int64_t products = channels * p.K;
            const bool first = c_begin == 0, last = c_begin + channels == p.C;
            for (int64_t c = 0; c < channels; ++c)
                pack_channel<Type>(p, window, task, task.g * p.C + c_begin + c, vectors * kLanes,
                                   &x_scratch[c * window.channel_elems()]);
            const Acc* w_chunk;  // [outputs][products], w_stride apart
            int64_t w_stride;
            if constexpr (kWiden) {
                w_chunk = w_scratch.get();
                w_stride = products;
                for (int64_t o = 0; o < task.outputs; ++o)
                    widen_row<Type>(&w_scratch[o * products], w + (o * p.C + c_begin) * p.K, products, 1);
            } else {
                w_chunk = w + c_begin * p.K;
                w_stride = p.C * p.K;
            }

            for (int64_t v = 0, tile_v; v < vectors; v += tile_v) {
                tile_v = std::min(kTileVectors, vectors - v);
                const int64_t tile_columns = std::min(tile_v * kLanes, task.columns - v * kLanes);
                for (int64_t o = 0, tile_o; o < task.outputs; o += tile_o) {
                    int size = Target::kTileSizes - 1;
                    while (task.outputs - o < (1 << size)) --size;
                    tile_o = 1 << size;
                    const Tile<Acc> multiply = Target::template kTiles<Acc>[size][tile_v - 1];
                    alignas(kLineBytes) Acc sums[(1 << (Target::kTileSizes - 1)) * kTileVectors * kLanes];
                    multiply(&x_scratch[v * kLanes], offsets.get(), &w_chunk[o * w_stride], w_stride,
                             products, sums);
                    for (int64_t i = 0; i < tile_o; ++i) {
                        Acc* sum = sums + i * tile_v * kLanes;
                        Acc* so_far = partial.get() + (o + i) * tasks.column_block + v * kLanes;
                        if (!first)
                            for (int64_t j = 0; j < tile_columns; ++j) sum[j] += so_far[j];
                        if (last)
                            store_columns<Type>(p, task, o + i, task.column_begin + v * kLanes, tile_columns,
                                                sum);
                        else
                            std::copy(sum, sum + tile_columns, so_far);
                    }
                }
            }
        }
    }
}

// One struct an instruction set. kTiles holds the tiles of 1, 2, 4, ... output channels and 1, 2, 3 vectors;
// the largest leaves registers for 3 vectors of x and 1 of w: of 32 in AVX-512, of 16 elsewhere.
#define CONV1D_TARGET(name, bytes, tile_sizes, attribute)                                                \
    struct name {                                                                                        \
        static constexpr int kBytes = bytes, kTileSizes = tile_sizes;                                    \
        template <typename Acc, int kO, int kV>                                                          \
        attribute static void tile(const Acc* x, const int64_t* offsets, const Acc* w, int64_t w_stride, \
                                   int64_t products, Acc* sums) {                                        \
            multiply_tile<Acc, kBytes, kO, kV>(x, offsets, w, w_stride, products, sums);                 \
        }                                                                                                \
        template <typename Acc>                                                                          \
        static constexpr Tile<Acc> kTiles[4][kTileVectors] = {                                           \
            {tile<Acc, 1, 1>, tile<Acc, 1, 2>, tile<Acc, 1, 3>},                                         \
            {tile<Acc, 2, 1>, tile<Acc, 2, 2>, tile<Acc, 2, 3>},                                         \
            {tile<Acc, 4, 1>, tile<Acc, 4, 2>, tile<Acc, 4, 3>},                                         \
            {tile<Acc, 8, 1>, tile<Acc, 8, 2>, tile<Acc, 8, 3>}};                                        \
        template <typename Type>                                                                         \
        attribute static void run(const Problem& p, int64_t begin, int64_t end) {                        \
            run_tasks<Type, name>(p, begin, end);                                                        \
        }                                                                                                \
    };

#if defined(__x86_64__)
CONV1D_TARGET(Avx512, 64, 4, __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma"))))
CONV1D_TARGET(Avx2, 32, 3, __attribute__((target("avx2,fma"))))
#endif
CONV1D_TARGET(Portable, 16, 3, )

template <typename Type>
inline void run_on_this_machine(const Problem& p, int64_t begin, int64_t end) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq"))
        return Avx512::run<Type>(p, begin, end);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return Avx2::run<Type>(p, begin, end);
#endif
    Portable::run<Type>(p, begin, end);
}

#undef CONV1D_TARGET
#undef CONV1D_INLINE

}  // namespace cpu

int64_t cpu_task_count(const Problem& p) { return cpu::Tasks(p).count; }

int64_t cpu_task_grain(const Problem& p) {
    const cpu::Tasks tasks(p);
    const int64_t products =
        p.C * p.K * std::min(p.O, cpu::kOutputBlock) * std::min(tasks.columns, tasks.column_block);
    return std::max<int64_t>(1, 500000 / products);
}

void cpu_run_tasks(const Problem& p, int64_t begin, int64_t end) {
    switch (p.dtype) {
        case Dtype::float32: return cpu::run_on_this_machine<cpu::Native<float>>(p, begin, end);
        case Dtype::float64: return cpu::run_on_this_machine<cpu::Native<double>>(p, begin, end);
        case Dtype::float16: return cpu::run_on_this_machine<cpu::Float16>(p, begin, end);
        case Dtype::bfloat16: return cpu::run_on_this_machine<cpu::Bfloat16>(p, begin, end);
    }
}

}  // namespace conv1d
