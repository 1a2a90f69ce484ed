//! The contract of every read model, whatever its backend: `run_all` panics at the first violation.

use std::collections::HashSet;
use std::sync::Arc;

use events::event::{Consents, Profile};
use events::{Document, Time, UserId};

use super::{ApplyError, Batch, Parked, Part, ReadModel, Search, StoredParked};
use crate::search::words;

/// The identifier of the nth user of a test.
fn user(n: u64) -> UserId {
    format!("{n:024x}").parse().expect("24 hexadecimal digits")
}

/// The document of the nth user after one event.
pub(super) fn document(
    n: u64,
    username: &str,
    name: &str,
    surname: &str,
    position: u64,
) -> Document {
    Document {
        user_id: user(n),
        version: 1,
        position,
        username: username.to_owned(),
        profile: Profile {
            name: name.to_owned(),
            surname: surname.to_owned(),
            ..Profile::default()
        },
        country_code: None,
        phone_number: None,
        consents: Consents::default(),
        is_registration_complete: true,
        roles: vec!["user".to_owned()],
        photo: None,
        last_login: None,
        created_at: Time::from_millis(0),
        updated_at: Time::from_millis(0),
    }
}

fn step(from: u64, to: u64, documents: Vec<Document>) -> Batch {
    Batch {
        from,
        to,
        documents,
        parked: Vec::new(),
        same_words: HashSet::new(),
        unparked: Vec::new(),
    }
}

/// The owner of a read model that no projector has taken over yet.
const OWNER: &str = "";

/// Runs every test, each on a new read model.
pub(super) async fn run_all(open: impl AsyncFn() -> Arc<dyn ReadModel>) {
    a_step_is_read_back(&*open().await).await;
    a_step_from_another_checkpoint_changes_nothing(&*open().await).await;
    a_replaced_projector_cannot_write(&*open().await).await;
    a_username_leads_to_its_current_holder(&*open().await).await;
    search_finds_beginnings_of_words(&*open().await).await;
    search_follows_renames(&*open().await).await;
    search_pages_contain_every_user_once(&*open().await).await;
    search_results_are_sorted_by_word_and_id(&*open().await).await;
    unchanged_words_are_not_written(&*open().await).await;
    large_steps_are_written_completely(&*open().await).await;
    hostile_searches_find_nothing(&*open().await).await;
    users_are_parked_and_unparked(&*open().await).await;
    every_stored_row_about_users_is_listed_by_user(&*open().await).await;
}

async fn unchanged_words_are_not_written(read_model: &dyn ReadModel) {
    let john = document(1, "john", "John", "Doe", 1);
    let jane = document(2, "jane", "Jane", "Doe", 2);
    let first = step(0, 2, vec![john.clone(), jane.clone()]);
    read_model.apply(OWNER, &first).await.expect("apply");
    let bio = |document: &Document, position| {
        let mut document = document.clone();
        document.position = position;
        document.version += 1;
        document.profile.bio = Some("new".to_owned());
        document
    };
    // Alone, and together with a user that is renamed.
    let mut alone = step(2, 3, vec![bio(&john, 3)]);
    alone.same_words = HashSet::from([john.user_id]);
    read_model.apply(OWNER, &alone).await.expect("apply");
    let mut renamed = bio(&jane, 5);
    renamed.profile.name = "Janet".to_owned();
    let mut beside = step(3, 5, vec![bio(&john, 4), renamed.clone()]);
    beside.same_words = HashSet::from([john.user_id]);
    read_model.apply(OWNER, &beside).await.expect("apply");

    let kept = read_model.stored("", 9).await.expect("stored");
    assert_eq!(kept.len(), 2);
    for (stored, document) in kept.iter().zip([bio(&john, 4), renamed]) {
        let expected = Document {
            version: u64::try_from(stored.document.as_ref().expect("one").version).expect("small"),
            ..document
        };
        assert_eq!(stored.differs_from(Some(&expected)), None);
    }
}

