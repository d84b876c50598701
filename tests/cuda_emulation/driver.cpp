// The CUDA runtime and driver that CuPy is linked to, played by the processor: memory, copies, streams, events, graphs, kernels.
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <cstring>
#include <dlfcn.h>
#include <map>
#include <mutex>
#include <string>
#include <unistd.h>
#include "tasks.hpp"
#include "threads.hpp"
#define API extern "C" __attribute__((visibility("default")))
#define LOCKED std::lock_guard<std::recursive_mutex> lock(everything)
static std::recursive_mutex everything;

// ---------------------------------------------------------------- memory
struct Memory { size_t bytes; int device; };
static std::map<char*, Memory> on_device;
static std::map<char*, size_t> pinned;
static size_t used = 0;
template <class M> static typename M::iterator holder(M& all, const void* p) {
    auto next = all.upper_bound((char*)p);
    return next == all.begin() ? all.end() : --next;
}
static size_t length(const Memory& m) { return m.bytes; }
static size_t length(size_t n) { return n; }
template <class M> static bool within(M& all, const void* p, size_t n = 1) {
    auto it = holder(all, p);
    return it != all.end() && (char*)p + n <= it->first + (length(it->second) ? length(it->second) : 1);
}
API cudaError_t cudaMalloc(void** p, size_t n) {
    LOCKED;
    if (auto e = forbidden_in_capture()) return e;
    size_t room = (n + 1023) / 512 * 512;
    *p = aligned_alloc(512, room);
    memset(*p, 0xCD, room);  // fresh memory holds anything but zeros
    on_device[(char*)*p] = {n, current_device};
    used += n;
    return cudaSuccess;
}
API cudaError_t cudaFree(void* p) {
    LOCKED;
    if (!p) return cudaSuccess;
    if (auto e = forbidden_in_capture()) return e;
    if (auto e = wait_for_all()) return e;
    auto it = on_device.find((char*)p);
    if (it == on_device.end()) return fail(cudaErrorInvalidValue);
    memset(p, 0xDD, it->second.bytes);  // who reads it later shall notice
    used -= it->second.bytes;
    on_device.erase(it);
    free(p);
    return cudaSuccess;
}
API cudaError_t cudaHostAlloc(void** p, size_t n, unsigned) {
    LOCKED;
    if (auto e = forbidden_in_capture()) return e;
    *p = aligned_alloc(4096, (n + 8191) / 4096 * 4096);
    pinned[(char*)*p] = n;
    return cudaSuccess;
}
API cudaError_t cudaFreeHost(void* p) {
    LOCKED;
    if (auto e = forbidden_in_capture()) return e;
    if (auto e = wait_for_all()) return e;
    pinned.erase((char*)p);
    free(p);
    return cudaSuccess;
}
API cudaError_t cudaHostRegister(void* p, size_t n, unsigned) { LOCKED; pinned[(char*)p] = n; return cudaSuccess; }
API cudaError_t cudaHostUnregister(void* p) { LOCKED; pinned.erase((char*)p); return cudaSuccess; }
API cudaError_t cudaMemGetInfo(size_t* left, size_t* total) { *total = 8ull << 30; *left = *total - used; return cudaSuccess; }
API cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* a, const void* p) {
    LOCKED;
    memset(a, 0, sizeof *a);
    if (within(on_device, p)) { a->type = cudaMemoryTypeDevice; a->device = holder(on_device, p)->second.device; a->devicePointer = (void*)p; }
    else if (within(pinned, p)) { a->type = cudaMemoryTypeHost; a->devicePointer = a->hostPointer = (void*)p; }
    return cudaSuccess;
}

