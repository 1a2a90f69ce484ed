#![doc = include_str!("../README.md")]

pub mod answer;
pub mod caller;
pub mod client;
pub mod clock;
pub mod code;
mod envelope;
pub mod error;
pub mod fields;
pub mod file;
pub mod keys;
pub mod openapi;
pub mod serve;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod text;

rust_i18n::i18n!("locales", fallback = "en");
