//! Where a run computes.

use crate::{Error, Result};
use candle_core::{DType, Device, DeviceLocation, Tensor};
use infomax_kernels::cuda::{driver, explain, is_out_of_memory, missing_libraries};

/// A device, and what the user should know of the choice.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The device.
    pub device: Device,
    /// Why `auto` did not take an accelerator that this build could use.
    pub warning: Option<String>,
}

/// The device of a name: `cpu`, `cuda` (the first), `cuda:N`, `metal`, or `auto`: the first accelerator that this
/// build has and that works, else the CPU.
///
/// # Errors
/// [`Error::Device`]: another name, an accelerator that is not built in, or one that does not answer; with what
/// to do.
pub fn open(asked: &str) -> Result<Chosen> {
    open_for(asked, None)
}

/// The device of one of several processes: `cuda` and `auto` are the card of its number among those of its host, or the one
/// card that it sees. Its work may come from several threads, in the order in which they give it.
///
/// # Errors
/// As [`open`]; more processes on a host than it has cards, unless a card is named.
pub(crate) fn open_for(asked: &str, local_rank: Option<usize>) -> Result<Chosen> {
    let plain = |device| Ok(Chosen { device, warning: None });
    match asked.split_once(':').unwrap_or((asked, "0")) {
        ("cpu", _) if asked == "cpu" => plain(Device::Cpu),
        ("cuda", _) if asked == "cuda" => plain(cuda(asked, own_card(asked, local_rank)?, local_rank)?),
        ("cuda", number) => {
            let number =
                number.parse().map_err(|_| refuse(asked, "a card is named by its number, `cuda:0`"))?;
            plain(cuda(asked, number, local_rank)?)
        }
        ("metal", number) => {
            let number =
                number.parse().map_err(|_| refuse(asked, "a device is named by its number, `metal:0`"))?;
            plain(metal(asked, number)?)
        }
        ("auto", _) if asked == "auto" => auto(local_rank),
        _ => Err(refuse(asked, "it must be auto, cpu, cuda, cuda:N or metal")),
    }
}

fn auto(local_rank: Option<usize>) -> Result<Chosen> {
    type Open = fn(usize, Option<usize>) -> Result<Device>;
    let tries: [(bool, Open); 2] = [
        (cfg!(feature = "cuda"), |number, local_rank| cuda(&format!("cuda:{number}"), number, local_rank)),
        (cfg!(feature = "metal"), |_, _| metal("metal", 0)),
    ];
    // Where there are cards, one too few is no reason to compute on the CPU beside them.
    let number = own_card("auto", local_rank)?;
    let mut warning = None;
    for (built, try_open) in tries {
        if built {
            match try_open(number, local_rank) {
                Ok(device) => return Ok(Chosen { device, warning: None }),
                Err(Error::Device { asked, reason }) => {
                    warning = Some(format!("computing on the CPU, as {asked} cannot be used: {reason}"));
                }
                Err(other) => warning = Some(format!("computing on the CPU: {other}")),
            }
        }
    }
    Ok(Chosen { device: Device::Cpu, warning })
}

/// The number of the card of a process.
fn own_card(asked: &str, local_rank: Option<usize>) -> Result<usize> {
    let cards = driver().map_or(0, |driver| driver.cards.len());
    card_of(local_rank, cards).map_err(|reason| refuse(asked, &reason))
}

/// Launchers that give each process a card of its own let it see that one only.
fn card_of(local_rank: Option<usize>, cards: usize) -> std::result::Result<usize, String> {
    match (local_rank, cards) {
        (None, _) | (_, 0 | 1) => Ok(0),
        (Some(own), cards) if own < cards => Ok(own),
        (Some(own), cards) => Err(format!(
            "this is process {own} on its host (counted from 0), which has {cards} cards: start at most {cards} there, or name \
             the card of each, `cuda:0`"
        )),
    }
}

