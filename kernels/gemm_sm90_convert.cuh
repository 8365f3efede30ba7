// The operands of the Hopper GEMM (gemm_sm90.cuh) as wgmma takes them, K-major in swizzled rows of 128 bytes:
// weights packed once a launch, x converted by seven warps of each block.
#pragma once
#include <cuda_fp16.h>
#include <type_traits>

#include "gemm_sm90_pipeline.cuh"
#include "gemm_sm90_plan.cuh"
#include "problem.h"
#include "ptx.cuh"
#include "tile.cuh"

namespace conv1d {
namespace sm90 {

// A split of the two numbers, scaled already: the high parts, and the low parts times kLowScale.
__device__ __forceinline__ uint32_t split_f16(float first, float second, uint32_t& low) {
    const __half2 high = __floats2half2_rn(first, second);
    const float2 rest = __half22float2(high);
    const __half2 lows = __floats2half2_rn(fmaf(rest.x, -kLowScale, first * kLowScale),
                                           fmaf(rest.y, -kLowScale, second * kLowScale));
    low = *reinterpret_cast<const uint32_t*>(&lows);
    return *reinterpret_cast<const uint32_t*>(&high);
}

// f16x3: whether a value of x is too small for a split, but not zero.
__device__ __forceinline__ bool is_too_small(float value) {
    return fabsf(value) < kSmallestScaled / kXScale && value != 0.0f;
}

__device__ __forceinline__ uint32_t word_of(const uint4& four, int j) {
    return j % 4 == 0 ? four.x : j % 4 == 1 ? four.y : j % 4 == 2 ? four.z : four.w;
}

// The 16 bytes that begin `shift` elements, less than a piece, behind those of `piece`, which `next` follows.
template <int kElementBytes>
__device__ __forceinline__ uint4 realign(const uint4& piece, const uint4& next, int32_t shift) {
    uint32_t part[8];
#pragma unroll
    for (int j = 0; j < 4; ++j) part[j] = word_of(piece, j), part[4 + j] = word_of(next, j);
    const int32_t bytes = shift * kElementBytes;
#pragma unroll
    for (int j = 0; j < 6; ++j) part[j] = bytes & 8 ? part[j + 2] : part[j];
#pragma unroll
    for (int j = 0; j < 5; ++j) part[j] = bytes & 4 ? part[j + 1] : part[j];
    if constexpr (kElementBytes == 2) {
        const uint32_t selector = bytes & 2 ? 0x5432 : 0x3210;
#pragma unroll
        for (int j = 0; j < 4; ++j) part[j] = __byte_perm(part[j], part[j + 1], selector);
    }
    return make_uint4(part[0], part[1], part[2], part[3]);
}

// fp32 bits of magnitudes, which are ordered as the numbers are: the largest seen, and how many are too small
// for a split by f16x3, but not zero.
struct Range {
    uint32_t largest = 0, small = 0;
    __device__ __forceinline__ void add(uint32_t bits, float scale) {
        const uint32_t magnitude = bits & 0x7FFFFFFF;
        largest = max(largest, magnitude);
        small += magnitude - 1 < __float_as_uint(kSmallestScaled / scale) - 1;
    }
};

// Weights w [G*O][C][K] are packed into blocks in the order in which tiles use them, [G][o_tile][tap
// group][chunk][tap]; a block is the shared-memory image of a tile's output channels x one row of 8 pieces.
// One warp packs some taps of one output channel and 32 channels (64 in 16 bits) at a time: it reads them
// along w, through shared memory, and writes whole rows.
constexpr int kPackThreads = 256;
constexpr int kMostPackTaps = 32;              // at a time
constexpr int kPackPitch = kMostPackTaps + 1;  // of a staged channel: a row's pieces lie in different banks
template <class Bits>
constexpr int kPackChannels = kRowBytes / static_cast<int>(sizeof(Bits));

// What one warp packs at a time.
struct PackUnit {
    int32_t row;           // of the image: [G][o_tile][tile_o]
    int32_t c, tap, taps;  // as products see them
};

// How a row of the image is divided into units.
struct PackUnits {
    int32_t taps;      // of a unit at most
    int32_t segments;  // of a row's taps
    int32_t count;
};

// A warp mostly waits for memory, so where rows are few, units are of few taps (for the weights of 2x86x406
// to 192, K30 g2, 256 warps took 8 us, 2,048 take 2.5).
template <class Bits>
inline PackUnits divide_row(const Geometry& geometry, int64_t rows) {
    constexpr int64_t kFewWarps = 4096;
    const int32_t steps = static_cast<int32_t>(ceil_div(geometry.channels, kPackChannels<Bits>));
    PackUnits units{2 * kMostPackTaps, 0, 0};
    do {
        units.taps /= 2;
        units.segments = static_cast<int32_t>(ceil_div(geometry.taps, units.taps));
        units.count = steps * units.segments;
    } while (units.taps > 4 && rows * units.count < kFewWarps);
    return units;
}

// The i-th of row `row`.
template <class Bits>
__device__ __forceinline__ PackUnit unit_of(const Geometry& geometry, const PackUnits& units, int32_t row,
                                            int32_t i) {
    const int32_t step = i / units.segments, tap = (i - step * units.segments) * units.taps;
    return {row, step * kPackChannels<Bits>, tap, min(units.taps, geometry.taps - tap)};
}

// Channels [c, c + kPackChannels) and the taps of `unit`, of w_row [C][K], to staged[channel][kPackPitch];
// zero where there are none. kTogether loads are on their way at once, from the row's end where there is
// nothing to load: a load under a condition is a branch.
template <int kTogether, class Bits>
__device__ __forceinline__ void stage_weights(Bits* staged, const Bits* w_row, const PackUnit& unit,
                                              bool folded, int32_t C, int32_t K, bool exists) {
    const uint32_t magic = (0xFFFFFFFFu / unit.taps) + 1;  // 2^32 / taps, rounded up
    const int32_t count = kPackChannels<Bits> * unit.taps, lane = threadIdx.x % 32;
    const auto channel_of = [&](int32_t i) { return unit.taps == 1 ? i : __umulhi(i, magic); };
    const auto stage = [&](const Bits* source, int32_t last, auto place_of) {
#pragma unroll 1
        for (int32_t begin = 0; begin < count; begin += 32 * kTogether) {  // count is a multiple of 32
            Bits value[kTogether]{};
#pragma unroll
            for (int j = 0; j < kTogether; ++j) {
                if (begin + 32 * j >= count) break;
                const int32_t i = begin + 32 * j + lane;
                value[j] = __ldg(source + min(place_of(i, channel_of(i)), last));
            }
#pragma unroll
            for (int j = 0; j < kTogether; ++j) {
                if (begin + 32 * j >= count) break;
                const int32_t i = begin + 32 * j + lane, channel = channel_of(i);
                const bool inside = exists && place_of(i, channel) <= last;
                staged[i + channel * (kPackPitch - unit.taps)] = inside ? value[j] : Bits{0};
            }
        }
    };
    __syncwarp();
    if (folded) {
        stage(w_row, C * K - 1, [&](int32_t i, int32_t channel) {
            const int32_t c = unit.c + channel, tap = unit.tap + i - channel * unit.taps;
            const int32_t k = kFold * tap + c % kFold;
            return k < K ? c / kFold * K + k : INT32_MAX;
        });
    } else {
        stage(w_row + int64_t{unit.c} * K + unit.tap, (C - unit.c) * K - unit.tap - 1,
              [&](int32_t i, int32_t channel) { return i + channel * (K - unit.taps); });
    }
    __syncwarp();
}

// 16 bytes of the image: kPieceChannels weights from `staged` on, times `scale`; low: their low parts.
template <Mode kMode>
__device__ __forceinline__ uint4 pack_piece(const typename ModeTraits<kMode>::Bits* staged, bool low,
                                            float scale) {
    uint32_t words[4];
    const auto value = [&](int j) { return __uint_as_float(staged[j * kPackPitch]) * scale; };
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        if constexpr (kMode == Mode::f16x3) {
            uint32_t rest;
            const uint32_t high = split_f16(value(2 * j), value(2 * j + 1), rest);
            words[j] = low ? rest : high;
        } else if constexpr (kMode == Mode::tf32x3) {
            const uint32_t high = ptx::cvt_rn_tf32(value(j));
            words[j] = low ? ptx::cvt_rn_tf32(value(j) - __uint_as_float(high)) : high;
        } else if constexpr (kMode == Mode::tf32) {
            words[j] = round_tf32(staged[j * kPackPitch]);
        } else {
            words[j] = staged[2 * j * kPackPitch] |
                       static_cast<uint32_t>(staged[(2 * j + 1) * kPackPitch]) << 16;
        }
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
}

// The first of a row's channels that one of its pieces carries. Where a folded channel's 8 positions fill two
// pieces, the second ones follow all first ones: four neighbouring rows of a channel lie in different banks.
template <Mode kMode>
__device__ __forceinline__ constexpr int32_t first_channel(int32_t piece, bool folded) {
    using Traits = ModeTraits<kMode>;
    constexpr int kHalf = Traits::kPieces / 2;
    if (!folded || Traits::kPieceChannels == kFold) return piece * Traits::kPieceChannels;
    return piece % kHalf * kFold + piece / kHalf * Traits::kPieceChannels;
}

// Staged weights to their rows of the image; kChunkChannels may be less than what is staged.
template <Mode kMode>
__device__ __forceinline__ void pack_staged(const typename ModeTraits<kMode>::Bits* staged,
                                            const PackUnit& unit, const Geometry& geometry, uint8_t* image,
                                            float scale) {
    using Traits = ModeTraits<kMode>;
    constexpr int kChunks = kPackChannels<typename Traits::Bits> / Traits::kChunkChannels;
    const int32_t tile = unit.row / geometry.tile_o, row = unit.row - tile * geometry.tile_o;
#pragma unroll
    for (int part = 0; part < kChunks; ++part) {
        const int32_t chunk = unit.c / Traits::kChunkChannels + part;
        if (chunk >= geometry.chunks) break;
#pragma unroll 1
        for (int32_t i = threadIdx.x % 32; i < unit.taps * 8; i += 32) {
            const int32_t tap = unit.tap + i / 8, piece = i % 8;
            const int32_t tap_group = geometry.tap_groups > 1 ? tap / geometry.taps_per_group : 0;
            const int32_t first_tap = tap_group * geometry.taps_per_group;
            const int64_t block =
                (int64_t{tile} * geometry.taps + first_tap) * geometry.chunks +
                chunk * min(geometry.taps_per_group, geometry.taps - first_tap) + tap - first_tap;
            const int32_t channel = part * Traits::kChunkChannels +
                                    first_channel<kMode>(piece % Traits::kPieces, geometry.folded);
            // By steps: those of a chunk follow each other, in each all taps; rows are not swizzled.
            constexpr int kParts = 8 / Traits::kPieces;  // high, then low
            const int32_t step = piece % Traits::kPieces / 2 * kParts + piece / Traits::kPieces;
            const int64_t place =
                geometry.by_steps
                    ? ((block - tap) * 4 + step * geometry.taps + tap) * (geometry.tile_o * 2) +
                          row / 8 * 16 + piece % 2 * 8 + row % 8
                    : (block * geometry.tile_o + row) * 8 + (piece ^ (row & 7));
            reinterpret_cast<uint4*>(image)[place] =
                pack_piece<kMode>(staged + channel * kPackPitch + i / 8, piece >= Traits::kPieces, scale);
        }
    }
}

// Index of row `row` of the image among the rows of w, or of another where there is none; whether there is.
__device__ __forceinline__ bool find_row_of_w(const Geometry& geometry, int32_t row, int32_t O,
                                              int64_t& w_row) {
    const int32_t group_rows = geometry.o_tiles * geometry.tile_o, group = row / group_rows;
    const int32_t o = row - group * group_rows;
    w_row = int64_t{group} * O + min(o, O - 1);
    return o < O;
}

// A row of the image a warp, and of it every gridDim.y-th unit. Zeroes the tickets.
template <Mode kMode>
__global__ void __launch_bounds__(kPackThreads)
    pack_weights_kernel(const void* __restrict__ w,  // [G*O][C][K]
                        Scratch scratch, Geometry geometry, PackUnits units, int32_t C, int32_t O, int32_t K,
                        int32_t rows) {
#if __CUDA_ARCH__ == 900
    using Bits = typename ModeTraits<kMode>::Bits;
    __shared__ Bits staged[kPackThreads / 32][kPackChannels<Bits> * kPackPitch];
    ptx::griddepcontrol_launch_dependents();
    const int32_t warp = threadIdx.x / 32, row = blockIdx.x * (kPackThreads / 32) + warp;
    if (blockIdx.x + blockIdx.y == 0 && threadIdx.x < 2) scratch.tickets[threadIdx.x] = 0;
    if (row >= rows) return;
    int64_t w_row;
    const bool exists = find_row_of_w(geometry, row, O, w_row);
#pragma unroll 1
    for (int32_t i = blockIdx.y; i < units.count; i += gridDim.y) {
        const PackUnit unit = unit_of<Bits>(geometry, units, row, i);
        stage_weights<8>(staged[warp], static_cast<const Bits*>(w) + w_row * C * K, unit,
                         geometry.folded != 0, C, K, exists);
        pack_staged<kMode>(staged[warp], unit, geometry, scratch.image, 1.0f);
    }
#endif
}

// One output channel a block: finds its scale and packs it for f16x3, and for kSafeMode. Zeroes the tickets
// and empties the list of tiles.
template <Mode kSafeMode>
__global__ void __launch_bounds__(kPackThreads)
    pack_split_weights_kernel(const uint32_t* __restrict__ w,  // fp32 [G*O][C][K]
                              Scratch scratch, Geometry geometry, Geometry safe_geometry, PackUnits units,
                              int32_t C, int32_t O, int32_t K) {
#if __CUDA_ARCH__ == 900
    __shared__ uint32_t staged[kPackThreads / 32][kPackChannels<uint32_t> * kPackPitch];
    __shared__ uint32_t largest, small;
    ptx::griddepcontrol_launch_dependents();
    if (blockIdx.x == 0 && threadIdx.x < 2) scratch.tickets[threadIdx.x] = 0;
    for (int64_t i = blockIdx.x * int64_t{kPackThreads} + threadIdx.x; i < geometry.tiles;
         i += gridDim.x * int64_t{kPackThreads})
        scratch.is_listed[i] = 0;
    int64_t w_row;
    const bool exists = find_row_of_w(geometry, static_cast<int32_t>(blockIdx.x), O, w_row);
    const uint32_t* const row = w + w_row * C * K;
    if (threadIdx.x == 0) largest = small = 0;
    __syncthreads();
    const int32_t weights = exists ? C * K : 0;
    Range range;
    for (int32_t i = threadIdx.x; i < weights; i += kPackThreads) range.add(row[i], 1.0f);
    atomicMax(&largest, range.largest);
    __syncthreads();
    // The largest magnitude's exponent becomes 14; beyond 2^100 either way, the scale itself could overflow.
    const int32_t exponent = static_cast<int32_t>(largest >> 23) - 127;
    const bool scales = exponent > -100 && exponent < 100;
    const float scale = scales ? __uint_as_float(static_cast<uint32_t>(14 - exponent + 127) << 23) : 1.0f;
    range = {};
    for (int32_t i = threadIdx.x; i < weights; i += kPackThreads) range.add(row[i], scale);
    if (range.small > 0) atomicAdd(&small, range.small);
    __syncthreads();
    if (threadIdx.x == 0)
        scratch.row_scaling[blockIdx.x] = make_float2(
            (scales || largest == 0 ? 1.0f : -1.0f) / (scale * kXScale), static_cast<float>(small));
    // The safe image's tiles may have other numbers of rows.
    const int32_t group_rows = geometry.o_tiles * geometry.tile_o;
    const int32_t group = static_cast<int32_t>(blockIdx.x) / group_rows;
    const int32_t o = static_cast<int32_t>(blockIdx.x) - group * group_rows;
    const int32_t safe_rows = safe_geometry.o_tiles * safe_geometry.tile_o;
    for (int32_t i = threadIdx.x / 32; i < units.count; i += kPackThreads / 32) {
        PackUnit unit = unit_of<uint32_t>(geometry, units, blockIdx.x, i);
        uint32_t* const weights_smem = staged[threadIdx.x / 32];
        // Eight together: 1.004 of the time.
        stage_weights<4>(weights_smem, row, unit, geometry.folded != 0, C, K, exists);
        pack_staged<Mode::f16x3>(weights_smem, unit, geometry, scratch.image, scale);
        unit.row = group * safe_rows + o;
        if (o < safe_rows)
            pack_staged<kSafeMode>(weights_smem, unit, safe_geometry, scratch.safe_image, 1.0f);
    }
#endif
}

template <Mode kMode>
void pack_weights(const Problem& problem, const Geometry& geometry, const Scratch& scratch,
                  cudaStream_t stream) {
    const int32_t rows = static_cast<int32_t>(problem.G) * geometry.o_tiles * geometry.tile_o;
    const PackUnits units = divide_row<typename ModeTraits<kMode>::Bits>(geometry, rows);
    const dim3 blocks(static_cast<unsigned>(ceil_div(rows, kPackThreads / 32)),
                      static_cast<unsigned>(min(int64_t{units.count}, kMaxBlockRows)));
    pack_weights_kernel<kMode><<<blocks, kPackThreads, 0, stream>>>(
        problem.w, scratch, geometry, units, static_cast<int32_t>(problem.C), static_cast<int32_t>(problem.O),
        static_cast<int32_t>(problem.K), rows);
}
template <Mode kSafeMode>
void pack_split_weights(const Problem& problem, const Geometry& geometry, const Geometry& safe,
                        const Scratch& scratch, cudaStream_t stream) {
    const unsigned rows = static_cast<unsigned>(problem.G * geometry.o_tiles * geometry.tile_o);
    pack_split_weights_kernel<kSafeMode><<<rows, kPackThreads, 0, stream>>>(
        static_cast<const uint32_t*>(problem.w), scratch, geometry, safe,
        divide_row<uint32_t>(geometry, rows), static_cast<int32_t>(problem.C),
        static_cast<int32_t>(problem.O), static_cast<int32_t>(problem.K));
}

// For all routes that pack so: compiled in gemm_sm90_16bit.cu, a short unit.
#define CONV1D_SM90_PACK(mode) \
    void pack_weights<Mode::mode>(const Problem&, const Geometry&, const Scratch&, cudaStream_t);
#define CONV1D_SM90_PACK_SPLIT(mode)                                                              \
    void pack_split_weights<Mode::mode>(const Problem&, const Geometry&, const Geometry&,         \
                                        const Scratch&, cudaStream_t);
extern template CONV1D_SM90_PACK(tf32)
extern template CONV1D_SM90_PACK(tf32x3)
extern template CONV1D_SM90_PACK(f16)
extern template CONV1D_SM90_PACK(bf16)
extern template CONV1D_SM90_PACK_SPLIT(tf32x3)

// A batch is 64 positions with all channels of a row, loaded and then stored; the batches of all stages go
// round the warps. Neighbouring lanes take neighbouring positions, so global loads run along the rows of x.
// Where these lie side by side a lane takes two, with one load a channel, of an aligned word. If the row
// begins at an odd element, that word holds the second half of a pair and the next lane's the first half of
// the next, so a batch is 62 positions then.
template <Mode kMode, Layout kLayout>
struct Converter {
    using Traits = ModeTraits<kMode>;
    using Bits = typename Traits::Bits;

