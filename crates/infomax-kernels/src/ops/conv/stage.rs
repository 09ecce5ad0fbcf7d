//! A copy of some rows of some images, with its zero padding, in which every window is plain addition.
//!
//! For a stride of `m` the columns are split into `m` phases, so that the pixels that one tap of
//! neighboring windows reads are neighbors in memory: the pixel `(i, j)` of the window grid and the tap
//! `(r, s)` meet at `base(i, j) + offset(channel, r, s)`.

use infomax_simd::Float;

/// The geometry of one pass: windows over a source, one source pixel for each window and tap.
#[derive(Clone, Debug)]
pub(crate) struct Windows {
    /// Height of a source plane.
    pub(crate) hs: usize,
    /// Width of a source plane.
    pub(crate) ws: usize,
    /// Height of the window grid.
    pub(crate) po: usize,
    /// Width of the window grid.
    pub(crate) qo: usize,
    /// The step between windows in the source.
    pub(crate) step: usize,
    /// Source position of each tap, relative to `step * (i, j)`.
    pub(crate) taps: Vec<(isize, isize)>,
}

/// The layout of the staged copy of some rows of the window grid.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stage {
    row0: isize,
    col0: isize,
    step: usize,
    rows: usize,
    /// Elements of one phase of one row.
    phase: usize,
    pub(crate) pitch: usize,
    pub(crate) plane: usize,
}

impl Stage {
    /// The layout for `rows` rows of the grid. `windows.taps` must not be empty.
    pub(crate) fn new(windows: &Windows, rows: usize) -> Self {
        let range = |f: fn(&(isize, isize)) -> isize| {
            let values = windows.taps.iter().map(f);
            (values.clone().min().unwrap_or(0), values.max().unwrap_or(0))
        };
        let (row0, row1) = range(|t| t.0);
        let (col0, col1) = range(|t| t.1);
        let step = windows.step;
        let rows = (rows - 1) * step + (row1 - row0) as usize + 1;
        let cols = (windows.qo - 1) * step + (col1 - col0) as usize + 1;
        let phase = cols.div_ceil(step);
        let pitch = phase * step;
        Self { row0, col0, step, rows, phase, pitch, plane: rows * pitch }
    }

    /// True if a source plane is its own stage: nothing is padded, and rows follow each other.
    pub(crate) fn is_source(&self, windows: &Windows) -> bool {
        self.step == 1
            && self.row0 == 0
            && self.col0 == 0
            && self.pitch == windows.ws
            && self.rows == windows.hs
    }

    /// Where the window `(i, j)` begins, `i` counted from the first row of this stage.
    pub(crate) fn base(&self, i: usize, j: usize) -> usize {
        i * self.step * self.pitch + j
    }

    /// Where a tap lies, relative to the beginning of its window.
    pub(crate) fn offset(&self, tap: (isize, isize)) -> usize {
        let (row, col) = ((tap.0 - self.row0) as usize, (tap.1 - self.col0) as usize);
        row * self.pitch + (col % self.step) * self.phase + col / self.step
    }

    /// Fills the stage of one channel of one image from row `i0` of the grid on.
    ///
    /// `to` must have `self.plane` elements, `plane` is a source plane.
    #[inline(always)]
    pub(crate) fn fill<T: Float>(&self, windows: &Windows, plane: &[T], i0: usize, to: &mut [T]) {
        let zero = T::default();
        let first = i0 as isize * self.step as isize + self.row0;
        for (y, row) in to.chunks_exact_mut(self.pitch).enumerate() {
            let source = first + y as isize;
            if source < 0 || source >= windows.hs as isize {
                row.fill(zero);
                continue;
            }
            let line = &plane[source as usize * windows.ws..][..windows.ws];
            for (f, part) in row.chunks_exact_mut(self.phase).enumerate() {
                // Column x of the part is the source column x * step + f + col0.
                let start = self.col0 + f as isize;
                let step = self.step as isize;
                let lead = if start < 0 { (-start + step - 1) / step } else { 0 } as usize;
                let lead = lead.min(part.len());
                let begin = (start + lead as isize * step) as usize;
                let count = if begin < windows.ws { (windows.ws - begin).div_ceil(self.step) } else { 0 };
                let count = count.min(part.len() - lead);
                part[..lead].fill(zero);
                if self.step == 1 {
                    part[lead..lead + count].copy_from_slice(&line[begin..begin + count]);
                } else {
                    for (x, v) in part[lead..lead + count].iter_mut().enumerate() {
                        *v = line[begin + x * self.step];
                    }
                }
                part[lead + count..].fill(zero);
            }
        }
    }
}
