// CUDA C++ kernels on the CPU, for tests: the same source that NVRTC compiles, compiled by g++ with this file before.
//
// compiler.py does that. It also rewrites what no macro can (`__shared__` declarations), appends a launcher for each
// kernel and calls it through ctypes. What is here:
//
//   1 spelling      the keywords, built-in types and index variables of CUDA
//   2 sanitizers    the same calls with and without AddressSanitizer and ThreadSanitizer
//   3 fibers        stacks between which one operating-system thread switches
//   4 the block     which CUDA thread runs, who waits for whom, and what is wrong when nobody can go on
//   5 shared memory an arena, filled with NaN bits before every block
//   6 warps         shuffles, votes, and the exchange under them
//   7 intrinsics    what the backend's intrinsics.cuh writes in PTX: tensor cores, asynchronous copies
//   8 arithmetic    atomics and the mathematical functions that C++ does not have
//   9 launching     arguments checked, blocks one after another
//
// How it works. Blocks run one after another; the threads of a block are fibers on one operating-system thread, so a
// run is deterministic, and a thread runs until it waits. A thread that never waits needs no fiber of its own: one fiber
// runs thread after thread, and a new one is taken only when a thread waits inside it. A kernel without barriers
// therefore costs little more than a loop.
//
// What it finds. Barriers that some threads never reach, or reach at different lines; warp operations whose mask names
// lanes that do not come; shared memory read before it is written (NaN), and asynchronous copies that nobody waited for
// (NaN, as they happen at the wait and not before); a wrong number or type of arguments; sizes that no GPU accepts;
// invalid addresses. A missing barrier shows in wrong values under one of the orders in which threads can run, or in
// ThreadSanitizer, for which every CUDA thread is a thread; that also sees races between blocks. AddressSanitizer sees
// accesses beyond an array, UndefinedBehaviorSanitizer misaligned vectors and overflowing ints.
//
// What it does not. Lanes of a warp are not in lockstep, as on Volta and later, and a kernel that waits for another
// block hangs. Denormals are kept (CuPy flushes them), a*b+c is not fused unless it says fma, and approximate functions
// are exact. No textures, cooperative groups, wgmma, TMA or half precision; no `__shared__` outside of functions, and
// none captured by copy in a lambda ([=]): the names are references here. Speed says nothing.
#pragma once

#include <dlfcn.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <type_traits>
#include <utility>

#define CUDA_ON_CPU 1

// ------------------------------------------------------------------------------------------------------- 1 spelling

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __grid_constant__
#define __launch_bounds__(...)  // compiler.py gives them to the launcher
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(bytes) __attribute__((aligned(bytes)))

// Alignments as in CUDA: 16 bytes at most, and three components are aligned as one.
#define CUDA_ON_CPU_VECTORS(Element, Name)                                                                     \
    struct Name##1 { Element x; };                                                                             \
    struct alignas(2 * sizeof(Element)) Name##2 { Element x, y; };                                             \
    struct Name##3 { Element x, y, z; };                                                                       \
    struct alignas(4 * sizeof(Element) < 16 ? 4 * sizeof(Element) : 16) Name##4 { Element x, y, z, w; };       \
    static inline Name##1 make_##Name##1(Element x) { return {x}; }                                            \
    static inline Name##2 make_##Name##2(Element x, Element y) { return {x, y}; }                              \
    static inline Name##3 make_##Name##3(Element x, Element y, Element z) { return {x, y, z}; }                \
    static inline Name##4 make_##Name##4(Element x, Element y, Element z, Element w) { return {x, y, z, w}; }
CUDA_ON_CPU_VECTORS(signed char, char)
CUDA_ON_CPU_VECTORS(unsigned char, uchar)
CUDA_ON_CPU_VECTORS(short, short)
CUDA_ON_CPU_VECTORS(unsigned short, ushort)
CUDA_ON_CPU_VECTORS(int, int)
CUDA_ON_CPU_VECTORS(unsigned, uint)
CUDA_ON_CPU_VECTORS(long long, longlong)
CUDA_ON_CPU_VECTORS(unsigned long long, ulonglong)
CUDA_ON_CPU_VECTORS(float, float)
CUDA_ON_CPU_VECTORS(double, double)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace cuda_on_cpu {

constexpr int WARP = 32;
constexpr int MOST_THREADS = 1024;
constexpr unsigned ALL_LANES = 0xffffffffu;
constexpr size_t STATIC_SHARED = 48 << 10;   // bytes that a block may declare
constexpr size_t MOST_SHARED = 227 << 10;    // and with dynamic shared memory: an H100's
constexpr unsigned char POISON = 0xff;       // makes NaNs, and integers of -1

static uint3 thread_index, block_index;
static dim3 block_size, grid_size;

}  // namespace cuda_on_cpu

#define threadIdx (::cuda_on_cpu::thread_index)
#define blockIdx (::cuda_on_cpu::block_index)
#define blockDim (::cuda_on_cpu::block_size)
#define gridDim (::cuda_on_cpu::grid_size)
#define warpSize 32

// ----------------------------------------------------------------------------------------------------- 2 sanitizers

// The emulator's own functions are kept out of the sanitizers' sight: they switch stacks and touch everybody's memory.
#if defined(__SANITIZE_THREAD__)
#define QUIET __attribute__((no_sanitize("thread")))
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}
#elif defined(__SANITIZE_ADDRESS__)
#define QUIET __attribute__((no_sanitize("address")))
extern "C" {
void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, size_t size);
void __sanitizer_finish_switch_fiber(void* fake_stack, const void** bottom, size_t* size);
void __asan_poison_memory_region(const volatile void* address, size_t size);
void __asan_unpoison_memory_region(const volatile void* address, size_t size);
}
#else
#define QUIET
#endif