    const Geometry& geometry;
    const Problem& problem;
    const Barriers& barriers;
    const Scratch& scratch;
    uint8_t* const x_smem;
    const int lane;
    int32_t batch;  // of the current stage
    __half2 largest;  // f16x3: magnitudes of the batch's high parts

    Ring tiles, stages;
    Announcement place;
    const Bits* x_tile;  // x at the tile's sample and group
    int32_t tap_group = 0, chunk = 0;

    __device__ __forceinline__ Converter(const Geometry& geometry, const Problem& problem,
                                         const Barriers& barriers, const Scratch& scratch, uint8_t* x_smem,
                                         int warp, int lane)
        : geometry(geometry),
          problem(problem),
          barriers(barriers),
          scratch(scratch),
          x_smem(x_smem),
          lane(lane),
          batch(warp) {
        stages.parity = 1;
    }

    __device__ __forceinline__ void next_tile() {
        ptx::mbarrier_wait(barriers.tile_full(tiles.stage), tiles.parity);
        place = barriers.tile[tiles.stage];
        __syncwarp();
        if (lane == 0) ptx::mbarrier_arrive(barriers.tile_empty(tiles.stage));
        tiles.advance(kTileSlots);
        x_tile = static_cast<const Bits*>(problem.x) + place.sample * problem.x_stride_n +
                 place.group * problem.C * problem.x_stride_c;
    }

