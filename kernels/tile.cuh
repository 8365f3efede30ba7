// What several kernels share: element types, their sums, and a block's window of x in shared memory.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <atomic>
#include <type_traits>

#include "problem.h"

namespace conv1d {

__host__ __device__ constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
__host__ __device__ constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// Blocks that one launch may have along x, and along y or z.
constexpr int64_t kMaxBlocks = 2147483647;
constexpr int64_t kMaxBlockRows = 65535;

// What __launch_bounds__ asks for where any number of blocks may share a multiprocessor: 0 leaves their
// registers to ptxas, which for sm_120 would spill some.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr int kUnboundBlocks = 1;
#else
constexpr int kUnboundBlocks = 0;
#endif

inline Error launch_error() {
    const cudaError_t error = cudaGetLastError();
    return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

// Lets a kernel's blocks have all the shared memory that there is, beyond 48 KB. Asked once a device: asking
// at each launch would cost about 1 us of it.
template <auto kKernel>
Error allow_smem(const Device& device) {
    static std::atomic<uint64_t> allowed{0};  // one bit a device
    const uint64_t bit = device.index < 64 ? uint64_t{1} << device.index : 0;
    if (allowed.load(std::memory_order_relaxed) & bit) return nullptr;
    cudaFuncAttributes attributes;
    cudaError_t error = cudaFuncGetAttributes(&attributes, kKernel);
    if (error == cudaSuccess) {
        const int most = device.smem_bytes - static_cast<int>(attributes.sharedSizeBytes);
        error = cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
    }
    if (error != cudaSuccess) return cudaGetErrorString(error);
    allowed.fetch_or(bit, std::memory_order_relaxed);
    return nullptr;
}

// Of shared memory, that a block has without permission: 48 KB, less what kernels declare themselves.
constexpr int kPlainSmemBytes = 45 << 10;

// The same problem without numbers that do not matter: a stride that no second position uses, or a dilation
// that no second tap uses, may be huge.
inline Problem canonical(Problem problem) {
    if (problem.P == 1) problem.stride = 1;
    if (problem.K == 1) problem.dilation = 1;
    return problem;
}

// Division by a number known at launch: exact where dividend * divisor is below 2^31.
struct Divisor {
    uint32_t divisor, reciprocal;

    __device__ __forceinline__ uint32_t quotient(uint32_t dividend) const {
        return static_cast<uint32_t>(static_cast<uint64_t>(dividend) * reciprocal >> 31);
    }
};

inline Divisor plan_divisor(int64_t divisor) {
    return {static_cast<uint32_t>(divisor), static_cast<uint32_t>(ceil_div(int64_t{1} << 31, divisor))};
}

// Likewise, exact for every dividend below 2^31 (Granlund and Montgomery, "Division by invariant integers
// using multiplication", PLDI 1994, theorem 4.2 with N = 31).
struct IndexDivisor {
    uint32_t divisor, reciprocal, shift;

    __device__ __forceinline__ uint32_t quotient(uint32_t dividend) const {
        return static_cast<uint32_t>(static_cast<uint64_t>(dividend) * reciprocal >> 31) >> shift;
    }
};

inline IndexDivisor plan_index_divisor(int64_t divisor) {
    uint32_t shift = 0;
    while (shift < 31 && int64_t{1} << shift < divisor) ++shift;
    return {static_cast<uint32_t>(divisor),
            static_cast<uint32_t>(ceil_div(int64_t{1} << (31 + shift), divisor)), shift};
}

// Finds the sample of a position that counts through all samples.
struct SampleDivisor {
    IndexDivisor row;  // positions of a sample
    bool few;          // in all: at most 2^30, so that threads past the last count right as well

    __device__ __forceinline__ int64_t quotient(int64_t index) const {
        return few ? row.quotient(static_cast<uint32_t>(index)) : index / row.divisor;
    }
};

inline SampleDivisor plan_sample_divisor(int64_t samples, int64_t positions) {
    return {plan_index_divisor(positions), samples <= (1 << 30) / positions};
}

// The type in which products of an element type are summed.
template <class Element>
struct SumOf {
    using Type = float;
};
template <>
struct SumOf<double> {
    using Type = double;
};

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ double widen(double value) { return value; }
__device__ __forceinline__ float widen(__half value) { return __half2float(value); }
__device__ __forceinline__ float widen(__nv_bfloat16 value) { return __bfloat162float(value); }

template <class Element>
__device__ __forceinline__ Element narrow(typename SumOf<Element>::Type sum) {
    return sum;
}
template <>
__device__ __forceinline__ __half narrow<__half>(float sum) {
    return __float2half_rn(sum);
}
template <>
__device__ __forceinline__ __nv_bfloat16 narrow<__nv_bfloat16>(float sum) {
    return __float2bfloat16_rn(sum);
}

// fp32 bits to nearest TF32, ties away from zero as cuDNN has them: half of TF32's last place is added, and
// what is left in the low 13 bits tensor cores ignore. By a multiply-add, which hands inf and NaN through: an
// integer addition would have to test for them. (Subnormal numbers are cut.)
__device__ __forceinline__ uint32_t round_tf32(uint32_t bits) {
    const float power = __uint_as_float(bits & 0xFF800000u);  // the number's sign and exponent
    return __float_as_uint(fmaf(power, 0x1p-11f, __uint_as_float(bits)));
}

// Whether sums of split operands' products can be right: an infinity's parts cancel to NaN, and near the
// subnormal numbers parts are lost. Three instructions a sum; `&&` over many becomes a branch at each.
struct Soundness {
    float zero = 0.0f;               // NaN once a sum is not finite
    uint32_t smallest = 0xFFFFFFFF;  // of twice the magnitudes' bits, less one: for zero the largest

    __device__ __forceinline__ void add(float sum) {
        zero = fmaf(sum, 0.0f, zero);
        smallest = min(smallest, 2 * __float_as_uint(sum) - 1);
    }
    __device__ __forceinline__ bool is_finite() const { return zero == 0.0f; }
    __device__ __forceinline__ bool holds() const {
        return is_finite() && smallest >= 2 * __float_as_uint(0x1p-90f) - 1;
    }
};

__device__ __forceinline__ bool is_sound(float sum) {
    Soundness one;
    one.add(sum);
    return one.holds();
}

// Whether so few output channels of a group that products are nearly empty are worth them: decided by one
// sample, whose result must not depend on others. ms by gemm_sm90 and by "direct", TF32: 9x187x20337 to 6, K6
// .147, .681; 2x260x6597 to 4, K25 .084, .297; 6x278x2744 to 2, K6 s2 .021, .040; but 3x401x6873 to 3, K3 s4
// .035, .033; of one output for one tap "direct" reads each x once.
inline bool pays_for_few_outputs(const Problem& problem) {
    if (problem.O * problem.K <= 8 && problem.C <= 512) return false;
    const double windows =
        static_cast<double>(problem.G * problem.P) * static_cast<double>(problem.C * problem.K);
    const double products = windows * static_cast<double>(problem.O);
    if (element_bytes(problem.dtype) == 2) return products >= 1.2e6;
    return problem.precision == Precision::tf32 ? products >= 3e6 : windows >= 4e6;
}

// gelu or silu of one value, as PyTorch's kernels compute them.
template <class Sum>
__device__ __forceinline__ Sum smooth_activation(Activation activation, Sum value) {
    if (activation == Activation::silu) return value / (Sum{1} + exp(-value));
    return value * Sum{0.5} * (Sum{1} + erf(value * Sum{0.70710678118654752440}));
}

// The same as a call: in the unrolled loops of kernels that store from registers it would be some 50
// instructions a value.
template <class Sum>
__device__ __noinline__ Sum call_smooth_activation(Activation activation, Sum value) {
    return smooth_activation(activation, value);
}

// What y holds where an activation follows the sum, bias included. relu hands NaN through.
template <class Element, bool kCall = false>
__device__ __forceinline__ Element activate(Activation activation, typename SumOf<Element>::Type sum) {
    const auto value = widen(narrow<Element>(sum));
    if (activation == Activation::relu) return narrow<Element>(value < 0 ? 0 : value);
    if constexpr (kCall) return narrow<Element>(call_smooth_activation(activation, value));
    else return narrow<Element>(smooth_activation(activation, value));
}

// What y holds of a sum, bias included.
template <class Element, bool kActivated>
__device__ __forceinline__ Element finish(const Problem& problem, typename SumOf<Element>::Type sum) {
    if constexpr (kActivated) return activate<Element, true>(problem.activation, sum);
    else return narrow<Element>(sum);
}

// Calls launch(element, activated) for the problem's element type; activated::value is whether an activation
// follows. Kernels that store from registers have an instance of their own for that: it costs the other
// nothing.
template <class Launch>
Error launch_instance(const Problem& problem, Launch launch) {
    const auto with_element = [&](auto element) {
        return problem.activation == Activation::none ? launch(element, std::false_type{})
                                                      : launch(element, std::true_type{});
    };
    switch (problem.dtype) {
        case Dtype::float32:
            return with_element(float{});
        case Dtype::float64:
            return with_element(double{});
        case Dtype::float16:
            return with_element(__half{});
        case Dtype::bfloat16:
            return with_element(__nv_bfloat16{});
    }
    return nullptr;
}

// Values that move together.
template <class Value, int kCount>
struct alignas(sizeof(Value) * kCount < 16 ? sizeof(Value) * kCount : 16) Vector {
    Value at[kCount];
};

// How many elements `pointer` lies past a multiple of kCount of them.
template <int kCount, class Element>
__device__ __forceinline__ int misalignment(const Element* pointer) {
    return static_cast<int>(reinterpret_cast<uint64_t>(pointer) / sizeof(Element) % kCount);
}

// Where the input row begins and ends, counted from its position l_first and cut to 0..count.
struct Inside {
    int begin, end;
};
__device__ __forceinline__ Inside inside_row(int64_t l_first, int64_t L, int count) {
    const int64_t most = count;
    return {static_cast<int>(min(max(-l_first, int64_t{0}), most)),
            static_cast<int>(min(max(L - l_first, int64_t{0}), most))};
}

// One warp: activates what it has staged in shared memory, in place; what lies between its rows as well,
// which nobody reads. `count` is a multiple of 4.
template <class Element>
__device__ __forceinline__ void activate_staged(Activation activation, Element* staged, int count) {
    auto* const values = reinterpret_cast<Vector<Element, 4>*>(staged);
#pragma unroll 1
    for (int i = threadIdx.x % 32; i < count / 4; i += 32) {
        Vector<Element, 4> value = values[i];
#pragma unroll
        for (int j = 0; j < 4; ++j) value.at[j] = activate<Element>(activation, widen(value.at[j]));
        values[i] = value;
    }
    __syncwarp();
}

// One output by FFMA, from x and w as they are; padding counts as x = 0.
template <class Element = float>
__device__ __forceinline__ Element finish_exactly(const Problem& problem, int64_t n, int64_t g, int64_t o,
                                                  int64_t p) {
    const int64_t channel = g * problem.O + o;
    const Element* const w = static_cast<const Element*>(problem.w) + channel * problem.C * problem.K;
    const Element* const x =
        static_cast<const Element*>(problem.x) + n * problem.x_stride_n + g * problem.C * problem.x_stride_c;
    float sum = 0.0f;
#pragma unroll 1
    for (int64_t c = 0; c < problem.C; ++c) {
        float part = 0.0f;
#pragma unroll 1
        for (int64_t k = 0; k < problem.K; ++k) {
            const int64_t l = p * problem.stride + k * problem.dilation - problem.pad_left;
            const bool inside = l >= 0 && l < problem.L;
            const float value = inside ? widen(x[c * problem.x_stride_c + l * problem.x_stride_l]) : 0.0f;
            part = fmaf(widen(w[c * problem.K + k]), value, part);
        }
        sum += part;
    }
    if (problem.bias != nullptr) sum += widen(static_cast<const Element*>(problem.bias)[channel]);
    return problem.activation == Activation::none ? narrow<Element>(sum)
                                                  : activate<Element>(problem.activation, sum);
}

// How the x that one block needs for some taps lies in shared memory, one row of slots a channel.
//
// Tap k of the window (counted from its first) reads x at offset row*stride + k*dilation, where row counts
// the block's output positions. Taps whose offsets agree modulo the stride share a plane: a run of rows,
// `stride` input positions apart. So every tap of every stride and dilation is a shift, and rows are dense:
//
//   slot(k, row) = tap_slot[k] + row
//
// For example stride 2, dilation 1, 3 taps, 4 positions:
//
//   plane 0   offsets 0 2 4 6 8   slots 0..4   tap 0 from slot 0, tap 2 from slot 1
//   plane 1   offsets 1 3 5 7 9   slots 5..9   tap 1 from slot 5
template <int kMaxTaps>
struct Window {
    int32_t planes;
    int32_t plane_rows;
    int32_t tap_slot[kMaxTaps];
    int64_t plane_offset[kMaxTaps];  // of the plane's row 0, in input positions

    __host__ __device__ constexpr int32_t slots() const { return planes * plane_rows; }
};

// `shared_planes` false gives each tap a plane of its own: for rows that are not neighbours in x.
template <int kMaxTaps>
Window<kMaxTaps> plan_window(int64_t taps, int64_t rows, int64_t stride, int64_t dilation,
                             bool shared_planes) {
    Window<kMaxTaps> window{};
    int64_t longest_shift = 0;
    int32_t plane_of[kMaxTaps]{};
    int64_t shift_of[kMaxTaps]{};
    for (int64_t tap = 0; tap < taps; ++tap) {
        const int64_t offset = tap * dilation;
        int32_t plane = 0;
        // A shift beyond half the rows would load more than a plane of its own does.
        for (; plane < window.planes; ++plane) {
            const int64_t distance = offset - window.plane_offset[plane];
            if (shared_planes && distance % stride == 0 && distance / stride <= rows / 2) break;
        }
        if (plane == window.planes) window.plane_offset[window.planes++] = offset;
        plane_of[tap] = plane;
        shift_of[tap] = (offset - window.plane_offset[plane]) / stride;
        if (shift_of[tap] > longest_shift) longest_shift = shift_of[tap];
    }
    window.plane_rows = static_cast<int32_t>(rows + longest_shift);
    for (int64_t tap = 0; tap < taps; ++tap) {
        window.tap_slot[tap] = static_cast<int32_t>(plane_of[tap] * window.plane_rows + shift_of[tap]);
    }
    return window;
}

}  // namespace conv1d