namespace cuda_on_cpu {

// Objects on which threads meet: what one did before `publish` comes before what another does after `learn`. Barriers
// take turns between two, so that who leaves one late does not learn what others did on their way to the next.
static char meeting_launch, meeting_end, meeting_fence, meeting_block[2], meeting_lane[MOST_THREADS][2];

#if defined(__SANITIZE_THREAD__)
// Memory that two blocks, or two threads, use one after the other would look like a race: each has its own.
constexpr bool OWN_MEMORY = true;

// Two sets of ThreadSanitizer's threads, taken by every other block: a thread is in order with itself, and with one set
// what thread 5 of two blocks does to the same address would never look like a race.
constexpr int SETS = 2;
static int current_set;
static void** sanitizer_threads;  // of all modules: ThreadSanitizer takes a megabyte for each
static void* sanitizer_scheduler;

QUIET static void prepare_sanitizer(void** threads, int count) {
    sanitizer_threads = threads;
    sanitizer_scheduler = __tsan_get_current_fiber();
    for (int set = 0; set < SETS; set++)
        for (int thread = 0; thread < count; thread++) {
            void*& made = threads[set * MOST_THREADS + thread];
            if (!made) made = __tsan_create_fiber(0);
        }
}
// 1: switching orders nothing, the meetings do
QUIET static void enter_thread(int thread) {
    __tsan_switch_to_fiber(sanitizer_threads[current_set * MOST_THREADS + thread], 1);
}
QUIET static void leave_thread() { __tsan_switch_to_fiber(sanitizer_scheduler, 1); }
QUIET static void publish(char& meeting) { __tsan_release(&meeting); }
QUIET static void learn(char& meeting) { __tsan_acquire(&meeting); }
#else
constexpr bool OWN_MEMORY = false;
constexpr int SETS = 1;
static int current_set;
static void prepare_sanitizer(void**, int) {}
static void enter_thread(int) {}
static void leave_thread() {}
static void publish(char&) {}
static void learn(char&) {}
#endif

QUIET static void forbid(void* address, size_t size) {
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region(address, size);
#endif
}

QUIET static void allow(void* address, size_t size) {
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(address, size);
#endif
}

/// Fill with poison. With a loop where sanitizers would look into memset, which they do even in quiet functions.
QUIET static void poison(void* address, size_t size) {
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    for (size_t k = 0; k < size; k++) static_cast<volatile unsigned char*>(address)[k] = POISON;
#else
    memset(address, POISON, size);
#endif
}

// --------------------------------------------------------------------------------------------------------- 3 fibers

constexpr size_t STACK = 256 << 10;  // bytes; what a fiber does not touch takes no memory
constexpr size_t PAGE = 4096;

#if defined(__x86_64__) && !defined(CUDA_ON_CPU_UCONTEXT)

// Save the registers that a function must preserve, change the stack, restore. Ten times as fast as swapcontext, which
// asks the system about signals at every switch.
struct Context { void* stack_pointer; };
extern "C" void cuda_on_cpu_switch(void** saved, void* next) __attribute__((visibility("hidden")));
__asm__(
    ".text\n"
    ".type cuda_on_cpu_switch, @function\n"
    "cuda_on_cpu_switch:\n"
    "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n    pushq %r13\n    pushq %r14\n    pushq %r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15\n    popq %r14\n    popq %r13\n    popq %r12\n    popq %rbx\n    popq %rbp\n"
    "    ret\n");
QUIET static void switch_context(Context& from, Context& to) {
    cuda_on_cpu_switch(&from.stack_pointer, to.stack_pointer);
}
QUIET static void make_context(Context& context, char* stack, void (*function)()) {
    void** top = reinterpret_cast<void**>(stack + STACK);
    *--top = nullptr;  // where `function` would return to, and what makes its stack aligned as after a call
    *--top = reinterpret_cast<void*>(function);
    for (int k = 0; k < 6; k++) *--top = nullptr;  // the six registers
    context.stack_pointer = top;
}

#else

struct Context { ucontext_t state; };
QUIET static void switch_context(Context& from, Context& to) { swapcontext(&from.state, &to.state); }
QUIET static void make_context(Context& context, char* stack, void (*function)()) {
    getcontext(&context.state);
    context.state.uc_stack.ss_sp = stack;
    context.state.uc_stack.ss_size = STACK;
    context.state.uc_link = nullptr;
    makecontext(&context.state, function, 0);
}

#endif

struct Fiber {
    Context context;
    char* stack;
    void* fake_stack;  // AddressSanitizer's
};

static Fiber fibers[SETS][MOST_THREADS];
static Fiber* idle[MOST_THREADS];  // those that run no CUDA thread
static int idle_count;
static Fiber* running;  // null: the scheduler runs
static Context scheduler;
static const void* scheduler_stack;  // what AddressSanitizer is told
static size_t scheduler_stack_size;
static void* scheduler_fake_stack;

QUIET static void to_scheduler() {
    Fiber* self = running;
    running = nullptr;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&self->fake_stack, scheduler_stack, scheduler_stack_size);
#endif
    switch_context(self->context, scheduler);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(self->fake_stack, &scheduler_stack, &scheduler_stack_size);
#endif
}

QUIET static void resume(Fiber* fiber) {
    running = fiber;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&scheduler_fake_stack, fiber->stack, STACK);
#endif
    switch_context(scheduler, fiber->context);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
#endif
}

static void run_threads();

QUIET static void give_stack(Fiber& fiber) {
    if (fiber.stack) return;
    // below it a page that may not be touched, so that an overflow is seen
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    char* memory = static_cast<char*>(mmap(nullptr, PAGE + STACK, PROT_READ | PROT_WRITE, flags, -1, 0));
    mprotect(memory, PAGE, PROT_NONE);
    fiber.stack = memory + PAGE;
    make_context(fiber.context, fiber.stack, run_threads);
}

/// All fibers idle and at their beginning, whatever they were doing.
QUIET static void renew_fibers() {
    for (auto& set : fibers)
        for (Fiber& fiber : set)
            if (fiber.stack) {
                allow(fiber.stack, STACK);
                make_context(fiber.context, fiber.stack, run_threads);
            }
    for (idle_count = 0; idle_count < MOST_THREADS; idle_count++)
        idle[idle_count] = &fibers[0][MOST_THREADS - 1 - idle_count];
}

/// A fiber for the next CUDA thread, and for those after it if it does not wait.
QUIET static Fiber* take_fiber(int thread) {
    Fiber* fiber = OWN_MEMORY ? &fibers[current_set][thread] : idle[--idle_count];
    give_stack(*fiber);
    return fiber;
}

// ------------------------------------------------------------------------------------------------------ 4 the block

/// Where a thread waits.
struct Place {
    const char* file;
    int line;
    const char* what;
    bool operator==(const Place& other) const { return line == other.line && what == other.what; }
    Place of(const char* operation) const { return {file, line, operation}; }
};
/// As a default argument: where the function is called.
static constexpr Place caller(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line, ""};
}

