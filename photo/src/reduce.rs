//! Reduces decoded pixels to a small square. The pixels may arrive in any order, and no step after the decoder holds the
//! whole picture.
//!
//! Blocks of whole pixels are averaged while the rows arrive, down to a side of at most twice [`ENOUGH`]. A Lanczos
//! filter does the rest. Both multiply colours by alpha first, so transparent pixels do not affect visible colours.

use fast_image_resize::images::TypedImage;
use fast_image_resize::pixels::{U8x4, U16x4};
use fast_image_resize::{ResizeOptions, Resizer};

use crate::error::Error;

/// The smallest side that averaging produces. It is well above the largest rendition, so that the better filter still
/// has detail to work with.
const ENOUGH: u32 = 768;
/// The side of the largest rendition.
pub(crate) const LARGEST: u32 = 512;

/// The meaning of the four channels of a pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Model {
    /// Red, green, blue and alpha.
    Rgba,
    /// The amount of each ink.
    Cmyk,
}

/// The channels of a decoded row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channels {
    Gray,
    GrayAlpha,
    Rgb,
    Rgba,
}

/// A square of pixels with straight alpha.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Square {
    pub(crate) side: u32,
    pub(crate) model: Model,
    pub(crate) pixels: Vec<[u8; 4]>,
}

/// Collects the middle square of a picture.
pub(crate) struct Reducer {
    model: Model,
    /// The first column and row inside the square.
    left: u32,
    top: u32,
    /// Source pixels along the side of a block.
    factor: u32,
    /// Blocks along a side of the square.
    side: u32,
    /// The sums of the blocks, colours weighted by alpha. At most 16² pixels of 255² fit easily.
    sums: Vec<[u32; 4]>,
    /// Sums of whole rows without alpha, byte by byte.
    lines: Lines,
}

/// The sum of pixel rows within one row of blocks.
#[derive(Default)]
struct Lines {
    /// The index of the row of blocks.
    row: u32,
    /// The number of added rows: at most 16, so that the sums fit.
    count: u32,
    /// Bytes per pixel.
    channels: usize,
    sums: Vec<u16>,
}

/// The memory in bytes that a reducer and its filter need at most for a picture of this size.
pub(crate) fn peak_bytes(width: u32, height: u32) -> u64 {
    let side = u64::from(width.min(height).min(2 * ENOUGH));
    // The sums, the averages, and what the filter keeps between its two passes.
    side * side * (16 + 8) + side * u64::from(LARGEST) * 8 + 8 * 1024 * 1024
}

impl Reducer {
    pub(crate) fn new(width: u32, height: u32, model: Model) -> Self {
        let shorter = width.min(height);
        let factor = (shorter / ENOUGH).max(1);
        let side = shorter / factor;
        // Pixels that do not fill a block are left out, evenly on both ends.
        let covered = side * factor;
        let blocks = side as usize * side as usize;
        Self {
            model,
            left: (width - covered) / 2,
            top: (height - covered) / 2,
            factor,
            side,
            sums: vec![[0; 4]; blocks],
            lines: Lines::default(),
        }
    }

    /// Adds bytes of row `y`. Their pixels start at column `x` and are `step` columns apart.
    pub(crate) fn row(&mut self, y: u32, x: u32, step: u32, channels: Channels, bytes: &[u8]) {
        match channels {
            Channels::Gray if step == 1 && x == 0 => self.line(y, 1, bytes),
            Channels::Rgb if step == 1 && x == 0 => self.line(y, 3, bytes),
            Channels::Gray => self.pixels(
                y,
                x,
                step,
                bytes.iter().map(|&gray| [gray, gray, gray, 255]),
            ),
            Channels::GrayAlpha => {
                self.pixels(
                    y,
                    x,
                    step,
                    bytes
                        .as_chunks()
                        .0
                        .iter()
                        .map(|&[gray, alpha]| [gray, gray, gray, alpha]),
                );
            }
            Channels::Rgb => self.pixels(
                y,
                x,
                step,
                bytes.as_chunks().0.iter().map(|&[r, g, b]| [r, g, b, 255]),
            ),
            Channels::Rgba => self.pixels(y, x, step, bytes.as_chunks().0.iter().copied()),
        }
    }

    /// Adds the whole row `y` of pixels without alpha.
    fn line(&mut self, y: u32, channels: usize, bytes: &[u8]) {
        let Some(row) = self.row_of_blocks(y) else {
            return;
        };
        if self.lines.count > 0 && (self.lines.row, self.lines.channels) != (row, channels) {
            self.add_lines();
        }
        let covered = (self.side * self.factor) as usize * channels;
        let inside = bytes
            .get(self.left as usize * channels..)
            .unwrap_or_default();
        let lines = &mut self.lines;
        (lines.row, lines.channels) = (row, channels);
        lines.count += 1;
        lines.sums.resize(covered, 0);
        for (sum, byte) in lines.sums.iter_mut().zip(inside) {
            *sum += u16::from(*byte);
        }
        if lines.count == self.factor {
            self.add_lines();
        }
    }

