//! Compares everything that the read model stores of a user with the fold of the events.

use std::collections::{HashMap, VecDeque};
use std::iter::Peekable;

use events::document::Document;
use events::{Position, StoredEvent, UserId};
use ledger::merkle::verify::{Fault, Verifier};
use ledger::store::History;
use projector::ReadModel;
use projector::projection::fold_one;
use projector::read_model::{Part, Stored};

use super::{PAGE, Report};

/// Users compared at once.
const USERS: usize = 200;

/// Compares all users, of the ledger and of the read model, each up to its own version.
pub(super) async fn verify(
    history: &dyn History,
    read_model: &dyn ReadModel,
    verifier: &Verifier,
    report: &mut Report,
) -> anyhow::Result<()> {
    let applied = read_model.checkpoint().await?;
    let head = history.head().await?.position;
    if applied > head {
        let what = format!("the documents are at position {applied}, after the end of the ledger");
        return Err(Fault::at(head + 1, what).into());
    }
    let mut users: Vec<UserId> = verifier.users().map(|(user, _)| user).collect();
    users.sort_unstable();
    let mut users = users.into_iter().peekable();
    let (mut documents, mut parked) = (0, 0);
    let (mut from, mut is_end) = (String::new(), false);
    let mut page = Page::default();
    while !is_end || !page.stored.is_empty() || users.peek().is_some() {
        if page.stored.is_empty() && !is_end {
            // Read before and after, because a projector may be at work: a row belongs to a moment in between.
            page.since = read_model.checkpoint().await?;
            page.stored = read_model.stored(&from, USERS).await?.into();
            page.until = read_model.checkpoint().await?;
            is_end = page.stored.len() < USERS;
            if !from.is_empty() {
                // The last user of a page is the first of the next.
                page.stored.pop_front_if(|first| first.user_id == from);
            }
            if let Some(last) = page.stored.back() {
                from.clone_from(&last.user_id);
            }
        }
        let mut batch = page.batch(&mut users, is_end, head)?;
        batch.fold(history).await?;
        batch.compare(head)?;
        let stored = batch.users.values().filter_map(|user| user.stored.as_ref());
        for stored in stored {
            documents += u64::from(stored.document.is_some());
            parked += u64::from(stored.parked.is_some());
        }
    }
    report.documents = Some(documents);
    report.parked_users = Some(parked);
    Ok(())
}

/// The stored rows of some users, in order.
#[derive(Default)]
struct Page {
    stored: VecDeque<Stored>,
    /// The rows are the fold up to this position or a later one.
    since: Position,
    /// The rows are the fold up to this position or an earlier one.
    until: Position,
}

impl Page {
    /// The next users of the ledger or the read model.
    fn batch(
        &mut self,
        users: &mut Peekable<impl Iterator<Item = UserId>>,
        is_end: bool,
        head: Position,
    ) -> Result<Batch, Fault> {
        let mut batch = Batch {
            users: HashMap::new(),
            since: self.since,
            until: self.until,
        };
        // If the page ends before the read model, later users may be on the next page.
        while batch.users.len() < USERS && (is_end || !self.stored.is_empty()) {
            let kept = self.stored.front().map(|stored| {
                let nobody = || fault(stored, head, "a row belongs to a user without an id");
                stored.user_id.parse::<UserId>().map_err(|_| nobody())
            });
            let (user, is_kept) = match (kept.transpose()?, users.peek()) {
                (Some(kept), Some(user)) => (kept.min(*user), kept <= *user),
                (Some(kept), None) => (kept, true),
                (None, Some(user)) => (*user, false),
                (None, None) => break,
            };
            users.next_if_eq(&user);
            let stored = is_kept.then(|| self.stored.pop_front()).flatten();
            batch.users.insert(user, Compared::new(stored));
        }
        Ok(batch)
    }
}

/// A user that is compared.
struct Compared {
    stored: Option<Stored>,
    folded: Option<Document>,
    /// Whether the fold has reached the event at which the user is parked.
    waits: bool,
}

impl Compared {
    fn new(stored: Option<Stored>) -> Self {
        Self {
            stored,
            folded: None,
            waits: false,
        }
    }

