// The binding: the op's schema and what it does under each dispatch key. This file, autograd.cpp and
// python.cpp alone know torch.
//
// A valid float problem runs on our kernels. Everything else goes to at::conv1d: invalid calls (so that the
// error is PyTorch's own), integer and complex dtypes, empty tensors, other devices, functorch transforms
// and forward-mode AD.
//
// Built with -fvisibility=hidden, so that two revisions of this file share nothing in one process, and with
// -fopenmp, which at::parallel_for needs. Nothing links an OpenMP runtime: its symbols come from the one
// that torch has loaded.
#include "binding.h"

#include <algorithm>
#include <array>
#include <string>
#include <tuple>
#include <vector>

#include <ATen/Context.h>
#include <ATen/EmptyTensor.h>
#include <ATen/Parallel.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/conv1d.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/silu.h>

#ifdef CONV1D_WITH_CUDA
#include <ATen/cuda/EmptyTensor.h>
#include <c10/core/DeviceGuard.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>
#endif

// From ATen/autocast_mode.h, which reads every operator's header: that takes a tenth of the time.
namespace at::autocast {
TORCH_API ScalarType get_autocast_dtype(DeviceType device);
TORCH_API Tensor cached_cast(ScalarType dtype, const Tensor& x, DeviceType device);
}  // namespace at::autocast

namespace {

using namespace conv1d::binding;

struct NamedActivation {
    const char* name;
    Tensor (*of)(const Tensor&);  // an op of its own, which autograd sees
    void (*in_place)(Tensor&);
};

constexpr NamedActivation kActivations[] = {
    // in the order of conv1d::Activation, which begins with none
    {"relu", [](const Tensor& y) { return at::relu(y); }, [](Tensor& y) { at::relu_(y); }},
    {"gelu", [](const Tensor& y) { return at::gelu(y); }, [](Tensor& y) { at::gelu_(y); }},
    {"silu", [](const Tensor& y) { return at::silu(y); }, [](Tensor& y) { at::silu_(y); }},
};

const NamedActivation& activation_row(conv1d::Activation activation) {
    return kActivations[static_cast<int>(activation) - 1];
}

conv1d::Activation activation_named(const OptionalName& name) {
    if (!name) return conv1d::Activation::none;
    int number = 1;
    for (const NamedActivation& row : kActivations) {
        if (*name == row.name) return static_cast<conv1d::Activation>(number);
        ++number;
    }
    TORCH_CHECK_VALUE(false, "activation must be one of (None, 'relu', 'gelu', 'silu'), but got activation='",
                      *name, "'");
}

}  // namespace

namespace conv1d {
namespace binding {

SymmetricPadding::SymmetricPadding(const Tensor& original, const SymInt& pad_left, const SymInt& pad_right)
    : x(original),
      padding(pad_left.min(pad_right)),
      left(pad_left - padding),
      padded(pad_left != pad_right) {
    if (padded) {
        const std::array<SymInt, 2> extra = {left, pad_right - padding};
        x = at::constant_pad_nd_symint(original, extra, 0);
    }
}

Tensor activate(Tensor y, const OptionalName& name) {
    const Activation activation = activation_named(name);
    return activation == Activation::none ? y : activation_row(activation).of(y);
}

Tensor pytorch_conv1d(const Tensor& x, const Tensor& weight, const OptionalTensor& bias, SymInt stride,
                      SymInt padding, SymInt dilation, SymInt groups, OptionalName activation,
                      OptionalInt pad_right) {
    if (!pad_right)
        return activate(at::conv1d_symint(x, weight, bias, stride, padding, dilation, groups), activation);
    const SymmetricPadding symmetric(x, padding, *pad_right);
    return activate(at::conv1d_symint(symmetric.x, weight, bias, stride, symmetric.padding, dilation, groups),
                    activation);
}

std::optional<Dtype> kernel_dtype(at::ScalarType type) {
    switch (type) {
        case at::kFloat: return Dtype::float32;
        case at::kDouble: return Dtype::float64;
        case at::kHalf: return Dtype::float16;
        case at::kBFloat16: return Dtype::bfloat16;
        default: return std::nullopt;
    }
}

}  // namespace binding
}  // namespace conv1d

