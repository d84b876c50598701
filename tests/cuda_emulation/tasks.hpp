// What a stream is: a chain of tasks, each of which knows what must be done before it.
//
// Work that CUDA may delay is delayed here as long as CUDA permits (EMU_LAZY=1): a task runs when somebody has to
// wait for it, and not earlier. A program that forgets to order two streams, or that frees memory too early, then
// reads poison instead of being lucky.
#pragma once
#include <functional>
#include <memory>
#include <set>
#include <vector>
#include <cstdlib>
#include <cuda_runtime_api.h>

inline int setting(const char* name, int usual) {
    const char* text = getenv(name);
    return text ? atoi(text) : usual;
}
inline const int DEVICES = setting("EMU_DEVICES", 1);
inline const bool LAZY = setting("EMU_LAZY", 0);

struct Task {
    std::function<void()> work;
    std::vector<std::shared_ptr<Task>> before;
    bool done = false;
};
using Tail = std::shared_ptr<Task>;

// Depth first without recursion: a lazy chain may be thousands of tasks long.
inline void finish(Tail wanted) {
    std::vector<Tail> open{wanted};
    while (!open.empty()) {
        Tail task = open.back();
        if (!task || task->done) { open.pop_back(); continue; }
        if (!task->before.empty()) {
            auto earlier = std::move(task->before);
            task->before.clear();
            open.insert(open.end(), earlier.begin(), earlier.end());
            continue;
        }
        task->done = true;
        auto work = std::move(task->work);
        task->work = nullptr;
        work();
        open.pop_back();
    }
}

struct Graph { std::vector<std::function<void()>> works; };
enum Capture { NOT = 0, ACTIVE = 1, SPOILT = 2 };  // the numbers of cudaStreamCaptureStatus

struct Stream {
    int device = 0;
    bool null = false, independent = false;  // independent: made with cudaStreamNonBlocking
    Tail tail;
    Capture capture = NOT;
    cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
    Graph* graph = nullptr;
};
struct Event {
    Tail task;
    Stream* captured_in = nullptr;
};

inline std::vector<Stream> null_streams(64);  // one for each device
inline std::set<Stream*> streams;             // all others
inline thread_local int current_device = 0;
inline thread_local cudaError_t last_error = cudaSuccess;
inline cudaError_t fail(cudaError_t error) { return last_error = error; }

inline Stream* stream_of(void* handle) {  // 1 and 2 are names of the null stream
    Stream* found = (size_t)handle <= 2 ? &null_streams[current_device] : (Stream*)handle;
    if (found == &null_streams[current_device]) { found->device = current_device; found->null = true; }
    return found->null || streams.count(found) ? found : nullptr;
}
inline void spoil_captures() { for (auto s : streams) if (s->capture) s->capture = SPOILT; }
inline bool captures(bool null_would_join) {
    for (auto s : streams) if (s->capture && !(null_would_join && s->independent)) return true;
    return false;
}
// Calls that are forbidden while a graph is captured, unless every capture is relaxed.
inline cudaError_t forbidden_in_capture() {
    for (auto s : streams)
        if (s->capture == ACTIVE && s->mode != cudaStreamCaptureModeRelaxed) {
            spoil_captures();
            return fail(cudaErrorStreamCaptureUnsupported);
        }
    return cudaSuccess;
}
// The null stream waits for all streams of its device, and they for it, unless they are independent.
inline std::vector<Tail> earlier(Stream* stream) {
    std::vector<Tail> found{stream->tail};
    if (stream->null) {
        for (auto s : streams) if (s->device == stream->device && !s->independent) found.push_back(s->tail);
    } else if (!stream->independent) found.push_back(null_streams[stream->device].tail);
    return found;
}
inline cudaError_t add(Stream* stream, std::function<void()> work) {
    if (!stream) return fail(cudaErrorInvalidResourceHandle);
    if (stream->null && captures(true)) { spoil_captures(); return fail(cudaErrorStreamCaptureImplicit); }
    if (stream->capture == SPOILT) return fail(cudaErrorStreamCaptureInvalidated);
    if (stream->capture) { stream->graph->works.push_back(std::move(work)); return cudaSuccess; }
    auto task = std::make_shared<Task>();
    task->work = std::move(work);
    task->before = earlier(stream);
    stream->tail = task;
    if (!LAZY) finish(task);
    return cudaSuccess;
}
inline cudaError_t wait_for(Stream* stream) {
    if (!stream) return fail(cudaErrorInvalidResourceHandle);
    if (stream->capture) { stream->capture = SPOILT; return fail(cudaErrorStreamCaptureUnsupported); }
    if (stream->null && captures(true)) { spoil_captures(); return fail(cudaErrorStreamCaptureImplicit); }
    if (auto error = forbidden_in_capture()) return error;
    for (auto& task : earlier(stream)) finish(task);
    return cudaSuccess;
}
inline cudaError_t wait_for_all() {
    if (captures(false)) { spoil_captures(); return fail(cudaErrorStreamCaptureUnsupported); }
    for (auto s : streams) finish(s->tail);
    for (auto& s : null_streams) finish(s.tail);
    return cudaSuccess;
}
