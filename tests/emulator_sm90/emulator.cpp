#include "emulator.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <limits>
#include <memory>

namespace emulator {

Schedule schedule;
std::string about;
int broken = 0;
int64_t few_warps = 4096;
Index thread_index, block_index, grid_size;
int cluster_size = 1;

namespace {

constexpr size_t kStackBytes = 128 << 10;
constexpr int kMostColumns = 256;

struct Block;

struct Product {  // one thread's share of one wgmma
    Number number;
    uint64_t a, b;
    bool accumulate;
    int group;
    bool a_in_registers;
    uint32_t a_words[2][8];  // of rows lane/4 and that + 8, where A is in registers
    int sums;                // which of the thread's
};

struct Sums {  // of one thread, of products under way
    float* kept;  // the kernel's own, NaN until the wait
    int columns, last_group;
    float values[kMostColumns / 2];
};

struct ThreadCopy {  // cp.async: lands by its thread's wait
    uint32_t target, bytes;
    std::vector<uint8_t> data;
    int group;
};

struct Copy {
    Block* block;
    uint32_t target, bytes, barrier;
    const uint8_t* source;
    std::vector<uint8_t> box;  // where it is not contiguous
};

enum class Wait { none, mbarrier, barrier, cluster, warp };

struct Thread {
    ucontext_t start;
    jmp_buf context;
    bool started = false, done = true;
    Block* block;
    int index;
    Wait wait;
    uint32_t barrier, parity;
    uint64_t generation;
    std::map<int, uint64_t> arrived;  // at hardware barriers without waiting: in which generation