    /// Adds the summed rows to their blocks.
    fn add_lines(&mut self) {
        let Lines {
            row,
            count,
            channels,
            ref mut sums,
        } = self.lines;
        let start = row as usize * self.side as usize;
        let weight = if self.model == Model::Rgba { 255 } else { 1 };
        let blocks = self.sums[start..].iter_mut();
        for (block, columns) in blocks.zip(sums.chunks_exact(self.factor as usize * channels)) {
            let mut colours = [0; 3];
            if channels == 1 {
                colours = [columns.iter().copied().map(u32::from).sum(); 3];
            } else {
                for pixel in columns.as_chunks::<3>().0 {
                    for (colour, value) in colours.iter_mut().zip(pixel) {
                        *colour += u32::from(*value);
                    }
                }
            }
            for (sum, colour) in block.iter_mut().zip(colours) {
                *sum += colour * weight;
            }
            block[3] += 255 * count * self.factor;
        }
        sums.clear();
        self.lines.count = 0;
    }

    /// The row of blocks that contains a row of pixels, if any.
    fn row_of_blocks(&self, y: u32) -> Option<u32> {
        let row = y.checked_sub(self.top)? / self.factor;
        (row < self.side).then_some(row)
    }

    /// Adds pixels of row `y`. They start at column `x` and are `step` columns apart.
    pub(crate) fn pixels(
        &mut self,
        y: u32,
        x: u32,
        step: u32,
        mut pixels: impl Iterator<Item = [u8; 4]>,
    ) {
        let Some(row) = self.row_of_blocks(y) else {
            return;
        };
        let start = row as usize * self.side as usize;
        let Some(sums) = self.sums.get_mut(start..start + self.side as usize) else {
            return;
        };
        let before = self.left.saturating_sub(x).div_ceil(step);
        if before > 0 && pixels.nth(before as usize - 1).is_none() {
            return;
        }
        let mut column = x + before * step - self.left;
        let mut block = column / self.factor;
        let mut next = (block + 1) * self.factor;
        for pixel in pixels {
            let Some(sum) = sums.get_mut(block as usize) else {
                break;
            };
            let [first, second, third, last] = pixel.map(u32::from);
            let weight = if self.model == Model::Rgba { last } else { 1 };
            sum[0] += first * weight;
            sum[1] += second * weight;
            sum[2] += third * weight;
            sum[3] += last;
            column += step;
            while column >= next {
                block += 1;
                next += self.factor;
            }
        }
    }

    /// Returns the square, with a side of at most [`LARGEST`] pixels.
    pub(crate) fn finish(mut self) -> Result<Square, Error> {
        if self.lines.count > 0 {
            self.add_lines();
        }
        let Self {
            model,
            factor,
            side,
            sums,
            ..
        } = self;
        // The most that a sum can be becomes 65,535. Divided once, in 2³²nds: a million divisions take their time.
        let most = u64::from(factor) * u64::from(factor) * 255;
        let scale = |most: u64| (65_535_u64 << 32).div_ceil(most);
        let of_alpha = scale(most);
        let of_colour = if model == Model::Rgba {
            scale(most * 255)
        } else {
            of_alpha
        };
        let wide = |sum: u32, scale: u64| narrow_u16((u64::from(sum) * scale + (1 << 31)) >> 32);
        let averages = sums
            .iter()
            .map(|&[a, b, c, d]| {
                U16x4::new([
                    wide(a, of_colour),
                    wide(b, of_colour),
                    wide(c, of_colour),
                    wide(d, of_alpha),
                ])
            })
            .collect();
        drop(sums);
        let target = side.min(LARGEST);
        let averages = filtered(averages, side, target)?;
        let pixels = averages
            .iter()
            .map(|pixel| straight(pixel.0, model))
            .collect();
        Ok(Square {
            side: target,
            model,
            pixels,
        })
    }
}

fn filtered(pixels: Vec<U16x4>, side: u32, target: u32) -> Result<Vec<U16x4>, Error> {
    if side == target {
        return Ok(pixels);
    }
    let source = TypedImage::from_pixels(side, side, pixels).map_err(|_| Error::Damaged)?;
    let mut small = TypedImage::new(target, target);
    // The colours are multiplied already.
    let options = ResizeOptions::new().use_alpha(false);
    Resizer::new()
        .resize_typed(&source, &mut small, &options)
        .map_err(|_| Error::Damaged)?;
    Ok(small.pixels().to_vec())
}

