//! Rotates the square upright and converts it to sRGB.

use std::panic::{AssertUnwindSafe, catch_unwind};

use image::{DynamicImage, RgbaImage};
use moxcms::{ColorProfile, DataColorSpace, Layout, ParsingOptions, TransformOptions};

use crate::decoded::Photo;
use crate::error::Error;
use crate::reduce::{Model, Square};

/// Larger profiles are ignored. The largest profiles for printing are smaller than this.
const MOST_PROFILE_BYTES: usize = 4 * 1024 * 1024;

/// The square as RGBA in sRGB, upright.
pub(crate) fn to_srgb(photo: Photo) -> Result<Square, Error> {
    let Photo {
        square,
        icc,
        orientation,
    } = photo;
    let Square {
        side,
        model,
        pixels,
    } = square;
    // A profile is untrusted input that the library interprets. A broken one is ignored, also if it panics.
    let converted = icc.and_then(|icc| {
        catch_unwind(AssertUnwindSafe(|| convert(&icc, model, &pixels)))
            .ok()
            .flatten()
    });
    let pixels = match (converted, model) {
        (Some(pixels), _) => pixels,
        (None, Model::Rgba) => pixels,
        (None, Model::Cmyk) => pixels.into_iter().map(without_profile).collect(),
    };
    let image = RgbaImage::from_raw(side, side, pixels.into_flattened()).ok_or(Error::Damaged)?;
    let mut image = DynamicImage::ImageRgba8(image);
    image.apply_orientation(orientation);
    let pixels = image.into_bytes().as_chunks().0.to_vec();
    Ok(Square {
        side,
        model: Model::Rgba,
        pixels,
    })
}

/// Converts inks to light when the file has no colour profile.
fn without_profile([c, m, y, k]: [u8; 4]) -> [u8; 4] {
    let through = |ink: u8| {
        let light = u32::from(255 - ink) * u32::from(255 - k);
        u8::try_from((light + 127) / 255).unwrap_or(u8::MAX)
    };
    [through(c), through(m), through(y), 255]
}

/// Returns `None` if the profile is broken or describes another colour model.
fn convert(icc: &[u8], model: Model, pixels: &[[u8; 4]]) -> Option<Vec<[u8; 4]>> {
    let options = ParsingOptions {
        max_profile_size: MOST_PROFILE_BYTES,
        ..ParsingOptions::default()
    };
    let profile = ColorProfile::new_from_slice_with_options(icc, options).ok()?;
    let srgb = ColorProfile::new_srgb();
    let mut converted = vec![[0, 0, 0, 255]; pixels.len()];
    match (profile.color_space, model) {
        (DataColorSpace::Rgb, Model::Rgba) => {
            let transform = profile
                .create_transform_8bit(
                    Layout::Rgba,
                    &srgb,
                    Layout::Rgba,
                    TransformOptions::default(),
                )
                .ok()?;
            transform
                .transform(pixels.as_flattened(), converted.as_flattened_mut())
                .ok()?;
        }
        (DataColorSpace::Gray, Model::Rgba) => {
            if pixels.iter().any(|&[r, g, b, _]| r != g || g != b) {
                return None;
            }
            let gray: Vec<_> = pixels.iter().map(|pixel| pixel[0]).collect();
            let transform = profile
                .create_transform_8bit(
                    Layout::Gray,
                    &srgb,
                    Layout::Rgba,
                    TransformOptions::default(),
                )
                .ok()?;
            transform
                .transform(&gray, converted.as_flattened_mut())
                .ok()?;
        }
        (DataColorSpace::Cmyk, Model::Cmyk) => {
            let transform = profile
                .create_transform_8bit(
                    Layout::Rgba,
                    &srgb,
                    Layout::Rgb,
                    TransformOptions::default(),
                )
                .ok()?;
            let mut colours = vec![[0; 3]; pixels.len()];
            transform
                .transform(pixels.as_flattened(), colours.as_flattened_mut())
                .ok()?;
            converted = colours
                .into_iter()
                .map(|[r, g, b]| [r, g, b, 255])
                .collect();
        }
        _ => return None,
    }
    if model == Model::Rgba {
        for (to, from) in converted.iter_mut().zip(pixels) {
            to[3] = from[3];
        }
    }
    Some(converted)
}

#[cfg(test)]
mod tests {
    use image::metadata::Orientation;

    use super::*;
    use crate::samples::{BLUE, GREEN, RED, YELLOW, distance};

