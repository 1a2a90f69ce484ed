//! JPEG, decoded whole by a decoder that needs all coefficients of a progressive file.

use image::metadata::Orientation;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::decoded::{Photo, orientation, room};
use crate::error::Error;
use crate::limits::{BUDGET_MIB, MAX_SIDE};
use crate::reduce::{self, Channels, Model, Reducer};
use crate::source::{Format, Source, array, check_size, slice};

/// The most that one decode may allocate. It is slightly more than the budget, because the largest decode runs alone.
///
/// This is enough for 50 megapixels in three full channels. Progressive files with four channels reach it at
/// 38 megapixels, because the decoder holds all coefficients. Portraits do not have this form.
const MOST_BYTES: u64 = (BUDGET_MIB as u64 + 48) * 1024 * 1024;
/// More scans than any encoder writes. Each scan costs a pass over all blocks.
const MOST_SCANS: usize = 64;

/// The content of the markers.
struct Markers {
    width: u32,
    height: u32,
    channels: u64,
    /// Samples of all channels per pixel, in sixteenths. Chroma channels often have fewer than one sample per pixel.
    sixteenths: u64,
    /// Whether the decoder keeps the coefficients of the whole picture.
    is_kept_whole: bool,
    /// Whether the file has an Adobe marker. Four channels are then stored inverted.
    is_adobe: bool,
}

pub(crate) fn header(bytes: &[u8]) -> Result<Source, Error> {
    let Markers {
        width,
        height,
        channels,
        sixteenths,
        is_kept_whole,
        ..
    } = markers(bytes)?;
    let pixels = u64::from(width) * u64::from(height);
    // Blocks stick out over the edges by less than 32 pixels on either side.
    let padded = u64::from(width + 32) * u64::from(height + 32);
    let coefficients = if is_kept_whole {
        padded * sixteenths / 8
    } else {
        0
    };
    // The coefficients are gone when the pixels are reduced. Metadata is copied out of the file.
    let peak_bytes = pixels * channels
        + coefficients.max(reduce::peak_bytes(width, height))
        + bytes.len() as u64;
    if peak_bytes > MOST_BYTES {
        return Err(Error::TooManyPixels);
    }
    Ok(Source {
        format: Format::Jpeg,
        width,
        height,
        peak_bytes,
    })
}

/// Walks all markers up to the end of the image to detect a truncated file.
fn markers(bytes: &[u8]) -> Result<Markers, Error> {
    let mut frame: Option<Markers> = None;
    let (mut is_adobe, mut scans) = (false, 0);
    let mut at = 2;
    loop {
        let marker;
        (marker, at) = next_marker(bytes, at)?;
        match marker {
            // Restarts, and markers that carry nothing.
            0x01 | 0xd0..=0xd8 => continue,
            0xd9 => break,
            _ => {}
        }
        let length = usize::from(u16::from_be_bytes(array(bytes, at)?));
        let segment = || slice(bytes, at, length.max(2));
        match marker {
            // C4, C8 and CC are no frames.
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                if frame.is_some() {
                    return Err(Error::Damaged);
                }
                frame = Some(start_of_frame(marker, segment()?)?);
            }
            0xda => {
                let frame = frame.as_mut().ok_or(Error::Damaged)?;
                // Scans that hold but some of the channels have to be kept until all are there.
                frame.is_kept_whole |= u64::from(array::<1>(segment()?, 2)?[0]) != frame.channels;
                scans += 1;
            }
            0xee => {
                let data = segment()?.get(2..).unwrap_or_default();
                is_adobe |= data.starts_with(b"Adobe");
            }
            _ => {}
        }
        at += segment()?.len();
    }
    let frame = frame.ok_or(Error::Damaged)?;
    if scans == 0 || scans > MOST_SCANS {
        return Err(Error::Damaged);
    }
    Ok(Markers { is_adobe, ..frame })
}