    // Position of x at q = 0 of the window; row t of a sample begins at t*stride.
    __device__ __forceinline__ int32_t window_begin() const {
        return place.row * static_cast<int32_t>(problem.stride) - static_cast<int32_t>(problem.pad_left) +
               ptx::anew(tap_group) * geometry.taps_per_group *
                   (kLayout == Layout::folded ? kFold : static_cast<int32_t>(problem.dilation));
    }

    // Where position q of the window lies in channel c of x; null where it is padding.
    __device__ __forceinline__ const Bits* find(int32_t q, int32_t c) const {
        const int32_t stride = static_cast<int32_t>(problem.stride);
        int32_t l = window_begin() + q;
        const Bits* source = x_tile;
        bool valid = q < geometry.window && place.sample < problem.N;
        if (geometry.flat) {
            int32_t t = place.row + divide_by_stride(geometry, q, stride);
            const int32_t samples = wrap_row(geometry, t);
            source += samples * problem.x_stride_n;
            l -= samples * geometry.rows_per_sample * stride;
            valid = valid && place.sample + samples < problem.N;
        }
        valid = valid && static_cast<uint32_t>(l) < static_cast<uint32_t>(problem.L);
        source += int64_t{l} * geometry.x_stride_l + int64_t{c} * geometry.x_stride_c;
        return valid ? source : nullptr;
    }

