//! Photos for tests, made in code.

use ::gif::{Encoder as GifEncoder, Frame};
use ::png::{BitDepth, ColorType};
use image::codecs::jpeg::JpegEncoder;

/// Top left in the quarters.
pub const RED: [u8; 3] = [220, 30, 40];
/// Top right.
pub const GREEN: [u8; 3] = [20, 180, 60];
/// Bottom left.
pub const BLUE: [u8; 3] = [30, 60, 210];
/// Bottom right.
pub const YELLOW: [u8; 3] = [240, 220, 50];

/// Bytes that no colour or encoder produces by chance. They are metadata that no rendition may contain.
pub const SECRET: &[u8] = b"52.3731N-4.8926E-home";

/// Four quarters: red and green above blue and yellow. Every rotation and every reflection changes the picture.
pub fn quarters(width: u32, height: u32) -> Vec<u8> {
    let pixel = |x, y| match (x * 2 < width, y * 2 < height) {
        (true, true) => RED,
        (false, true) => GREEN,
        (true, false) => BLUE,
        (false, false) => YELLOW,
    };
    (0..height)
        .flat_map(|y| (0..width).flat_map(move |x| pixel(x, y)))
        .collect()
}

/// The quarters as a JPEG.
pub fn jpeg(width: u32, height: u32) -> Vec<u8> {
    jpeg_of(
        &quarters(width, height),
        width,
        height,
        image::ExtendedColorType::Rgb8,
    )
}

/// A JPEG of these pixels.
pub fn jpeg_of(
    pixels: &[u8],
    width: u32,
    height: u32,
    colours: image::ExtendedColorType,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 95)
        .encode(pixels, width, height, colours)
        .expect("the pixels fit");
    bytes
}

/// The quarters as a PNG.
pub fn png(width: u32, height: u32) -> Vec<u8> {
    png_of(
        &quarters(width, height),
        width,
        height,
        ColorType::Rgb,
        BitDepth::Eight,
    )
}

/// A PNG of these pixels. An indexed one has the four colours, of which yellow is transparent.
pub fn png_of(
    pixels: &[u8],
    width: u32,
    height: u32,
    colours: ColorType,
    depth: BitDepth,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(colours);
    encoder.set_depth(depth);
    if colours == ColorType::Indexed {
        encoder.set_palette([RED, GREEN, BLUE, YELLOW].concat());
        encoder.set_trns(vec![255, 255, 255, 0]);
    }
    let mut writer = encoder.write_header().expect("the header fits");
    writer.write_image_data(pixels).expect("the pixels fit");
    writer.finish().expect("a vector takes everything");
    bytes
}

/// The quarters as a lossy WebP.
pub fn webp(width: u32, height: u32) -> Vec<u8> {
    ::webp::Encoder::from_rgb(&quarters(width, height), width, height)
        .encode(95.0)
        .to_vec()
}

/// A lossless WebP of these pixels.
pub fn webp_lossless(rgba: &[u8], width: u32, height: u32) -> Vec<u8> {
    ::webp::Encoder::from_rgba(rgba, width, height)
        .encode_lossless()
        .to_vec()
}

/// Two frames: the quarters, then nothing but yellow.
pub fn gif(width: u16, height: u16) -> Vec<u8> {
    gif_of(
        (width, height),
        &[
            quarter_frame(width, height, 0),
            quarter_frame(width, height, 3),
        ],
    )
}

/// A GIF of these frames, in the four colours.
pub fn gif_of(screen: (u16, u16), frames: &[Frame<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let palette = [RED, GREEN, BLUE, YELLOW].concat();
    let mut encoder =
        GifEncoder::new(&mut bytes, screen.0, screen.1, &palette).expect("the palette fits");
    for frame in frames {
        encoder.write_frame(frame).expect("the frame fits");
    }
    drop(encoder);
    bytes
}

/// A frame of the quarters, their colours moved on by `shift` places at most up to yellow.
pub fn quarter_frame(width: u16, height: u16, shift: u8) -> Frame<'static> {
    let index = |x, y| (u8::from(x * 2 >= width) + 2 * u8::from(y * 2 >= height) + shift).min(3);
    let pixels: Vec<u8> = (0..height)
        .flat_map(|y| (0..width).map(move |x| index(x, y)))
        .collect();
    Frame {
        width,
        height,
        buffer: pixels.into(),
        ..Frame::default()
    }
}

/// The start of a JPEG, up to the size that it claims.
pub fn jpeg_header(width: u16, height: u16) -> Vec<u8> {
    let mut bytes = b"\xff\xd8\xff\xc0\0\x11\x08".to_vec();
    bytes.extend([height.to_be_bytes(), width.to_be_bytes()].concat());
    bytes.extend(b"\x03\x01\x11\0\x02\x11\0\x03\x11\0");
    bytes
}

