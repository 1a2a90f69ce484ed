//! Bounds the decoding tables of a lossless WebP before it is decoded.
//!
//! A stream may define 65,536 groups of five prefix codes, and the decoder builds tables for all of them: an upload of ten
//! megabytes becomes more than a gigabyte of tables. The decoder has no limit for them. Therefore this module reads the
//! stream up to its pixels and adds up the table sizes, one code at a time.

use crate::error::Error;

/// The memory that the tables may use. The reference encoder writes at most 2,600 groups, which need less.
pub(crate) const MOST_TABLE_BYTES: usize = 80 * 1024 * 1024;

const LITERALS: usize = 256;
const LENGTHS: usize = 24;
const DISTANCES: usize = 40;
const MAX_LENGTH: usize = 15;
const LENGTH_ORDER: [usize; 19] = [
    17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
];

/// The distances with short codes: columns to the left, and rows up.
#[rustfmt::skip]
const NEAR: [(i8, i8); 120] = [
    (0, 1), (1, 0), (1, 1), (-1, 1), (0, 2), (2, 0), (1, 2), (-1, 2), (2, 1), (-2, 1), (2, 2), (-2, 2),
    (0, 3), (3, 0), (1, 3), (-1, 3), (3, 1), (-3, 1), (2, 3), (-2, 3), (3, 2), (-3, 2), (0, 4), (4, 0),
    (1, 4), (-1, 4), (4, 1), (-4, 1), (3, 3), (-3, 3), (2, 4), (-2, 4), (4, 2), (-4, 2), (0, 5), (3, 4),
    (-3, 4), (4, 3), (-4, 3), (5, 0), (1, 5), (-1, 5), (5, 1), (-5, 1), (2, 5), (-2, 5), (5, 2), (-5, 2),
    (4, 4), (-4, 4), (3, 5), (-3, 5), (5, 3), (-5, 3), (0, 6), (6, 0), (1, 6), (-1, 6), (6, 1), (-6, 1),
    (2, 6), (-2, 6), (6, 2), (-6, 2), (4, 5), (-4, 5), (5, 4), (-5, 4), (3, 6), (-3, 6), (6, 3), (-6, 3),
    (0, 7), (7, 0), (1, 7), (-1, 7), (5, 5), (-5, 5), (7, 1), (-7, 1), (4, 6), (-4, 6), (6, 4), (-6, 4),
    (2, 7), (-2, 7), (7, 2), (-7, 2), (3, 7), (-3, 7), (7, 3), (-7, 3), (5, 6), (-5, 6), (6, 5), (-6, 5),
    (8, 0), (4, 7), (-4, 7), (7, 4), (-7, 4), (8, 1), (8, 2), (6, 6), (-6, 6), (8, 3), (5, 7), (-5, 7),
    (7, 5), (-7, 5), (8, 4), (6, 7), (-6, 7), (7, 6), (-7, 6), (8, 5), (7, 7), (-7, 7), (8, 6), (8, 7),
];

/// Refuses a stream whose tables would be too large. `data` starts with the header of the stream.
pub(crate) fn check_tables(data: &[u8], width: u32, height: u32) -> Result<(), Error> {
    check_within(data, width, height, MOST_TABLE_BYTES)
}

