//! cuDNN: handles, descriptors, and the choice of an algorithm, kept by shape.

use crate::launch::{Arg, Value, empty, with_values};
use crate::types::ConvShape;
use crate::{Images, Math, Options, Search};
use candle_core::cuda::DeviceId;
use candle_core::cuda::cudarc::cudnn::{CudnnError, result, sys};
use candle_core::cuda::cudarc::driver::CudaStream;
use candle_core::{CudaDevice, CudaStorage, DType, Tensor};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::c_void;
use std::rc::Rc;
use std::sync::Arc;

/// Forgets the algorithms that were chosen on this thread.
pub fn forget_plans() {
    PLANS.with_borrow_mut(HashMap::clear);
}

/// What cuDNN computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    /// Images and weight to images.
    Forward,
    /// Weight and gradient to the gradient of the images.
    Input,
    /// Images and gradient to the gradient of the weight.
    Weight,
}

/// Everything that a choice of algorithm depends on, beside the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) shape: ConvShape,
    pub(crate) bf16: bool,
    pub(crate) options: Options,
}

/// The addresses among the arguments.
pub(crate) fn addresses(values: &[Value]) -> Vec<*mut c_void> {
    values
        .iter()
        .map(|v| if let Value::U64(p) = v { *p as *mut c_void } else { std::ptr::null_mut() })
        .collect()
}

/// The library on one thread and one device.
pub(crate) struct Handle {
    raw: sys::cudnnHandle_t,
    _stream: Arc<CudaStream>,
}

thread_local! {
    /// Handles of cuDNN belong to one thread.
    static HANDLES: RefCell<HashMap<DeviceId, Rc<Handle>>> = RefCell::default();
    static PLANS: RefCell<HashMap<(DeviceId, Direction, Key), Rc<Plan>>> = RefCell::default();
}

/// Shapes that are remembered; a program with more of them starts again.
const REMEMBERED: usize = 4096;

impl Handle {
    pub(crate) fn of(device: &CudaDevice) -> candle_core::Result<Rc<Self>> {
        if let Some(handle) = HANDLES.with_borrow(|all| all.get(&device.id()).cloned()) {
            return Ok(handle);
        }
        let stream = device.cuda_stream();
        stream.context().bind_to_thread().map_err(candle_core::Error::wrap)?;
        let raw = result::create_handle().map_err(candle_core::Error::wrap)?;
        let handle = Rc::new(Self { raw, _stream: Arc::clone(&stream) });
        // SAFETY: both are alive; the handle keeps the stream.
        unsafe { result::set_stream(raw, stream.cu_stream().cast()) }.map_err(candle_core::Error::wrap)?;
        HANDLES.with_borrow_mut(|all| all.insert(device.id(), Rc::clone(&handle)));
        Ok(handle)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the handle was made by `create_handle`, and this is its only owner. A failure at the end of a
        // thread has nobody to be told to.
        let _ = unsafe { result::destroy_handle(self.raw) };
    }
}

/// One algorithm of cuDNN.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    algorithm: Algorithm,
    math: sys::cudnnMathType_t,
    /// Bytes of workspace.
    pub(crate) space: usize,
}

#[derive(Clone, Copy, Debug)]
enum Algorithm {
    Forward(sys::cudnnConvolutionFwdAlgo_t),
    Input(sys::cudnnConvolutionBwdDataAlgo_t),
    Weight(sys::cudnnConvolutionBwdFilterAlgo_t),
}

/// Descriptors of one direction of one convolution, and its algorithms, the chosen one first.
pub(crate) struct Plan {
    images: sys::cudnnTensorDescriptor_t,
    weight: sys::cudnnFilterDescriptor_t,
    result: sys::cudnnTensorDescriptor_t,
    conv: sys::cudnnConvolutionDescriptor_t,
    pub(crate) choices: Vec<Choice>,
    /// The choice in use.
    pub(crate) at: Cell<usize>,
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: the descriptors were made in `describe`, and this is their only owner; null ones were not made.
        unsafe {
            if !self.images.is_null() {
                let _ = result::destroy_tensor_descriptor(self.images);
            }
            if !self.weight.is_null() {
                let _ = result::destroy_filter_descriptor(self.weight);
            }
            if !self.result.is_null() {
                let _ = result::destroy_tensor_descriptor(self.result);
            }
            if !self.conv.is_null() {
                let _ = result::destroy_convolution_descriptor(self.conv);
            }
        }
    }
}

