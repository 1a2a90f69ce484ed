//! Places where a test ends the process as a crash would. In a release there is nothing here.

/// A place in the program between two steps that a crash may separate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailPoint {
    /// An append is about to become durable.
    BeforeCommit,
    /// An append is durable, and nobody knows yet.
    AfterCommit,
    /// An event is about to be published.
    BeforePublish,
    /// An event is published, and the relay knows.
    AfterPublish,
    /// A batch is folded, and nothing of it is written.
    BeforeApply,
    /// Documents and checkpoint are about to become durable.
    BeforeCheckpoint,
    /// Documents and checkpoint are durable, and nobody knows yet.
    AfterCheckpoint,
}

impl FailPoint {
    /// Every place.
    pub const ALL: [Self; 7] = [
        Self::BeforeCommit,
        Self::AfterCommit,
        Self::BeforePublish,
        Self::AfterPublish,
        Self::BeforeApply,
        Self::BeforeCheckpoint,
        Self::AfterCheckpoint,
    ];

    /// Its name in the environment variable `FAIL_POINT`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BeforeCommit => "before-commit",
            Self::AfterCommit => "after-commit",
            Self::BeforePublish => "before-publish",
            Self::AfterPublish => "after-publish",
            Self::BeforeApply => "before-apply",
            Self::BeforeCheckpoint => "before-checkpoint",
            Self::AfterCheckpoint => "after-checkpoint",
        }
    }
}

/// Comes to a place. With the feature `fail-points` and `FAIL_POINT=name:n` in its environment, a process
/// that comes to that place for the n-th time ends there, with nothing written back and nobody told.
#[cfg(not(feature = "fail-points"))]
#[inline]
pub const fn pass(_: FailPoint) {}

#[cfg(feature = "fail-points")]
pub use armed::pass;

#[cfg(feature = "fail-points")]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::FailPoint;

    /// Where the process ends, and how often it still comes there before.
    static ARMED: LazyLock<Option<(String, AtomicU64)>> = LazyLock::new(|| {
        let armed = std::env::var("FAIL_POINT").ok()?;
        let (name, times) = armed.split_once(':')?;
        Some((name.to_owned(), AtomicU64::new(times.parse().ok()?)))
    });

    /// Comes to a place; see the function of the same name without the feature.
    pub fn pass(place: FailPoint) {
        let Some((name, left)) = &*ARMED else { return };
        if name == place.name() && left.fetch_sub(1, Ordering::Relaxed) == 1 {
            std::process::abort();
        }
    }
}
