//! Pooling of images.

use crate::graph::node1;
use crate::launch::{Arg, Grid, Module, contiguous, count32, device, empty, launch, suffix, tensor};
use crate::{Error, Images, Pool2dConfig, Result};
use candle_core::{CudaDevice, DType, Tensor};

/// The largest pixel of each window. Windows may overlap; padding never wins.
///
/// # Gradient
/// That of a window goes to its largest pixel, to the first one (row by row) of equal pixels, to the last NaN. Each
/// pixel gathers its windows in order: the same bits in every run.
///
/// # Errors
/// Shapes or settings that do not fit; another type than f32 or bf16; a tensor that is not on a CUDA device.
pub fn max_pool2d(xs: &Tensor, cfg: Pool2dConfig, images: Images) -> Result<Tensor> {
    const OP: &str = "max_pool2d";
    let pool = Pool::new(OP, xs, cfg, images)?;
    let xs = contiguous(xs)?;
    let mut ys = empty(&pool.device, xs.dtype(), pool.outputs())?;
    let mut places = empty(&pool.device, DType::U32, pool.outputs())?;
    let mut args = vec![Arg::Read(&xs), Arg::Write(&mut ys), Arg::Write(&mut places)];
    args.extend(pool.sizes());
    let name = format!("max_forward_{}", pool.suffix);
    launch(&pool.device, Module::Pool, &name, Grid::over(pool.outputs()), args)?;
    let places = tensor(places, pool.outputs());
    let shape = pool.shape();
    Ok(node1(OP, &xs, ys, &shape[..], move |[x], _, g| {
        let mut dx = empty(&pool.device, x.dtype(), x.elem_count())?;
        let mut args = vec![Arg::Read(&places), Arg::Read(g), Arg::Write(&mut dx)];
        args.extend(pool.sizes());
        let name = format!("max_backward_{}", pool.suffix);
        launch(&pool.device, Module::Pool, &name, Grid::over(x.elem_count()), args)?;
        Ok([Some(tensor(dx, x.shape()))])
    })?)
}

/// The mean of each window; padding counts as zeros.
///
/// # Gradient
/// Each pixel gets `1 / kernel^2` of the gradients of its windows.
///
/// # Errors
/// As [`max_pool2d`].
pub fn avg_pool2d(xs: &Tensor, cfg: Pool2dConfig, images: Images) -> Result<Tensor> {
    const OP: &str = "avg_pool2d";
    let pool = Pool::new(OP, xs, cfg, images)?;
    let xs = contiguous(xs)?;
    let mut ys = empty(&pool.device, xs.dtype(), pool.outputs())?;
    let mut args = vec![Arg::Read(&xs), Arg::Write(&mut ys)];
    args.extend(pool.sizes());
    let name = format!("avg_forward_{}", pool.suffix);
    launch(&pool.device, Module::Pool, &name, Grid::over(pool.outputs()), args)?;
    let shape = pool.shape();
    Ok(node1(OP, &xs, ys, &shape[..], move |[x], _, g| {
        let mut dx = empty(&pool.device, x.dtype(), x.elem_count())?;
        let mut args = vec![Arg::Read(g), Arg::Write(&mut dx)];
        args.extend(pool.sizes());
        let name = format!("avg_backward_{}", pool.suffix);
        launch(&pool.device, Module::Pool, &name, Grid::over(x.elem_count()), args)?;
        Ok([Some(tensor(dx, x.shape()))])
    })?)
}

/// The mean of each plane: images to `(N, C)`.
///
/// # Gradient
/// Each pixel gets `1 / (H W)` of the gradient of its plane.
///
/// # Errors
/// As [`max_pool2d`].
pub fn global_avg_pool(xs: &Tensor, images: Images) -> Result<Tensor> {
    const OP: &str = "global_avg_pool";
    let (suffix, device) = (suffix(OP, xs)?, device(OP, "xs", xs)?);
    let [n, c, h, w] = images.sizes(OP, xs)?;
    let count = not_empty(OP, xs)?;
    let (pixels, last) = (h * w, images == Images::ChannelsLast);
    let xs = contiguous(xs)?;
    let mut ys = empty(&device, xs.dtype(), n * c)?;
    let io = vec![Arg::Read(&xs), Arg::Write(&mut ys)];
    if last {
        let args = [n, pixels, c].map(|v| Arg::U32(v as u32));
        let grid = Grid { blocks: ((n * c).div_ceil(256) as u32, 1), threads: (256, 1) };
        launch(
            &device,
            Module::Pool,
            &format!("middle_mean_{suffix}"),
            grid,
            io.into_iter().chain(args).collect(),
        )?;
    } else {
        let args = [n * c, pixels].map(|v| Arg::U32(v as u32));
        let grid = Grid::rows(n * c, pixels);
        launch(
            &device,
            Module::Rows,
            &format!("mean_forward_{suffix}"),
            grid,
            io.into_iter().chain(args).collect(),
        )?;
    }
    Ok(node1(OP, &xs, ys, (n, c), move |[x], _, g| {
        let mut dx = empty(&device, x.dtype(), x.elem_count())?;
        let args = vec![
            Arg::Read(g),
            Arg::Write(&mut dx),
            Arg::U32(count),
            Arg::U32(pixels as u32),
            Arg::U32(c as u32),
            Arg::U32(u32::from(last)),
        ];
        launch(&device, Module::Pool, &format!("mean_backward_{suffix}"), Grid::over(x.elem_count()), args)?;
        Ok([Some(tensor(dx, x.shape()))])
    })?)
}

fn not_empty(op: &'static str, xs: &Tensor) -> Result<u32> {
    if xs.elem_count() == 0 {
        let expected = "with elements".into();
        return Err(Error::Shape { op, name: "xs", expected, got: xs.dims().to_vec() });
    }
    count32(op, "xs", xs.elem_count())
}

/// One pooling, checked.
#[derive(Clone, Debug)]
struct Pool {
    device: CudaDevice,
    suffix: &'static str,
    /// `(N, C, H, W)` of the input.
    from: [usize; 4],
    out: (usize, usize),
    cfg: Pool2dConfig,
    images: Images,
}

impl Pool {
    fn new(op: &'static str, xs: &Tensor, cfg: Pool2dConfig, images: Images) -> Result<Self> {
        let (suffix, device) = (suffix(op, xs)?, device(op, "xs", xs)?);
        let from = images.sizes(op, xs)?;
        not_empty(op, xs)?;
        let out = cfg.out(op, from[2], from[3])?;
        let pool = Self { device, suffix, from, out, cfg, images };
        count32(op, "xs", pool.outputs())?;
        Ok(pool)
    }

    fn outputs(&self) -> usize {
        self.from[0] * self.from[1] * self.out.0 * self.out.1
    }

    fn shape(&self) -> [usize; 4] {
        self.images.shape([self.from[0], self.from[1], self.out.0, self.out.1])
    }

    fn sizes<'a>(&self) -> impl Iterator<Item = Arg<'a>> + use<'a> {
        let ([n, c, h, w], (p, q)) = (self.from, self.out);
        let Pool2dConfig { kernel, stride, padding } = self.cfg;
        let last = usize::from(self.images == Images::ChannelsLast);
        [n, c, h, w, p, q, kernel, stride, padding, last].into_iter().map(|v| Arg::U32(v as u32))
    }
}