enum class State : unsigned char { not_started, ready, at_barrier, at_warp_operation, finished };

struct Thread {
    State state;
    Fiber* fiber;
    Place place;    // where it waits,
    unsigned mask;  // and for which lanes of its warp
};

struct Message { alignas(8) unsigned char bytes[32]; };  // what a lane says to its warp

static Thread threads[MOST_THREADS];
static Message sent[MOST_THREADS], received[MOST_THREADS];
static int order[MOST_THREADS];  // in which the threads run
static int thread_count, started, finished, at_barrier;
static int current;               // the thread that runs
static unsigned warp_waiting[MOST_THREADS / WARP], warp_finished[MOST_THREADS / WARP];  // a bit for each lane
static int block_turn, lane_turn[MOST_THREADS];          // which of two meetings is next
static unsigned long long block_number;                  // counts blocks, over all launches
static int votes, votes_at_last;                         // threads with a true predicate at this barrier, the last one

static void (*kernel_body)(void*);
static void* kernel_arguments;

static bool failed;
static char* failure;  // the launch's message, of FAILURE bytes
constexpr size_t FAILURE = 1000;

QUIET static void select(int thread) {
    current = thread;
    thread_index = {thread % block_size.x, thread / block_size.x % block_size.y,
                    thread / (block_size.x * block_size.y)};
}

/// Adds to the message.
QUIET static void say(const char* format, ...) {
    size_t length = strlen(failure);
    va_list values;
    va_start(values, format);
    vsnprintf(failure + length, FAILURE - length, format, values);
    va_end(values);
}

QUIET static void say_thread(int thread) {
    say("thread (%u, %u, %u)", thread % block_size.x, thread / block_size.x % block_size.y,
        thread / (block_size.x * block_size.y));
}

QUIET static void say_block() { say("block (%u, %u, %u)", block_index.x, block_index.y, block_index.z); }

QUIET static void say_where(int thread) {
    const Thread& t = threads[thread];
    say_thread(thread);
    if (t.state == State::finished) say(" has returned");
    else if (t.state == State::at_warp_operation)
        say(" waits at %s:%d (%s, mask 0x%08x)", t.place.file, t.place.line, t.place.what, t.mask);
    else say(" waits at %s:%d (%s)", t.place.file, t.place.line, t.place.what);
}

/// End the launch from within a thread, which never goes on.
[[noreturn, gnu::cold]] QUIET static void stop() {
    failed = true;
    leave_thread();
    for (;;) to_scheduler();
}

QUIET static void say_current() {
    say_block();
    say(", ");
    say_thread(current);
    say(": ");
}

[[noreturn, gnu::cold]] QUIET static void fail_at(Place place, const char* fault) {
    say_current();
    say("%s:%d: %s: %s", place.file, place.line, place.what, fault);
    stop();
}

/// Nobody can go on: say who waits where, one thread for each place.
[[gnu::cold]] QUIET static void fail_blocked(const char* what) {
    failed = true;
    say_block();
    say(": %s: ", what);
    int said[4], count = 0;
    for (int t = 0; t < thread_count && count < 4; t++) {
        bool known = false;
        for (int k = 0; k < count && !known; k++) {
            const Thread& other = threads[said[k]];
            const bool alike = other.place == threads[t].place && other.mask == threads[t].mask;
            known = other.state == threads[t].state && (other.state == State::finished || alike);
        }
        if (known) continue;
        if (count) say("; ");
        say_where(t);
        said[count++] = t;
    }
}

/// What a fiber does: run CUDA threads from begin to end, one after another, until none is left to start. Where one
/// waits, this function waits with it, and another fiber goes on starting threads.
QUIET static void run_threads() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_size);
#endif
    for (;;) {
        Fiber* self = running;
        do {
            const int thread = order[started++];
            threads[thread].state = State::ready;
            threads[thread].fiber = self;
            select(thread);
            enter_thread(thread);
            learn(meeting_launch);
            kernel_body(kernel_arguments);
            publish(meeting_end);
            leave_thread();
            const int ended = current;
            threads[ended].state = State::finished;
            warp_finished[ended / WARP] |= 1u << ended % WARP;
            finished++;
        } while (!OWN_MEMORY && started < thread_count);
        if (!OWN_MEMORY) idle[idle_count++] = self;
        to_scheduler();
    }
}

/// Give way until the scheduler finds that those for whom this thread waits have come.
QUIET static void wait(State state, Place place, unsigned mask) {
    const int thread = current;
    leave_thread();
    threads[thread].place = place;
    threads[thread].mask = mask;
    threads[thread].state = state;
    to_scheduler();
    enter_thread(thread);
}

QUIET static void barrier(Place place) {
    char& meeting = meeting_block[block_turn];
    publish(meeting);
    at_barrier++;
    wait(State::at_barrier, place, 0);
    learn(meeting);
}

QUIET static int barrier_count(Place place, int predicate) {
    votes += predicate != 0;
    barrier(place);
    return votes_at_last;
}

/// Release the barrier if every thread is there.
QUIET static bool release_barrier() {
    if (!at_barrier || at_barrier + finished < thread_count) return false;
    if (finished) {
        fail_blocked("a barrier that some threads do not reach");
        return false;
    }
    for (int t = 1; t < thread_count; t++)
        if (!(threads[t].place == threads[0].place)) {
            fail_blocked("threads wait at different barriers");
            return false;
        }
    for (int t = 0; t < thread_count; t++) threads[t].state = State::ready;
    at_barrier = 0;
    block_turn ^= 1;
    votes_at_last = votes;
    votes = 0;
    return true;
}

/// Release those lanes of a warp whose operation has everybody that its mask names. Lanes that have returned, or that
/// the block does not have, are not waited for; what they would say is poison.
QUIET static bool release_warp(int warp) {
    bool released = false;
    const int first = warp * WARP;
    unsigned unseen = warp_waiting[warp];
    while (unseen) {
        const Thread& leader = threads[first + __builtin_ctz(unseen)];
        const int lanes = thread_count - first < WARP ? thread_count - first : WARP;
        const unsigned present = lanes == WARP ? ALL_LANES : (1u << lanes) - 1;
        const unsigned needed = leader.mask & present & ~warp_finished[warp];
        bool complete = (needed & ~warp_waiting[warp]) == 0;
        for (unsigned left = needed; complete && left; left &= left - 1) {
            const Thread& t = threads[first + __builtin_ctz(left)];
            complete = t.mask == leader.mask && t.place == leader.place;
        }
        unseen &= complete ? ~needed : unseen - 1;
        if (!complete) continue;
        for (int lane = 0; lane < WARP; lane++) {
            if (needed >> lane & 1) {
                threads[first + lane].state = State::ready;
                lane_turn[first + lane] ^= 1;
                received[first + lane] = sent[first + lane];
            } else if (leader.mask >> lane & 1)
                poison(&received[first + lane], sizeof(Message));
        }
        warp_waiting[warp] &= ~needed;
        released = true;
    }
    return released;
}