namespace {

constexpr const char* kCpuRoute = "cpu";
constexpr const char* kPytorchRoute = "pytorch";

int64_t number(const SymInt& value) { return value.guard_int(__FILE__, __LINE__); }

// The problem's numbers, without pointers and device; nothing where the call is not a valid float problem.
std::optional<conv1d::Problem> describe(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                                        const SymInt& stride, const SymInt& padding, const SymInt& dilation,
                                        const SymInt& groups, const OptionalName& activation,
                                        const OptionalInt& pad_right) {
    const int64_t rank = x.dim();
    const auto dtype = kernel_dtype(x.scalar_type());
    if (!dtype || (rank != 2 && rank != 3) || weight.dim() != 3 || weight.scalar_type() != x.scalar_type() ||
        weight.device() != x.device() || x.layout() != at::kStrided || weight.layout() != at::kStrided ||
        x.numel() == 0 || weight.numel() == 0)
        return std::nullopt;

    conv1d::Problem p{};
    p.stride = number(stride);
    p.dilation = number(dilation);
    p.pad_left = number(padding);
    p.G = number(groups);
    const int64_t right = pad_right ? number(*pad_right) : p.pad_left;
    if (p.stride <= 0 || p.dilation <= 0 || p.pad_left < 0 || right < 0 || p.G <= 0) return std::nullopt;

    const int64_t outputs = weight.size(0);
    if (outputs % p.G != 0 || x.size(rank - 2) != weight.size(1) * p.G) return std::nullopt;
    if (bias && (bias->dim() != 1 || bias->size(0) != outputs || bias->scalar_type() != x.scalar_type() ||
                 bias->device() != x.device()))
        return std::nullopt;

    p.N = rank == 3 ? x.size(0) : 1;
    p.C = weight.size(1);
    p.O = outputs / p.G;
    p.L = x.size(rank - 1);
    p.K = weight.size(2);
    int64_t reach, padded;  // of the taps beyond the first, of x with its padding
    if (__builtin_mul_overflow(p.K - 1, p.dilation, &reach) ||
        __builtin_add_overflow(p.L, p.pad_left, &padded) || __builtin_add_overflow(padded, right, &padded) ||
        reach >= padded)
        return std::nullopt;
    p.P = (padded - reach - 1) / p.stride + 1;
    p.x_stride_n = rank == 3 ? x.stride(0) : 0;
    p.x_stride_c = x.stride(rank - 2);
    p.x_stride_l = x.stride(rank - 1);
    p.dtype = *dtype;
    p.activation = activation_named(activation);
    return p;
}

// A contiguous tensor. at::empty would do the same through the dispatcher, in 0.2 us more.
Tensor allocate(IntArrayRef sizes, at::ScalarType type, at::Device device) {
#ifdef CONV1D_WITH_CUDA
    if (device.is_cuda()) return at::detail::empty_cuda(sizes, type, device, std::nullopt);
#endif
    return at::detail::empty_cpu(sizes, type);
}

// Memory for y, and the pointers into it and into the operands.
struct Operands {
    c10::MaybeOwned<Tensor> weight, bias;
    Tensor y;

