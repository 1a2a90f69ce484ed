//! Turns the bytes of an upload into renditions.

use sha2::{Digest as _, Sha256};

use crate::encode::Rendition;
use crate::error::Error;
use crate::source::{Format, Source};
use crate::{colour, decode, encode};

/// The renditions of a photo, and facts about its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processed {
    /// SHA-256 of the uploaded bytes.
    pub content_hash: [u8; 32],
    /// The number of uploaded bytes.
    pub source_bytes: u64,
    /// The format of the uploaded bytes.
    pub source_format: Format,
    /// The width of the source after its orientation is applied.
    pub width: u32,
    /// The height of the source after its orientation is applied.
    pub height: u32,
    /// The WebP renditions in ascending size, then one JPEG.
    pub renditions: Vec<Rendition>,
}

impl Processed {
    /// [`Self::content_hash`] as lowercase hexadecimal digits.
    pub fn content_hash_hex(&self) -> String {
        use std::fmt::Write;
        self.content_hash
            .iter()
            .fold(String::with_capacity(64), |mut digits, byte| {
                let _ = write!(digits, "{byte:02x}");
                digits
            })
    }
}

pub(crate) fn process(bytes: &[u8], source: &Source) -> Result<Processed, Error> {
    let photo = decode::decode(bytes, source)?;
    let (width, height) = if photo.swaps_sides() {
        (source.height, source.width)
    } else {
        (source.width, source.height)
    };
    let renditions = encode::renditions(&colour::to_srgb(photo)?)?;
    Ok(Processed {
        content_hash: Sha256::digest(bytes).into(),
        source_bytes: bytes.len() as u64,
        source_format: source.format,
        width,
        height,
        renditions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use crate::workshop::Photos;

    async fn process(bytes: Vec<u8>) -> Result<Processed, Error> {
        Photos::new(2).process(bytes.into()).await
    }

    fn shape(processed: &Processed) -> Vec<(&str, u32, u32)> {
        processed
            .renditions
            .iter()
            .map(|made| (made.name, made.label, made.side))
            .collect()
    }

    fn each_format() -> [(&'static str, Vec<u8>); 4] {
        [
            ("image/jpeg", samples::jpeg(150, 130)),
            ("image/png", samples::png(150, 130)),
            ("image/webp", samples::webp(150, 130)),
            ("image/gif", samples::gif(150, 130)),
        ]
    }

    #[tokio::test]
    async fn a_large_photo_gives_all_renditions() {
        let bytes = samples::png(900, 700);
        let processed = process(bytes.clone()).await.expect("a good photo");
        let all = [
            ("40.webp", 40, 40),
            ("76.webp", 76, 76),
            ("96.webp", 96, 96),
            ("192.webp", 192, 192),
            ("512.webp", 512, 512),
            ("512.jpg", 512, 512),
        ];
        assert_eq!(shape(&processed), all);
        assert_eq!(processed.source_bytes, bytes.len() as u64);
        assert_eq!((processed.width, processed.height), (900, 700));
        for rendition in &processed.renditions {
            let format = image::guess_format(&rendition.bytes).expect("it is an image");
            assert_eq!(format.to_mime_type(), rendition.media_type);
            let image = image::load_from_memory(&rendition.bytes)
                .expect("it can be decoded")
                .into_rgb8();
            assert_eq!(image.dimensions(), (rendition.side, rendition.side));
            let [near, far] = [rendition.side / 5, rendition.side * 4 / 5];
            let corners = [(near, near), (far, near), (near, far), (far, far)];
            for ((x, y), colour) in corners.into_iter().zip([
                samples::RED,
                samples::GREEN,
                samples::BLUE,
                samples::YELLOW,
            ]) {
                let pixel = image.get_pixel(x, y).0;
                assert!(
                    samples::distance(&pixel, &colour) <= 12,
                    "{}: {pixel:?}",
                    rendition.name
                );
            }
        }
    }

    #[tokio::test]
    async fn nothing_is_made_larger_than_its_source() {
        let sides = async |width, height| {
            let processed = process(samples::png(width, height))
                .await
                .expect("a good photo");
            processed
                .renditions
                .iter()
                .map(|made| made.side)
                .collect::<Vec<_>>()
        };
        assert_eq!(sides(96, 96).await, [40, 76, 96, 96, 96, 96]);
        assert_eq!(sides(700, 150).await, [40, 76, 96, 150, 150, 150]);
        assert_eq!(sides(300, 301).await, [40, 76, 96, 192, 300, 300]);
        assert_eq!(sides(512, 600).await, [40, 76, 96, 192, 512, 512]);
    }

    #[tokio::test]
    async fn every_format_is_processed_and_named() {
        for (media_type, bytes) in each_format() {
            let processed = process(bytes).await.expect(media_type);
            assert_eq!(processed.source_format.media_type(), media_type);
            assert_eq!(processed.renditions.len(), 6);
        }
    }

    #[tokio::test]
    async fn the_hash_is_of_the_uploaded_bytes() {
        let bytes = samples::gif(100, 100);
        let processed = process(bytes.clone()).await.expect("a good photo");
        assert_eq!(processed.content_hash[..], Sha256::digest(&bytes)[..]);
        assert_eq!(processed.content_hash_hex().len(), 64);
        assert!(
            processed
                .content_hash_hex()
                .starts_with(&format!("{:02x}", processed.content_hash[0]))
        );
    }

    #[tokio::test]
    async fn the_same_bytes_give_the_same_renditions() {
        for (media_type, bytes) in each_format() {
            let [first, second] = [process(bytes.clone()).await, process(bytes).await];
            assert!(
                first.expect(media_type) == second.expect(media_type),
                "{media_type}"
            );
        }
    }

    #[tokio::test]
    async fn a_turned_photo_is_made_upright_and_its_size_with_it() {
        let bytes = samples::jpeg_with(&samples::jpeg(200, 120), &[samples::jpeg_exif(6)]);
        let processed = process(bytes).await.expect("a good photo");
        assert_eq!((processed.width, processed.height), (120, 200));
        let image = image::load_from_memory(&processed.renditions[5].bytes)
            .expect("it can be decoded")
            .into_rgb8();
        let seen =
            [(20, 20), (100, 20), (20, 100), (100, 100)].map(|(x, y)| image.get_pixel(x, y).0);
        let turned = [samples::BLUE, samples::RED, samples::YELLOW, samples::GREEN];
        for (pixel, colour) in seen.iter().zip(turned) {
            assert!(samples::distance(pixel, &colour) <= 8, "{seen:?}");
        }
    }

    #[tokio::test]
    async fn no_metadata_is_left() {
        let profile = moxcms::ColorProfile::new_display_p3()
            .encode()
            .expect("the profile is good");
        let xmp = [
            b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>",
            samples::SECRET,
        ]
        .concat();
        let comment = samples::segment(0xfe, samples::SECRET);
        let jpeg = samples::jpeg_with(
            &samples::jpeg(200, 120),
            &[
                samples::jpeg_exif(6),
                samples::jpeg_icc(&profile),
                samples::segment(0xe1, &xmp),
                comment,
            ],
        );
        let png = samples::png_with(
            &samples::png(200, 120),
            &[
                samples::png_chunk(*b"eXIf", &samples::exif(6)),
                samples::png_chunk(*b"tEXt", &[b"Comment\0", samples::SECRET].concat()),
                samples::png_chunk(
                    *b"iTXt",
                    &[b"XML:com.adobe.xmp\0\0\0\0\0", samples::SECRET].concat(),
                ),
            ],
        );
        let webp = samples::riff(&[
            samples::vp8x(200, 120, 0x2c),
            samples::riff_chunk(*b"ICCP", &profile),
            samples::webp(200, 120)[12..].to_vec(),
            samples::riff_chunk(*b"EXIF", &samples::exif(6)),
            samples::riff_chunk(*b"XMP ", samples::SECRET),
        ]);
        let gif = samples::gif(200, 120);
        let comment = [&[0x21, 0xfe, 21], samples::SECRET, &[0]].concat();
        let gif = [&gif[..gif.len() - 1], &comment, &[0x3b]].concat();
        let markers: [&[u8]; 9] = [
            samples::SECRET,
            b"Exif",
            b"EXIF",
            b"ICC",
            b"acsp",
            b"http",
            b"XMP",
            b"xmp",
            b"MM\0*",
        ];
        for (bytes, secrets) in [(jpeg, 3), (png, 3), (webp, 2), (gif, 1)] {
            let found = bytes
                .windows(samples::SECRET.len())
                .filter(|window| *window == samples::SECRET)
                .count();
            assert_eq!(found, secrets, "the sample tells its secret");
            let processed = process(bytes).await.expect("a good photo");
            for rendition in processed.renditions {
                for marker in markers {
                    let is_there = rendition
                        .bytes
                        .windows(marker.len())
                        .any(|window| window == marker);
                    assert!(
                        !is_there,
                        "{} has {:?}",
                        rendition.name,
                        String::from_utf8_lossy(marker)
                    );
                }
            }
        }
    }

    #[tokio::test]
    async fn files_that_were_cut_off_are_damaged() {
        for (media_type, bytes) in each_format() {
            for sixteenth in 1..16 {
                let cut = bytes[..bytes.len() * sixteenth / 16].to_vec();
                assert_eq!(
                    process(cut).await.err(),
                    Some(Error::Damaged),
                    "{media_type} at {sixteenth}/16"
                );
            }
        }
    }

    #[tokio::test]
    async fn flipped_bits_never_do_more_than_damage() {
        let photos = Photos::new(2);
        let alpha = [1u8, 200, 30, 77].repeat(100 * 100);
        let more = [
            ("lossless", samples::webp_lossless(&alpha, 100, 100)),
            (
                "lossy alpha",
                ::webp::Encoder::from_rgba(&alpha, 100, 100)
                    .encode(50.0)
                    .to_vec(),
            ),
            (
                "progressive",
                samples::jpeg_blocks(0xc2, 100, 100, |x, y| {
                    [samples::byte(x * 20), samples::byte(y * 20), 90, 3]
                }),
            ),
        ];
        for (name, bytes) in each_format().into_iter().chain(more) {
            let mut state = 0x9e37_79b9_u32;
            for _ in 0..48 {
                let mut broken = bytes.clone();
                for _ in 0..3 {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let at = (state >> 8) as usize % broken.len();
                    broken[at] ^= 1 << (state >> 29);
                }
                // Most are damaged, some still are a photo. Nothing else may come of it.
                if let Ok(processed) = photos.process(broken.into()).await {
                    assert_eq!(processed.renditions.len(), 6, "{name}");
                }
            }
        }
    }
}
