// The threads of a block, played in turn by one processor.
//
// Each thread has a stack of its own and runs until it meets a barrier. A barrier opens when all living threads of the
// block (or of the warp) stand before it; a kernel whose threads can never meet ends the program with a message.
#pragma once
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <ucontext.h>
#include <vector>
#include "device/place.h"

enum Waits { READY, FOR_WARP, FOR_BLOCK, GONE };
struct Thread {
    std::vector<char> stack = std::vector<char>(1 << 18);
    ucontext_t start;
    jmp_buf at;
    bool begun = false;
    Waits waits = GONE;
    EmuIndex index;
};
static std::vector<Thread*> crew;
static Thread* now;
static jmp_buf director;
static EmuPlace* place;
static void (*thread_body)(void**);
static void** thread_args;

static void pause(Waits reason) {  // _setjmp and _longjmp need no call of the kernel, which swapcontext does
    now->waits = reason;
    if (!_setjmp(now->at)) _longjmp(director, 1);
    place->thread = now->index;
}
static void meet(int whole_block) { pause(whole_block ? FOR_BLOCK : FOR_WARP); }
static void live() {
    for (;;) {
        place->thread = now->index;
        thread_body(thread_args);
        pause(GONE);
    }
}
static void resume(Thread* thread) {
    now = thread;
    now->waits = READY;
    if (_setjmp(director)) return;
    if (now->begun) _longjmp(now->at, 1);
    now->begun = true;
    getcontext(&now->start);
    now->start.uc_stack.ss_sp = now->stack.data();
    now->start.uc_stack.ss_size = now->stack.size();
    makecontext(&now->start, live, 0);
    setcontext(&now->start);
}
static bool all_wait(unsigned from, unsigned to, Waits reason) {
    for (unsigned i = from; i < to; i++) if (crew[i]->waits != reason && crew[i]->waits != GONE) return false;
    return true;
}
static void play_with_barriers(unsigned count) {
    bool some_left = true;
    while (some_left) {
        bool block_opens = all_wait(0, count, FOR_BLOCK), moved = false;
        std::vector<Thread*> runs;
        for (unsigned i = 0; i < count; i++) {
            unsigned warp = i / 32 * 32, end = warp + 32 < count ? warp + 32 : count;
            Waits w = crew[i]->waits;
            if (w == READY || (w == FOR_BLOCK && block_opens) || (w == FOR_WARP && all_wait(warp, end, FOR_WARP))) runs.push_back(crew[i]);
        }
        for (auto thread : runs) { resume(thread); moved = true; }
        some_left = !all_wait(0, count, GONE);
        if (some_left && !moved) { fprintf(stderr, "emulated device: threads of a block wait for each other for ever\n"); abort(); }
    }
}
static void play_block(void (*body)(void**), void** args, EmuPlace* where, bool barriers) {
    place = where; thread_body = body; thread_args = args;
    unsigned count = 0;
    EmuIndex i;
    for (i.z = 0; i.z < where->block_dim.z; i.z++) for (i.y = 0; i.y < where->block_dim.y; i.y++) for (i.x = 0; i.x < where->block_dim.x; i.x++) {
        if (!barriers) { where->thread = i; body(args); continue; }
        if (crew.size() <= count) crew.push_back(new Thread);
        crew[count]->index = i;
        crew[count++]->waits = READY;
    }
    if (barriers) play_with_barriers(count);
}