/// Algorithms asked for; there are at most eight.
const ASKED: usize = 8;
/// Workspaces above this are not worth it.
const MOST_SPACE: usize = 4 << 30;

/// Calls one of cuDNN's functions that list algorithms, and keeps what can be used.
macro_rules! listed {
    ($perf:ty, $variant:ident, $search:expr, |$count:ident, $list:ident| $call:expr) => {{
        // SAFETY: a plain structure of numbers, for which zeros are valid: all its enumerations have a 0.
        let mut list: [$perf; ASKED] = unsafe { std::mem::zeroed() };
        let mut count = 0;
        let ($count, $list) = (&raw mut count, list.as_mut_ptr());
        $call?;
        let fixed = |p: &$perf| p.determinism == sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC;
        let found = list.iter().take(count.max(0) as usize);
        found
            .filter(|p| p.status == sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS && p.memory <= MOST_SPACE)
            .filter(|p| $search != Search::Deterministic || fixed(p))
            .map(|p| Choice { algorithm: Algorithm::$variant(p.algo), math: p.mathType, space: p.memory })
            .collect::<Vec<_>>()
    }};
}

impl Plan {
    /// The plan of this thread for one direction; `inputs` and `out` are used if algorithms are measured.
    pub(crate) fn of(
        device: &CudaDevice,
        handle: &Handle,
        direction: Direction,
        key: Key,
        inputs: [&Tensor; 2],
        out: &mut CudaStorage,
    ) -> candle_core::Result<Rc<Self>> {
        let id = (device.id(), direction, key);
        if let Some(plan) = PLANS.with_borrow(|all| all.get(&id).cloned()) {
            return Ok(plan);
        }
        let mut plan = Self::describe(key).map_err(candle_core::Error::wrap)?;
        plan.choices = match key.options.search {
            Search::Measured => plan.measured(device, handle, direction, inputs, out)?,
            search => plan.listed(handle, direction, search).map_err(candle_core::Error::wrap)?,
        };
        let spare = plan.spare(handle, direction);
        plan.choices.extend(spare);
        if key.options.math == Math::F32 && !key.bf16 {
            for choice in &mut plan.choices {
                choice.math = sys::cudnnMathType_t::CUDNN_FMA_MATH;
            }
        }
        let plan = Rc::new(plan);
        PLANS.with_borrow_mut(|all| {
            if all.len() >= REMEMBERED {
                all.clear();
            }
            all.insert(id, Rc::clone(&plan));
        });
        Ok(plan)
    }

    fn describe(key: Key) -> Result<Self, CudnnError> {
        let ConvShape { n, c, h, w, k, r, s, p, q, cfg } = key.shape;
        let int = |v: [usize; 4]| v.map(|v| v as i32);
        let format = match key.options.images {
            Images::ChannelsFirst => sys::cudnnTensorFormat_t::CUDNN_TENSOR_NCHW,
            Images::ChannelsLast => sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC,
        };
        let (dtype, math) = match (key.bf16, key.options.math) {
            (true, _) => {
                (sys::cudnnDataType_t::CUDNN_DATA_BFLOAT16, sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH)
            }
            (false, Math::Tf32) => {
                (sys::cudnnDataType_t::CUDNN_DATA_FLOAT, sys::cudnnMathType_t::CUDNN_DEFAULT_MATH)
            }
            (false, Math::F32) => {
                (sys::cudnnDataType_t::CUDNN_DATA_FLOAT, sys::cudnnMathType_t::CUDNN_FMA_MATH)
            }
        };
        let mut plan = Self {
            images: std::ptr::null_mut(),
            weight: std::ptr::null_mut(),
            result: std::ptr::null_mut(),
            conv: std::ptr::null_mut(),
            choices: Vec::new(),
            at: Cell::new(0),
        };
        plan.images = result::create_tensor_descriptor()?;
        plan.weight = result::create_filter_descriptor()?;
        plan.result = result::create_tensor_descriptor()?;
        plan.conv = result::create_convolution_descriptor()?;
        let (pad, stride, dilation) = (cfg.padding as i32, cfg.stride as i32, cfg.dilation as i32);
        let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        let float = sys::cudnnDataType_t::CUDNN_DATA_FLOAT;
        // SAFETY: the descriptors were made above; `ConvShape` holds sizes that fit each other, below 2^31.
        unsafe {
            result::set_tensor4d_descriptor(plan.images, format, dtype, int([n, c, h, w]))?;
            result::set_filter4d_descriptor(plan.weight, dtype, format, int([k, c / cfg.groups, r, s]))?;
            result::set_tensor4d_descriptor(plan.result, format, dtype, int([n, k, p, q]))?;
            result::set_convolution2d_descriptor(
                plan.conv, pad, pad, stride, stride, dilation, dilation, mode, float,
            )?;
            result::set_convolution_group_count(plan.conv, cfg.groups as i32)?;
            result::set_convolution_math_type(plan.conv, math)?;
        }
        Ok(plan)
    }

