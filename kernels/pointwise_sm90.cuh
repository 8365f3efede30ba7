// Pointwise convolution on Hopper: with one tap, y[n] = W * x[n] is a plain matrix product.
//
// Chosen for 16 channels a group and more, and rows of x of whole 16 bytes. The positions of all samples lie
// in a line, cut into tiles. Eight loader warps bring x as it lies, [channel][position], and W, K-major in
// swizzled rows of 128 bytes, by asynchronous copies, and round or split W where it then lies. Two product
// warpgroups compute D[position][output] = x^T * W^T by wgmma: x is operand A, from registers, into which a
// thread reads four neighbouring positions of each of its channels; these are rows g and g + 8 of two
// products of 64 positions. So x is rounded, split or transposed in registers only, a thread's sums are four
// neighbours of a row of y, stored 16 bytes (of fp32) at once, and there is no packing and no workspace. fp32
// runs as three products of TF32 parts, of which the low ones come first, summed outside the tensor core
// every 16 channels; sums which those do not hold (inf, NaN, very small ones) are done again by
// multiply-adds. A sum's terms are added in the order of channels, wherever its position lies in a tile.
#pragma once
#include <type_traits>

#include "launch.cuh"
#include "mma.cuh"
#include "problem.h"
#include "ptx.cuh"
#include "tensor_map.cuh"
#include "tile.cuh"
#include "wgmma.cuh"

namespace conv1d {
namespace pointwise_sm90 {

constexpr int kProductWarps = 8, kLoaderWarps = 8;
constexpr int kConverterWarps = 4;  // of the loaders, where the copy engine does the rest
constexpr int kLoaders = 32 * kLoaderWarps, kThreads = 32 * kProductWarps + kLoaders;
// Of a thread of the product warpgroups, of 128 at launch. kColumns: outputs of a tile.
template <class Traits, int kColumns>
constexpr int kProductRegisters = kColumns == 128 || Traits::kParts == 2 ? 184 : 152;
constexpr int kPositions = 128;         // of a product warpgroup
constexpr int kTilePositions = 256;     // of a tile; both warpgroups take its outputs
constexpr int kRowBytes = 128;          // of W: one output's channels of a chunk
constexpr int kSteps = 4;               // products of 32 bytes of channels in a chunk
constexpr int kMaxStages = 8;
constexpr int kCluster = 2;  // blocks that share x, where they do
constexpr uint16_t kAllBlocks = (1 << kCluster) - 1;

// kParts_: 2 keeps the accuracy of fp32.
template <class Element_, int kParts_>
struct Traits {
    using Element = Element_;
    static constexpr int kParts = kParts_;
    static constexpr bool kIsFloat = std::is_same<Element, float>::value;
    static constexpr Operand kOperand = kIsFloat                                     ? Operand::tf32
                                        : std::is_same<Element, __nv_bfloat16>::value ? Operand::bf16
                                                                                      : Operand::f16;
    static constexpr int kElementBytes = sizeof(Element);
    static constexpr int kPieceChannels = 16 / kElementBytes;
    static constexpr int kChunkChannels = kRowBytes / kElementBytes;
    // Of a channel in shared memory: those that four neighbouring lanes load lie in different banks.
    static __host__ __device__ constexpr int pitch(int residues) { return kPositions + 8 * residues; }
    // Of x, of a warpgroup.
    static __host__ __device__ constexpr int plane_bytes(int residues) {
        return kChunkChannels * pitch(residues) * kElementBytes;
    }
    // Of W, of a stage.
    static __host__ __device__ constexpr int part_bytes(int columns) { return columns * kRowBytes; }
    // Of a stage: W, in parts, then x.
    static __host__ __device__ constexpr int stage_bytes(int columns, int residues) {
        return kParts * part_bytes(columns) + kTilePositions / kPositions * plane_bytes(residues);
    }
    // Of a warp's staged rows of y, in elements: 8 rows of 32 lie in different banks.
    static constexpr int kStagedPitch = kIsFloat ? 36 : 40;
    static constexpr int kStagedBytes = 8 * kStagedPitch * kElementBytes;
    static constexpr int kStagingBytes = kProductWarps * (kStagedBytes + 128 * 4);  // and the bias
};

// Stages whose copies are under way while one is converted. With one more, loaders and products wait for each
// other: conformer_pw TF32 0.284 ms, not 0.248.
template <class Traits, int kColumns>
constexpr int kAhead = kColumns == 128 || Traits::kParts == 2 ? 2 : 3;

// How one launch cuts its problem; written by the host, read by every role.
struct Params {
    Problem problem;
    int32_t o_tiles;         // of one group
    int32_t tiles;           // of the whole problem
    int32_t chunks;          // of channels
    int32_t w_copy;          // bytes of W that are copied at once, 16 or 4; of x 16
    int32_t boxes;           // 1: the copy engine loads x and W; rows of positions begin at tiles then
    int32_t residues;        // 16 bits, boxes: how many neighbouring channels make a row of the tensor map, 1
                             // or 2, as rows begin at 16-byte pieces or between; a stage has these apart
    int32_t cluster;         // blocks that share x, each bringing a part to all: 1 or, with boxes, 2
    uint32_t line;           // positions of a sample in the line: P, or that rounded up to whole tiles
    int32_t y_direct;        // 1: four neighbouring sums are stored at once, from registers
    int32_t stages, stage_bytes;
    int32_t smem_bytes;      // stages | staging of y | barriers
};

struct Place {
    int32_t group, o;  // the first output, inside the group
    uint32_t q;        // the first position, of all samples' in a line
};

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ == 900

// Tiles of one window of x and all outputs follow each other, so x is shared in L2.
template <int kColumns>
__device__ __forceinline__ Place place_tile(const Params& params, int32_t tile) {
    const int32_t rest = tile / params.o_tiles, groups = static_cast<int32_t>(params.problem.G);
    const int32_t window = rest / groups;
    return {rest - window * groups, (tile - rest * params.o_tiles) * kColumns,
            static_cast<uint32_t>(window) * kTilePositions};
}

template <class Traits>
__device__ __forceinline__ int32_t residues_of(const Params& params) {
    return Traits::kIsFloat ? 1 : params.residues;
}

// A position of the line in its sample; whether there is one.
struct Position {
    uint32_t n, p;
    bool exists;
};
__device__ __forceinline__ Position find_position(const Params& params, uint32_t q) {
    const uint32_t n = q / params.line, p = q - n * params.line;
    return {n, p, n < params.problem.N && p < params.problem.P};
}

// Of fp32 bits the high and the low TF32 part.
__device__ __forceinline__ void split_tf32(uint32_t bits, uint32_t& high, uint32_t& low) {
    high = ptx::cvt_rn_tf32(__uint_as_float(bits));
    low = ptx::cvt_rn_tf32(__uint_as_float(bits) - __uint_as_float(high));
}

// The ring of stages: which one is next, and the parity its barrier will show.
struct Ring {
    int32_t stage;
    uint32_t parity;
    __device__ __forceinline__ void advance(int32_t stages) {
        if (++stage == stages) {
            stage = 0;
            parity ^= 1;
        }
    }
};
struct Barriers {
    uint32_t base;
    __device__ __forceinline__ uint32_t full(int stage) const { return base + 8 * stage; }
    __device__ __forceinline__ uint32_t empty(int stage) const { return base + 8 * (kMaxStages + stage); }
    // By the copy engine.
    __device__ __forceinline__ uint32_t landed(int stage) const {
        return base + 8 * (2 * kMaxStages + stage);
    }
};

// One of kLoaders threads that fill stages.
template <class Traits, int kColumns>
struct Loader {
    using Element = typename Traits::Element;
    static constexpr int kPieces = kColumns / 32;  // of W, of a thread: piece thread % 8 of every 32nd row
    static constexpr int kUnderWay = kAhead<Traits, kColumns>;

