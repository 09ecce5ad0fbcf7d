//! What the ranks of a run have in common, compared before the first step.

use crate::{Error, Result, RunConfig};
use candle_core::{DType, Device, Tensor};
use infomax_core::{Collective, Params};
use infomax_train::Identity;
use std::collections::BTreeMap;

/// The samples of a batch that each rank embeds.
///
/// # Errors
/// A batch that does not divide.
pub(crate) fn share(config: &RunConfig, ranks: usize) -> Result<usize> {
    let batch = config.train.batch;
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
    table.insert("the initial parameters".into(), format!("of checksum {:08x}", checksum(params)?));
    same(ranks, &table, "start all ranks with the same program, configuration and data")
}

/// That all ranks continue from the same checkpoint.
///
/// # Errors
/// As [`same_start`].
pub(crate) fn same_checkpoint(ranks: &dyn Collective, step: u64, params: &Params) -> Result<()> {
    if ranks.size() == 1 {
        return Ok(());
    }
    let table = BTreeMap::from([
        ("the parameters of the checkpoint".to_owned(), format!("of checksum {:08x}", checksum(params)?)),
        ("the step of the checkpoint".to_owned(), step.to_string()),
    ]);
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
                "the ranks differ: {name} is {} on rank 0 and {} on rank {rank}; {remedy}",
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
