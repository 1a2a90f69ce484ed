//! The projection: folds the events of a feed into the read model.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Display;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use events::document::fold_into;
use events::envelope::StoredEvent;
use events::{Document, Position, UserId, chain};
use futures::FutureExt as _;
use hashlink::LruCache;
use ledger::backoff::Backoff;
use ledger::fail_point::{self, FailPoint};
use ledger::feed::{self, Feed};
use ledger::store::{self, History};
use tokio::sync::watch;

use crate::read_model::{self, ApplyError, Batch, Documents, NOBODY, Parked, ReadModel};
use crate::search::may_reword;

/// The time between two checks of a projector that stands by. The active projector writes far more
/// often.
const LOOK: Duration = Duration::from_secs(1);
/// Events of a parked user per read.
const PAGE: usize = 512;
/// The number of documents that stay in memory between steps.
const KEPT: usize = 16_384;

/// The reason why the projection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ledger or its feed failed.
    #[error(transparent)]
    Feed(#[from] feed::Error),
    /// The read model failed.
    #[error(transparent)]
    ReadModel(#[from] read_model::Error),
    /// The read model is ahead of the ledger: one of them was restored from a backup.
    #[error(
        "the read model is at position {checkpoint}, but the ledger ends at {head}: rebuild the read model"
    )]
    AheadOfLedger {
        /// The position of the read model.
        checkpoint: Position,
        /// The head of the ledger.
        head: Position,
    },
    /// Another projector has taken this read model over.
    #[error("another projector has taken the read model over")]
    NotOwner,
    /// A defect of this program.
    #[error("a step panicked")]
    Panicked,
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Feed(error.into())
    }
}

impl From<ApplyError> for Error {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::NotOwner => Self::NotOwner,
            ApplyError::ReadModel(error) => Self::ReadModel(error),
        }
    }
}

impl Error {
    /// Whether another attempt can help. A missing event or a contradiction stays.
    fn is_passing(&self) -> bool {
        match self {
            Self::Feed(feed::Error::Store(store::Error::Unavailable(_)))
            | Self::ReadModel(read_model::Error::Unavailable(_)) => true,
            Self::Feed(_)
            | Self::ReadModel(_)
            | Self::AheadOfLedger { .. }
            | Self::NotOwner
            | Self::Panicked => false,
        }
    }
}

/// The health of the projection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The position up to which events are applied.
    pub applied: Position,
    /// The current state.
    pub state: State,
}

/// Whether the projection makes progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It applies events.
    Running,
    /// A dependency is unavailable; the projection tries again.
    Retrying {
        /// The cause.
        error: String,
    },
    /// Another projector is active; this one takes over when the other stops.
    Standby,
    /// It has stopped; an operator must act.
    Stopped {
        /// The cause.
        error: String,
    },
}

/// Folds the events of a feed into the read model. Only the projection writes the read model.
pub struct Projection {
    read_model: Arc<dyn ReadModel>,
    history: Arc<dyn History>,
    owner: String,
    health: watch::Sender<Health>,
}

/// The state of a run between steps.
struct Run {
    checkpoint: Position,
    parked: HashSet<UserId>,
    feed: Box<dyn Feed>,
    /// The documents as this owner last wrote or read them; nothing else writes them.
    documents: LruCache<UserId, Document>,
    /// Whether the last step succeeded or no event waits. Until then a reported failure is not
    /// over.
    is_well: bool,
}

impl Projection {
    /// A projection and its health. `owner` distinguishes this projector from every other.
    pub fn new(
        read_model: Arc<dyn ReadModel>,
        history: Arc<dyn History>,
        owner: String,
    ) -> (Self, watch::Receiver<Health>) {
        let applied = *read_model.watch_applied().borrow();
        let (health, receiver) = watch::channel(Health {
            applied,
            state: State::Running,
        });
        (
            Self {
                read_model,
                history,
                owner,
                health,
            },
            receiver,
        )
    }

    /// Follows the feed that `feed_after` opens after a position. Passing failures are retried
    /// without limit; any other failure is logged and ends the run.
    pub async fn run(self, mut feed_after: impl FnMut(Position) -> Box<dyn Feed> + Send) -> Error {
        let mut backoff = Backoff::default();
        let mut run = None;
        loop {
            let step = async {
                match run.take() {
                    Some(run) => self.step(run).await,
                    None => self.begin(&mut feed_after).await,
                }
            };
            let stepped = AssertUnwindSafe(step).catch_unwind().await;
            match stepped.unwrap_or(Err(Error::Panicked)) {
                Ok(next) => {
                    self.health.send_modify(|health| {
                        health.applied = next.checkpoint;
                        if next.is_well {
                            health.state = State::Running;
                        }
                    });
                    if next.is_well {
                        backoff.succeeded();
                    }
                    run = Some(next);
                }
                Err(Error::NotOwner) => {
                    tracing::info!("Another projector has taken over; this one stands by");
                    self.health
                        .send_modify(|health| health.state = State::Standby);
                    self.stand_by().await;
                    tracing::info!("The active projector has stopped; this one takes over");
                }
                Err(error) if error.is_passing() => {
                    let message = chain(&error);
                    let is_new = self.health.borrow().state == State::Running;
                    if is_new {
                        tracing::warn!(error = message, "The projection waits and tries again");
                    }
                    self.health
                        .send_modify(|health| health.state = State::Retrying { error: message });
                    // Again from the checkpoint: the failed step is complete or absent.
                    backoff.wait().await;
                }
                Err(error) => {
                    let message = chain(&error);
                    tracing::error!(
                        error = message,
                        "The projection has stopped; documents do not change any more"
                    );
                    self.health
                        .send_modify(|health| health.state = State::Stopped { error: message });
                    return error;
                }
            }
        }
    }