/// One block, from begin to end or to the first failure.
QUIET static void run_block() {
    started = finished = at_barrier = votes = 0;
    for (int t = 0; t < thread_count; t++) threads[t].state = State::not_started;
    memset(warp_waiting, 0, sizeof warp_waiting);
    memset(warp_finished, 0, sizeof warp_finished);
    while (finished < thread_count && !failed) {
        if (started < thread_count) {  // start everybody before anything is released
            resume(take_fiber(order[started]));
            continue;
        }
        bool progress = false;
        for (int k = 0; k < thread_count && !failed; k++) {
            const int thread = order[k];
            if (threads[thread].state != State::ready) continue;
            progress = true;
            select(thread);
            resume(threads[thread].fiber);
        }
        if (failed) break;
        progress |= release_barrier();
        for (int warp = 0; warp * WARP < thread_count; warp++)
            if (warp_waiting[warp]) progress |= release_warp(warp);
        if (!progress && !failed && finished < thread_count) fail_blocked("nobody can go on");
    }
}

QUIET static void fence() {
    publish(meeting_fence);
    learn(meeting_fence);
}

}  // namespace cuda_on_cpu

static inline void __syncthreads(cuda_on_cpu::Place place = cuda_on_cpu::caller()) {
    cuda_on_cpu::barrier(place.of("__syncthreads"));
}
static inline int __syncthreads_count(int predicate, cuda_on_cpu::Place place = cuda_on_cpu::caller()) {
    return cuda_on_cpu::barrier_count(place.of("__syncthreads_count"), predicate);
}
static inline int __syncthreads_or(int predicate, cuda_on_cpu::Place place = cuda_on_cpu::caller()) {
    return cuda_on_cpu::barrier_count(place.of("__syncthreads_or"), predicate) != 0;
}
static inline int __syncthreads_and(int predicate, cuda_on_cpu::Place place = cuda_on_cpu::caller()) {
    return cuda_on_cpu::barrier_count(place.of("__syncthreads_and"), predicate) == cuda_on_cpu::thread_count;
}

// Blocks run one after another, so that fences have nothing to do; for ThreadSanitizer, all fences are in one order.
static inline void __threadfence() { cuda_on_cpu::fence(); }
static inline void __threadfence_block() { cuda_on_cpu::fence(); }

/// A kernel's own way to say that something is impossible.
static inline void __trap(cuda_on_cpu::Place place = cuda_on_cpu::caller()) {
    cuda_on_cpu::fail_at(place.of("__trap"), "the kernel ended itself");
}

// -------------------------------------------------------------------------------------------------- 5 shared memory

// compiler.py writes `__shared__ float a[8], b;` as
//
//     struct shared_0_a { float a[8]; }; auto& a = ::cuda_on_cpu::shared_variable<shared_0_a>().a; …
//
// so that every array lies in the arena with poison around it, also those of templates, of which the linker would merge
// several. An array gets the alignment that it declares and no more: one of floats that is read as float4 needs an
// __align__(16), on a GPU too.
namespace cuda_on_cpu {

constexpr size_t GAP = 64;  // bytes between arrays
constexpr size_t ARENA = OWN_MEMORY ? size_t(4) << 30 : size_t(1) << 20;  // untouched pages take no memory
constexpr size_t DYNAMIC_ALIGNMENT = 16;

static char* arena;
static size_t arena_used;       // bytes, gaps included
static size_t shared_declared;  // bytes that this block's __shared__ variables have
static size_t dynamic_bytes;
static char* dynamic_memory;

/// `size` bytes of poison, at an address that is a multiple of `alignment` and of no larger power of two.
QUIET static char* take_shared(size_t size, size_t alignment) {
    const size_t start = ((arena_used + GAP + 2 * alignment) & ~(2 * alignment - 1)) + alignment;
    const size_t end = start + size + GAP;
    if (end > ARENA) {
        say("the blocks have more shared memory together than ThreadSanitizer can be given; launch fewer");
        failed = true;
        return arena;
    }
    poison(arena + arena_used, end - arena_used);
    allow(arena + start, size);
    arena_used = end;
    return arena + start;
}

QUIET static void make_arena() {
    if (arena) return;
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    arena = static_cast<char*>(mmap(nullptr, ARENA, PROT_READ | PROT_WRITE, flags, -1, 0));
    forbid(arena, ARENA);
}

/// What a new block finds.
QUIET static void renew_shared(bool first_block) {
    if (first_block || !OWN_MEMORY) {
        forbid(arena, arena_used);
        arena_used = 0;
    }
    shared_declared = 0;
    dynamic_memory = take_shared(dynamic_bytes, DYNAMIC_ALIGNMENT);
}

QUIET static char* take_declared(size_t size, size_t alignment) {
    shared_declared += size;
    if (shared_declared > STATIC_SHARED || shared_declared + dynamic_bytes > MOST_SHARED) {
        say_current();
        say("%zu bytes of __shared__ variables and %zu of dynamic shared memory; %zu and together %zu are possible",
            shared_declared, dynamic_bytes, STATIC_SHARED, MOST_SHARED);
        stop();
    }
    char* memory = take_shared(size, alignment);
    if (failed) stop();
    return memory;
}

/// The variables of one declaration: the first thread of a block that comes by lays them out, the others find them.
template <class Declaration>
QUIET static Declaration& shared_variable() {
    static Declaration* place;
    static unsigned long long block;
    if (block != block_number) {
        place = reinterpret_cast<Declaration*>(take_declared(sizeof(Declaration), alignof(Declaration)));
        block = block_number;
    }
    return *place;
}

QUIET static void* dynamic_shared() { return dynamic_memory; }

QUIET static bool in_shared(const void* address, size_t size) {
    const char* start = static_cast<const char*>(address);
    return start >= arena && start + size <= arena + arena_used;
}

// ---------------------------------------------------------------------------------------------------------- 6 warps

QUIET static int lane() { return current % WARP; }

/// Wait for the lanes of the mask; then what they sent before is received.
QUIET static void meet_lanes(Place place, unsigned mask) {
    if (!(mask >> lane() & 1)) fail_at(place, "the mask does not name the lane that calls");
    warp_waiting[current / WARP] |= 1u << lane();
    wait(State::at_warp_operation, place, mask);
}

QUIET static void synchronize_lanes(Place place, unsigned mask) {
    publish(meeting_lane[current][lane_turn[current]]);
    meet_lanes(place, mask);
    const int first = current - lane();
    for (int other = 0; other < WARP; other++)  // each has taken its turn when all were released
        if (mask >> other & 1) learn(meeting_lane[first + other][lane_turn[first + other] ^ 1]);
}

template <class T>
QUIET static void tell_lanes(const T& value) {
    static_assert(sizeof(T) <= sizeof(Message));
    __builtin_memcpy(&sent[current], &value, sizeof value);
}

/// What a lane of the mask told; poison from any other, which CUDA leaves undefined.
template <class T>
QUIET static T heard_from(int other, unsigned mask) {
    T value;
    if (mask >> other & 1) __builtin_memcpy(&value, &received[current - lane() + other], sizeof value);
    else __builtin_memset(&value, POISON, sizeof value);
    return value;
}

template <class T>
QUIET static T shuffle(Place place, unsigned mask, T value, int source) {
    static_assert(std::is_arithmetic_v<T> && sizeof(T) >= 4, "shuffles take numbers of 4 and 8 bytes");
    tell_lanes(value);
    meet_lanes(place, mask);
    return heard_from<T>(source, mask);
}

/// A bit for each lane of the mask whose predicate holds.
QUIET static unsigned ballot(Place place, unsigned mask, int predicate) {
    tell_lanes(unsigned(predicate != 0));
    meet_lanes(place, mask);
    unsigned lanes = 0;
    for (int other = 0; other < WARP; other++)
        if (mask >> other & 1) lanes |= unsigned(heard_from<unsigned>(other, mask) == 1) << other;  // poison is no vote
    return lanes;
}

}  // namespace cuda_on_cpu