/// Divides the colours by alpha and rounds to bytes.
fn straight([a, b, c, d]: [u16; 4], model: Model) -> [u8; 4] {
    let byte = |value: u16| narrow_u8((u32::from(value) + 128) / 257);
    if model == Model::Cmyk || d == u16::MAX {
        return [a, b, c, d].map(byte);
    }
    if byte(d) == 0 {
        return [0; 4];
    }
    // The filter overshoots at edges, so a colour can come out above its alpha.
    let divided = |value: u16| {
        byte(narrow_u16(
            (u64::from(value) * 65_535 + u64::from(d) / 2) / u64::from(d),
        ))
    };
    [divided(a), divided(b), divided(c), byte(d)]
}

fn narrow_u16(value: u64) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

fn narrow_u8(value: u32) -> u8 {
    u8::try_from(value).unwrap_or(u8::MAX)
}

/// Scales a square of RGBA pixels down.
pub(crate) fn smaller(square: &Square, target: u32) -> Result<Square, Error> {
    if square.side == target {
        return Ok(square.clone());
    }
    let pixels = square
        .pixels
        .iter()
        .map(|&pixel| U8x4::new(pixel))
        .collect();
    let source =
        TypedImage::from_pixels(square.side, square.side, pixels).map_err(|_| Error::Damaged)?;
    let mut small = TypedImage::new(target, target);
    Resizer::new()
        .resize_typed(&source, &mut small, &ResizeOptions::new())
        .map_err(|_| Error::Damaged)?;
    let pixels = small.pixels().iter().map(|pixel| pixel.0).collect();
    Ok(Square {
        side: target,
        model: square.model,
        pixels,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn square(width: u32, height: u32, pixel: impl Fn(u32, u32) -> [u8; 4]) -> Square {
        let mut reducer = Reducer::new(width, height, Model::Rgba);
        for y in 0..height {
            reducer.pixels(y, 0, 1, (0..width).map(|x| pixel(x, y)));
        }
        reducer.finish().expect("the sizes fit")
    }

    #[test]
    fn the_middle_square_is_cut_out() {
        let middle = |at: u32| {
            if (30..130).contains(&at) {
                [10, 200, 30, 255]
            } else {
                [255, 0, 0, 255]
            }
        };
        for cut in [
            square(160, 100, |x, _| middle(x)),
            square(100, 160, |_, y| middle(y)),
        ] {
            assert_eq!(cut.side, 100);
            assert!(cut.pixels.iter().all(|&pixel| pixel == [10, 200, 30, 255]));
        }
    }

    #[test]
    fn a_large_picture_is_averaged_and_keeps_its_colours() {
        // Stripes of one pixel become their mean, whatever the blocks are.
        let striped = square(1601, 1700, |x, _| {
            if x % 2 == 0 {
                [0, 0, 0, 255]
            } else {
                [200, 100, 50, 255]
            }
        });
        assert_eq!(striped.side, LARGEST);
        for pixel in &striped.pixels {
            for (is, should) in pixel.iter().zip([100, 50, 25, 255u8]) {
                assert!(is.abs_diff(should) <= 3, "{pixel:?}");
            }
        }
    }

    #[test]
    fn order_does_not_matter() {
        let pixel = |x: u32, y: u32| [x, y, x * y, (x + y) | 1].map(crate::samples::byte);
        let straight = square(200, 150, pixel);
        let mut interlaced = Reducer::new(200, 150, Model::Rgba);
        for y in (0..150).rev() {
            for first in [1, 2, 0] {
                interlaced.pixels(y, first, 3, (first..200).step_by(3).map(|x| pixel(x, y)));
            }
        }
        assert!(interlaced.finish().expect("the sizes fit") == straight);
    }

    #[test]
    fn transparent_pixels_lend_no_colour() {
        let edge = square(1600, 1600, |x, _| {
            if x < 799 {
                [255, 0, 0, 0]
            } else {
                [0, 0, 255, 255]
            }
        });
        for pixel in &edge.pixels {
            assert_eq!(pixel[0], 0, "red is nowhere to be seen");
            assert!(pixel[3] == 0 || pixel[2] >= 250, "{pixel:?}");
        }
        let smaller = smaller(&edge, 40).expect("the sizes fit");
        assert!(
            smaller
                .pixels
                .iter()
                .all(|pixel| pixel[0] == 0 && (pixel[3] < 8 || pixel[2] >= 240))
        );
    }

    #[test]
    fn pixels_outside_the_picture_are_left_out() {
        let mut reducer = Reducer::new(100, 100, Model::Rgba);
        reducer.pixels(99, 90, 1, std::iter::repeat_n([1, 2, 3, 255], 500));
        reducer.pixels(500, 0, 1, std::iter::repeat_n([1, 2, 3, 255], 500));
        let square = reducer.finish().expect("the sizes fit");
        assert_eq!(
            square.pixels.iter().filter(|pixel| pixel[3] == 255).count(),
            10
        );
    }
}
