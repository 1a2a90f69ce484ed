//! Private servers for tests, and a ledger without one. Each server lives in a folder of its own, listens on a port of its own, and ends
//! with the process that started it, however that ends. None is ever shared.

pub mod memory;
pub mod nats;
pub mod postgres;
pub mod rights;

pub use nats::Nats;