async fn large_steps_are_written_completely(read_model: &dyn ReadModel) {
    let documents: Vec<_> = (1..=200)
        .map(|n| document(n, &format!("user{n}"), "John", "Doe", n))
        .collect();
    let batch = step(0, 200, documents.clone());
    read_model.apply(OWNER, &batch).await.expect("apply");
    let mut again = step(200, 400, documents);
    for document in &mut again.documents {
        document.position += 200;
        document.version += 1;
    }
    again.same_words = again
        .documents
        .iter()
        .map(|document| document.user_id)
        .collect();
    read_model.apply(OWNER, &again).await.expect("apply");
    let users: Vec<_> = (1..=200).map(user).collect();
    let mut kept = read_model.documents(&users).await.expect("documents");
    kept.sort_unstable_by_key(|document| document.position);
    assert_eq!(kept, again.documents);
}

async fn every_stored_row_about_users_is_listed_by_user(read_model: &dyn ReadModel) {
    let documents: Vec<_> = (1..=7)
        .map(|n| document(n, &format!("user{n}"), "John \u{1f600}", "Doe \"\\", n))
        .collect();
    let parked = Parked {
        user_id: user(4),
        from: 8,
        error: "of a test".to_owned(),
        recorded_at: Time::from_millis(5),
    };
    let mut batch = step(0, 8, documents.clone());
    // A user parked since its first event has no document.
    batch.parked = vec![
        Parked {
            user_id: user(0),
            ..parked.clone()
        },
        parked,
    ];
    read_model.apply(OWNER, &batch).await.expect("apply");
    let (mut from, mut listed) = (String::new(), Vec::new());
    loop {
        let page = read_model.stored(&from, 3).await.expect("stored");
        assert!(page.len() <= 3);
        let is_end = page.len() < 3;
        // The last user of a page is the first of the next.
        listed.pop();
        listed.extend(page);
        if is_end {
            break;
        }
        from.clone_from(&listed.last().expect("a page").user_id);
    }
    let users: Vec<_> = listed.iter().map(|stored| stored.user_id.clone()).collect();
    assert_eq!(
        users,
        (0..=7).map(|n| user(n).to_string()).collect::<Vec<_>>()
    );
    let kept = || StoredParked {
        from: 8,
        error: "of a test".to_owned(),
        recorded_at: 5,
    };
    for (n, stored) in listed.iter().enumerate() {
        let wanted = n.checked_sub(1).map(|n| &documents[n]);
        assert_eq!(stored.differs_from(wanted), None);
        assert_eq!(stored.parked, matches!(n, 0 | 4).then(kept));
    }
    assert_eq!(
        listed[1].differs_from(Some(&documents[1])),
        Some(Part::Document)
    );
    assert_eq!(listed[1].differs_from(None), Some(Part::Document));
    let mut less = listed[1].clone();
    less.words = less.words.replace("john\n", "");
    assert_eq!(less.differs_from(Some(&documents[0])), Some(Part::Words));
}

async fn a_step_is_read_back(read_model: &dyn ReadModel) {
    assert_eq!(read_model.checkpoint().await.expect("checkpoint"), 0);
    let documents: Vec<_> = (1..=300)
        .map(|n| document(n, &format!("user{n}"), "John", "Doe", n))
        .collect();
    let applied = read_model.watch_applied();
    read_model
        .apply(OWNER, &step(0, 300, documents.clone()))
        .await
        .expect("apply");
    assert_eq!(*applied.borrow(), 300);
    assert_eq!(read_model.checkpoint().await.expect("checkpoint"), 300);
    assert_eq!(
        read_model
            .document(&user(7))
            .await
            .expect("document")
            .as_ref(),
        Some(&documents[6])
    );
    assert_eq!(
        read_model.document(&user(999)).await.expect("document"),
        None
    );
    let wanted: Vec<_> = (290..=310).map(user).collect();
    assert_eq!(
        read_model
            .documents(&wanted)
            .await
            .expect("documents")
            .len(),
        11
    );
}

async fn a_step_from_another_checkpoint_changes_nothing(read_model: &dyn ReadModel) {
    read_model
        .apply(
            OWNER,
            &step(0, 5, vec![document(1, "john", "John", "Doe", 5)]),
        )
        .await
        .expect("apply");
    let late = step(4, 9, vec![document(1, "late", "Late", "Doe", 9)]);
    assert!(matches!(
        read_model.apply(OWNER, &late).await,
        Err(ApplyError::NotOwner)
    ));
    assert_eq!(read_model.checkpoint().await.expect("checkpoint"), 5);
    assert_eq!(
        read_model
            .document(&user(1))
            .await
            .expect("document")
            .expect("there")
            .username,
        "john"
    );
}

