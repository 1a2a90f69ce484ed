//! Turns an uploaded photo into square renditions that are safe to show.
//!
//! The bytes come from strangers, so every step is bounded. What a file is, and how large, is read
//! from its first bytes before anything is allocated (`recognise`); the pixels are decoded with
//! a known worst case of memory (`decode`), for which [`Photos`] hands out permits from a fixed
//! budget; and only pixels are kept, so no metadata and none of the original bytes can survive
//! (`colour`, `encode`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

mod colour;
mod decode;
mod encode;
mod gif;
mod jpeg;
mod png;
mod recognise;
mod reduce;
#[cfg(test)]
pub(crate) mod samples;
mod vp8l;
mod webp;

pub use recognise::Format;

/// The most bytes an upload may have.
pub const MAX_BYTES: usize = 10 * 1024 * 1024;
/// The most pixels a photo may have, in millions.
pub const MAX_MEGAPIXELS: u32 = 50;
/// The most pixels a side may have.
pub const MAX_SIDE: u32 = 12_000;
/// The fewest pixels the shorter side may have.
pub const MIN_SIDE: u32 = 96;
/// The WebP renditions, by the pixels of their side.
pub const SIDES: [u32; 5] = [40, 76, 96, 192, 512];

/// What all decodes together may allocate at their peaks. Beside it stay the uploads that wait and
/// the rest of the process, so that everything is below 600 MiB.
const BUDGET_MIB: u32 = 400;
/// Uploads that may wait for a permit; each holds its bytes in memory.
const MAX_WAITING: usize = 8;

/// Why a photo cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There are no bytes.
    #[error("the photo is empty")]
    Empty,
    /// There are more than [`MAX_BYTES`].
    #[error("the photo has more than {MAX_BYTES} bytes")]
    TooManyBytes,
    /// The bytes are an image of a kind that is not accepted.
    #[error("{0} photos are not supported")]
    UnsupportedFormat(&'static str),
    /// The bytes are no image that is known.
    #[error("the photo is of no known format")]
    UnknownFormat,
    /// There are more than [`MAX_MEGAPIXELS`].
    #[error("the photo has more than {MAX_MEGAPIXELS} megapixels")]
    TooManyPixels,
    /// A side has more than [`MAX_SIDE`] pixels.
    #[error("the photo has a side of more than {MAX_SIDE} pixels")]
    TooLarge,
    /// The shorter side has fewer than [`MIN_SIDE`] pixels.
    #[error("the photo has a side of fewer than {MIN_SIDE} pixels")]
    TooSmall,
    /// The bytes break their format's rules, or the decoder failed on them.
    #[error("the photo is damaged")]
    Damaged,
    /// Too many photos are being processed.
    #[error("too many photos are being processed")]
    Busy,
}

/// A photo in its renditions, and what is known of its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processed {
    /// SHA-256 of the uploaded bytes.
    pub content_hash: [u8; 32],
    /// How many bytes were uploaded.
    pub source_bytes: u64,
    /// What the uploaded bytes were.
    pub source_format: Format,
    /// The width of the source as it is to be seen.
    pub width: u32,
    /// The height of the source as it is to be seen.
    pub height: u32,
    /// The WebPs in the order of [`SIDES`], then the one JPEG.
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

/// The photo at one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendition {
    /// The name of its file, such as `96.webp`.
    pub name: &'static str,
    /// The side that its name promises.
    pub label: u32,
    /// The side that it has: less than `label` where the source has no more.
    pub side: u32,
    /// Its media type.
    pub media_type: &'static str,
    /// The encoded image.
    pub bytes: Bytes,
}

/// The bounded workshop in which photos are processed.
#[derive(Debug)]
pub struct Photos {
    /// One permit for each MiB of [`BUDGET_MIB`].
    memory: Arc<Semaphore>,
    cores: Arc<Semaphore>,
    /// Those that may be inside [`Self::process`], working or waiting.
    places: Arc<Semaphore>,
    /// Taken by a thread for each core.
    jobs: Sender<Job>,
}

type Job = Box<dyn FnOnce() + Send>;

/// Threads that do jobs until the sender is gone. Allocators keep some of the memory that a thread gave back for that
/// thread, so photos are not to wander over the many that wait for files.
fn threads(count: usize) -> Sender<Job> {
    let (sender, jobs) = channel::<Job>();
    let jobs = Arc::new(Mutex::new(jobs));
    for _ in 0..count {
        let jobs = Arc::clone(&jobs);
        std::thread::spawn(move || {
            loop {
                // Jobs do not panic.
                let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
                match next {
                    Ok(job) => job(),
                    Err(_) => return,
                }
            }
        });
    }
    sender
}

