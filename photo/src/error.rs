//! The reasons for which a photo is refused.

use crate::limits::{MAX_BYTES, MAX_MEGAPIXELS, MAX_SIDE, MIN_SIDE};

/// The reason for which a photo is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The upload is empty.
    #[error("the photo is empty")]
    Empty,
    /// The upload has more than [`MAX_BYTES`].
    #[error("the photo has more than {MAX_BYTES} bytes")]
    TooManyBytes,
    /// The upload is an image in a known format that is not accepted.
    #[error("{0} photos are not supported")]
    UnsupportedFormat(&'static str),
    /// The upload is not an image in a known format.
    #[error("the format of the photo is unknown")]
    UnknownFormat,
    /// The picture has more than [`MAX_MEGAPIXELS`].
    #[error("the photo has more than {MAX_MEGAPIXELS} megapixels")]
    TooManyPixels,
    /// A side is longer than [`MAX_SIDE`] pixels.
    #[error("the photo has a side of more than {MAX_SIDE} pixels")]
    TooLarge,
    /// The shorter side is shorter than [`MIN_SIDE`] pixels.
    #[error("the photo has a side of fewer than {MIN_SIDE} pixels")]
    TooSmall,
    /// The upload violates its format, or the decoder failed.
    #[error("the photo is damaged")]
    Damaged,
    /// Too many photos are being processed. The client may try again later.
    #[error("too many photos are being processed")]
    Busy,
}
