//! What hostile photos cost in memory, in a process of its own.

#![cfg(target_os = "linux")]

use std::io::Write;

use bytes::Bytes;
use photo::{MAX_BYTES, Photos};

const MIB: u64 = 1024 * 1024;
/// As close to 50 megapixels as the longest side allows.
const WIDTH: u16 = 12_000;
const HEIGHT: u16 = 4166;

/// 400 MB of pixels when decoded as they are.
fn png_of_16_bits() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, WIDTH.into(), HEIGHT.into());
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_depth(png::BitDepth::Sixteen);
    encoder.set_filter(png::Filter::NoFilter);
    let mut writer = encoder.write_header().expect("the header is good");
    let mut rows = writer.stream_writer().expect("the header is good");
    let row = vec![0; usize::from(WIDTH) * 8];
    for _ in 0..HEIGHT {
        rows.write_all(&row).expect("a vector takes everything");
    }
    rows.finish().expect("all rows are there");
    drop(writer);
    bytes
}

/// Progressive, so that all coefficients are kept, and in three full channels: zeros say that each
/// block is as the one before.
fn progressive_jpeg() -> Vec<u8> {
    let mut bytes = b"\xff\xd8\xff\xdb\0\x43\0".to_vec();
    bytes.extend([8; 64]);
    bytes.extend(b"\xff\xc2\0\x11\x08");
    bytes.extend([HEIGHT.to_be_bytes(), WIDTH.to_be_bytes()].concat());
    bytes.extend(b"\x03\x01\x11\0\x02\x11\0\x03\x11\0");
    bytes.extend(b"\xff\xc4\0\x14\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    bytes.extend(b"\xff\xda\0\x0c\x03\x01\0\x02\0\x03\0\0\0\0");
    let blocks = usize::from(WIDTH.div_ceil(8)) * usize::from(HEIGHT.div_ceil(8));
    bytes.resize(bytes.len() + (3 * blocks).div_ceil(8), 0);
    bytes.extend(b"\xff\xd9");
    bytes
}

/// Each pixel takes no bits at all: there is but one symbol in each of the five codes.
fn lossless_webp() -> Vec<u8> {
    let size = (u32::from(WIDTH) - 1) | ((u32::from(HEIGHT) - 1) << 14);
    let mut data = vec![0x2f];
    data.extend(size.to_le_bytes());
    // No transform, no cache, no further codes; then five times "simple, one symbol of one bit: 0".
    data.extend([0b1000_1000, 0b1000_1000, 0b0000_1000, 0, 0, 0, 0, 0, 0]);
    let length = u32::try_from(data.len()).expect("it is tiny");
    [
        &b"RIFF"[..],
        &(length + 12).to_le_bytes(),
        b"WEBPVP8L",
        &length.to_le_bytes(),
        &data,
    ]
    .concat()
}

fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("Linux has it");
    let kibibytes: u64 = line
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("it is a number");
    kibibytes * 1024
}

#[tokio::test]
async fn the_heaviest_photos_at_once_stay_below_600_mib() {
    let photos = Photos::new(2);
    let [png, jpeg, webp] =
        [png_of_16_bits(), progressive_jpeg(), lossless_webp()].map(Bytes::from);
    assert!(
        [&png, &jpeg, &webp]
            .iter()
            .all(|bytes| bytes.len() < MAX_BYTES)
    );
    let before = peak_bytes();
    let processed = tokio::join!(
        photos.process(jpeg),
        photos.process(webp.clone()),
        photos.process(png),
        photos.process(webp),
    );
    let processed: [_; 4] = processed.into();
    for photo in processed {
        let photo = photo.expect("the limits allow it");
        assert_eq!((photo.width, photo.height), (WIDTH.into(), HEIGHT.into()));
    }
    let peak = peak_bytes();
    println!("peak {} MiB, {} MiB before", peak / MIB, before / MIB);
    assert!(peak < 600 * MIB, "{} MiB", peak / MIB);
}