// ---------------------------------------------------------------- copies
static cudaError_t copy(void* to, const void* from, size_t n, cudaMemcpyKind kind, Stream* stream) {
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if ((to_device && !within(on_device, to, n)) || (from_device && !within(on_device, from, n))) return fail(cudaErrorInvalidValue);
    bool host_source = !within(on_device, from), host_target = !within(on_device, to);
    bool pageable = (host_source && !within(pinned, from)) || (host_target && !within(pinned, to));
    if (pageable && stream && stream->capture) { stream->capture = SPOILT; return fail(cudaErrorStreamCaptureUnsupported); }
    if (pageable && host_source && n <= 65536) {  // small pageable sources are read at once, all others later
        auto kept = std::make_shared<std::vector<char>>((const char*)from, (const char*)from + n);
        return add(stream, [=] { memcpy(to, kept->data(), n); });
    }
    auto e = add(stream, [=] { memcpy(to, from, n); });
    if (!e && pageable) finish(stream->tail);
    return e;
}
API cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t n, cudaMemcpyKind kind, cudaStream_t s) { LOCKED; return copy(to, from, n, kind, stream_of(s)); }
API cudaError_t cudaMemcpy(void* to, const void* from, size_t n, cudaMemcpyKind kind) {
    LOCKED;
    if (auto e = forbidden_in_capture()) return e;
    auto e = copy(to, from, n, kind, stream_of(0));
    if (!e) finish(stream_of(0)->tail);
    return e;
}
API cudaError_t cudaMemcpyPeer(void* to, int, const void* from, int, size_t n) { return cudaMemcpy(to, from, n, cudaMemcpyDefault); }
API cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t n, cudaStream_t s) { return cudaMemcpyAsync(to, from, n, cudaMemcpyDefault, s); }
API cudaError_t cudaMemsetAsync(void* p, int value, size_t n, cudaStream_t s) {
    LOCKED;
    return within(on_device, p, n) ? add(stream_of(s), [=] { memset(p, value, n); }) : fail(cudaErrorInvalidValue);
}
API cudaError_t cudaMemset(void* p, int value, size_t n) { return cudaMemsetAsync(p, value, n, 0); }

// ---------------------------------------------------------------- devices
API const char* cudaGetErrorName(cudaError_t e) {
    switch (e) {
        case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
        case cudaErrorInvalidResourceHandle: return "cudaErrorInvalidResourceHandle";
        case cudaErrorStreamCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
        case cudaErrorStreamCaptureInvalidated: return "cudaErrorStreamCaptureInvalidated";
        case cudaErrorStreamCaptureIsolation: return "cudaErrorStreamCaptureIsolation";
        case cudaErrorStreamCaptureImplicit: return "cudaErrorStreamCaptureImplicit";
        default: static thread_local char text[32]; snprintf(text, 32, "cudaError%d", (int)e); return text;
    }
}
API const char* cudaGetErrorString(cudaError_t) { return "said by the emulated device"; }
API cudaError_t cudaGetLastError() { auto e = last_error; last_error = cudaSuccess; return e; }
API cudaError_t cudaDriverGetVersion(int* v) { *v = 12090; return cudaSuccess; }
API cudaError_t cudaRuntimeGetVersion(int* v) { *v = 12090; return cudaSuccess; }
API cudaError_t cudaGetDevice(int* d) { *d = current_device; return cudaSuccess; }
API cudaError_t cudaGetDeviceCount(int* n) { *n = DEVICES; return cudaSuccess; }
API cudaError_t cudaSetDevice(int d) { if (d < 0 || d >= DEVICES) return fail(cudaErrorInvalidDevice); current_device = d; return cudaSuccess; }
API cudaError_t cudaDeviceGetAttribute(int* v, cudaDeviceAttr what, int) {
    switch (what) {
        case cudaDevAttrComputeCapabilityMajor: *v = 9; break;
        case cudaDevAttrMultiProcessorCount: *v = 2; break;
        case cudaDevAttrMaxThreadsPerBlock: *v = 1024; break;
        case cudaDevAttrWarpSize: *v = 32; break;
        case cudaDevAttrMaxSharedMemoryPerBlock: *v = 49152; break;
        default: *v = 0;
    }
    return cudaSuccess;
}
API cudaError_t cudaGetDeviceProperties_v2(cudaDeviceProp* p, int) {
    memset(p, 0, sizeof *p);
    strcpy(p->name, "emulated device");
    p->major = 9; p->multiProcessorCount = 2; p->warpSize = 32; p->maxThreadsPerBlock = 1024; p->sharedMemPerBlock = 49152; p->totalGlobalMem = 8ull << 30;
    return cudaSuccess;
}
API cudaError_t cudaDeviceGetByPCIBusId(int* d, const char*) { *d = 0; return cudaSuccess; }
API cudaError_t cudaDeviceGetPCIBusId(char* text, int n, int) { snprintf(text, n, "0000:00:00.0"); return cudaSuccess; }
API cudaError_t cudaDeviceSynchronize() { LOCKED; return wait_for_all(); }
API cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) { *can = 1; return cudaSuccess; }
API cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) { return cudaSuccess; }
API cudaError_t cudaDeviceDisablePeerAccess(int) { return cudaSuccess; }
API cudaError_t cudaDeviceGetLimit(size_t* v, cudaLimit) { *v = 0; return cudaSuccess; }
API cudaError_t cudaDeviceSetLimit(cudaLimit, size_t) { return cudaSuccess; }
API cudaError_t cudaProfilerStart() { return cudaSuccess; }
API cudaError_t cudaProfilerStop() { return cudaSuccess; }

