//! What the CUDA driver says of itself and of the cards; and what its errors mean.

/// The driver, and the cards that it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driver {
    /// The newest version of CUDA that it knows, as `(13, 0)`.
    pub cuda: (u32, u32),
    /// The cards in the order of their numbers, which `CUDA_VISIBLE_DEVICES` can choose and change.
    pub cards: Vec<Card>,
}

/// One card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its name.
    pub name: String,
    /// Its compute capability, as `(9, 0)`.
    pub capability: (u32, u32),
    /// Its memory in bytes.
    pub memory: u64,
}

/// A library of CUDA that this build calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// What it is: `cuBLAS`.
    pub title: &'static str,
    /// The name of its file: `libcublas.so.13`.
    pub file: String,
    /// Whether it was found.
    pub found: bool,
}

/// The libraries of CUDA that this build calls, loaded where they are there. Empty where there is no CUDA in the build,
/// and where they are linked so that the program does not start without them (all systems but Linux on x86-64).
pub fn libraries() -> Vec<Library> {
    #[cfg(all(feature = "cuda", target_os = "linux", target_arch = "x86_64"))]
    return crate::lazy::libraries();
    #[cfg(not(all(feature = "cuda", target_os = "linux", target_arch = "x86_64")))]
    Vec::new()
}

/// What is missing of CUDA's libraries and what to do, in words that follow a colon; `None` if all are there. Those that
/// are looked at rarely (NVRTC, cuBLASLt, the runtime for quantized products) are not asked for.
pub fn missing_libraries() -> Option<String> {
    let needed = ["the driver", "cuBLAS", "cuRAND", "cuDNN"];
    let missing = libraries().into_iter().filter(|library| !library.found && needed.contains(&library.title));
    say_missing(&missing.map(|library| library.file).collect::<Vec<_>>())
}

fn say_missing(files: &[String]) -> Option<String> {
    let driver = files.iter().any(|file| file.starts_with("libcuda."));
    match (files, driver) {
        ([], _) => None,
        (_, true) => Some(NO_DRIVER.into()),
        _ => Some(format!(
            "of CUDA's libraries {} cannot be loaded: install the CUDA toolkit and cuDNN 9 of the build's version, or name \
             the folders of these files in LD_LIBRARY_PATH (the wheels of PyTorch bring them, in \
             site-packages/nvidia/*/lib)",
            files.join(", ")
        )),
    }
}

const NO_DRIVER: &str = "there is no driver (libcuda.so.1 is not found): install NVIDIA's driver, 580 or newer; in a \
                         container, pass the card into it";

/// The compute capability of Candle's kernels in this build (`CUDA_COMPUTE_CAP`), as `90`; `None` where it was taken from
/// the card of the machine that built it, or where there is no CUDA in the build.
pub fn built_for() -> Option<u32> {
    option_env!("INFOMAX_CUDA_BUILT_FOR").and_then(|text| text.trim_end_matches('a').parse().ok())
}

/// Asks the driver.
///
/// # Errors
/// In words, with what to do: CUDA is not built in, there is no driver, or no card.
pub fn driver() -> Result<Driver, String> {
    #[cfg(feature = "cuda")]
    return asked::driver().map_err(|error| explain(&error.to_string(), None));
    #[cfg(not(feature = "cuda"))]
    Err("this build has no CUDA; build it with `--features cudnn` (or `cuda`), see docs/cuda.md".into())
}

/// What an error of the driver, of CUDA's libraries or of a launch means, and what to do, in words that follow a colon.
/// The text of the error is kept where nothing is known of it.
pub fn explain(error: &str, driver: Option<&Driver>) -> String {
    let has = |names: &[&str]| names.iter().any(|name| error.contains(name));
    let cards = driver.map_or(0, |driver| driver.cards.len());
    let capability = |card: &Card| format!("{} ({}.{})", card.name, card.capability.0, card.capability.1);
    if has(&["CUDA_ERROR_SHARED_OBJECT_INIT_FAILED"]) {
        return NO_DRIVER.into();
    }
    if has(&[
        "CUBLAS_STATUS_NOT_INITIALIZED",
        "CURAND_STATUS_NOT_INITIALIZED",
        "CUDNN_STATUS_NOT_INITIALIZED",
    ]) && let Some(missing) = missing_libraries()
    {
        return missing;
    }
    if has(&["CUDA_ERROR_STUB_LIBRARY"]) {
        return "the libcuda.so.1 that was found is a stub for linking, no driver: install NVIDIA's driver (580 or newer), \
                or take the folder of the stub out of LD_LIBRARY_PATH"
            .into();
    }
    if has(&["CUDA_ERROR_NO_DEVICE"]) {
        return "the driver finds no card; is CUDA_VISIBLE_DEVICES empty, or the card not passed into the container?".into();
    }
    if has(&["CUDA_ERROR_INVALID_DEVICE"]) {
        return match cards {
            0 => "there is no card of that number".into(),
            1 => "there is one card, cuda:0".into(),
            n => format!("there are {n} cards, cuda:0 to cuda:{}", n - 1),
        };
    }
    if has(&[
        "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
        "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
        "CUDA_ERROR_COMPAT_NOT_SUPPORTED",
        "INSUFFICIENT_DRIVER",
    ]) {
        let knows = driver.map_or(String::new(), |d| format!(" knows CUDA {}.{} and", d.cuda.0, d.cuda.1));
        return format!(
            "the driver{knows} is too old for this build; install a newer one (580 for CUDA 13.0)"
        );
    }
    if has(&["CUDA_ERROR_NO_BINARY_FOR_GPU", "CUDA_ERROR_INVALID_PTX", "CUDA_ERROR_INVALID_IMAGE"])
        || has(&["CUDA_ERROR_INVALID_SOURCE", "CUDA_ERROR_UNSUPPORTED_DEVICE_SIDE_SYNC"])
    {
        let built = built_for()
            .map_or(String::new(), |cap| format!(" for compute capability {}.{}", cap / 10, cap % 10));
        let found: Vec<String> = driver.into_iter().flat_map(|d| &d.cards).map(capability).collect();
        let found =
            if found.is_empty() { String::new() } else { format!(", and found {}", found.join(", ")) };
        return format!(
            "the kernels of this build were made{built}{found}: build it with CUDA_COMPUTE_CAP set to the card's (90 for 9.0)"
        );
    }
    if is_out_of_memory(error) {
        return "the memory of the card is full; does another process use it (`nvidia-smi`)?".into();
    }
    if has(&["CUDA_ERROR_DEVICE_UNAVAILABLE", "CUDA_ERROR_DEVICES_UNAVAILABLE"]) {
        return "the card is busy or in exclusive use by another process (`nvidia-smi`)".into();
    }
    format!("the card does not answer ({error}); `nvidia-smi` says whether driver and card are well")
}