async fn a_replaced_projector_cannot_write(read_model: &dyn ReadModel) {
    assert_eq!(read_model.take_over("first").await.expect("take over"), 0);
    read_model
        .apply("first", &step(0, 5, vec![]))
        .await
        .expect("apply");
    assert_eq!(read_model.take_over("second").await.expect("take over"), 5);
    // Not even when the checkpoint matches.
    let late = read_model.apply("first", &step(5, 9, vec![])).await;
    assert!(matches!(late, Err(ApplyError::NotOwner)));
    read_model
        .apply("second", &step(5, 9, vec![]))
        .await
        .expect("apply");
    assert_eq!(read_model.checkpoint().await.expect("checkpoint"), 9);
}

async fn a_username_leads_to_its_current_holder(read_model: &dyn ReadModel) {
    read_model
        .apply(
            OWNER,
            &step(0, 1, vec![document(1, "john", "John", "Doe", 1)]),
        )
        .await
        .expect("apply");
    let passed_on = vec![
        document(2, "john", "Jane", "Doe", 3),
        document(1, "johnny", "John", "Doe", 2),
    ];
    read_model
        .apply(OWNER, &step(1, 3, passed_on))
        .await
        .expect("apply");
    for (usernames, users) in [
        (&["john"][..], vec![user(2)]),
        (&["JOHN"], vec![]),
        (&["nobody"], vec![]),
        (
            &["johnny", "nobody", "john", "john"],
            vec![user(1), user(2)],
        ),
        (&[], vec![]),
    ] {
        let usernames: Vec<_> = usernames.iter().copied().map(str::to_owned).collect();
        let found = read_model.documents_by_username(&usernames).await;
        let mut found: Vec<_> = found
            .expect("documents")
            .iter()
            .map(|document| document.user_id)
            .collect();
        found.sort_unstable();
        assert_eq!(found, users, "{usernames:?}");
    }
}

async fn found(read_model: &dyn ReadModel, query: &str, expertise: Option<&str>) -> Vec<u64> {
    let search = Search {
        words: words(query),
        expertise: expertise.map(str::to_owned),
        offset: 0,
        limit: 100,
    };
    let found = read_model.search(&search).await.expect("search");
    let mut numbers: Vec<_> = found
        .iter()
        .map(|document| {
            u64::from_str_radix(&document.user_id.to_string(), 16).expect("the id of a test")
        })
        .collect();
    numbers.sort_unstable();
    numbers
}

async fn search_finds_beginnings_of_words(read_model: &dyn ReadModel) {
    let mut designer = document(3, "ayse.yilmaz", "Ayşe Nur", "Yılmaz", 3);
    designer.profile.expertise = Some("designer".to_owned());
    let documents = vec![
        document(1, "johndoe123", "John", "Doe", 1),
        document(2, "sehir", "İSTANBUL", "Şehri", 2),
        designer,
        document(4, "istanbullu", "Ali", "Istanbul", 4),
    ];
    read_model
        .apply(OWNER, &step(0, 4, documents))
        .await
        .expect("apply");
    for (query, expected) in [
        ("john", &[1][..]),
        ("johndoe1", &[1]),
        ("DOE", &[1]),
        ("istanbul", &[2, 4]),
        ("ISTANBUL", &[2, 4]),
        ("sehri", &[2]),
        ("yıl", &[3]),
        ("ayse yilmaz", &[3]),
        ("ayse.yilmaz", &[3]),
        ("nur ay", &[3]),
        ("ayse doe", &[]),
        ("ohn", &[]),
    ] {
        assert_eq!(found(read_model, query, None).await, expected, "{query}");
    }
    assert_eq!(found(read_model, "", Some("designer")).await, [3]);
    assert_eq!(found(read_model, "ay", Some("designer")).await, [3]);
    assert_eq!(
        found(read_model, "john", Some("designer")).await,
        Vec::<u64>::new()
    );
    assert_eq!(found(read_model, "", Some("chef")).await, Vec::<u64>::new());
    assert_eq!(found(read_model, "", None).await, [1, 2, 3, 4]);
}