static inline void __syncwarp(unsigned mask = cuda_on_cpu::ALL_LANES,
                              cuda_on_cpu::Place place = cuda_on_cpu::caller()) {
    cuda_on_cpu::synchronize_lanes(place.of("__syncwarp"), mask);
}

// `width` cuts a warp into parts, each as if it were a warp of its own. A lane that would read beyond its part reads
// itself; by exclusive or it may read from the parts before.
template <class T>
static inline T __shfl_sync(unsigned mask, T value, int source, int width = 32,
                            cuda_on_cpu::Place place = cuda_on_cpu::caller()) {
    const int start = cuda_on_cpu::lane() & ~(width - 1);
    return cuda_on_cpu::shuffle(place.of("__shfl_sync"), mask, value, start + (source & (width - 1)));
}
template <class T>
static inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32,
                               cuda_on_cpu::Place place = cuda_on_cpu::caller()) {
    const int lane = cuda_on_cpu::lane(), within = lane & (width - 1);
    return cuda_on_cpu::shuffle(place.of("__shfl_up_sync"), mask, value, within < int(by) ? lane : lane - int(by));
}
template <class T>
static inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32,
                                 cuda_on_cpu::Place place = cuda_on_cpu::caller()) {
    const int lane = cuda_on_cpu::lane(), within = lane & (width - 1);
    const int source = within + int(by) >= width ? lane : lane + int(by);
    return cuda_on_cpu::shuffle(place.of("__shfl_down_sync"), mask, value, source);
}
template <class T>
static inline T __shfl_xor_sync(unsigned mask, T value, int with, int width = 32,
                                cuda_on_cpu::Place place = cuda_on_cpu::caller()) {
    const int lane = cuda_on_cpu::lane(), end = (lane & ~(width - 1)) + width;
    const int source = (lane ^ with) < end ? lane ^ with : lane;
    return cuda_on_cpu::shuffle(place.of("__shfl_xor_sync"), mask, value, source);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate,
                                     cuda_on_cpu::Place place = cuda_on_cpu::caller()) {
    return cuda_on_cpu::ballot(place.of("__ballot_sync"), mask, predicate);
}
static inline int __any_sync(unsigned mask, int predicate, cuda_on_cpu::Place place = cuda_on_cpu::caller()) {
    return cuda_on_cpu::ballot(place.of("__any_sync"), mask, predicate) != 0;
}
static inline int __all_sync(unsigned mask, int predicate, cuda_on_cpu::Place place = cuda_on_cpu::caller()) {
    return cuda_on_cpu::ballot(place.of("__all_sync"), mask, !predicate) == 0;
}

// ----------------------------------------------------------------------------------------------------- 7 intrinsics

/// The value rounded to TensorFloat-32's 10 bits of fraction, halves away from zero, as cvt.rna.tf32.f32 does.
static inline unsigned float_to_tf32(float x) {
    unsigned bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
    return (finite ? bits + 0x1000u : bits) & ~0x1fffu;
}

namespace cuda_on_cpu {

struct Fragments { unsigned a[4], b[2]; };

/// d += a b, a (16, 8), b (8, 8), d (16, 8) spread over a warp as the PTX manual draws it for mma.m16n8k8 and .tf32:
/// with g = lane / 4 and q = lane % 4, a lane has of a the rows g and g + 8 in columns q and q + 4, of b the rows q and
/// q + 4 in column g, and of d the rows g and g + 8 in columns 2q and 2q + 1. Bits beyond TF32's are not looked at.
QUIET static void multiply_fragments(Place place, float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    tell_lanes(Fragments{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}});
    meet_lanes(place, ALL_LANES);
    const int g = lane() / 4, q = lane() % 4;
    auto value = [](unsigned bits) {
        float x;
        bits &= ~0x1fffu;
        __builtin_memcpy(&x, &bits, sizeof x);
        return x;
    };
    float row[2][8], column[2][8];  // rows g and g + 8 of a, columns 2q and 2q + 1 of b
    for (int k = 0; k < 4; k++) {
        const Fragments of_row = heard_from<Fragments>(4 * g + k, ALL_LANES);
        for (int half = 0; half < 2; half++) {
            row[half][k] = value(of_row.a[half]);
            row[half][k + 4] = value(of_row.a[half + 2]);
            const Fragments of_column = heard_from<Fragments>(4 * (2 * q + half) + k, ALL_LANES);
            column[half][k] = value(of_column.b[0]);
            column[half][k + 4] = value(of_column.b[1]);
        }
    }
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 8; k++) d[i] += row[i / 2][k] * column[i % 2][k];
}

