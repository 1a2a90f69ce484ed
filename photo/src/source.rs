//! What the header of an upload says, and how the formats read it.

use crate::error::Error;
use crate::limits::{MAX_MEGAPIXELS, MAX_SIDE, MIN_SIDE};

/// A format that is accepted.
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
    /// Its media type, such as `image/jpeg`.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::WebP => "image/webp",
            Self::Gif => "image/gif",
        }
    }
}

/// What the header of an upload says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) format: Format,
    /// As stored: the orientation turns it later.
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// The most that decoding allocates at once.
    pub(crate) peak_bytes: u64,
}

impl Source {
    /// [`Self::peak_bytes`] in whole MiB.
    pub(crate) fn peak_mib(&self) -> u32 {
        u32::try_from(self.peak_bytes.div_ceil(1024 * 1024)).unwrap_or(u32::MAX)
    }
}

/// Refuses what is beyond the limits, whatever the orientation will be.
pub(crate) fn check_size(width: u32, height: u32) -> Result<(), Error> {
    check_most(width, height)?;
    if width.min(height) < MIN_SIDE {
        return Err(Error::TooSmall);
    }
    Ok(())
}

/// The upper limits alone, for a frame inside a picture.
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

/// The first `N` bytes at `at`, or damage where the file ends before.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Error> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .ok_or(Error::Damaged)
}

/// The `length` bytes at `at`, or damage where the file ends before.
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
