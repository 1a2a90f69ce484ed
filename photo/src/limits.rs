//! The limits of a photo's size and of the memory for decoding.

/// The maximum number of bytes in an upload.
pub const MAX_BYTES: usize = 10 * 1024 * 1024;
/// The maximum number of pixels in a photo, in millions.
pub const MAX_MEGAPIXELS: u32 = 50;
/// The maximum length of a side in pixels.
pub const MAX_SIDE: u32 = 12_000;
/// The minimum length of the shorter side in pixels.
pub const MIN_SIDE: u32 = 96;

/// The memory that all decodes together may use at their peaks. With the waiting uploads and the rest of the process,
/// the total stays below 600 MiB.
pub(crate) const BUDGET_MIB: u32 = 400;