    const Params& params;
    const Problem& problem;
    const Barriers& barriers;
    uint8_t* const smem;
    const int thread;
    int32_t channels;         // left, of this chunk and those behind it
    const Element* w_source;  // this thread's first piece
    int32_t w_rows;           // from it on
    const Element* x_source;  // the positions that this thread copies, of its first channel
    bool x_exists;            // else they are zero

    template <int kBytes>
    static __device__ __forceinline__ void copy(uint32_t target, const void* source, bool exists) {
        if constexpr (kBytes == 16) ptx::cp_async_16(target, source, exists ? 16 : 0);
        else ptx::cp_async<kBytes>(target, source, exists ? kBytes : 0);
    }

    __device__ __forceinline__ int piece_offset() const {
        return thread / 8 * kRowBytes + (thread % 8 ^ thread / 8 % 8) * 16;
    }
    __device__ __forceinline__ void announce(uint32_t full) const {
        ptx::fence_proxy_async();
        __syncwarp();
        if (thread % 32 == 0) ptx::mbarrier_arrive(full);
    }

    // A chunk of W; zeros behind the last channel, and, as sums of split operands must all be sound or else
    // are looked at one by one, in rows that W lacks.
    template <int kBytes>
    __device__ __forceinline__ void load_weights(uint32_t stage) const {
        const int32_t left = channels - thread % 8 * Traits::kPieceChannels;
        const int64_t step = 32 * problem.C;
        const Element* source = w_source;
        uint32_t target = stage + piece_offset();
#pragma unroll
        for (int i = 0; i < kPieces; ++i, source += step, target += 32 * kRowBytes) {
            const bool exists = 32 * i < w_rows;
            if (Traits::kParts == 1 && !exists) break;
#pragma unroll
            for (int j = 0; j < 16 / kBytes; ++j) {
                constexpr int kCount = kBytes / Traits::kElementBytes;
                copy<kBytes>(target + j * kBytes, source + j * kCount, exists && j * kCount < left);
            }
        }
    }