    /// The algorithms in cuDNN's order.
    fn listed(
        &self,
        handle: &Handle,
        direction: Direction,
        search: Search,
    ) -> Result<Vec<Choice>, CudnnError> {
        let (h, asked) = (handle.raw, ASKED as i32);
        Ok(match direction {
            Direction::Forward => {
                listed!(sys::cudnnConvolutionFwdAlgoPerf_t, Forward, search, |count, list| {
                    // SAFETY: handle, descriptors and buffers are alive; the list has room for what is asked.
                    unsafe {
                        result::get_convolution_forward_algorithm(
                            h,
                            self.images,
                            self.weight,
                            self.conv,
                            self.result,
                            asked,
                            count,
                            list,
                        )
                    }
                })
            }
            Direction::Input => {
                listed!(sys::cudnnConvolutionBwdDataAlgoPerf_t, Input, search, |count, list| {
                    // SAFETY: handle, descriptors and buffers are alive; the list has room for what is asked.
                    unsafe {
                        result::get_convolution_backward_data_algorithm(
                            h,
                            self.weight,
                            self.result,
                            self.conv,
                            self.images,
                            asked,
                            count,
                            list,
                        )
                    }
                })
            }
            Direction::Weight => {
                listed!(sys::cudnnConvolutionBwdFilterAlgoPerf_t, Weight, search, |count, list| {
                    // SAFETY: handle, descriptors and buffers are alive; the list has room for what is asked.
                    unsafe {
                        result::get_convolution_backward_filter_algorithm(
                            h,
                            self.images,
                            self.result,
                            self.conv,
                            self.weight,
                            asked,
                            count,
                            list,
                        )
                    }
                })
            }
        })
    }

    /// Algorithms that take nearly everything and add in a fixed order: tried when all listed ones have failed.
    fn spare(&self, handle: &Handle, direction: Direction) -> Vec<Choice> {
        use sys::cudnnConvolutionBwdDataAlgo_t as Input;
        use sys::cudnnConvolutionBwdFilterAlgo_t as Weight;
        use sys::cudnnConvolutionFwdAlgo_t as Forward;
        let algorithms = match direction {
            Direction::Forward => vec![
                Algorithm::Forward(Forward::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM),
                Algorithm::Forward(Forward::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM),
            ],
            Direction::Input => vec![Algorithm::Input(Input::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1)],
            Direction::Weight => vec![Algorithm::Weight(Weight::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1)],
        };
        let h = handle.raw;
        let space = |algorithm: &Algorithm| {
            // SAFETY: handle and descriptors are alive.
            unsafe {
                match *algorithm {
                    Algorithm::Forward(algo) => result::get_convolution_forward_workspace_size(
                        h,
                        self.images,
                        self.weight,
                        self.conv,
                        self.result,
                        algo,
                    ),
                    Algorithm::Input(algo) => result::get_convolution_backward_data_workspace_size(
                        h,
                        self.weight,
                        self.result,
                        self.conv,
                        self.images,
                        algo,
                    ),
                    Algorithm::Weight(algo) => result::get_convolution_backward_filter_workspace_size(
                        h,
                        self.images,
                        self.result,
                        self.conv,
                        self.weight,
                        algo,
                    ),
                }
            }
        };
        let math = sys::cudnnMathType_t::CUDNN_DEFAULT_MATH;
        let choice = |algorithm| Some(Choice { algorithm, math, space: space(&algorithm).ok()? });
        algorithms.into_iter().filter_map(choice).filter(|c| c.space <= MOST_SPACE).collect()
    }