    Operands(const Tensor& x, const Tensor& weight_, const OptionalTensor& bias_, conv1d::Problem& p)
        : weight(weight_.expect_contiguous()),
          bias(bias_ ? bias_->expect_contiguous() : c10::MaybeOwned<Tensor>::owned(Tensor())) {
        const std::array<int64_t, 3> sizes = {p.N, p.G * p.O, p.P};
        y = allocate(IntArrayRef(sizes).slice(x.dim() == 3 ? 0 : 1), x.scalar_type(), x.device());
        p.x = x.const_data_ptr();
        p.w = weight->const_data_ptr();
        p.bias = bias->defined() ? bias->const_data_ptr() : nullptr;
        p.y = y.mutable_data_ptr();
    }
};

Tensor run_cpu(const Tensor& x, const Tensor& weight, const OptionalTensor& bias, conv1d::Problem& p) {
    Operands operands(x, weight, bias, p);
    at::parallel_for(0, conv1d::cpu_task_count(p), conv1d::cpu_task_grain(p),
                     [&p](int64_t begin, int64_t end) { conv1d::cpu_run_tasks(p, begin, end); });
    // torch's exp and erf are vectorised
    if (p.activation != conv1d::Activation::none) activation_row(p.activation).in_place(operands.y);
    return operands.y;
}

Tensor conv1d_cpu(const Tensor& x, const Tensor& weight, const OptionalTensor& bias, SymInt stride,
                  SymInt padding, SymInt dilation, SymInt groups, OptionalName activation,
                  OptionalInt pad_right) {
    auto problem = describe(x, weight, bias, stride, padding, dilation, groups, activation, pad_right);
    if (!problem)
        return pytorch_conv1d(x, weight, bias, stride, padding, dilation, groups, activation, pad_right);
    return run_cpu(x, weight, bias, *problem);
}

#ifdef CONV1D_WITH_CUDA

int32_t device_attribute(cudaDeviceAttr attribute, int device) {
    int value = 0;
    C10_CUDA_CHECK(cudaDeviceGetAttribute(&value, attribute, device));
    return value;
}

// The facts of every GPU that the process sees, asked once.
conv1d::Device cuda_device(c10::DeviceIndex index) {
    static const std::vector<conv1d::Device> devices = [] {
        std::vector<conv1d::Device> facts(c10::cuda::device_count());
        for (size_t i = 0; i < facts.size(); ++i)
            facts[i] = {10 * device_attribute(cudaDevAttrComputeCapabilityMajor, i) +
                            device_attribute(cudaDevAttrComputeCapabilityMinor, i),
                        device_attribute(cudaDevAttrMultiProcessorCount, i),
                        device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, i), int32_t(i)};
        return facts;
    }();
    return devices[index];
}

// The route of a problem whose pointers are set: the first that fits, or the `wanted` one. PyTorch's own
// switch decides whether fp32 may round to TF32.
conv1d::Plan plan_cuda(const Tensor& x, conv1d::Problem& p, const char* wanted) {
    p.device = cuda_device(x.get_device());
    const bool tf32 =
        x.scalar_type() == at::kFloat && at::globalContext().allowTF32CuDNN(at::Float32Op::CONV);
    p.precision = tf32 ? conv1d::Precision::tf32 : conv1d::Precision::ieee;
    const conv1d::Plan plan = conv1d_cuda_plan(&p, wanted);
    TORCH_CHECK(plan.route >= 0, "conv1d: route '", wanted ? wanted : "any", "' does not take this problem");
    return plan;
}

// Enqueues on the current stream of x's device.
Tensor run_cuda(const Tensor& x, const Tensor& weight, const OptionalTensor& bias, conv1d::Problem& p,
                const char* wanted) {
    const c10::DeviceGuard guard(x.device());
    const Operands operands(x, weight, bias, p);
    const conv1d::Plan plan = plan_cuda(x, p, wanted);
    Tensor workspace;
    if (plan.workspace_bytes > 0) {
        workspace = allocate({int64_t(plan.workspace_bytes)}, at::kByte, x.device());
        p.workspace = workspace.mutable_data_ptr();
    }
    const auto stream = c10::cuda::getCurrentCUDAStream(x.get_device());
    const conv1d::Error error = conv1d_cuda_launch(&p, plan.route, stream.stream());
    TORCH_CHECK(error == nullptr, "conv1d: route '", plan.name, "': ", error);
    return operands.y;
}

