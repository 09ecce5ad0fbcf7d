//! The functions of CUDA's libraries that Candle, `cudarc` and this crate call, with the numbers of their libraries.
//!
//! `cargo xtask device-bundle` links against empty libraries, so that a function that is missing here fails its link.

/// Defines the function `$symbol`, which jumps to where its slot says: at first to code that hands the library, the name
/// in the library and the slot over.
macro_rules! function {
    ($number:expr, $symbol:expr, $name:expr) => {
        core::arch::global_asm!(
            concat!(".section .data.infomax_cuda.", $symbol, ",\"aw\",@progbits"),
            ".p2align 3",
            concat!("infomax_cuda_slot_", $symbol, ": .quad infomax_cuda_first_", $symbol),
            concat!(".section .rodata.infomax_cuda.", $symbol, ",\"a\",@progbits"),
            concat!("infomax_cuda_name_", $symbol, ": .asciz \"", $name, "\""),
            ".text",
            ".p2align 4",
            concat!(".globl ", $symbol),
            concat!(".hidden ", $symbol),
            concat!(".type ", $symbol, ", @function"),
            concat!($symbol, ":"),
            concat!("jmp qword ptr [rip + infomax_cuda_slot_", $symbol, "]"),
            concat!("infomax_cuda_first_", $symbol, ":"),
            concat!("lea r11, [rip + infomax_cuda_slot_", $symbol, "]"),
            "push r11",
            concat!("lea r11, [rip + infomax_cuda_name_", $symbol, "]"),
            "push r11",
            concat!("push ", $number),
            "jmp infomax_cuda_bind",
            concat!(".size ", $symbol, ", . - ", $symbol),
        );
    };
}

macro_rules! functions {
    ($number:literal, [$($name:ident)*]) => {
        $(function!($number, stringify!($name), stringify!($name));)*
    };
}

// driver
functions!(0, [
    cuCtxCreate_v3 cuCtxCreate_v4 cuCtxDestroy_v2 cuCtxGetCacheConfig cuCtxGetCurrent cuCtxGetLimit
    cuCtxGetStreamPriorityRange cuCtxSetCacheConfig cuCtxSetCurrent cuCtxSetFlags cuCtxSetLimit cuCtxSynchronize
    cuDestroyExternalMemory cuDeviceGet cuDeviceGetAttribute cuDeviceGetCount cuDeviceGetDefaultMemPool
    cuDeviceGetMemPool cuDeviceGetName cuDeviceGetUuid cuDeviceGetUuid_v2 cuDevicePrimaryCtxRelease_v2
    cuDevicePrimaryCtxRetain cuDeviceSetMemPool cuDeviceTotalMem_v2 cuDriverGetVersion cuEventCreate
    cuEventDestroy_v2 cuEventElapsedTime cuEventElapsedTime_v2 cuEventQuery cuEventRecord cuEventSynchronize
    cuExternalMemoryGetMappedBuffer cuFuncGetAttribute cuFuncSetAttribute cuFuncSetCacheConfig cuGetErrorName
    cuGetErrorString cuGraphClone cuGraphDestroy cuGraphExecDestroy cuGraphInstantiateWithFlags cuGraphLaunch
    cuGraphUpload cuImportExternalMemory cuInit cuLaunchCooperativeKernel cuLaunchHostFunc cuLaunchKernel
    cuMemAdvise_v2 cuMemAllocAsync cuMemAllocFromPoolAsync cuMemAllocManaged cuMemAlloc_v2 cuMemFreeAsync
    cuMemFreeHost cuMemFree_v2 cuMemGetInfo_v2 cuMemHostAlloc cuMemPoolCreate cuMemPoolDestroy cuMemPoolGetAttribute
    cuMemPoolSetAttribute cuMemPoolTrimTo cuMemPrefetchAsync_v2 cuMemcpyDtoDAsync_v2 cuMemcpyDtoD_v2
    cuMemcpyDtoHAsync_v2 cuMemcpyDtoH_v2 cuMemcpyHtoDAsync_v2 cuMemcpyHtoD_v2 cuMemcpyPeerAsync cuMemsetD8Async
    cuMemsetD8_v2 cuModuleGetFunction cuModuleGetGlobal_v2 cuModuleLoad cuModuleLoadData cuModuleUnload
    cuOccupancyAvailableDynamicSMemPerBlock cuOccupancyMaxActiveBlocksPerMultiprocessor
    cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags cuOccupancyMaxActiveClusters
    cuOccupancyMaxPotentialBlockSize cuOccupancyMaxPotentialBlockSizeWithFlags cuOccupancyMaxPotentialClusterSize
    cuProfilerStart cuProfilerStop cuStreamAttachMemAsync cuStreamBeginCapture_v2 cuStreamCreate
    cuStreamCreateWithPriority cuStreamDestroy_v2 cuStreamEndCapture cuStreamIsCapturing cuStreamSynchronize
    cuStreamWaitEvent
]);

// runtime
functions!(1, [
    __cudaGetKernel __cudaGetProcAddress __cudaInitModule __cudaLaunchKernel __cudaPopCallConfiguration
    __cudaPushCallConfiguration __cudaRegisterFatBinary __cudaRegisterFatBinaryEnd __cudaRegisterFunction
    __cudaRegisterHostVar __cudaRegisterManagedVar __cudaRegisterUnifiedTable __cudaRegisterVar
    __cudaUnregisterFatBinary cudaDeviceGetAttribute cudaFreeAsync cudaFuncSetAttribute cudaGetDevice
    cudaGetErrorString cudaGetLastError cudaLaunchKernel cudaLaunchKernelExC cudaMallocAsync cudaMemcpyAsync
    cudaMemsetAsync cudaOccupancyMaxActiveBlocksPerMultiprocessor cudaPeekAtLastError cudaStreamSynchronize
]);

