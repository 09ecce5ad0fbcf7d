//! What the ranks of a run have in common, compared before the first step.

use crate::{Error, Result, RunConfig};
use candle_core::{DType, Device, Tensor};
use infomax_core::{Collective, Params};
use infomax_data::Dataset;
use infomax_train::{Identity, Resumed};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
pub(crate) fn same_start(
    ranks: &dyn Collective,
    identity: &Identity,
    images: &dyn Dataset,
    params: &Params,
) -> Result<()> {
    if ranks.size() == 1 {
        return Ok(());
    }
    let mut table: BTreeMap<String, String> =
        identity.fixed.iter().chain(&identity.settings).map(|(k, v)| (k.clone(), v.clone())).collect();
    table.insert("infomax".into(), env!("CARGO_PKG_VERSION").into());
    table.insert(
        "the files of the training images".into(),
        format!("those of checksum {:08x}", files(images)),
    );
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

/// CRC-32 of where all samples lie below their source, and of the sizes of thousands of files: what tells a copy that is not
/// complete or newer. Where the source itself lies does not matter.
fn files(images: &dyn Dataset) -> u32 {
    const SIZES: usize = 4096;
    let (mut hash, root) = (crc32fast::Hasher::new(), images.name());
    let step = images.len().div_ceil(SIZES).max(1);
    for index in 0..images.len() {
        let place = images.place(index);
        hash.update(place.strip_prefix(&root).unwrap_or(&place).replace(&root, "").as_bytes());
        // Samples within larger files have no size of their own.
        if index % step == 0
            && let Ok(file) = std::fs::metadata(&place)
        {
            hash.update(&file.len().to_le_bytes());
        }
    }
    hash.finalize()
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

/// How the work of rank 0 ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Waited<T> {
    /// With its result, which the other ranks do not have.
    Done(Option<T>),
    /// Before its end, as these ranks were asked to stop: `rank 1`; nothing of a single process.
    Stopped(Option<String>),
}

/// Makes rank 0 work alone, while all ranks exchange a word a second: a rank that is stopped meanwhile is seen as in training,
/// and one that is asked to stop (`stop`) ends the work, which looks at the flag that it is given.
///
/// # Errors
/// Those of the work, beside [`Error::Stopped`]; the ranks that did not come, on rank 0 after its work has ended for it.
pub(crate) fn while_others_wait<T>(
    ranks: &dyn Collective,
    stop: &AtomicBool,
    work: impl FnOnce(&AtomicBool) -> Result<T>,
) -> Result<Waited<T>> {
    const DONE: u64 = 1;
    const STOPPED: u64 = 2;
    const PAUSE: Duration = Duration::from_secs(1);
    if ranks.size() == 1 {
        return match work(stop) {
            Err(Error::Stopped) => Ok(Waited::Stopped(None)),
            other => other.map(|value| Waited::Done(Some(value))),
        };
    }
    // A bit for each rank behind the two words; the last one is for all that have none.
    const LAST: usize = 61;
    let own = || u64::from(stop.load(Ordering::SeqCst)) << (2 + ranks.rank().min(LAST));
    let ended = |seen: u64| match seen & STOPPED {
        0 => Waited::Done(None),
        _ => {
            let asked = (0..ranks.size().min(LAST + 1)).filter(|rank| seen >> (2 + rank) & 1 == 1);
            let names = asked.map(|rank| match rank {
                LAST => format!("rank {LAST} or one behind it"),
                rank => format!("rank {rank}"),
            });
            Waited::Stopped(Some(names.collect::<Vec<_>>().join(", ")))
        }
    };
    if ranks.rank() > 0 {
        let mut seen = 0;
        while seen & DONE == 0 {
            seen |= ranks.agree(own())?;
        }
        return Ok(ended(seen));
    }
    /// Ends the exchange also where the work panics.
    struct Over<'a>(&'a AtomicU64, std::thread::Thread);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.fetch_or(DONE, Ordering::SeqCst);
            self.1.unpark();
        }
    }
    let (done, asked) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let words = scope.spawn(|| -> Result<u64> {
            let mut seen = 0;
            loop {
                let over = done.load(Ordering::SeqCst);
                let agreed = ranks.agree(over | own());
                // Also where another rank is gone: the job fails, and does not do so after minutes of work only.
                if agreed.is_err() {
                    asked.store(true, Ordering::SeqCst);
                }
                seen |= agreed?;
                if over & DONE != 0 {
                    return Ok(seen);
                }
                if seen >> 2 != 0 {
                    asked.store(true, Ordering::SeqCst);
                }
                std::thread::park_timeout(PAUSE);
            }
        });
        let over = Over(&done, words.thread().clone());
        let result = work(&asked);
        if matches!(result, Err(Error::Stopped)) {
            done.fetch_or(STOPPED, Ordering::SeqCst);
        }
        drop(over);
        let seen =
            words.join().unwrap_or_else(|_| Err(Error::Config("the thread of the ranks panicked".into())));
        match result {
            Ok(value) => seen.map(|_| Waited::Done(Some(value))),
            Err(Error::Stopped) => seen.map(ended),
            Err(error) => Err(error),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use infomax_core::{Local, replicas};
    use std::path::PathBuf;

    /// What each of three ranks gets of a work that lasts until it is stopped, or a moment.
    fn waited(asked: Option<usize>) -> Vec<Waited<u32>> {
        std::thread::scope(|scope| {
            let ranks = replicas(3).into_iter().map(|rank| {
                scope.spawn(move || {
                    let stop = AtomicBool::new(asked == Some(rank.rank()));
                    while_others_wait(&rank, &stop, |stop| match asked {
                        None => Ok(7),
                        Some(_) => {
                            while !stop.load(Ordering::SeqCst) {
                                std::thread::sleep(Duration::from_millis(1));
                            }
                            Err(Error::Stopped)
                        }
                    })
                    .unwrap()
                })
            });
            ranks.collect::<Vec<_>>().into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    }

    #[test]
    fn work_of_rank_0_is_stopped_by_any_rank_and_all_know_by_whom() {
        assert_eq!(waited(None), [Waited::Done(Some(7)), Waited::Done(None), Waited::Done(None)]);
        for asked in 0..3 {
            let by = || Waited::Stopped(Some(format!("rank {asked}")));
            assert_eq!(waited(Some(asked)), [by(), by(), by()]);
        }
        let alone = while_others_wait(&Local, &AtomicBool::new(true), |_| Err::<u32, _>(Error::Stopped));
        assert_eq!(alone.unwrap(), Waited::Stopped(None));
    }

    #[derive(Debug)]
    struct Files(PathBuf, Vec<&'static str>);

    impl Dataset for Files {
        fn len(&self) -> usize {
            self.1.len()
        }
        fn image(&self, index: usize) -> infomax_data::Result<infomax_augment::Image> {
            Err(infomax_data::Error::Index { index, len: 0, name: self.name() })
        }
        fn label(&self, _: usize) -> Option<u32> {
            None
        }
        fn classes(&self) -> &[String] {
            &[]
        }
        fn name(&self) -> String {
            self.0.display().to_string()
        }
        fn place(&self, index: usize) -> String {
            self.0.join(self.1[index]).display().to_string()
        }
    }

    #[test]
    fn other_names_and_sizes_are_seen_and_other_folders_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let set = |name: &str, all: &[(&'static str, &str)]| {
            let root = folder.path().join(name);
            std::fs::create_dir(&root).unwrap();
            all.iter().for_each(|(file, text)| std::fs::write(root.join(file), text).unwrap());
            files(&Files(root, all.iter().map(|(file, _)| *file).collect()))
        };
        let first = set("here", &[("a.png", "1"), ("b.png", "2")]);
        assert_eq!(set("there", &[("a.png", "3"), ("b.png", "4")]), first);
        for (name, other) in [
            ("name", [("a.png", "1"), ("c.png", "2")]),
            ("size", [("a.png", "1"), ("b.png", "22")]),
            ("order", [("b.png", "2"), ("a.png", "1")]),
        ] {
            assert_ne!(set(name, &other), first, "{name}");
        }
    }
}
