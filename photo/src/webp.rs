//! WebP. The library decodes alpha, colours and canvas together and in copies, which needs up to ten bytes per pixel.
//! This module puts each part into a separate file and decodes them one after the other.

use std::io::Cursor;

use image::metadata::Orientation;
use image_webp::WebPDecoder;
use memmap2::MmapMut;

use crate::decoded::{Photo, orientation, room};
use crate::error::Error;
use crate::reduce::{self, Channels, Model, Reducer};
use crate::source::{Format, Source, array, check_most, check_size, slice};
use crate::vp8l;

/// The relevant parts of a file.
#[derive(Default)]
struct Parts<'a> {
    canvas: (u32, u32),
    /// The position of the picture on the canvas. Only animations use another position than the start.
    offset: (u32, u32),
    image: Option<Image<'a>>,
    alpha: Option<&'a [u8]>,
    icc: Option<&'a [u8]>,
    exif: Option<&'a [u8]>,
}

#[derive(Clone, Copy)]
enum Image<'a> {
    Lossy(&'a [u8]),
    Lossless(&'a [u8]),
}

impl Image<'_> {
    fn size(self) -> Result<(u32, u32), Error> {
        match self {
            Self::Lossy(data) => {
                if array::<3>(data, 3)? != [0x9d, 0x01, 0x2a] {
                    return Err(Error::Damaged);
                }
                let side = |at| Ok(u32::from(u16::from_le_bytes(array(data, at)?) & 0x3fff));
                Ok((side(6)?, side(8)?))
            }
            Self::Lossless(data) => {
                if array::<1>(data, 0)? != [0x2f] {
                    return Err(Error::Damaged);
                }
                let bits = u32::from_le_bytes(array(data, 1)?);
                Ok(((bits & 0x3fff) + 1, ((bits >> 14) & 0x3fff) + 1))
            }
        }
    }
}

pub(crate) fn header(bytes: &[u8]) -> Result<Source, Error> {
    let parts = parts(bytes)?;
    let (width, height) = parts.canvas;
    let (frame_width, frame_height) = parts.image.ok_or(Error::Damaged)?.size()?;
    let pixels = u64::from(frame_width) * u64::from(frame_height);
    let reducing = reduce::peak_bytes(width, height);
    // The pixels; and while they are read the images that steer prediction, colours and entropy, of
    // 4 bytes for 16 pixels each, and the tables.
    let lossless = 4 * pixels + reducing.max(pixels + vp8l::MOST_TABLE_BYTES as u64);
    // The planes and the pixels.
    let lossy = pixels * 9 / 2 + reducing;
    let picture = match parts.image {
        Some(Image::Lossless(_)) => lossless,
        // Alpha is decoded as a lossless picture, then it waits.
        _ if parts.alpha.is_some() => lossless.max(lossy + pixels),
        _ => lossy,
    };
    let peak_bytes = picture + 2 * bytes.len() as u64;
    Ok(Source {
        format: Format::WebP,
        width,
        height,
        peak_bytes,
    })
}