/// The next marker at or after `at`, and the start of its segment. Skips scan data, in which each `0xff` is followed by
/// a zero or a restart marker.
fn next_marker(bytes: &[u8], at: usize) -> Result<(u8, usize), Error> {
    let rest = bytes.get(at..).ok_or(Error::Damaged)?;
    let is_marker = |pair: &[u8; 2]| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff | 0xd0..=0xd7);
    let found = rest
        .array_windows()
        .position(is_marker)
        .ok_or(Error::Damaged)?;
    Ok((array::<1>(rest, found + 1)?[0], at + found + 2))
}

fn start_of_frame(marker: u8, segment: &[u8]) -> Result<Markers, Error> {
    let height = u32::from(u16::from_be_bytes(array(segment, 3)?));
    let width = u32::from(u16::from_be_bytes(array(segment, 5)?));
    check_size(width, height)?;
    let [precision] = array(segment, 2)?;
    if !matches!(marker, 0xc0..=0xc2) || precision != 8 {
        return Err(Error::UnsupportedFormat("JPEG-12/arithmetic/lossless"));
    }
    let [channels] = array(segment, 7)?;
    if !matches!(channels, 1 | 3 | 4) {
        return Err(Error::Damaged);
    }
    let samples = slice(segment, 8, 3 * usize::from(channels))?.as_chunks().0;
    let samples = samples
        .iter()
        .map(|&[_, sampling, _]| (u64::from(sampling >> 4), u64::from(sampling & 15)));
    if samples
        .clone()
        .any(|(across, down)| !matches!((across, down), (1..=4, 1..=4)))
    {
        return Err(Error::Damaged);
    }
    let most = samples.clone().fold((1, 1), |most, next| {
        (most.0.max(next.0), most.1.max(next.1))
    });
    let sixteenths = samples
        .map(|(across, down)| (16 * across * down).div_ceil(most.0 * most.1))
        .sum();
    Ok(Markers {
        width,
        height,
        channels: channels.into(),
        sixteenths,
        is_kept_whole: marker == 0xc2,
        is_adobe: false,
    })
}

pub(crate) fn decode(bytes: &[u8], source: &Source) -> Result<Photo, Error> {
    let is_adobe = markers(bytes)?.is_adobe;
    let side = MAX_SIDE as usize;
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(side)
        .set_max_height(side)
        .jpeg_set_max_scans(MOST_SCANS);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(damaged)?;
    let stored = decoder.input_colorspace().ok_or(Error::Damaged)?;
    let channels = decoder.info().ok_or(Error::Damaged)?.components;
    // Inks stay as they are until the profile is known.
    let wanted = match (channels, stored) {
        (1, _) => ColorSpace::Luma,
        (4, ColorSpace::CMYK | ColorSpace::YCCK) => stored,
        (3, _) => ColorSpace::RGB,
        _ => return Err(Error::Damaged),
    };
    decoder.set_options(options.jpeg_set_out_colorspace(wanted));
    let (across, down) = decoder.dimensions().ok_or(Error::Damaged)?;
    if (across, down) != (source.width as usize, source.height as usize) {
        return Err(Error::Damaged);
    }
    let icc = decoder.icc_profile();
    let orientation = decoder
        .exif()
        .map_or(Orientation::NoTransforms, |exif| orientation(exif));
    let mut pixels = room(across * down * usize::from(channels))?;
    decoder.decode_into(&mut pixels).map_err(damaged)?;
    drop(decoder);

    let model = if channels == 4 {
        Model::Cmyk
    } else {
        Model::Rgba
    };
    let mut reducer = Reducer::new(source.width, source.height, model);
    for (y, row) in (0..).zip(pixels.chunks(across * usize::from(channels))) {
        match wanted {
            ColorSpace::Luma => reducer.row(y, 0, 1, Channels::Gray, row),
            ColorSpace::RGB => reducer.row(y, 0, 1, Channels::Rgb, row),
            _ => {
                let inks = row
                    .as_chunks()
                    .0
                    .iter()
                    .map(|&stored| inks(stored, wanted, is_adobe));
                reducer.pixels(y, 0, 1, inks);
            }
        }
    }
    drop(pixels);
    Ok(Photo {
        square: reducer.finish()?,
        icc,
        orientation,
    })
}

