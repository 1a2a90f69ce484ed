//! The documents that were read last, in memory, kept right by the ledger.
//!
//! A document that is kept is given only while everything that is kept is known to be the fold up to the position
//! that the read model has reached: whoever waited for a position never gets an older document. What changes
//! otherwise than by events, such as tables that were rebuilt, is seen within [`AGE`].

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use events::{Document, Position, UserId};
use http_kit::profile::{OwnProfile, PublicProfile};
use jiff::civil::Date;
use ledger::store::History;
use projector::Documents;
use projector::read_model::Error;
use quick_cache::sync::Cache;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use together::Together;

mod together;

/// Documents that are kept.
const DOCUMENTS: usize = 16_384;
/// How long a document is given at the most, and every how long those that are older are forgotten.
const AGE: Duration = Duration::from_secs(1);
/// When more events than these were applied at once, everything is forgotten instead of their users.
const EVENTS: usize = 4_096;

/// The documents of a read model, the hot ones from memory.
pub(crate) struct HotDocuments {
    by_id: Together<UserId>,
    by_username: Together<String>,
    applied: watch::Receiver<Position>,
    kept: Arc<Kept>,
    /// Forgets whose documents have changed, and those that are old.
    _follower: JoinSet<()>,
}

/// A document, and what is answered with it, which is written when it is first asked for.
#[derive(Debug)]
pub(crate) struct Hot {
    document: Arc<Document>,
    asked: Instant,
    own: OnceLock<Box<RawValue>>,
    /// With the day whose age it shows.
    public: OnceLock<(Date, Box<RawValue>)>,
}

impl Hot {
    fn new(document: Arc<Document>, asked: Instant) -> Arc<Self> {
        Arc::new(Self {
            document,
            asked,
            own: OnceLock::new(),
            public: OnceLock::new(),
        })
    }

    /// The [`OwnProfile`] at a public URL, which is the same each time.
    pub(crate) fn own(&self, public_url: &str) -> &RawValue {
        self.own.get_or_init(|| {
            written(&OwnProfile {
                document: &self.document,
                public_url,
            })
        })
    }

    /// The [`PublicProfile`] at a public URL, which is the same each time, on a day.
    pub(crate) fn public(&self, public_url: &str, today: Date) -> Cow<'_, RawValue> {
        let on = |today| {
            written(&PublicProfile {
                document: &self.document,
                public_url,
                today,
            })
        };
        match self.public.get_or_init(|| (today, on(today))) {
            (day, public) if *day == today => Cow::Borrowed(public),
            _ => Cow::Owned(on(today)),
        }
    }
}

fn written(shape: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(shape).expect("profiles are plain strings and numbers")
}

impl Deref for Hot {
    type Target = Document;

    fn deref(&self) -> &Document {
        &self.document
    }
}

struct Kept {
    documents: Cache<UserId, Arc<Hot>>,
    /// The owner of a username, and the time of the query.
    users: Cache<String, (UserId, Instant)>,
    /// Everything that is kept is the fold up to there.
    as_of: RwLock<Position>,
}

impl HotDocuments {
    /// The documents of a read model, which is a projection of a ledger.
    pub(crate) fn new(documents: Arc<dyn Documents>, history: Arc<dyn History>) -> Self {
        let applied = documents.watch_applied();
        let kept = Arc::new(Kept {
            documents: Cache::new(DOCUMENTS),
            users: Cache::new(DOCUMENTS),
            as_of: RwLock::new(*applied.borrow()),
        });
        let mut follower = JoinSet::new();
        follower.spawn(Arc::clone(&kept).follow(applied.clone(), history));
        follower.spawn(Arc::clone(&kept).forget_old());
        Self {
            by_id: Together::new(Arc::clone(&documents)),
            by_username: Together::new(documents),
            applied,
            kept,
            _follower: follower,
        }
    }

    /// The document of a user.
    pub(crate) async fn document(&self, user: &UserId) -> Result<Option<Arc<Hot>>, Error> {
        if let Some(document) = self.kept(user) {
            return Ok(Some(document));
        }
        let (as_of, asked) = (self.kept.as_of(), Instant::now());
        let document = self.by_id.document(user).await?;
        Ok(document.map(|document| self.kept.keep(Hot::new(document, asked), as_of)))
    }

    /// The document of the user who has a canonical username now.
    pub(crate) async fn document_by_username(
        &self,
        username: &str,
    ) -> Result<Option<Arc<Hot>>, Error> {
        if let Some((user, asked)) = self.kept.users.get(username)
            && is_young(asked)
            && let Some(document) = self.kept(&user)
            && document.username == username
        {
            return Ok(Some(document));
        }
        let (as_of, asked) = (self.kept.as_of(), Instant::now());
        let document = self.by_username.document(&username.to_owned()).await?;
        Ok(document.map(|document| {
            let users = &self.kept.users;
            users.insert(username.to_owned(), (document.user_id, asked));
            self.kept.keep(Hot::new(document, asked), as_of)
        }))
    }