/// Reads the chunks and checks all claimed sizes.
fn parts(bytes: &[u8]) -> Result<Parts<'_>, Error> {
    let [b'V', b'P', b'8', kind] = array::<4>(bytes, 12)? else {
        return Err(Error::Damaged);
    };
    if kind == b'X' {
        // The size is checked before the end of the file: a claim is refused however little follows.
        check_size(le24(bytes, 24)? + 1, le24(bytes, 27)? + 1)?;
    } else {
        let (width, height) = image(kind, slice(bytes, 20, 10)?)?.size()?;
        check_size(width, height)?;
    }
    let length =
        usize::try_from(u32::from_le_bytes(array(bytes, 4)?)).map_err(|_| Error::Damaged)?;
    let mut chunks = Chunks(slice(bytes, 8, length)?.get(4..).ok_or(Error::Damaged)?);
    if kind != b'X' {
        let (_, data) = chunks.next().ok_or(Error::Damaged)??;
        let image = image(kind, data)?;
        return Ok(Parts {
            canvas: image.size()?,
            image: Some(image),
            ..Parts::default()
        });
    }
    let mut parts = Parts {
        canvas: (le24(bytes, 24)? + 1, le24(bytes, 27)? + 1),
        ..Parts::default()
    };
    for chunk in chunks {
        let (name, data) = chunk?;
        match &name {
            b"ANMF" if parts.image.is_none() => first_frame(&mut parts, data)?,
            b"ICCP" => parts.icc = parts.icc.or(Some(data)),
            b"EXIF" => parts.exif = parts.exif.or(Some(data)),
            b"ALPH" | b"VP8 " | b"VP8L" if parts.image.is_none() => {
                picture(&mut parts, name, data)?;
                if parts
                    .image
                    .is_some_and(|image| image.size() != Ok(parts.canvas))
                {
                    return Err(Error::Damaged);
                }
            }
            _ => {}
        }
    }
    if parts.image.is_none() {
        Err(Error::Damaged)
    } else {
        Ok(parts)
    }
}

fn first_frame<'a>(parts: &mut Parts<'a>, data: &'a [u8]) -> Result<(), Error> {
    parts.offset = (le24(data, 0)? * 2, le24(data, 3)? * 2);
    let size = (le24(data, 6)? + 1, le24(data, 9)? + 1);
    check_most(size.0, size.1)?;
    if parts.offset.0 + size.0 > parts.canvas.0 || parts.offset.1 + size.1 > parts.canvas.1 {
        return Err(Error::Damaged);
    }
    for chunk in Chunks(data.get(16..).ok_or(Error::Damaged)?) {
        let (name, data) = chunk?;
        if parts.image.is_none() {
            picture(parts, name, data)?;
        }
    }
    if parts.image.ok_or(Error::Damaged)?.size()? == size {
        Ok(())
    } else {
        Err(Error::Damaged)
    }
}

fn picture<'a>(parts: &mut Parts<'a>, name: [u8; 4], data: &'a [u8]) -> Result<(), Error> {
    match &name {
        b"ALPH" => parts.alpha = Some(data),
        b"VP8 " | b"VP8L" => parts.image = Some(image(name[3], data)?),
        _ => {}
    }
    Ok(())
}

fn image(kind: u8, data: &[u8]) -> Result<Image<'_>, Error> {
    match kind {
        b' ' => Ok(Image::Lossy(data)),
        b'L' => Ok(Image::Lossless(data)),
        _ => Err(Error::Damaged),
    }
}

fn le24(bytes: &[u8], at: usize) -> Result<u32, Error> {
    let [a, b, c] = array(bytes, at)?;
    Ok(u32::from_le_bytes([a, b, c, 0]))
}

/// The remaining chunks.
struct Chunks<'a>(&'a [u8]);

impl<'a> Iterator for Chunks<'a> {
    type Item = Result<([u8; 4], &'a [u8]), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = self.0.split_first_chunk()?;
        let read = || {
            let length =
                usize::try_from(u32::from_le_bytes(array(rest, 0)?)).map_err(|_| Error::Damaged)?;
            Ok((*name, slice(rest, 4, length)?))
        };
        let chunk = read();
        let after = chunk
            .as_ref()
            .map_or(usize::MAX, |(_, data)| 4 + data.len().next_multiple_of(2));
        self.0 = rest.get(after..).unwrap_or_default();
        Some(chunk)
    }
}