    // The chunk's channels at position q of the window, and, where Word holds two elements, at q + 1.
    template <class Word>
    __device__ __forceinline__ void load(Word (&value)[Traits::kChunkChannels], int32_t q) {
        const int32_t c = chunk * Traits::kChunkChannels;
        const Bits* source = find(q, c);
        const int32_t channels = source != nullptr ? static_cast<int32_t>(problem.C) - c : 0;
#pragma unroll
        for (int i = 0; i < Traits::kChunkChannels; ++i, source += geometry.x_stride_c)
            value[i] = i < channels ? __ldg(reinterpret_cast<const Word*>(source)) : Word{};
    }

    // The same at q and q + 1, of which q is at an even position of x, where rows may begin at odd elements.
    using Pair = typename Traits::BitsPair;
    __device__ __forceinline__ void load_ragged(Pair (&value)[Traits::kChunkChannels], int32_t q) {
        const int32_t c = chunk * Traits::kChunkChannels;
        const int32_t l = window_begin() + q, L = static_cast<int32_t>(problem.L);
        const bool exists = place.sample < problem.N && l >= 0;
        const Bits* source = x_tile + l + int64_t{c} * geometry.x_stride_c;
        // Whether the rows of even channels and of odd ones, counted from c, begin at odd elements.
        const uint32_t parity = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(source) / sizeof(Bits));
        const bool odd[2] = {parity % 2 != 0, (parity + geometry.x_stride_c) % 2 != 0};
        const int32_t channels = static_cast<int32_t>(problem.C) - c;
        bool wanted[2];  // the lane before wants the first half of an odd row's word, also behind its end
#pragma unroll
        for (int j = 0; j < 2; ++j)
            wanted[j] = exists && (odd[j] ? q <= geometry.window && l <= L : q < geometry.window && l < L);
        source -= odd[0];
        const int32_t step = geometry.x_stride_c + odd[0] - odd[1];  // from an even channel to the next
#pragma unroll
        for (int i = 0; i < Traits::kChunkChannels; ++i) {
            value[i] = wanted[i % 2] && i < channels ? __ldg(reinterpret_cast<const Pair*>(source)) : Pair{};
            source += i % 2 == 0 ? step : 2 * geometry.x_stride_c - step;
        }
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            if (!odd[j]) continue;
#pragma unroll
            for (int i = j; i < Traits::kChunkChannels; i += 2) {
                if constexpr (Traits::kIsFloat) {
                    const uint32_t next = __shfl_down_sync(0xFFFFFFFF, value[i].x, 1);
                    value[i] = make_uint2(value[i].y, next);
                } else {
                    const uint32_t next = __shfl_down_sync(0xFFFFFFFF, value[i], 1);
                    value[i] = __byte_perm(value[i], next, 0x5432);
                }
            }
        }
        // Words over an end of the row hold an element that is not of it.
        const bool inside[2] = {l >= 0 && l < L, l >= 0 && l + 1 < L};
        if (__all_sync(0xFFFFFFFF, inside[0] && inside[1])) return;
#pragma unroll
        for (int i = 0; i < Traits::kChunkChannels; ++i) {
            if constexpr (Traits::kIsFloat)
                value[i] = make_uint2(inside[0] ? value[i].x : 0, inside[1] ? value[i].y : 0);
            else value[i] &= (inside[0] ? 0xFFFFu : 0u) | (inside[1] ? 0xFFFF0000u : 0u);
        }
    }

