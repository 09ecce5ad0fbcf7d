//! Where a run computes.

use crate::{Error, Result};
use candle_core::Device;

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
    let plain = |device| Ok(Chosen { device, warning: None });
    match asked.split_once(':').unwrap_or((asked, "0")) {
        ("cpu", _) if asked == "cpu" => plain(Device::Cpu),
        ("cuda", number) => {
            let number =
                number.parse().map_err(|_| refuse(asked, "a card is named by its number, `cuda:0`"))?;
            plain(cuda(asked, number)?)
        }
        ("metal", number) => {
            let number =
                number.parse().map_err(|_| refuse(asked, "a device is named by its number, `metal:0`"))?;
            plain(metal(asked, number)?)
        }
        ("auto", _) if asked == "auto" => Ok(auto()),
        _ => Err(refuse(asked, "it must be auto, cpu, cuda, cuda:N or metal")),
    }
}

fn auto() -> Chosen {
    type Open = fn() -> Result<Device>;
    let tries: [(bool, Open); 2] =
        [(cfg!(feature = "cuda"), || cuda("cuda:0", 0)), (cfg!(feature = "metal"), || metal("metal", 0))];
    let mut warning = None;
    for (built, try_open) in tries {
        if built {
            match try_open() {
                Ok(device) => return Chosen { device, warning: None },
                Err(error) => warning = Some(format!("training on the CPU: {error}")),
            }
        }
    }
    Chosen { device: Device::Cpu, warning }
}

fn cuda(asked: &str, number: usize) -> Result<Device> {
    if !cfg!(feature = "cuda") {
        let reason = "this build has no CUDA; build it with `--features cuda` (docs/cuda.md), or use cpu";
        return Err(refuse(asked, reason));
    }
    Device::new_cuda(number).map_err(|e| {
        refuse(
            asked,
            &format!(
                "the card does not answer ({e}); is there a driver (`nvidia-smi`) and a card of that number?"
            ),
        )
    })
}

fn metal(asked: &str, number: usize) -> Result<Device> {
    if !cfg!(feature = "metal") {
        let reason = "this build has no Metal; build it on a Mac with `--features metal`, or use cpu";
        return Err(refuse(asked, reason));
    }
    Device::new_metal(number).map_err(|e| refuse(asked, &format!("the device does not answer ({e})")))
}

fn refuse(asked: &str, reason: &str) -> Error {
    Error::Device { asked: asked.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_refused_with_what_to_do() {
        assert!(open("cpu").unwrap().device.is_cpu());
        for name in ["gpu", "", "cpu:1", "auto:0", "cuda:x", "cuda:-1"] {
            let message = open(name).unwrap_err().to_string();
            assert!(message.contains(&format!("\"{name}\"")), "{message}");
        }
        if !cfg!(feature = "cuda") {
            let message = open("cuda:1").unwrap_err().to_string();
            assert!(message.contains("--features cuda"), "{message}");
            let chosen = open("auto").unwrap();
            assert!(cfg!(feature = "metal") || chosen.device.is_cpu() && chosen.warning.is_none());
        }
    }
}
