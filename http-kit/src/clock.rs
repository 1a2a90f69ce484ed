//! The clock. Code that needs the time gets it from here.

use std::sync::Arc;

use jiff::Timestamp;

/// Tells the time. It is passed as an argument, so that tests can set it.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the only place that reads the system clock"
        )]
        Self::from_fn(Timestamp::now)
    }

    /// A clock that stands still.
    pub fn fixed(time: Timestamp) -> Self {
        Self::from_fn(move || time)
    }

    /// A clock that asks a function.
    pub fn from_fn(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}
