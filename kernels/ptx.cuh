// One inline function an instruction, named after it. Section numbers are those of the PTX ISA manual, version 9.0.
// Each is guarded where it is called, by the architecture that its kernel is compiled for.
#pragma once
#include <cstdint>
#include <cuda_runtime.h>

namespace conv1d {
namespace ptx {

// Address in the shared window, as every instruction below takes it.
__device__ __forceinline__ uint32_t smem_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

}  // namespace ptx
}  // namespace conv1d