    // The row of the current stage that holds position q of the window; `target` is null where no tap reads
    // it.
    struct Row {
        uint8_t* target;
        int32_t swizzle;
    };
    __device__ __forceinline__ Row find_row(int32_t q) const {
        const int32_t stride = static_cast<int32_t>(problem.stride);
        const int32_t row = divide_by_stride(geometry, q, stride), plane = q - row * stride;
        if (q < 0 || q >= geometry.window || !(geometry.plane_mask >> plane & 1)) return {nullptr, 0};
        const int32_t stored_row = row + plane_row(geometry, plane);
        return {x_smem + stages.stage * geometry.x_stage_bytes + stored_row * kRowBytes, stored_row & 7};
    }

    // Rounds or splits the channels of one piece into a row. get_word(i) is channel i's element, or, of 16
    // bits each, those of channels 2*i and 2*i + 1. Returns whether one is too small for f16x3.
    template <class GetWord>
    __device__ __forceinline__ bool store_piece(const Row& row, int32_t piece, GetWord get_word) {
        uint32_t high[4], low[4];
        bool any_small = false;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            if constexpr (kMode == Mode::f16x3) {
                const float first = __uint_as_float(get_word(2 * j));
                const float second = __uint_as_float(get_word(2 * j + 1));
                any_small = any_small || is_too_small(first) || is_too_small(second);
                high[j] = split_f16(first * kXScale, second * kXScale, low[j]);
                largest = __hmax2(largest, __habs2(*reinterpret_cast<const __half2*>(&high[j])));
            } else if constexpr (kMode == Mode::tf32x3) {
                const float value = __uint_as_float(get_word(j));
                high[j] = ptx::cvt_rn_tf32(value);
                low[j] = ptx::cvt_rn_tf32(value - __uint_as_float(high[j]));
            } else if constexpr (kMode == Mode::tf32) {
                high[j] = round_tf32(get_word(j));
            } else {
                high[j] = get_word(j);
            }
        }
        *reinterpret_cast<uint4*>(row.target + ((piece ^ row.swizzle) << 4)) =
            make_uint4(high[0], high[1], high[2], high[3]);
        if constexpr (Traits::kIsSplit)
            *reinterpret_cast<uint4*>(row.target + (((piece + Traits::kPieces) ^ row.swizzle) << 4)) =
                make_uint4(low[0], low[1], low[2], low[3]);
        return any_small;
    }

    // All pieces of position q.
    template <class GetWord>
    __device__ __forceinline__ void store(int32_t q, GetWord get_word) {
        const Row row = find_row(q);
        if (row.target == nullptr) return;
        constexpr int kWords = Traits::kPieceChannels * Traits::kElementBytes / 4;  // of a piece
        bool any_small = false;
#pragma unroll
        for (int piece = 0; piece < Traits::kPieces; ++piece)
            any_small |= store_piece(row, piece, [&](int i) { return get_word(kWords * piece + i); });
        if (any_small) count_small(q, 0, Traits::kChunkChannels);
    }

    // Counts those of `most` of the chunk's channels at position q, where there are some. (One in a million
    // normal numbers is small: reading them again costs less than counting all of them.)
    __device__ __forceinline__ void count_small(int32_t q, int32_t first, int32_t most) {
        const int32_t c = chunk * Traits::kChunkChannels + first;
        const auto* source = reinterpret_cast<const float*>(find(ptx::anew(q), c));
        const int32_t channels = min(most, static_cast<int32_t>(problem.C) - c);
        int32_t count = 0;
#pragma unroll 1
        for (int32_t i = 0; i < channels; ++i, source += geometry.x_stride_c)
            count += is_too_small(__ldg(source));
        atomicAdd(&barriers.small_count[place.counter], count);
    }

    template <bool kRagged>
    __device__ __forceinline__ void convert_pairs() {
        const int32_t q = 2 * ptx::anew(lane) + geometry.batch_positions * batch - (window_begin() & 1);
        Pair value[Traits::kChunkChannels];
        if constexpr (kRagged) load_ragged(value, q);
        else load(value, q);
        claim();
        if (kRagged && lane == 31) return;
        if constexpr (Traits::kIsFloat) {
            store(q, [&](int i) { return value[i].x; });
            store(q + 1, [&](int i) { return value[i].y; });
        } else {
            store(q, [&](int i) { return __byte_perm(value[2 * i], value[2 * i + 1], 0x5410); });
            store(q + 1, [&](int i) { return __byte_perm(value[2 * i], value[2 * i + 1], 0x7632); });
        }
    }

    // Position i of those of the window that are loaded. The first taps read all planes that some tap reads.
    __device__ __forceinline__ int32_t loaded_position(int32_t i) const {
        if (geometry.planes == 0) return i;
        const int32_t stride = static_cast<int32_t>(problem.stride), row = i / geometry.planes;
        const int32_t shift = (i - row * geometry.planes) * static_cast<int32_t>(problem.dilation);
        return row * stride + shift - divide_by_stride(geometry, shift, stride) * stride;
    }

    __device__ __forceinline__ void convert_singles() {
        constexpr int kTogether = Traits::kIsFloat ? 2 : 1;  // runs of 32 positions, as registers allow
#pragma unroll 1
        for (int first = 0; first < 2; first += kTogether) {
            int32_t q[kTogether];
            Bits value[kTogether][Traits::kChunkChannels];
#pragma unroll
            for (int i = 0; i < kTogether; ++i) {
                q[i] = loaded_position(lane + 64 * batch + 32 * (first + i));
                load(value[i], q[i]);
            }
            claim();
#pragma unroll
            for (int i = 0; i < kTogether; ++i) {
                store(q[i], [&](int j) -> uint32_t {
                    if constexpr (Traits::kIsFloat) return value[i][j];
                    else return value[i][2 * j] | static_cast<uint32_t>(value[i][2 * j + 1]) << 16;
                });
            }
        }
    }

    // Channels-last: neighbouring lanes take the pieces of a row, whose channels are neighbours in memory.
    __device__ __forceinline__ void convert_pieces() {
        constexpr int kPositions = 32 / Traits::kPieces;  // of the warp at once
        constexpr int kLoads = Traits::kPieceChannels * Traits::kElementBytes / 16;
        const int32_t piece = lane % Traits::kPieces, first_channel = piece * Traits::kPieceChannels;
        const int32_t c = chunk * Traits::kChunkChannels + first_channel;
        const int32_t q = 64 * batch + lane / Traits::kPieces;  // and every kPositions-th from there on
        const int32_t l = window_begin() + q;
        const int32_t l_end = place.sample < problem.N && c < problem.C ? static_cast<int32_t>(problem.L) : 0;
        const Bits* const source = x_tile + int64_t{l} * geometry.x_stride_l + c;
        uint4 value[64 / kPositions][kLoads];
#pragma unroll
        for (int i = 0; i < 64 / kPositions; ++i) {
            const int32_t step = i * kPositions;
            const Bits* from = source + int64_t{step} * geometry.x_stride_l;
            bool valid = q + step < geometry.window &&
                         static_cast<uint32_t>(l + step) < static_cast<uint32_t>(l_end);
            if (geometry.flat) {
                from = find(q + step, c);
                valid = from != nullptr && l_end > 0;
            }
#pragma unroll
            for (int j = 0; j < kLoads; ++j)
                value[i][j] = valid ? __ldg(reinterpret_cast<const uint4*>(from) + j) : uint4{};
        }
        claim();
        // Where the stride divides kPositions, all lie in one plane, row_step rows apart.
        const int32_t stride = static_cast<int32_t>(problem.stride);
        const int32_t row_step = divide_by_stride(geometry, kPositions, stride);
        const bool in_step = row_step * stride == kPositions;
        const Row first_row = find_row(q);
#pragma unroll
        for (int i = 0; i < 64 / kPositions; ++i) {
            const int32_t step = i * kPositions;
            const bool stored = first_row.target != nullptr && q + step < geometry.window;
            const Row row = !in_step ? find_row(q + step)
                            : stored ? Row{first_row.target + i * row_step * kRowBytes,
                                           (first_row.swizzle + i * row_step) & 7}
                                     : Row{nullptr, 0};
            if (row.target == nullptr) continue;
            const bool any_small = store_piece(row, piece, [&](int j) {
                return word_of(value[i][j / 4], j);
            });
            if (any_small) count_small(q + step, first_channel, Traits::kPieceChannels);
        }
    }

    // The word of the next lane; in lane 31, `behind` of lane 0.
    __device__ __forceinline__ uint4 next_word(const uint4& word, const uint4& behind) const {
        uint32_t part[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const uint32_t first = lane == 0 ? word_of(behind, j) : word_of(word, j);
            part[j] = __shfl_sync(0xFFFFFFFF, first, (lane + 1) % 32);
        }
        return make_uint4(part[0], part[1], part[2], part[3]);
    }

    // 16 bytes of a channel of which the first is at position l, without elements outside of the row of x.
    __device__ __forceinline__ uint4 clip(const uint4& word, int32_t l) const {
        uint32_t part[4];
        const auto inside = [&](int32_t i) {
            return static_cast<uint32_t>(l + i) < static_cast<uint32_t>(problem.L);
        };
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            if constexpr (Traits::kIsFloat) part[j] = inside(j) ? word_of(word, j) : 0;
            else
                part[j] = word_of(word, j) & ((inside(2 * j) ? 0xFFFFu : 0u) |
                                              (inside(2 * j + 1) ? 0xFFFF0000u : 0u));
        }
        return make_uint4(part[0], part[1], part[2], part[3]);
    }

    // f16x3: half a piece of channels, which are neighbours in memory.
    __device__ __forceinline__ void store_half_piece(const Row& row, int32_t piece, int32_t half,
                                                     const uint4& word) {
        const float value[4] = {__uint_as_float(word.x), __uint_as_float(word.y), __uint_as_float(word.z),
                                __uint_as_float(word.w)};
        uint32_t high[2], low[2];
        bool any_small = false;
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            any_small = any_small || is_too_small(value[2 * j]) || is_too_small(value[2 * j + 1]);
            high[j] = split_f16(value[2 * j] * kXScale, value[2 * j + 1] * kXScale, low[j]);
            largest = __hmax2(largest, __habs2(*reinterpret_cast<const __half2*>(&high[j])));
        }
        uint8_t* const target = row.target + 8 * half;
        *reinterpret_cast<uint2*>(target + ((piece ^ row.swizzle) << 4)) = make_uint2(high[0], high[1]);
        *reinterpret_cast<uint2*>(target + (((piece + Traits::kPieces) ^ row.swizzle) << 4)) =
            make_uint2(low[0], low[1]);
        if (any_small) {
            int32_t count = 0;
#pragma unroll
            for (int j = 0; j < 4; ++j) count += is_too_small(value[j]);
            atomicAdd(&barriers.small_count[place.counter], count);
        }
    }

    static constexpr int kElements = 16 / Traits::kElementBytes;  // of a word of 16 bytes
    // Folded: words of a channel's row; channels of x in a chunk.
    static constexpr int kHalves = kFold / kElements, kChannels = Traits::kChunkChannels / kFold;

    __device__ __forceinline__ void store_word(const Row& row, int32_t channel, int32_t half,
                                               const uint4& word) {
        if constexpr (kMode == Mode::f16x3) store_half_piece(row, channel, half, word);
        else store_piece(row, half * kChannels + channel, [&](int j) { return word_of(word, j); });
    }

    // Rows of the window behind the last batch, which its warp loads in one go with it: a lane takes a word.
    __device__ __forceinline__ int32_t rest_row() const {
        return geometry.batches * geometry.batch_positions + ptx::anew(lane) / (kChannels * kHalves);
    }
    __device__ __forceinline__ int32_t rest_position() const {
        return window_begin() + rest_row() * kFold + ptx::anew(lane) % kHalves * kElements;
    }
    __device__ __forceinline__ uint4 load_rest() const {
        const int32_t l = rest_position(), L = static_cast<int32_t>(problem.L);
        const int32_t c = chunk * kChannels + lane / kHalves % kChannels;
        const bool valid = c < static_cast<int32_t>(problem.C) && rest_row() < geometry.window &&
                           l > -kElements && l < L;
        const Bits* const source = x_tile + int64_t{c} * geometry.x_stride_c + l;
        return valid ? __ldg(reinterpret_cast<const uint4*>(source)) : uint4{};
    }
    __device__ __forceinline__ void store_rest(const uint4& word) {
        const int32_t q = rest_row();
        if (q >= geometry.window) return;
        uint8_t* const target = x_smem + stages.stage * geometry.x_stage_bytes + q * kRowBytes;
        store_word({target, q & 7}, lane / kHalves % kChannels, lane % kHalves,
                   clip(word, rest_position()));
    }

    // Folded: the channel's positions of a row are neighbours in memory. Neighbouring lanes load neighbouring
    // 16 bytes of a channel. Where rows of x begin between those, they load the aligned ones and exchange.
    template <bool kRagged>
    __device__ __forceinline__ void convert_folded() {
        constexpr int kRows = 32 / kHalves;                        // that a warp loads at once
        constexpr int kLoads = 64 / kRows;
        const int32_t row = geometry.batch_positions * batch + lane / kHalves, half = lane % kHalves;
        const int32_t first_l = window_begin() + geometry.batch_positions * batch * kFold;
        const int32_t l = first_l + lane * kElements, L = static_cast<int32_t>(problem.L);
        const int32_t c = chunk * kChannels;
        const Bits* const source = x_tile + int64_t{c} * geometry.x_stride_c + l;
        const auto shift_of = [&](int32_t channel) {
            return (misalignment<kElements>(source) + channel * geometry.x_stride_c) % kElements;
        };
        const bool takes_rest = !kRagged && geometry.rest > 0 && batch == geometry.batches - 1;
        uint4 rest{};
        if (takes_rest) rest = load_rest();
        uint4 value[kChannels][kLoads];
        const Bits* from = source;
#pragma unroll
        for (int channel = 0; channel < kChannels; ++channel, from += geometry.x_stride_c) {
            const int32_t shift = kRagged ? shift_of(channel) : 0;
            const bool exists = c + channel < static_cast<int32_t>(problem.C);
#pragma unroll
            for (int i = 0; i < kLoads; ++i) {
                const int32_t step = 32 * i * kElements - shift;
                const bool valid = exists && l + step > -kElements && l + step < L &&
                                   row + i * kRows < geometry.window + kRagged;
                value[channel][i] = valid ? __ldg(reinterpret_cast<const uint4*>(from + step)) : uint4{};
            }
        }
        claim();
        const bool is_inside = first_l >= 0 && first_l + 64 * kFold <= L;
        uint8_t* const target = x_smem + stages.stage * geometry.x_stage_bytes + row * kRowBytes;
#pragma unroll
        for (int channel = 0; channel < kChannels; ++channel) {
            const int32_t shift = kRagged ? shift_of(channel) : 0;
#pragma unroll
            for (int i = 0; i < kLoads; ++i) {
                uint4 word = value[channel][i];
                if (kRagged && shift != 0)
                    word = realign<Traits::kElementBytes>(
                        word, next_word(word, value[channel][(i + 1) % kLoads]), shift);
                if (!is_inside) word = clip(word, l + 32 * i * kElements);
                if (row + i * kRows >= geometry.window) continue;
                if (kRagged && i == kLoads - 1 && lane / kHalves == kRows - 1) continue;
                store_word({target + i * kRows * kRowBytes, row & 7}, channel, half, word);
            }
        }
        if (takes_rest) store_rest(rest);
    }

    __device__ __forceinline__ void convert_batch() {
        largest = __half2{};
        if constexpr (kLayout == Layout::channels_last) convert_pieces();
        else if constexpr (kLayout == Layout::folded)
            geometry.ragged ? convert_folded<true>() : convert_folded<false>();
        else if (geometry.ragged) convert_pairs<true>();
        else if (geometry.pairs) convert_pairs<false>();
        else convert_singles();
        if constexpr (kMode == Mode::f16x3) {
            ptx::griddepcontrol_wait();  // for an empty list
            const float2 most = __half22float2(largest);
            if (__any_sync(0xFFFFFFFF, !(most.x < INFINITY && most.y < INFINITY)) && lane == 0)
                list_tile(scratch, place.tile);
        }
    }

    // Waits until the current stage is free; it stays so until this warp leaves it.
    __device__ __forceinline__ void claim() {
        ptx::mbarrier_wait(barriers.x_empty(stages.stage), stages.parity);
    }

    // Brings `batch` back into a stage, leaving those before it; false once there are no more tiles. Every
    // warp claims and leaves every stage, also one in which it has no batch: else the barriers could run two
    // phases ahead of it, which to a parity looks like none.
    __device__ __forceinline__ bool find_stage() {
        while (batch >= geometry.batches) {
            batch -= geometry.batches;
            claim();
            ptx::fence_proxy_async();
            __syncwarp();
            if (lane == 0) ptx::mbarrier_arrive(barriers.x_full(stages.stage));
            stages.advance(geometry.x_stages);
            if (++chunk == geometry.chunks) {
                chunk = 0;
                if (++tap_group == geometry.tap_groups) {
                    tap_group = 0;
                    next_tile();
                    if (place.tile < 0) return false;
                }
            }
        }
        return true;
    }

    __device__ __forceinline__ void run() {
        next_tile();
        if (place.tile < 0) return;
        while (find_stage()) {
            convert_batch();
            batch += kConverterWarps;
        }
    }
};

}  // namespace sm90
}  // namespace conv1d
