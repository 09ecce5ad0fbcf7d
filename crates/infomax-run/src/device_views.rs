//! Views that are made on the card, of images that all lie in its memory.

use crate::config::{DataConfig, ViewsOn};
use crate::{Error, Result};
use candle_core::Device;
use infomax_augment::Augmenter;
use infomax_data::{Dataset, Loader};

/// Lets a loader's views be made on the device, where the configuration asks for it or leaves it open and the device can;
/// with what the user should know.
///
/// # Errors
/// `data.views = "device"` where it cannot be: [`Error::Config`] with the reason.
pub(crate) fn attach(
    loader: Loader,
    config: &DataConfig,
    images: &dyn Dataset,
    augmenter: &Augmenter,
    device: &Device,
) -> Result<(Loader, Option<String>)> {
    if config.views == ViewsOn::Host || config.views == ViewsOn::Auto && !device.is_cuda() {
        return Ok((loader, None));
    }
    match renderer(images, augmenter, device) {
        Ok(renderer) => {
            let extent = renderer.extent();
            let note = format!(
                "views are made on the device, from {} images of {}x{} in its memory (data.views = \"host\" makes them here)",
                images.len(),
                extent.0,
                extent.1
            );
            Ok((loader.with_renderer(renderer)?, Some(note)))
        }
        Err(reason) if config.views == ViewsOn::Device => {
            let text =
                format!("data.views = \"device\": {reason}; \"auto\" makes the views on the host then");
            Err(Error::Config(text))
        }
        Err(reason) => Ok((loader, Some(format!("views are made on the host: {reason}")))),
    }
}

type Renderer = std::sync::Arc<dyn infomax_data::Renderer>;

#[cfg(not(feature = "cuda"))]
fn renderer(_: &dyn Dataset, _: &Augmenter, _: &Device) -> std::result::Result<Renderer, String> {
    Err("this build has no CUDA".into())
}

#[cfg(feature = "cuda")]
fn renderer(
    images: &dyn Dataset,
    augmenter: &Augmenter,
    device: &Device,
) -> std::result::Result<Renderer, String> {
    let views = DeviceViews::new(images, augmenter, device)?;
    Ok(std::sync::Arc::new(views))
}

#[cfg(feature = "cuda")]
pub use on_device::DeviceViews;

#[cfg(feature = "cuda")]
mod on_device {
    use candle_core::{Device, Tensor};
    use infomax_augment::{Augmenter, Image, Scratch, ViewParams, ViewTables};
    use infomax_core::Key;
    use infomax_data::{Dataset, Renderer};
    use infomax_kernels::cuda::ViewKernel;

    /// The most bytes of images that are put into the memory of a card.
    const MOST: usize = 4 << 30;
    /// Views that are compared with the host's before any is used.
    const COMPARED: usize = 64;

    /// All images of a data set in the memory of a card, and what makes views of them there.
    #[derive(Debug)]
    pub struct DeviceViews {
        images: Tensor,
        extent: (usize, usize),
        views: Vec<(ViewTables, ViewKernel)>,
    }

    impl DeviceViews {
        /// Reads all images, and compares some views with those of the host, bit for bit.
        ///
        /// # Errors
        /// In words, why the views of these images cannot be made there.
        pub fn new(images: &dyn Dataset, augmenter: &Augmenter, device: &Device) -> Result<Self, String> {
            if !device.is_cuda() {
                return Err("the device is no CUDA device".into());
            }
            // Where sizes are known, nothing needs to be read to see that they differ.
            if let Some(sizes) = images.sizes().filter(|sizes| sizes.least != sizes.largest) {
                return Err(format!("the images differ in size ({sizes})"));
            }
            let first = images.image(0).map_err(|error| error.to_string())?;
            let extent @ (width, height) = (first.width(), first.height());
            let each = width * height * 3;
            let bytes = images.len().saturating_mul(each);
            if bytes > MOST {
                return Err(format!("the images take {} MiB, more than {}", bytes >> 20, MOST >> 20));
            }
            let mut views = Vec::new();
            for view in 0..augmenter.views() {
                let tables = ViewTables::new(augmenter, view, extent).map_err(|error| error.to_string())?;
                let (axes, normalized) = (tables.axes(), tables.normalized());
                let kernel = ViewKernel::new(device, extent, tables.size(), axes, normalized)
                    .map_err(|error| error.to_string())?;
                views.push((tables, kernel));
            }
            let all = pixels(images, extent)?;
            let images_there = Tensor::from_vec(all, (images.len(), height, width, 3), device)
                .map_err(|error| format!("the images do not fit into the memory of the card ({error})"))?;
            let this = Self { images: images_there, extent, views };
            this.compare(images, augmenter)?;
            Ok(this)
        }