    fn kept(&self, user: &UserId) -> Option<Arc<Hot>> {
        let applied = *self.applied.borrow();
        if self.kept.as_of() != applied {
            return None;
        }
        let document = self.kept.documents.get(user)?;
        is_young(document.asked).then_some(document)
    }
}

fn is_young(asked: Instant) -> bool {
    asked.elapsed() < AGE
}

impl Kept {
    fn as_of(&self) -> Position {
        *self.as_of.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a document that was read when everything kept was the fold up to a position, unless what has changed
    /// since was forgotten meanwhile: this one may be among it.
    fn keep(&self, document: Arc<Hot>, read_at: Position) -> Arc<Hot> {
        let as_of = self.as_of.read().unwrap_or_else(PoisonError::into_inner);
        if *as_of == read_at {
            self.documents
                .insert(document.user_id, Arc::clone(&document));
        }
        document
    }

    /// Drops documents that are no longer requested. Otherwise they would stay in memory until others replace them.
    async fn forget_old(self: Arc<Self>) {
        loop {
            tokio::time::sleep(AGE).await;
            self.documents
                .retain(|_, document| is_young(document.asked));
            self.users.retain(|_, (_, asked)| is_young(*asked));
        }
    }

    async fn follow(
        self: Arc<Self>,
        mut applied: watch::Receiver<Position>,
        history: Arc<dyn History>,
    ) {
        loop {
            let as_of = self.as_of();
            let position = match applied.wait_for(|position| *position != as_of).await {
                Ok(position) => *position,
                Err(_) => return,
            };
            let changed = match position.checked_sub(as_of) {
                Some(events) if events <= EVENTS as u64 => {
                    history.users_between(as_of, position).await.ok()
                }
                _ => None,
            };
            let mut as_of = self.as_of.write().unwrap_or_else(PoisonError::into_inner);
            match changed {
                Some(users) => users
                    .iter()
                    .for_each(|user| drop(self.documents.remove(user))),
                None => self.documents.clear(),
            }
            *as_of = position;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use events::{Time, UserEvent};
    use ledger::test_servers::memory::Memory;
    use projector::read_model::{Parked, Search};
    use tokio::sync::Semaphore;

    use super::*;
    use crate::testing::{Api, JOHN};

    /// A read model in memory that is moved by hand, with its ledger.
    struct Fake {
        ledger: Arc<Memory>,
        documents: Mutex<HashMap<UserId, Document>>,
        applied: watch::Sender<Position>,
        reads: AtomicUsize,
        /// Reads go on with the document that they found when they are let.
        held: Semaphore,
    }

    async fn hot() -> (Arc<Fake>, HotDocuments, Document) {
        let api = Api::with_users().await;
        let john = JOHN.parse().unwrap();
        api.applied(3).await;
        let document = api.read_model.document(&john).await.unwrap().unwrap();
        let ledger = Memory::new();
        ledger.record(john, an_event());
        let fake = Arc::new(Fake {
            ledger: Arc::clone(&ledger),
            documents: Mutex::new(HashMap::from([(john, document.clone())])),
            applied: watch::Sender::new(1),
            reads: AtomicUsize::new(0),
            held: Semaphore::new(1_000),
        });
        let hot = HotDocuments::new(Arc::clone(&fake) as _, ledger);
        (fake, hot, document)
    }

    /// The kind of event does not matter here.
    fn an_event() -> UserEvent {
        UserEvent::ProfileUpdated(Box::default())
    }

    impl Fake {
        fn reads(&self) -> usize {
            self.reads.load(Ordering::Relaxed)
        }

        /// One more event of the user, and its document.
        fn change(&self, user: UserId) -> Position {
            let position = self.ledger.record(user, an_event());
            if let Some(document) = self.documents.lock().unwrap().get_mut(&user) {
                document.position = position;
            }
            self.applied.send_replace(position);
            position
        }
    }

    #[async_trait]
    impl Documents for Fake {
        fn watch_applied(&self) -> watch::Receiver<Position> {
            self.applied.subscribe()
        }

        async fn document(&self, user: &UserId) -> Result<Option<Document>, Error> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            let document = self.documents.lock().unwrap().get(user).cloned();
            self.held.acquire().await.unwrap().forget();
            Ok(document)
        }

        async fn documents(&self, _: &[UserId]) -> Result<Vec<Document>, Error> {
            unreachable!()
        }

        async fn documents_by_username(
            &self,
            usernames: &[String],
        ) -> Result<Vec<Document>, Error> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            let documents = self.documents.lock().unwrap();
            let found = documents
                .values()
                .filter(|document| usernames.contains(&document.username));
            Ok(found.cloned().collect())
        }

        async fn search(&self, _: &Search) -> Result<Vec<Document>, Error> {
            unreachable!()
        }

        async fn parked(&self) -> Result<Vec<Parked>, Error> {
            unreachable!()
        }
    }

    async fn until(is_so: impl Fn() -> bool) {
        let so = async {
            while !is_so() {
                tokio::task::yield_now().await;
            }
        };
        let deadline = Duration::from_secs(20);
        tokio::time::timeout(deadline, so).await.expect("in time");
    }

    /// Waits until what changed was forgotten.
    async fn followed(hot: &HotDocuments, position: Position) {
        until(|| hot.kept.as_of() == position).await;
    }

    #[tokio::test]
    async fn a_document_that_was_read_is_read_again_only_after_an_event_of_its_user() {
        let (fake, hot, document) = hot().await;
        let john = document.user_id;
        for _ in 0..3 {
            assert_eq!(**hot.document(&john).await.unwrap().unwrap(), document);
            let found = hot.document_by_username(&document.username).await.unwrap();
            assert_eq!(**found.unwrap(), document);
        }
        assert_eq!(fake.reads(), 2, "one by id and one by username");

        let other = UserId::new(Time::from_millis(0), [9; 8]);
        followed(&hot, fake.change(other)).await;
        hot.document(&john).await.unwrap();
        assert_eq!(fake.reads(), 2, "an event of somebody else");

        followed(&hot, fake.change(john)).await;
        let read = hot.document(&john).await.unwrap().unwrap();
        assert_eq!((read.position, fake.reads()), (3, 3));
    }

    #[tokio::test]
    async fn nothing_is_given_from_memory_before_what_changed_is_forgotten() {
        let (fake, hot, document) = hot().await;
        let john = document.user_id;
        hot.document(&john).await.unwrap();
        // The follower has not run yet.
        let position = fake.change(john);
        let read = hot.document(&john).await.unwrap().unwrap();
        assert_eq!(read.position, position);
    }

    #[tokio::test]
    async fn a_document_that_was_read_before_a_change_is_not_kept_after_it() {
        let (fake, hot, document) = hot().await;
        let john = document.user_id;
        fake.held.forget_permits(1_000);
        let reading = async {
            let read = hot.document(&john).await.unwrap().unwrap();
            assert_eq!(read.position, document.position);
        };
        let changing = async {
            until(|| fake.reads() > 0).await;
            let position = fake.change(john);
            followed(&hot, position).await;
            fake.held.add_permits(1_000);
            position
        };
        let ((), position) = tokio::join!(reading, changing);
        let read = hot.document(&john).await.unwrap().unwrap();
        assert_eq!(read.position, position);
    }

    #[tokio::test]
    async fn a_username_that_passed_on_leads_to_its_new_holder() {
        let (fake, hot, document) = hot().await;
        let name = document.username.clone();
        let john = document.user_id;
        hot.document_by_username(&name).await.unwrap();
        let jane = UserId::new(Time::from_millis(0), [9; 8]);
        {
            let mut documents = fake.documents.lock().unwrap();
            documents.get_mut(&john).unwrap().username = "given_up".to_owned();
            let mut new = document.clone();
            new.user_id = jane;
            documents.insert(jane, new);
        }
        fake.change(john);
        followed(&hot, fake.change(jane)).await;
        let found = hot.document_by_username(&name).await.unwrap().unwrap();
        assert_eq!(found.user_id, jane);
    }

    #[tokio::test]
    async fn everything_is_forgotten_when_the_read_model_goes_back_or_far_ahead() {
        let (fake, hot, document) = hot().await;
        let john = document.user_id;
        for position in [0, 1 + 2 * EVENTS as Position] {
            hot.document(&john).await.unwrap();
            let reads = fake.reads();
            fake.applied.send_replace(position);
            followed(&hot, position).await;
            hot.document(&john).await.unwrap();
            assert_eq!(fake.reads(), reads + 1, "{position}");
        }
    }

    #[tokio::test]
    async fn what_changed_without_an_event_is_seen_when_a_document_is_old() {
        let (fake, hot, document) = hot().await;
        let john = document.user_id;
        tokio::time::pause();
        hot.document(&john).await.unwrap();
        hot.document_by_username(&document.username).await.unwrap();
        tokio::time::advance(AGE / 2).await;
        hot.document(&john).await.unwrap();
        hot.document_by_username(&document.username).await.unwrap();
        assert_eq!(fake.reads(), 2);
        tokio::time::advance(AGE / 2).await;
        hot.document(&john).await.unwrap();
        hot.document_by_username(&document.username).await.unwrap();
        assert_eq!(fake.reads(), 4);
        // The document by its username is the youngest. Nobody asks for either again.
        tokio::time::sleep(2 * AGE).await;
        assert_eq!((hot.kept.documents.len(), hot.kept.users.len()), (0, 0));
    }

    #[tokio::test]
    async fn the_age_that_is_shown_is_that_of_the_day() {
        let (_, _, mut document) = hot().await;
        document.profile.birth_date = Some("1995-06-15".to_owned());
        let john = Hot::new(Arc::new(document), Instant::now());
        for (day, age) in [(14, 30), (15, 31), (14, 30)] {
            let public = john.public("https://example.com", jiff::civil::date(2026, 6, day));
            let shape: serde_json::Value = serde_json::from_str(public.get()).unwrap();
            assert_eq!(shape["age"], age, "{day}");
        }
    }
}
