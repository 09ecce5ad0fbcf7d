//! Operations on plain tensors: each one function, which picks the form for the tensor's device.

#[allow(unsafe_code)]
pub(crate) mod attention;
#[allow(unsafe_code)]
pub(crate) mod conv;
pub(crate) mod cross_entropy;
pub(crate) mod elementwise;
#[allow(unsafe_code)]
pub(crate) mod l2_normalize;
#[allow(unsafe_code)]
pub(crate) mod linear;
pub(crate) mod max_pool;
pub(crate) mod mean_pool;
#[allow(unsafe_code)]
pub(crate) mod norm;
pub(crate) mod patches;
pub(crate) mod row_norm;
pub(crate) mod rows;
#[allow(unsafe_code)]
pub(crate) mod softmax_regression;
#[allow(unsafe_code)]
pub(crate) mod squared_error;
#[allow(unsafe_code)]
pub(crate) mod transformer;