pub(crate) fn decode(bytes: &[u8], source: &Source) -> Result<Photo, Error> {
    let parts = parts(bytes)?;
    let image = parts.image.ok_or(Error::Damaged)?;
    let (width, height) = image.size()?;
    let (left, top) = parts.offset;
    let across = width as usize;
    // Made only when the decoder has given back what it needed for itself.
    let reducer = || Reducer::new(source.width, source.height, Model::Rgba);
    let reducer = match image {
        Image::Lossless(data) => {
            let has_alpha = array::<1>(data, 4)?[0] & 0x10 != 0;
            let pixels = lossless(data.to_vec(), width, height)?;
            let mut reducer = reducer();
            for (y, row) in (top..).zip(pixels.as_chunks::<4>().0.chunks(across)) {
                let opaque =
                    |&[r, g, b, alpha]: &[u8; 4]| [r, g, b, if has_alpha { alpha } else { 255 }];
                reducer.pixels(y, left, 1, row.iter().map(opaque));
            }
            reducer
        }
        Image::Lossy(data) => {
            let alpha = parts
                .alpha
                .map(|alpha| alpha_plane(alpha, width, height))
                .transpose()?;
            let mut pixels = room(across * height as usize * 3)?;
            read(file(*b"VP8 ", data), width, height, &mut pixels)?;
            let mut reducer = reducer();
            for (y, row) in (0..height).zip(pixels.chunks(across * 3)) {
                let Some(alpha) = &alpha else {
                    reducer.row(top + y, left, 1, Channels::Rgb, row);
                    continue;
                };
                let alpha = slice(alpha, y as usize * across, across)?;
                let pixels = row
                    .as_chunks()
                    .0
                    .iter()
                    .zip(alpha)
                    .map(|(&[r, g, b], &alpha)| [r, g, b, alpha]);
                reducer.pixels(top + y, left, 1, pixels);
            }
            reducer
        }
    };
    Ok(Photo {
        square: reducer.finish()?,
        icc: parts.icc.map(<[u8]>::to_vec),
        orientation: parts.exif.map_or(Orientation::NoTransforms, orientation),
    })
}

/// Decodes a lossless bitstream to RGBA, even if it declares no alpha. Without alpha the decoder would hold the pixels
/// twice.
fn lossless(mut data: Vec<u8>, width: u32, height: u32) -> Result<MmapMut, Error> {
    vp8l::check_tables(&data, width, height)?;
    *data.get_mut(4).ok_or(Error::Damaged)? |= 0x10;
    let mut pixels = room(width as usize * height as usize * 4)?;
    read(file(*b"VP8L", &data), width, height, &mut pixels)?;
    Ok(pixels)
}

/// Builds a file with one chunk.
fn file(name: [u8; 4], data: &[u8]) -> Vec<u8> {
    // Uploads are far smaller than what fits.
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let padded = length.next_multiple_of(2);
    let mut file = Vec::with_capacity(data.len() + 32);
    file.extend_from_slice(b"RIFF");
    file.extend_from_slice(&(padded + 12).to_le_bytes());
    file.extend_from_slice(b"WEBP");
    file.extend_from_slice(&name);
    file.extend_from_slice(&length.to_le_bytes());
    file.extend_from_slice(data);
    file.resize(20 + padded as usize, 0);
    file
}

fn read(file: Vec<u8>, width: u32, height: u32, pixels: &mut [u8]) -> Result<(), Error> {
    let mut decoder = WebPDecoder::new(Cursor::new(file)).map_err(damaged)?;
    if decoder.dimensions() != (width, height) {
        return Err(Error::Damaged);
    }
    decoder.read_image(pixels).map_err(damaged)
}

#[expect(clippy::needless_pass_by_value, reason = "what `map_err` takes")]
fn damaged(error: image_webp::DecodingError) -> Error {
    tracing::debug!(%error, "WebP is damaged");
    Error::Damaged
}

/// Decodes the alpha of a lossy picture. It is stored plain, or as the green channel of a lossless bitstream without a
/// header.
fn alpha_plane(chunk: &[u8], width: u32, height: u32) -> Result<Vec<u8>, Error> {
    let (&flags, data) = chunk.split_first().ok_or(Error::Damaged)?;
    let across = width as usize;
    let mut plane = match flags & 3 {
        0 => slice(data, 0, across * height as usize)?.to_vec(),
        1 => {
            let mut stream = Vec::with_capacity(data.len() + 5);
            stream.push(0x2f);
            stream.extend_from_slice(&((width - 1) | ((height - 1) << 14)).to_le_bytes());
            stream.extend_from_slice(data);
            let pixels = lossless(stream, width, height)?;
            pixels
                .as_chunks()
                .0
                .iter()
                .map(|&[_, green, _, _]| green)
                .collect()
        }
        _ => return Err(Error::Damaged),
    };
    unfilter(&mut plane, across, (flags >> 2) & 3);
    Ok(plane)
}