impl Photos {
    /// A workshop that decodes at most `cores` photos at once.
    pub fn new(cores: usize) -> Self {
        let cores = cores.max(1);
        Self {
            memory: Arc::new(Semaphore::new(BUDGET_MIB as usize)),
            cores: Arc::new(Semaphore::new(cores)),
            places: Arc::new(Semaphore::new(cores + MAX_WAITING)),
            jobs: threads(cores),
        }
    }

    /// Makes the renditions of a photo. Waits for its turn, and not at all where too many wait.
    pub async fn process(&self, bytes: Bytes) -> Result<Processed, Error> {
        let source = recognise::recognise(&bytes)?;
        let permits = self.permits(source.peak_mib()).await?;
        self.work(permits, move || make(&bytes, &source)).await
    }

    async fn permits(&self, mib: u32) -> Result<[OwnedSemaphorePermit; 3], Error> {
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| Error::Busy)?;
        let core = Arc::clone(&self.cores)
            .acquire_owned()
            .await
            .map_err(|_| Error::Busy)?;
        // A decode never needs more than all there is: the largest goes alone.
        let memory = Arc::clone(&self.memory)
            .acquire_many_owned(mib.min(BUDGET_MIB))
            .await;
        Ok([place, core, memory.map_err(|_| Error::Busy)?])
    }

    /// Runs `job` off the async threads. The job holds its permits, not the caller: a client that goes
    /// away cancels the future, but a decode under way goes on and still needs its memory.
    async fn work<T: Send + 'static>(
        &self,
        permits: [OwnedSemaphorePermit; 3],
        job: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (done, result) = oneshot::channel();
        let guarded = move || {
            let result = catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|_| {
                tracing::warn!("A decoder panicked; its photo counts as damaged");
                Err(Error::Damaged)
            });
            drop(permits);
            // Whoever asked may have gone away.
            let _ = done.send(result);
        };
        self.jobs
            .send(Box::new(guarded))
            .map_err(|_| Error::Damaged)?;
        result.await.unwrap_or(Err(Error::Damaged))
    }
}

fn make(bytes: &[u8], source: &recognise::Source) -> Result<Processed, Error> {
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

    #[tokio::test]
    async fn a_panicking_decoder_is_damage_and_the_workshop_goes_on() {
        let photos = Photos::new(1);
        let permits = photos.permits(1).await.expect("nobody else is here");
        let panicking = photos.work(permits, || -> Result<(), Error> {
            panic!("a decoder's bug")
        });
        assert_eq!(panicking.await, Err(Error::Damaged));
        assert!(photos.process(samples::png(100, 100).into()).await.is_ok());
        assert_eq!(photos.memory.available_permits(), BUDGET_MIB as usize);
    }

    #[tokio::test]
    async fn no_more_photos_are_decoded_at_once_than_there_are_cores() {
        use futures::FutureExt as _;

        let photos = Photos::new(2);
        let first = photos.permits(1).await.expect("a core");
        let _second = photos.permits(1).await.expect("another core");
        assert!(photos.permits(1).now_or_never().is_none());
        drop(first);
        assert!(photos.permits(1).now_or_never().is_some());
    }

    #[tokio::test]
    async fn photos_wait_for_memory_and_too_many_are_turned_away() {
        let photos = Arc::new(Photos::new(2));
        let large = photos
            .permits(BUDGET_MIB * 2)
            .await
            .expect("the largest goes alone");
        assert_eq!(photos.memory.available_permits(), 0);
        let bytes: Bytes = samples::png(100, 100).into();
        let waiting: Vec<_> = (0..=MAX_WAITING)
            .map(|_| {
                let (photos, bytes) = (Arc::clone(&photos), bytes.clone());
                tokio::spawn(async move { photos.process(bytes).await })
            })
            .collect();
        while photos.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(photos.process(bytes.clone()).await, Err(Error::Busy));
        drop(large);
        for photo in waiting {
            assert!(photo.await.expect("no panic").is_ok());
        }
        assert!(photos.process(bytes).await.is_ok());
    }

    #[tokio::test]
    async fn a_decode_whose_caller_went_away_keeps_its_permits_until_it_ends() {
        let photos = Photos::new(1);
        let permits = photos.permits(100).await.expect("nobody else is here");
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let working = photos.work(permits, move || ended.recv().map_err(|_| Error::Damaged));
        let gone = tokio::time::timeout(std::time::Duration::ZERO, working).await;
        assert!(gone.is_err());
        assert_eq!(photos.memory.available_permits(), BUDGET_MIB as usize - 100);
        end.send(()).expect("the decode is still there");
        let all = photos.memory.acquire_many(BUDGET_MIB).await;
        assert!(all.is_ok());
    }
}
