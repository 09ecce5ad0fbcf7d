//! Between Candle's tensors and slices of floats: storage, optional arguments, the parameters of large operations,
//! half types, checks, and the walk back through the graph.

pub(crate) mod backward;
pub(crate) mod check;
pub(crate) mod half;
pub(crate) mod optional;
pub(crate) mod parameters;
pub(crate) mod path;
pub(crate) mod storage;
