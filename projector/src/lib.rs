#![doc = include_str!("../README.md")]

pub mod projection;
pub mod read_model;
pub mod rebuild;
pub mod search;

pub use read_model::{Documents, ReadModel};
