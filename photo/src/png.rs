//! PNG, read row by row. A whole picture of 50 megapixels with 16-bit channels would need 400 MB.

use std::io::Cursor;

use ::png::{ColorType, Decoder, Limits, Reader, Transformations};
use image::metadata::Orientation;

use crate::decoded::{Photo, orientation};
use crate::error::Error;
use crate::reduce::{self, Channels, Model, Reducer};
use crate::source::{Format, Source, array, check_size};

/// The memory that the decoder may allocate for itself: a few rows, the inflated colour profile and EXIF.
const DECODER_BYTES: usize = 24 * 1024 * 1024;

/// For each of the seven passes: the first column and row, and the distance to the next column and row.
const PASSES: [(u32, u32, u32, u32); 7] = [
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
];

pub(crate) fn header(bytes: &[u8]) -> Result<Source, Error> {
    if &array::<8>(bytes, 8)? != b"\0\0\0\x0dIHDR" {
        return Err(Error::Damaged);
    }
    let width = u32::from_be_bytes(array(bytes, 16)?);
    let height = u32::from_be_bytes(array(bytes, 20)?);
    check_size(width, height)?;
    // The limit counts a chunk and what is made of it; the copy that grows is not in it.
    let peak_bytes = reduce::peak_bytes(width, height) + 2 * DECODER_BYTES as u64;
    Ok(Source {
        format: Format::Png,
        width,
        height,
        peak_bytes,
    })
}

pub(crate) fn decode(bytes: &[u8], source: &Source) -> Result<Photo, Error> {
    let mut decoder = Decoder::new_with_limits(
        Cursor::new(bytes),
        Limits {
            bytes: DECODER_BYTES,
        },
    );
    decoder.set_ignore_text_chunk(true);
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(damaged)?;
    let frame = reader
        .info()
        .frame_control
        .map(|frame| (frame.width, frame.height));
    if reader.info().size() != (source.width, source.height)
        || frame.is_some_and(|size| size != reader.info().size())
    {
        return Err(Error::Damaged);
    }
    let icc = reader
        .info()
        .icc_profile
        .as_ref()
        .map(|profile| profile.to_vec());
    let mut reducer = Reducer::new(source.width, source.height, Model::Rgba);
    read_rows(&mut reader, source, &mut reducer)?;
    // EXIF may come after the pixels, and a file without its end is damaged.
    reader.finish().map_err(damaged)?;
    let orientation = reader
        .info()
        .exif_metadata
        .as_deref()
        .map_or(Orientation::NoTransforms, orientation);
    drop(reader);
    Ok(Photo {
        square: reducer.finish()?,
        icc,
        orientation,
    })
}

fn read_rows(
    reader: &mut Reader<Cursor<&[u8]>>,
    source: &Source,
    reducer: &mut Reducer,
) -> Result<(), Error> {
    let channels = match reader.output_color_type().0 {
        ColorType::Grayscale => Channels::Gray,
        ColorType::GrayscaleAlpha => Channels::GrayAlpha,
        ColorType::Rgb => Channels::Rgb,
        ColorType::Rgba => Channels::Rgba,
        ColorType::Indexed => return Err(Error::Damaged),
    };
    let samples = reader.output_color_type().0.samples();
    let mut row = vec![
        0;
        reader
            .output_line_size(source.width)
            .ok_or(Error::Damaged)?
    ];
    let passes = if reader.info().interlaced {
        PASSES.as_slice()
    } else {
        &[(0, 0, 1, 1)]
    };
    for &(left, top, across, down) in passes {
        let columns = source.width.saturating_sub(left).div_ceil(across) as usize;
        let rows = if columns == 0 { 0 } else { source.height };
        for y in (top..rows).step_by(down as usize) {
            reader
                .read_row(&mut row)
                .map_err(damaged)?
                .ok_or(Error::Damaged)?;
            reducer.row(
                y,
                left,
                across,
                channels,
                row.get(..columns * samples).ok_or(Error::Damaged)?,
            );
        }
    }
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "what `map_err` takes")]
fn damaged(error: ::png::DecodingError) -> Error {
    tracing::debug!(%error, "PNG is damaged");
    Error::Damaged
}