async fn search_follows_renames(read_model: &dyn ReadModel) {
    read_model
        .apply(
            OWNER,
            &step(0, 1, vec![document(1, "john", "John", "Doe", 1)]),
        )
        .await
        .expect("apply");
    read_model
        .apply(
            OWNER,
            &step(1, 2, vec![document(1, "jane", "Jane", "Doe", 2)]),
        )
        .await
        .expect("apply");
    assert_eq!(found(read_model, "john", None).await, Vec::<u64>::new());
    assert_eq!(found(read_model, "jane", None).await, [1]);
    assert_eq!(found(read_model, "doe", None).await, [1]);
}

async fn search_pages_contain_every_user_once(read_model: &dyn ReadModel) {
    let documents = (1..=100)
        .map(|n| document(n, &format!("ali{n}"), "Ali", &format!("Alişan{n}"), n))
        .collect();
    read_model
        .apply(OWNER, &step(0, 100, documents))
        .await
        .expect("apply");
    let mut seen = Vec::new();
    for page in 0..12 {
        let search = Search {
            words: words("ali"),
            expertise: None,
            offset: page * 9,
            limit: 9,
        };
        seen.extend(
            read_model
                .search(&search)
                .await
                .expect("search")
                .into_iter()
                .map(|document| document.user_id),
        );
    }
    assert_eq!(seen.len(), 100);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 100, "a user appeared twice");
}

async fn search_results_are_sorted_by_word_and_id(read_model: &dyn ReadModel) {
    // By the bytes of the words, not by the rules of a language: `abæ` after `abz`.
    let surnames = ["abя", "abz", "ab1", "abæ", "abz", "ab"];
    let documents = (1..)
        .zip(surnames)
        .map(|(n, surname)| document(n, &format!("user{n}"), "Ali", surname, n))
        .collect();
    read_model
        .apply(OWNER, &step(0, 6, documents))
        .await
        .expect("apply");
    for (query, expected) in [("ab", [6, 3, 2, 5, 4, 1]), ("", [1, 2, 3, 4, 5, 6])] {
        let search = Search {
            words: words(query),
            expertise: None,
            offset: 0,
            limit: 10,
        };
        let found = read_model.search(&search).await.expect("search");
        assert!(
            found
                .iter()
                .map(|document| document.user_id)
                .eq(expected.map(user)),
            "{query}: {found:?}"
        );
    }
}

async fn hostile_searches_find_nothing(read_model: &dyn ReadModel) {
    read_model
        .apply(
            OWNER,
            &step(0, 1, vec![document(1, "john", "John", "Doe", 1)]),
        )
        .await
        .expect("apply");
    for hostile in [
        "%",
        "_",
        "'",
        "\"",
        "\\",
        "\u{10ffff}",
        "john%",
        "x' OR '1'='1",
        "#designer",
        "\0",
    ] {
        let search = Search {
            words: vec![hostile.to_owned()],
            expertise: None,
            offset: 0,
            limit: 10,
        };
        assert!(
            read_model.search(&search).await.expect("search").is_empty(),
            "{hostile:?}"
        );
        let search = Search {
            words: vec![],
            expertise: Some(hostile.to_owned()),
            offset: 0,
            limit: 10,
        };
        assert!(
            read_model.search(&search).await.expect("search").is_empty(),
            "{hostile:?}"
        );
        let found = read_model
            .documents_by_username(&[hostile.to_owned()])
            .await;
        assert_eq!(found.expect("documents"), []);
    }
}

async fn users_are_parked_and_unparked(read_model: &dyn ReadModel) {
    let parked = Parked {
        user_id: user(1),
        from: 3,
        error: "cannot".to_owned(),
        recorded_at: Time::from_millis(9),
    };
    let batch = Batch {
        parked: vec![parked.clone()],
        ..step(0, 3, Vec::new())
    };
    read_model.apply(OWNER, &batch).await.expect("apply");
    assert_eq!(read_model.parked().await.expect("parked"), [parked]);
    let batch = Batch {
        same_words: HashSet::new(),
        unparked: vec![user(1)],
        ..step(3, 3, vec![document(1, "john", "John", "Doe", 3)])
    };
    read_model.apply(OWNER, &batch).await.expect("apply");
    assert!(read_model.parked().await.expect("parked").is_empty());
    assert!(
        read_model
            .document(&user(1))
            .await
            .expect("document")
            .is_some()
    );
}
