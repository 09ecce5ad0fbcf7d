//! The error of this crate.

/// What can go wrong while views are set up or computed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The sizes of an image do not fit together.
    #[error("image of {width}x{height} with {channels} channels and {bytes} bytes: {reason}")]
    Image {
        /// The width in pixels.
        width: usize,
        /// The height in pixels.
        height: usize,
        /// The number of channels.
        channels: usize,
        /// The number of bytes that were given.
        bytes: usize,
        /// What is wrong, and what is accepted.
        reason: &'static str,
    },
    /// The sizes of a series do not fit together, or it has gaps.
    #[error("series of {channels} channels and {length} steps with {numbers} numbers: {reason}")]
    Series {
        /// The number of channels.
        channels: usize,
        /// The number of steps.
        length: usize,
        /// How many numbers were given.
        numbers: usize,
        /// What is wrong, and what is accepted.
        reason: String,
    },
    /// A setting of a recipe is outside of its range.
    #[error("{key} = {value}: {reason}")]
    Config {
        /// The name of the setting.
        key: String,
        /// Its value, as text.
        value: String,
        /// Why it is refused, and what is accepted.
        reason: String,
    },
    /// There is no preset of this name.
    #[error("there is no augmentation preset `{name}`; the presets are: {known}")]
    UnknownPreset {
        /// The name that was asked for.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// A sample has another number of channels than the recipe.
    #[error(
        "the sample has {image} channels, the recipe {recipe} (images: the length of `mean` and `std`); \
         change the recipe, or convert the image with `Image::to_channels`"
    )]
    Channels {
        /// The channels of the sample.
        image: usize,
        /// The channels of the recipe.
        recipe: usize,
    },
    /// A recipe has no view of this number.
    #[error("view {view} was asked for, the recipe has {views}")]
    View {
        /// The view that was asked for, from 0.
        view: usize,
        /// The number of views.
        views: usize,
    },
    /// An output slice has the wrong length.
    #[error("the output holds {got} numbers, the view needs {expected} (channels x height x width)")]
    Output {
        /// The length that is needed.
        expected: usize,
        /// The length that was given.
        got: usize,
    },
    /// A view, or what was drawn for it, that tables do not describe ([`ViewTables`](crate::ViewTables)).
    #[error("view {view} cannot be computed from tables: {reason}")]
    Tables {
        /// The view, from 0.
        view: usize,
        /// What is not described.
        reason: String,
    },
    /// A crop box reaches beyond its image.
    #[error("the crop {crop} reaches beyond the image of {width}x{height}, or is empty")]
    CropBox {
        /// The box, as text.
        crop: String,
        /// The width of the image.
        width: usize,
        /// The height of the image.
        height: usize,
    },
}

impl Error {
    pub(crate) fn config(key: impl Into<String>, value: impl ToString, reason: impl Into<String>) -> Self {
        Self::Config { key: key.into(), value: value.to_string(), reason: reason.into() }
    }
}

/// The result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
