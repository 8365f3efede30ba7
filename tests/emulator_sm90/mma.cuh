// Stands in for kernels/mma.cuh, of which the Hopper kernels use the asynchronous copies.
#pragma once
#include "emulator.h"

namespace conv1d {
namespace ptx {

inline void cp_async_16(uint32_t target, const void* source, uint32_t source_bytes) {
    emulator::copy_async(target, source, 16, source_bytes);
}
template <int kBytes>
void cp_async(uint32_t target, const void* source, uint32_t source_bytes) {
    emulator::copy_async(target, source, kBytes, source_bytes);
}
inline void cp_async_commit_group() { emulator::commit_copies(); }
template <int kPending>
void cp_async_wait_group() {
    emulator::wait_copies(kPending);
}

}  // namespace ptx
}  // namespace conv1d
