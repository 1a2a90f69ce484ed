//! Folds the whole ledger again into tables beside the live ones, which are read and written
//! meanwhile, and swaps the tables in one transaction.
//!
//! Readers do not notice. The swap takes place when both sets of tables have reached the same
//! position, and no step of a projector can happen in between. A rebuild that is interrupted leaves
//! the live tables unchanged; the next one starts again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use events::{Document, Position, StoredEvent, UserId};
use ledger::feed;
use ledger::read_ahead::ReadAhead;
use ledger::store::{self, History};
use sha2::{Digest as _, Sha256};

use crate::projection::{fold_batch, fold_events, report};
use crate::read_model::{self, ApplyError, Batch, Parked};

mod beside;

pub use beside::{Beside, Replaceable, Row, Tables, Which};

/// The number of documents folded in memory before they are written.
const IN_MEMORY: usize = if cfg!(test) { 1_000 } else { 100_000 };
/// Events per step while catching up.
const STEP: usize = 512;
/// Rows compared at once.
const ROWS: usize = 2_000;
/// The swap waits until at most this many new events are left.
const FEW: Position = 500;
/// How often the rebuild tries to come that close.
const ROUNDS: u32 = 100;
/// How often the swap is tried while others hold the tables.
const SWAPS: u32 = 100;
const SWAP_AGAIN: Duration = Duration::from_millis(100);
/// The maximum number of differing users in a report.
const TOLD: usize = 20;

/// The reason why tables were not rebuilt or not rolled back. The live tables are unchanged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] feed::Error),
    /// The read model failed.
    #[error(transparent)]
    ReadModel(#[from] read_model::Error),
    /// Another rebuild is under way.
    #[error("another rebuild of this read model is under way")]
    Busy,
    /// Another rebuild has taken these tables.
    #[error("another rebuild has taken the tables over")]
    TakenOver,
    /// There are no earlier tables.
    #[error("no earlier tables are kept: nothing has been rebuilt yet")]
    NothingKept,
    /// The kept tables are older than a migration.
    #[error("the kept tables come from an earlier version of the program; rebuild instead")]
    KeptAreOutdated,
    /// The kept tables are ahead of the ledger.
    #[error(
        "the kept tables are at position {kept}, but the ledger ends at {head}; rebuild instead"
    )]
    KeptAreAhead {
        /// The position of the kept tables.
        kept: Position,
        /// The head of the ledger.
        head: Position,
    },
    /// Other sessions hold the tables permanently.
    #[error(
        "the tables cannot be swapped while others hold them, for example a running backup; try again later"
    )]
    Contended,
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Ledger(error.into())
    }
}

impl From<ApplyError> for Error {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::NotOwner => Self::TakenOver,
            ApplyError::ReadModel(error) => Self::ReadModel(error),
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::ReadModel(error.into())
    }
}

/// A digest of tables: equal tables have equal digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// The number of users.
    pub users: u64,
    /// SHA-256 over all rows, by user.
    pub hash: [u8; 32],
}

/// A user whose rows differ between the live tables and the new ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The user.
    pub user_id: String,
    /// The position of the user's last event in the live tables, if the user is there.
    pub live: Option<Position>,
    /// The same in the new tables.
    pub rebuilt: Option<Position>,
}

/// The result of a rebuild.
#[derive(Debug, Clone)]
pub struct Report {
    /// The position up to which both were compared.
    pub compared_at: Position,
    /// The digest of the live tables at that position.
    pub live: Digest,
    /// The digest of the new tables at that position.
    pub rebuilt: Digest,
    /// The number of users that differ, without those that were parked and fold again.
    pub differences: u64,
    /// The first of them.
    pub differing: Vec<Difference>,
    /// Users that were parked and fold again.
    pub unparked: Vec<Parked>,
    /// Users that are parked in the new tables.
    pub parked: Vec<Parked>,
    /// The position of the live tables if they were ahead of the ledger, because one of them was
    /// restored from a backup.
    pub was_ahead: Option<Position>,
    /// The position of the swap; `None` when differences prevented it.
    pub swapped_at: Option<Position>,
}

/// The progress of a rebuild.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Events are being folded: done, and total.
    Folding(Position, Position),
    /// Words and indexes are being built.
    Completing,
    /// The users of both are being compared: the number so far.
    Comparing(u64),
}