fn cuda(asked: &str, number: usize, local_rank: Option<usize>) -> Result<Device> {
    if !cfg!(feature = "cuda") {
        let reason =
            "this build has no CUDA; build it with `--features cudnn` or `cuda` (docs/cuda.md), or use cpu";
        return Err(refuse(asked, reason));
    }
    // Before anything is asked of them: a convolution would be the first to miss cuDNN.
    if let Some(missing) = missing_libraries() {
        return Err(refuse(asked, &format!("{missing}; or use cpu")));
    }
    // Candle's kernels may be for another card, and the driver may not know their language: one of them is run.
    // Candle's default is the stream of each thread by itself. Ranks exchange on a thread beside the one that computes.
    let open = if local_rank.is_some() { Device::new_cuda_with_stream } else { Device::new_cuda };
    let opened = open(number).and_then(|device| {
        let sum = (Tensor::ones(2, DType::F32, &device)? + 1.0)?.to_vec1::<f32>()?;
        if sum == [2.0, 2.0] { Ok(device) } else { candle_core::bail!("1 + 1 is {sum:?} there") }
    });
    let device = opened.map_err(|error| {
        let driver = driver();
        let said = match &driver {
            Ok(driver) => explain(&error.to_string(), Some(driver)),
            Err(reason) => reason.clone(),
        };
        refuse(asked, &format!("{said}; or use cpu"))
    })?;
    #[cfg(feature = "cuda")]
    infomax_kernels::cuda::keep_freed_memory(&device)
        .map_err(|error| refuse(asked, &format!("its memory pool cannot be set ({error})")))?;
    #[cfg(feature = "cuda")]
    if local_rank.is_some() {
        // All uses of a buffer are on the one stream, or wait for it themselves.
        infomax_kernels::cuda::stop_tracking_events(&device)
            .map_err(|error| refuse(asked, &format!("its streams cannot be set ({error})")))?;
    }
    Ok(device)
}

fn metal(asked: &str, number: usize) -> Result<Device> {
    if !cfg!(feature = "metal") {
        let reason = "this build has no Metal; build it on a Mac with `--features metal`, or use cpu";
        return Err(refuse(asked, reason));
    }
    Device::new_metal(number).map_err(|e| refuse(asked, &format!("the device does not answer ({e})")))
}

/// A device in words: `cuda:0 (NVIDIA H100 80GB HBM3)`.
pub fn describe(device: &Device) -> String {
    match device.location() {
        DeviceLocation::Cpu => "cpu".to_owned(),
        DeviceLocation::Cuda { gpu_id } => {
            let name =
                driver().ok().and_then(|driver| driver.cards.get(gpu_id).map(|card| card.name.clone()));
            name.map_or_else(|| format!("cuda:{gpu_id}"), |name| format!("cuda:{gpu_id} ({name})"))
        }
        DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}

/// Makes an error that says that the memory of a device is full one that says which batch could fit.
pub(crate) fn too_large(error: Error, batch: usize, device: &Device) -> Error {
    if device.is_cpu() || !is_out_of_memory(&error.to_string()) {
        return error;
    }
    Error::OutOfMemory {
        device: describe(device),
        batch,
        half: (batch / 2).max(1),
        reason: error.to_string(),
    }
}

fn refuse(asked: &str, reason: &str) -> Error {
    Error::Device { asked: asked.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_memory_is_told_with_a_batch_that_could_fit() {
        let full = || Error::Config("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")".into());
        // On the CPU it is no error of a device.
        assert!(matches!(too_large(full(), 256, &Device::Cpu), Error::Config(_)));
        let error =
            Error::OutOfMemory { device: "cuda:0".into(), batch: 256, half: 128, reason: "why".into() };
        let text = error.to_string();
        for word in ["cuda:0", "256", "train.batch=128", "train.accumulate", "why"] {
            assert!(text.contains(word), "{text}");
        }
    }

    #[test]
    fn each_process_of_a_host_has_its_own_card() {
        assert_eq!([card_of(None, 4), card_of(Some(3), 4), card_of(Some(2), 1)], [Ok(0), Ok(3), Ok(0)]);
        assert_eq!(card_of(Some(5), 0), Ok(0));
        let error = card_of(Some(4), 4).unwrap_err();
        assert!(error.contains("process 4") && error.contains("4 cards"), "{error}");
    }

    #[test]
    fn names_are_read_and_refused_with_what_to_do() {
        assert!(open("cpu").unwrap().device.is_cpu());
        for name in ["gpu", "", "cpu:1", "auto:0", "cuda:x", "cuda:-1"] {
            let message = open(name).unwrap_err().to_string();
            assert!(message.contains(&format!("\"{name}\"")), "{message}");
        }
        if !cfg!(feature = "cuda") {
            let message = open("cuda:1").unwrap_err().to_string();
            assert!(message.contains("--features cudnn"), "{message}");
            let chosen = open("auto").unwrap();
            assert!(cfg!(feature = "metal") || chosen.device.is_cpu() && chosen.warning.is_none());
        }
    }
}