// ---------------------------------------------------------------- streams, events, graphs
API cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned flags) {
    LOCKED;
    auto made = new Stream;
    made->device = current_device;
    made->independent = flags & cudaStreamNonBlocking;
    streams.insert(made);
    *s = (cudaStream_t)made;
    return cudaSuccess;
}
API cudaError_t cudaStreamCreateWithPriority(cudaStream_t* s, unsigned flags, int) { return cudaStreamCreateWithFlags(s, flags); }
API cudaError_t cudaStreamCreate(cudaStream_t* s) { return cudaStreamCreateWithFlags(s, 0); }
API cudaError_t cudaStreamDestroy(cudaStream_t s) {
    LOCKED;
    auto stream = stream_of(s);
    if (!stream || stream->null) return fail(cudaErrorInvalidResourceHandle);
    finish(stream->tail);
    streams.erase(stream);
    delete stream;
    return cudaSuccess;
}
API cudaError_t cudaStreamGetFlags(cudaStream_t s, unsigned* f) { LOCKED; auto t = stream_of(s); if (!t) return fail(cudaErrorInvalidResourceHandle); *f = t->independent; return cudaSuccess; }
API cudaError_t cudaStreamGetPriority(cudaStream_t, int* p) { *p = 0; return cudaSuccess; }
API cudaError_t cudaStreamSynchronize(cudaStream_t s) { LOCKED; return wait_for(stream_of(s)); }
API cudaError_t cudaStreamQuery(cudaStream_t s) { return cudaStreamSynchronize(s); }
API cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t f, void* data) { LOCKED; return add(stream_of(s), [=] { f(data); }); }
API cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode mode) {
    LOCKED;
    auto stream = stream_of(s);
    if (!stream || stream->null) return fail(cudaErrorStreamCaptureUnsupported);
    if (stream->capture) return fail(cudaErrorIllegalState);
    stream->capture = ACTIVE;
    stream->mode = mode;
    stream->graph = new Graph;
    return cudaSuccess;
}
API cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t* graph) {
    LOCKED;
    auto stream = stream_of(s);
    if (!stream || !stream->capture) return fail(cudaErrorIllegalState);
    bool spoilt = stream->capture == SPOILT;
    stream->capture = NOT;
    *graph = spoilt ? nullptr : (cudaGraph_t)stream->graph;
    return spoilt ? fail(cudaErrorStreamCaptureInvalidated) : cudaSuccess;
}
API cudaError_t cudaStreamIsCapturing(cudaStream_t s, cudaStreamCaptureStatus* status) {
    LOCKED;
    auto stream = stream_of(s);
    if (!stream) return fail(cudaErrorInvalidResourceHandle);
    if (stream->null && captures(true)) return fail(cudaErrorStreamCaptureImplicit);
    *status = (cudaStreamCaptureStatus)stream->capture;
    return cudaSuccess;
}
API cudaError_t cudaGraphInstantiate(cudaGraphExec_t* e, cudaGraph_t g, unsigned long long) { *e = (cudaGraphExec_t) new Graph(*(Graph*)g); return cudaSuccess; }
API cudaError_t cudaGraphLaunch(cudaGraphExec_t e, cudaStream_t s) { LOCKED; auto graph = (Graph*)e; return add(stream_of(s), [=] { for (auto& work : graph->works) work(); }); }
API cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }
API cudaError_t cudaGraphDestroy(cudaGraph_t) { return cudaSuccess; }
API cudaError_t cudaGraphExecDestroy(cudaGraphExec_t) { return cudaSuccess; }
API cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) { *e = (cudaEvent_t) new Event; return cudaSuccess; }
API cudaError_t cudaEventCreate(cudaEvent_t* e) { return cudaEventCreateWithFlags(e, 0); }
API cudaError_t cudaEventDestroy(cudaEvent_t e) { delete (Event*)e; return cudaSuccess; }
API cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t, cudaEvent_t) { *ms = 1; return cudaSuccess; }
API cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
    LOCKED;
    auto event = (Event*)e;
    auto stream = stream_of(s);
    if (stream && stream->capture) { event->captured_in = stream; return cudaSuccess; }
    if (auto error = add(stream, [] {})) return error;
    event->task = stream->tail;
    event->captured_in = nullptr;
    return cudaSuccess;
}
API cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
    LOCKED;
    auto event = (Event*)e;
    auto stream = stream_of(s);
    if (event->captured_in) {
        if (stream == event->captured_in) return cudaSuccess;
        spoil_captures();  // what torch does with the null stream when DLPack orders two streams; forks are not played
        return fail(stream && stream->null ? cudaErrorStreamCaptureImplicit : cudaErrorStreamCaptureIsolation);
    }
    auto earlier_task = event->task;
    if (auto error = add(stream, [] {})) return error;
    if (!stream->capture && !stream->tail->done && earlier_task) stream->tail->before.push_back(earlier_task);
    return cudaSuccess;
}
API cudaError_t cudaEventSynchronize(cudaEvent_t e) {
    LOCKED;
    auto event = (Event*)e;
    if (event->captured_in) { spoil_captures(); return fail(cudaErrorCapturedEvent); }
    if (auto error = forbidden_in_capture()) return error;
    if (event->task) finish(event->task);
    return cudaSuccess;
}
API cudaError_t cudaEventQuery(cudaEvent_t e) { return cudaEventSynchronize(e); }