    /// The version of the stored document; 0 without one.
    fn version(&self) -> i64 {
        let document = self
            .stored
            .as_ref()
            .and_then(|stored| stored.document.as_ref());
        document.map_or(0, |document| document.version)
    }

    /// Takes the user's next event.
    fn event(&mut self, event: &StoredEvent, since: Position) -> Result<(), Fault> {
        if self.waits {
            return Ok(());
        }
        let fault = |what: String| Err(Fault::at(event.position, what));
        let user = event.user_id;
        let parked = self
            .stored
            .as_ref()
            .and_then(|stored| stored.parked.as_ref());
        if let Some(parked) = parked
            && u64::try_from(parked.from) == Ok(event.position)
        {
            self.waits = true;
            return match fold_one(&mut self.folded.clone(), event) {
                Err(error)
                    if error == parked.error
                        && parked.recorded_at == event.recorded_at.millis() =>
                {
                    Ok(())
                }
                Err(_) => fault(format!(
                    "user {user} is parked here, but for another reason than the stored one"
                )),
                Ok(_) => fault(format!(
                    "user {user} is parked here, but the event can be folded"
                )),
            };
        }
        if i64::try_from(event.version).is_ok_and(|version| version <= self.version()) {
            if let Err(error) = fold_one(&mut self.folded, event) {
                return fault(error);
            }
        } else if event.position <= since {
            let what = match &self.folded {
                None => format!("the document of user {user} is missing"),
                Some(_) => format!("the document of user {user} is older"),
            };
            return fault(what);
        }
        Ok(())
    }
}

/// Some users.
struct Batch {
    users: HashMap<UserId, Compared>,
    since: Position,
    until: Position,
}

impl Batch {
    async fn fold(&mut self, history: &dyn History) -> anyhow::Result<()> {
        let ids: Vec<UserId> = self.users.keys().copied().collect();
        let mut after = 0;
        loop {
            let events = history.read_users(&ids, after, PAGE).await?;
            for event in &events {
                after = event.position;
                if let Some(user) = self.users.get_mut(&event.user_id) {
                    user.event(event, self.since)?;
                }
            }
            if events.len() < PAGE {
                return Ok(());
            }
        }
    }

    /// Reports the first user whose rows differ.
    fn compare(&self, head: Position) -> Result<(), Fault> {
        let faults = self.users.iter().filter_map(|(user, compared)| {
            let stored = compared.stored.as_ref()?;
            let fault = |what: String| Some(fault(stored, head, &what));
            match stored.differs_from(compared.folded.as_ref()) {
                Some(Part::Document) => {
                    return fault(format!(
                        "the document of user {user} differs from the fold of its events"
                    ));
                }
                Some(Part::Words) => {
                    return fault(format!(
                        "the search words of user {user} differ from those of its document"
                    ));
                }
                None => {}
            }
            if stored.parked.is_some() && !compared.waits {
                return fault(format!(
                    "user {user} is parked at an event that it does not have"
                ));
            }
            let is_ahead = |at: i64| u64::try_from(at).is_ok_and(|at| at > self.until);
            let places = [
                stored.document.as_ref().map(|document| document.position),
                stored.parked.as_ref().map(|parked| parked.from),
            ];
            if places.into_iter().flatten().any(is_ahead) {
                return fault(format!(
                    "user {user} is newer than position {}, the position of the documents",
                    self.until
                ));
            }
            None
        });
        faults.min_by_key(|fault| fault.from).map_or(Ok(()), Err)
    }
}

/// A fault in the stored rows of a user, at the position in the row. If that position is impossible, any may be wrong.
fn fault(stored: &Stored, head: Position, what: &str) -> Fault {
    let document = stored.document.as_ref().map(|document| document.position);
    let parked = stored.parked.as_ref().map(|parked| parked.from);
    let named = document.or(parked).and_then(|at| u64::try_from(at).ok());
    match named.filter(|at| (1..=head).contains(at)) {
        Some(at) => Fault::at(at, what),
        None => Fault::within(1, head.max(1), what),
    }
}