        /// A kernel that is wrong on this card must not train anything.
        fn compare(&self, images: &dyn Dataset, augmenter: &Augmenter) -> Result<(), String> {
            let said = |error: &dyn std::fmt::Display| {
                format!("the views of the card could not be checked ({error})")
            };
            let (width, height) = self.extent;
            let mut scratch = Scratch::default();
            for (view, (tables, _)) in self.views.iter().enumerate() {
                let (mut samples, mut drawn, mut want) = (Vec::new(), Vec::new(), Vec::new());
                for i in 0..COMPARED {
                    let at = i * images.len() / COMPARED;
                    let mut rng = Key::new(0).fold_named("compare").fold_in(i as u64).rng();
                    let params = augmenter.draw(view, width, height, &mut rng).map_err(|e| said(&e))?;
                    let mut out = vec![0f32; 3 * tables.size() * tables.size()];
                    let image = image(images, at, self.extent)?;
                    augmenter.render(view, &image, &params, &mut scratch, &mut out).map_err(|e| said(&e))?;
                    samples.push(at as u64);
                    drawn.push(params);
                    want.extend(out);
                }
                let got = self.render(view, &samples, &drawn).map_err(|e| said(&e))?;
                let got = got.flatten_all().and_then(|t| t.to_vec1::<f32>()).map_err(|e| said(&e))?;
                if got.iter().zip(&want).any(|(a, b)| a.to_bits() != b.to_bits()) {
                    return Err("the views of this card differ from those of the host, which is a fault: please report it".into());
                }
            }
            Ok(())
        }
    }

    /// The pixels of all images, read by as many threads as there are cores.
    fn pixels(images: &dyn Dataset, extent: (usize, usize)) -> Result<Vec<u8>, String> {
        let each = extent.0 * extent.1 * 3;
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let share = images.len().div_ceil(threads).max(1);
        let mut all = vec![0; images.len() * each];
        let fill = &|part: usize, to: &mut [u8]| {
            to.chunks_exact_mut(each).enumerate().try_for_each(|(i, to)| {
                to.copy_from_slice(image(images, part * share + i, extent)?.data());
                Ok::<(), String>(())
            })
        };
        std::thread::scope(|scope| {
            let parts = all.chunks_mut(share * each).enumerate();
            let readers: Vec<_> = parts.map(|(part, to)| scope.spawn(move || fill(part, to))).collect();
            // Of several failures the first one is told.
            let ends = readers.into_iter().map(|reader| reader.join());
            ends.map(|end| end.unwrap_or_else(|_| Err("a thread that reads images ended early".into())))
                .collect::<Result<Vec<()>, String>>()
        })?;
        Ok(all)
    }

    /// An image in color, of the size that all have.
    fn image(images: &dyn Dataset, index: usize, extent: (usize, usize)) -> Result<Image, String> {
        let image = images.image(index).map_err(|error| error.to_string())?;
        let image = image.to_channels(3).map_err(|error| error.to_string())?;
        match (image.width(), image.height()) == extent {
            true => Ok(image),
            false => Err(format!("{} has another size than the first", images.place(index))),
        }
    }

    impl Renderer for DeviceViews {
        fn extent(&self) -> (usize, usize) {
            self.extent
        }

        fn render(
            &self,
            view: usize,
            samples: &[u64],
            params: &[ViewParams],
        ) -> infomax_data::Result<Tensor> {
            let Some((tables, kernel)) = self.views.get(view) else {
                let error = infomax_augment::Error::View { view, views: self.views.len() };
                return Err(error.into());
            };
            let mut words = Vec::with_capacity(samples.len() * ViewTables::WORDS);
            for (sample, params) in samples.iter().zip(params) {
                let image = u32::try_from(*sample).unwrap_or(u32::MAX);
                words.extend(tables.words(image, params)?);
            }
            Ok(kernel.render(&self.images, &words).map_err(candle_core::Error::from)?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RunConfig;
    use infomax_augment::Recipe;
    use infomax_data::LoaderConfig;

    #[test]
    fn a_device_that_cannot_is_refused_where_it_was_asked_for_and_passed_over_otherwise() {
        let mut config = RunConfig::default().data;
        (config.train_images, config.test_images) = (20, 0);
        let images = crate::Images::open(&config).unwrap().train;
        let augmenter = Augmenter::new(&Recipe::preset("vicreg-shapes").unwrap()).unwrap();
        let mut attempt = |views| {
            config.views = views;
            let settings = LoaderConfig { batch: 4, workers: 1, ..LoaderConfig::default() };
            let loader = Loader::new(images.clone(), augmenter.clone(), settings).unwrap();
            attach(loader, &config, &*images, &augmenter, &Device::Cpu).map(|(_, note)| note)
        };
        assert!(attempt(ViewsOn::Auto).unwrap().is_none());
        assert!(attempt(ViewsOn::Host).unwrap().is_none());
        let message = attempt(ViewsOn::Device).unwrap_err().to_string();
        assert!(message.contains("data.views") && message.contains("auto"), "{message}");
    }
}
