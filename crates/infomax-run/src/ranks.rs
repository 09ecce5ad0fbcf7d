//! What the ranks of a run have in common, compared before the first step.

use crate::{Error, Result, RunConfig};
use candle_core::{DType, Device, Tensor};
use infomax_core::{Collective, Params};
use infomax_train::{Identity, Resumed};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The samples of a batch that each rank embeds.
///
/// # Errors
/// A batch that does not divide.
pub(crate) fn share(config: &RunConfig, ranks: usize) -> Result<usize> {
    let batch = config.train.batch;
    let local = config.train.run.local_steps;
    if ranks > 1 && local > 1 && batch.is_multiple_of(ranks) && batch < 2 * ranks {
        return Err(Error::Setting {
            section: "train",
            reason: format!(
                "batch = {batch} with local_steps = {local}: a rank trains by itself between two outer steps, and a batch of 1 has \
                 neither spread nor statistics; take a batch of at least {} on {ranks} ranks",
                2 * ranks
            ),
        });
    }
    if batch.is_multiple_of(ranks) && batch >= ranks {
        return Ok(batch / ranks);
    }
    let (below, above) = (batch / ranks * ranks, batch.div_ceil(ranks) * ranks);
    let near = if below == 0 { above.to_string() } else { format!("{below} or {above}") };
    Err(Error::Setting {
        section: "train",
        reason: format!(
            "batch = {batch}: it is the batch of all ranks together, and does not divide among {ranks}; take {near}, or \
             another number of ranks"
        ),
    })
}

/// Every rank's text, in the order of ranks.
fn texts(ranks: &dyn Collective, own: &str) -> Result<Vec<String>> {
    if ranks.size() == 1 {
        return Ok(vec![own.to_owned()]);
    }
    let own = Tensor::from_slice(own.as_bytes(), own.len(), &Device::Cpu)?;
    let text = |t: &Tensor| Ok(String::from_utf8_lossy(&t.to_vec1::<u8>()?).into_owned());
    ranks.gather(&own)?.iter().map(text).collect()
}

/// The text of rank 0, whatever the others have.
pub(crate) fn of_rank_0(ranks: &dyn Collective, own: &str) -> Result<String> {
    Ok(texts(ranks, own)?.swap_remove(0))
}

/// That all ranks start with the same settings, images and parameters.
///
/// # Errors
/// What differs, with its values on two ranks; on every rank.
pub(crate) fn same_start(ranks: &dyn Collective, identity: &Identity, params: &Params) -> Result<()> {
    if ranks.size() == 1 {
        return Ok(());
    }
    let mut table: BTreeMap<String, String> =
        identity.fixed.iter().chain(&identity.settings).map(|(k, v)| (k.clone(), v.clone())).collect();
    table.insert("infomax".into(), env!("CARGO_PKG_VERSION").into());
    const REMEDY: &str = "start all ranks with the same program, configuration and data";
    // A setting that made the parameters differ is named in their place.
    same(ranks, &table, REMEDY)?;
    let parameters = format!("those of checksum {:08x}", checksum(params)?);
    same(ranks, &BTreeMap::from([("the initial parameters".to_owned(), parameters)]), REMEDY)
}

/// That all ranks continue from the same checkpoint, or that none has one.
///
/// The files are compared and not what each rank made of them: with local steps the ranks continue from parameters of their own.
///
/// # Errors
/// As [`same_start`]; a file of the checkpoint that cannot be read.
pub(crate) fn same_checkpoint(ranks: &dyn Collective, resumed: Option<&Resumed>) -> Result<()> {
    if ranks.size() == 1 {
        return Ok(());
    }
    let mut table = BTreeMap::new();
    if let Some(resumed) = resumed {
        table.insert("the step of the checkpoint".to_owned(), resumed.step.to_string());
        let path = resumed.checkpoint.join("model.safetensors");
        let read = || -> std::io::Result<u32> {
            let (mut hash, mut file) = (crc32fast::Hasher::new(), BufReader::new(File::open(&path)?));
            loop {
                let part = file.fill_buf()?;
                if part.is_empty() {
                    return Ok(hash.finalize());
                }
                hash.update(part);
                let read = part.len();
                file.consume(read);
            }
        };
        let sum = read().map_err(|e| Error::io("read", &path, e))?;
        table.insert("the model of the checkpoint".to_owned(), format!("of checksum {sum:08x}"));
    }
    same(ranks, &table, "the folder of the run has to be the same one for all ranks, on a shared file system")
}

