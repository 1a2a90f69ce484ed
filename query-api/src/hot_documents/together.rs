//! Reads of single documents that come while others are under way become one query: a query for many costs little more
//! than one for a single document, and waking the database's thread or process more than either.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use events::{Document, UserId};
use projector::Documents;
use projector::read_model::Error;
use tokio::sync::{Semaphore, oneshot};

/// Queries under way at once.
const QUERIES: usize = 2;
/// Documents of one query.
const DOCUMENTS: usize = 64;

/// Reads documents by a key of theirs, many at once where many are asked for at once.
pub(super) struct Together<K> {
    documents: Arc<dyn Documents>,
    turns: Semaphore,
    waiting: Mutex<Vec<Waiting<K>>>,
}

/// The key of a document.
pub(super) trait Key: Clone + Ord + Hash + Send + Sync + 'static {
    /// The key of a document.
    fn of(document: &Document) -> Self;

    /// The documents of some keys. Where several have the same, the newest counts.
    fn read(
        documents: &dyn Documents,
        keys: &[Self],
    ) -> impl Future<Output = Result<Vec<Document>, Error>> + Send;
}

impl Key for UserId {
    fn of(document: &Document) -> Self {
        document.user_id
    }

    async fn read(documents: &dyn Documents, keys: &[Self]) -> Result<Vec<Document>, Error> {
        match keys {
            [user] => Ok(documents.document(user).await?.into_iter().collect()),
            users => documents.documents(users).await,
        }
    }
}

/// A canonical username.
impl Key for String {
    fn of(document: &Document) -> Self {
        document.username.clone()
    }

    async fn read(documents: &dyn Documents, keys: &[Self]) -> Result<Vec<Document>, Error> {
        documents.documents_by_username(keys).await
    }
}

type Answer = Result<Option<Arc<Document>>, Error>;

struct Waiting<K> {
    key: K,
    answer: oneshot::Sender<Answer>,
}

impl<K: Key> Together<K> {
    pub(super) fn new(documents: Arc<dyn Documents>) -> Self {
        Self {
            documents,
            turns: Semaphore::new(QUERIES),
            waiting: Mutex::default(),
        }
    }

    /// The document of a key, as it is at some moment after the call.
    pub(super) async fn document(&self, key: &K) -> Answer {
        loop {
            let (answer, mut answered) = oneshot::channel();
            self.waiting().push(Waiting {
                key: key.clone(),
                answer,
            });
            let taken_along = tokio::select! {
                biased;
                taken_along = &mut answered => taken_along,
                _turn = self.turns.acquire() => {
                    while answered.is_empty() && self.read_some().await {}
                    answered.await
                }
            };
            // Without an answer, the task that read it was cancelled.
            if let Ok(document) = taken_along {
                return document;
            }
        }
    }

    /// Answers those who have waited longest. `false`: nobody waits who is not being answered.
    async fn read_some(&self) -> bool {
        let asked: Vec<_> = {
            let mut waiting = self.waiting();
            let count = waiting.len().min(DOCUMENTS);
            waiting.drain(..count).collect()
        };
        if asked.is_empty() {
            return false;
        }
        let mut keys: Vec<_> = asked.iter().map(|waiting| waiting.key.clone()).collect();
        keys.sort_unstable();
        keys.dedup();
        let documents = self.documents(&keys).await;
        for waiting in asked {
            // A receiver that stopped waiting is ignored.
            let _ = waiting.answer.send(documents[&waiting.key].clone());
        }
        true
    }

    async fn documents(&self, keys: &[K]) -> HashMap<K, Answer> {
        let read = self.read(keys).await;
        let mut found = HashMap::new();
        for key in keys {
            let answer = match &read {
                Ok(documents) => Ok(documents.get(key).cloned()),
                Err(error) if keys.len() == 1 => Err(error.clone()),
                // One of them may be damaged. That must not affect the others.
                Err(_) => {
                    let one = self.read(std::slice::from_ref(key)).await;
                    one.map(|mut documents| documents.remove(key))
                }
            };
            found.insert(key.clone(), answer);
        }
        found
    }

