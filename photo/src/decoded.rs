//! What a decoder hands on, and what decoders share.

use image::metadata::Orientation;
use memmap2::MmapMut;

use crate::error::Error;
use crate::reduce::Square;

/// What is taken from an upload; nothing else of it goes on.
#[derive(Debug)]
pub(crate) struct Photo {
    /// As stored: in the colours of `icc` and not turned yet.
    pub(crate) square: Square,
    pub(crate) icc: Option<Vec<u8>>,
    pub(crate) orientation: Orientation,
}

impl Photo {
    /// Whether width and height change places when the photo is turned upright.
    pub(crate) fn swaps_sides(&self) -> bool {
        matches!(
            self.orientation,
            Orientation::Rotate90
                | Orientation::Rotate270
                | Orientation::Rotate90FlipH
                | Orientation::Rotate270FlipH
        )
    }
}

/// Room for a whole picture, all 0: pages that go back to the system as soon as they are dropped. An allocator keeps
/// them for later, and the next picture seldom fits into them.
pub(crate) fn room(bytes: usize) -> Result<MmapMut, Error> {
    // The system has no memory to give.
    let room = MmapMut::map_anon(bytes).map_err(|_| Error::Busy)?;
    // A picture is written from its first byte to its last; where the system has no large pages, small ones do.
    #[cfg(target_os = "linux")]
    let _ = room.advise(memmap2::Advice::HugePage);
    Ok(room)
}

/// The orientation that EXIF gives; upright where it is broken or silent.
pub(crate) fn orientation(exif: &[u8]) -> Orientation {
    let tiff = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    Orientation::from_exif_chunk(tiff).unwrap_or(Orientation::NoTransforms)
}