    fn photo(model: Model, side: u32, pixels: Vec<[u8; 4]>, icc: Option<Vec<u8>>) -> Photo {
        let square = Square {
            side,
            model,
            pixels,
        };
        Photo {
            square,
            icc,
            orientation: Orientation::NoTransforms,
        }
    }

    fn one(model: Model, pixel: [u8; 4], icc: Option<Vec<u8>>) -> [u8; 4] {
        to_srgb(photo(model, 1, vec![pixel], icc))
            .expect("the sizes fit")
            .pixels[0]
    }

    fn display_p3() -> Vec<u8> {
        ColorProfile::new_display_p3()
            .encode()
            .expect("the profile is good")
    }

    #[test]
    fn colours_of_a_wider_gamut_are_converted() {
        // The reddest red of sRGB is this in Display P3.
        let red = one(Model::Rgba, [234, 51, 35, 200], Some(display_p3()));
        assert!(distance(&red, &[255, 0, 0, 200]) <= 4, "{red:?}");
        let gray = one(Model::Rgba, [120, 120, 120, 255], Some(display_p3()));
        assert!(distance(&gray, &[120, 120, 120, 255]) <= 1, "{gray:?}");
        assert_eq!(
            one(Model::Rgba, [234, 51, 35, 200], None),
            [234, 51, 35, 200]
        );
    }

    #[test]
    fn gray_profiles_are_applied_to_gray() {
        let linear = ColorProfile::new_gray_with_gamma(1.0)
            .encode()
            .expect("the profile is good");
        let gray = one(Model::Rgba, [55, 55, 55, 9], Some(linear.clone()));
        assert!(distance(&gray, &[128, 128, 128, 9]) <= 3, "{gray:?}");
        assert_eq!(
            one(Model::Rgba, [55, 56, 55, 9], Some(linear)),
            [55, 56, 55, 9]
        );
    }

    #[test]
    fn broken_profiles_and_those_for_other_colours_are_ignored() {
        let good = display_p3();
        let pixel = [234, 51, 35, 255];
        for length in [0, 1, 100, 127, 128, 132, good.len() / 2] {
            let cut = one(Model::Rgba, pixel, Some(good[..length].to_vec()));
            assert_eq!(cut, pixel, "the first {length} bytes");
        }
        // What a flipped byte does to the colours is unknown, but it never fails.
        for at in 0..good.len() {
            let mut broken = good.clone();
            broken[at] ^= 0x55;
            one(Model::Rgba, pixel, Some(broken));
        }
        assert_eq!(one(Model::Cmyk, [0, 0, 0, 255], Some(good)), [0, 0, 0, 255]);
        assert_eq!(
            one(Model::Rgba, pixel, Some(vec![0; MOST_PROFILE_BYTES + 1])),
            pixel
        );
    }

    #[test]
    fn inks_without_profile_take_light_away() {
        assert_eq!(one(Model::Cmyk, [0, 0, 0, 0], None), [255; 4]);
        assert_eq!(one(Model::Cmyk, [0, 0, 0, 255], None), [0, 0, 0, 255]);
        assert_eq!(one(Model::Cmyk, [255, 0, 0, 0], None), [0, 255, 255, 255]);
        assert_eq!(
            one(Model::Cmyk, [0, 255, 51, 127], None),
            [128, 0, 102, 255]
        );
    }

    #[test]
    fn all_eight_orientations_are_undone() {
        let opaque = |[r, g, b]: [u8; 3]| [r, g, b, 255];
        // What is seen is red and green above blue and yellow, however it is stored.
        let stored = [
            (1, [RED, GREEN, BLUE, YELLOW]),
            (2, [GREEN, RED, YELLOW, BLUE]),
            (3, [YELLOW, BLUE, GREEN, RED]),
            (4, [BLUE, YELLOW, RED, GREEN]),
            (5, [RED, BLUE, GREEN, YELLOW]),
            (6, [GREEN, YELLOW, RED, BLUE]),
            (7, [YELLOW, GREEN, BLUE, RED]),
            (8, [BLUE, RED, YELLOW, GREEN]),
        ];
        for (exif, stored) in stored {
            let mut photo = photo(Model::Rgba, 2, stored.map(opaque).to_vec(), None);
            photo.orientation = crate::decoded::orientation(&crate::samples::exif(exif));
            assert_eq!(photo.swaps_sides(), exif > 4);
            let seen = to_srgb(photo).expect("the sizes fit").pixels;
            assert_eq!(
                seen,
                [RED, GREEN, BLUE, YELLOW].map(opaque),
                "orientation {exif}"
            );
        }
    }
}
