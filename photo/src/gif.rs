//! The first frame of a GIF, read row by row.

use std::io::Cursor;

use ::gif::{ColorOutput, DecodeOptions};
use image::metadata::Orientation;

use crate::decoded::Photo;
use crate::error::Error;
use crate::reduce::{self, Model, Reducer};
use crate::source::{Format, Source, array, check_most, check_size, slice};

/// For each pass of an interlaced frame: the first row, and the distance to the next row.
const PASSES: [(u32, u32); 4] = [(0, 8), (4, 8), (2, 4), (1, 2)];

/// Reads the header. It walks all blocks up to the trailer to detect a truncated file.
pub(crate) fn header(bytes: &[u8]) -> Result<Source, Error> {
    let screen = (le16(bytes, 6)?, le16(bytes, 8)?);
    if screen != (0, 0) {
        check_size(screen.0, screen.1)?;
    }
    let mut at = 13 + palette_bytes(array::<1>(bytes, 10)?[0]);
    let mut size = None;
    loop {
        at = match array::<1>(bytes, at)? {
            [0x21] => after_blocks(bytes, at + 2)?,
            [0x2c] => {
                let (width, height) = (le16(bytes, at + 5)?, le16(bytes, at + 7)?);
                if size.is_none() {
                    check_most(width, height)?;
                    // Some writers leave the screen empty and mean the frame.
                    let whole = if screen == (0, 0) {
                        (width, height)
                    } else {
                        screen
                    };
                    check_size(whole.0, whole.1)?;
                    size = Some(whole);
                }
                let palette = palette_bytes(array::<1>(bytes, at + 9)?[0]);
                after_blocks(bytes, at + 10 + palette + 1)?
            }
            [0x3b] => break,
            _ => return Err(Error::Damaged),
        };
    }
    let (width, height) = size.ok_or(Error::Damaged)?;
    // Beside the reducer there are a row, the dictionary, and metadata that the file holds as it is.
    let peak_bytes = reduce::peak_bytes(width, height) + 2 * bytes.len() as u64;
    Ok(Source {
        format: Format::Gif,
        width,
        height,
        peak_bytes,
    })
}

fn le16(bytes: &[u8], at: usize) -> Result<u32, Error> {
    Ok(u16::from_le_bytes(array(bytes, at)?).into())
}

fn palette_bytes(flags: u8) -> usize {
    if flags & 0x80 == 0 {
        0
    } else {
        3 << ((flags & 7) + 1)
    }
}

fn after_blocks(bytes: &[u8], mut at: usize) -> Result<usize, Error> {
    loop {
        let [length] = array(bytes, at)?;
        slice(bytes, at, 1 + usize::from(length))?;
        at += 1 + usize::from(length);
        if length == 0 {
            return Ok(at);
        }
    }
}

pub(crate) fn decode(bytes: &[u8], source: &Source) -> Result<Photo, Error> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    let mut decoder = options.read_info(Cursor::new(bytes)).map_err(damaged)?;
    let frame = decoder
        .next_frame_info()
        .map_err(damaged)?
        .ok_or(Error::Damaged)?;
    let (left, top) = (u32::from(frame.left), u32::from(frame.top));
    let (width, height) = (u32::from(frame.width), u32::from(frame.height));
    let passes = if frame.interlaced {
        PASSES.as_slice()
    } else {
        &[(0, 1)]
    };
    let transparent = frame.transparent;
    // With an empty screen the frame is the whole picture, and its position is ignored.
    let is_alone = array::<4>(bytes, 6)? == [0; 4];
    let (left, top) = if is_alone { (0, 0) } else { (left, top) };
    check_most(width, height)?;
    let colours = colours(decoder.palette().map_err(damaged)?, transparent);

    // The area outside the frame stays transparent.
    let mut reducer = Reducer::new(source.width, source.height, Model::Rgba);
    let mut row = vec![0; width as usize];
    for &(first, between) in passes {
        for y in (first..height).step_by(between as usize) {
            if !decoder.fill_buffer(&mut row).map_err(damaged)? {
                return Err(Error::Damaged);
            }
            if left < source.width {
                reducer.pixels(
                    top + y,
                    left,
                    1,
                    row.iter().map(|&index| colours[usize::from(index)]),
                );
            }
        }
    }
    let icc = decoder.icc_profile().map(<[u8]>::to_vec);
    Ok(Photo {
        square: reducer.finish()?,
        icc,
        orientation: Orientation::NoTransforms,
    })
}

