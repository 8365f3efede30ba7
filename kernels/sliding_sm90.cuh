// Dense convolution of three or five taps at a stride of 1 on Hopper: window_sm90.cuh with x of neighbouring
// positions in a lane, which loads the words that all their taps need once.
#pragma once
#include <type_traits>

#include "gemm_sm90_convert.cuh"
#include "problem.h"
#include "ptx.cuh"
#include "sliding_sm90_plan.cuh"
#include "tile.cuh"
#include "window_sm90.cuh"

namespace conv1d {
namespace sm90 {

// Lane 4*g + t holds, of a step of 32 bytes of K, words t and t + 4: channels t and t + 4, or, of 16 bits and
// split operands, 2t, 2t + 1 and those + 8; of positions kSpan*g of its warp and those that follow. Rows g
// and g + 8 of product i are of these i and i + kProducts.
template <class Traits_>
struct SlideLoader {
    using Traits = Traits_;
    static constexpr bool kIsSplit = Traits::kIsSplit;
    static constexpr int kProducts = Traits::kProducts, kSpan = 2 * kProducts;
    static constexpr int kParts = Traits::kParts, kTogether = Traits::kTogether;
    // In the staged rows of y.
    static constexpr int kRuns = 1, kRun = kSpan;
    static __device__ __forceinline__ int run_start(int lane, int) { return kSpan * (lane / 4); }
    static __device__ __forceinline__ constexpr int product_of(int, int z) { return z % kProducts; }
    static __device__ __forceinline__ constexpr int row_of(int z) { return z / kProducts; }
    static __device__ __forceinline__ int position(int lane, int product, int row) {
        return kSpan * (lane / 4) + product + kProducts * row;
    }

    // Operand A of tap k of product i: numbers k + i and k + i + kProducts of those in the windows of all
    // positions, which is that of tap k + 1 of the product before.
    static constexpr int kNumbers = Traits::kTaps + kSpan - 1, kOperands = Traits::kTaps + kProducts - 1;
    struct Fragments {
        uint32_t part[kParts][kOperands][4];  // high, then low
    };
    static __device__ __forceinline__ const uint32_t (&operand(const Fragments& fragments, int part, int tap,
                                                               int product))[4] {
        return fragments.part[part][tap + product];
    }

    // Where windows begin behind blocks of kSpan elements, of the usual paddings: none, equal on both sides,
    // or all on the left. Other windows, and those of rows that begin between blocks (floats: between pieces,
    // which leaves the mask of padding to one way), are loaded by words.
    static constexpr int kLateSame = (kSpan - Traits::kTaps / 2 % kSpan) % kSpan;
    static constexpr int kLateCausal = (kSpan - (Traits::kTaps - 1) % kSpan) % kSpan;

    // How a stage is loaded: one bit each, of whose tests the compiler makes no table of jumps; else causal.
    static constexpr uint32_t kSame = 1, kWords = 2, kNone = 4;

    const Problem& problem;
    const int lane;
    const bool apart;                 // rows begin between 16-byte pieces
    uint32_t way;
    uint32_t lane_offset[kTogether];  // of this lane's first channels and position, in a stage
    uint32_t half_step;               // from words t to words t + 4
    uint32_t shift[kTogether];        // by words, 16 bits: where that window begins in its first word
    bool has_padding = false;         // apart: of this tile's windows of this warp, some reach out of the row
    int32_t first;                    // apart: where that of the first position begins in the row
    int32_t small;                    // f16x3: values of x too small for a split

    __device__ __forceinline__ SlideLoader(const WindowGeometry& geometry, const Problem& problem, int warp,
                                           int lane)
        : problem(problem), lane(lane), apart(geometry.residues > 1) {
        constexpr int kBytes = Traits::kElementBytes;
        const int t = lane % 4, residues = geometry.residues;
        const int pitch = Traits::pitch(residues) * kBytes;
        half_step = (Traits::kIsTf32 ? 4 : 8) / residues * pitch;
        const int position = warp % Traits::kWarpsOfBox * Traits::kWarpPositions + kSpan * (lane / 4);
        const int late = lateness<Traits>(problem, 0) % kSpan;
        const bool by_words = (apart && (Traits::kIsFloat || problem.x_stride_c % kSpan != 0)) ||
                              (late != 0 && late != kLateSame && late != kLateCausal);
        way = by_words ? kWords : late == kLateSame ? kSame : late == 0 ? kNone : 0;
#pragma unroll
        for (int u = 0; u < kTogether; ++u) {
            const int channel = kTogether * t + u, residue = channel % residues;
            const int late_in_box = lateness<Traits>(problem, residue);
            const int begin = by_words ? late_in_box * kBytes / 4 * 4 : late_in_box / kSpan * kSpan * kBytes;
            shift[u] = late_in_box * kBytes % 4 * 8;
            lane_offset[u] = Traits::kWeightBytes + warp / Traits::kWarpsOfBox * geometry.box_bytes +
                             residue * (geometry.box_bytes / residues) + channel / residues * pitch +
                             position * kBytes + begin;
        }
    }

    // Of a tile in which this warp's positions begin at p.
    __device__ __forceinline__ void begin_tile(int32_t p) {
        if (!apart) return;
        const int32_t begin = p - static_cast<int32_t>(problem.pad_left), L = static_cast<int32_t>(problem.L);
        has_padding = begin < 0 || begin + Traits::kWarpPositions + Traits::kTaps - 1 > L;
        first = begin + kSpan * (lane / 4);
    }

