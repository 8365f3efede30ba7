// The translation unit of route "sliding_sm90"; its kernels for three taps.
#include "sliding_sm90.cuh"
#include "dispatch.cuh"

namespace conv1d {

static Error launch_sliding_sm90(const Problem& problem, cudaStream_t stream) {
    return sm90::with_slide(problem, [&](auto traits) {
        return sm90::launch_windows<sm90::SlideLoader<decltype(traits)>>(problem, stream);
    });
}

}  // namespace conv1d

const conv1d::Route conv1d::kSlidingSm90 = {"sliding_sm90", fits_sliding_sm90, workspace_sliding_sm90,
                                            launch_sliding_sm90};