    std::vector<Product> products;
    int product_group;
    bool fenced;
    std::vector<Sums> sums;
    std::vector<ThreadCopy> thread_copies;
    int copy_group;
};

struct MBarrier {
    uint32_t arrivals, missing;
    int64_t bytes;
    uint64_t phase;
};

struct Barrier {
    int arrived = 0, threads = 0;
    uint64_t generation = 0;
};

struct Warp {
    const char* instruction = nullptr;
    int arrived = 0, elected = 0;
    uint64_t generation = 0, in[32], out[32];
};

struct Block {
    unsigned index;
    uint8_t *mapping = nullptr, *smem;
    uint32_t window;  // the address of smem as kernels see it
    int64_t smem_bytes;
    std::map<uint32_t, MBarrier> mbarriers;
    Barrier barriers[16];
    Barrier of_cluster;  // that of its first block counts
    Warp warps[32];
    std::vector<std::unique_ptr<Thread>> threads;
};

constexpr int64_t kMappingBytes = 256 << 10;

std::vector<std::unique_ptr<Block>> blocks;
std::vector<Copy> copies;
const std::function<void()>* kernel;
Thread* current;
jmp_buf scheduler;
Random dice{1};

Warp& warp_of(const Thread& thread) { return thread.block->warps[thread.index / 32]; }

void complete_phase(MBarrier& barrier) {
    if (barrier.missing != 0 || barrier.bytes != 0) return;
    ++barrier.phase;
    barrier.missing = barrier.arrivals;
}

MBarrier& mbarrier_at(Block& block, uint32_t address) {
    const auto found = block.mbarriers.find(address);
    if (found == block.mbarriers.end()) fail("no mbarrier at %u", address);
    return found->second;
}

Block& block_of_cluster(const Block& block, uint32_t rank) {
    const auto size = static_cast<unsigned>(cluster_size);
    return *blocks[block.index / size * size + rank];
}
Block& first_of_cluster(const Block& block) { return block_of_cluster(block, 0); }

bool can_run(const Thread& thread) {
    switch (thread.wait) {
        case Wait::mbarrier:
            return (mbarrier_at(*thread.block, thread.barrier).phase & 1) != thread.parity;
        case Wait::barrier:
            return thread.block->barriers[thread.barrier].generation != thread.generation;
        case Wait::cluster:
            return first_of_cluster(*thread.block).of_cluster.generation != thread.generation;
        case Wait::warp:
            return warp_of(thread).generation != thread.generation;
        default:
            return true;
    }
}

void pause_thread() {
    if (_setjmp(current->context) == 0) _longjmp(scheduler, 1);
}
void wait_until_possible(Wait wait) {
    current->wait = wait;
    if (!can_run(*current) || dice.chance(schedule.yields)) pause_thread();
    current->wait = Wait::none;
}

void finish_thread() {
    if (!current->products.empty()) fail("a thread ends before its products");
    if (!current->thread_copies.empty()) fail("a thread ends before its copies");
    current->done = true;
    pause_thread();
}
void thread_main() {
    for (;;) {
        (*kernel)();
        finish_thread();
    }
}

void run_thread(Thread& thread) {
    current = &thread;
    thread_index.x = static_cast<unsigned>(thread.index);
    block_index.x = thread.block->index % grid_size.x;
    block_index.y = thread.block->index / grid_size.x;
    if (_setjmp(scheduler) != 0) return;
    if (thread.started) _longjmp(thread.context, 1);
    thread.started = true;
    setcontext(&thread.start);
}

uint8_t* smem_at(const Block& block, uint32_t address, int64_t bytes, int alignment) {
    const int64_t offset = int64_t{address} - block.window;
    if (offset < 0 || offset + bytes > block.smem_bytes)
        fail("shared address %u, %d bytes: outside", address, static_cast<int>(bytes));
    if (address % alignment != 0) fail("shared address %u is no multiple of %d", address, alignment);
    return block.smem + offset;
}

void land(size_t which) {
    const Copy copy = std::move(copies[which]);
    if (which + 1 < copies.size()) copies[which] = std::move(copies.back());
    copies.pop_back();
    std::memcpy(smem_at(*copy.block, copy.target, copy.bytes, 16),
                copy.source != nullptr ? copy.source : copy.box.data(), copy.bytes);
    MBarrier& barrier = mbarrier_at(*copy.block, copy.barrier);
    barrier.bytes -= copy.bytes;
    complete_phase(barrier);
}

void report_deadlock() {
    std::fprintf(stderr, "deadlock: no thread can run\n");
    for (const auto& block : blocks)
        for (const auto& thread : block->threads) {
            const auto& first = block->threads[thread->index / 32 * 32];  // stands for those that wait as it does
            if (thread->done || (thread != first && thread->wait == first->wait)) continue;
            std::fprintf(stderr, "block %u warp %d lane %d waits for ", block->index, thread->index / 32,
                         thread->index % 32);
            if (thread->wait == Wait::mbarrier) {
                const MBarrier& barrier = mbarrier_at(*block, thread->barrier);
                std::fprintf(stderr, "mbarrier %d, parity %u: phase %d, %u arrivals and %d bytes missing\n",
                             static_cast<int>(thread->barrier - block->mbarriers.begin()->first) / 8,
                             thread->parity, static_cast<int>(barrier.phase), barrier.missing,
                             static_cast<int>(barrier.bytes));
            } else if (thread->wait == Wait::barrier) {
                std::fprintf(stderr, "barrier %u\n", thread->barrier);
            } else if (thread->wait == Wait::cluster) {
                std::fprintf(stderr, "the cluster\n");
            } else {
                std::fprintf(stderr, "%s\n", warp_of(*thread).instruction);
            }
        }
    fail("deadlock");
}

// One block's threads at their beginning.
void prepare(Block& block, unsigned index, int threads, int64_t smem_bytes) {
    if (block.mapping == nullptr) {
        const auto page = static_cast<int64_t>(sysconf(_SC_PAGESIZE));
        block.mapping = static_cast<uint8_t*>(
            mmap(nullptr, kMappingBytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        mprotect(block.mapping + kMappingBytes, page, PROT_NONE);
    }
    block.index = index;
    block.smem_bytes = smem_bytes;
    block.smem = block.mapping + kMappingBytes - (smem_bytes + 15) / 16 * 16;
    std::memset(block.smem, 0xFF, static_cast<size_t>(smem_bytes));  // NaN of every type
    block.window = static_cast<uint32_t>(16 * dice.range(0, 127));
    if (static_cast<int>(index) % cluster_size > 0) block.window = first_of_cluster(block).window;
    block.of_cluster = Barrier{};
    block.mbarriers.clear();
    for (Barrier& barrier : block.barriers) barrier = Barrier{};
    for (Warp& warp : block.warps) {
        warp = Warp{};
        warp.elected = static_cast<int>(dice.range(0, 31));
    }
    while (static_cast<int>(block.threads.size()) < threads) {
        auto thread = std::make_unique<Thread>();
        getcontext(&thread->start);
        thread->start.uc_stack.ss_sp = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        thread->start.uc_stack.ss_size = kStackBytes;
        makecontext(&thread->start, thread_main, 0);
        thread->index = static_cast<int>(block.threads.size());
        thread->block = &block;
        block.threads.push_back(std::move(thread));
    }
    for (const auto& thread : block.threads) {
        thread->done = thread->index >= threads;
        thread->wait = Wait::none;
        thread->arrived.clear();
        thread->product_group = 0;
        thread->fenced = false;
        thread->sums.clear();
        thread->copy_group = 0;
    }
}

void run_blocks(int first, int count, int threads, int64_t smem_bytes) {
    while (static_cast<int>(blocks.size()) < count) blocks.push_back(std::make_unique<Block>());
    std::vector<Thread*> warps;  // lane 0 of each
    for (int i = 0; i < count; ++i) {
        prepare(*blocks[i], static_cast<unsigned>(first + i), threads, smem_bytes);
        for (int thread = 0; thread < threads; thread += 32)
            warps.push_back(blocks[i]->threads[thread].get());
    }
    while (!warps.empty()) {
        bool moved = false, rested = false;
        for (size_t i = warps.size(); i > 1; --i) std::swap(warps[i - 1], warps[dice.next() % i]);
        for (Thread* const leader : warps) {
            const bool rests = dice.chance(schedule.warp_rests[leader->index / 32 % 16]);
            const uint64_t turn = dice.next();
            for (uint64_t i = 0; i < 32; ++i) {
                Thread& thread = *leader->block->threads[leader->index + ((i + turn) & 31)];
                if (thread.done || !can_run(thread)) continue;
                if (rests || (schedule.lane_rests > 0 && dice.chance(schedule.lane_rests))) {
                    rested = true;
                    if (rests) break;
                    continue;
                }
                run_thread(thread);
                moved = true;
            }
        }
        for (size_t i = copies.size(); i-- > 0;)
            if (dice.chance(schedule.copy_lands)) land(i), moved = true;
        warps.erase(std::remove_if(warps.begin(), warps.end(),
                                   [](const Thread* leader) {
                                       for (int i = 0; i < 32; ++i)
                                           if (!leader->block->threads[leader->index + i]->done) return false;
                                       return true;
                                   }),
                    warps.end());
        if (moved || rested || warps.empty()) continue;
        if (copies.empty()) report_deadlock();
        land(dice.next() % copies.size());
    }
    if (!copies.empty()) fail("a block ends before its copies");
}

}  // namespace

void fail(const char* format, ...) {
    va_list values;
    va_start(values, format);
    std::fprintf(stderr, "FAILED: ");
    std::vfprintf(stderr, format, values);
    va_end(values);
    if (current != nullptr)
        std::fprintf(stderr, " (block %u, thread %d)", current->block->index, current->index);
    std::fprintf(stderr, "\n%s\n", about.c_str());
    _exit(1);
}

void launch(dim3 blocks, int threads, int64_t smem_bytes, cudaStream_t, const std::function<void()>& body) {
    const int64_t count = int64_t{blocks.x} * blocks.y;
    if (count < 1 || count > 2147483647 || blocks.y > 65535 || blocks.z != 1 || threads % 32 != 0 ||
        threads > 1024 || smem_bytes > 227 << 10)
        fail("a launch of %ld blocks, %d threads, %ld bytes", static_cast<long>(count), threads,
             static_cast<long>(smem_bytes));
    dice.state = schedule.seed;
    kernel = &body;
    grid_size.x = blocks.x, grid_size.y = blocks.y;
    const int together = smem_bytes > 0 ? static_cast<int>(count) : 1;
    for (int64_t first = 0; first < count; first += together)
        run_blocks(static_cast<int>(first), together, threads, smem_bytes);
    current = nullptr;
}

uint8_t* shared_memory() { return current->block->smem; }
uint32_t shared_address(const void* pointer) {
    const auto offset = static_cast<const uint8_t*>(pointer) - current->block->smem;
    return static_cast<uint32_t>(offset + current->block->window);
}
void* shared_pointer(uint32_t address, int64_t bytes, int alignment) {
    return smem_at(*current->block, address, bytes, alignment);
}
int block_threads() {
    int threads = 0;
    for (const auto& thread : current->block->threads) threads += !thread->done;
    return threads;
}
void may_yield() {
    if (schedule.yields > 0 && dice.chance(schedule.yields)) pause_thread();
}

const uint64_t* exchange(const char* instruction, uint64_t value) {
    Warp& warp = warp_of(*current);
    if (warp.arrived == 0) warp.instruction = instruction;
    if (std::strcmp(warp.instruction, instruction) != 0)
        fail("lanes of one warp are at %s and at %s", warp.instruction, instruction);
    warp.in[current->index % 32] = value;
    current->generation = warp.generation;
    if (++warp.arrived == 32) {
        std::copy(warp.in, warp.in + 32, warp.out);
        warp.arrived = 0;
        ++warp.generation;
    }
    wait_until_possible(Wait::warp);
    return warp.out;
}
bool elect() {
    exchange("elect", 0);
    return warp_of(*current).elected == current->index % 32;
}

namespace {
void arrive(int id, int threads) {
    Barrier& barrier = current->block->barriers[id];
    if (barrier.arrived == 0) barrier.threads = threads;
    if (barrier.threads != threads)
        fail("barrier %d is of %d and of %d threads", id, barrier.threads, threads);
    if (++barrier.arrived < threads) return;
    barrier.arrived = 0;
    ++barrier.generation;
}
}  // namespace

void barrier_sync(int id, int threads) {
    current->generation = current->block->barriers[id].generation;
    current->barrier = static_cast<uint32_t>(id);
    const auto before = current->arrived.find(id);
    if (before != current->arrived.end() && before->second == current->generation)
        fail("a thread comes to barrier %d again before the others", id);
    arrive(id, threads);
    wait_until_possible(Wait::barrier);
}
void barrier_arrive(int id, int threads) {
    may_yield();
    const uint64_t generation = current->block->barriers[id].generation;
    const auto before = current->arrived.find(id);
    if (before != current->arrived.end() && before->second == generation)
        fail("a thread arrives at barrier %d again before the others", id);
    current->arrived[id] = generation;
    arrive(id, threads);
}

void cluster_sync() {
    Barrier& barrier = first_of_cluster(*current->block).of_cluster;
    current->generation = barrier.generation;
    if (++barrier.arrived == cluster_size * block_threads()) barrier.arrived = 0, ++barrier.generation;
    wait_until_possible(Wait::cluster);
}
uint32_t cluster_rank() { return current->block->index % static_cast<unsigned>(cluster_size); }
uint32_t map_to_rank(uint32_t address, uint32_t rank) {
    if (static_cast<int>(rank) >= cluster_size) fail("no block %u in the cluster", rank);
    return (rank + 1) << 24 | (address - current->block->window);
}
void mbarrier_init(uint32_t barrier, uint32_t arrivals) {
    smem_at(*current->block, barrier, 8, 8);
    current->block->mbarriers[barrier] = {arrivals, arrivals, 0, 0};
}
namespace {
void arrive(Block& block, uint32_t address, uint32_t transaction_bytes) {
    may_yield();
    MBarrier& barrier = mbarrier_at(block, address);
    if (barrier.missing == 0) fail("more arrivals than mbarrier %u awaits", address);
    barrier.bytes += transaction_bytes;
    --barrier.missing;
    complete_phase(barrier);
    may_yield();
}
}  // namespace

void mbarrier_arrive(uint32_t address, uint32_t transaction_bytes) {
    arrive(*current->block, address, transaction_bytes);
}
void mbarrier_arrive_cluster(uint32_t address) {
    Block& block = block_of_cluster(*current->block, (address >> 24) - 1);
    for (const auto& thread : block.threads)
        if (thread->done && thread->index < block_threads()) fail("an arrival at a block that has ended");
    arrive(block, (address & 0xFFFFFF) + block.window, 0);
}
void mbarrier_wait(uint32_t barrier, uint32_t parity) {
    current->barrier = barrier;
    current->parity = parity;
    wait_until_possible(Wait::mbarrier);
}

namespace {
// Calls receive for this block, or for each of the cluster that has a bit in `blocks`.
template <class Receive>
void for_receivers(uint32_t blocks, Receive receive) {
    Block& own = *current->block;
    if (blocks == 0) return receive(own);
    for (int rank = 0; rank < cluster_size; ++rank)
        if (blocks >> rank & 1) receive(block_of_cluster(own, static_cast<uint32_t>(rank)));
}
}  // namespace

void copy_to_shared(uint32_t target, const void* source, uint32_t bytes, uint32_t barrier, uint32_t blocks) {
    if (reinterpret_cast<uintptr_t>(source) % 16 != 0 || bytes % 16 != 0) fail("misaligned bulk copy");
    for_receivers(blocks, [&](Block& block) {
        std::memset(smem_at(block, target, bytes, 16), 0xFF, bytes);
        copies.push_back({&block, target, bytes, barrier, static_cast<const uint8_t*>(source), {}});
    });
    may_yield();
}

namespace {
void land(const ThreadCopy& copy) {
    std::memcpy(smem_at(*current->block, copy.target, copy.bytes, 4), copy.data.data(), copy.bytes);
}
}  // namespace

void copy_async(uint32_t target, const void* source, uint32_t bytes, uint32_t source_bytes) {
    if (source_bytes > 0 && reinterpret_cast<uintptr_t>(source) % bytes != 0) fail("misaligned asynchronous copy");
    std::memset(smem_at(*current->block, target, bytes, static_cast<int>(bytes)), 0xFF, bytes);
    ThreadCopy copy{target, bytes, std::vector<uint8_t>(bytes, 0), current->copy_group};
    if (source_bytes > 0) std::memcpy(copy.data.data(), source, source_bytes);
    if (dice.chance(schedule.late)) current->thread_copies.push_back(std::move(copy));
    else land(copy);
    may_yield();
}
void commit_copies() { ++current->copy_group; }
void wait_copies(int pending) {
    std::vector<ThreadCopy> rest;
    for (ThreadCopy& copy : current->thread_copies) {
        if (copy.group < current->copy_group - pending) land(copy);
        else rest.push_back(std::move(copy));
    }
    current->thread_copies = std::move(rest);
    may_yield();
}

void copy_box(uint32_t target, const TensorMap& map, const int32_t (&first)[4], uint32_t barrier,
              uint32_t blocks) {
    const int64_t row_bytes = map.box[0] * map.element, rows = int64_t{map.box[1]} * map.box[2] * map.box[3];
    const auto bytes = static_cast<uint32_t>(row_bytes * rows);
    if (first[0] * map.element % 16 != 0)
        fail("a box from position %d on, which is no multiple of 16 bytes", first[0]);
    if (first[3] < 0 || first[3] >= map.extent[3]) fail("a box of sample %d", first[3]);
    std::vector<uint8_t> box(bytes, 0);
    for (int64_t row = 0; row < rows; ++row) {
        const int64_t at[4] = {0, first[1] + row % map.box[1], first[2] + row / map.box[1] % map.box[2],
                               first[3] + row / map.box[1] / map.box[2]};
        const uint8_t* source = map.base;
        bool inside = true;
        for (int axis = 1; axis < 4; ++axis) {
            inside = inside && at[axis] >= 0 && at[axis] < map.extent[axis];
            source += at[axis] * map.stride[axis];
        }
        for (int64_t i = 0; inside && i < map.box[0]; ++i) {
            const int64_t position = first[0] + i;
            if (position < 0 || position >= map.extent[0]) continue;
            int64_t place = row * row_bytes + i * map.element;
            if (map.swizzled) place ^= row % 8 * 16;
            std::memcpy(box.data() + place, source + position * map.element, static_cast<size_t>(map.element));
        }
    }
    for_receivers(blocks, [&](Block& block) {
        std::memset(smem_at(block, target, bytes, map.swizzled ? 1024 : 128), 0xFF, bytes);
        copies.push_back({&block, target, bytes, barrier, nullptr, box});
    });
    may_yield();
}

// ---- wgmma ----

namespace {

const std::vector<float>& table(bool is_bf16) {  // of all 16-bit numbers
    static const auto make = [](auto widen) {
        std::vector<float> values(65536);
        for (uint32_t i = 0; i < 65536; ++i) values[i] = widen(static_cast<uint16_t>(i));
        return values;
    };
    static const std::vector<float> f16 =
        make([](uint16_t bits) { return __half2float(__ushort_as_half(bits)); });
    static const std::vector<float> bf16 =
        make([](uint16_t bits) { return bit_cast<float>(uint32_t{bits} << 16); });
    return is_bf16 ? bf16 : f16;
}

int widen(Number number, const uint32_t (&words)[8], float (&values)[16]) {
    if (number == Number::tf32) {
        for (int i = 0; i < 8; ++i) values[i] = bit_cast<float>(words[i] & 0xFFFFE000u);
        return 8;
    }
    const float* const wide = table(number == Number::bf16).data();
    for (int i = 0; i < 16; ++i) values[i] = wide[words[i / 2] >> 16 * (i % 2) & 0xFFFF];
    return 16;
}

// 32 bytes of row `row` of the operand that `descriptor` describes: rows of 128 bytes, swizzled, or parts of
// 8 rows of 16 bytes. Returns how many numbers that is.
int load_row(Number number, uint64_t descriptor, int row, float (&values)[16]) {
    const uint32_t group_bytes = static_cast<uint32_t>(descriptor >> 32 & 0x3FFF) << 4;
    const uint32_t part_bytes = static_cast<uint32_t>(descriptor >> 16 & 0x3FFF) << 4;
    const uint64_t swizzle = descriptor >> 62;
    if (swizzle > 1 || (descriptor >> 49 & 7) != 0) fail("a descriptor of other swizzles than of 128 bytes");
    const uint32_t start = static_cast<uint32_t>(descriptor & 0x3FFF) << 4;
    const uint32_t address = start + row / 8 * group_bytes + row % 8 * (swizzle == 1 ? 128 : 16);
    uint32_t words[8];
    for (uint32_t piece = 0; piece < 2; ++piece) {
        uint32_t place = address + (swizzle == 1 ? 16 : part_bytes) * piece;
        if (swizzle == 1) place ^= (place >> 7 & 7) << 4;
        std::memcpy(words + 4 * piece, smem_at(*current->block, place, 16, 16), 16);
    }
    return widen(number, words, values);
}

float truncate(double value) {
    const float near = static_cast<float>(value);
    return std::fabs(static_cast<double>(near)) > std::fabs(value) ? std::nextafterf(near, 0.0f) : near;
}

// A thread's share: rows 16*warp + lane/4 and that + 8, columns 8*j + 2*(lane%4) and that + 1.
void multiply(const Product& product) {
    Thread& thread = *current;
    const int lane = thread.index % 32, row = thread.index / 32 % 4 * 16 + lane / 4;
    float a[2][16], b[16];
    int depth = 0;
    for (int half = 0; half < 2; ++half)
        depth = product.a_in_registers ? widen(product.number, product.a_words[half], a[half])
                                       : load_row(product.number, product.a, row + 8 * half, a[half]);
    Sums& sums = thread.sums[product.sums];
    for (int j = 0; j < sums.columns / 8; ++j)
        for (int i = 0; i < 2; ++i) {
            load_row(product.number, product.b, 8 * j + 2 * (lane % 4) + i, b);
            for (int half = 0; half < 2; ++half) {
                float& sum = sums.values[4 * j + 2 * half + i];
                double exact = product.accumulate ? sum : 0.0;
                for (int k = 0; k < depth; ++k) exact += static_cast<double>(a[half][k]) * b[k];
                sum = truncate(exact);
            }
        }
}

void multiply_before(int group) {
    size_t done = 0;
    for (; done < current->products.size() && current->products[done].group < group; ++done)
        multiply(current->products[done]);
    current->products.erase(current->products.begin(),
                            current->products.begin() + static_cast<std::ptrdiff_t>(done));
}

}  // namespace

void wgmma_fence() {
    exchange("wgmma.fence", 0);  // this and the wait keep the lanes together, as on the GPU every wgmma does
    current->fenced = true;
}
namespace {
void issue(int columns, float* d, Product product) {
    Thread& thread = *current;
    size_t which = 0;
    while (which < thread.sums.size() && thread.sums[which].kept != d) ++which;
    if (which == thread.sums.size()) {
        if (!thread.fenced) fail("wgmma without a fence after its registers were used");
        for (which = 0; which < thread.sums.size() && thread.sums[which].kept != nullptr;) ++which;
        if (which == thread.sums.size()) thread.sums.emplace_back();
        Sums& sums = thread.sums[which];
        sums = {d, columns, 0, {}};
        std::copy(d, d + columns / 2, sums.values);
        std::fill(d, d + columns / 2, std::numeric_limits<float>::quiet_NaN());
    }
    if (thread.sums[which].columns != columns) fail("wgmma with other registers under way");
    product.sums = static_cast<int>(which);
    product.group = thread.sums[which].last_group = thread.product_group;
    thread.products.push_back(product);
    if (!dice.chance(schedule.late)) multiply_before(thread.product_group + 1);
}
}  // namespace

void wgmma_issue(Number number, int columns, float* d, uint64_t a, uint64_t b, bool accumulate) {
    issue(columns, d, {number, a, b, accumulate, 0, false, {}, 0});
}
void wgmma_issue(Number number, int columns, float* d, const uint32_t (&a)[4], uint64_t b, bool accumulate) {
    Product product{number, 0, b, accumulate, 0, true, {}, 0};
    const int quad = current->index % 32 / 4 * 4;
    for (int part = 0; part < 2; ++part) {
        const uint64_t* const words = exchange("wgmma", uint64_t{a[2 * part + 1]} << 32 | a[2 * part]);
        for (int i = 0; i < 4; ++i) {
            product.a_words[0][4 * part + i] = static_cast<uint32_t>(words[quad + i]);
            product.a_words[1][4 * part + i] = static_cast<uint32_t>(words[quad + i] >> 32);
        }
    }
    issue(columns, d, product);
}
void wgmma_commit() { ++current->product_group; }
void wgmma_wait(int pending) {
    Thread& thread = *current;
    multiply_before(thread.product_group - pending);
    for (Sums& sums : thread.sums) {
        if (sums.kept == nullptr || sums.last_group >= thread.product_group - pending) continue;
        std::copy(sums.values, sums.values + sums.columns / 2, sums.kept);
        sums.kept = nullptr;
        thread.fenced = false;
    }
    exchange("wgmma.wait_group", 0);
}

}  // namespace emulator
