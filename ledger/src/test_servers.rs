//! Private servers for tests, and a ledger without a server. Each server has its own folder and
//! port, and ends with the process that started it, however that process ends. None is ever shared.

pub mod memory;
pub mod nats;
pub mod postgres;
pub mod rights;

pub use nats::Nats;