    // All of one stage of x. kLate: elements from a lane's first to the window of its first position; or
    // kByWords.
    static constexpr int kByWords = -1;
    template <int kLate>
    __device__ __forceinline__ void load_fragments(Fragments& fragments, uint32_t stage) {
        constexpr int kFirst = kLate == kByWords ? 0 : kLate;  // of the numbers in `words`
        constexpr int kPerWord = 4 / Traits::kElementBytes;
        constexpr int kBlocks = (kFirst + kNumbers + kSpan - 1) / kSpan;
        constexpr int kWords = kSpan / kPerWord;  // of a block
        using Block = std::conditional_t<kWords == 4, uint4, uint2>;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            uint32_t words[kTogether][kBlocks * kWords];
#pragma unroll
            for (int u = 0; u < kTogether; ++u) {
                const uint32_t source = stage + lane_offset[u] + half * half_step;
                if constexpr (kLate == kByWords) {
                    constexpr int kCount = kNumbers / kPerWord;
                    uint32_t loaded[kCount + 1];
#pragma unroll
                    for (int i = 0; i < kCount + kPerWord - 1; ++i)
                        ptx::ld_shared(loaded[i], source + 4 * i);
#pragma unroll
                    for (int i = 0; i < kCount; ++i)
                        words[u][i] = kPerWord == 1
                                          ? loaded[i]
                                          : __funnelshift_r(loaded[i], loaded[i + 1], shift[u]);
                } else {
#pragma unroll
                    for (int i = 0; i < kBlocks; ++i) {
                        Block block;
                        ptx::ld_shared(block, source + i * static_cast<int>(sizeof(Block)));
                        uint32_t* const to = words[u] + i * kWords;
                        to[0] = block.x, to[1] = block.y;
                        if constexpr (kWords == 4) to[2] = block.z, to[3] = block.w;
                    }
                }
            }
            uint32_t numbers[kParts][kNumbers];
            if constexpr (Traits::kIsTf32) {
#pragma unroll
                for (int j = 0; j < kNumbers; ++j) numbers[0][j] = round_tf32(words[0][kFirst + j]);
            } else if constexpr (kIsSplit) {
                // Beyond a lane's own positions are another's.
                split_values(words[0] + kFirst, words[1] + kFirst, numbers, small,
                             [&](int j) { return j < kSpan || lane >= 28; });
            } else {
#pragma unroll
                for (int j = 0; j < kNumbers; ++j) {
                    const int at = kFirst + j;
                    numbers[0][j] = __byte_perm(words[0][at / 2], words[kTogether - 1][at / 2],
                                                at % 2 != 0 ? 0x7632 : 0x5410);
                }
            }
#pragma unroll
            for (int part = 0; part < kParts; ++part) {
#pragma unroll
                for (int i = 0; i < kOperands; ++i) {
                    fragments.part[part][i][2 * half] = numbers[part][i];
                    fragments.part[part][i][2 * half + 1] = numbers[part][i + kProducts];
                }
            }
        }
    }

    // What is not of the row counts as zero.
    __device__ __forceinline__ void mask_padding(Fragments& fragments) const {
        if (!has_padding) return;
#pragma unroll
        for (int i = 0; i < kParts * kOperands; ++i) {
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                const int32_t l = first + i % kOperands + r * kProducts;
                auto& registers = fragments.part[i / kOperands][i % kOperands];
                if (static_cast<uint32_t>(l) >= static_cast<uint32_t>(problem.L))
                    registers[r] = registers[2 + r] = 0;
            }
        }
    }

    __device__ __forceinline__ void load(Fragments& fragments, uint32_t stage) {
        if (way & kSame) {
            load_fragments<kLateSame>(fragments, stage);
        } else if (way & kWords) {
            load_fragments<kByWords>(fragments, stage);
            if (Traits::kIsFloat) mask_padding(fragments);
        } else if (way & kNone) {
            load_fragments<0>(fragments, stage);
        } else {
            load_fragments<kLateCausal>(fragments, stage);
        }
        if (!Traits::kIsFloat) mask_padding(fragments);
    }
};

// Those of five taps are compiled in sliding_sm90_five.cu.
#define CONV1D_SM90_SLIDE(mode, outputs) \
    Error launch_windows<SlideLoader<WindowTraits<Mode::mode, 5, 1, outputs>>>(const Problem&, cudaStream_t);
#define CONV1D_SM90_SLIDES_OF_FIVE(what) \
    what CONV1D_SM90_SLIDE(tf32, 128)    \
    what CONV1D_SM90_SLIDE(tf32, 64)     \
    what CONV1D_SM90_SLIDE(f16x3, 128)   \
    what CONV1D_SM90_SLIDE(f16x3, 64)    \
    what CONV1D_SM90_SLIDE(f16, 128)     \
    what CONV1D_SM90_SLIDE(f16, 64)      \
    what CONV1D_SM90_SLIDE(bf16, 128)    \
    what CONV1D_SM90_SLIDE(bf16, 64)
CONV1D_SM90_SLIDES_OF_FIVE(extern template)

}  // namespace sm90
}  // namespace conv1d
