//! Generates the photos for uploads.

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ImageEncoder as _, RgbImage};

/// The JPEG quality at which 48 megapixels fit into the 10 MiB of an upload.
const QUALITY: u8 = 50;

/// An image that compresses like a photo: neither flat nor noise.
fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let wave = |n: u32| u8::try_from((n / 3 + (x * y / 64) % 17) % 256).unwrap_or_default();
        image::Rgb([wave(x), wave(y), wave(x + y)])
    })
}

pub(crate) fn jpeg(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, QUALITY)
        .encode_image(&picture(width, height))
        .expect("a vector takes any image");
    bytes
}

pub(crate) fn png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Sub)
        .write_image(
            &picture(width, height),
            width,
            height,
            image::ExtendedColorType::Rgb8,
        )
        .expect("a vector takes any image");
    bytes
}
