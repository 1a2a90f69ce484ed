//! The result of a decoder, and the helpers that all decoders use.

use image::metadata::Orientation;
use memmap2::MmapMut;

use crate::error::Error;
use crate::reduce::Square;

/// A decoded upload. Everything else in the upload is discarded.
#[derive(Debug)]
pub(crate) struct Photo {
    /// As stored: in the colours of `icc`, before the orientation is applied.
    pub(crate) square: Square,
    pub(crate) icc: Option<Vec<u8>>,
    pub(crate) orientation: Orientation,
}

impl Photo {
    /// Whether the orientation swaps width and height.
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

/// Allocates zeroed memory for a whole picture. The pages return to the system when they are dropped. An allocator would
/// keep them, and the next picture would seldom fit into them.
pub(crate) fn room(bytes: usize) -> Result<MmapMut, Error> {
    // The system is out of memory.
    let room = MmapMut::map_anon(bytes).map_err(|_| Error::Busy)?;
    // A picture is written from the first byte to the last. A system without large pages uses small ones.
    #[cfg(target_os = "linux")]
    let _ = room.advise(memmap2::Advice::HugePage);
    Ok(room)
}

/// The orientation in EXIF data. A missing or broken one means upright.
pub(crate) fn orientation(exif: &[u8]) -> Orientation {
    let tiff = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    Orientation::from_exif_chunk(tiff).unwrap_or(Orientation::NoTransforms)
}
