// NVRTC, played by g++: the "machine code" of a kernel is a shared library with an entry for each kernel in the text.
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <string>
#include <unistd.h>
#define API extern "C" __attribute__((visibility("default")))
struct Program { std::string text, log, image; };

static std::string quoted(const std::string& s) { return " '" + s + "'"; }
static std::string read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}
static std::string headers() {  // they lie beside this library
    Dl_info info;
    dladdr((void*)&headers, &info);
    std::string path = info.dli_fname;
    return path.substr(0, path.rfind('/')) + "/device";
}
static bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }
static std::string entries(const std::string& text) {
    static const std::regex kernel("__global__\\s+void\\s+(?:__launch_bounds__\\s*\\([^)]*\\)\\s*)?(\\w+)\\s*\\(");
    std::set<std::string> names;
    for (std::sregex_iterator it(text.begin(), text.end(), kernel), end; it != end; ++it) names.insert((*it)[1]);
    std::string made;
    for (auto& name : names)
        made += "EMU_API void emu_body_" + name + "(void** args) { emu::call(&" + name + ", args); }\n"
                "EMU_API int emu_sizes_" + name + "(size_t* sizes) { return emu::sizes(&" + name + ", sizes); }\n";
    if (has(text, "__sync") || has(text, "__shfl")) made += "EMU_API int emu_has_barriers = 1;\n";
    return made;
}
API const char* nvrtcGetErrorString(int e) { return e == 6 ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR"; }
API int nvrtcVersion(int* major, int* minor) { *major = 12; *minor = 9; return 0; }
API int nvrtcCreateProgram(Program** p, const char* text, const char*, int, const char**, const char**) { *p = new Program{text}; return 0; }
API int nvrtcDestroyProgram(Program** p) { delete *p; *p = nullptr; return 0; }
API int nvrtcCompileProgram(Program* p, int count, const char** options) {
    bool flush = false, fused = true;  // as NVRTC does, of two options that contradict each other the last is taken
    std::string passed;
    for (int i = 0; i < count; i++) {
        std::string o = options[i];
        if (has(o, "ftz=")) flush = has(o, "ftz=true");
        if (has(o, "fmad=")) fused = has(o, "fmad=true");
        bool nvidias = has(o, "_cccl") || has(o, "nvidia/") || has(o, "/usr/local/cuda");  // g++ cannot read those headers
        if ((o.rfind("-I", 0) == 0 && !nvidias) || o.rfind("-D", 0) == 0) passed += quoted(o);
    }
    if (p->text.empty()) { p->image = "// nothing\n"; return 0; }
    char folder[] = "/tmp/emulated-nvrtc-XXXXXX";
    if (!mkdtemp(folder)) return 1;
    std::string at = folder;
    std::ofstream(at + "/kernel.cpp") << "#include \"kernel.h\"\n#line 1 \"kernel.cu\"\n" << p->text << "\n" << entries(p->text);
    std::string command = "g++ -std=c++17 -O1 -w -fpermissive -shared -fPIC -fvisibility=hidden -I" + quoted(headers()) + passed +
        (fused ? " -mfma -ffp-contract=fast" : " -ffp-contract=off") + " -o" + quoted(at + "/kernel.so") + quoted(at + "/kernel.cpp") + " >" + quoted(at + "/log") + " 2>&1";
    int failed = system(command.c_str());
    p->log = read(at + "/log");
    std::string library = read(at + "/kernel.so");
    if (system(("rm -r" + quoted(at)).c_str())) return 1;
    if (failed) return 6;
    size_t n = library.size();
    p->image = flush ? "EMU1f..." : "EMU1-...";
    p->image.append((char*)&n, 8);
    p->image += library + '\0';  // CuPy drops the last byte of an image
    return 0;
}
API int nvrtcGetCUBINSize(Program* p, size_t* n) { *n = p->image.size(); return 0; }
API int nvrtcGetCUBIN(Program* p, char* to) { memcpy(to, p->image.data(), p->image.size()); return 0; }
API int nvrtcGetPTXSize(Program* p, size_t* n) { *n = p->image.size(); return 0; }
API int nvrtcGetPTX(Program* p, char* to) { return nvrtcGetCUBIN(p, to); }
API int nvrtcGetProgramLogSize(Program* p, size_t* n) { *n = p->log.size() + 1; return 0; }
API int nvrtcGetProgramLog(Program* p, char* to) { memcpy(to, p->log.c_str(), p->log.size() + 1); return 0; }
API int nvrtcAddNameExpression(Program*, const char*) { return 0; }
API int nvrtcGetLoweredName(Program*, const char* name, const char** to) { *to = name; return 0; }
API int nvrtcGetNumSupportedArchs(int* n) { *n = 1; return 0; }
API int nvrtcGetSupportedArchs(int* archs) { archs[0] = 90; return 0; }
API int nvrtcGetLTOIRSize(Program*, size_t*) { return 1; }
API int nvrtcGetLTOIR(Program*, char*) { return 1; }
