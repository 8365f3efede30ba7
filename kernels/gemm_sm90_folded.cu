// The kernels of route "gemm_sm90" for fp32 and folded x, in a translation unit of their own.
#include "gemm_sm90_kernel.cuh"

namespace conv1d {
namespace sm90 {

CONV1D_SM90_FP32_TILES(CONV1D_SM90_FOLDED)

}  // namespace sm90
}  // namespace conv1d
