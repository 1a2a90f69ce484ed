//! How large a photo may be, and how much memory its decoding may take.

/// The most bytes an upload may have.
pub const MAX_BYTES: usize = 10 * 1024 * 1024;
/// The most pixels a photo may have, in millions.
pub const MAX_MEGAPIXELS: u32 = 50;
/// The most pixels a side may have.
pub const MAX_SIDE: u32 = 12_000;
/// The fewest pixels the shorter side may have.
pub const MIN_SIDE: u32 = 96;

/// What all decodes together may allocate at their peaks. Beside it stay the uploads that wait and
/// the rest of the process, so that everything is below 600 MiB.
pub(crate) const BUDGET_MIB: u32 = 400;