    /// Tries at once to fold the parked users. Returns those that are still parked. The active
    /// projector takes over again with its next event.
    pub async fn retry_parked(self) -> Result<Vec<Parked>, Error> {
        let head = self.history.head().await?.position;
        let checkpoint = self.read_model.checkpoint().await?;
        if checkpoint > head {
            return Err(Error::AheadOfLedger { checkpoint, head });
        }
        let checkpoint = self.read_model.take_over(&self.owner).await?;
        for parked in self.read_model.parked().await? {
            match self.unpark(parked, checkpoint).await {
                // The other projector tries the same first of all.
                Err(Error::NotOwner) => return Ok(self.read_model.parked().await?),
                tried => tried?,
            };
        }
        self.read_model.take_over(NOBODY).await?;
        Ok(self.read_model.parked().await?)
    }

    /// Waits until there are events that no other projector folds. Also waits for unavailable
    /// databases.
    ///
    /// A read model without an owner was given up on purpose, so it is taken over at once.
    async fn stand_by(&self) {
        let mut waiting_at = None;
        loop {
            if let Ok(false) = self.read_model.is_owned().await {
                return;
            }
            tokio::time::sleep(LOOK).await;
            let seen = tokio::join!(self.read_model.checkpoint(), self.history.head());
            let (Ok(checkpoint), Ok(head)) = seen else {
                waiting_at = None;
                continue;
            };
            self.health
                .send_modify(|health| health.applied = checkpoint);
            let is_behind = checkpoint < head.position;
            if is_behind && waiting_at == Some(checkpoint) {
                return;
            }
            waiting_at = is_behind.then_some(checkpoint);
        }
    }

    /// Takes the read model over, and tries to fold the parked users again.
    async fn begin(
        &self,
        feed_after: &mut impl FnMut(Position) -> Box<dyn Feed>,
    ) -> Result<Run, Error> {
        let checkpoint = self.read_model.take_over(&self.owner).await?;
        let head = self.history.head().await?.position;
        if checkpoint > head {
            return Err(Error::AheadOfLedger { checkpoint, head });
        }
        let mut run = Run {
            checkpoint,
            parked: HashSet::new(),
            feed: feed_after(checkpoint),
            documents: LruCache::new(KEPT),
            is_well: checkpoint == head,
        };
        for parked in self.read_model.parked().await? {
            let user = parked.user_id;
            if !self.unpark(parked, checkpoint).await? {
                run.parked.insert(user);
            }
        }
        Ok(run)
    }

    /// Waits for the next events and applies them: documents and checkpoint in one transaction.
    async fn step(&self, mut run: Run) -> Result<Run, Error> {
        let events = run.feed.next().await?;
        // The projection itself checks for gaps, whatever the feed is.
        let to = feed::follow(run.checkpoint, &events)?;
        let mut users: Vec<_> = events.iter().map(|event| event.user_id).collect();
        users.sort_unstable();
        users.dedup();
        let mut before = Vec::with_capacity(users.len());
        users.retain(|user| match run.documents.remove(user) {
            Some(document) => {
                before.push(document);
                false
            }
            None => true,
        });
        if !users.is_empty() {
            before.extend(self.read_model.documents(&users).await?);
        }
        let folded = fold_batch(before, &events, &run.parked);
        let batch = Batch {
            from: run.checkpoint,
            to,
            documents: folded.documents,
            same_words: folded.same_words,
            parked: folded.parked,
            unparked: Vec::new(),
        };
        fail_point::pass(FailPoint::BeforeApply);
        self.read_model.apply(&self.owner, &batch).await?;
        fail_point::pass(FailPoint::AfterCheckpoint);
        // Reported only now: a replaced projector must not report users of a step that did not take
        // place.
        batch.parked.iter().for_each(report);
        run.checkpoint = to;
        run.is_well = true;
        run.parked
            .extend(batch.parked.iter().map(|parked| parked.user_id));
        for document in batch.documents {
            run.documents.insert(document.user_id, document);
        }
        Ok(run)
    }

