//! The collective over an engine.

use crate::engine::{Engine, Entered, Offer, is_inline};
use crate::header::{Call, Header};
use crate::link::{Link, Slice};
use crate::sum::{self, wrap};
use crate::{Error, Result, values};
use candle_core::{DType, Device, Shape, Tensor};
use infomax_core::Collective;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Is told why the watchdog ends the process.
pub type Report = Arc<dyn Fn(&str) + Send + Sync>;

/// How long a rank waits for the others while nothing arrives from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In general: 45 s, so that all have ended within a minute.
    pub usual: Duration,
    /// Until gradients were summed for the first time, where ranks open data sets and fill their queues: ten times as long.
    pub first: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { usual: Duration::from_secs(45), first: Duration::from_secs(450) }
    }
}

/// This process among the ranks of a run. Clones are the same rank.
///
/// # Order and bits
/// Sums are taken in the order of ranks, by one rank for each part of a bucket, which sends the result to the others:
/// all ranks hold the same bits, those of [`infomax_core::replicas`]. A bucket of [`Collective::sum_in_place`] is one
/// message, cut into segments of 4 MiB. Half types are rounded after each addition, as Candle's own.
///
/// With the feature `nccl`, tensors on a CUDA device of more than 8 KiB go over NCCL, which sums in an order of its own: each
/// element in one place, from which all ranks get it, so that they hold the same bits here too, and others than those of
/// the order of ranks. Smaller ones and all that is on the CPU keep that order. Work on one device from several threads
/// (as [`infomax_core::Queued`] does) needs a device of one stream: `Device::new_cuda_with_stream`.
///
/// # Errors, and not waiting for ever
/// Each operation begins with a header from every rank to every other: its name, its number, shapes and types. What
/// differs is an error on every rank, and so is the header of a rank that leaves ([`Ranks::leave`]). A rank that sends
/// nothing for as long as [`Limits`] allow is named in [`Error::Late`]; after that every operation is that error.
#[derive(Clone, Debug)]
pub struct Ranks {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    rank: usize,
    size: usize,
    hosts: Vec<String>,
    engine: Mutex<Engine>,
}

