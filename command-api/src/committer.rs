//! The commit loop: one task per process that decides commands in arrival order and appends their
//! events, one batch at a time.
//!
//! While one batch is being written, the next one queues up. A busy service therefore writes large
//! batches, an idle one answers at once, and no timer is needed.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use events::document::Document;
use events::envelope::{Context, Previous, Recorded, StoredEvent};
use events::{EventId, Time, UserId, Version};
use futures::FutureExt as _;
use hashlink::LruCache;
use http_kit::clock::Clock;
use http_kit::metrics;
use ledger::store::{
    self, AppendError, Batch, Claim, EventStore, Head, Outcome, OutcomeKey, Turn, claims_of,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::Randomness;
use crate::user::{Action, Rejection, User, apply, decide};

/// The maximum number of commands waiting for the commit loop; more are refused at once.
const QUEUE: usize = 4096;
/// The maximum time of a command when the database does not answer: its client gets an answer
/// within 2 s.
const PATIENCE: Duration = Duration::from_millis(1_900);
/// The minimum time for looking up an event whose append was not answered.
const LOOK_UP: Duration = Duration::from_millis(200);
/// The maximum number of commands decided and written together.
const BATCH: usize = 512;
/// Events of users per read, so a long history costs time but not memory.
const PAGE: usize = 4096;
/// The number of users in memory between commands.
const CACHED_USERS: usize = 16_384;
/// The number of days for which an outcome is stored.
pub const OUTCOME_DAYS: i64 = 7;

/// A command of a client, ready for a decision.
#[derive(Debug, Clone)]
pub struct Command {
    /// The user of the command.
    pub user_id: UserId,
    /// The requested change.
    pub action: Action,
    /// The version on which the client decided.
    pub expected_version: Option<Version>,
    /// The idempotency key, if the client sent one.
    pub idempotency: Option<Idempotency>,
    /// The actor and the client.
    pub context: Context,
}

/// An idempotency key: a command happens at most once under it.
#[derive(Debug, Clone)]
pub struct Idempotency {
    /// The actor and the key.
    pub key: OutcomeKey,
    /// SHA-256 of the request.
    pub fingerprint: [u8; 32],
}

/// The outcome of a decided command.
#[derive(Debug, Clone)]
pub struct Decided {
    /// The user after the command, or the reason for the refusal.
    pub result: Result<Arc<Document>, Rejection>,
    /// The time of the decision.
    pub at: Time,
    /// Whether the command was decided earlier, under the same idempotency key.
    pub is_repeat: bool,
}

/// The reason why a command was not decided. It is not known to have happened, and may be sent
/// again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Undecided {
    /// Too many commands are waiting.
    #[error("the queue of commands is full")]
    QueueFull,
    /// The commit loop has stopped.
    #[error("the service is shutting down")]
    ShuttingDown,
    /// The idempotency key was used with another request.
    #[error("the idempotency key was used with another request")]
    KeyReused,
    /// The ledger cannot be read or written.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A defect of this program; the loop continues.
    #[error("deciding the command panicked")]
    Panicked,
}

/// The entry for commands of routes. The loop stops when the last clone is dropped and all
/// submitted commands are done.
#[derive(Clone)]
pub struct Committer(mpsc::Sender<Waiting>);

struct Waiting {
    command: Command,
    answer: oneshot::Sender<Result<Decided, Undecided>>,
}

impl Committer {
    /// A committer and its loop; the caller runs the loop as one task.
    pub fn new(
        store: Arc<dyn EventStore>,
        clock: Clock,
        randomness: Randomness,
    ) -> (Self, impl Future<Output = ()>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let commit_loop = CommitLoop {
            store,
            clock,
            randomness,
            head: None,
            users: LruCache::new(CACHED_USERS),
            turn: None,
            is_overtaken: false,
        };
        (Self(sender), commit_loop.run(receiver))
    }

    /// Submits a command and waits for its outcome. `Ok` means that its events are on disk.
    /// Dropping the call does not withdraw the command.
    pub async fn submit(&self, command: Command) -> Result<Decided, Undecided> {
        let (answer, decided) = oneshot::channel();
        self.0
            .try_send(Waiting { command, answer })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => Undecided::QueueFull,
                mpsc::error::TrySendError::Closed(_) => Undecided::ShuttingDown,
            })?;
        decided.await.unwrap_or(Err(Undecided::ShuttingDown))
    }
}

