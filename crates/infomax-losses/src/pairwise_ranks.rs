//! Log-sum-exp over the scores of all rows of all ranks, each rank with its own rows against all.

use crate::pairwise::{Exclude, Score, row_log_sum_exp};
use crate::ranks::Ranks;
use crate::{Result, op};
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

/// Own rows whose scores are in memory at a time.
const BLOCK: usize = 64;

/// The rows of several views `(n, d)` on all ranks, below each other: view by view, and within a view rank by rank.
pub(crate) struct Rows {
    own: Tensor,
    /// Without a gradient; of one process the own ones.
    pub(crate) all: Tensor,
    /// The place of each own row among all.
    places: Vec<usize>,
}

impl Rows {
    /// Gathers the rows of all views. One message.
    pub(crate) fn gather(ranks: &Ranks<'_>, views: &[Tensor]) -> Result<Self> {
        let own = Tensor::cat(views, 0)?;
        if ranks.alone() {
            return Ok(Self { all: own.detach(), places: Vec::new(), own });
        }
        let (count, d) = (views.len(), own.dim(1)?);
        // Samples first, so that the ranks' parts are below each other.
        let rows = Tensor::stack(&views.iter().map(Tensor::detach).collect::<Vec<_>>(), 1)?;
        let all = Tensor::cat(&ranks.collective.gather(&rows)?, 0)?;
        let all = all.transpose(0, 1)?.contiguous()?.reshape((count * ranks.total, d))?;
        let place = |v: usize| (0..ranks.rows).map(move |i| v * ranks.total + ranks.start + i);
        Ok(Self { own, all, places: (0..count).flat_map(place).collect() })
    }

    /// `l_i = ln sum_j exp s_ij` of every row of all ranks, in their order, the same on every rank: shape `(V n)`,
    /// differentiable in the own rows.
    ///
    /// A rank forms the scores of its own rows only, a block of them at a time, and gathers the `l` of the others:
    /// a column of the scores is then known from its row, so that the gradient needs no message. In f64 inside.
    pub(crate) fn log_sum_exp(&self, ranks: &Ranks<'_>, score: Score, exclude: Exclude) -> Result<Tensor> {
        if ranks.alone() {
            return row_log_sum_exp(&self.own, score, exclude);
        }
        if !infomax_kernels::has_cpu_kernels(&self.own) {
            // The fused form is that of the CPU; elsewhere the whole is formed on each rank.
            let views = self.own.reshape((self.own.dim(0)? / ranks.rows, ranks.rows, self.own.dim(1)?))?;
            let samples = views.transpose(0, 1)?.contiguous()?;
            let all = ranks.gather(&samples)?.transpose(0, 1)?.contiguous()?;
            return row_log_sum_exp(&all.reshape(self.all.shape())?, score, exclude);
        }
        let scores = Scores::new(self, score, exclude)?;
        let own = scores.own_sums()?;
        let views = own.len() / ranks.rows;
        let own = Tensor::from_vec(own, (views, ranks.rows), &Device::Cpu)?.t()?.contiguous()?;
        let all = Tensor::cat(&ranks.collective.gather(&own)?, 0)?.t()?.flatten_all()?;
        let (sums, factor) = (all.to_vec1::<f64>()?, ranks.collective.size() as f64);
        let dtype = self.own.dtype();
        let grad = move |g: &Tensor| (scores.slopes(&op::host(g)?, &sums)? * factor)?.to_dtype(dtype);
        Ok(op::attach(&self.own, all.to_dtype(dtype)?, grad)?)
    }
}

/// The scores of own rows against all rows.
struct Scores {
    /// All rows, less their mean for distances, in f64.
    all: Tensor,
    values: Vec<f64>,
    squares: Vec<f64>,
    places: Vec<usize>,
    d: usize,
    score: Score,
    exclude: Exclude,
}

impl Scores {
    fn new(rows: &Rows, score: Score, exclude: Exclude) -> Result<Self> {
        let mut all = rows.all.to_dtype(DType::F64)?;
        if matches!(score, Score::Distance(_)) {
            all = all.broadcast_sub(&all.mean_keepdim(0)?)?;
        }
        let (values, d) = (op::host(&all)?, all.dim(1)?);
        let squares = values.chunks_exact(d).map(|row| row.iter().map(|v| v * v).sum()).collect();
        Ok(Self { all, values, squares, places: rows.places.clone(), d, score, exclude })
    }

