// What CuPy's runtime module is linked to and these tests never use: it says cudaErrorNotSupported.
#define REFUSE(name) extern "C" __attribute__((visibility("default"))) int name() { return 801; }
REFUSE(cudaIpcCloseMemHandle) REFUSE(cudaIpcGetEventHandle) REFUSE(cudaIpcGetMemHandle) REFUSE(cudaIpcOpenEventHandle) REFUSE(cudaIpcOpenMemHandle)
REFUSE(cudaMallocManaged) REFUSE(cudaMalloc3DArray) REFUSE(cudaMallocArray) REFUSE(cudaMallocAsync) REFUSE(cudaMallocFromPoolAsync)
REFUSE(cudaFreeArray) REFUSE(cudaFreeAsync) REFUSE(cudaMemPrefetchAsync) REFUSE(cudaMemAdvise) REFUSE(cudaStreamAddCallback) REFUSE(cudaGraphDebugDotPrint)
REFUSE(cudaMemcpy2D) REFUSE(cudaMemcpy2DAsync) REFUSE(cudaMemcpy2DFromArray) REFUSE(cudaMemcpy2DFromArrayAsync) REFUSE(cudaMemcpy2DToArray)
REFUSE(cudaMemcpy2DToArrayAsync) REFUSE(cudaMemcpy3D) REFUSE(cudaMemcpy3DAsync)
REFUSE(cudaDeviceGetDefaultMemPool) REFUSE(cudaDeviceGetMemPool) REFUSE(cudaDeviceSetMemPool) REFUSE(cudaMemPoolCreate) REFUSE(cudaMemPoolDestroy)
REFUSE(cudaMemPoolTrimTo) REFUSE(cudaMemPoolGetAttribute) REFUSE(cudaMemPoolSetAttribute)
REFUSE(cudaCreateTextureObject) REFUSE(cudaDestroyTextureObject) REFUSE(cudaGetChannelDesc) REFUSE(cudaGetTextureObjectResourceDesc)
REFUSE(cudaGetTextureObjectTextureDesc) REFUSE(cudaCreateSurfaceObject) REFUSE(cudaDestroySurfaceObject)
