// The translation unit of route "gemm_sm90".
#include "gemm_sm90.cuh"
#include "dispatch.cuh"

const conv1d::Route conv1d::kGemmSm90 = {"gemm_sm90", fits_gemm_sm90, workspace_gemm_sm90, launch_gemm_sm90};

conv1d::Error conv1d::sm90::launch_listed_tiles(const Problem& problem, Scratch scratch,
                                                cudaStream_t stream) {
    const Cut cut = choose_cut<Mode::tf32x3>(problem);
    scratch.image = scratch.safe_image;
    if (cut.tiling.columns == 128)
        return launch_products<Mode::tf32x3, 128>(problem, cut.geometry, scratch, stream);
    return launch_products<Mode::tf32x3, 64>(problem, cut.geometry, scratch, stream);
}