    fn row(&self, i: usize) -> &[f64] {
        &self.values[i * self.d..(i + 1) * self.d]
    }

    /// The score of two rows from their product; minus infinity for what is left out.
    fn of(&self, i: usize, j: usize, product: f64) -> f64 {
        let out = match self.exclude {
            Exclude::Nothing => false,
            Exclude::Own => i == j,
            Exclude::Sample(batch) => i % batch == j % batch,
        };
        if out {
            return f64::NEG_INFINITY;
        }
        match self.score {
            Score::Dot(c) => c * product,
            Score::Distance(c) => {
                let squares = self.squares[i] + self.squares[j];
                let mut r2 = squares - 2.0 * product;
                // Near rows by their differences: equal ones are at distance 0 exactly.
                if r2 < 1e-6 * squares {
                    r2 = self.row(i).iter().zip(self.row(j)).map(|(a, b)| (a - b) * (a - b)).sum();
                }
                -c * r2
            }
        }
    }

    /// Calls `f` with the place of each own row and its scores, and gives `take` what it returns, block by block.
    fn each<R: Send>(
        &self,
        f: impl Fn(usize, Vec<f64>) -> R + Sync,
        mut take: impl FnMut(Vec<R>) -> candle_core::Result<()>,
    ) -> candle_core::Result<()> {
        let columns = self.all.t()?;
        let count = self.squares.len();
        for places in self.places.chunks(BLOCK) {
            let index: Vec<u32> = places.iter().map(|place| *place as u32).collect();
            let block = self.all.index_select(&Tensor::new(index, &Device::Cpu)?, 0)?;
            let products = block.matmul(&columns)?.flatten_all()?.to_vec1::<f64>()?;
            let rows: Vec<R> = places
                .par_iter()
                .zip(products.par_chunks_exact(count))
                .map(|(&i, row)| f(i, row.iter().enumerate().map(|(j, p)| self.of(i, j, *p)).collect()))
                .collect();
            take(rows)?;
        }
        Ok(())
    }

    fn own_sums(&self) -> Result<Vec<f64>> {
        let mut sums = Vec::with_capacity(self.places.len());
        let sum = |_, scores: Vec<f64>| {
            let max = scores.iter().fold(f64::NEG_INFINITY, |m, v| m.max(*v));
            match max == f64::NEG_INFINITY {
                true => max,
                false => max + scores.iter().map(|s| (s - max).exp()).sum::<f64>().ln(),
            }
        };
        self.each(sum, |block| {
            sums.extend(block);
            Ok(())
        })?;
        Ok(sums)
    }

    /// `sum_i g_i dl_i / dx` of the own rows: with `w_j = g_i e^{s_ij - l_i} + g_j e^{s_ij - l_j}` it is
    /// `c sum_j w_j x_j` for products, and `2 c sum_j w_j (x_j - x_i)` for distances.
    fn slopes(&self, g: &[f64], sums: &[f64]) -> candle_core::Result<Tensor> {
        let share = |j: usize, score: f64| {
            if score == f64::NEG_INFINITY { 0.0 } else { g[j] * (score - sums[j]).exp() }
        };
        let factor = match self.score {
            Score::Dot(c) => c,
            Score::Distance(c) => 2.0 * c,
        };
        let weights = |i: usize, mut scores: Vec<f64>| {
            let mut total = 0.0;
            for (j, s) in scores.iter_mut().enumerate() {
                *s = share(i, *s) + share(j, *s);
                total += *s;
            }
            if matches!(self.score, Score::Distance(_)) {
                scores[i] -= total;
            }
            scores
        };
        let mut slopes = Vec::new();
        self.each(weights, |block| {
            let shape = (block.len(), self.squares.len());
            let block = Tensor::from_vec(block.concat(), shape, &Device::Cpu)?;
            slopes.push((block.matmul(&self.all)? * factor)?);
            Ok(())
        })?;
        Tensor::cat(&slopes, 0)
    }
}
