// The kernels of route "gemm_sm90" for folded x, in a translation unit of their own.
#include "gemm_sm90_kernel.cuh"

namespace conv1d {
namespace sm90 {

#define CONV1D_SM90_HERE(mode, columns, slices)                                         \
    template Error launch_tiles<Mode::mode, columns, slices, Layout::folded>( \
        const Problem&, const Geometry&, const Scratch&, cudaStream_t);
CONV1D_SM90_TILES(CONV1D_SM90_HERE)
#undef CONV1D_SM90_HERE

}  // namespace sm90
}  // namespace conv1d
