//! End to end: the real binary as a process of its own, on a folder of its own, over real sockets.

mod configuration;
mod crash;
mod disk;
mod import;
mod journey;
mod limits;
mod logs;
mod service;