// ---------------------------------------------------------------- kernels: a module is a shared library by compiler.cpp
struct Module { void* library; int device; EmuPlace* place; bool flush; };
struct Function { Module* module; void (*body)(void**); int (*sizes)(size_t*); bool barriers; };
API CUresult cuModuleLoadData(CUmodule* m, const void* image) {
    LOCKED;
    if (memcmp(image, "EMU1", 4)) return CUDA_ERROR_INVALID_IMAGE;
    if (auto e = forbidden_in_capture()) return (CUresult)e;
    size_t n;
    memcpy(&n, (char*)image + 8, 8);
    char path[] = "/tmp/emulated-module-XXXXXX";
    int file = mkstemp(path);
    bool written = write(file, (char*)image + 16, n) == (ssize_t)n;
    close(file);
    void* library = written ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
    unlink(path);
    if (!library) return CUDA_ERROR_INVALID_IMAGE;
    auto place = (EmuPlace*)dlsym(library, "emu_place");
    place->meet = meet;
    *m = (CUmodule) new Module{library, current_device, place, ((char*)image)[4] == 'f'};
    return CUDA_SUCCESS;
}
API CUresult cuModuleLoad(CUmodule* m, const char* path) {
    FILE* file = fopen(path, "rb");
    if (!file) return CUDA_ERROR_FILE_NOT_FOUND;
    fseek(file, 0, SEEK_END);
    std::vector<char> bytes(ftell(file));
    rewind(file);
    bool whole = fread(bytes.data(), 1, bytes.size(), file) == bytes.size();
    fclose(file);
    return whole ? cuModuleLoadData(m, bytes.data()) : CUDA_ERROR_INVALID_IMAGE;
}
API CUresult cuModuleUnload(CUmodule) { return CUDA_SUCCESS; }
API CUresult cuModuleGetFunction(CUfunction* f, CUmodule m, const char* name) {
    LOCKED;
    auto module = (Module*)m;
    auto find = [&](const char* what) { return dlsym(module->library, (what + std::string(name)).c_str()); };
    if (!find("emu_body_")) return CUDA_ERROR_NOT_FOUND;
    bool barriers = dlsym(module->library, "emu_has_barriers");
    *f = (CUfunction) new Function{module, (void (*)(void**))find("emu_body_"), (int (*)(size_t*))find("emu_sizes_"), barriers};
    return CUDA_SUCCESS;
}
API CUresult cuModuleGetGlobal_v2(CUdeviceptr* p, size_t* n, CUmodule m, const char* name) {
    void* found = dlsym(((Module*)m)->library, name);
    *p = (CUdeviceptr)found;
    *n = 0;
    return found ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
static void play(Function* f, EmuIndex grid, EmuIndex block, void** args) {
    EmuPlace* place = f->module->place;
    place->grid_dim = grid;
    place->block_dim = block;
    unsigned mode = __builtin_ia32_stmxcsr();
    if (f->module->flush) __builtin_ia32_ldmxcsr(mode | 0x8040);  // results and operands that are subnormal become zeros
    size_t count = (size_t)grid.x * grid.y * grid.z;
    for (size_t k = 0; k < count; k++) {
        size_t at = LAZY ? count - 1 - k : k;  // no order of blocks is promised
        place->block = {unsigned(at % grid.x), unsigned(at / grid.x % grid.y), unsigned(at / grid.x / grid.y)};
        play_block(f->body, args, place, f->barriers);
    }
    __builtin_ia32_ldmxcsr(mode);
}
API CUresult cuLaunchKernel(CUfunction fn, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned, CUstream s, void** params, void**) {
    LOCKED;
    auto f = (Function*)fn;
    auto stream = stream_of(s);
    size_t sizes[256], total = 0;
    int n = f->sizes(sizes);
    auto kept = std::make_shared<std::vector<std::vector<char>>>();
    for (int i = 0; i < n; i++) {
        kept->emplace_back((char*)params[i], (char*)params[i] + sizes[i]);
        total += sizes[i];
    }
    if (!gx || !gy || !gz || gx > 2147483647u || gy > 65535 || gz > 65535 || !bx || !by || !bz || bx * by * bz > 1024 || total > 32764) return CUDA_ERROR_INVALID_VALUE;
    if (!stream || stream->device != current_device || f->module->device != current_device) return CUDA_ERROR_INVALID_HANDLE;
    return (CUresult)add(stream, [=] {
        std::vector<void*> args;
        std::vector<std::vector<char>> values = *kept;  // a graph may be replayed, and a kernel may write into its arguments
        for (auto& value : values) args.push_back(value.data());
        play(f, {gx, gy, gz}, {bx, by, bz}, args.data());
    });
}
API CUresult cuLaunchCooperativeKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, CUstream s, void** p) {
    return cuLaunchKernel(f, gx, gy, gz, bx, by, bz, shared, s, p, nullptr);
}
API CUresult cuGetErrorName(CUresult e, const char** s) { static thread_local char text[32]; snprintf(text, 32, "CUDA_ERROR_%d", (int)e); *s = text; return CUDA_SUCCESS; }
API CUresult cuGetErrorString(CUresult e, const char** s) { *s = cudaGetErrorName((cudaError_t)e); return CUDA_SUCCESS; }
API CUresult cuCtxGetCurrent(CUcontext* c) { *c = (CUcontext)(size_t)(current_device + 1); return CUDA_SUCCESS; }
API CUresult cuCtxSetCurrent(CUcontext) { return CUDA_SUCCESS; }
API CUresult cuCtxGetDevice(CUdevice* d) { *d = current_device; return CUDA_SUCCESS; }
API CUresult cuStreamGetCtx(CUstream, CUcontext* c) { return cuCtxGetCurrent(c); }
API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice) { return CUDA_SUCCESS; }
API CUresult cuFuncGetAttribute(int* v, CUfunction_attribute a, CUfunction) { *v = a == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024 : a == CU_FUNC_ATTRIBUTE_NUM_REGS ? 32 : 0; return CUDA_SUCCESS; }
API CUresult cuFuncSetAttribute(CUfunction, CUfunction_attribute, int) { return CUDA_SUCCESS; }
API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* n, CUfunction, int, size_t) { *n = 2; return CUDA_SUCCESS; }
API CUresult cuOccupancyMaxPotentialBlockSize(int* grid, int* block, CUfunction, CUoccupancyB2DSize, size_t, int) { *grid = 4; *block = 256; return CUDA_SUCCESS; }

// for disguise.py: memory of another library that shall pass for memory of a device
API void emu_adopt(void* p, size_t n, int device) { LOCKED; on_device[(char*)p] = {n, device}; }
API void emu_disown(void* p) { LOCKED; on_device.erase((char*)p); }
