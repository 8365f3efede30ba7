// The kernels of route "gemm_sm90" for 16 bits and the usual layout of x, and those that pack weights, in a
// translation unit of their own.
#include "gemm_sm90_kernel.cuh"

namespace conv1d {
namespace sm90 {

CONV1D_SM90_16BIT_TILES(CONV1D_SM90_16BIT)
template CONV1D_SM90_PACK(tf32)
template CONV1D_SM90_PACK(tf32x3)
template CONV1D_SM90_PACK(f16)
template CONV1D_SM90_PACK(bf16)
template CONV1D_SM90_PACK_SPLIT(tf32x3)

}  // namespace sm90
}  // namespace conv1d
