// Runs a launch: each thread is a fiber, blocks come one after the other, warps and lanes in random order.
//
// The kernels are compiled with -fsanitize=thread but linked without its library: the calls that the compiler
// puts before each load and store end here. They hold global accesses against the tensors, byte by byte, and
// shared ones against the block's shared memory and against each other: two threads that touch the same
// place, one of them to write, must have a barrier in between. A race is seen in whichever order the threads
// ran.
#include "emulator.h"

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <vector>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

dim3 threadIdx(0), blockIdx(0), blockDim(1), gridDim(1);
const char* describe_problem();  // driver.cpp

namespace emulator {
namespace {

constexpr int kMaxThreads = 1024, kMaxRows = 65535, kWarpLanes = 32;
constexpr size_t kStackBytes = 1 << 17;
constexpr size_t kSharedBytes = 232448, kStaticBytes = 32768, kUnaskedBytes = 48 * 1024;
// One reservation holds shared memory, then the tensors; the rest of it may not be touched.
constexpr size_t kSharedPlace = size_t{1} << 30, kTensorPlace = kSharedPlace + (1 << 20);
constexpr size_t kTensorRoom = size_t{1} << 28, kReserved = size_t{1} << 31;

unsigned char* const memory = [] {
    void* const reserved =
        mmap(nullptr, kReserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (reserved == MAP_FAILED) abort();
    unsigned char* const base = static_cast<unsigned char*>(reserved);
    mprotect(base + kSharedPlace, 1 << 20, PROT_READ | PROT_WRITE);
    mprotect(base + kTensorPlace, kTensorRoom, PROT_READ | PROT_WRITE);
    return base;
}();
unsigned char* const shared_memory = memory + kSharedPlace;  // the static variable, then the dynamic bytes
unsigned char* tensors_end;
std::vector<Tensor> tensors;
std::map<const void*, size_t> allowed_bytes;
size_t head_bytes;  // that may be read before a tensor
std::mt19937 random_order;

struct Copy {
    uint32_t target;
    const unsigned char* source;
    uint32_t bytes, source_bytes;
    int group;
};
struct BulkStore {
    unsigned char* target;
    uint32_t source, bytes;
    int group;
};
enum class State { ready, at_block_barrier, at_warp_barrier, done };
struct Fiber {
    State state;
    bool started;
    dim3 index{0};
    jmp_buf context;
    void* stack;
    std::vector<Copy> copies;
    int groups;  // committed
    std::vector<BulkStore> bulk_stores;
    int bulk_groups;  // committed
};
struct Warp {
    int arrived;
    void (*run)(void* const*);
    void* lanes[kWarpLanes];
    uint32_t epoch;  // barriers so far
};
std::vector<Fiber> fibers(kMaxThreads);
std::vector<Warp> warps(kMaxThreads / kWarpLanes);
int threads, current = -1;
size_t smem_bytes;
const std::function<void()>* thread_body;
jmp_buf scheduler;

// Who last wrote two bytes of shared memory and who read them since, and in which epochs.
struct Shadow {
    uint32_t write_epoch, write_warp_epoch, read_epoch, read_warp_epoch;
    int16_t writer, reader;
    enum : int16_t { kOne, kWarp, kMany } readers;
};
std::vector<Shadow> shadows((kStaticBytes + kSharedBytes) / 2);
uint32_t block_epoch;

bool ordered(int thread, uint32_t epoch, uint32_t warp_epoch) {
    return epoch != block_epoch || thread == current ||
           (thread / kWarpLanes == current / kWarpLanes && warp_epoch != warps[current / kWarpLanes].epoch);
}

void check_shared(size_t place, size_t bytes, bool write) {
    const bool inside =
        place < kStaticBytes ? place + bytes <= kStaticBytes : place + bytes <= kStaticBytes + smem_bytes;
    if (!inside) fail("access outside shared memory, at byte %ld of %ld", place - kStaticBytes, smem_bytes);
    const uint32_t warp_epoch = warps[current / kWarpLanes].epoch;
    for (size_t i = place / 2; i <= (place + bytes - 1) / 2; ++i) {
        Shadow& shadow = shadows[i];
        if (!ordered(shadow.writer, shadow.write_epoch, shadow.write_warp_epoch))
            fail(write ? "race: threads %ld and %ld write the same shared memory"
                       : "race: thread %ld writes shared memory that %ld reads",
                 shadow.writer, current);
        const bool was_read = shadow.read_epoch == block_epoch;
        const bool same_warp = shadow.reader / kWarpLanes == current / kWarpLanes;
        if (write) {
            const bool alone = shadow.readers == Shadow::kOne && shadow.reader == current;
            const bool before =
                shadow.readers != Shadow::kMany && same_warp && shadow.read_warp_epoch != warp_epoch;
            if (was_read && !alone && !before)
                fail("race: thread %ld reads shared memory that %ld writes", shadow.reader, current);
            shadow.writer = static_cast<int16_t>(current);
            shadow.write_epoch = block_epoch;
            shadow.write_warp_epoch = warp_epoch;
            continue;
        }
        if (was_read && (shadow.readers == Shadow::kMany || !same_warp)) {
            shadow.readers = Shadow::kMany;
        } else if (was_read && shadow.read_warp_epoch == warp_epoch) {
            if (shadow.reader != current) shadow.readers = Shadow::kWarp;
        } else {
            shadow.readers = Shadow::kOne;
            shadow.reader = static_cast<int16_t>(current);
            shadow.read_epoch = block_epoch;
            shadow.read_warp_epoch = warp_epoch;
        }
    }
}

void check_global(const unsigned char* address, size_t bytes, bool write) {
    int64_t distance = 0;  // from the end of the last tensor that begins before
    for (const Tensor& tensor : tensors) {
        if (address + (write ? 0 : head_bytes) >= tensor.data &&
            address + bytes <= tensor.data + tensor.bytes) {
            if (write && !tensor.writable) fail("write to an input");
            return;
        }
        if (address >= tensor.data) distance = address - (tensor.data + tensor.bytes);
    }
    fail(write ? "write of %ld bytes outside all tensors, %ld bytes from the end of one"
               : "read of %ld bytes outside all tensors, %ld bytes from the end of one",
         static_cast<int64_t>(bytes), distance);
}

inline void check(const void* pointer, size_t bytes, bool write) {
    const unsigned char* const address = static_cast<const unsigned char*>(pointer);
    if (static_cast<size_t>(address - memory) >= kReserved || current < 0) return;  // a local variable
    if (address >= shared_memory && address < memory + kTensorPlace)
        check_shared(address - shared_memory, bytes, write);
    else check_global(address, bytes, write);
}

void leave(State state) {
    fibers[current].state = state;
    if (_setjmp(fibers[current].context) == 0) _longjmp(scheduler, 1);
}

void begin_thread() {
    (*thread_body)();
    if (!fibers[current].copies.empty()) fail("thread %ld ends before its copies landed", current);
    if (!fibers[current].bulk_stores.empty()) fail("thread %ld ends before its bulk copies have read", current);
    leave(State::done);
}

void resume(int thread) {
    Fiber& fiber = fibers[thread];
    current = thread;
    threadIdx = fiber.index;
    if (_setjmp(scheduler) == 0) {
        if (fiber.started) _longjmp(fiber.context, 1);
        fiber.started = true;
        static ucontext_t context;
        getcontext(&context);
        context.uc_stack.ss_sp = fiber.stack;
        context.uc_stack.ss_size = kStackBytes;
        context.uc_link = nullptr;
        makecontext(&context, begin_thread, 0);
        setcontext(&context);
    }
    current = -1;
}

void run_block() {
    ++block_epoch;
    memset(shared_memory, 0xFF, kStaticBytes + smem_bytes);  // NaN, and no sensible index
    const int warp_count = (threads + kWarpLanes - 1) / kWarpLanes;
    std::vector<int> order(warp_count);
    for (int warp = 0; warp < warp_count; ++warp) {
        order[warp] = warp;
        warps[warp].arrived = 0;
    }
    for (int thread = 0; thread < threads; ++thread) {
        Fiber& fiber = fibers[thread];
        if (fiber.stack == nullptr) fiber.stack = malloc(kStackBytes);
        fiber.state = State::ready;
        fiber.started = false;
        fiber.index = dim3(thread % blockDim.x, thread / blockDim.x);
        fiber.groups = fiber.bulk_groups = 0;
    }
    for (;;) {
        bool ran = false;
        std::shuffle(order.begin(), order.end(), random_order);
        for (const int warp : order) {
            // Some turns of this warp, its lanes from a random one on in steps of a random odd number.
            for (int turns = 1 + random_order() % 8; turns > 0; --turns) {
                const uint32_t first = random_order(), step = random_order() | 1;
                for (uint32_t i = 0; i < kWarpLanes; ++i) {
                    const int thread = warp * kWarpLanes + (first + i * step) % kWarpLanes;
                    if (thread >= threads || fibers[thread].state != State::ready) continue;
                    resume(thread);
                    ran = true;
                }
            }
        }
        if (ran) continue;
        int waiting = 0, done = 0;
        for (int thread = 0; thread < threads; ++thread) {
            waiting += fibers[thread].state == State::at_block_barrier;
            done += fibers[thread].state == State::done;
        }
        if (done == threads) return;
        if (waiting + done != threads) fail("deadlock: a warp of which some lanes wait for the others");
        ++block_epoch;
        for (int thread = 0; thread < threads; ++thread)
            if (fibers[thread].state == State::at_block_barrier) fibers[thread].state = State::ready;
    }
}

}  // namespace

void fail(const char* what, int64_t a, int64_t b) {
    printf("FAILED: ");
    printf(what, a, b);
    printf("\n  block (%u, %u, %u), thread %d (%u, %u)\n  %s\n", blockIdx.x, blockIdx.y, blockIdx.z, current,
           threadIdx.x, threadIdx.y, describe_problem());
    fflush(stdout);
    _exit(1);
}

void reset(uint64_t seed, size_t readable_head_bytes) {
    head_bytes = readable_head_bytes;
    tensors.clear();
    tensors_end = memory + kTensorPlace + 4096;
    random_order.seed(static_cast<uint32_t>(seed));
}

void* allocate(size_t bytes, size_t offset, bool writable) {
    unsigned char* const data = tensors_end + offset;
    tensors_end += (offset + bytes + 511) / 256 * 256;
    if (tensors_end > memory + kTensorPlace + kTensorRoom) fail("the problem is too large");
    memset(data, 0xFF, bytes);
    tensors.push_back({data, bytes, writable});
    return data;
}

void launch(const void* kernel, dim3 grid, dim3 block, size_t bytes, const std::function<void()>& thread) {
    threads = block.x * block.y;
    const size_t most = std::max(allowed_bytes[kernel], kUnaskedBytes);
    if (threads < 1 || threads > kMaxThreads || grid.x < 1)
        fail("launch of %ld x %ld threads", grid.x, threads);
    if (grid.y > kMaxRows || grid.z > kMaxRows) fail("grid of %ld x %ld rows of blocks", grid.y, grid.z);
    if (bytes > most) fail("launch with %ld bytes of shared memory, of %ld", bytes, most);
    blockDim = block;
    gridDim = grid;
    smem_bytes = bytes;
    thread_body = &thread;
    for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z) {
        for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y) {
            for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) run_block();
        }
    }
}