    // kAll threads round or split W where it lies; the low parts come behind the high ones.
    template <int kAll>
    __device__ __forceinline__ void convert_weights(uint8_t* stage) const {
        constexpr int kTogether = 4, kStep = kAll / 8;
        uint8_t* const target = stage + piece_offset();
#pragma unroll
        for (int first = 0; first < kColumns / kStep; first += kTogether) {
            uint4 pieces[kTogether];
#pragma unroll
            for (int i = 0; i < kTogether; ++i) {
                if (first + i >= kColumns / kStep) break;
                pieces[i] = *reinterpret_cast<const uint4*>(target + (first + i) * kStep * kRowBytes);
            }
#pragma unroll
            for (int i = 0; i < kTogether; ++i) {
                if (first + i >= kColumns / kStep) break;
                uint8_t* const place = target + (first + i) * kStep * kRowBytes;
                uint32_t high[4] = {pieces[i].x, pieces[i].y, pieces[i].z, pieces[i].w};
                if constexpr (Traits::kParts == 2) {
                    uint32_t low[4];
#pragma unroll
                    for (int j = 0; j < 4; ++j) split_tf32(high[j], high[j], low[j]);
                    *reinterpret_cast<uint4*>(place + Traits::part_bytes(kColumns)) =
                        make_uint4(low[0], low[1], low[2], low[3]);
                } else {
#pragma unroll
                    for (int j = 0; j < 4; ++j) high[j] = round_tf32(high[j]);
                }
                *reinterpret_cast<uint4*>(place) = make_uint4(high[0], high[1], high[2], high[3]);
            }
        }
    }

    // A thread copies the same piece of 16 bytes of every kPiece-th channel: positions of one sample, as rows
    // are whole pieces.
    static constexpr int kPiece = 16 / Traits::kElementBytes;
    static constexpr int kPlanePieces = kPositions / kPiece;  // of a channel and product warpgroup

    __device__ __forceinline__ void load_x(uint32_t x_stage) const {
        const int32_t unit = thread % (2 * kPlanePieces), channel = thread / (2 * kPlanePieces);
        const int32_t left = x_exists ? channels - channel : 0;
        const int64_t step = kPiece * problem.x_stride_c;
        const Element* source = x_source;
        constexpr int kPitchBytes = Traits::pitch(1) * Traits::kElementBytes;
        uint32_t target = x_stage + unit / kPlanePieces * Traits::plane_bytes(1) + channel * kPitchBytes +
                          unit % kPlanePieces * 16;
#pragma unroll 8
        for (int c = 0; c < Traits::kChunkChannels; c += kPiece, source += step) {
            copy<16>(target, source, c < left);
            target += kPiece * kPitchBytes;
        }
    }

    // Turns to the chunks of a tile.
    __device__ __forceinline__ void begin_tile(int32_t tile) {
        const Place place = place_tile<kColumns>(params, tile);
        channels = static_cast<int32_t>(problem.C);
        w_rows = static_cast<int32_t>(problem.O) - place.o - thread / 8;
        w_source = static_cast<const Element*>(problem.w) + thread % 8 * Traits::kPieceChannels +
                   (place.group * problem.O + place.o + thread / 8) * problem.C;
        const Position at = find_position(params, place.q + thread % (2 * kPlanePieces) * kPiece);
        x_exists = at.exists;
        x_source = static_cast<const Element*>(problem.x) + at.n * problem.x_stride_n +
                   (place.group * problem.C + thread / (2 * kPlanePieces)) * problem.x_stride_c + at.p;
    }

    __device__ __forceinline__ void load_chunk(uint32_t stage) {
        const uint32_t x_stage = stage + Traits::kParts * Traits::part_bytes(kColumns);
        load_x(x_stage);
        if (params.w_copy == 16) load_weights<16>(stage);
        else load_weights<4>(stage);
        channels -= Traits::kChunkChannels;
        w_source += Traits::kChunkChannels;
        x_source += Traits::kChunkChannels * problem.x_stride_c;
    }

    __device__ __forceinline__ void run() {
        Ring filled{0, 1}, ready{0, 0};  // an empty ring: the first waits return at once
        int32_t tile = blockIdx.x;
        channels = 0;
        for (int32_t chunk = 0;; ++chunk) {
            if (chunk >= kUnderWay) {
                ptx::cp_async_wait_group<kUnderWay - 1>();
                if constexpr (Traits::kIsFloat)
                    convert_weights<kLoaders>(smem + ready.stage * params.stage_bytes);
                announce(barriers.full(ready.stage));
                ready.advance(params.stages);
            }
            if (channels <= 0 && tile < params.tiles) {
                begin_tile(tile);
                tile += gridDim.x;
            }
            if (channels > 0) {
                ptx::mbarrier_wait(barriers.empty(filled.stage), filled.parity);
                load_chunk(ptx::smem_address(smem) + filled.stage * params.stage_bytes);
                filled.advance(params.stages);
            } else if (chunk >= kUnderWay && ready.stage == filled.stage) {
                break;
            }
            ptx::cp_async_commit_group();  // an empty group keeps the count in step
        }
    }