Tensor conv1d_cuda(const Tensor& x, const Tensor& weight, const OptionalTensor& bias, SymInt stride,
                   SymInt padding, SymInt dilation, SymInt groups, OptionalName activation,
                   OptionalInt pad_right) {
    auto problem = describe(x, weight, bias, stride, padding, dilation, groups, activation, pad_right);
    if (!problem)
        return pytorch_conv1d(x, weight, bias, stride, padding, dilation, groups, activation, pad_right);
    return run_cuda(x, weight, bias, *problem, nullptr);
}

#endif

template <c10::DispatchKey kKey, at::DeviceType kDevice>
Tensor conv1d_autocast(const Tensor& x, const Tensor& weight, const OptionalTensor& bias, SymInt stride,
                       SymInt padding, SymInt dilation, SymInt groups, OptionalName activation,
                       OptionalInt pad_right) {
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(kKey);
    const auto dtype = at::autocast::get_autocast_dtype(kDevice);
    const auto cast = [dtype](const Tensor& tensor) {
        return at::autocast::cached_cast(dtype, tensor, kDevice);
    };
    return conv1d_op().call(cast(x), cast(weight), bias ? OptionalTensor(cast(*bias)) : std::nullopt, stride,
                            padding, dilation, groups, activation, pad_right);
}

// padding = "valid" or "same"; what is not valid, and every other string, gets PyTorch's own error.
Tensor conv1d_padding(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                      SymIntArrayRef stride, c10::string_view padding, SymIntArrayRef dilation, SymInt groups,
                      OptionalName activation) {
    const bool valid = padding == "valid" && stride.size() == 1 && dilation.size() == 1;
    const bool same = padding == "same" && weight.dim() == 3 && dilation.size() == 1 && stride.size() == 1 &&
                      stride[0] == 1 && !(bias && bias->scalar_type() != x.scalar_type());
    if (!valid && !same)
        return activate(at::conv1d_symint(x, weight, bias, stride, padding, dilation, groups), activation);
    const SymInt total = same ? dilation[0] * (weight.sym_size(2) - 1) : SymInt(0);
    return conv1d_op().call(x, weight, bias, stride[0], total / 2, dilation[0], groups, activation,
                            total - total / 2);
}

// Of stride and dilation one number each, of padding one or two; other lists get PyTorch's own error.
bool are_numbers(SymIntArrayRef stride, SymIntArrayRef padding, SymIntArrayRef dilation) {
    return stride.size() == 1 && dilation.size() == 1 && (padding.size() == 1 || padding.size() == 2);
}

Tensor conv1d_lists(const Tensor& x, const Tensor& weight, const OptionalTensor& bias, SymIntArrayRef stride,
                    SymIntArrayRef padding, SymIntArrayRef dilation, SymInt groups, OptionalName activation) {
    if (!are_numbers(stride, padding, dilation))
        return activate(at::conv1d_symint(x, weight, bias, stride, padding, dilation, groups), activation);
    return conv1d_op().call(x, weight, bias, stride[0], padding.front(), dilation[0], groups, activation,
                            padding.size() == 2 ? OptionalInt(padding[1]) : std::nullopt);
}

std::optional<conv1d::Problem> describe_lists(const Tensor& x, const Tensor& weight,
                                              const OptionalTensor& bias, SymIntArrayRef stride,
                                              SymIntArrayRef padding, SymIntArrayRef dilation,
                                              const SymInt& groups, const OptionalName& activation) {
    if (!are_numbers(stride, padding, dilation)) return std::nullopt;
    return describe(x, weight, bias, stride[0], padding.front(), dilation[0], groups, activation,
                    padding.back());
}

std::string conv1d_route(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                         SymIntArrayRef stride, SymIntArrayRef padding, SymIntArrayRef dilation,
                         SymInt groups, OptionalName activation) {
    auto problem = describe_lists(x, weight, bias, stride, padding, dilation, groups, activation);
    if (problem && x.is_cpu()) return kCpuRoute;
#ifdef CONV1D_WITH_CUDA
    if (problem && x.is_cuda()) {
        problem->x = x.const_data_ptr();
        // A weight that is not contiguous would be copied to aligned memory: null stands for that.
        problem->w = weight.is_contiguous() ? weight.const_data_ptr() : nullptr;
        problem->bias = bias ? bias->const_data_ptr() : nullptr;
        return plan_cuda(x, *problem, nullptr).name;
    }
#endif
    return kPytorchRoute;
}

