// One convolution as plain numbers: all that the binding, the table of routes and the kernels share.
//
//   y[n, g*O + o, p] = bias[g*O + o] + sum over c, k of w[g*O + o, c, k] * x[n, g*C + c, l],
//   l = p*stride + k*dilation - pad_left, and x counts as zero outside 0 <= l < L.
//
// Capital letters are extents, small ones indices. Strides count elements. No torch and no CUDA headers here.
#pragma once
#include <cstddef>
#include <cstdint>

namespace conv1d {

enum class Dtype : int32_t { float32, float64, float16, bfloat16 };

// How products of float32 operands may round: ieee keeps all 24 bits, tf32 rounds each operand to nearest at
// 11 bits.
enum class Precision : int32_t { ieee, tf32 };

// What y goes through before it is stored: as if y were rounded to its element type first and the activation
// computed from that in the type of sums. gelu is x/2 * (1 + erf(x/sqrt(2))), silu x / (1 + exp(-x)).
enum class Activation : int32_t { none, relu, gelu, silu };

// What a kernel must know of the GPU it runs on. On the CPU all are zero.
struct Device {
    int32_t arch;        // compute capability, 10*major + minor: 90 is Hopper
    int32_t sm_count;    // multiprocessors
    int32_t smem_bytes;  // shared memory that one block may ask for
    int32_t index;       // among the GPUs that the process sees
};

struct Problem {
    const void* x;     // [N, G*C, L], strides x_stride_n, x_stride_c, x_stride_l: any, zero included
    const void* w;     // [G*O, C, K], contiguous
    const void* bias;  // [G*O], contiguous, or null
    void* y;           // [N, G*O, P], contiguous, aligned to 16 bytes
    void* workspace;   // Plan::workspace_bytes bytes, aligned to 256, uninitialised; null where that is zero

    int64_t N;  // batch
    int64_t G;  // groups
    int64_t C;  // input channels of one group
    int64_t O;  // output channels of one group
    int64_t L;  // input positions
    int64_t P;  // output positions
    int64_t K;  // taps

    int64_t stride, dilation, pad_left;  // pad_right is implied by P
    int64_t x_stride_n, x_stride_c, x_stride_l;

    Dtype dtype;          // of x, w, bias and y alike
    Precision precision;  // matters for float32 only
    Activation activation;  // of CUDA kernels; the CPU kernel leaves it to its caller
    Device device;
};

// Which route a problem takes, and what it needs: a pure function of the problem's numbers.
struct Plan {
    const char* name;        // the route, as tests and check.py print it
    int32_t route;           // its row in the table of dispatch.cuh
    size_t workspace_bytes;  // scratch that the binding must provide
};

// Null where all went well, else one sentence with static lifetime.
using Error = const char*;

constexpr int64_t element_bytes(Dtype dtype) {
    return dtype == Dtype::float64 ? 8 : dtype == Dtype::float32 ? 4 : 2;
}

// The CPU kernel's whole surface.
//
// How many independent tasks the problem makes.
int64_t cpu_task_count(const Problem& problem);
// How many tasks are worth waking a thread for: about 10 us of work.
int64_t cpu_task_grain(const Problem& problem);
// Runs tasks [begin, end) on the calling thread.
void cpu_run_tasks(const Problem& problem, int64_t begin, int64_t end);

}  // namespace conv1d

// The CUDA half's whole surface.
//
// The table's row names in order; null past the last.
extern "C" const char* conv1d_cuda_route_name(int32_t route);
// The first row that fits, or, where `wanted` is not null, that row alone; Plan::route is -1 where none fits.
extern "C" conv1d::Plan conv1d_cuda_plan(const conv1d::Problem* problem, const char* wanted);
// Enqueues row `route`, which must fit, on `stream` (a cudaStream_t) of the current device; does not wait.
extern "C" conv1d::Error conv1d_cuda_launch(const conv1d::Problem* problem, int32_t route, void* stream);
