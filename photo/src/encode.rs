//! Encodes the renditions. The encoders receive only pixels, so they write no metadata.

use bytes::Bytes;
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use webp::WebPConfig;

use crate::error::Error;
use crate::reduce::{LARGEST, Square, smaller};

/// At these qualities a face in a list shows no artefacts.
const WEBP_QUALITY: f32 = 82.0;
const JPEG_QUALITY: u8 = 88;
/// The effort of the WebP encoder, 0 to 6. For the largest rendition, half of the default takes half of the time and makes
/// the file a twentieth larger. Lists show many small renditions, so these get the full effort.
const EFFORT: i32 = 4;
const EFFORT_AT_LARGEST: i32 = 2;

/// The WebP renditions: the name of the file, and the pixels of a side.
const WEBPS: [(&str, u32); 5] = [
    ("40.webp", 40),
    ("76.webp", 76),
    ("96.webp", 96),
    ("192.webp", 192),
    ("512.webp", 512),
];

/// A photo at one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendition {
    /// The name of its file, such as `96.webp`.
    pub name: &'static str,
    /// The side in pixels that the name states.
    pub label: u32,
    /// The real side in pixels. It is less than `label` if the source is smaller.
    pub side: u32,
    /// Its media type.
    pub media_type: &'static str,
    /// The encoded image.
    pub bytes: Bytes,
}

/// All renditions of an upright sRGB square.
pub(crate) fn renditions(square: &Square) -> Result<Vec<Rendition>, Error> {
    let mut renditions = Vec::with_capacity(WEBPS.len() + 1);
    for (name, label) in WEBPS {
        let small = smaller(square, label.min(square.side))?;
        let bytes = webp(&small)?;
        renditions.push(Rendition {
            name,
            label,
            side: small.side,
            media_type: "image/webp",
            bytes,
        });
    }
    let label = 512;
    let small = smaller(square, label.min(square.side))?;
    let bytes = jpeg(&small)?;
    renditions.push(Rendition {
        name: "512.jpg",
        label,
        side: small.side,
        media_type: "image/jpeg",
        bytes,
    });
    Ok(renditions)
}

fn webp(square: &Square) -> Result<Bytes, Error> {
    let side = square.side;
    let mut config = WebPConfig::new().map_err(|()| {
        tracing::warn!("The WebP encoder has an unexpected version");
        Error::Damaged
    })?;
    config.quality = WEBP_QUALITY;
    config.method = if side == LARGEST {
        EFFORT_AT_LARGEST
    } else {
        EFFORT
    };
    let encoded = if square.pixels.iter().all(|pixel| pixel[3] == 255) {
        let opaque: Vec<u8> = square
            .pixels
            .iter()
            .flat_map(|&[r, g, b, _]| [r, g, b])
            .collect();
        ::webp::Encoder::from_rgb(&opaque, side, side).encode_advanced(&config)
    } else {
        ::webp::Encoder::from_rgba(square.pixels.as_flattened(), side, side)
            .encode_advanced(&config)
    };
    let encoded = encoded.map_err(|error| {
        tracing::warn!(?error, "A WebP rendition could not be encoded");
        Error::Damaged
    })?;
    Ok(Bytes::copy_from_slice(&encoded))
}

/// JPEG has no alpha, so the photo is drawn on white.
fn jpeg(square: &Square) -> Result<Bytes, Error> {
    let flat: Vec<u8> = square
        .pixels
        .iter()
        .flat_map(|&pixel| on_white(pixel))
        .collect();
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY);
    encoder
        .encode(&flat, square.side, square.side, ExtendedColorType::Rgb8)
        .map_err(|error| {
            tracing::warn!(%error, "A JPEG rendition could not be encoded");
            Error::Damaged
        })?;
    Ok(bytes.into())
}

fn on_white([r, g, b, alpha]: [u8; 4]) -> [u8; 3] {
    let through = |colour: u8| {
        let light = u32::from(colour) * u32::from(alpha) + 255 * u32::from(255 - alpha);
        u8::try_from((light + 127) / 255).unwrap_or(u8::MAX)
    };
    [through(r), through(g), through(b)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reduce::Model;
    use crate::samples::distance;

    fn square(side: u32, pixel: impl Fn(u32, u32) -> [u8; 4]) -> Square {
        let pixels = (0..side)
            .flat_map(|y| (0..side).map(move |x| (x, y)))
            .map(|(x, y)| pixel(x, y))
            .collect();
        Square {
            side,
            model: Model::Rgba,
            pixels,
        }
    }

    #[test]
    fn webp_keeps_alpha_and_jpeg_lies_on_white() {
        let half = square(120, |x, _| {
            if x < 60 {
                [200, 40, 40, 255]
            } else {
                [0, 0, 255, 0]
            }
        });
        for rendition in renditions(&half).expect("it can be encoded") {
            let image = image::load_from_memory(&rendition.bytes)
                .expect("it can be decoded")
                .into_rgba8();
            let (left, right) = (
                image.get_pixel(2, 20).0,
                image.get_pixel(rendition.side - 3, 20).0,
            );
            assert!(
                distance(&left, &[200, 40, 40, 255]) <= 8,
                "{}: {left:?}",
                rendition.name
            );
            if rendition.media_type == "image/jpeg" {
                assert!(distance(&right, &[255; 4]) <= 4, "{right:?}");
            } else {
                assert_eq!(right[3], 0, "{}", rendition.name);
            }
        }
    }

    #[test]
    fn half_transparent_colours_mix_with_white() {
        assert_eq!(on_white([200, 100, 0, 255]), [200, 100, 0]);
        assert_eq!(on_white([200, 100, 0, 0]), [255; 3]);
        assert_eq!(on_white([200, 100, 0, 51]), [244, 224, 204]);
    }

    #[test]
    fn opaque_photos_have_no_alpha() {
        for rendition in renditions(&square(96, |_, _| [1, 2, 3, 255])).expect("it can be encoded")
        {
            let image = image::load_from_memory(&rendition.bytes).expect("it can be decoded");
            assert!(!image.color().has_alpha(), "{}", rendition.name);
        }
    }
}