// Of all devices together: problems name several, each is asked once.
void allow_smem(const void* kernel, size_t bytes) {
    allowed_bytes[kernel] = std::max(allowed_bytes[kernel], bytes);
}
unsigned char* shared() { return shared_memory + kStaticBytes; }
void* static_shared(size_t bytes) {
    if (bytes > kStaticBytes) fail("%ld bytes of static shared memory", bytes);
    return shared_memory;
}
void sync_block() { leave(State::at_block_barrier); }
void sync_warp() { together(nullptr, nullptr); }

void together(void (*run)(void* const*), void* lane) {
    Warp& warp = warps[current / kWarpLanes];
    if (warp.arrived > 0 && warp.run != run) fail("lanes of a warp meet at different instructions");
    warp.run = run;
    warp.lanes[current % kWarpLanes] = lane;
    if (++warp.arrived < kWarpLanes) return leave(State::at_warp_barrier);
    warp.arrived = 0;
    if (run != nullptr) run(warp.lanes);
    else ++warp.epoch;  // only a barrier orders memory
    const int first = current / kWarpLanes * kWarpLanes;
    for (int i = first; i < first + kWarpLanes; ++i) fibers[i].state = State::ready;
}

// A copy lands as late as it may. Until then its target holds NaN.
void copy_async(uint32_t target, const void* source, uint32_t bytes, uint32_t source_bytes) {
    const auto address = reinterpret_cast<uintptr_t>(source);
    if (target % bytes != 0 || (source_bytes > 0 && address % bytes != 0))
        fail("misaligned asynchronous copy");
    if (source_bytes > bytes) fail("asynchronous copy of %ld bytes from %ld", bytes, source_bytes);
    // Of all bytes, not just those that are kept: nothing says that the others are not read.
    if (source_bytes > 0) check_global(static_cast<const unsigned char*>(source), bytes, false);
    check_shared(kStaticBytes + target, bytes, true);
    memset(shared() + target, 0xFF, bytes);
    Fiber& fiber = fibers[current];
    fiber.copies.push_back(
        {target, static_cast<const unsigned char*>(source), bytes, source_bytes, fiber.groups});
}