    // Likewise of one thread by the copy engine. What lies outside x and W becomes zero. The blocks of a
    // cluster take neighbouring outputs of the same positions; each brings x of one product warpgroup to all.
    // A box begins at a 16-byte piece, which of a row's second channel is half a piece before the tile.
    __device__ __forceinline__ void order_boxes(const TensorMap& x_map, const TensorMap& w_map) const {
        const int32_t residues = residues_of<Traits>(params), plane_bytes = Traits::plane_bytes(residues);
        const int32_t rank = static_cast<int32_t>(ptx::cluster_ctarank());
        Ring filled{0, 1};
        for (int32_t tile = blockIdx.x; tile < params.tiles; tile += gridDim.x) {
            const Place place = place_tile<kColumns>(params, tile);
            const Position at = find_position(params, place.q);
            const int32_t n = static_cast<int32_t>(at.n), p = static_cast<int32_t>(at.p);
            int32_t row = 0;  // of the tensor map, of channel c
            for (int32_t c = 0; c < problem.C; c += Traits::kChunkChannels) {
                const uint32_t stage = ptx::smem_address(smem) + filled.stage * params.stage_bytes;
                const uint32_t x_stage = stage + Traits::kParts * Traits::part_bytes(kColumns);
                const uint32_t landed = barriers.landed(filled.stage);
                ptx::mbarrier_wait(barriers.empty(filled.stage), filled.parity);
                ptx::mbarrier_arrive_expect_tx(landed, Traits::part_bytes(kColumns) + 2 * plane_bytes);
#pragma unroll
                for (int32_t group = 0; group < 2; ++group) {
                    if (params.cluster > 1 && group != rank) continue;
                    uint32_t target = x_stage + group * plane_bytes;
                    int32_t start = p + group * kPositions;
                    for (int32_t residue = 0; residue < residues; ++residue) {
                        if (params.cluster == 1)
                            ptx::cp_async_bulk_tensor(target, &x_map, start, row, place.group, n, landed);
                        else
                            ptx::cp_async_bulk_tensor_multicast(target, &x_map, start, row, place.group, n,
                                                                landed, kAllBlocks);
                        target += plane_bytes / 2;
                        start += static_cast<int32_t>(problem.x_stride_c) & -Traits::kPieceChannels;
                    }
                }
                row += Traits::kChunkChannels >> (residues - 1);
                ptx::cp_async_bulk_tensor(stage, &w_map, c, place.o, place.group, landed);
                filled.advance(params.stages);
            }
        }
    }

    // The first kConverterWarps warps, beside that thread.
    __device__ __forceinline__ void convert_stages() const {
        Ring ready{0, 0};
        for (int32_t tile = blockIdx.x; tile < params.tiles; tile += gridDim.x) {
#pragma unroll 1
            for (int32_t chunk = 0; chunk < params.chunks; ++chunk) {
                ptx::mbarrier_wait(barriers.landed(ready.stage), ready.parity);
                if constexpr (Traits::kIsFloat)
                    convert_weights<32 * kConverterWarps>(smem + ready.stage * params.stage_bytes);
                announce(barriers.full(ready.stage));
                ready.advance(params.stages);
            }
        }
    }
};

// One of the product warpgroups' threads. Lane 4*g + t holds channels t and t + 4 of a step (in 16 bits 2t,
// 2t + 1 and those + 8) of the warp's positions 4g to 4g + 3; and these of outputs 8*j + 2t and that + 1.
template <class Traits, int kColumns>
struct Product {
    using Element = typename Traits::Element;
    using Mma = WgmmaFromRegisters<Traits::kOperand, kColumns>;
    static constexpr int kParts = Traits::kParts, kValues = kColumns / 2;
    using Sums = float[2][kValues];  // of positions 4g, 4g + 1 and of 4g + 2, 4g + 3

    const Params& params;
    const Problem& problem;
    const Barriers& barriers;
    const uint8_t* const smem;
    Element* const staged;  // [8][kStagedPitch], this warp's own
    float* const bias;      // [kColumns], likewise
    const int warp, lane;   // warp of 8: warpgroup warp / 4
    const int pair_step, odd_step;  // 16 bits: bytes of x from two channels to the next two; between the two
    Ring stages;

    struct Fragments {
        uint32_t part[kParts][2][4];  // high, then low; of both products
    };

    // Bytes of x in a stage from one channel, of 16 bits from two, to the next.
    __device__ __forceinline__ int channel_step() const {
        return Traits::kIsFloat ? Traits::pitch(1) * Traits::kElementBytes : pair_step;
    }

    // `x` is at this lane's first channel and position. First all loads: row by row, as ptxas makes some wait
    // for others' values where they come half by half (16 bits, long sums: 1.07 of the time).
    __device__ __forceinline__ void load_fragments(Fragments& fragments, const uint8_t* x, int step) const {
        using Loaded = std::conditional_t<Traits::kIsFloat, uint4, uint2>;
        constexpr int kRows = Traits::kIsFloat ? 1 : 2;  // of x, for a lane's channels that neighbour
        Loaded loaded[2][kRows];                         // of the halves of the step's channels
#pragma unroll
        for (int row = 0; row < kRows; ++row) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const uint8_t* const source = x + (2 * step + half) * 4 * channel_step() + row * odd_step;
                loaded[half][row] = *reinterpret_cast<const Loaded*>(source);
            }
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            if constexpr (Traits::kIsFloat) {
                const uint4 four = loaded[half][0];
                const uint32_t bits[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    uint32_t& high = fragments.part[0][i / 2][2 * half + i % 2];
                    if constexpr (kParts == 2)
                        split_tf32(bits[i], high, fragments.part[1][i / 2][2 * half + i % 2]);
                    else high = round_tf32(bits[i]);
                }
            } else {
                const uint2 first = loaded[half][0], second = loaded[half][1];
                fragments.part[0][0][2 * half] = __byte_perm(first.x, second.x, 0x5410);
                fragments.part[0][0][2 * half + 1] = __byte_perm(first.x, second.x, 0x7632);
                fragments.part[0][1][2 * half] = __byte_perm(first.y, second.y, 0x5410);
                fragments.part[0][1][2 * half + 1] = __byte_perm(first.y, second.y, 0x7632);
            }
        }
    }