    /// By their keys; of those with the same, the newest.
    async fn read(&self, keys: &[K]) -> Result<HashMap<K, Arc<Document>>, Error> {
        let mut documents = K::read(&*self.documents, keys).await?;
        documents.sort_unstable_by_key(|document| document.position);
        let documents = documents.into_iter();
        Ok(documents
            .map(|document| (K::of(&document), Arc::new(document)))
            .collect())
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Waiting<K>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use async_trait::async_trait;
    use events::{Position, Time};
    use futures::future::join_all;
    use projector::read_model::{Parked, Search};
    use tokio::sync::watch;

    use super::*;
    use crate::testing::{Api, JOHN};

    /// A read model in which everybody has the same document, but for one user, whose document is damaged.
    struct Fake {
        document: Document,
        queries: Mutex<Vec<usize>>,
        is_stuck: AtomicBool,
    }

    fn user(n: u64) -> UserId {
        format!("{n:024x}").parse().unwrap()
    }

    const DAMAGED: u64 = 13;

    impl Fake {
        async fn query(&self, users: &[UserId]) -> Result<Vec<Document>, Error> {
            self.queries.lock().unwrap().push(users.len());
            tokio::time::sleep(Duration::from_millis(10)).await;
            if self.is_stuck.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            let found = users.iter().map(|id| match id {
                id if *id == user(DAMAGED) => Err(Error::Damaged("a test".to_owned())),
                id => Ok(Document {
                    user_id: *id,
                    ..self.document.clone()
                }),
            });
            found.collect()
        }
    }

    #[async_trait]
    impl Documents for Fake {
        fn watch_applied(&self) -> watch::Receiver<Position> {
            unreachable!()
        }

        async fn document(&self, user: &UserId) -> Result<Option<Document>, Error> {
            Ok(self.query(&[*user]).await?.pop())
        }

        async fn documents(&self, users: &[UserId]) -> Result<Vec<Document>, Error> {
            self.query(users).await
        }

        async fn documents_by_username(&self, _: &[String]) -> Result<Vec<Document>, Error> {
            // As for the length of a transaction in which a username passes on.
            let named = |n, position| Document {
                user_id: user(n),
                username: "passed.on".to_owned(),
                position,
                ..self.document.clone()
            };
            Ok(vec![named(1, 7), named(2, 9), named(3, 8)])
        }

        async fn search(&self, _: &Search) -> Result<Vec<Document>, Error> {
            unreachable!()
        }

        async fn parked(&self) -> Result<Vec<Parked>, Error> {
            unreachable!()
        }
    }

    async fn together<K: Key>() -> (Arc<Fake>, Together<K>) {
        let api = Api::with_users().await;
        let john = JOHN.parse().unwrap();
        api.applied(3).await;
        let document = api.read_model.document(&john).await.unwrap().unwrap();
        let fake = Arc::new(Fake {
            document,
            queries: Mutex::default(),
            is_stuck: AtomicBool::new(false),
        });
        let together = Together::new(Arc::clone(&fake) as _);
        (fake, together)
    }

    #[tokio::test]
    async fn reads_that_come_at_once_are_few_queries_and_each_gets_its_own_document() {
        let (fake, together) = together().await;
        // Each user is asked for twice.
        let reads = (0..200).map(|n| {
            let together = &together;
            async move {
                let id = user(100 + n / 2);
                let read = together.document(&id).await.unwrap().unwrap();
                assert_eq!(read.user_id, id);
            }
        });
        join_all(reads).await;
        let queries = fake.queries.lock().unwrap().clone();
        assert!(queries.len() <= 2 + 200 / DOCUMENTS + 1, "{queries:?}");
        assert!(queries.iter().all(|users| *users <= DOCUMENTS));
    }

    #[tokio::test]
    async fn a_damaged_document_is_no_matter_of_those_who_read_others() {
        let (_, together) = together().await;
        let reads = (0..30).map(|n| {
            let together = &together;
            async move {
                let read = together.document(&user(n)).await;
                assert_eq!(read.is_err(), n == DAMAGED, "{n}");
            }
        });
        join_all(reads).await;
    }

    #[tokio::test]
    async fn who_was_taken_along_by_a_cancelled_read_reads_again() {
        let (fake, together) = together().await;
        fake.is_stuck.store(true, Ordering::Relaxed);
        let users: Vec<_> = (0..10).map(user).collect();
        let impatient = join_all(users.iter().map(|user| together.document(user)));
        let cancelled = async {
            let _ = tokio::time::timeout(Duration::from_millis(50), impatient).await;
            fake.is_stuck.store(false, Ordering::Relaxed);
        };
        let patient = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let id = user(20);
            let read = together.document(&id).await.unwrap().unwrap();
            assert_eq!(read.user_id, id);
        };
        let deadline = Duration::from_secs(20);
        let both = async { tokio::join!(cancelled, patient) };
        tokio::time::timeout(deadline, both)
            .await
            .expect("an answer");
    }

    #[tokio::test]
    async fn the_newest_document_with_a_username_has_it() {
        let (_, together) = together().await;
        let usernames = ["passed.on", "nobody", "passed.on"].map(str::to_owned);
        let reads = join_all(usernames.iter().map(|username| together.document(username))).await;
        let found = reads.into_iter().map(|read| read.unwrap());
        let found: Vec<_> = found
            .map(|found| found.map(|found| found.user_id))
            .collect();
        assert_eq!(found, [Some(user(2)), None, Some(user(2))]);
    }

    #[tokio::test]
    async fn a_user_who_is_not_there_is_nobody() {
        let api = Api::with_users().await;
        let together = Together::new(Arc::clone(&api.read_model) as _);
        let nobody = UserId::new(Time::from_millis(0), [7; 8]);
        let reads = join_all((0..5).map(|_| together.document(&nobody))).await;
        assert!(reads.iter().all(|read| matches!(read, Ok(None))));
    }
}