/// Adds the prediction to each value.
fn unfilter(plane: &mut [u8], across: usize, method: u8) {
    for at in 0..if method == 0 { 0 } else { plane.len() } {
        let (is_first_column, is_first_row) = (at % across == 0, at < across);
        let prediction = match (is_first_column, is_first_row) {
            (true, true) => 0,
            (false, true) => plane[at - 1],
            (true, false) => plane[at - across],
            (false, false) => match method {
                1 => plane[at - 1],
                2 => plane[at - across],
                _ => {
                    let gradient = i16::from(plane[at - 1]) + i16::from(plane[at - across])
                        - i16::from(plane[at - across - 1]);
                    u8::try_from(gradient.clamp(0, 255)).unwrap_or_default()
                }
            },
        };
        plane[at] = plane[at].wrapping_add(prediction);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recognise::recognise;
    use crate::reduce::Square;
    use crate::samples;

    const W: u32 = 121;
    const H: u32 = 101;

    fn photo(bytes: &[u8]) -> Photo {
        decode(bytes, &recognise(bytes).expect("a good header")).expect("a good file")
    }

    /// Decoded at once and in whole.
    fn reference(bytes: &[u8]) -> Square {
        let mut decoder = WebPDecoder::new(Cursor::new(bytes)).expect("a good file");
        let mut pixels = vec![0; decoder.output_buffer_size().expect("it is small")];
        decoder.read_image(&mut pixels).expect("a good file");
        let (width, height) = decoder.dimensions();
        let channels = if decoder.has_alpha() {
            Channels::Rgba
        } else {
            Channels::Rgb
        };
        let mut reducer = Reducer::new(width, height, Model::Rgba);
        for (y, row) in (0..height).zip(pixels.chunks(pixels.len() / height as usize)) {
            reducer.row(y, 0, 1, channels, row);
        }
        reducer.finish().expect("the sizes fit")
    }

    fn colourful() -> Vec<u8> {
        let pixel = |x: u32, y: u32| {
            [x * 2, y * 2, x + y, (x * y / 40).min(255)].map(|value| value.to_le_bytes()[0])
        };
        (0..H)
            .flat_map(|y| (0..W).flat_map(move |x| pixel(x, y)))
            .collect()
    }

    #[test]
    fn all_kinds_decode_as_the_decoder_at_once_would() {
        let opaque: Vec<u8> = colourful()
            .as_chunks::<4>()
            .0
            .iter()
            .flat_map(|&[r, g, b, _]| [r, g, b, 255])
            .collect();
        let lossy_alpha = ::webp::Encoder::from_rgba(&colourful(), W, H)
            .encode(80.0)
            .to_vec();
        assert!(
            lossy_alpha.windows(4).any(|name| name == b"ALPH"),
            "alpha is on its own"
        );
        let cases = [
            samples::webp(W, H),
            samples::webp_lossless(&opaque, W, H),
            samples::webp_lossless(&colourful(), W, H),
            lossy_alpha,
        ];
        for bytes in cases {
            assert!(photo(&bytes).square == reference(&bytes));
        }
    }

    #[test]
    fn plain_alpha_is_read_with_every_filter() {
        let lossy = samples::webp(W, H);
        for method in 0..4 {
            let mut plane: Vec<u8> = colourful()
                .as_chunks::<4>()
                .0
                .iter()
                .map(|pixel| pixel[3] / 3)
                .collect();
            plane[0] = 77;
            let alpha = riff_alpha(method << 2, &plane);
            let bytes = samples::riff(&[samples::vp8x(W, H, 0x10), alpha, lossy[12..].to_vec()]);
            assert!(photo(&bytes).square == reference(&bytes), "filter {method}");
        }
    }

    fn riff_alpha(flags: u8, data: &[u8]) -> Vec<u8> {
        samples::riff_chunk(*b"ALPH", &[&[flags], data].concat())
    }

    #[test]
    fn the_first_frame_of_an_animation_lies_on_a_transparent_canvas() {
        let rgba = |[r, g, b]: [u8; 3]| [r, g, b, 255].repeat(40 * 30);
        let red = samples::webp_lossless(&rgba(samples::RED), 40, 30);
        let blue = samples::webp_lossless(&rgba(samples::BLUE), 40, 30);
        let bytes = samples::webp_animation(
            (140, 120),
            &[(&red, [20, 10, 40, 30]), (&blue, [20, 10, 40, 30])],
        );
        let square = photo(&bytes).square;
        assert_eq!(square.side, 120);
        // The square starts ten columns into the canvas.
        assert_eq!(square.pixels[10 * 120 + 10], [220, 30, 40, 255]);
        assert_eq!(
            square.pixels.iter().filter(|pixel| pixel[3] == 255).count(),
            40 * 30
        );
        // The decoder's own blending rounds.
        let same = square
            .pixels
            .iter()
            .zip(&reference(&bytes).pixels)
            .all(|(a, b)| samples::distance(a, b) <= 1);
        assert!(same);
    }

    #[test]
    fn metadata_is_found_in_any_order() {
        let image = samples::webp(W, H)[12..].to_vec();
        let exif = samples::riff_chunk(*b"EXIF", &[b"Exif\0\0", &samples::exif(3)[..]].concat());
        let icc = samples::riff_chunk(*b"ICCP", b"profile");
        for chunks in [[&icc, &image, &exif], [&exif, &icc, &image]] {
            let bytes = samples::riff(
                &[
                    vec![samples::vp8x(W, H, 0x28)],
                    chunks.map(Clone::clone).to_vec(),
                ]
                .concat(),
            );
            let photo = photo(&bytes);
            assert_eq!(photo.orientation, Orientation::Rotate180);
            assert_eq!(photo.icc.as_deref(), Some(&b"profile"[..]));
        }
    }

    #[test]
    fn sizes_that_disagree_are_damage() {
        let image = samples::webp(W, H)[12..].to_vec();
        let other_canvas = samples::riff(&[samples::vp8x(W + 1, H, 0), image.clone()]);
        assert_eq!(recognise(&other_canvas), Err(Error::Damaged));
        let file = samples::webp(W, H);
        let outside = samples::webp_animation((W, H), &[(&file, [20, 0, W, H])]);
        assert_eq!(recognise(&outside), Err(Error::Damaged));
        let other_frame = samples::webp_animation((W, H), &[(&file, [0, 0, W - 1, H])]);
        assert_eq!(recognise(&other_frame), Err(Error::Damaged));
        let huge_frame = samples::webp_animation((W, H), &[(&file, [0, 0, 16_000_000, H])]);
        assert_eq!(recognise(&huge_frame), Err(Error::TooLarge));
        assert_eq!(
            recognise(&samples::riff(&[samples::vp8x(W, H, 0)])),
            Err(Error::Damaged)
        );
        let cut = &file[..file.len() - 2];
        assert_eq!(recognise(cut), Err(Error::Damaged));
    }

    #[test]
    fn decoding_is_weighed_by_what_it_allocates() {
        let peak = |bytes: &[u8]| recognise(bytes).expect("a good header").peak_mib();
        // 10,000 by 5,000 pixels, all claims and no data.
        assert!((310..350).contains(&peak(&samples::webp_lossless_header(10_000, 5000))));
        assert!((260..320).contains(&peak(&samples::webp_lossy_header(10_000, 5000))));
    }
}