// Asynchronous copies happen when they are waited for, the latest moment that CUDA allows; or, eager, at once, the
// earliest. Results must not depend on it.
struct Copy {
    char* to;
    const char* from;  // null: zeros
    int bytes;
    int group;
};

struct Copies {  // of one thread, in order
    Copy* items;
    int count, capacity, groups;  // groups: how many are closed
};

static Copies copies[MOST_THREADS];
static bool copies_used, copies_eager;

/// Seen by sanitizers, unlike its callers: this is the kernel's access.
static void perform(const Copy& copy) {
    for (int at = 0; at < copy.bytes; at += 4) {
        unsigned word = 0;
        if (copy.from) __builtin_memcpy(&word, copy.from + at, 4);
        __builtin_memcpy(copy.to + at, &word, 4);
    }
}

QUIET static void forget_copies() {
    if (copies_used)
        for (Copies& mine : copies) mine.count = mine.groups = 0;
    copies_used = false;
}

QUIET static void start_copy(Place place, void* shared, const void* global, bool valid, int bytes) {
    if ((reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(valid ? global : nullptr)) & (bytes - 1))
        fail_at(place, "an address is not a multiple of the bytes copied");
    if (!in_shared(shared, bytes)) fail_at(place, "the destination is not in shared memory");
    const Copy copy{static_cast<char*>(shared), valid ? static_cast<const char*>(global) : nullptr, bytes,
                    copies[current].groups};
    if (copies_eager) return perform(copy);
    copies_used = true;
    Copies& mine = copies[current];
    if (mine.count == mine.capacity) {
        mine.capacity = mine.capacity ? 2 * mine.capacity : 16;
        mine.items = static_cast<Copy*>(realloc(mine.items, mine.capacity * sizeof(Copy)));
    }
    mine.items[mine.count++] = copy;
}

QUIET static void close_group() {
    copies_used = true;
    copies[current].groups++;
}

/// Perform the copies of all closed groups but the last `pending`.
QUIET static void finish_copies(int pending) {
    Copies& mine = copies[current];
    int done = 0;
    while (done < mine.count && mine.items[done].group < mine.groups - pending) perform(mine.items[done++]);
    for (int k = done; k < mine.count; k++) mine.items[k - done] = mine.items[k];
    mine.count -= done;
}

}  // namespace cuda_on_cpu

static inline void mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                                    cuda_on_cpu::Place place = cuda_on_cpu::caller()) {
    cuda_on_cpu::multiply_fragments(place.of("mma_m16n8k8_tf32"), d, a, b);
}
template <int bytes>
static inline void copy_async(void* shared, const void* global, bool valid,
                              cuda_on_cpu::Place place = cuda_on_cpu::caller()) {
    static_assert(bytes == 4 || bytes == 8 || bytes == 16, "cp.async copies 4, 8 or 16 bytes");
    cuda_on_cpu::start_copy(place.of("copy_async"), shared, global, valid, bytes);
}
static inline void copy_async_commit() { cuda_on_cpu::close_group(); }
template <int N>
static inline void copy_async_wait() {
    cuda_on_cpu::finish_copies(N);
}

// ----------------------------------------------------------------------------------------------------- 8 arithmetic

namespace cuda_on_cpu {

template <class T>
struct Same { using type = T; };  // an argument whose type the others decide

template <class T, class... Choices>
constexpr bool one_of = (std::is_same_v<T, Choices> || ...);

/// One operating-system thread runs all CUDA threads, so reading and writing is atomic; ThreadSanitizer is told.
template <class T, class Change>
static inline T change(T* address, Change to) {
#if defined(__SANITIZE_THREAD__)
    T old;
    __atomic_load(address, &old, __ATOMIC_RELAXED);
    T now = to(old);
    __atomic_store(address, &now, __ATOMIC_RELAXED);
#else
    const T old = *address;
    *address = to(old);
#endif
    return old;
}

template <class To, class From>
static inline To same_bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    __builtin_memcpy(&to, &from, sizeof to);
    return to;
}

static inline float reciprocal_root(float x) { return 1.0f / sqrtf(x); }
static inline double reciprocal_root(double x) { return 1.0 / sqrt(x); }

}  // namespace cuda_on_cpu

// The types that CUDA has each for: what does not compile there does not here.
template <class T>
static inline T atomicAdd(T* address, typename cuda_on_cpu::Same<T>::type value) {
    static_assert(cuda_on_cpu::one_of<T, int, unsigned, unsigned long long, float, double>);
    return cuda_on_cpu::change(address, [=](T old) { return T(old + value); });
}
template <class T>
static inline T atomicMax(T* address, typename cuda_on_cpu::Same<T>::type value) {
    static_assert(cuda_on_cpu::one_of<T, int, unsigned, long long, unsigned long long>);
    return cuda_on_cpu::change(address, [=](T old) { return old > value ? old : value; });
}
template <class T>
static inline T atomicMin(T* address, typename cuda_on_cpu::Same<T>::type value) {
    static_assert(cuda_on_cpu::one_of<T, int, unsigned, long long, unsigned long long>);
    return cuda_on_cpu::change(address, [=](T old) { return old < value ? old : value; });
}
template <class T>
static inline T atomicExch(T* address, typename cuda_on_cpu::Same<T>::type value) {
    static_assert(cuda_on_cpu::one_of<T, int, unsigned, unsigned long long, float>);
    return cuda_on_cpu::change(address, [=](T) { return value; });
}
template <class T>
static inline T atomicCAS(T* address, typename cuda_on_cpu::Same<T>::type expected,
                          typename cuda_on_cpu::Same<T>::type value) {
    static_assert(cuda_on_cpu::one_of<T, int, unsigned, unsigned short, unsigned long long>);
    return cuda_on_cpu::change(address, [=](T old) { return old == expected ? value : old; });
}

template <class T>
static inline T __ldg(const T* address) { return *address; }

