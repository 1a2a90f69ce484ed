#![doc = include_str!("../README.md")]

pub mod backoff;
pub mod fail_point;
pub mod feed;
pub mod merkle;
pub mod message;
pub mod migrations;
pub mod photos;
pub mod postgres;
pub mod read_ahead;
pub mod refold;
pub mod relay;
pub mod sqlite;
pub mod store;
pub mod stream;
#[cfg(test)]
mod test_ledger;
#[cfg(any(test, feature = "test-servers"))]
pub mod test_servers;
pub mod trail;