// cublas
functions!(2, [
    cublasCreate_v2 cublasDasum_v2 cublasDestroy_v2 cublasDgemmStridedBatched cublasDgemm_v2 cublasDgemv_v2
    cublasGemmEx cublasGemmGroupedBatchedEx cublasGemmStridedBatchedEx cublasGetPointerMode_v2 cublasSasum_v2
    cublasSetPointerMode_v2 cublasSetStream_v2 cublasSgemmStridedBatched cublasSgemm_v2 cublasSgemv_v2
]);

// cublaslt
functions!(3, [
    cublasLtCreate cublasLtDestroy cublasLtLoggerOpenFile cublasLtLoggerSetLevel cublasLtMatmul
    cublasLtMatmulAlgoGetHeuristic cublasLtMatmulDescCreate cublasLtMatmulDescDestroy cublasLtMatmulDescSetAttribute
    cublasLtMatmulPreferenceCreate cublasLtMatmulPreferenceDestroy cublasLtMatmulPreferenceSetAttribute
    cublasLtMatrixLayoutCreate cublasLtMatrixLayoutDestroy cublasLtMatrixLayoutSetAttribute
]);

// curand
functions!(4, [
    curandCreateGenerator curandDestroyGenerator curandGenerate curandGenerateLogNormal
    curandGenerateLogNormalDouble curandGenerateLongLong curandGenerateNormal curandGenerateNormalDouble
    curandGeneratePoisson curandGenerateUniform curandGenerateUniformDouble curandSetGeneratorOffset
    curandSetPseudoRandomGeneratorSeed curandSetStream
]);

// cudnn
functions!(5, [
    cudnnActivationForward cudnnAdvInferVersionCheck cudnnAdvTrainVersionCheck cudnnAdvVersionCheck
    cudnnCnnInferVersionCheck cudnnCnnTrainVersionCheck cudnnCnnVersionCheck cudnnConvolutionBackwardData
    cudnnConvolutionBackwardFilter cudnnConvolutionBiasActivationForward cudnnConvolutionForward cudnnCreate
    cudnnCreateActivationDescriptor cudnnCreateConvolutionDescriptor cudnnCreateFilterDescriptor
    cudnnCreatePoolingDescriptor cudnnCreateReduceTensorDescriptor cudnnCreateTensorDescriptor cudnnDestroy
    cudnnDestroyConvolutionDescriptor cudnnDestroyFilterDescriptor cudnnDestroyReduceTensorDescriptor
    cudnnDestroyTensorDescriptor cudnnFindConvolutionBackwardDataAlgorithmEx
    cudnnFindConvolutionBackwardFilterAlgorithmEx cudnnFindConvolutionForwardAlgorithmEx
    cudnnGetConvolutionBackwardDataAlgorithm_v7 cudnnGetConvolutionBackwardDataWorkspaceSize
    cudnnGetConvolutionBackwardFilterAlgorithm_v7 cudnnGetConvolutionBackwardFilterWorkspaceSize
    cudnnGetConvolutionForwardAlgorithm_v7 cudnnGetConvolutionForwardWorkspaceSize cudnnGetCudartVersion
    cudnnGetReductionIndicesSize cudnnGetReductionWorkspaceSize cudnnGetVersion cudnnOpsInferVersionCheck
    cudnnOpsTrainVersionCheck cudnnOpsVersionCheck cudnnPoolingForward cudnnReduceTensor
    cudnnSetActivationDescriptor cudnnSetConvolution2dDescriptor cudnnSetConvolutionGroupCount
    cudnnSetConvolutionMathType cudnnSetConvolutionNdDescriptor cudnnSetFilter4dDescriptor
    cudnnSetFilterNdDescriptor cudnnSetPoolingNdDescriptor cudnnSetReduceTensorDescriptor cudnnSetStream
    cudnnSetTensor4dDescriptor cudnnSetTensor4dDescriptorEx cudnnSetTensorNdDescriptor cudnnSoftmaxForward
]);

// nvrtc
functions!(6, [
    nvrtcCompileProgram nvrtcCreateProgram nvrtcDestroyProgram nvrtcGetPTX nvrtcGetPTXSize nvrtcGetProgramLog
    nvrtcGetProgramLogSize
]);

// nccl
functions!(7, [
    ncclAllGather ncclAllReduce ncclBroadcast ncclCommAbort ncclCommCount ncclCommCuDevice ncclCommDestroy
    ncclCommFinalize ncclCommGetAsyncError ncclCommInitAll ncclCommInitRank ncclCommInitRankConfig ncclCommSplit
    ncclCommUserRank ncclGetLastError ncclGetUniqueId ncclGetVersion ncclGroupEnd ncclGroupStart ncclRecv
    ncclRedOpCreatePreMulSum ncclRedOpDestroy ncclReduce ncclReduceScatter ncclSend
]);

// For the test of the jump: a function of the system's library, and one that no library has.
#[cfg(test)]
function!(8, "infomax_cuda_test_snprintf", "snprintf");
#[cfg(test)]
function!(8, "infomax_cuda_test_missing", "no function is called so");