/// Whether an error says that the memory of a device is full, in the words of CUDA, cuBLAS, cuDNN or Metal.
pub fn is_out_of_memory(error: &str) -> bool {
    ["CUDA_ERROR_OUT_OF_MEMORY", "STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "out of memory"]
        .iter()
        .chain(&["Failed to create metal resource", "failed to allocate"])
        .any(|name| error.contains(name))
}

#[cfg(feature = "cuda")]
#[allow(unsafe_code)]
mod asked {
    use super::{Card, Driver};
    use candle_core::cuda::cudarc::driver::result::{self, DriverError};
    use candle_core::cuda::cudarc::driver::sys;
    use sys::CUdevice_attribute as Attribute;

    pub(super) fn driver() -> Result<Driver, DriverError> {
        result::init()?;
        let mut version = 0;
        // SAFETY: the pointer is to a local.
        unsafe { sys::cuDriverGetVersion(&mut version) }.result()?;
        let version = u32::try_from(version).unwrap_or(0);
        let cards = (0..result::device::get_count()?).map(card).collect::<Result<_, _>>()?;
        Ok(Driver { cuda: (version / 1000, version % 1000 / 10), cards })
    }

    fn card(number: i32) -> Result<Card, DriverError> {
        let device = result::device::get(number)?;
        let part = |attribute| {
            // SAFETY: the device was given by the driver.
            let value = unsafe { result::device::get_attribute(device, attribute) };
            value.map(|value| u32::try_from(value).unwrap_or(0))
        };
        let capability = (
            part(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            part(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        // SAFETY: as above.
        let memory = unsafe { result::device::total_mem(device)? } as u64;
        Ok(Card { name: result::device::get_name(device)?, capability, memory })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_was_found_and_what_to_do() {
        let card = |name: &str, capability| Card { name: name.into(), capability, memory: 80 << 30 };
        let driver = Driver { cuda: (12, 4), cards: vec![card("A100", (8, 0)), card("T4", (7, 5))] };
        for (error, words) in [
            ("DriverError(CUDA_ERROR_STUB_LIBRARY, \"..\")", vec!["stub", "install", "LD_LIBRARY_PATH"]),
            ("DriverError(CUDA_ERROR_SHARED_OBJECT_INIT_FAILED)", vec!["no driver", "libcuda.so.1", "580"]),
            ("DriverError(CUDA_ERROR_NO_DEVICE, \"..\")", vec!["no card", "CUDA_VISIBLE_DEVICES"]),
            ("CUDA_ERROR_INVALID_DEVICE", vec!["2 cards", "cuda:1"]),
            ("CUDA_ERROR_UNSUPPORTED_PTX_VERSION", vec!["knows CUDA 12.4", "too old", "580"]),
            ("CUDA_ERROR_NO_BINARY_FOR_GPU", vec!["A100 (8.0)", "T4 (7.5)", "CUDA_COMPUTE_CAP"]),
            ("CUDA_ERROR_OUT_OF_MEMORY", vec!["memory of the card is full", "nvidia-smi"]),
            ("CUDA_ERROR_LAUNCH_FAILED", vec!["CUDA_ERROR_LAUNCH_FAILED", "nvidia-smi"]),
        ] {
            let text = explain(error, Some(&driver));
            for word in words {
                assert!(text.contains(word), "{error}: {text}");
            }
        }
        assert!(explain("CUDA_ERROR_INVALID_DEVICE", None).contains("no card of that number"));
        assert!(!explain("CUDA_ERROR_UNSUPPORTED_PTX_VERSION", None).contains("knows"));
        for (error, full) in [("CUBLAS_STATUS_ALLOC_FAILED", true), ("CUDA_ERROR_NO_DEVICE", false)] {
            assert_eq!(is_out_of_memory(error), full, "{error}");
        }
    }

    #[test]
    fn missing_libraries_are_named_and_the_driver_comes_first() {
        let files = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(say_missing(&[]), None);
        let text = say_missing(&files(&["libcublas.so.13", "libcudnn.so.9"])).unwrap();
        assert!(
            text.contains("libcublas.so.13, libcudnn.so.9") && text.contains("LD_LIBRARY_PATH"),
            "{text}"
        );
        let text = say_missing(&files(&["libcuda.so.1", "libcudnn.so.9"])).unwrap();
        assert!(text.contains("no driver") && !text.contains("libcudnn"), "{text}");
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_build_without_cuda_says_so() {
        assert!(driver().unwrap_err().contains("--features cudnn"));
        assert_eq!(built_for(), None);
    }
}
