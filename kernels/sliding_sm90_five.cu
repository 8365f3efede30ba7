// The kernels of route "sliding_sm90" for five taps, in a translation unit of their own.
#include "sliding_sm90.cuh"

namespace conv1d {
namespace sm90 {

CONV1D_SM90_SLIDES_OF_FIVE(template)

}  // namespace sm90
}  // namespace conv1d
