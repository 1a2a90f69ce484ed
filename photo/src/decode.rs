//! Decodes an upload to the middle square of its picture.

use crate::decoded::Photo;
use crate::error::Error;
use crate::source::{Format, Source};
use crate::{gif, jpeg, png, webp};

pub(crate) fn decode(bytes: &[u8], source: &Source) -> Result<Photo, Error> {
    match source.format {
        Format::Jpeg => jpeg::decode(bytes, source),
        Format::Png => png::decode(bytes, source),
        Format::WebP => webp::decode(bytes, source),
        Format::Gif => gif::decode(bytes, source),
    }
}