impl Ranks {
    /// Ranks over any library; with a `report`, a watchdog ends the process when the library does not come back.
    ///
    /// # Errors
    /// [`Error::Late`] with the ranks that did not come.
    pub fn over(link: Box<dyn Link>, limits: Limits, report: Option<Report>) -> Result<Self> {
        let (start, entered) = (Instant::now(), Arc::new(Entered::new(0)));
        let engine = Engine::new(link, limits, start, entered.clone())?;
        let (rank, size, hosts) = (engine.rank(), engine.size(), engine.hosts.clone());
        if let Some(report) = report {
            watch(engine.who(rank), start, entered, report)?;
        }
        Ok(Self { inner: Arc::new(Inner { rank, size, hosts, engine: Mutex::new(engine) }) })
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        // A panic elsewhere ends the run; what the lock guards is used to say so.
        self.inner.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hosts of all ranks, in their order.
    pub fn hosts(&self) -> &[String] {
        &self.inner.hosts
    }

    /// `rank 1 (node-7)`.
    pub fn name(&self) -> String {
        match self.inner.hosts.get(self.inner.rank) {
            Some(host) => format!("rank {} ({host})", self.inner.rank),
            None => format!("rank {}", self.inner.rank),
        }
    }

    /// The number of ranks on this host.
    pub fn on_this_host(&self) -> usize {
        let own = self.inner.hosts.get(self.inner.rank);
        self.inner.hosts.iter().filter(|host| Some(*host) == own).count()
    }

    /// Tells the others why this rank ends, so that they end with the reason and do not wait for it; true if all ranks
    /// left within `grace`. It is for the end: no operation follows.
    pub fn leave(&self, reason: &str, grace: Duration) -> bool {
        self.engine().leave(reason, grace)
    }

    /// The number of this rank among those on its host, in the order of ranks: which of the host's cards is its own.
    pub fn on_this_host_before(&self) -> usize {
        let own = self.inner.hosts.get(self.inner.rank);
        self.inner.hosts.iter().take(self.inner.rank).filter(|host| Some(*host) == own).count()
    }

    /// Ends the engine after a whole run. Every rank calls it; under MPI one that comes early waits for the others.
    ///
    /// # Errors
    /// What the engine refuses.
    pub fn finish(&self) -> Result<()> {
        let mut engine = self.engine();
        #[cfg(feature = "nccl")]
        drop(engine.comm.take());
        // A rank that is stopped before it comes would keep the others within MPI: the watchdog ends that.
        let _wait = engine.wait(Call::Barrier);
        engine.link.finish()
    }

    /// Ends this process with this status, and under MPI those of all ranks; a process that MPI cannot end within 10 s ends
    /// itself. Over TCP the other ranks see the end of the connection.
    pub fn abort(&self, code: i32) {
        // What ends this thread below ends the process in any case.
        let _ = std::thread::Builder::new().name("abort".into()).spawn(|| {
            std::thread::sleep(Duration::from_secs(10));
            std::process::abort();
        });
        match self.inner.engine.try_lock() {
            Ok(engine) => engine.link.abort(code),
            Err(std::sync::TryLockError::Poisoned(engine)) => engine.into_inner().link.abort(code),
            // A thread is within an exchange: the end of this process is seen by the launcher, which ends the others.
            Err(std::sync::TryLockError::WouldBlock) => std::process::exit(code),
        }
        std::process::exit(code)
    }
}

/// Ends the process once the library has kept a thread for much longer than the limit, which no error can tell.
fn watch(who: String, start: Instant, entered: Arc<Entered>, report: Report) -> Result<()> {
    let work = move || loop {
        std::thread::sleep(Duration::from_secs(1));
        let until = entered.load(Ordering::Relaxed);
        if until > 0 && start.elapsed().as_millis() as u64 > until {
            report(&format!(
                "{who}: a call of MPI, NCCL or the system has not come back for half a minute beyond --rank-timeout; its network or \
                 another rank is down. Ending this process, so that the launcher ends the others"
            ));
            std::process::abort();
        }
    };
    let thread = std::thread::Builder::new().name("rank-watchdog".into()).spawn(work);
    thread.map(drop).map_err(|e| Error::Engine { call: "watchdog", problem: e.to_string() })
}

/// What carries the large tensors of a device, where it is not the engine: all ranks must have the same.
fn carrier(device: &Device) -> &'static str {
    match cfg!(feature = "nccl") && device.is_cuda() {
        true => " by NCCL",
        false => "",
    }
}

/// Whether the payload of a header did not travel with it.
fn is_large(header: &Header) -> bool {
    !is_inline(usize::try_from(header.bytes).unwrap_or(usize::MAX))
}

/// The number of rows at the start of the text of a gather.
fn rows_of(text: &str) -> Option<usize> {
    text.split(' ').next()?.parse().ok()
}

/// The bytes of a tensor.
fn bytes_of(x: &Tensor) -> usize {
    x.elem_count() * x.dtype().size_in_bytes()
}

/// Shape and type in words.
fn words(dims: &[usize], dtype: DType) -> String {
    format!("{dims:?} {dtype:?}").to_lowercase()
}

impl Ranks {
    /// Everybody's bytes, in the order of ranks; lengths may differ.
    fn everyone(
        &self,
        call: Call,
        equal: &str,
        text: String,
        bytes: Vec<u8>,
    ) -> infomax_core::Result<Vec<(String, Vec<u8>)>> {
        let engine = &mut *self.engine();
        let (inline, length) = (is_inline(bytes.len()), bytes.len());
        let own = if inline { bytes.clone() } else { Vec::new() };
        let result = engine.run(|engine| {
            let offer = Offer { call, equal, text, bytes: length, inline: own };
            let headers = engine.exchange(offer)?;
            let rank = engine.rank();
            let from: Vec<(usize, usize)> = headers
                .iter()
                .enumerate()
                .filter(|(peer, header)| *peer != rank && is_large(header))
                .map(|(peer, header)| (peer, usize::try_from(header.bytes).unwrap_or(usize::MAX)))
                .collect();
            let message = Slice::whole(if inline { Vec::new() } else { bytes.clone() });
            let to: Vec<(usize, Slice)> = match inline {
                true => Vec::new(),
                false => (0..engine.size()).filter(|p| *p != rank).map(|p| (p, message.clone())).collect(),
            };
            let came = engine.transfer(call, &to, &from)?;
            let mut came = from.iter().map(|(peer, _)| *peer).zip(came).peekable();
            let all = headers.into_iter().enumerate().map(|(peer, header)| {
                let bytes = match came.next_if(|(from, _)| *from == peer) {
                    Some((_, bytes)) => bytes,
                    None if peer == rank => bytes.clone(),
                    None => header.inline,
                };
                (header.text, bytes)
            });
            Ok(all.collect::<Vec<_>>())
        });
        result.map_err(|e| wrap(engine, e))
    }