fn check_within(data: &[u8], width: u32, height: u32, most: usize) -> Result<(), Error> {
    let mut bits = Bits { data, at: 40 };
    let mut width = width as usize;
    let height = height as usize;
    let mut seen = [false; 4];
    while bits.read(1)? == 1 {
        let kind = bits.read(2)?;
        if std::mem::replace(&mut seen[kind], true) {
            return Err(Error::Damaged);
        }
        match kind {
            0 | 1 => {
                let block = 1 << (bits.read(3)? + 2);
                image(&mut bits, width.div_ceil(block), height.div_ceil(block))?;
            }
            3 => {
                let colours = bits.read(8)? + 1;
                image(&mut bits, colours, 1)?;
                // Small palettes put several pixels into one.
                width = match colours {
                    0..=2 => width.div_ceil(8),
                    3..=4 => width.div_ceil(4),
                    5..=16 => width.div_ceil(2),
                    _ => width,
                };
            }
            _ => {}
        }
    }
    let cached = cache_size(&mut bits)?;
    let mut groups = 1;
    if bits.read(1)? == 1 {
        let block = 1 << (bits.read(3)? + 2);
        let pixels = image(&mut bits, width.div_ceil(block), height.div_ceil(block))?;
        let group = |pixel: &u32| (pixel >> 8 & 0xffff) as usize + 1;
        groups = pixels.iter().map(group).max().unwrap_or(1);
    }
    let mut bytes = 0;
    for _ in 0..groups {
        for symbols in alphabets(cached) {
            bytes += Code::read(&mut bits, symbols)?.table_bytes();
        }
        if bytes > most {
            return Err(Error::Damaged);
        }
    }
    Ok(())
}

fn alphabets(cached: usize) -> [usize; 5] {
    [
        LITERALS + LENGTHS + cached,
        LITERALS,
        LITERALS,
        LITERALS,
        DISTANCES,
    ]
}

fn cache_size(bits: &mut Bits<'_>) -> Result<usize, Error> {
    if bits.read(1)? == 0 {
        return Ok(0);
    }
    match bits.read(4)? {
        size @ 1..=11 => Ok(1 << size),
        _ => Err(Error::Damaged),
    }
}

/// Decodes one of the small images that control the decoder, as ARGB.
fn image(bits: &mut Bits<'_>, width: usize, height: usize) -> Result<Vec<u32>, Error> {
    let mut cache = vec![0_u32; cache_size(bits)?];
    let mut codes = Vec::with_capacity(5);
    for symbols in alphabets(cache.len()) {
        codes.push(Code::read(bits, symbols)?);
    }
    let [green, red, blue, alpha, distance] = &codes[..] else {
        return Err(Error::Damaged);
    };
    let count = width * height;
    let mut pixels: Vec<u32> = Vec::with_capacity(count);
    while pixels.len() < count {
        let start = pixels.len();
        let symbol = green.next(bits)?;
        if let Some(cached) = symbol.checked_sub(LITERALS + LENGTHS) {
            pixels.push(*cache.get(cached).ok_or(Error::Damaged)?);
        } else if let Some(prefix) = symbol.checked_sub(LITERALS) {
            let length = bits.number(prefix)?.min(count - start);
            let prefix = distance.next(bits)?;
            let distance = match bits.number(prefix)? {
                code @ 1..=120 => {
                    let (left, up) = NEAR[code - 1];
                    let distance = isize::from(left) + isize::from(up) * width.cast_signed();
                    distance.max(1).cast_unsigned()
                }
                code => code - 120,
            };
            let from = start.checked_sub(distance).ok_or(Error::Damaged)?;
            for at in from..from + length {
                pixels.push(pixels[at]);
            }
        } else {
            let [red, blue, alpha] = [red.next(bits)?, blue.next(bits)?, alpha.next(bits)?];
            let argb = [blue, symbol, red, alpha].map(|channel| channel.to_le_bytes()[0]);
            pixels.push(u32::from_le_bytes(argb));
        }
        if !cache.is_empty() {
            let shift = u32::BITS - cache.len().trailing_zeros();
            for pixel in &pixels[start..] {
                cache[(pixel.wrapping_mul(0x1e35_a7bd) >> shift) as usize] = *pixel;
            }
        }
    }
    Ok(pixels)
}

/// A canonical prefix code.
struct Code {
    /// The number of symbols for each code length.
    counts: [usize; MAX_LENGTH + 1],
    /// The symbols, ordered by code length.
    symbols: Vec<usize>,
}