    // The products of one step, x's high or low part by W's; `w16` is the step's W in units of 16 bytes.
    __device__ __forceinline__ void multiply(Sums& sums, const Fragments& fragments, uint32_t w16, int x_part,
                                             int w_part, bool accumulate) {
        const uint64_t w = ptx::wgmma_descriptor(w16 + w_part * (Traits::part_bytes(kColumns) / 16));
#pragma unroll
        for (int i = 0; i < 2; ++i) Mma::issue(sums[i], fragments.part[x_part][i], w, accumulate);
    }

    // To each block of the cluster, as each brings x to all.
    __device__ __forceinline__ void release(int32_t stage) {
        if (lane < params.cluster) ptx::mbarrier_arrive_cluster(ptx::mapa(barriers.empty(stage), lane));
    }

    // All products of one tile.
    __device__ __forceinline__ void multiply_tile(Sums& sums) {
        const int t = lane % 4, g = lane / 4, group = warp / 4;
        const int x_offset = kParts * Traits::part_bytes(kColumns) +
                             group * Traits::plane_bytes(residues_of<Traits>(params)) + t * channel_step() +
                             (warp % 4 * 32 + 4 * g) * Traits::kElementBytes;
        Sums total = {};  // of split operands
        Fragments fragments[2];
        bool accumulate = false;
        int32_t done = -1;  // a stage whose products may still be running
#pragma unroll 1
        for (int32_t chunk = 0; chunk < params.chunks; ++chunk) {
            ptx::mbarrier_wait(barriers.full(stages.stage), stages.parity);
            const uint8_t* const stage = smem + stages.stage * params.stage_bytes;
            const uint32_t w16 = ptx::smem_address(stage) / 16;
#pragma unroll
            for (int step = 0; step < kSteps; ++step) {
                load_fragments(fragments[step % 2], stage + x_offset, step);
                ptx::wgmma_fence();
                if constexpr (kParts == 1) {
                    multiply(sums, fragments[step % 2], w16 + 2 * step, 0, 0, accumulate);
                    accumulate = true;
                } else {  // the high parts of two steps come after all low ones; of these W's first, as a
                          // descriptor waits for products that read the one before it (.96 of the time)
                    multiply(sums, fragments[step % 2], w16 + 2 * step, 0, 1, step % 2 != 0);
                    multiply(sums, fragments[step % 2], w16 + 2 * step, 1, 0, true);
                    if (step % 2 != 0) {
                        multiply(sums, fragments[0], w16 + 2 * step - 2, 0, 0, true);
                        multiply(sums, fragments[1], w16 + 2 * step, 0, 0, true);
                    }
                }
                ptx::wgmma_commit_group();
                if (kParts == 2 && step % 2 != 0) {  // the accumulator truncates, the total rounds to nearest
                    ptx::wgmma_wait_group<0>();
#pragma unroll
                    for (int i = 0; i < 2 * kValues; ++i) total[i % 2][i / 2] += sums[i % 2][i / 2];
                } else {
                    ptx::wgmma_wait_group<1>();  // the step before this one is done
                }
                if (step == 0 && done >= 0) release(done);
            }
            done = stages.stage;
            stages.advance(params.stages);
        }
        ptx::wgmma_wait_group<0>();
        release(done);
        if constexpr (kParts == 2) {
#pragma unroll
            for (int i = 0; i < 2 * kValues; ++i) sums[i % 2][i / 2] = total[i % 2][i / 2];
        }
    }

    // Of output place.o + lane + 32*i; they arrive during the products.
    __device__ __forceinline__ float load_bias(const Place& place, int i) const {
        const int32_t o = place.o + lane + 32 * i;
        if (problem.bias == nullptr || o >= problem.O) return 0.0f;
        return widen(static_cast<const Element*>(problem.bias)[place.group * problem.O + o]);
    }
    // The output o of this place at a position.
    __device__ __forceinline__ Element* find_y(const Place& place, int32_t o, const Position& at) const {
        const int64_t row = (at.n * problem.G + place.group) * problem.O + o;
        return static_cast<Element*>(problem.y) + row * problem.P + at.p;
    }

    // Four neighbours of output 8*j + 2t + odd, as they lie in memory.
    using Four = std::conditional_t<Traits::kIsFloat, uint4, uint2>;
    static __device__ __forceinline__ Four round_four(const Sums& sums, int j, int odd, float added) {
        Vector<Element, 4> four;
#pragma unroll
        for (int i = 0; i < 4; ++i)
            four.at[i] = narrow<Element>(sums[i / 2][4 * j + 2 * (i % 2) + odd] + added);
        return *reinterpret_cast<const Four*>(&four);
    }

    // From registers, four neighbours at once, which are of one sample.
    __device__ __forceinline__ void store_direct(const Sums& sums, const Place& place) const {
        const Position at = find_position(params, place.q + 4 * (lane / 4));
        const int32_t o = place.o + 2 * (lane % 4);
        const int32_t outputs = at.exists ? static_cast<int32_t>(problem.O) - o : 0;
        Element* y = find_y(place, o, at);
#pragma unroll
        for (int j = 0; j < kColumns / 8; ++j, y += 8 * problem.P) {
            const float2 added = *reinterpret_cast<const float2*>(bias + 8 * j + 2 * (lane % 4));
            // Rounded without a branch: one for each row would make them wait for each other.
            const Four even = round_four(sums, j, 0, added.x), odd = round_four(sums, j, 1, added.y);
            if (8 * j < outputs) ptx::st_global(y, even);
            if (8 * j + 1 < outputs) ptx::st_global(y + problem.P, odd);
        }
    }