#[cfg(test)]
mod tests {
    use ::png::BitDepth;

    use super::*;
    use crate::recognise::recognise;
    use crate::samples;

    fn photo(bytes: &[u8]) -> Photo {
        decode(bytes, &recognise(bytes).expect("a good header")).expect("a good file")
    }

    /// One pixel all over the left, the other all over the right.
    fn halves<const N: usize>(pixels: [[u8; N]; 2]) -> Vec<u8> {
        (0..100)
            .flat_map(|_| (0..100).flat_map(|x| pixels[x / 50]))
            .collect()
    }

    #[test]
    fn every_kind_of_pixel_comes_out_right() {
        use ::png::ColorType::{Grayscale, GrayscaleAlpha, Indexed, Rgb, Rgba};
        let [red, yellow] = [samples::RED, samples::YELLOW];
        let cases = [
            (
                halves([[90], [200]]),
                Grayscale,
                BitDepth::Eight,
                [[90, 90, 90, 255], [200, 200, 200, 255]],
            ),
            (
                halves([[90, 255], [200, 0]]),
                GrayscaleAlpha,
                BitDepth::Eight,
                [[90, 90, 90, 255], [0; 4]],
            ),
            (
                halves([red, yellow]),
                Rgb,
                BitDepth::Eight,
                [[red[0], red[1], red[2], 255], [240, 220, 50, 255]],
            ),
            (
                halves([[9, 8, 7, 255], [200, 100, 50, 128]]),
                Rgba,
                BitDepth::Eight,
                [[9, 8, 7, 255], [200, 100, 50, 128]],
            ),
            (
                halves([[0], [3]]),
                Indexed,
                BitDepth::Eight,
                [[red[0], red[1], red[2], 255], [0; 4]],
            ),
            (
                halves([[90, 90], [200, 200]]),
                Grayscale,
                BitDepth::Sixteen,
                [[90, 90, 90, 255], [200, 200, 200, 255]],
            ),
            (
                halves([
                    [10, 10, 20, 20, 30, 30, 255, 255],
                    [200, 0, 100, 0, 50, 0, 128, 0],
                ]),
                Rgba,
                BitDepth::Sixteen,
                [[10, 20, 30, 255], [200, 100, 50, 128]],
            ),
        ];
        for (pixels, colours, depth, [left, right]) in cases {
            let square = photo(&samples::png_of(&pixels, 100, 100, colours, depth)).square;
            assert_eq!(square.side, 100);
            assert!(
                samples::distance(&square.pixels[4010], &left) <= 1,
                "{colours:?} {depth:?} at left"
            );
            assert!(
                samples::distance(&square.pixels[4090], &right) <= 1,
                "{colours:?} {depth:?} at right"
            );
        }
        // Eight pixels a byte.
        let black_and_white =
            samples::png_of(&[0x0f; 16 * 128], 128, 128, Grayscale, BitDepth::One);
        let square = photo(&black_and_white).square;
        assert_eq!(
            (square.pixels[3], square.pixels[4]),
            ([0, 0, 0, 255], [255; 4])
        );
    }