    /// The rows of all ranks, of tensors on a card; as soon as one rank has many, by NCCL.
    #[cfg(feature = "nccl")]
    fn gather_on(
        &self,
        card: &candle_core::CudaDevice,
        x: &Tensor,
        row: &[usize],
        equal: &str,
    ) -> infomax_core::Result<Vec<Tensor>> {
        let rows = x.dims().first().map_or_else(String::new, usize::to_string);
        let (length, text) = (bytes_of(x), format!("{rows} of {equal}"));
        let mut inline = Vec::new();
        if is_inline(length) {
            values::append(&mut inline, x)?;
        }
        let engine = &mut *self.engine();
        let offer = Offer { call: Call::Gather, equal, text, bytes: length, inline };
        let headers = engine.run(|engine| engine.exchange(offer)).map_err(|e| wrap(engine, e))?;
        let dims = |header: &Header| match x.dims() {
            [] => Ok(Vec::new()),
            _ => {
                let bad = || infomax_core::Error::config("rows", &header.text, "is no number of rows");
                Ok([&[rows_of(&header.text).ok_or_else(bad)?], row].concat())
            }
        };
        let all = headers.iter().map(dims).collect::<infomax_core::Result<Vec<_>>>()?;
        if headers.iter().any(is_large) {
            let rows: Vec<usize> = all.iter().filter_map(|dims| dims.first().copied()).collect();
            return engine
                .run(|engine| crate::nccl::gather(engine, card, x, &rows))
                .map_err(|e| wrap(engine, e));
        }
        let part = |(header, dims): (&Header, Vec<usize>)| {
            values::tensor(&header.inline, x.dtype(), &Shape::from(dims), x.device())
        };
        headers.iter().zip(all).map(part).collect()
    }

    /// The sums of tensors of one type.
    fn sums(&self, bucket: &[&Tensor]) -> infomax_core::Result<Vec<Tensor>> {
        let Some(first) = bucket.first() else { return Ok(Vec::new()) };
        let all = bucket.iter().map(|x| words(x.dims(), x.dtype()));
        let equal = all.collect::<Vec<_>>().join(", ") + carrier(first.device());
        let length = bucket.iter().map(|x| bytes_of(x)).sum();
        #[cfg(feature = "nccl")]
        if let Some(card) = crate::nccl::card(first.device()).filter(|_| !is_inline(length)) {
            let engine = &mut *self.engine();
            return engine
                .run(|engine| crate::nccl::sum(engine, card, bucket, &equal))
                .map_err(|e| wrap(engine, e));
        }
        let mut bytes = Vec::with_capacity(length);
        bucket.iter().try_for_each(|x| values::append(&mut bytes, x))?;
        let sum = sum::sum(&mut self.engine(), bytes, first.dtype(), &equal)?;
        let mut rest = &sum[..];
        let mut out = Vec::with_capacity(bucket.len());
        for x in bucket {
            let (bytes, after) = rest.split_at(bytes_of(x));
            rest = after;
            out.push(values::tensor(bytes, x.dtype(), x.shape(), x.device())?);
        }
        Ok(out)
    }
}

impl Collective for Ranks {
    fn rank(&self) -> usize {
        self.inner.rank
    }

    fn size(&self) -> usize {
        self.inner.size
    }