impl Code {
    fn read(bits: &mut Bits<'_>, symbols: usize) -> Result<Self, Error> {
        let mut lengths = vec![0; symbols];
        if bits.read(1)? == 1 {
            let has_two = bits.read(1)? == 1;
            let is_wide = bits.read(1)? == 1;
            let first = bits.read(if is_wide { 8 } else { 1 })?;
            *lengths.get_mut(first).ok_or(Error::Damaged)? = 1;
            if has_two {
                let second = bits.read(8)?;
                *lengths.get_mut(second).ok_or(Error::Damaged)? = 1;
            }
        } else {
            read_lengths(bits, &mut lengths)?;
        }
        Self::new(&lengths)
    }

    fn new(lengths: &[usize]) -> Result<Self, Error> {
        let mut counts = [0; MAX_LENGTH + 1];
        for &length in lengths.iter().filter(|&&length| length > 0) {
            counts[length] += 1;
        }
        let mut symbols: Vec<usize> = (0..lengths.len())
            .filter(|&symbol| lengths[symbol] > 0)
            .collect();
        symbols.sort_by_key(|&symbol| lengths[symbol]);
        if symbols.is_empty() {
            Err(Error::Damaged)
        } else {
            Ok(Self { counts, symbols })
        }
    }

    fn next(&self, bits: &mut Bits<'_>) -> Result<usize, Error> {
        // One symbol needs no bits.
        if let [only] = self.symbols[..] {
            return Ok(only);
        }
        let (mut code, mut first, mut index) = (0, 0, 0);
        for count in &self.counts[1..] {
            code |= bits.read(1)?;
            if code < first + count {
                return self
                    .symbols
                    .get(index + code - first)
                    .copied()
                    .ok_or(Error::Damaged);
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        Err(Error::Damaged)
    }

    /// The memory that the decoder allocates: a table for the first ten bits, and a tree for the rest.
    fn table_bytes(&self) -> usize {
        let longest = self
            .counts
            .iter()
            .rposition(|&count| count > 0)
            .unwrap_or(0);
        let in_tree: usize = self.counts[11..].iter().sum();
        128 + (4 << longest.min(10)) + 2 * 16 * in_tree
    }
}

fn read_lengths(bits: &mut Bits<'_>, lengths: &mut [usize]) -> Result<(), Error> {
    let mut of_lengths = [0; LENGTH_ORDER.len()];
    let count = bits.read(4)? + 4;
    for &symbol in LENGTH_ORDER.get(..count).ok_or(Error::Damaged)? {
        of_lengths[symbol] = bits.read(3)?;
    }
    let code = Code::new(&of_lengths)?;
    let mut left = lengths.len();
    if bits.read(1)? == 1 {
        let width = 2 + 2 * bits.read(3)?;
        left = 2 + bits.read(width)?;
    }
    let (mut at, mut before) = (0, 8);
    while at < lengths.len() && left > 0 {
        left -= 1;
        let symbol = code.next(bits)?;
        let (length, times) = match symbol {
            0..16 => (symbol, 1),
            16 => (before, 3 + bits.read(2)?),
            17 => (0, 3 + bits.read(3)?),
            _ => (0, 11 + bits.read(7)?),
        };
        lengths
            .get_mut(at..at + times)
            .ok_or(Error::Damaged)?
            .fill(length);
        at += times;
        if length > 0 {
            before = length;
        }
    }
    Ok(())
}

/// A bit reader that starts with the lowest bit of each byte.
struct Bits<'a> {
    data: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn read(&mut self, count: usize) -> Result<usize, Error> {
        let mut value = 0;
        for bit in 0..count {
            let byte = self.data.get(self.at / 8).ok_or(Error::Damaged)?;
            value |= usize::from(byte >> (self.at % 8) & 1) << bit;
            self.at += 1;
        }
        Ok(value)
    }

    /// Reads the number that follows a prefix: a length or a distance.
    fn number(&mut self, prefix: usize) -> Result<usize, Error> {
        if prefix < 4 {
            return Ok(prefix + 1);
        }
        let more = (prefix - 2) >> 1;
        Ok(((2 + (prefix & 1)) << more) + self.read(more)? + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    /// The stream of a file with one chunk.
    fn stream(file: &[u8]) -> &[u8] {
        &file[20..]
    }

    fn noise(pixels: u32, colours: u32) -> Vec<u8> {
        let pixel = |at: u32| {
            let value = (at / 7).wrapping_mul(2_654_435_761) >> 13;
            let value = value % colours;
            [value, value * 3, value * 5 + at / 640, 255].map(samples::byte)
        };
        (0..pixels).flat_map(pixel).collect()
    }

    #[test]
    fn what_the_reference_encoder_writes_is_read_to_its_pixels() {
        for colours in [1, 2, 4, 16, 200, 100_000] {
            let file = samples::webp_lossless(&noise(400 * 300, colours), 400, 300);
            assert_eq!(
                check_tables(stream(&file), 400, 300),
                Ok(()),
                "{colours} colours"
            );
            // It stops where the pixels start, so much of the stream can be missing.
            let most_is_missing = &stream(&file)[..16.min(file.len() - 20)];
            let _ = check_tables(most_is_missing, 400, 300);
        }
    }

    #[test]
    fn tables_are_counted_as_they_are_read() {
        // Many groups: the picture changes its nature from block to block.
        let file = samples::webp_lossless(&noise(400 * 300, 100_000), 400, 300);
        assert_eq!(
            check_within(stream(&file), 400, 300, 100),
            Err(Error::Damaged)
        );
    }

    /// Bits, the lowest of each byte first.
    #[derive(Default)]
    struct Writer(Vec<bool>);

    impl Writer {
        fn put(&mut self, value: u32, count: u32) {
            self.0.extend((0..count).map(|bit| value >> bit & 1 == 1));
        }

        /// A code of the symbol 0, or of the symbols 0 and `second`.
        fn simple(&mut self, second: Option<u32>) {
            self.put(1, 1);
            self.put(second.is_some().into(), 1);
            self.put(0, 2);
            if let Some(second) = second {
                self.put(second, 8);
            }
        }

        /// A code whose longest word has ten bits, in as few bits as there are.
        fn costly(&mut self) {
            self.put(0, 1);
            // The lengths 0 to 10 have codes of four bits, and 17 and 18 of two.
            self.put(14 - 4, 4);
            for symbol in &LENGTH_ORDER[..14] {
                self.put(if matches!(symbol, 16..) { 0 } else { 4 }, 3);
            }
            self.put(1, 1);
            self.put(2, 3);
            self.put(11 - 2, 6);
            for length in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10_u32] {
                // Codes have their highest bit first.
                self.put(length.reverse_bits() >> 28, 4);
            }
        }

        fn bytes(&self) -> Vec<u8> {
            let byte = |bits: &[bool]| {
                bits.iter()
                    .rev()
                    .fold(0, |byte, &bit| byte << 1 | u8::from(bit))
            };
            self.0.chunks(8).map(byte).collect()
        }
    }

    #[test]
    fn a_bomb_of_tables_is_refused_before_it_is_built() {
        let (width, height) = (1024, 1024);
        let mut bits = Writer::default();
        bits.put(0x2f, 8);
        bits.put(width - 1, 14);
        bits.put(height - 1, 14);
        bits.put(0, 4);
        // No transform and no cache, but an image of groups.
        bits.put(0b100, 3);
        bits.put(0, 3);
        // Without cache: red is 0 or 255, so that the first of two groups is the highest there can be.
        bits.put(0, 1);
        bits.simple(None);
        bits.simple(Some(255));
        (0..3).for_each(|_| bits.simple(None));
        (0..256 * 256).for_each(|at| bits.put((at == 0).into(), 1));
        for _ in 0..65_281 {
            (0..5).for_each(|_| bits.costly());
        }
        let data = bits.bytes();
        assert!(
            data.len() < crate::limits::MAX_BYTES,
            "{} bytes would do",
            data.len()
        );
        assert_eq!(check_tables(&data, width, height), Err(Error::Damaged));
        assert_eq!(
            check_within(&data, width, height, usize::MAX),
            Ok(()),
            "it is refused for nothing but its tables"
        );
    }
}