/// Folds the ledger into new tables up to the position of the live ones, compares them, and swaps
/// them if both are equal or `accept_differences` is set.
pub async fn rebuild(
    history: Arc<dyn History>,
    read_model: &dyn Replaceable,
    run: &str,
    accept_differences: bool,
    tell: &(dyn Fn(Progress) + Sync),
) -> Result<Report, Error> {
    let mut beside = read_model.fresh(run).await?;
    let mut rebuild = Rebuild {
        waiting: HashSet::new(),
        changed: BTreeSet::new(),
        unparked: HashSet::new(),
        history,
        beside: &mut *beside,
        tell,
    };
    let report = rebuild.run(read_model, accept_differences).await?;
    if report.swapped_at.is_none() {
        beside.remove().await?;
    }
    beside.end().await?;
    Ok(report)
}

/// Folds the missing events into the tables that were live before the last swap, and makes them
/// live again. Returns the position of the swap.
pub async fn roll_back(
    history: Arc<dyn History>,
    read_model: &dyn Replaceable,
    run: &str,
    tell: &(dyn Fn(Progress) + Sync),
) -> Result<Position, Error> {
    let mut beside = read_model.kept(run).await?;
    let waiting = beside.parked().await?;
    let mut rebuild = Rebuild {
        waiting: waiting.into_iter().map(|parked| parked.user_id).collect(),
        changed: BTreeSet::new(),
        unparked: HashSet::new(),
        history,
        beside: &mut *beside,
        tell,
    };
    let head = rebuild.history.head().await?.position;
    let kept = rebuild.beside.position();
    if kept > head {
        return Err(Error::KeptAreAhead { kept, head });
    }
    rebuild.come_near().await?;
    let swap = rebuild.swap(false).await?;
    beside.end().await?;
    match swap {
        Swap::Done(position) => Ok(position),
        Swap::Differs(_) => Err(Error::Contended),
    }
}

struct Rebuild<'r> {
    history: Arc<dyn History>,
    beside: &'r mut dyn Beside,
    /// Users that are parked in the tables beside.
    waiting: HashSet<UserId>,
    /// Users with events after the comparison.
    changed: BTreeSet<UserId>,
    /// Users that are parked in the live tables but not in the tables beside.
    unparked: HashSet<UserId>,
    tell: &'r (dyn Fn(Progress) + Sync),
}