/// The start of a PNG, up to the size that it claims.
pub fn png_header(width: u16, height: u16) -> Vec<u8> {
    let data = [
        &u32::from(width).to_be_bytes()[..],
        &u32::from(height).to_be_bytes(),
        b"\x08\x02\0\0\0",
    ]
    .concat();
    [&b"\x89PNG\r\n\x1a\n"[..], &png_chunk(*b"IHDR", &data)].concat()
}

/// The start of a GIF, up to the size that it claims.
pub fn gif_header(width: u16, height: u16) -> Vec<u8> {
    [
        &b"GIF89a"[..],
        &width.to_le_bytes(),
        &height.to_le_bytes(),
        b"\0\0\0",
    ]
    .concat()
}

/// A lossy WebP that claims a size and has no pixels.
pub fn webp_lossy_header(width: u16, height: u16) -> Vec<u8> {
    riff(&[riff_chunk(
        *b"VP8 ",
        &[
            &b"\0\0\0\x9d\x01\x2a"[..],
            &width.to_le_bytes(),
            &height.to_le_bytes(),
        ]
        .concat(),
    )])
}

/// A lossless WebP that claims a size and has no pixels.
pub fn webp_lossless_header(width: u16, height: u16) -> Vec<u8> {
    let bits = (u32::from(width) - 1) | ((u32::from(height) - 1) << 14);
    riff(&[riff_chunk(
        *b"VP8L",
        &[&b"\x2f"[..], &bits.to_le_bytes(), &[0; 5]].concat(),
    )])
}

/// A WebP that claims the size of its canvas and has no image.
pub fn webp_canvas_header(width: u16, height: u16) -> Vec<u8> {
    riff(&[vp8x(width.into(), height.into(), 0)])
}

/// The first chunk of an extended WebP.
pub fn vp8x(width: u32, height: u32, flags: u8) -> Vec<u8> {
    let side = |side: u32| (side - 1).to_le_bytes();
    riff_chunk(
        *b"VP8X",
        &[&[flags, 0, 0, 0], &side(width)[..3], &side(height)[..3]].concat(),
    )
}

/// A WebP of these chunks.
pub fn riff(chunks: &[Vec<u8>]) -> Vec<u8> {
    let chunks = chunks.concat();
    let length = u32::try_from(chunks.len() + 4).expect("samples are small");
    [&b"RIFF"[..], &length.to_le_bytes(), b"WEBP", &chunks].concat()
}

/// A chunk of a WebP.
pub fn riff_chunk(name: [u8; 4], data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).expect("samples are small");
    let mut chunk = [&name[..], &length.to_le_bytes(), data].concat();
    chunk.resize(chunk.len().next_multiple_of(2), 0);
    chunk
}

/// An animation whose frames are WebP files, each with its offset and size.
pub fn webp_animation(canvas: (u32, u32), frames: &[(&[u8], [u32; 4])]) -> Vec<u8> {
    let mut chunks = vec![
        vp8x(canvas.0, canvas.1, 0x12),
        riff_chunk(*b"ANIM", &[255, 255, 255, 255, 0, 0]),
    ];
    for (file, [x, y, width, height]) in frames {
        let numbers = [x / 2, y / 2, width - 1, height - 1, 100].map(u32::to_le_bytes);
        let header: Vec<u8> = numbers
            .iter()
            .flat_map(|number| number[..3].to_vec())
            .chain([0])
            .collect();
        chunks.push(riff_chunk(*b"ANMF", &[&header, &file[12..]].concat()));
    }
    riff(&chunks)
}

/// A chunk of a PNG.
pub fn png_chunk(name: [u8; 4], data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).expect("samples are small");
    let body = [&name[..], data].concat();
    let crc = body.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }
        })
    });
    [&length.to_be_bytes()[..], &body, &(!crc).to_be_bytes()].concat()
}

/// The PNG with more chunks after its header.
pub fn png_with(png: &[u8], chunks: &[Vec<u8>]) -> Vec<u8> {
    [&png[..33], &chunks.concat(), &png[33..]].concat()
}

/// The JPEG with more segments after its start.
pub fn jpeg_with(jpeg: &[u8], segments: &[Vec<u8>]) -> Vec<u8> {
    [&jpeg[..2], &segments.concat(), &jpeg[2..]].concat()
}

/// A segment of a JPEG.
pub fn segment(marker: u8, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len() + 2).expect("segments are small");
    [&[0xff, marker], &length.to_be_bytes()[..], data].concat()
}

