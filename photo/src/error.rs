//! Why a photo cannot be used.

use crate::limits::{MAX_BYTES, MAX_MEGAPIXELS, MAX_SIDE, MIN_SIDE};

/// Why a photo cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There are no bytes.
    #[error("the photo is empty")]
    Empty,
    /// There are more than [`MAX_BYTES`].
    #[error("the photo has more than {MAX_BYTES} bytes")]
    TooManyBytes,
    /// The bytes are an image of a kind that is not accepted.
    #[error("{0} photos are not supported")]
    UnsupportedFormat(&'static str),
    /// The bytes are no image that is known.
    #[error("the photo is of no known format")]
    UnknownFormat,
    /// There are more than [`MAX_MEGAPIXELS`].
    #[error("the photo has more than {MAX_MEGAPIXELS} megapixels")]
    TooManyPixels,
    /// A side has more than [`MAX_SIDE`] pixels.
    #[error("the photo has a side of more than {MAX_SIDE} pixels")]
    TooLarge,
    /// The shorter side has fewer than [`MIN_SIDE`] pixels.
    #[error("the photo has a side of fewer than {MIN_SIDE} pixels")]
    TooSmall,
    /// The bytes break their format's rules, or the decoder failed on them.
    #[error("the photo is damaged")]
    Damaged,
    /// Too many photos are being processed.
    #[error("too many photos are being processed")]
    Busy,
}