int change_unwatched(int* place, int value) {
    const int before = *place;
    *place = std::max(before, value);
    return before;
}

void commit_copies() { ++fibers[current].groups; }

// Calls finish(copy) for a thread's copies but those of its last pending_groups groups, and forgets them.
template <class Copies, class Finish>
static void finish_groups(Copies& copies, int groups, int pending_groups, Finish finish) {
    Copies left;
    for (const auto& copy : copies) {
        if (copy.group >= groups - pending_groups) left.push_back(copy);
        else finish(copy);
    }
    copies.swap(left);
}

void wait_copies(int pending_groups) {
    Fiber& fiber = fibers[current];
    finish_groups(fiber.copies, fiber.groups, pending_groups, [](const Copy& copy) {
        check_shared(kStaticBytes + copy.target, copy.bytes, true);
        memset(shared() + copy.target, 0, copy.bytes);
        memcpy(shared() + copy.target, copy.source, copy.source_bytes);
    });
}

// A bulk copy to global memory reads its source as late as it may.
void bulk_store(uint64_t target, uint32_t source, uint32_t bytes) {
    if (target % 16 != 0 || source % 16 != 0 || bytes % 16 != 0) fail("misaligned bulk copy");
    Fiber& fiber = fibers[current];
    fiber.bulk_stores.push_back({reinterpret_cast<unsigned char*>(target), source, bytes, fiber.bulk_groups});
}

