//! Points where a test can end the process, as a crash would. A release does not contain them.

/// A point in the program between two steps that a crash may separate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailPoint {
    /// The append is about to become durable.
    BeforeCommit,
    /// The append is durable; nothing else knows about it yet.
    AfterCommit,
    /// An event is about to be published.
    BeforePublish,
    /// An event is published, and the relay knows it.
    AfterPublish,
    /// A batch is folded; nothing of it is written.
    BeforeApply,
    /// Documents and checkpoint are about to become durable.
    BeforeCheckpoint,
    /// Documents and checkpoint are durable; nothing else knows about it yet.
    AfterCheckpoint,
}

impl FailPoint {
    /// Every fail point.
    pub const ALL: [Self; 7] = [
        Self::BeforeCommit,
        Self::AfterCommit,
        Self::BeforePublish,
        Self::AfterPublish,
        Self::BeforeApply,
        Self::BeforeCheckpoint,
        Self::AfterCheckpoint,
    ];

    /// The name in the environment variable `FAIL_POINT`.
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

/// Passes a fail point. With the feature `fail-points` and `FAIL_POINT=name:n` in the environment,
/// the process ends when it passes that point for the n-th time. It flushes nothing and informs
/// nobody.
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

    /// The point where the process ends, and how often the process may still pass it before.
    static ARMED: LazyLock<Option<(String, AtomicU64)>> = LazyLock::new(|| {
        let armed = std::env::var("FAIL_POINT").ok()?;
        let (name, times) = armed.split_once(':')?;
        Some((name.to_owned(), AtomicU64::new(times.parse().ok()?)))
    });

    /// Passes a fail point; see the function of the same name without the feature.
    pub fn pass(point: FailPoint) {
        let Some((name, left)) = &*ARMED else { return };
        if name == point.name() && left.fetch_sub(1, Ordering::Relaxed) == 1 {
            std::process::abort();
        }
    }
}
