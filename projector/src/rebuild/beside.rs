//! The traits of tables beside the live ones. The implementations are in files of the same name
//! below each read model.

use async_trait::async_trait;
use events::{Document, Position, UserId};

use super::Error;
use crate::read_model::{Batch, Parked, ReadModel};

/// A read model whose tables can be replaced while it is used.
#[async_trait]
pub trait Replaceable: ReadModel {
    /// Empty tables beside the live ones. Replaces those of an interrupted rebuild. `run`
    /// distinguishes this rebuild from every other.
    async fn fresh(&self, run: &str) -> Result<Box<dyn Beside>, Error>;

    /// The tables that were live before the last swap.
    async fn kept(&self, run: &str) -> Result<Box<dyn Beside>, Error>;
}

/// Tables beside the live ones, and a snapshot of the live ones. When dropped, new tables are
/// useless.
#[async_trait]
pub trait Beside: Send {
    /// The position up to which these tables are the fold of the ledger.
    fn position(&self) -> Position;

    /// The parked users of these tables.
    async fn parked(&mut self) -> Result<Vec<Parked>, Error>;

    /// The documents of these tables.
    async fn documents(&mut self, users: &[UserId]) -> Result<Vec<Document>, Error>;

    /// Writes documents at full speed. They are complete only after [`Self::loaded`].
    async fn load(&mut self, documents: &[&Document]) -> Result<(), Error>;

    /// Completes the loaded rows, which are the fold up to a position.
    async fn loaded(&mut self, position: Position, parked: &[Parked]) -> Result<(), Error>;

    /// Applies to these tables what a step of the projection applies to the live ones.
    async fn apply(&mut self, batch: &Batch) -> Result<(), Error>;

    /// Takes a snapshot of the live tables for [`Self::rows`]. Returns its position.
    async fn look(&mut self) -> Result<Position, Error>;

    /// Rows of the snapshot of the live tables, or of these tables, by user.
    async fn rows(&mut self, of: Tables, which: Which<'_>) -> Result<Vec<Row>, Error>;

    /// Begins the swap: until it ends, no step of a projector takes place. Readers do not wait.
    async fn lock(&mut self) -> Result<(), Error>;

    /// Replaces the live tables, which are kept, by these tables, and ends the swap. When both
    /// contain the same rows (`are_equal`) and the same users are parked, the projector continues
    /// undisturbed. Otherwise it must take over again, because it may be in a step that started
    /// with the earlier documents. After [`Error::Contended`] nothing has changed, and the caller
    /// may try again from [`Self::lock`] on.
    async fn swap(&mut self, are_equal: bool) -> Result<(), Error>;

    /// Ends the swap without swapping. Steps applied since [`Self::lock`] are discarded.
    async fn unlock(&mut self) -> Result<(), Error>;

    /// Removes these tables.
    async fn remove(&mut self) -> Result<(), Error>;

    /// Allows other rebuilds.
    async fn end(self: Box<Self>) -> Result<(), Error>;
}

/// A set of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tables {
    /// The tables that are read.
    Live,
    /// The tables beside them.
    Beside,
}

/// A selection of rows.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    /// At most this many users after one.
    Page(&'a str, usize),
    /// These users.
    Users(&'a [UserId]),
}

/// Every stored row about a user that is not parked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The user.
    pub user_id: String,
    /// The position of the user's last event.
    pub position: Position,
    /// Version, username, document and search words.
    pub rest: [String; 4],
}