    // Through shared memory, 8 outputs at a time: a lane stores one position of each.
    __device__ __forceinline__ void store_staged(const Sums& sums, const Place& place) const {
        constexpr int kStagedPitch = Traits::kStagedPitch;
        const Position at = find_position(params, place.q + lane);
        Element* y = find_y(place, place.o, at);
        int32_t outputs = at.exists ? static_cast<int32_t>(problem.O) - place.o : 0;
#pragma unroll 1
        for (int j = 0; j < kColumns / 8; ++j, outputs -= 8, y += 8 * problem.P) {
            const int row = 2 * (lane % 4);
#pragma unroll
            for (int i = 0; i < kColumns / 8; ++i) {  // registers have no index
                if (i != j) continue;
                Element* const target = staged + row * kStagedPitch + lane / 4 * 4;
                const float2 added = *reinterpret_cast<const float2*>(bias + 8 * i + row);
                *reinterpret_cast<Four*>(target) = round_four(sums, i, 0, added.x);
                *reinterpret_cast<Four*>(target + kStagedPitch) = round_four(sums, i, 1, added.y);
            }
            __syncwarp();
            if (problem.activation != Activation::none)
                activate_staged(problem.activation, staged, 8 * kStagedPitch);
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                if (i < outputs) y[i * problem.P] = staged[i * kStagedPitch + lane];
            }
            __syncwarp();
        }
    }

    static __device__ __forceinline__ bool are_sound(const Sums& sums) {
        Soundness soundness;
#pragma unroll
        for (int i = 0; i < 2 * kValues; ++i) soundness.add(sums[i % 2][i / 2]);
        return soundness.holds();
    }
    // Of sums[i % 2][i / 2], bit i: whether it must be done again.
    static __device__ __forceinline__ uint64_t find_unsound(const Sums& sums) {
        uint64_t unsound = 0;
#pragma unroll
        for (int i = 0; i < 2 * kValues; ++i) unsound |= uint64_t{!is_sound(sums[i % 2][i / 2])} << i;
        return unsound;
    }
    __device__ __forceinline__ void mend(uint64_t unsound, const Place& place) const {
        __syncwarp();  // all have been stored
#pragma unroll 1
        for (int i = 0; i < 2 * kValues; ++i) {
            const int value = i / 2;
            const int32_t o = place.o + value / 4 * 8 + lane % 4 * 2 + value % 2;
            const Position at = find_position(params, place.q + lane / 4 * 4 + i % 2 * 2 + value / 2 % 2);
            if ((unsound >> i & 1) == 0 || o >= problem.O || !at.exists) continue;
            *reinterpret_cast<float*>(find_y(place, o, at)) =
                finish_exactly(problem, at.n, place.group, o, at.p);
        }
    }

    __device__ __forceinline__ void run() {
#pragma unroll 1
        for (int32_t tile = blockIdx.x; tile < params.tiles; tile += gridDim.x) {
            Place place = place_tile<kColumns>(params, tile);  // of this warp
            place.q += warp * 32;
            float own_bias[kColumns / 32];
#pragma unroll
            for (int i = 0; i < kColumns / 32; ++i) own_bias[i] = load_bias(place, i);
            Sums sums;
            multiply_tile(sums);
#pragma unroll
            for (int i = 0; i < kColumns / 32; ++i) bias[lane + 32 * i] = own_bias[i];
            __syncwarp();
            uint64_t unsound = 0;
            if constexpr (kParts == 2) {
                if (!are_sound(sums)) unsound = find_unsound(sums);
            }
            if (params.y_direct) store_direct(sums, place);
            else store_staged(sums, place);
            if constexpr (kParts == 2) {
                if (__any_sync(0xFFFFFFFF, unsound != 0)) mend(unsound, place);
            }
        }
    }
};

#endif

