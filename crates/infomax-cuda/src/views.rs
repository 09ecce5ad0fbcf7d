//! Random views of small images in the memory of the device.

use crate::launch::{Arg, Grid, Module, device, empty, launch, tensor};
use crate::{Error, Result};
use candle_core::{CudaDevice, DType, Device, Tensor};

/// The words of a view (`kernels/views.cu`).
const WORDS: usize = 26;
/// The longest side of images and views.
const LONGEST: usize = 96;
const OP: &str = "views";

/// Renders views of one kind: crop and resize, changes of color, gray, blur, solarization, flips and normalization in one
/// launch for a batch, with what the host drew.
///
/// Its tables and words are those of `infomax_augment::ViewTables`, which says what they hold; the arithmetic is that of
/// the views on the host, to the bit.
#[derive(Debug)]
pub struct ViewKernel {
    device: CudaDevice,
    axes: Tensor,
    normalized: Tensor,
    size: usize,
    extent: (usize, usize),
}

impl ViewKernel {
    /// A kernel for views of `size` pixels a side from images of `extent` (width, height): the weights of all resizes, and
    /// the normalized value of each of the 256 values of each of three channels.
    ///
    /// # Errors
    /// A device that is not a CUDA device, sides of 0 or more than 96 pixels, tables that do not fit together.
    pub fn new(
        on: &Device,
        extent: (usize, usize),
        size: usize,
        axes: &[i32],
        normalized: &[f32],
    ) -> Result<Self> {
        let refuse = |name, value: String, reason| Err(Error::Config { op: OP, name, value, reason });
        let (width, height) = extent;
        if [width, height, size].iter().any(|side| !(1..=LONGEST).contains(side)) {
            return refuse("sides", format!("{width}x{height} to {size}"), "1 to 96 pixels");
        }
        if normalized.len() != 3 * 256 {
            return refuse("normalized", normalized.len().to_string(), "256 values of each of 3 channels");
        }
        // What the kernel would read without asking.
        let fits = |length: usize| {
            let at = usize::try_from(*axes.get(length)?).ok()?;
            let count = usize::try_from(*axes.get(at)?).ok()?;
            let first = axes.get(at + 1..at + 1 + size)?;
            axes.get(at + 1 + size..at + 1 + size * (1 + count))?;
            first.iter().all(|i| usize::try_from(*i).is_ok_and(|i| i + count <= length)).then_some(())
        };
        if let Some(length) = (1..=width.max(height)).find(|length| fits(*length).is_none()) {
            return refuse("axes", format!("those of length {length}"), "weights that lie within the axis");
        }
        let words: Vec<u32> = axes.iter().map(|v| *v as u32).collect();
        let axes = Tensor::from_vec(words, axes.len(), on)?;
        let normalized = Tensor::from_slice(normalized, normalized.len(), on)?;
        Ok(Self { device: device(OP, "device", &axes)?, axes, normalized, size, extent })
    }

    /// The views `(B, 3, size, size)` in f32 that the words describe, 26 of each, of `images`: `(N, height, width, 3)` in
    /// u8, contiguous. Outside of any graph.
    ///
    /// # Errors
    /// Images of another shape, type or device, words of images or crops that do not exist.
    pub fn render(&self, images: &Tensor, words: &[u32]) -> Result<Tensor> {
        let (width, height) = self.extent;
        let count = match *images.dims() {
            [n, h, w, 3] if (w, h) == self.extent && images.is_contiguous() => n,
            _ => {
                let expected = format!("(N, {height}, {width}, 3), contiguous");
                return Err(Error::Shape { op: OP, name: "images", expected, got: images.dims().to_vec() });
            }
        };
        if images.dtype() != DType::U8 {
            return Err(Error::DType { op: OP, name: "images", got: images.dtype(), expected: "u8" });
        }
        if !images.device().same_device(self.axes.device()) {
            return Err(Error::Device { op: OP, name: "images" });
        }
        let inside = |start: u32, length: u32, limit: usize| {
            length > 0 && (u64::from(start) + u64::from(length)) <= limit as u64
        };
        let good = |w: &[u32]| match *w {
            [image, x, y, w, h, ..] => {
                (image as usize) < count && inside(x, w, width) && inside(y, h, height)
            }
            _ => false,
        };
        let (views, rest) = words.as_chunks::<WORDS>();
        if let Some(bad) = views.iter().position(|w| !good(w) || w[16] > 8) {
            let (value, reason) = (
                format!("view {bad}"),
                "the image and the crop must exist, a blur has a radius of at most 8",
            );
            return Err(Error::Config { op: OP, name: "words", value, reason });
        }
        if views.is_empty() || !rest.is_empty() {
            let value = words.len().to_string();
            return Err(Error::Config {
                op: OP,
                name: "words",
                value,
                reason: "26 of each view, of at least one",
            });
        }
        let table = Tensor::from_slice(words, words.len(), images.device())?;
        let shape = (views.len(), 3, self.size, self.size);
        let mut out = empty(&self.device, DType::F32, views.len() * 3 * self.size * self.size)?;
        let args = vec![
            Arg::Read(images),
            Arg::Read(&table),
            Arg::Read(&self.axes),
            Arg::Read(&self.normalized),
            Arg::Write(&mut out),
            Arg::U32(width as u32),
            Arg::U32(height as u32),
            Arg::U32(self.size as u32),
        ];
        let name = match width.max(height).max(self.size) {
            ..=32 => "views_32",
            33..=64 => "views_64",
            _ => "views_96",
        };
        let grid = Grid { blocks: (views.len() as u32, 1), threads: (256, 1) };
        launch(&self.device, Module::Views, name, grid, args)?;
        Ok(tensor(out, shape))
    }
}