    /// The algorithms in the order of their measured times.
    fn measured(
        &self,
        device: &CudaDevice,
        handle: &Handle,
        direction: Direction,
        [a, b]: [&Tensor; 2],
        out: &mut CudaStorage,
    ) -> candle_core::Result<Vec<Choice>> {
        let listed = self.listed(handle, direction, Search::Heuristic).map_err(candle_core::Error::wrap)?;
        let bytes = listed.iter().map(|c| c.space).max().unwrap_or(0).max(64 << 20);
        let mut space = empty(device, DType::U8, bytes)?;
        let args = vec![Arg::Read(a), Arg::Read(b), Arg::Write(out), Arg::Write(&mut space)];
        let (h, asked, search) = (handle.raw, ASKED as i32, Search::Measured);
        let found = with_values(device, args, |values| {
            let [a, b, out, space] = addresses(values)[..] else { return Ok(Ok(Vec::new())) };
            // The addresses are those of buffers of the described sizes.
            let find = || -> Result<Vec<Choice>, CudnnError> {
                Ok(match direction {
                    Direction::Forward => {
                        listed!(sys::cudnnConvolutionFwdAlgoPerf_t, Forward, search, |count, list| {
                            // SAFETY: handle, descriptors and buffers are alive; the list has room for what is asked.
                            unsafe {
                                sys::cudnnFindConvolutionForwardAlgorithmEx(
                                    h,
                                    self.images,
                                    a,
                                    self.weight,
                                    b,
                                    self.conv,
                                    self.result,
                                    out,
                                    asked,
                                    count,
                                    list,
                                    space,
                                    bytes,
                                )
                                .result()
                            }
                        })
                    }
                    Direction::Input => {
                        listed!(sys::cudnnConvolutionBwdDataAlgoPerf_t, Input, search, |count, list| {
                            // SAFETY: handle, descriptors and buffers are alive; the list has room for what is asked.
                            unsafe {
                                sys::cudnnFindConvolutionBackwardDataAlgorithmEx(
                                    h,
                                    self.weight,
                                    a,
                                    self.result,
                                    b,
                                    self.conv,
                                    self.images,
                                    out,
                                    asked,
                                    count,
                                    list,
                                    space,
                                    bytes,
                                )
                                .result()
                            }
                        })
                    }
                    Direction::Weight => {
                        listed!(sys::cudnnConvolutionBwdFilterAlgoPerf_t, Weight, search, |count, list| {
                            // SAFETY: handle, descriptors and buffers are alive; the list has room for what is asked.
                            unsafe {
                                sys::cudnnFindConvolutionBackwardFilterAlgorithmEx(
                                    h,
                                    self.images,
                                    a,
                                    self.result,
                                    b,
                                    self.conv,
                                    self.weight,
                                    out,
                                    asked,
                                    count,
                                    list,
                                    space,
                                    bytes,
                                )
                                .result()
                            }
                        })
                    }
                })
            };
            Ok(find())
        })?;
        // A measurement that fails as a whole leaves cuDNN's own order.
        Ok(match found {
            Ok(found) if !found.is_empty() => found,
            _ => listed,
        })
    }

    /// Runs one algorithm on `[a, b, out, workspace]`.
    pub(crate) fn run(
        &self,
        handle: &Handle,
        choice: Choice,
        addresses: &[*mut c_void],
    ) -> Result<(), CudnnError> {
        let [a, b, out, space] = *addresses else { return Ok(()) };
        let (one, zero) = (1f32, 0f32);
        let (one, zero) = ((&raw const one).cast::<c_void>(), (&raw const zero).cast::<c_void>());
        let (h, conv, bytes) = (handle.raw, self.conv, choice.space);
        // SAFETY: handle and descriptors are alive; the addresses are those of buffers of the described sizes, and
        // of a workspace of the size that the algorithm asked for; the factors are f32 for f32 and bf16 data.
        unsafe {
            result::set_convolution_math_type(conv, choice.math)?;
            match choice.algorithm {
                Algorithm::Forward(algo) => result::convolution_forward(
                    h,
                    one,
                    self.images,
                    a,
                    self.weight,
                    b,
                    conv,
                    algo,
                    space,
                    bytes,
                    zero,
                    self.result,
                    out,
                ),
                Algorithm::Input(algo) => result::convolution_backward_data(
                    h,
                    one,
                    self.weight,
                    a,
                    self.result,
                    b,
                    conv,
                    algo,
                    space,
                    bytes,
                    zero,
                    self.images,
                    out,
                ),
                Algorithm::Weight(algo) => result::convolution_backward_filter(
                    h,
                    one,
                    self.images,
                    a,
                    self.result,
                    b,
                    conv,
                    algo,
                    space,
                    bytes,
                    zero,
                    self.weight,
                    out,
                ),
            }
        }
    }
}