/// Converts a stored pixel to amounts of ink.
fn inks(pixel: [u8; 4], stored: ColorSpace, is_inverted: bool) -> [u8; 4] {
    let inks = if stored == ColorSpace::YCCK {
        // The colours stand for the inks' complements, as ITU-R BT.601 has them.
        let [light, blue, red, _] = pixel.map(f32::from);
        let (blue, red) = (blue - 128.0, red - 128.0);
        let rgb = [
            light + 1.402 * red,
            light - 0.344_136 * blue - 0.714_136 * red,
            light + 1.772 * blue,
        ];
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the value is clamped to a byte"
        )]
        let [cyan, magenta, yellow] = rgb.map(|value| 255 - value.round().clamp(0.0, 255.0) as u8);
        [cyan, magenta, yellow, pixel[3]]
    } else {
        pixel
    };
    if is_inverted {
        inks.map(|ink| 255 - ink)
    } else {
        inks
    }
}

#[expect(clippy::needless_pass_by_value, reason = "what `map_err` takes")]
fn damaged(error: zune_jpeg::errors::DecodeErrors) -> Error {
    tracing::debug!(?error, "JPEG is damaged");
    Error::Damaged
}

#[cfg(test)]
mod tests {
    use image::ExtendedColorType;

    use super::*;
    use crate::recognise::recognise;
    use crate::samples;

    fn photo(bytes: &[u8]) -> Photo {
        decode(bytes, &recognise(bytes).expect("a good header")).expect("a good file")
    }

    /// An Adobe segment with its colour transform.
    fn adobe(transform: u8) -> Vec<u8> {
        samples::segment(0xee, &[b"Adobe\0\x64\0\0\0\0", &[transform][..]].concat())
    }

    #[test]
    fn colours_and_gray_come_out_right() {
        let square = photo(&samples::jpeg(100, 100)).square;
        for (at, colour) in [
            (1010, samples::RED),
            (1090, samples::GREEN),
            (9010, samples::BLUE),
            (9090, samples::YELLOW),
        ] {
            assert!(
                samples::distance(&square.pixels[at], &colour) <= 4,
                "{:?}",
                square.pixels[at]
            );
        }
        let gray = samples::jpeg_of(&[90; 100 * 100], 100, 100, ExtendedColorType::L8);
        assert!(
            photo(&gray)
                .square
                .pixels
                .iter()
                .all(|&pixel| pixel == [90, 90, 90, 255])
        );
    }

    #[test]
    fn progressive_files_are_the_same_as_sequential_ones() {
        let colour = |x: u16, y: u16| [samples::byte(x * 17), samples::byte(y * 13), 90];
        let [sequential, progressive] =
            [0xc0, 0xc2].map(|frame| photo(&samples::jpeg_blocks(frame, 131, 117, colour)));
        assert!(sequential.square == progressive.square);
    }

    #[test]
    fn rgb_that_says_so_is_not_taken_for_ycbcr() {
        let rgb = samples::jpeg_blocks(0xc0, 96, 96, |_, _| [200, 100, 50]);
        let rgb = samples::jpeg_with(&rgb, &[adobe(0)]);
        assert!(
            photo(&rgb)
                .square
                .pixels
                .iter()
                .all(|pixel| samples::distance(pixel, &[200, 100, 50, 255]) <= 1)
        );
    }

    #[test]
    fn inks_are_read_as_adobe_and_as_others_write_them() {
        let inks = [200, 100, 50, 20u8];
        let inverted = inks.map(|ink| 255 - ink);
        let plain = samples::jpeg_blocks(0xc0, 96, 96, |_, _| inks);
        let adobe_cmyk = samples::jpeg_with(
            &samples::jpeg_blocks(0xc0, 96, 96, |_, _| inverted),
            &[adobe(0)],
        );
        // What lets through 200, 100 and 50 of the light, after ITU-R BT.601.
        let ycck = [124, 86, 182];
        let ycck = samples::jpeg_blocks(0xc0, 96, 96, |_, _| [ycck[0], ycck[1], ycck[2], 255 - 20]);
        let ycck = samples::jpeg_with(&ycck, &[adobe(2)]);
        for (name, bytes) in [("plain", plain), ("Adobe", adobe_cmyk), ("YCCK", ycck)] {
            let square = photo(&bytes).square;
            assert_eq!(square.model, Model::Cmyk);
            assert!(
                samples::distance(&square.pixels[5000], &inks) <= 2,
                "{name}: {:?}",
                square.pixels[5000]
            );
        }
    }