fn same(ranks: &dyn Collective, table: &BTreeMap<String, String>, remedy: &str) -> Result<()> {
    let own = serde_json::to_string(table)
        .map_err(|e| Error::Config(format!("the settings of this rank cannot be sent: {e}")))?;
    let all = texts(ranks, &own)?;
    let read = |text: &String| -> BTreeMap<String, String> { serde_json::from_str(text).unwrap_or_default() };
    let first = all.first().map(read).unwrap_or_default();
    for (rank, other) in all.iter().enumerate().skip(1) {
        let other = read(other);
        let unset = || "unset".to_owned();
        let names = first.keys().chain(other.keys());
        if let Some(name) = names.into_iter().find(|name| first.get(*name) != other.get(*name)) {
            let value = |table: &BTreeMap<String, String>| table.get(name).cloned().unwrap_or_else(unset);
            return Err(Error::Config(format!(
                "the ranks differ: {name}: {} on rank 0, {} on rank {rank}; {remedy}",
                value(&first),
                value(&other)
            )));
        }
    }
    Ok(())
}

/// CRC-32 of the names and bits of all parameters and buffers.
fn checksum(params: &Params) -> Result<u32> {
    let mut hash = crc32fast::Hasher::new();
    for (name, tensor) in params.tensors() {
        hash.update(name.as_bytes());
        let flat = tensor.to_device(&Device::Cpu)?.flatten_all()?;
        // Every value of a smaller type is an f64, to the bit.
        for value in flat.to_dtype(DType::F64)?.to_vec1::<f64>()? {
            hash.update(&value.to_bits().to_le_bytes());
        }
    }
    Ok(hash.finalize())
}

/// Makes rank 0 work alone, of which the others get nothing, while all of them exchange a word a second: a rank that is stopped meanwhile is
/// seen as in training.
///
/// # Errors
/// Those of the work; the ranks that did not come, on rank 0 after its work.
pub(crate) fn while_others_wait<T>(
    ranks: &dyn Collective,
    work: impl FnOnce() -> Result<T>,
) -> Result<Option<T>> {
    const DONE: u64 = 1;
    const PAUSE: Duration = Duration::from_secs(1);
    if ranks.size() == 1 {
        return work().map(Some);
    }
    if ranks.rank() > 0 {
        while ranks.agree(0)? & DONE == 0 {}
        return Ok(None);
    }
    /// Ends the exchange also where the work panics.
    struct Over<'a>(&'a AtomicBool, std::thread::Thread);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
            self.1.unpark();
        }
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let words = scope.spawn(|| -> Result<()> {
            loop {
                let over = done.load(Ordering::SeqCst);
                ranks.agree(u64::from(over) * DONE)?;
                if over {
                    return Ok(());
                }
                std::thread::park_timeout(PAUSE);
            }
        });
        let over = Over(&done, words.thread().clone());
        let result = work();
        drop(over);
        let seen =
            words.join().unwrap_or_else(|_| Err(Error::Config("the thread of the ranks panicked".into())));
        result.and_then(|value| seen.map(|()| Some(value)))
    })
}

/// The samples that any rank could not read, each with its reason, in the order of samples.
pub(crate) fn damaged(ranks: &dyn Collective, own: &[(usize, String)]) -> Result<Vec<String>> {
    let encoded = serde_json::to_string(own)
        .map_err(|e| Error::Config(format!("the damaged samples of this rank cannot be sent: {e}")))?;
    let mut all = BTreeMap::new();
    for text in texts(ranks, &encoded)? {
        all.extend(serde_json::from_str::<Vec<(usize, String)>>(&text).unwrap_or_default());
    }
    Ok(all.into_values().collect())
}