template <class Traits, int kColumns>
__global__ void __launch_bounds__(kThreads, 1)
    pointwise_sm90_kernel(const __grid_constant__ Params params, const __grid_constant__ TensorMap x_map,
                          const __grid_constant__ TensorMap w_map) {
#if __CUDA_ARCH__ == 900
    extern __shared__ uint8_t smem_base[];
    uint8_t* const smem = smem_base + ((1024 - (ptx::smem_address(smem_base) & 1023)) & 1023);
    uint8_t* const staging = smem + params.stages * params.stage_bytes;
    const Barriers barriers{ptx::smem_address(staging + Traits::kStagingBytes)};
    if (threadIdx.x == 0) {
        for (int i = 0; i < kMaxStages; ++i) {
            ptx::mbarrier_init(barriers.full(i), params.boxes ? kConverterWarps : kLoaderWarps);
            ptx::mbarrier_init(barriers.empty(i), kProductWarps * params.cluster);
            ptx::mbarrier_init(barriers.landed(i), 1);
        }
        ptx::fence_mbarrier_init();
    }
    ptx::cluster_sync();
    // Through a shuffle, so that the compiler knows it is the same in the whole warp.
    const int warp = __shfl_sync(0xFFFFFFFF, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
    if (warp < kProductWarps) {
        ptx::setmaxnreg_inc<kProductRegisters<Traits, kColumns>>();
        using Element = typename Traits::Element;
        uint8_t* const own = staging + warp * (Traits::kStagingBytes / kProductWarps);
        const int residues = residues_of<Traits>(params);
        const int pitch_bytes = Traits::pitch(residues) * Traits::kElementBytes;
        Product<Traits, kColumns> product{params,
                                          params.problem,
                                          barriers,
                                          smem,
                                          reinterpret_cast<Element*>(own),
                                          reinterpret_cast<float*>(own + Traits::kStagedBytes),
                                          warp,
                                          lane,
                                          2 / residues * pitch_bytes,
                                          residues == 1 ? pitch_bytes : Traits::plane_bytes(2) / 2 + 8,
                                          {0, 0}};
        product.run();
    } else {
        ptx::setmaxnreg_dec<256 - kProductRegisters<Traits, kColumns>>();
        Loader<Traits, kColumns> loader{params, params.problem, barriers, smem,
                                        static_cast<int>(threadIdx.x) - 32 * kProductWarps};
        if (!params.boxes) loader.run();
        else if (warp < kProductWarps + kConverterWarps) loader.convert_stages();
        else if (warp == kThreads / 32 - 1 && ptx::elect()) loader.order_boxes(x_map, w_map);
    }
    ptx::cluster_sync();  // shared memory outlives what other blocks do there
#endif
}

// tiles is 0 where that cannot be.
template <class Traits, int kColumns>
inline Params cut(const Problem& problem) {
    Params params{};
    params.problem = problem;
    params.o_tiles = static_cast<int32_t>(ceil_div(problem.O, kColumns));
    params.chunks = static_cast<int32_t>(ceil_div(problem.C, Traits::kChunkChannels));
    const int64_t element = Traits::kElementBytes;
    const auto aligned = [](const void* pointer, int64_t bytes) {
        return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
    };
    const auto w_in_pieces = [&](int64_t bytes) {
        return problem.C * element % bytes == 0 && aligned(problem.w, bytes);
    };
    params.w_copy = w_in_pieces(16) ? 16 : w_in_pieces(4) ? 4 : 0;
    const bool in_rows = problem.x_stride_l == 1 && problem.stride == 1 && problem.pad_left == 0 &&
                         problem.P == problem.L;
    // From one sample to the next too where there is none, as the choice of routes must not depend on that.
    const auto x_in_pieces = [&](int64_t bytes) {
        return in_rows && problem.P * element % bytes == 0 && problem.x_stride_c * element % bytes == 0 &&
               problem.x_stride_n * element % bytes == 0 && aligned(problem.x, bytes);
    };
    const bool whole_pieces = x_in_pieces(16);
    // Tiles lie in one sample each then: not where too much of them would be behind its end. The driver asks
    // for strides of whole 16 bytes, not zero.
    constexpr int64_t kFar = int64_t{1} << 37;
    const int64_t whole_tiles = round_up(problem.P, kTilePositions);
    // Two channels' rows of 8 mod 16 bytes make one of whole 16.
    const bool in_turn = !Traits::kIsFloat && !whole_pieces && x_in_pieces(8) && problem.C % 2 == 0 &&
                         problem.x_stride_c % Traits::kPieceChannels != 0 && aligned(problem.x, 16) &&
                         problem.x_stride_n % Traits::kPieceChannels == 0;
    params.boxes = (whole_pieces || in_turn) && params.w_copy == 16 &&
                   16 * (whole_tiles - problem.P) <= problem.P &&
                   problem.x_stride_c > 0 && problem.G * problem.C * problem.x_stride_c < kFar &&
                   problem.x_stride_n > 0 && problem.x_stride_n < kFar;
    params.residues = params.boxes && in_turn ? 2 : 1;
    params.line = static_cast<uint32_t>(params.boxes ? whole_tiles : problem.P);
    const int64_t tiles = ceil_div(problem.N * params.line, kTilePositions) * params.o_tiles * problem.G;
    // Worth it where the L2 bounds a block of many stages (us without and with it, bf16: 32x2048x512 to 2048
    // 261 and 196, 4x1024x1024 to 1024 21.5 and 19.1, 64x256x256 to 256 11.6 and 12.7; TF32: conformer_pw 229
    // and 206, 4x1024x1024 to 1024 34.9 and 37.0; fp32 548 and 546).
    const int64_t least_stages = (Traits::kIsFloat ? 100 : 8) * int64_t{problem.device.sm_count};
    const bool shares = Traits::kParts == 1 && params.boxes && params.o_tiles % kCluster == 0;
    params.cluster = shares && tiles * params.chunks >= least_stages ? kCluster : 1;
    params.y_direct =
        problem.activation == Activation::none && problem.P % 4 == 0 && aligned(problem.y, 4 * element);

    const int32_t other_bytes = Traits::kStagingBytes + 3 * kMaxStages * 8 + 1024;
    params.stage_bytes = Traits::stage_bytes(kColumns, params.residues);
    const int32_t room = (problem.device.smem_bytes - other_bytes) / params.stage_bytes;
    params.stages = room < kMaxStages ? room : kMaxStages;
    params.smem_bytes = params.stages * params.stage_bytes + other_bytes;
    const bool fits = tiles < kMaxBlocks / 2 && params.stages > kAhead<Traits, kColumns> &&
                      (whole_pieces || params.boxes) && params.w_copy != 0;
    params.tiles = fits ? static_cast<int32_t>(tiles) : 0;
    return params;
}

// Cycles that a launch needs by a simple count, in whole waves of tiles: products or bytes through L2, then
// stores.
template <class Traits>
inline double estimate_cycles(const Params& params, int columns) {
    constexpr double kBytesPerCycle = 28;  // of one multiprocessor from L2
    const double area = static_cast<double>(columns) * kTilePositions;
    const double products = area / 32 * (Traits::kParts == 2 ? 3.5 : 1);
    const double moves = (columns + kTilePositions / params.cluster) * kRowBytes / kBytesPerCycle;
    const double tile = params.chunks * (products > moves ? products : moves) + 1500 +
                        area * Traits::kElementBytes / 40;
    return static_cast<double>(ceil_div(params.tiles, params.problem.device.sm_count)) * tile;
}

// Calls run(traits) for the problem's dtype and precision.
template <class Run>
inline auto with_traits(const Problem& problem, Run run) {
    if (problem.dtype == Dtype::float16) return run(Traits<__half, 1>{});
    if (problem.dtype == Dtype::bfloat16) return run(Traits<__nv_bfloat16, 1>{});
    if (problem.precision == Precision::tf32) return run(Traits<float, 1>{});
    return run(Traits<float, 2>{});
}

// What the copy engine loads.
template <class Traits>
inline BoxedTensor describe_x(const Problem& problem, int residues) {
    return {problem.x,
            Traits::kElementBytes,
            {(residues - 1) * problem.x_stride_c + problem.L, problem.C / residues, problem.G, problem.N},
            {residues * problem.x_stride_c, problem.C * problem.x_stride_c, problem.x_stride_n},
            {Traits::pitch(residues), Traits::kChunkChannels / residues, 1, 1},
            false};
}
template <class Traits, int kColumns>
inline BoxedTensor describe_weights(const Problem& problem) {
    return {problem.w,
            Traits::kElementBytes,
            {problem.C, problem.O, problem.G},
            {problem.C, problem.C * problem.O},
            {Traits::kChunkChannels, kColumns, 1},
            true};
}

template <class Traits, int kColumns>
Error launch_tiles(const Params& params, cudaStream_t stream) {
    Error error = allow_smem<pointwise_sm90_kernel<Traits, kColumns>>(params.problem.device);
    if (error != nullptr) return error;
    TensorMap x_map{}, w_map{};
    if (params.boxes) {
        error = encode_tensor_map(describe_x<Traits>(params.problem, params.residues), 4, &x_map);
        if (error == nullptr)
            error = encode_tensor_map(describe_weights<Traits, kColumns>(params.problem), 3, &w_map);
        if (error != nullptr) return error;
    }
    const int32_t most = max(params.problem.device.sm_count / params.cluster, 1) * params.cluster;
    const int32_t blocks = params.tiles < most ? params.tiles : most;
    return launch_shaped(pointwise_sm90_kernel<Traits, kColumns>,
                         {blocks, params.cluster, kThreads, params.smem_bytes, false}, stream, params, x_map,
                         w_map);
}

template <class Traits>
inline Error launch(const Problem& problem, cudaStream_t stream) {
    const Params narrow = cut<Traits, 64>(problem);
    if constexpr (Traits::kParts == 1) {  // else there are no registers for the totals
        const Params wide = cut<Traits, 128>(problem);
        if (estimate_cycles<Traits>(wide, 128) < estimate_cycles<Traits>(narrow, 64))
            return launch_tiles<Traits, 128>(wide, stream);
    }
    return launch_tiles<Traits, 64>(narrow, stream);
}

}  // namespace pointwise_sm90

