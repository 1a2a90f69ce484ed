//! Parked users: one of their events cannot be folded.

use super::*;

#[tokio::test]
async fn an_event_that_cannot_be_folded_parks_its_user_and_no_other() {
    let fixture = Fixture::new().await;
    fixture.ledger.register(1);
    fixture.ledger.register(2);
    let from = fixture.ledger.record_from_the_future(1);
    fixture.ledger.rename(1, "b", "later");
    let head = fixture.ledger.rename(2, "user2", "second");
    let _running = fixture.start();
    fixture.reach(head).await;
    assert_eq!(fixture.username(1).await.as_deref(), Some("user1"));
    assert_eq!(fixture.username(2).await.as_deref(), Some("second"));
    let parked = fixture.read_model.parked().await.unwrap();
    assert_eq!(parked.len(), 1);
    assert_eq!((parked[0].user_id, parked[0].from), (user(1), from));
    assert!(parked[0].error.contains("soul-sold"), "{}", parked[0].error);
}

#[tokio::test]
async fn a_parked_user_stays_parked_over_a_restart_and_folds_when_its_event_can_be_folded() {
    let fixture = Fixture::new().await;
    fixture.ledger.register(1);
    let head = fixture.ledger.record_from_the_future(1);
    let running = fixture.start();
    fixture.reach(head).await;
    drop(running);

    let running = fixture.start();
    let head = fixture.ledger.rename(1, "b", "later");
    fixture.reach(head).await;
    assert_eq!(fixture.username(1).await.as_deref(), Some("user1"));
    drop(running);

    fixture.ledger.learn();
    let _running = fixture.start();
    let head = fixture.ledger.register(2);
    fixture.reach(head).await;
    assert_eq!(fixture.username(1).await.as_deref(), Some("later"));
    assert_eq!(fixture.read_model.parked().await.unwrap(), []);
}

#[tokio::test]
async fn a_parked_user_with_a_new_reason_is_reported_again() {
    let fixture = Fixture::new().await;
    let first = fixture.ledger.register(1);
    let head = fixture.ledger.record_from_the_future(1);
    let running = fixture.start();
    fixture.reach(head).await;
    drop(running);
    let parked = fixture.read_model.parked().await.unwrap();

    // As an older program left it, which could not fold even the first event.
    let kept = Parked {
        from: first,
        error: "with another text".to_owned(),
        ..parked[0].clone()
    };
    fixture.read_model.take_over("earlier").await.unwrap();
    let batch = Batch {
        from: head,
        to: head,
        documents: Vec::new(),
        same_words: HashSet::new(),
        parked: vec![kept],
        unparked: Vec::new(),
    };
    fixture.read_model.apply("earlier", &batch).await.unwrap();
    fixture.read_model.take_over(NOBODY).await.unwrap();

    let _running = fixture.start();
    let head = fixture.ledger.register(2);
    fixture.reach(head).await;
    assert_eq!(fixture.read_model.parked().await.unwrap(), parked);
    assert_eq!(fixture.username(1).await.as_deref(), Some("user1"));
}

#[tokio::test]
async fn a_projector_that_was_replaced_reports_no_parked_user() {
    let said = Arc::new(Said::default());
    let subscriber = tracing_subscriber::fmt()
        .with_writer(Arc::clone(&said))
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let fixture = Fixture::new().await;
    let head = fixture.ledger.register(1);
    let mut running = fixture.start();
    fixture.reach(head).await;

    // Another projector folds the next event first.
    let ahead = Memory::new();
    ahead.register(1);
    let to = ahead.register(2);
    let event = ahead.all()[1].clone();
    let document = fold(None, &event.decode().unwrap()).unwrap();
    fixture.read_model.take_over("later").await.unwrap();
    let batch = Batch {
        from: head,
        to,
        documents: vec![document],
        same_words: HashSet::new(),
        parked: Vec::new(),
        unparked: Vec::new(),
    };
    fixture.read_model.apply("later", &batch).await.unwrap();
    fixture.ledger.register(2);
    running.state(|state| *state == State::Standby).await;
    let said = String::from_utf8(said.0.lock().unwrap().clone()).unwrap();
    assert!(said.contains("Another projector has taken over"), "{said}");
    assert!(!said.contains("cannot be folded"), "{said}");
}

/// The captured log.
#[derive(Default)]
struct Said(Mutex<Vec<u8>>);

impl std::io::Write for &Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_user_parked_by_one_projector_is_parked_for_the_other_too() {
    let fixture = Fixture::new().await;
    let first = fixture.start();
    fixture.ledger.register(1);
    let head = fixture.ledger.record_from_the_future(1);
    fixture.reach(head).await;
    // A newer program folds the user and stops; the older one must not skip the user any longer.
    fixture.ledger.learn();
    let second = fixture.start();
    let head = fixture.ledger.rename(1, "b", "c");
    fixture.reach(head).await;
    assert_eq!(fixture.username(1).await.as_deref(), Some("c"));
    drop(second);
    let head = fixture.ledger.rename(1, "c", "d");
    fixture.reach(head).await;
    assert_eq!(fixture.username(1).await.as_deref(), Some("d"));
    drop(first);
}
