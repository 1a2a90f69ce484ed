//! End to end: the real binary as a process of its own, on a folder of its own, over real sockets.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod audit;
mod broker;
mod browser;
mod cli;
mod clients;
mod compose;
mod configuration;
mod console;
mod crash;
mod disk;
mod downstream;
mod export;
mod faults;
mod gateway;
mod import;
mod journey;
mod limits;
mod logging;
mod openapi;
mod parked;
mod playground;
mod rebuild;
mod replay;
mod roles;
mod schemas;
mod service;
mod stack;
mod tail;
mod tampered;
mod verify;