    #[test]
    fn an_interlaced_picture_is_the_same_as_a_plain_one() {
        // The encoder does not interlace: seven passes are written by hand, each with its own rows.
        let (width, height) = (131, 117);
        let pixels = samples::quarters(width, height);
        let mut rows = Vec::new();
        for (left, top, across, down) in PASSES {
            for y in (top..height).step_by(down as usize) {
                rows.push(0);
                for x in (left..width).step_by(across as usize) {
                    let at = (y * width + x) as usize * 3;
                    rows.extend(&pixels[at..at + 3]);
                }
            }
        }
        let header = [
            &width.to_be_bytes()[..],
            &height.to_be_bytes(),
            b"\x08\x02\0\0\x01",
        ]
        .concat();
        let interlaced = [
            b"\x89PNG\r\n\x1a\n".to_vec(),
            samples::png_chunk(*b"IHDR", &header),
            samples::png_chunk(*b"IDAT", &stored(&rows)),
            samples::png_chunk(*b"IEND", b""),
        ];
        assert!(photo(&interlaced.concat()).square == photo(&samples::png(width, height)).square);
    }

    /// A zlib stream of blocks that are not compressed.
    fn stored(data: &[u8]) -> Vec<u8> {
        let mut stream = vec![0x78, 0x01];
        let mut blocks = data.chunks(60_000).peekable();
        while let Some(block) = blocks.next() {
            let length = u16::try_from(block.len()).expect("blocks are small");
            stream.push(u8::from(blocks.peek().is_none()));
            stream.extend([length.to_le_bytes(), (!length).to_le_bytes()].concat());
            stream.extend(block);
        }
        let (low, high) = data.iter().fold((1u32, 0u32), |(low, high), &byte| {
            let low = (low + u32::from(byte)) % 65_521;
            (low, (high + low) % 65_521)
        });
        stream.extend((high << 16 | low).to_be_bytes());
        stream
    }

    #[test]
    fn the_orientation_is_read_before_and_after_the_pixels() {
        let exif = samples::png_chunk(*b"eXIf", &samples::exif(6));
        let png = samples::png(120, 100);
        let before = samples::png_with(&png, std::slice::from_ref(&exif));
        let after = [&png[..png.len() - 12], &exif, &png[png.len() - 12..]].concat();
        for bytes in [before, after] {
            assert_eq!(photo(&bytes).orientation, Orientation::Rotate90);
        }
        assert_eq!(photo(&png).orientation, Orientation::NoTransforms);
    }

    #[test]
    fn metadata_that_inflates_is_bounded_and_ignored() {
        // 64 MiB of zeros, stored in a few hundred kilobytes by the encoder's own compression.
        let zeros = samples::png_of(
            &vec![0; 8192 * 8192 / 8],
            8192,
            8192,
            ::png::ColorType::Grayscale,
            BitDepth::One,
        );
        let at = zeros
            .windows(4)
            .position(|name| name == b"IDAT")
            .expect("there is one");
        let length =
            u32::from_be_bytes(*zeros[at - 4..].first_chunk().expect("there is a length")) as usize;
        let bomb = zeros[at + 4..at + 4 + length].to_vec();
        let chunks = [
            samples::png_chunk(*b"iCCP", &[b"bomb\0\0", &bomb[..]].concat()),
            samples::png_chunk(*b"zTXt", &[b"bomb\0\0", &bomb[..]].concat()),
            samples::png_chunk(*b"iTXt", &[b"bomb\0\x01\0\0\0", &bomb[..]].concat()),
        ];
        let bytes = samples::png_with(&samples::png(120, 100), &chunks);
        assert!(photo(&bytes).square == photo(&samples::png(120, 100)).square);
    }

    #[test]
    fn a_file_without_its_end_or_with_a_broken_header_is_damaged() {
        let png = samples::png(120, 100);
        let source = recognise(&png).expect("a good header");
        assert_eq!(
            decode(&png[..png.len() - 12], &source).err(),
            Some(Error::Damaged)
        );
        let mut other_size = png.clone();
        other_size[19] = 119;
        assert_eq!(decode(&other_size, &source).err(), Some(Error::Damaged));
        assert_eq!(recognise(&png[..20]), Err(Error::Damaged));
        assert_eq!(
            recognise(&[&png[..8], &png[33..]].concat()),
            Err(Error::Damaged)
        );
    }
}
