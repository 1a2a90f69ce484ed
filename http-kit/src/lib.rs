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
pub mod hidden;
pub mod in_language;
pub mod keys;
pub mod metrics;
pub mod openapi;
pub mod profile;
pub mod query;
pub mod serve;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod text;
pub mod username;