/// The stored answer under an idempotency key.
#[derive(Serialize, Deserialize)]
struct Answer<D, R> {
    result: Result<D, R>,
    at: Time,
}

struct CommitLoop {
    store: Arc<dyn EventStore>,
    clock: Clock,
    randomness: Randomness,
    /// The head that the cached users belong to. `None` after an error: the cache is not trusted
    /// until the store has answered again.
    head: Option<Head>,
    users: LruCache<UserId, User>,
    /// The turn to append after another process was faster, held from before the decision until the
    /// append.
    turn: Option<Turn>,
    is_overtaken: bool,
}

/// The state and the decisions of a batch so far.
struct Draft {
    head: Head,
    now: Time,
    /// Taken out of the cache, so that an event changes them in place; returned when the draft is
    /// appended.
    users: HashMap<UserId, User>,
    /// Users whose history cannot be read. Their commands fail; commands of other users do not.
    damaged: HashMap<UserId, store::Error>,
    claims: HashMap<String, Claim>,
    outcomes: HashMap<OutcomeKey, Outcome>,
    events: Vec<StoredEvent>,
    new_claims: Vec<Claim>,
    new_outcomes: Vec<Outcome>,
}

impl CommitLoop {
    async fn run(mut self, mut queue: mpsc::Receiver<Waiting>) {
        let mut waiting = Vec::with_capacity(BATCH);
        while queue.recv_many(&mut waiting, BATCH).await > 0 {
            let (commands, answers): (Vec<_>, Vec<_>) = waiting
                .drain(..)
                .map(|waiting| (waiting.command, waiting.answer))
                .unzip();
            #[expect(clippy::cast_precision_loss, reason = "at most 512")]
            metrics::COMMIT_COMMANDS.record([], commands.len() as f64);
            let began = Instant::now();
            // A panic here is a defect of the store, but it must not end the service. The batch is
            // refused, and the cache is not trusted afterwards.
            let results = match AssertUnwindSafe(self.commit(&commands))
                .catch_unwind()
                .await
            {
                Ok(Ok(results)) => results,
                // The answer of each command logs the reason.
                Ok(Err(error)) => {
                    let why = Undecided::Store(error);
                    // Commands that queued up while the database stood still have waited long
                    // enough.
                    if began.elapsed() > PATIENCE / 2 {
                        while let Ok(waiting) = queue.try_recv() {
                            let _ = waiting.answer.send(Err(why.clone()));
                        }
                    }
                    self.refuse(&commands, &why)
                }
                Err(_) => self.refuse(&commands, &Undecided::Panicked),
            };
            for (answer, result) in answers.into_iter().zip(results) {
                // The client may have left; the decision is final all the same.
                let _ = answer.send(result);
            }
        }
    }

    fn refuse(&mut self, commands: &[Command], why: &Undecided) -> Vec<Result<Decided, Undecided>> {
        self.head = None;
        self.turn = None;
        commands.iter().map(|_| Err(why.clone())).collect()
    }

