//! What of a configuration follows from the images.

use super::sections::FOLDER_BATCH;
use super::{RunConfig, Source};
use crate::methods::Method;
use crate::{Images, Result};
use infomax_augment::Recipe;
use infomax_data::Dataset;
use infomax_models::EncoderConfig;

/// Images with a shorter side of at most so many pixels are small: CIFAR, Fashion-MNIST, icons.
const SMALL: usize = 48;

/// No batch that follows from the number of images is smaller: covariances of fewer samples say little.
const SMALLEST_BATCH: usize = 32;

/// The views of photographs where nobody chose a size: what two cores train on in reasonable time.
const PHOTOGRAPHS: usize = 64;

impl RunConfig {
    /// Whether nothing is left to follow from the images.
    pub fn is_settled(&self) -> bool {
        let augment = &self.augment;
        self.data.source != Source::Folder || augment.preset.is_some() || augment.recipe.is_some()
    }

    /// A batch that a folder of few images fills, where the usual one is larger than the folder: four in an epoch, but not of
    /// fewer than 32 images if there are so many. Says what and why.
    pub(crate) fn fit_batch(&mut self, images: usize, ranks: usize) -> Option<String> {
        let usual = self.data.source == Source::Folder && self.train.batch == FOLDER_BATCH;
        if !usual || images >= FOLDER_BATCH || images < ranks.max(2) {
            return None;
        }
        let batch = (images / 4).max(SMALLEST_BATCH.min(images));
        self.train.batch = (batch / ranks * ranks).max(ranks);
        Some(format!(
            "train.batch = {}: there are {images} training images, fewer than the usual batch of {FOLDER_BATCH}; choose with \
             `--set train.batch=N`",
            self.train.batch
        ))
    }

    /// Fills in what follows from the images, and says what and why: the recipe of a folder for which none was
    /// chosen. The published recipe for CIFAR at 32 pixels where the images are small, that for ImageNet at 64
    /// pixels where they are larger; of the method, if one is named, else VICReg's.
    ///
    /// # Errors
    /// A recipe that cannot be at the size that was asked for.
    pub fn settle(&mut self, images: &Images) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        if !self.is_settled() {
            let shorter = shorter_side(&*images.train);
            let photographs = shorter.is_some_and(|side| side > SMALL);
            let size = if photographs { PHOTOGRAPHS } else { 32 };
            let preset = match &self.method {
                Some(name) => Method::named(name)?.views(!photographs),
                None if photographs => "vicreg-imagenet",
                None => "vicreg-cifar",
            };
            let seen = shorter.map_or_else(
                || "images of unknown size".to_owned(),
                |side| format!("images whose shorter side has {side} pixels"),
            );
            self.augment.preset = Some(preset.to_owned());
            self.augment.size = Some(self.augment.size.unwrap_or(size));
            notes.push(format!(
                "augment.preset = \"{preset}\" follows from {seen}; choose with `--set augment.preset=NAME` and \
                 `--set augment.size=PIXELS`"
            ));
        }
        let recipe = self.augment.resolve()?;
        let (recipe, fitted) = fit_local_views(recipe, &self.model.encoder);
        if let (Some(note), None) = (fitted, &self.augment.recipe) {
            (self.augment.preset, self.augment.size) = (None, None);
            self.augment.recipe = Some(recipe.clone());
            notes.push(note);
        }
        let views: Vec<String> = recipe
            .views
            .iter()
            .map(|view| {
                let kind = if view.local { "local " } else { "" };
                format!("{} {kind}of {}x{} pixels", view.count, view.size, view.size)
            })
            .collect();
        let of = match (&self.augment.recipe, &self.augment.preset) {
            (None, Some(preset)) => preset.as_str(),
            _ => "[augment.recipe]",
        };
        notes.push(format!("views: {} ({of})", views.join(", ")));
        if let infomax_models::EncoderConfig::Vit(vit) = &self.model.encoder
            && recipe.views.iter().any(|view| view.size != vit.image)
        {
            notes.push(format!(
                "the vision transformer has positions for {} pixels (model.encoder.image); for views of another size \
                 they are interpolated",
                vit.image
            ));
        }
        Ok(notes)
    }
}

/// Local views that the encoder takes: of whole patches for a vision transformer, of the least size that leaves a pixel
/// to the last stage for a ConvNeXt. Sizes of global views are for the user to choose: they are what evaluation sees.
fn fit_local_views(mut recipe: Recipe, encoder: &EncoderConfig) -> (Recipe, Option<String>) {
    let (unit, least) = match encoder {
        EncoderConfig::Vit(vit) => (vit.patch.max(1), vit.patch.max(1)),
        EncoderConfig::ConvNext(net) => (1, net.patch << net.blocks.len().saturating_sub(1).min(16)),
        EncoderConfig::Patches(net) => (1, net.patch + net.grid.saturating_sub(1) * net.stride),
        _ => (1, 1),
    };
    let mut changed = Vec::new();
    for view in recipe.views.iter_mut().filter(|view| view.local) {
        let size = ((view.size + unit / 2) / unit * unit).max(least);
        if size != view.size {
            changed.push(format!("{} become {size}", view.size));
            view.size = size;
        }
    }
    let note = format!(
        "local views of a size that the encoder does not take are resized (pixels): {}",
        changed.join(", ")
    );
    (recipe, (!changed.is_empty()).then_some(note))
}

/// The median of the shorter sides of a few images, spread over the data set; only headers are read where a
/// format has them.
fn shorter_side(data: &dyn Dataset) -> Option<usize> {
    const LOOK_AT: usize = 15;
    let step = (data.len() / LOOK_AT).max(1);
    let mut sides: Vec<usize> = (0..data.len())
        .step_by(step)
        .take(LOOK_AT)
        .filter_map(|index| {
            let mut side = None;
            // The size is asked for and the pixels are not: the error ends the reading.
            let _ = data.image_part(index, &mut |width, height| {
                side = Some(width.min(height));
                let (key, value, reason) =
                    ("part".into(), index.to_string(), "only the size is wanted".into());
                Err(infomax_data::Error::Config { key, value, reason })
            });
            side
        })
        .collect();
    sides.sort_unstable();
    sides.get(sides.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_images_get_a_batch_that_they_fill() {
        let folder = || RunConfig { data: Default::default(), ..RunConfig::default() }.for_folder();
        let fitted = |images, ranks| {
            let mut config = folder();
            config.data.source = Source::Folder;
            let note = config.fit_batch(images, ranks);
            assert_eq!(note.is_some(), config.train.batch != FOLDER_BATCH, "{note:?}");
            config.train.batch
        };
        assert_eq!([1000, 256, 200, 64, 20].map(|images| fitted(images, 1)), [256, 256, 50, 32, 20]);
        assert_eq!([200, 21].map(|images| fitted(images, 4)), [48, 20]);
        // Somebody's choice is left alone, and refused later.
        let mut chosen = folder();
        (chosen.data.source, chosen.train.batch) = (Source::Folder, 128);
        assert_eq!((chosen.fit_batch(64, 1), chosen.train.batch), (None, 128));
    }
}