impl Rebuild<'_> {
    async fn run(
        &mut self,
        read_model: &dyn Replaceable,
        accept_differences: bool,
    ) -> Result<Report, Error> {
        let live = read_model.checkpoint().await?;
        let head = self.history.head().await?.position;
        self.load(live.min(head)).await?;

        let live = self.beside.look().await?;
        let head = self.history.head().await?.position;
        self.catch_up(live.min(head)).await?;
        self.changed.clear();
        let mut unparked = read_model.parked().await?;
        unparked.retain(|parked| !self.waiting.contains(&parked.user_id));
        self.unparked = unparked.iter().map(|parked| parked.user_id).collect();
        let comparison = self.compare().await?;
        let parked = self.beside.parked().await?;
        let mut report = Report {
            compared_at: self.beside.position(),
            live: comparison.live,
            rebuilt: comparison.beside,
            differences: comparison.differences,
            differing: comparison.differing,
            unparked,
            parked,
            was_ahead: (live > head).then_some(live),
            swapped_at: None,
        };
        let is_equal = report.differences == 0 && report.was_ahead.is_none();
        if is_equal || accept_differences {
            if report.was_ahead.is_none() {
                self.come_near().await?;
            }
            let mut swap = self.swap(is_equal).await?;
            if accept_differences && matches!(swap, Swap::Differs(_)) {
                swap = self.swap(false).await?;
            }
            match swap {
                Swap::Done(position) => report.swapped_at = Some(position),
                Swap::Differs(differing) => {
                    report.differences = differing.len() as u64;
                    report.differing = differing;
                    report.differing.truncate(TOLD);
                }
            }
        }
        Ok(report)
    }

    /// Folds all events up to a position, mostly in memory.
    async fn load(&mut self, until: Position) -> Result<(), Error> {
        let mut documents: HashMap<UserId, Option<Document>> = HashMap::new();
        let mut parked = Vec::new();
        let mut reading = ReadAhead::new(Arc::clone(&self.history), 0, until);
        let mut at = 0;
        while let Some(events) = reading.next().await? {
            let written = written_earlier(&events, &documents);
            for document in self.beside.documents(&written).await? {
                documents.insert(document.user_id, Some(document));
            }
            let stopped = fold_events(&mut documents, &events, &self.waiting).parked;
            self.park(&stopped);
            parked.extend(stopped);
            at += events.len() as Position;
            (self.tell)(Progress::Folding(at, until));
            if documents.len() >= IN_MEMORY {
                self.write(&mut documents).await?;
            }
        }
        self.write(&mut documents).await?;
        (self.tell)(Progress::Completing);
        self.beside.loaded(until, &parked).await
    }

    async fn write(
        &mut self,
        documents: &mut HashMap<UserId, Option<Document>>,
    ) -> Result<(), Error> {
        let mut sorted: Vec<&Document> = documents.values().flatten().collect();
        // In index order.
        sorted.sort_unstable_by_key(|document| document.user_id);
        self.beside.load(&sorted).await?;
        documents.clear();
        Ok(())
    }

    fn park(&mut self, stopped: &[Parked]) {
        for parked in stopped {
            report(parked);
            self.waiting.insert(parked.user_id);
        }
    }

    /// Folds events up to a position as the projection does.
    async fn catch_up(&mut self, until: Position) -> Result<(), Error> {
        let mut reading = ReadAhead::new(Arc::clone(&self.history), self.beside.position(), until);
        while let Some(page) = reading.next().await? {
            for events in page.chunks(STEP) {
                let users: BTreeSet<_> = events.iter().map(|event| event.user_id).collect();
                let list: Vec<_> = users.iter().copied().collect();
                self.changed.extend(users);
                let before = self.beside.documents(&list).await?;
                let folded = fold_batch(before, events, &self.waiting);
                let from = self.beside.position();
                let batch = Batch {
                    from,
                    to: feed::follow(from, events)?,
                    documents: folded.documents,
                    same_words: folded.same_words,
                    parked: folded.parked,
                    unparked: Vec::new(),
                };
                self.beside.apply(&batch).await?;
                self.park(&batch.parked);
            }
        }
        Ok(())
    }

    /// Catches up with the live tables until only a few events are left.
    async fn come_near(&mut self) -> Result<(), Error> {
        for _ in 0..ROUNDS {
            let live = self.beside.look().await?;
            if live.saturating_sub(self.beside.position()) <= FEW {
                break;
            }
            self.catch_up(live).await?;
        }
        Ok(())
    }

    /// Swaps when both are at the same position. With `is_checked`, only if the events folded since
    /// the comparison also gave equal rows.
    async fn swap(&mut self, is_checked: bool) -> Result<Swap, Error> {
        for _ in 0..SWAPS {
            let waiting = self.waiting.clone();
            match self.try_swap(is_checked).await {
                Err(Error::Contended) => {
                    // The work under the lock was discarded, including its parked users.
                    self.waiting = waiting;
                    tokio::time::sleep(SWAP_AGAIN).await;
                    self.come_near().await?;
                }
                Ok(Swap::Differs(differing)) => {
                    self.waiting = waiting;
                    return Ok(Swap::Differs(differing));
                }
                swapped => return swapped,
            }
        }
        Err(Error::Contended)
    }

    async fn try_swap(&mut self, is_checked: bool) -> Result<Swap, Error> {
        self.beside.lock().await?;
        let live = self.beside.look().await?;
        let head = self.history.head().await?.position;
        self.catch_up(live.min(head)).await?;
        if is_checked {
            let is_expected = |user: &&UserId| !self.unparked.contains(user);
            let users: Vec<_> = self.changed.iter().filter(is_expected).copied().collect();
            let mut differing = Vec::new();
            for some in users.chunks(ROWS) {
                let live = self.beside.rows(Tables::Live, Which::Users(some)).await?;
                let rebuilt = self.beside.rows(Tables::Beside, Which::Users(some)).await?;
                if live != rebuilt {
                    differing.extend(differences(live, rebuilt));
                }
            }
            if !differing.is_empty() {
                self.beside.unlock().await?;
                return Ok(Swap::Differs(differing));
            }
        }
        self.beside.swap(is_checked).await?;
        Ok(Swap::Done(self.beside.position()))
    }

    /// Compares all users of the live tables, as of the current look, with those of the tables
    /// beside.
    async fn compare(&mut self) -> Result<Comparison, Error> {
        let unparked: HashSet<String> = self.unparked.iter().map(ToString::to_string).collect();
        let mut live = Rows::new(Tables::Live);
        let mut rebuilt = Rows::new(Tables::Beside);
        let (mut differences, mut differing) = (0, Vec::new());
        loop {
            live.fill(self.beside).await?;
            rebuilt.fill(self.beside).await?;
            let (one, other) = match (live.next.front(), rebuilt.next.front()) {
                (None, None) => break,
                (Some(one), Some(other)) if one.user_id == other.user_id => (true, true),
                (Some(one), Some(other)) => {
                    (one.user_id < other.user_id, other.user_id < one.user_id)
                }
                (one, other) => (one.is_some(), other.is_some()),
            };
            let one = if one { live.take() } else { None };
            let other = if other { rebuilt.take() } else { None };
            let user_id = one
                .as_ref()
                .or(other.as_ref())
                .map(|row| row.user_id.clone());
            let user_id = user_id.unwrap_or_default();
            if one != other && !unparked.contains(&user_id) {
                differences += 1;
                if differing.len() < TOLD {
                    differing.push(Difference {
                        user_id,
                        live: one.map(|row| row.position),
                        rebuilt: other.map(|row| row.position),
                    });
                }
            }
            if live.users.is_multiple_of(ROWS as u64) {
                (self.tell)(Progress::Comparing(live.users));
            }
        }
        Ok(Comparison {
            live: live.digest(),
            beside: rebuilt.digest(),
            differences,
            differing,
        })
    }
}

