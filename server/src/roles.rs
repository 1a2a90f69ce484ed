//! The roles that a process may have.

/// The roles of a process. A process with all of them is the whole service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Roles {
    /// Decides commands, appends and publishes events, and removes what has expired.
    pub(crate) commands: bool,
    /// Folds events into documents.
    pub(crate) projection: bool,
    /// Serves documents and photos.
    pub(crate) queries: bool,
}

impl Roles {
    pub(crate) const ALL: Self = Self {
        commands: true,
        projection: true,
        queries: true,
    };
    pub(crate) const COMMANDS: Self = Self {
        commands: true,
        projection: false,
        queries: false,
    };
    pub(crate) const PROJECTION: Self = Self {
        commands: false,
        projection: true,
        queries: false,
    };
    pub(crate) const QUERIES: Self = Self {
        commands: false,
        projection: false,
        queries: true,
    };
}
