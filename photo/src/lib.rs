#![doc = include_str!("../README.md")]

mod colour;
mod decode;
mod decoded;
mod encode;
mod error;
mod gif;
mod jpeg;
mod limits;
mod png;
mod process;
mod recognise;
mod reduce;
#[cfg(any(test, feature = "testing"))]
pub mod samples;
mod source;
mod vp8l;
mod webp;
mod workshop;

pub use encode::Rendition;
pub use error::Error;
pub use limits::{MAX_BYTES, MAX_MEGAPIXELS, MAX_SIDE, MIN_SIDE};
pub use process::Processed;
pub use source::Format;
pub use workshop::Photos;