    #[test]
    fn exif_and_profile_are_found() {
        let bytes = samples::jpeg_with(
            &samples::jpeg(120, 100),
            &[samples::jpeg_exif(8), samples::jpeg_icc(b"profile")],
        );
        let photo = photo(&bytes);
        assert_eq!(photo.orientation, Orientation::Rotate270);
        assert_eq!(photo.icc.as_deref(), Some(&b"profile"[..]));
    }

    #[test]
    fn a_file_that_was_cut_off_is_damaged() {
        let jpeg = samples::jpeg(120, 100);
        assert_eq!(recognise(&jpeg[..jpeg.len() - 1]), Err(Error::Damaged));
        let without_scan = samples::jpeg_with(
            b"\xff\xd8\xff\xd9",
            &[samples::jpeg_header(120, 100)[2..].to_vec()],
        );
        assert_eq!(recognise(&without_scan), Err(Error::Damaged));
        // The decoder reports data that runs out between its markers.
        let mut restarted = jpeg;
        let scan = restarted
            .windows(2)
            .position(|pair| pair == [0xff, 0xda])
            .expect("there is a scan");
        restarted.splice(scan + 20..scan + 20, [0xff, 0xc4]);
        assert!(recognise(&restarted).is_err());
    }

    #[test]
    fn a_second_frame_cannot_smuggle_in_another_size() {
        let mut second = samples::jpeg_header(60_000, 60_000);
        second.drain(..2);
        let bytes = samples::jpeg_with(&samples::jpeg(120, 100), &[second]);
        assert_eq!(recognise(&bytes), Err(Error::TooLarge));
        let mut second = samples::jpeg_header(200, 200);
        second.drain(..2);
        let bytes = samples::jpeg_with(&samples::jpeg(120, 100), &[second]);
        assert_eq!(recognise(&bytes), Err(Error::Damaged));
    }

    #[test]
    fn kinds_that_no_camera_makes_are_named() {
        for marker in [0xc3, 0xc9, 0xca] {
            let mut bytes = samples::jpeg_header(200, 200);
            bytes[3] = marker;
            assert!(matches!(
                recognise(&bytes),
                Err(Error::UnsupportedFormat(_))
            ));
        }
    }

    #[test]
    fn more_scans_than_any_encoder_writes_are_refused() {
        let jpeg = samples::jpeg_blocks(0xc2, 96, 96, |_, _| [90]);
        let scan = jpeg
            .windows(2)
            .position(|pair| pair == [0xff, 0xda])
            .expect("there is a scan");
        let again = |times| {
            [
                &jpeg[..scan],
                &jpeg[scan..jpeg.len() - 2].repeat(times),
                b"\xff\xd9",
            ]
            .concat()
        };
        assert!(recognise(&again(MOST_SCANS)).is_ok());
        assert_eq!(recognise(&again(MOST_SCANS + 1)), Err(Error::Damaged));
    }

    #[test]
    fn decoding_is_weighed_by_what_it_allocates() {
        let scan = |bytes: Vec<u8>| {
            [
                bytes,
                samples::segment(0xda, b"\x03\x01\0\x02\0\x03\0\0\0\0"),
                b"\xff\xd9".to_vec(),
            ]
            .concat()
        };
        let sequential = scan(samples::jpeg_header(10_000, 5000));
        assert!((190..215).contains(&recognise(&sequential).expect("a good header").peak_mib()));
        let mut progressive = sequential.clone();
        progressive[3] = 0xc2;
        let peak = recognise(&progressive)
            .expect("50 megapixels are allowed")
            .peak_mib();
        assert!((430..448).contains(&peak), "{peak}");
        let mut subsampled = progressive;
        subsampled[13] = 0x22;
        assert!((286..300).contains(&recognise(&subsampled).expect("a good header").peak_mib()));
    }
}
