// The op under autograd: PyTorch's own derivatives, and no graph where none is wanted.
#include "binding.h"

#include <array>
#include <vector>

#include <ATen/ops/convolution_backward.h>
#include <torch/csrc/autograd/custom_function.h>

namespace {

using namespace conv1d::binding;

class Conv1dFunction : public torch::autograd::Function<Conv1dFunction> {
public:
    static constexpr bool is_traceable =
        true;  // for compiled autograd: backward depends on what was saved alone

    static Tensor forward(torch::autograd::AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                          const OptionalTensor& bias, const SymInt& stride, const SymInt& padding,
                          const SymInt& dilation, const SymInt& groups, const OptionalInt& pad_right) {
        const at::AutoDispatchBelowADInplaceOrView below_autograd;
        Tensor y =
            conv1d_op().call(x, weight, bias, stride, padding, dilation, groups, std::nullopt, pad_right);
        ctx->save_for_backward({x, weight});
        ctx->saved_data["numbers"] =
            std::vector<SymInt>{stride, dilation, padding, pad_right.value_or(padding), groups};
        ctx->saved_data["has_bias"] = bias.has_value();
        return y;
    }

    static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                   const torch::autograd::variable_list& grads) {
        const auto saved = ctx->get_saved_variables();
        const Tensor& x = saved[0];
        const Tensor& weight = saved[1];
        const auto numbers = ctx->saved_data["numbers"].toSymIntVector();
        const bool batched = x.dim() == 3;
        const bool has_bias = ctx->saved_data["has_bias"].toBool();
        const std::array<bool, 3> wanted = {ctx->needs_input_grad(0), ctx->needs_input_grad(1),
                                            has_bias && ctx->needs_input_grad(2)};
        const std::vector<SymInt> bias_sizes = {weight.sym_size(0)};
        const SymmetricPadding symmetric(batched ? x : x.unsqueeze(0), numbers[2], numbers[3]);
        auto [x_grad, weight_grad, bias_grad] = at::convolution_backward_symint(
            batched ? grads[0] : grads[0].unsqueeze(0), symmetric.x, weight, SymIntArrayRef(bias_sizes),
            numbers[0], symmetric.padding, numbers[1], false, SymInt(0), numbers[4], wanted);
        if (x_grad.defined()) {
            if (symmetric.padded) x_grad = x_grad.narrow_symint(2, symmetric.left, x.sym_size(-1));
            if (!batched) x_grad = x_grad.squeeze(0);
        }
        return {x_grad, weight_grad, bias_grad, Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
    }
};

// Under a functorch transform, or with a forward-mode tangent, PyTorch's convolution knows all the
// derivatives.
bool transformed(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
    return c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::FuncTorchDynamicLayerBackMode) ||
           x._fw_grad(0).defined() || weight._fw_grad(0).defined() || (bias && bias->_fw_grad(0).defined());
}

Tensor conv1d_autograd(const Tensor& x, const Tensor& weight, const OptionalTensor& bias, SymInt stride,
                       SymInt padding, SymInt dilation, SymInt groups, OptionalName activation,
                       OptionalInt pad_right) {
    // Complex convolutions are differentiable only as at::conv1d takes them apart.
    if (transformed(x, weight, bias) || !kernel_dtype(x.scalar_type()))
        return pytorch_conv1d(x, weight, bias, stride, padding, dilation, groups, activation, pad_right);
    if (at::GradMode::is_enabled() &&
        (x.requires_grad() || weight.requires_grad() || (bias && bias->requires_grad())))
        return activate(Conv1dFunction::apply(x, weight, bias, stride, padding, dilation, groups, pad_right),
                        activation);
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    return conv1d_op().call(x, weight, bias, stride, padding, dilation, groups, activation, pad_right);
}

CONV1D_LIBRARY_IMPL(TORCH_EXTENSION_NAME, Autograd, m) { m.impl("conv1d", conv1d_autograd); }

}  // namespace