// Rows of x of whole 16 bytes. Others are sooner done by gemm_sm90, with packed weights and all (us by copies
// of 4 bytes here and by that, TF32: 38x65x1167 to 410 88, 53; 2x22x184643 to 123 131, 74; 5x35x2894 to 205
// 19, 17).
inline bool fits_pointwise_sm90(const Problem& problem) {
    constexpr int64_t kMost = int64_t{1} << 30;  // positions and channels are counted in 32 bits
    if (problem.device.arch != 90 || problem.dtype == Dtype::float64 || problem.K != 1) return false;
    if (problem.C < 16 || problem.O < 8 || problem.C >= kMost || problem.G * problem.O >= kMost) return false;
    if (problem.P >= kMost || problem.N >= kMost ||
        problem.N * (problem.P + pointwise_sm90::kTilePositions) >= kMost)
        return false;
    return pointwise_sm90::with_traits(problem, [&](auto traits) {
        using Traits = decltype(traits);
        return pointwise_sm90::cut<Traits, 64>(problem).tiles > 0 &&
               (Traits::kParts == 2 || pointwise_sm90::cut<Traits, 128>(problem).tiles > 0);
    });
}

inline Error launch_pointwise_sm90(const Problem& problem, cudaStream_t stream) {
    return pointwise_sm90::with_traits(problem, [&](auto traits) {
        return pointwise_sm90::launch<decltype(traits)>(problem, stream);
    });
}

}  // namespace conv1d