// min and max of floats give the other number where one is NaN.
template <class T, class U>
static inline std::common_type_t<T, U> min(T a, U b) {
    using Common = std::common_type_t<T, U>;
    if constexpr (std::is_same_v<Common, float>) return fminf(a, b);
    else if constexpr (std::is_same_v<Common, double>) return fmin(a, b);
    else return Common(b) < Common(a) ? Common(b) : Common(a);
}
template <class T, class U>
static inline std::common_type_t<T, U> max(T a, U b) {
    using Common = std::common_type_t<T, U>;
    if constexpr (std::is_same_v<Common, float>) return fmaxf(a, b);
    else if constexpr (std::is_same_v<Common, double>) return fmax(a, b);
    else return Common(a) < Common(b) ? Common(b) : Common(a);
}

static inline int __float_as_int(float x) { return cuda_on_cpu::same_bits<int>(x); }
static inline unsigned __float_as_uint(float x) { return cuda_on_cpu::same_bits<unsigned>(x); }
static inline float __int_as_float(int x) { return cuda_on_cpu::same_bits<float>(x); }
static inline float __uint_as_float(unsigned x) { return cuda_on_cpu::same_bits<float>(x); }
static inline long long __double_as_longlong(double x) { return cuda_on_cpu::same_bits<long long>(x); }
static inline double __longlong_as_double(long long x) { return cuda_on_cpu::same_bits<double>(x); }

static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned long long)a * b >> 32; }
static inline int __mulhi(int a, int b) { return (long long)a * b >> 32; }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned __int128)a * b >> 64;
}
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }

