//! Private servers for tests, in temporary folders, gone when the test process is gone. Behind the
//! feature `test-servers`, so no release has them.

pub mod postgres;
