//! Reads the format and the size of a picture from the first bytes of a file. No memory is allocated for the picture
//! before its claimed size is checked.

use crate::error::Error;
use crate::limits::MAX_BYTES;
use crate::source::Source;
use crate::{gif, jpeg, png, webp};

/// Recognises the format by the bytes alone and checks the size of the picture.
pub(crate) fn recognise(bytes: &[u8]) -> Result<Source, Error> {
    if bytes.is_empty() {
        return Err(Error::Empty);
    }
    if bytes.len() > MAX_BYTES {
        return Err(Error::TooManyBytes);
    }
    match bytes {
        [0xff, 0xd8, 0xff, ..] => jpeg::header(bytes),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => png::header(bytes),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => gif::header(bytes),
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            ..,
        ] => webp::header(bytes),
        _ => Err(unsupported(bytes).map_or(Error::UnknownFormat, Error::UnsupportedFormat)),
    }
}

/// The name of a common format that is not accepted, for the error message.
fn unsupported(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => iso_media(bytes),
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Some("TIFF"),
        // The four bytes after the file's size are reserved as zero.
        [b'B', b'M', _, _, _, _, 0, 0, 0, 0, ..] => Some("BMP"),
        _ => is_svg(bytes).then_some("SVG"),
    }
}

/// Distinguishes HEIC and AVIF by the brands in the first box.
fn iso_media(bytes: &[u8]) -> Option<&'static str> {
    let length = u32::from_be_bytes(*bytes.first_chunk()?);
    let length = usize::try_from(length)
        .ok()?
        .clamp(16, 256)
        .min(bytes.len());
    // Between the major and the compatible brands is a version number, which is not a brand.
    let brands = || {
        bytes
            .get(8..length)
            .unwrap_or_default()
            .as_chunks::<4>()
            .0
            .iter()
    };
    if brands().any(|brand| matches!(brand, b"avif" | b"avis")) {
        return Some("AVIF");
    }
    let is_heic = |brand: &[u8; 4]| {
        matches!(
            brand,
            b"heic"
                | b"heix"
                | b"heim"
                | b"heis"
                | b"hevc"
                | b"hevx"
                | b"hevm"
                | b"hevs"
                | b"mif1"
                | b"msf1"
        )
    };
    brands().any(is_heic).then_some("HEIC")
}

fn is_svg(bytes: &[u8]) -> bool {
    let start = bytes.get(..bytes.len().min(4096)).unwrap_or_default();
    let text = start
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(start)
        .trim_ascii_start();
    text.starts_with(b"<")
        && text
            .windows(4)
            .any(|window| window.eq_ignore_ascii_case(b"<svg"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use crate::source::Format;

    #[test]
    fn each_format_is_recognised_by_its_bytes_alone() {
        let cases = [
            (samples::jpeg(120, 100), Format::Jpeg, "image/jpeg"),
            (samples::png(120, 100), Format::Png, "image/png"),
            (samples::webp(120, 100), Format::WebP, "image/webp"),
            (samples::gif(120, 100), Format::Gif, "image/gif"),
        ];
        for (bytes, format, media_type) in cases {
            let source = recognise(&bytes).expect(media_type);
            assert_eq!(
                (source.format, source.width, source.height),
                (format, 120, 100)
            );
            assert_eq!(source.format.media_type(), media_type);
        }
    }

    #[test]
    fn unsupported_formats_are_named() {
        let cases: [(&[u8], &str); 12] = [
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
            (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
            (b"\0\0\0\x1cftypavif\0\0\0\0mif1avifmiaf", "AVIF"),
            (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
            (b"BM\x3a\0\0\0\0\0\0\0\x36\0\0\0", "BMP"),
            (b"II*\0\x08\0\0\0", "TIFF"),
            (b"MM\0*\0\0\0\x08", "TIFF"),
            (b"II+\0\x08\0\0\0", "TIFF"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
            (b"\xef\xbb\xbf\n <?xml version='1.0'?><svg/>", "SVG"),
            (b"<!-- made by hand --><SVG/>", "SVG"),
            (b"<!DOCTYPE svg PUBLIC ''><svg/>", "SVG"),
        ];
        for (bytes, name) in cases {
            assert_eq!(recognise(bytes), Err(Error::UnsupportedFormat(name)));
        }
    }

    #[test]
    fn anything_else_is_unknown() {
        let cases: [&[u8]; 6] = [
            b"hello",
            b"\0\0\0\x18ftypisom\0\0\0\0mp41isom",
            b"<html><body>svg</body></html>",
            b"%PDF-1.7",
            b"\xff\xd8",
            b"RIFF\x10\0\0\0WAVEfmt ",
        ];
        for bytes in cases {
            assert_eq!(recognise(bytes), Err(Error::UnknownFormat));
        }
        assert_eq!(recognise(b""), Err(Error::Empty));
    }

    #[test]
    fn more_bytes_than_the_limit_are_refused_whatever_they_are() {
        assert_eq!(recognise(&vec![0; MAX_BYTES + 1]), Err(Error::TooManyBytes));
        assert_eq!(recognise(&vec![0; MAX_BYTES]), Err(Error::UnknownFormat));
    }

    #[test]
    fn headers_beyond_the_limits_are_refused_before_anything_is_decoded() {
        // No pixels follow these headers: only their claims can be the reason.
        let cases: [fn(u16, u16) -> Vec<u8>; 6] = [
            samples::jpeg_header,
            samples::png_header,
            samples::gif_header,
            samples::webp_lossy_header,
            samples::webp_lossless_header,
            samples::webp_canvas_header,
        ];
        for header in cases {
            assert_eq!(recognise(&header(12_001, 4000)), Err(Error::TooLarge));
            assert_eq!(recognise(&header(10_000, 5001)), Err(Error::TooManyPixels));
            assert_eq!(recognise(&header(95, 500)), Err(Error::TooSmall));
        }
        assert_eq!(
            recognise(&samples::png_header(60_000, 60_000)),
            Err(Error::TooLarge)
        );
        assert_eq!(
            recognise(&samples::jpeg_header(60_000, 60_000)),
            Err(Error::TooLarge)
        );
        assert_eq!(
            recognise(&samples::gif_header(60_000, 60_000)),
            Err(Error::TooLarge)
        );
    }
}