/// The result of an attempt to swap.
enum Swap {
    /// The swap took place at this position.
    Done(Position),
    /// The swap did not take place: these users differ.
    Differs(Vec<Difference>),
}

/// The users whose rows differ.
fn differences(live: Vec<Row>, rebuilt: Vec<Row>) -> Vec<Difference> {
    let mut users: BTreeMap<String, [Option<Row>; 2]> = BTreeMap::new();
    for (side, rows) in [live, rebuilt].into_iter().enumerate() {
        for row in rows {
            let sides = users.entry(row.user_id.clone()).or_default();
            sides[side] = Some(row);
        }
    }
    users.retain(|_, [live, rebuilt]| live != rebuilt);
    let difference = |(user_id, [live, rebuilt]): (String, [Option<Row>; 2])| Difference {
        user_id,
        live: live.map(|row| row.position),
        rebuilt: rebuilt.map(|row| row.position),
    };
    users.into_iter().map(difference).collect()
}

struct Comparison {
    live: Digest,
    beside: Digest,
    differences: u64,
    differing: Vec<Difference>,
}

/// The rows of some tables, by user, one page at a time.
struct Rows {
    of: Tables,
    next: VecDeque<Row>,
    after: String,
    is_last: bool,
    users: u64,
    hash: Sha256,
}

impl Rows {
    fn new(of: Tables) -> Self {
        Self {
            of,
            next: VecDeque::new(),
            after: String::new(),
            is_last: false,
            users: 0,
            hash: Sha256::new(),
        }
    }

    async fn fill(&mut self, beside: &mut dyn Beside) -> Result<(), Error> {
        if self.next.is_empty() && !self.is_last {
            let page = beside.rows(self.of, Which::Page(&self.after, ROWS)).await?;
            self.is_last = page.len() < ROWS;
            if let Some(last) = page.last() {
                self.after.clone_from(&last.user_id);
            }
            self.next = page.into();
        }
        Ok(())
    }

    fn take(&mut self) -> Option<Row> {
        let row = self.next.pop_front()?;
        self.users += 1;
        self.hash.update(row.position.to_be_bytes());
        for text in std::iter::once(&row.user_id).chain(&row.rest) {
            self.hash.update((text.len() as u64).to_be_bytes());
            self.hash.update(text);
        }
        Some(row)
    }

    fn digest(self) -> Digest {
        Digest {
            users: self.users,
            hash: self.hash.finalize().into(),
        }
    }
}

/// Users of some events whose documents are not in memory and must have been written before: those
/// whose first event is not among the events.
fn written_earlier<D>(events: &[StoredEvent], documents: &HashMap<UserId, D>) -> Vec<UserId> {
    let mut seen = HashSet::new();
    events
        .iter()
        .filter(|event| !documents.contains_key(&event.user_id))
        .filter(|event| seen.insert(event.user_id) && event.version > 1)
        .map(|event| event.user_id)
        .collect()
}

#[cfg(test)]
pub(crate) mod conformance;