void commit_bulk_stores() { ++fibers[current].bulk_groups; }

void wait_bulk_stores(int pending_groups) {
    Fiber& fiber = fibers[current];
    finish_groups(fiber.bulk_stores, fiber.bulk_groups, pending_groups, [](const BulkStore& store) {
        check_shared(kStaticBytes + store.source, store.bytes, false);
        check_global(store.target, store.bytes, true);
        memcpy(store.target, shared() + store.source, store.bytes);
    });
}

}  // namespace emulator

// What the compiler calls.
extern "C" {
#define HOOKS(bytes)                                                                 \
    void __tsan_read##bytes(void* p) { emulator::check(p, bytes, false); }           \
    void __tsan_write##bytes(void* p) { emulator::check(p, bytes, true); }           \
    void __tsan_unaligned_read##bytes(void* p) { emulator::check(p, bytes, false); } \
    void __tsan_unaligned_write##bytes(void* p) { emulator::check(p, bytes, true); } \
    static_assert(bytes <= 16, "longer ones come as ranges")
HOOKS(1);
HOOKS(2);
HOOKS(4);
HOOKS(8);
HOOKS(16);
#undef HOOKS
void __tsan_read_range(void* p, size_t bytes) { emulator::check(p, bytes, false); }
void __tsan_write_range(void* p, size_t bytes) { emulator::check(p, bytes, true); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
uint64_t __tsan_atomic64_load(const uint64_t* p, int) { return *p; }
uint64_t __tsan_atomic64_fetch_or(uint64_t* p, uint64_t bits, int) {
    const uint64_t before = *p;
    *p |= bits;
    return before;
}
}
