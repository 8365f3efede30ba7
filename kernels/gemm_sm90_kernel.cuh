// The kernel of the Hopper GEMM (gemm_sm90.cuh) and its launch. Each instance takes one layout of x.
#pragma once
#include "gemm_sm90_convert.cuh"
#include "gemm_sm90_pipeline.cuh"
#include "gemm_sm90_plan.cuh"
#include "gemm_sm90_product.cuh"
#include "launch.cuh"
#include "problem.h"
#include "ptx.cuh"
#include "tile.cuh"

namespace conv1d {
namespace sm90 {

// Whether the product warpgroups need more than the 128 registers a thread that the launch gives.
template <Mode kMode, int kN>
constexpr bool kNeedsRegisters = kN * (ModeTraits<kMode>::kIsSplit ? 2 : 1) > 128;

template <Mode kMode, int kN, Layout kLayout>
__global__ void __launch_bounds__(kThreads, 1)
    gemm_sm90_kernel(const __grid_constant__ Problem problem, const __grid_constant__ Geometry geometry,
                     const __grid_constant__ Scratch scratch) {
#if __CUDA_ARCH__ == 900
    extern __shared__ uint8_t smem_base[];
    ptx::griddepcontrol_launch_dependents();
    uint8_t* const smem = smem_base + ((1024 - (ptx::smem_address(smem_base) & 1023)) & 1023);
    uint8_t* const w_smem = smem + geometry.x_stages * geometry.x_stage_bytes;
    uint8_t* const staging = w_smem + geometry.w_stages * geometry.weight_bytes;
    using Bits = typename ModeTraits<kMode>::Bits;
    constexpr int kWarpStagingBytes = ModeTraits<kMode>::warp_staging_bytes(kN);
    uint8_t* const control = staging + kProductWarps * kWarpStagingBytes;
    Announcement* const announcements = reinterpret_cast<Announcement*>(control + kBarrierBytes);
    const Barriers barriers{ptx::smem_address(control), announcements,
                            reinterpret_cast<int32_t*>(announcements + kTileSlots)};
    if (threadIdx.x == 0) {
        for (int i = 0; i < kMaxStages; ++i) {
            ptx::mbarrier_init(barriers.x_full(i), kConverterWarps);
            ptx::mbarrier_init(barriers.x_empty(i), kProductWarps);
            ptx::mbarrier_init(barriers.w_full(i), 1);
            ptx::mbarrier_init(barriers.w_empty(i), kProductWarps);
        }
        for (int i = 0; i < kTileSlots; ++i) {
            ptx::mbarrier_init(barriers.tile_full(i), 1);
            ptx::mbarrier_init(barriers.tile_empty(i), kProductWarps + kConverterWarps);
        }
        ptx::fence_mbarrier_init();
    }
    __syncthreads();
    // Through a shuffle, so that the compiler knows it is the same in the whole warp.
    const int warp = __shfl_sync(0xFFFFFFFF, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
    constexpr int kProductRegisters = ModeTraits<kMode>::kIsSplit ? 152 : 144;  // of 128 a thread at launch
    if (warp < kProductWarps) {
        if constexpr (kNeedsRegisters<kMode, kN>) ptx::setmaxnreg_inc<kProductRegisters>();
        Product<kMode, kN, kLayout> product{
            geometry,
            problem,
            barriers,
            scratch,
            ptx::smem_address(smem),
            ptx::smem_address(w_smem),
            reinterpret_cast<Bits*>(staging + warp * kWarpStagingBytes),
            warp,
            lane};
        product.run();
    } else {
        if constexpr (kNeedsRegisters<kMode, kN>) ptx::setmaxnreg_dec<256 - kProductRegisters>();
        if (warp < kProductWarps + kConverterWarps) {
            Converter<kMode, kLayout> converter(geometry, problem, barriers, scratch, smem,
                                                warp - kProductWarps, lane);
            converter.run();
        } else if (ptx::elect()) {
            run_supplier<kMode == Mode::tf32x3>(geometry, problem, ptx::smem_address(w_smem), barriers,
                                                scratch);
        }
    }
#endif
}

// Runs the kernel over the tiles of `geometry`.
template <Mode kMode, int kN, Layout kLayout>
Error launch_tiles(const Problem& problem, const Geometry& geometry, const Scratch& scratch,
                   cudaStream_t stream) {
    const auto kernel = gemm_sm90_kernel<kMode, kN, kLayout>;
    const Error error = allow_smem<gemm_sm90_kernel<kMode, kN, kLayout>>(problem.device);
    if (error != nullptr) return error;
    const int blocks = geometry.tiles < problem.device.sm_count ? geometry.tiles : problem.device.sm_count;
    const int percent =
        100 * (geometry.smem_bytes + kReservedBytes) / (problem.device.smem_bytes + kReservedBytes);
    return launch_shaped(kernel, {blocks, 1, kThreads, geometry.smem_bytes, true, percent}, stream, problem,
                         geometry, scratch);
}

// gemm_sm90.cu has those for fp32 and the usual layout. The others stand in units of their own, which compile
// beside it: gemm_sm90_16bit.cu, and of channels_last and folded x one for fp32 and one for 16 bits.
#define CONV1D_SM90_TEMPLATE(layout, mode, columns)                                                     \
    template Error launch_tiles<Mode::mode, columns, Layout::layout>(const Problem&, const Geometry&, \
                                                                     const Scratch&, cudaStream_t);
#define CONV1D_SM90_16BIT(...) CONV1D_SM90_TEMPLATE(positions, __VA_ARGS__)
#define CONV1D_SM90_CHANNELS_LAST(...) CONV1D_SM90_TEMPLATE(channels_last, __VA_ARGS__)
#define CONV1D_SM90_FOLDED(...) CONV1D_SM90_TEMPLATE(folded, __VA_ARGS__)
#define CONV1D_SM90_ELSEWHERE(...)                \
    extern CONV1D_SM90_CHANNELS_LAST(__VA_ARGS__) \
    extern CONV1D_SM90_FOLDED(__VA_ARGS__)
#define CONV1D_SM90_16BIT_ELSEWHERE(...) extern CONV1D_SM90_16BIT(__VA_ARGS__)
CONV1D_SM90_TILES(CONV1D_SM90_ELSEWHERE)
CONV1D_SM90_16BIT_TILES(CONV1D_SM90_16BIT_ELSEWHERE)

}  // namespace sm90
}  // namespace conv1d