/// TIFF with an orientation, a GPS directory and [`SECRET`] in it.
pub fn exif(orientation: u8) -> Vec<u8> {
    let mut tiff = b"MM\0*\0\0\0\x08\0\x02".to_vec();
    tiff.extend(b"\x01\x12\0\x03\0\0\0\x01\0");
    tiff.extend([orientation, 0, 0]);
    tiff.extend(b"\x88\x25\0\x04\0\0\0\x01\0\0\0\x26\0\0\0\0");
    tiff.extend(b"\0\x01\0\x1d\0\x02\0\0\0\x15\0\0\0\x38\0\0\0\0");
    tiff.extend(SECRET);
    tiff
}

/// [`exif`] as a segment of a JPEG.
pub fn jpeg_exif(orientation: u8) -> Vec<u8> {
    segment(0xe1, &[b"Exif\0\0", &exif(orientation)[..]].concat())
}

/// A colour profile as a segment of a JPEG.
pub fn jpeg_icc(profile: &[u8]) -> Vec<u8> {
    segment(0xe2, &[b"ICC_PROFILE\0\x01\x01", profile].concat())
}

/// A JPEG made of blocks of one colour each, in as many channels as the colour has: baseline
/// (`0xc0`) or progressive (`0xc2`).
pub fn jpeg_blocks<const N: usize>(
    frame: u8,
    width: u16,
    height: u16,
    colour: impl Fn(u16, u16) -> [u8; N],
) -> Vec<u8> {
    let count = u8::try_from(N).expect("at most four channels");
    let mut bytes = b"\xff\xd8".to_vec();
    bytes.extend(segment(0xdb, &[&[0][..], &[8; 64]].concat()));
    let ids = (1..=count).flat_map(|id| [id, 0x11, 0]).collect::<Vec<_>>();
    let size = [height.to_be_bytes(), width.to_be_bytes()].concat();
    bytes.extend(segment(frame, &[&[8][..], &size, &[count], &ids].concat()));
    // The classes of differences, from 0 to 8 bits, have codes of 4 bits.
    bytes.extend(segment(
        0xc4,
        &[
            &[0x00, 0, 0, 0, 9][..],
            &[0; 12],
            &[0, 1, 2, 3, 4, 5, 6, 7, 8],
        ]
        .concat(),
    ));
    // One code of one bit says that nothing else is in a block.
    bytes.extend(segment(0xc4, &[&[0x10, 1][..], &[0; 15], &[0]].concat()));
    let ids = (1..=count).flat_map(|id| [id, 0]).collect::<Vec<_>>();
    let is_progressive = frame == 0xc2;
    let last = if is_progressive { 0 } else { 63 };
    bytes.extend(segment(0xda, &[&[count][..], &ids, &[0, last, 0]].concat()));
    let mut bits = Bits {
        bytes,
        pending: 0,
        count: 0,
    };
    let mut before = [128; N];
    for y in 0..height.div_ceil(8) {
        for x in 0..width.div_ceil(8) {
            for (before, value) in before.iter_mut().zip(colour(x, y).map(i32::from)) {
                bits.difference(value - *before);
                *before = value;
                if !is_progressive {
                    bits.push(0, 1);
                }
            }
        }
    }
    bits.finish()
}

struct Bits {
    bytes: Vec<u8>,
    pending: u32,
    count: u32,
}

impl Bits {
    fn difference(&mut self, difference: i32) {
        let class = u32::BITS - difference.unsigned_abs().leading_zeros();
        self.push(class, 4);
        let value = if difference < 0 {
            difference + (1 << class) - 1
        } else {
            difference
        };
        self.push(value.unsigned_abs(), class);
    }

    fn push(&mut self, value: u32, count: u32) {
        self.pending = (self.pending << count) | value;
        self.count += count;
        while self.count >= 8 {
            self.count -= 8;
            let byte = (self.pending >> self.count).to_le_bytes()[0];
            self.bytes.push(byte);
            if byte == 0xff {
                self.bytes.push(0);
            }
        }
        self.pending &= (1 << self.count) - 1;
    }

    fn finish(mut self) -> Vec<u8> {
        self.push((1 << 7) - 1, 7);
        self.bytes.extend(b"\xff\xd9");
        self.bytes
    }
}

/// The largest difference between the channels of two colours.
pub fn distance(left: &[u8], right: &[u8]) -> u8 {
    left.iter()
        .zip(right)
        .map(|(left, right)| left.abs_diff(*right))
        .max()
        .unwrap_or_default()
}

/// The lowest byte of a number.
pub fn byte(number: impl Into<u32>) -> u8 {
    number.into().to_le_bytes()[0]
}