std::vector<std::string> conv1d_routes() {
    std::vector<std::string> names;
#ifdef CONV1D_WITH_CUDA
    for (int32_t row = 0; const char* name = conv1d_cuda_route_name(row); ++row) names.emplace_back(name);
#endif
    return names;
}

Tensor conv1d_by(const std::string& route, const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                 SymIntArrayRef stride, SymIntArrayRef padding, SymIntArrayRef dilation, SymInt groups,
                 OptionalName activation) {
    auto problem = describe_lists(x, weight, bias, stride, padding, dilation, groups, activation);
    TORCH_CHECK(problem, "conv1d: route '", route, "' takes valid floating-point problems only");
    if (x.is_cpu() && route == kCpuRoute) return run_cpu(x, weight, bias, *problem);
#ifdef CONV1D_WITH_CUDA
    if (x.is_cuda()) return run_cuda(x, weight, bias, *problem, route.c_str());
#endif
    TORCH_CHECK(false, "conv1d: route '", route, "' does not take this problem");
}

#define CONV1D_OPERANDS "Tensor x, Tensor weight, Tensor? bias=None, "
#define CONV1D_LISTS                                                                   \
    CONV1D_OPERANDS                                                                    \
    "SymInt[1] stride=1, SymInt[1] padding=0, SymInt[1] dilation=1, SymInt groups=1, " \
    "str? activation=None"

CONV1D_LIBRARY(TORCH_EXTENSION_NAME, m) {
    // Numbers, not lists: each list costs a call from Python 0.4 us.
    m.def("conv1d(" CONV1D_OPERANDS
          "SymInt stride=1, SymInt padding=0, SymInt dilation=1, SymInt groups=1, str? activation=None, "
          "SymInt? pad_right=None) -> Tensor",
          {at::Tag::pt2_compliant_tag});
    m.def("conv1d.lists(" CONV1D_LISTS ") -> Tensor", conv1d_lists, {at::Tag::pt2_compliant_tag});
    m.def("conv1d.padding(" CONV1D_OPERANDS
          "SymInt[1] stride=1, str padding=\"valid\", SymInt[1] dilation=1, SymInt groups=1, "
          "str? activation=None) -> Tensor",
          conv1d_padding, {at::Tag::pt2_compliant_tag});
    m.def("route(" CONV1D_LISTS ") -> str", conv1d_route);
    m.def("routes() -> str[]", conv1d_routes);
    m.def("conv1d_by(str route, " CONV1D_LISTS ") -> Tensor", conv1d_by);
}

CONV1D_LIBRARY_IMPL(TORCH_EXTENSION_NAME, CPU, m) { m.impl("conv1d", conv1d_cpu); }
#ifdef CONV1D_WITH_CUDA
CONV1D_LIBRARY_IMPL(TORCH_EXTENSION_NAME, CUDA, m) { m.impl("conv1d", conv1d_cuda); }
#endif
CONV1D_LIBRARY_IMPL(TORCH_EXTENSION_NAME, CompositeExplicitAutograd, m) {
    m.impl("conv1d", pytorch_conv1d);  // Meta and the devices that are not ours
}
CONV1D_LIBRARY_IMPL(TORCH_EXTENSION_NAME, FuncTorchBatched, m) { m.impl("conv1d", pytorch_conv1d); }
CONV1D_LIBRARY_IMPL(TORCH_EXTENSION_NAME, AutocastCUDA, m) {
    m.impl("conv1d", conv1d_autocast<c10::DispatchKey::AutocastCUDA, at::kCUDA>);
}
CONV1D_LIBRARY_IMPL(TORCH_EXTENSION_NAME, AutocastCPU, m) {
    m.impl("conv1d", conv1d_autocast<c10::DispatchKey::AutocastCPU, at::kCPU>);
}

}  // namespace
