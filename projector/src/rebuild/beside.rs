//! Tables beside the live ones: the traits. Their implementations are in files of this name below each
//! read model.

use async_trait::async_trait;
use events::{Document, Position, UserId};

use super::Error;
use crate::read_model::{Batch, Parked, ReadModel};

/// A read model whose tables can be replaced while it is used.
#[async_trait]
pub trait Replaceable: ReadModel {
    /// Empty tables beside the live ones, instead of those of an earlier rebuild that came to nothing.
    /// `run` names this rebuild apart from every other.
    async fn fresh(&self, run: &str) -> Result<Box<dyn Beside>, Error>;

    /// The tables that were live before the last swap.
    async fn kept(&self, run: &str) -> Result<Box<dyn Beside>, Error>;
}

/// Tables beside the live ones, and a look at the live ones. Dropped, fresh tables are useless.
#[async_trait]
pub trait Beside: Send {
    /// The position up to which these tables are the fold of the ledger.
    fn position(&self) -> Position;

    /// Users of these tables that wait.
    async fn parked(&mut self) -> Result<Vec<Parked>, Error>;

    /// Documents of these tables.
    async fn documents(&mut self, users: &[UserId]) -> Result<Vec<Document>, Error>;

    /// Writes documents at full speed. They are complete only after [`Self::loaded`].
    async fn load(&mut self, documents: &[&Document]) -> Result<(), Error>;

    /// Completes what was loaded, which is the fold up to a position.
    async fn loaded(&mut self, position: Position, parked: &[Parked]) -> Result<(), Error>;

    /// Does in these tables what a step of the projection does in the live ones.
    async fn apply(&mut self, batch: &Batch) -> Result<(), Error>;

    /// Looks at the live tables: from now on [`Self::rows`] shows them as they are now. Where they are.
    async fn look(&mut self) -> Result<Position, Error>;

    /// Rows of the live tables as they were looked at, or of these, by user.
    async fn rows(&mut self, of: Tables, which: Which<'_>) -> Result<Vec<Row>, Error>;

    /// Begins the swap: until it ends no step of a projector takes place. Nobody who reads waits.
    async fn lock(&mut self) -> Result<(), Error>;

    /// Puts these tables in the place of the live ones, which are kept, and ends the swap. If both hold the
    /// same, `are_equal`, and the same users wait, a projector goes on as if nothing had happened. Else it
    /// takes over anew: it may be in the middle of a step on the documents that were live before.
    /// [`Error::Contended`]: nothing happened, and it may be tried again from [`Self::lock`] on.
    async fn swap(&mut self, are_equal: bool) -> Result<(), Error>;

    /// Ends the swap without one. What was applied since [`Self::lock`] is gone.
    async fn unlock(&mut self) -> Result<(), Error>;

    /// Removes these tables.
    async fn remove(&mut self) -> Result<(), Error>;

    /// Lets others rebuild.
    async fn end(self: Box<Self>) -> Result<(), Error>;
}

/// Which tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tables {
    /// Those that are read.
    Live,
    /// Those beside them.
    Beside,
}

/// Which rows.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    /// At most so many of users after one.
    Page(&'a str, usize),
    /// Of some users.
    Users(&'a [UserId]),
}

/// All that is kept of a user whose events do not wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Who.
    pub user_id: String,
    /// Where its last event is.
    pub position: Position,
    /// Version, username, document and the words by which it is found.
    pub rest: [String; 4],
}