    /// Folds a parked user from its first event up to the checkpoint. Returns `false` when the user
    /// still cannot be folded, or only up to another event.
    async fn unpark(&self, parked: Parked, checkpoint: Position) -> Result<bool, Error> {
        let mut document: Option<Document> = None;
        let mut still = None;
        'folded: loop {
            let after = document.as_ref().map_or(0, |document| document.version);
            let mut events = self.history.read_user(&parked.user_id, after, PAGE).await?;
            let is_last = events.len() < PAGE
                || events
                    .last()
                    .is_some_and(|event| event.position > checkpoint);
            events.retain(|event| event.position <= checkpoint);
            for event in &events {
                if let Err(error) = fold_one(&mut document, event) {
                    still = Some(Parked::at(event, error));
                    break 'folded;
                }
            }
            if is_last {
                break;
            }
        }
        let folds = still.is_none();
        if still
            .as_ref()
            .is_some_and(|still| *still == parked || still.from < parked.from)
        {
            // An existing document is not rolled back here; a rebuild does that.
            return Ok(false);
        }
        let batch = Batch {
            from: checkpoint,
            to: checkpoint,
            documents: document.into_iter().collect(),
            same_words: HashSet::new(),
            unparked: folds.then_some(parked.user_id).into_iter().collect(),
            parked: still.into_iter().collect(),
        };
        self.read_model.apply(&self.owner, &batch).await?;
        batch.parked.iter().for_each(report);
        if folds {
            tracing::info!(user.id = %parked.user_id, "A parked user folds again");
        }
        Ok(folds)
    }
}

/// Logs that a user is parked.
pub(crate) fn report(parked: &Parked) {
    tracing::error!(
        user.id = %parked.user_id,
        position = parked.from,
        error = parked.error,
        "An event cannot be folded: its user is parked; other users are not affected"
    );
}

/// The result of folding a batch of events.
pub(crate) struct Folded {
    pub(crate) documents: Vec<Document>,
    pub(crate) same_words: HashSet<UserId>,
    pub(crate) parked: Vec<Parked>,
}

/// Folds events in order, each on the document of its user. Pure.
pub(crate) fn fold_batch(
    before: Vec<Document>,
    events: &[StoredEvent],
    waiting: &HashSet<UserId>,
) -> Folded {
    let mut documents: HashMap<_, _> = before
        .into_iter()
        .map(|document| (document.user_id, Some(document)))
        .collect();
    let Changes { reworded, parked } = fold_events(&mut documents, events, waiting);
    documents.retain(|user_id, _| reworded.contains_key(user_id));
    let mut documents: Vec<_> = documents.into_values().flatten().collect();
    documents.sort_unstable_by_key(|document| document.position);
    let same_words = reworded
        .into_iter()
        .filter_map(|(user_id, is_reworded)| (!is_reworded).then_some(user_id));
    Folded {
        documents,
        same_words: same_words.collect(),
        parked,
    }
}

/// The effect of events on documents.
pub(crate) struct Changes {
    /// The changed users, and whether their search words may have changed.
    reworded: HashMap<UserId, bool>,
    /// The users to park.
    pub(crate) parked: Vec<Parked>,
}

/// Folds events in order into documents; the map has an entry for each user. Pure.
pub(crate) fn fold_events(
    documents: &mut HashMap<UserId, Option<Document>>,
    events: &[StoredEvent],
    waiting: &HashSet<UserId>,
) -> Changes {
    let mut reworded: HashMap<UserId, bool> = HashMap::new();
    let mut parked: BTreeMap<UserId, Parked> = BTreeMap::new();
    for event in events {
        let user_id = event.user_id;
        if waiting.contains(&user_id) || parked.contains_key(&user_id) {
            continue;
        }
        let document = documents.entry(user_id).or_default();
        match fold_one(document, event) {
            Ok(may_reword) => *reworded.entry(user_id).or_default() |= may_reword,
            Err(error) => {
                parked.insert(user_id, Parked::at(event, error));
            }
        }
        if document.is_none() {
            documents.remove(&user_id);
        }
    }
    Changes {
        reworded,
        parked: parked.into_values().collect(),
    }
}

/// Folds one more event into a document; an error leaves the document unchanged. Returns whether
/// the user's search words may have changed. An error is stored with the parked user and logged, so
/// it contains no personal data.
pub fn fold_one(document: &mut Option<Document>, event: &StoredEvent) -> Result<bool, String> {
    // PostgreSQL does not store the character U+0000 in a text.
    let message = |error: &dyn Display| error.to_string().replace('\0', "\u{fffd}");
    let recorded = event
        .decode_without_context()
        .map_err(|error| message(&error))?;
    if (recorded.position, recorded.user_id, recorded.version)
        != (event.position, event.user_id, event.version)
    {
        return Err("the envelope contradicts its row".to_owned());
    }
    fold_into(document, &recorded).map_err(|error| message(&error))?;
    Ok(may_reword(&recorded.event))
}

/// Waits until the documents are the fold up to a position. Returns `false` when that takes too
/// long.
pub async fn wait_for(documents: &dyn Documents, position: Position, time: Duration) -> bool {
    let mut applied = documents.watch_applied();
    tokio::time::timeout(time, applied.wait_for(|applied| *applied >= position))
        .await
        .is_ok_and(|waited| waited.is_ok())
}

#[cfg(test)]
mod tests;
