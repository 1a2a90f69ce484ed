//! The content of an upload's header, and helpers for the formats that read it.

use crate::error::Error;
use crate::limits::{MAX_MEGAPIXELS, MAX_SIDE, MIN_SIDE};

/// An accepted format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// JPEG.
    Jpeg,
    /// PNG.
    Png,
    /// WebP.
    WebP,
    /// GIF.
    Gif,
}

impl Format {
    /// The media type, such as `image/jpeg`.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::WebP => "image/webp",
            Self::Gif => "image/gif",
        }
    }
}

/// The format, the size and the memory needs of an upload, from its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) format: Format,
    /// As stored, before the orientation is applied.
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// The peak memory of decoding in bytes.
    pub(crate) peak_bytes: u64,
}

impl Source {
    /// [`Self::peak_bytes`] in whole MiB.
    pub(crate) fn peak_mib(&self) -> u32 {
        u32::try_from(self.peak_bytes.div_ceil(1024 * 1024)).unwrap_or(u32::MAX)
    }
}

/// Refuses a size outside the limits. The check does not depend on the orientation.
pub(crate) fn check_size(width: u32, height: u32) -> Result<(), Error> {
    check_most(width, height)?;
    if width.min(height) < MIN_SIDE {
        return Err(Error::TooSmall);
    }
    Ok(())
}

/// Checks only the upper limits, for a frame inside a picture.
pub(crate) fn check_most(width: u32, height: u32) -> Result<(), Error> {
    if width == 0 || height == 0 {
        return Err(Error::Damaged);
    }
    if width.max(height) > MAX_SIDE {
        return Err(Error::TooLarge);
    }
    if u64::from(width) * u64::from(height) > u64::from(MAX_MEGAPIXELS) * 1_000_000 {
        return Err(Error::TooManyPixels);
    }
    Ok(())
}

/// The `N` bytes at `at`, or [`Error::Damaged`] if the file ends earlier.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Error> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .ok_or(Error::Damaged)
}

/// The `length` bytes at `at`, or [`Error::Damaged`] if the file ends earlier.
pub(crate) fn slice(bytes: &[u8], at: usize, length: usize) -> Result<&[u8], Error> {
    at.checked_add(length)
        .and_then(|end| bytes.get(at..end))
        .ok_or(Error::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked_at_their_edges() {
        assert_eq!(check_size(MIN_SIDE, MIN_SIDE), Ok(()));
        assert_eq!(check_size(MIN_SIDE - 1, 500), Err(Error::TooSmall));
        assert_eq!(check_size(500, MIN_SIDE - 1), Err(Error::TooSmall));
        assert_eq!(check_size(MAX_SIDE, 4000), Ok(()));
        assert_eq!(check_size(MAX_SIDE + 1, 4000), Err(Error::TooLarge));
        assert_eq!(check_size(4000, MAX_SIDE + 1), Err(Error::TooLarge));
        assert_eq!(check_size(10_000, 5000), Ok(()));
        assert_eq!(check_size(10_000, 5001), Err(Error::TooManyPixels));
        assert_eq!(check_size(0, 100), Err(Error::Damaged));
    }
}