// Macros, as C libraries have, or will have, functions of these names.
#define rsqrtf(x) ::cuda_on_cpu::reciprocal_root(float(x))
#define rsqrt(x) ::cuda_on_cpu::reciprocal_root(x)
#define __expf(x) expf(x)
#define __logf(x) logf(x)
#define __powf(x, y) powf(x, y)
static inline float __fdividef(float x, float y) { return x / y; }
static inline float __saturatef(float x) { return fminf(fmaxf(x, 0.0f), 1.0f); }
static inline float __fadd_rn(float x, float y) { return x + y; }
static inline float __fsub_rn(float x, float y) { return x - y; }
static inline float __fmul_rn(float x, float y) { return x * y; }
static inline float __fdiv_rn(float x, float y) { return x / y; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
static inline double __dadd_rn(double x, double y) { return x + y; }
static inline double __dmul_rn(double x, double y) { return x * y; }
static inline double __fma_rn(double x, double y, double z) { return fma(x, y, z); }
static inline int __float2int_rn(float x) { return int(rintf(x)); }
static inline int __float2int_rd(float x) { return int(floorf(x)); }
static inline int __float2int_ru(float x) { return int(ceilf(x)); }
static inline int __float2int_rz(float x) { return int(x); }
static inline float __int2float_rn(int x) { return float(x); }

// ------------------------------------------------------------------------------------------------------ 9 launching

namespace cuda_on_cpu {

// Launch and Given are compiler.py's _Launch and _Given.
struct Given {         // an argument
    int offset, size;  // of its value among the values, in bytes
    char kind;         // NumPy's letter for what it is, or P: the address of an array,
    char element;      // whose elements are of this kind
    short element_size;
};

struct Launch {
    const char* values;
    const Given* given;
    int count;
    int order;  // 0 forward, 1 reversed, 2 shuffled by the seed
    unsigned seed;
    int eager_copies;
    unsigned grid[3], block[3];
    unsigned long long shared_bytes;
    void** sanitizer_threads;
    unsigned long long fault;  // out: where in this library an address was invalid, 0: nowhere
    int refused;               // out: which argument is wrong, -1: none
    char message[FAILURE];     // out
};

enum Outcome { DONE = 0, REFUSED = 1, FAILED = 2 };

template <class T>
static const char* type_name() {
    static char name[200];
    const char* start = strstr(__PRETTY_FUNCTION__, "T = ") + 4;
    snprintf(name, sizeof name, "%.*s", int(strrchr(start, ']') - start), start);
    return name;
}

/// Whether an array of such elements may be given for a T*. Bytes are memory for anything; structs and vectors stand
/// for any elements.
template <class T>
static bool points_at(char element, int size) {
    const bool whole = element == 'i' || element == 'u' || element == 'b';
    if (whole && size == 1) return true;
    if constexpr (std::is_floating_point_v<T>) return element == 'f' && size == sizeof(T);
    else if constexpr (std::is_integral_v<T> && sizeof(T) > 1) return whole && size == sizeof(T);
    else return true;
}

/// Whether the value given is one that the kernel can take: a GPU would take the bytes as they are.
template <class T>
static bool takes(const Given& given) {
    const bool whole = given.kind == 'i' || given.kind == 'u';
    if constexpr (std::is_pointer_v<T>) {
        using Element = std::remove_cv_t<std::remove_pointer_t<T>>;
        if (given.kind == 'P') return points_at<Element>(given.element, given.element_size);
        return given.kind == 'u' && given.size == sizeof(T);
    }
    if (given.size != sizeof(T)) return false;
    if constexpr (std::is_same_v<T, bool>) return given.kind == 'b';
    else if constexpr (std::is_integral_v<T> || std::is_enum_v<T>) return whole;
    else if constexpr (std::is_floating_point_v<T>) return given.kind == 'f';
    else return given.kind == 'V';
}

template <class... A>
static bool takes_all(Launch& launch) {
    if (launch.count != sizeof...(A)) {
        say("the kernel takes %d arguments and %d were given", int(sizeof...(A)), launch.count);
        return false;
    }
    int k = 0;
    auto check = [&](bool taken, const char* type, int size) {
        if (!taken && launch.refused < 0) {
            launch.refused = k;
            say("the kernel takes %s, %d bytes", type, size);
        }
        k++;
    };
    (check(takes<std::remove_cv_t<A>>(launch.given[k]), type_name<A>(), sizeof(A)), ...);
    return launch.refused < 0;
}

template <class... A>
struct Call {
    void (*kernel)(A...);
    const Launch* launch;
};

template <class... A, size_t... K>
QUIET static void call(const Call<A...>& it, std::index_sequence<K...>) {
    it.kernel(*reinterpret_cast<const std::remove_cv_t<A>*>(it.launch->values + it.launch->given[K].offset)...);
}

template <class... A>
QUIET static void call_kernel(void* it) {
    call(*static_cast<const Call<A...>*>(it), std::index_sequence_for<A...>());
}

/// Sizes that no GPU accepts.
QUIET static bool possible(const Launch& launch, int bound) {
    const unsigned *grid = launch.grid, *block = launch.block;
    const unsigned long long count = (unsigned long long)block[0] * block[1] * block[2];
    if (count < 1 || block[0] > 1024 || block[1] > 1024 || block[2] > 64 || count > MOST_THREADS)
        say("a block of (%u, %u, %u) threads; 1 to 1024 are possible, and 64 in z", block[0], block[1], block[2]);
    else if (bound && count > unsigned(bound))
        say("a block of (%u, %u, %u) threads for a kernel with __launch_bounds__(%d)", block[0], block[1], block[2],
            bound);
    else if (!grid[0] || !grid[1] || !grid[2] || grid[0] > 0x7fffffffu || grid[1] > 65535 || grid[2] > 65535)
        say("a grid of (%u, %u, %u) blocks; 1 to 2147483647, 65535 and 65535 are possible", grid[0], grid[1], grid[2]);
    else if (launch.shared_bytes > MOST_SHARED)
        say("%llu bytes of dynamic shared memory; %zu are possible", launch.shared_bytes, MOST_SHARED);
    return !failure[0];
}

static unsigned random_state;
QUIET static unsigned random_below(unsigned n) {  // Numerical Recipes' "quick and dirty" generator, its upper bits
    random_state = random_state * 1664525u + 1013904223u;
    return (unsigned long long)random_state * n >> 32;
}

QUIET static void put_in_order(const Launch& launch) {
    random_state = launch.seed;
    for (int k = 0; k < thread_count; k++) order[k] = launch.order == 1 ? thread_count - 1 - k : k;
    if (launch.order == 2)
        for (int k = thread_count - 1; k > 0; k--) std::swap(order[k], order[random_below(k + 1)]);
}

QUIET static unsigned long long common_divisor(unsigned long long a, unsigned long long b) {
    return b ? common_divisor(b, a % b) : a;
}

// What the kernel does wrong with memory arrives as a signal, on whose stack this runs, and ends the launch as any other
// failure does. Sanitizers have their own handlers, which say more.
static Launch* launched;
QUIET static void on_signal(int signal, siginfo_t* info, void* state) {
    if (!running) {  // no kernel's: it happens again, and ends the process
        ::signal(signal, SIG_DFL);
        return;
    }
#if defined(__x86_64__)
    launched->fault = static_cast<ucontext_t*>(state)->uc_mcontext.gregs[REG_RIP];
#endif
    say_current();
    if (signal == SIGFPE) say("an integer is divided by zero");
    else say("an invalid or misaligned address, %#llx", (unsigned long long)info->si_addr);
    stop();
}

class Signals {
  public:
    Signals() {
        static char stack[1 << 16];  // of its own, as the thread's may be what overflowed
        const stack_t own{stack, 0, sizeof stack};
        sigaltstack(&own, &stack_before);
        struct sigaction action = {};
        action.sa_sigaction = on_signal;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;  // the handler never returns to unblock it
        for (int k = 0; k < COUNT; k++) sigaction(SIGNALS[k], &action, &before[k]);
    }
    ~Signals() {
        for (int k = 0; k < COUNT; k++) sigaction(SIGNALS[k], &before[k], nullptr);
        if (!(stack_before.ss_flags & SS_ONSTACK)) sigaltstack(&stack_before, nullptr);
    }

  private:
    static constexpr int COUNT = 3, SIGNALS[COUNT] = {SIGSEGV, SIGBUS, SIGFPE};
    struct sigaction before[COUNT];
    stack_t stack_before;
};

QUIET static void run_grid(const Launch& launch) {
    const unsigned* grid = launch.grid;
    const unsigned long long blocks = (unsigned long long)grid[0] * grid[1] * grid[2];
    unsigned long long step = 1;  // shuffled: every step-th block, round and round, which comes to all of them
    if (launch.order == 2) {
        step = blocks / 2 + random_below(unsigned(blocks / 2) + 1) + 1;
        while (common_divisor(step, blocks) != 1) step++;
    }
    for (unsigned long long k = 0; k < blocks && !failed; k++) {
        const unsigned long long block = launch.order == 1 ? blocks - 1 - k : k * step % blocks;
        block_index = {unsigned(block % grid[0]), unsigned(block / grid[0] % grid[1]),
                       unsigned(block / grid[0] / grid[1])};
        block_number++;
        renew_shared(k == 0);
        forget_copies();
        current_set = (current_set + 1) % SETS;
        if (!failed) run_block();
    }
}

template <class... A>
QUIET static int launch(void (*kernel)(A...), int bound, Launch* launch) {
    failure = launch->message;
    failure[0] = 0;
    failed = false;
    launch->fault = 0;
    launch->refused = -1;
    if (!takes_all<A...>(*launch) || !possible(*launch, bound)) return REFUSED;
    Call<A...> it{kernel, launch};
    kernel_body = call_kernel<A...>;
    kernel_arguments = &it;
    launched = launch;
    block_size = dim3(launch->block[0], launch->block[1], launch->block[2]);
    grid_size = dim3(launch->grid[0], launch->grid[1], launch->grid[2]);
    thread_count = block_size.x * block_size.y * block_size.z;
    dynamic_bytes = launch->shared_bytes;
    copies_eager = launch->eager_copies;
    put_in_order(*launch);
    if (!idle_count) renew_fibers();
    make_arena();
    if (OWN_MEMORY)  // now, as ThreadSanitizer takes making memory for writing there
        for (auto& set : fibers)
            for (int thread = 0; thread < thread_count; thread++) give_stack(set[thread]);
    prepare_sanitizer(launch->sanitizer_threads, thread_count);
    publish(meeting_launch);
    {
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        Signals signals;
#endif
        run_grid(*launch);
    }
    learn(meeting_end);
    if (!failed) return DONE;
    renew_fibers();  // some are in the middle of a kernel
    if (launch->fault) {
        Dl_info self;
        dladdr(reinterpret_cast<void*>(&run_threads), &self);
        launch->fault -= reinterpret_cast<uintptr_t>(self.dli_fbase);
    }
    return FAILED;
}

}  // namespace cuda_on_cpu