    /// Decides and appends a batch. Starts again when another process was faster, and also without
    /// a command whose decision panicked: that command must not affect the others.
    async fn commit(
        &mut self,
        commands: &[Command],
    ) -> Result<Vec<Result<Decided, Undecided>>, store::Error> {
        let mut panicked = HashSet::new();
        'again: loop {
            let mut draft = self.load(commands).await?;
            let mut results = Vec::with_capacity(commands.len());
            for (number, command) in commands.iter().enumerate() {
                if panicked.contains(&number) {
                    results.push(Err(Undecided::Panicked));
                    continue;
                }
                let decide = AssertUnwindSafe(|| self.decide(&mut draft, command));
                let Ok(result) = std::panic::catch_unwind(decide) else {
                    panicked.insert(number);
                    continue 'again;
                };
                results.push(result);
            }
            if self.append(draft).await? {
                return Ok(results);
            }
        }
    }

    /// Loads the state that the decisions depend on, as of one head.
    async fn load(&mut self, commands: &[Command]) -> Result<Draft, store::Error> {
        let head = if let Some(head) = self.head.clone() {
            head
        } else {
            self.users.clear();
            if self.is_overtaken {
                let turn = self.store.take_turn().await?;
                self.turn.insert(turn).head.clone()
            } else {
                self.store.head().await?
            }
        };
        self.head = Some(head.clone());
        let mut users = HashMap::new();
        let mut damaged = HashMap::new();
        let mut missing = Vec::new();
        for user_id in commands.iter().map(|command| command.user_id) {
            if let Some(user) = self.users.remove(&user_id) {
                users.insert(user_id, user);
            } else if !users.contains_key(&user_id) && !missing.contains(&user_id) {
                missing.push(user_id);
            }
        }
        let mut after = 0;
        while !missing.is_empty() {
            let page = self.store.read_users(&missing, after, PAGE).await?;
            for stored in &page {
                after = stored.position;
                // An event beyond the head belongs to another process: the append will notice.
                if stored.position > head.position || damaged.contains_key(&stored.user_id) {
                    continue;
                }
                let before = users.remove(&stored.user_id);
                match apply_stored(before, stored) {
                    Ok(user) => drop(users.insert(stored.user_id, user)),
                    Err(error) => drop(damaged.insert(stored.user_id, error)),
                }
            }
            if page.len() < PAGE {
                break;
            }
        }
        let names: Vec<_> = commands
            .iter()
            .filter_map(|command| command.action.wanted_username())
            .collect();
        let names: Vec<_> = names.into_iter().map(ToString::to_string).collect();
        let claims = if names.is_empty() {
            Vec::new()
        } else {
            self.store.claims(&names).await?
        };
        let keys: Vec<_> = commands
            .iter()
            .filter_map(|command| Some(command.idempotency.as_ref()?.key.clone()))
            .collect();
        let outcomes = if keys.is_empty() {
            Vec::new()
        } else {
            self.store.outcomes(&keys).await?
        };
        // A clock that was set back must not make time go back.
        let now = Time::from(self.clock.now()).max(head.recorded_at);
        let remembered = now.plus_days(-OUTCOME_DAYS);
        Ok(Draft {
            head,
            now,
            users,
            damaged,
            claims: claims
                .into_iter()
                .map(|claim| (claim.username.clone(), claim))
                .collect(),
            outcomes: outcomes
                .into_iter()
                .filter(|outcome| outcome.recorded_at > remembered)
                .map(|outcome| (outcome.key.clone(), outcome))
                .collect(),
            events: Vec::new(),
            new_claims: Vec::new(),
            new_outcomes: Vec::new(),
        })
    }

    /// Decides one command on the state that the earlier ones have left.
    fn decide(&self, draft: &mut Draft, command: &Command) -> Result<Decided, Undecided> {
        if let Some(idempotency) = &command.idempotency
            && let Some(outcome) = draft.outcomes.get(&idempotency.key)
        {
            if outcome.fingerprint != idempotency.fingerprint {
                return Err(Undecided::KeyReused);
            }
            let answer: Answer<Document, Rejection> = serde_json::from_slice(&outcome.answer)
                .map_err(|error| {
                    store::Error::Damaged(format!("an outcome cannot be read: {error}"))
                })?;
            return Ok(Decided {
                result: answer.result.map(Arc::new),
                at: answer.at,
                is_repeat: true,
            });
        }
        if let Some(error) = draft.damaged.get(&command.user_id) {
            return Err(error.clone().into());
        }
        let user = draft.users.get(&command.user_id);
        let claim = command
            .action
            .wanted_username()
            .and_then(|name| draft.claims.get(name.as_str()));
        let decision = decide(
            command.user_id,
            user,
            claim,
            &command.action,
            command.expected_version,
            draft.now,
        );
        let result = match decision {
            Ok(new_events) => {
                let mut user = draft.users.remove(&command.user_id);
                for event in new_events {
                    let recorded = Recorded {
                        position: draft.head.position + 1 + draft.events.len() as u64,
                        event_id: EventId::new(draft.now, self.randomness.bytes()),
                        user_id: command.user_id,
                        version: user.as_ref().map_or(0, |user| user.document.version) + 1,
                        time: draft.now,
                        recorded_at: draft.now,
                        previous: user.as_ref().map(|user| user.last),
                        context: command.context.clone(),
                        event,
                    };
                    let stored = recorded.to_stored();
                    let last = Previous {
                        position: stored.position,
                        hash: stored.leaf_hash,
                    };
                    let next = apply(user, &recorded, last)
                        .expect("`decide` returns only valid next events");
                    for claim in claims_of(&command.user_id, &recorded.event) {
                        draft.claims.insert(claim.username.clone(), claim.clone());
                        draft.new_claims.push(claim);
                    }
                    user = Some(next);
                    draft.events.push(stored);
                }
                let user = user.expect("a decision without events needs an existing user");
                let document = Arc::clone(&user.document);
                draft.users.insert(command.user_id, user);
                Ok(document)
            }
            Err(rejection) => Err(rejection),
        };
        if let Some(idempotency) = &command.idempotency
            && result.as_ref().err().is_none_or(Rejection::is_remembered)
        {
            let answer = serde_json::to_vec(&Answer {
                result: result.as_deref(),
                at: draft.now,
            })
            .expect("documents and rejections are plain strings and numbers");
            let outcome = Outcome {
                key: idempotency.key.clone(),
                fingerprint: idempotency.fingerprint,
                answer,
                recorded_at: draft.now,
            };
            draft.outcomes.insert(outcome.key.clone(), outcome.clone());
            draft.new_outcomes.push(outcome);
        }
        Ok(Decided {
            result,
            at: draft.now,
            is_repeat: false,
        })
    }

    /// Appends the decided events. Returns `false` when the head had moved; nothing was written
    /// then.
    async fn append(&mut self, draft: Draft) -> Result<bool, store::Error> {
        let appended = self.append_draft(draft).await;
        self.turn = None;
        if let Ok(is_current) = appended {
            self.is_overtaken = !is_current;
        }
        appended
    }

    async fn append_draft(&mut self, draft: Draft) -> Result<bool, store::Error> {
        let mut head = draft.head.clone();
        if draft.events.is_empty() && draft.new_outcomes.is_empty() {
            // Nothing has to be written, but the answers are correct only if the head has not
            // moved.
            let current = self.store.head().await?;
            let is_current = current == head;
            if is_current {
                self.users.extend(draft.users);
            } else {
                self.head = None;
            }
            return Ok(is_current);
        }
        head.position += draft.events.len() as u64;
        head.appends += 1;
        head.recorded_at = draft.now;
        let batch = Batch {
            expected: draft.head,
            recorded_at: draft.now,
            events: draft.events,
            claims: draft.new_claims,
            outcomes: draft.new_outcomes,
        };
        let began = self.clock.now();
        let began_waiting = Instant::now();
        let appended = self.store.append(&batch).await;
        let seconds = self.clock.now().duration_since(began).as_secs_f64();
        metrics::COMMIT_SECONDS.record([], seconds);
        match appended {
            Ok(()) => {}
            Err(AppendError::HeadMoved) => {
                metrics::COMMIT_RESYNCS.increment([]);
                self.head = None;
                return Ok(false);
            }
            Err(AppendError::NameTaken) => {
                return Err(store::Error::Damaged(
                    "the username claims contradict the events".to_owned(),
                ));
            }
            Err(AppendError::Store(error)) => {
                // The commit may have taken place although its answer was lost.
                let first = batch.events.first().ok_or_else(|| error.clone())?;
                // The client gets an answer in time, even from a database that stands still.
                let left = PATIENCE
                    .saturating_sub(began_waiting.elapsed())
                    .max(LOOK_UP);
                let found = timeout(left, self.store.position_of(&first.event_id)).await;
                if found.unwrap_or_else(|_| Err(error.clone()))? != Some(first.position) {
                    return Err(error);
                }
                // Followers of the ledger wait for the head, which the failed append did not
                // report.
                if let Err(error) = self.store.head().await {
                    tracing::debug!(%error, "The head could not be read after a commit");
                }
            }
        }
        self.users.extend(draft.users);
        self.head = Some(head);
        Ok(true)
    }
}

impl Rejection {
    /// Whether the refusal is stored under the command's idempotency key. That applies to conflicts
    /// (409), which a later attempt of the same command must not turn into a success. A wrong
    /// version is for the client to correct.
    fn is_remembered(&self) -> bool {
        match self {
            Self::UserExists { .. }
            | Self::UsernameTaken { .. }
            | Self::UsernameHeld { .. }
            | Self::UsernameChangeTooSoon { .. } => true,
            Self::NoSuchUser | Self::VersionMismatch { .. } => false,
        }
    }
}

/// Applies one more event of the ledger to a user.
fn apply_stored(before: Option<User>, stored: &StoredEvent) -> Result<User, store::Error> {
    let damaged = |error: &dyn std::fmt::Display| {
        store::Error::Damaged(format!("position {}: {error}", stored.position))
    };
    let recorded = stored
        .decode_without_context()
        .map_err(|error| damaged(&error))?;
    let last = Previous {
        position: stored.position,
        hash: stored.leaf_hash,
    };
    apply(before, &recorded, last).map_err(|error| damaged(&error))
}

#[cfg(test)]
mod tests;