/// All 256 colours. An index beyond the palette is transparent, as in browsers.
fn colours(palette: &[u8], transparent: Option<u8>) -> [[u8; 4]; 256] {
    let mut colours = [[0; 4]; 256];
    for (colour, &[r, g, b]) in colours.iter_mut().zip(palette.as_chunks().0) {
        *colour = [r, g, b, 255];
    }
    if let Some(index) = transparent {
        colours[usize::from(index)] = [0; 4];
    }
    colours
}

#[expect(clippy::needless_pass_by_value, reason = "what `map_err` takes")]
fn damaged(error: ::gif::DecodingError) -> Error {
    tracing::debug!(%error, "GIF is damaged");
    Error::Damaged
}

#[cfg(test)]
mod tests {
    use ::gif::Frame;

    use super::*;
    use crate::recognise::recognise;
    use crate::samples;

    fn photo(bytes: &[u8]) -> Photo {
        decode(bytes, &recognise(bytes).expect("a good header")).expect("a good file")
    }

    fn opaque([r, g, b]: [u8; 3]) -> [u8; 4] {
        [r, g, b, 255]
    }

    #[test]
    fn the_first_frame_is_taken() {
        let square = photo(&samples::gif(100, 100)).square;
        assert_eq!(square.pixels[0], opaque(samples::RED));
        assert_eq!(square.pixels[99], opaque(samples::GREEN));
        assert_eq!(square.pixels[9900], opaque(samples::BLUE));
        assert_eq!(square.pixels[9999], opaque(samples::YELLOW));
    }

    #[test]
    fn an_interlaced_frame_is_the_same_as_a_plain_one() {
        let plain = samples::quarter_frame(101, 103, 0);
        let buffer: Vec<u8> = PASSES
            .iter()
            .flat_map(|&(first, between)| (first..103).step_by(between as usize))
            .flat_map(|y| plain.buffer[y as usize * 101..][..101].to_vec())
            .collect();
        let interlaced = Frame {
            interlaced: true,
            buffer: buffer.into(),
            ..plain.clone()
        };
        let [plain, interlaced] =
            [plain, interlaced].map(|frame| photo(&samples::gif_of((101, 103), &[frame])).square);
        assert!(plain == interlaced);
    }

    #[test]
    fn what_a_small_frame_does_not_cover_is_transparent() {
        let frame = Frame {
            left: 30,
            top: 40,
            ..samples::quarter_frame(20, 10, 0)
        };
        let square = photo(&samples::gif_of((100, 100), &[frame])).square;
        assert_eq!(square.pixels[40 * 100 + 30], opaque(samples::RED));
        assert_eq!(
            square.pixels.iter().filter(|pixel| pixel[3] == 255).count(),
            200
        );
    }

    #[test]
    fn the_transparent_colour_and_colours_beyond_the_palette_are_transparent() {
        let frame = Frame {
            transparent: Some(0),
            ..samples::quarter_frame(100, 100, 0)
        };
        let square = photo(&samples::gif_of((100, 100), &[frame])).square;
        assert_eq!(
            (square.pixels[0], square.pixels[99]),
            ([0; 4], opaque(samples::GREEN))
        );
        let palette = Some(samples::BLUE.to_vec());
        let frame = Frame {
            palette,
            ..samples::quarter_frame(100, 100, 0)
        };
        let square = photo(&samples::gif_of((100, 100), &[frame])).square;
        assert_eq!(square.pixels[0], opaque(samples::BLUE));
        assert_eq!(square.pixels[9999][3], 0);
    }

    #[test]
    fn an_empty_screen_means_the_frame() {
        let bytes = samples::gif_of((0, 0), &[samples::quarter_frame(120, 100, 0)]);
        let source = recognise(&bytes).expect("a good header");
        assert_eq!((source.width, source.height), (120, 100));
        assert_eq!(photo(&bytes).square.pixels[0], opaque(samples::RED));
    }

    #[test]
    fn the_claims_of_the_frame_are_checked_too() {
        let mut bytes = samples::gif_of((100, 100), &[samples::quarter_frame(100, 100, 0)]);
        let at = bytes
            .iter()
            .position(|&byte| byte == 0x2c)
            .expect("there is a frame");
        bytes[at + 5..at + 9].fill(0xff);
        assert_eq!(recognise(&bytes), Err(Error::TooLarge));
        bytes[at + 5..at + 9].copy_from_slice(&[0x10, 0x27, 0x10, 0x27]);
        assert_eq!(recognise(&bytes), Err(Error::TooManyPixels));
    }

    #[test]
    fn a_file_without_frame_or_trailer_is_damaged() {
        let bytes = samples::gif(100, 100);
        assert_eq!(recognise(&bytes[..bytes.len() - 1]), Err(Error::Damaged));
        assert_eq!(
            recognise(&samples::gif_of((100, 100), &[])),
            Err(Error::Damaged)
        );
    }
}