    fn handle(&self) -> Arc<dyn Collective> {
        Arc::new(self.clone())
    }

    fn sum(&self, x: &Tensor) -> infomax_core::Result<Tensor> {
        let mut sums = self.sums(&[x])?;
        Ok(sums.swap_remove(0))
    }

    fn gather(&self, x: &Tensor) -> infomax_core::Result<Vec<Tensor>> {
        let (rows, row) = match x.dims().split_first() {
            Some((rows, row)) => (rows.to_string(), row),
            None => (String::new(), &[][..]),
        };
        // Types and all dimensions but the first are equal; the first one is said.
        let equal = format!("{} of rank {}{}", words(row, x.dtype()), x.dims().len(), carrier(x.device()));
        #[cfg(feature = "nccl")]
        if let Some(card) = crate::nccl::card(x.device()) {
            return self.gather_on(card, x, row, &equal);
        }
        let mut bytes = Vec::new();
        values::append(&mut bytes, x)?;
        let all = self.everyone(Call::Gather, &equal, format!("{rows} of {equal}"), bytes)?;
        let part = |(rows, bytes): (String, Vec<u8>)| {
            let mut dims = row.to_vec();
            if !x.dims().is_empty() {
                let bad = || infomax_core::Error::config("rows", &rows, "is no number of rows");
                dims.insert(0, rows_of(&rows).ok_or_else(bad)?);
            }
            values::tensor(&bytes, x.dtype(), &Shape::from(dims), x.device())
        };
        all.into_iter().map(part).collect()
    }

    fn broadcast(&self, x: &Tensor, root: usize) -> infomax_core::Result<Tensor> {
        if root >= self.size() {
            let reason = format!("ranks are below {}", self.size());
            return Err(infomax_core::Error::config("root", root, reason));
        }
        // Every rank brings a tensor of the same shape and type, whose values count on the root only.
        let equal = format!("root {root}, {}{}", words(x.dims(), x.dtype()), carrier(x.device()));
        #[cfg(feature = "nccl")]
        if let Some(card) = crate::nccl::card(x.device()).filter(|_| !is_inline(bytes_of(x))) {
            let engine = &mut *self.engine();
            return engine
                .run(|engine| crate::nccl::broadcast(engine, card, x, root, &equal))
                .map_err(|e| wrap(engine, e));
        }
        let own = root == self.rank();
        let mut bytes = Vec::new();
        if own {
            values::append(&mut bytes, x)?;
        }
        let mut all = self.everyone(Call::Broadcast, &equal, String::new(), bytes)?;
        let (_, bytes) = all.swap_remove(root);
        values::tensor(&bytes, x.dtype(), x.shape(), x.device())
    }

    fn barrier(&self) -> infomax_core::Result<()> {
        self.everyone(Call::Barrier, "", String::new(), Vec::new()).map(drop)
    }

    fn agree(&self, word: u64) -> infomax_core::Result<u64> {
        let all = self.everyone(Call::Agree, "", String::new(), word.to_le_bytes().to_vec())?;
        let words = all.iter().filter_map(|(_, bytes)| bytes.first_chunk::<8>());
        Ok(words.fold(0, |all, word| all | u64::from_le_bytes(*word)))
    }

    fn sum_in_place(&self, bucket: &mut [Tensor]) -> infomax_core::Result<()> {
        let mut types: Vec<DType> = bucket.iter().map(Tensor::dtype).collect();
        types.dedup();
        types.sort_by_key(|dtype| dtype.as_str());
        types.dedup();
        let mut summed: Vec<Option<Tensor>> = vec![None; bucket.len()];
        for dtype in types {
            let places: Vec<usize> = (0..bucket.len()).filter(|i| bucket[*i].dtype() == dtype).collect();
            let some: Vec<&Tensor> = places.iter().map(|i| &bucket[*i]).collect();
            for (place, sum) in places.iter().zip(self.sums(&some)?) {
                summed[*place] = Some(sum);
            }
        }
        for (x, sum) in bucket.iter_mut().zip(summed) {
            *x = sum.unwrap_or_else(|| x.clone());
        }
        self.engine().warmed();
        Ok(())
    }
}
