//! `GET /api/v1/users/search`: finds users by prefixes of the words of their names.

use axum::extract::State;
use events::Time;
use http_kit::answer::Answer;
use http_kit::caller::{Caller, Role};
use http_kit::code::Code;
use http_kit::error::ApiError;
use http_kit::openapi::{Fails, Refuses};
use http_kit::profile::{EXPERTISE, PublicProfile};
use http_kit::query::{OneOf, Parsed, Query as _, defaulted, number, optional};
use http_kit::query_parameters;
use http_kit::text::Text;
use projector::read_model::Search;
use projector::search::words;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{DocumentRead, Example, Shows};
use crate::Shared;

const DEFAULT_LIMIT: u32 = 5;
const MAX_LIMIT: u64 = 100;
/// The last page. Later pages would become ever more expensive.
const MAX_PAGE: u64 = 1000;
const MAX_QUERY: usize = 100;

/// A page of users.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Found<'a> {
    items: Vec<PublicProfile<'a>>,
    page: u32,
    limit: u32,
    /// Whether there is another page.
    has_more: bool,
}

impl Example for Found<'_> {
    fn example() -> Value {
        json!({"items": [PublicProfile::example()], "page": 1, "limit": DEFAULT_LIMIT, "hasMore": false})
    }
}

query_parameters! {
    /// The users to find.
    struct Wanted {
        /// Beginnings of words, letters and digits. Needed unless `expertise` is given.
        words: Option<Vec<String>> = optional("q", WORDS),
        /// Which page.
        page: u32 = defaulted("page", number(1, MAX_PAGE), 1),
        /// Users a page.
        limit: u32 = defaulted("limit", number(1, MAX_LIMIT), DEFAULT_LIMIT),
        /// Only users who are expert in this.
        expertise: Option<&'static str> = optional("expertise", OneOf(&EXPERTISE)),
    }
}

const WORDS: Parsed<Vec<String>> = Parsed {
    parse: sought,
    schema: || json!({"type": "string", "minLength": 1, "maxLength": MAX_QUERY, "examples": ["joh"]}),
};

impl Refuses for Wanted {
    fn refusals() -> Vec<ApiError> {
        let bad = ApiError::new(Code::ValidationFailed);
        vec![bad.field("q", Text::new("REQUIRED"))]
    }
}

/// Search users
///
/// By the beginnings of words of username, name and surname, by expertise, or by both. Turkish letters fold: `istanbul`
/// finds `İSTANBUL`.
#[utoipa::path(
    get,
    path = "/api/v1/users/search",
    operation_id = "searchUsersV1",
    tag = "Search",
    params(Wanted, DocumentRead),
    responses(Shows<Found<'_>>, Fails<(Caller, Role, DocumentRead, Wanted)>),
    security(("bearer" = []))
)]
pub(super) async fn search(
    State(api): State<Shared>,
    caller: Caller,
    read: DocumentRead,
) -> Result<Answer, ApiError> {
    caller.require(&[Role::User, Role::Auditor, Role::Admin])?;
    let mut fields = read.fields;
    let wanted = Wanted::take(&mut fields);
    if wanted.as_ref().is_some_and(Wanted::is_empty) && !fields.has_problems() {
        fields.problem("q", Text::new("REQUIRED"));
    }
    let Wanted {
        words,
        page,
        limit,
        expertise,
    } = fields.finish_with(wanted)?;
    // One more than asked for tells whether there is another page.
    let search = Search {
        words: words.unwrap_or_default(),
        expertise: expertise.map(str::to_owned),
        offset: (page - 1) * limit,
        limit: limit + 1,
    };
    let mut found = api
        .documents
        .search(&search)
        .await
        .map_err(ApiError::unavailable)?;
    let limit_as_len = usize::try_from(limit).expect("at most 100");
    let has_more = found.len() > limit_as_len;
    found.truncate(limit_as_len);
    let now = api.clock.now();
    let today = Time::from(now).date();
    let items = found
        .iter()
        .map(|document| PublicProfile {
            document,
            public_url: &api.public_url,
            today,
        })
        .collect();
    Ok(Answer::ok(
        now,
        &Found {
            items,
            page,
            limit,
            has_more,
        },
    ))
}

impl Wanted {
    /// Whether the search would match every user.
    fn is_empty(&self) -> bool {
        self.words.is_none() && self.expertise.is_none()
    }
}

fn sought(text: &str) -> Result<Vec<String>, Text> {
    if text.chars().nth(MAX_QUERY).is_some() {
        return Err(Text::new("TOO_LONG").with("max", MAX_QUERY));
    }
    let words = words(text);
    if words.is_empty() {
        return Err(Text::new("TOO_SHORT").with("min", 1));
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use http_kit::testing::{Ask, percent, refuses};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use crate::testing::{Api, JANE, JOHN, named, public_john, registered, user};

    fn search(query: &str) -> Ask {
        user(JOHN, &format!("/api/v1/users/search?{query}"))
    }

    impl Api {
        /// The usernames that are found.
        async fn finds(&self, query: &str) -> Vec<String> {
            let answer = self.read(search(query)).await;
            assert_eq!(answer.status, 200, "{query}: {answer:?}");
            let data = answer.data();
            let items = data["items"].as_array().unwrap().iter();
            let name = |item: &Value| item["username"].as_str().unwrap().to_owned();
            items.map(name).collect()
        }

        async fn with_crowd(count: u64) -> Self {
            let api = Self::start().await;
            for n in 1..=count {
                let event = registered(&format!("crowd{n:03}"), named("Crowd", "Member"));
                api.append(&format!("{n:024x}"), event).await;
            }
            api
        }
    }

    #[tokio::test]
    async fn a_page_has_public_profiles() {
        let api = Api::with_users().await;
        let answer = api.read(search("q=doe")).await;
        let data = json!({
            "items": [
                public_john(),
                {"_id": JANE, "name": "Jane", "surname": "Doe", "username": "jane", "interests": []},
            ],
            "page": 1,
            "limit": 5,
            "hasMore": false,
        });
        answer.succeeds(200, &data);
        assert!(answer.header("etag").is_none());
    }

    #[tokio::test]
    async fn users_are_found_by_their_usernames_and_names() {
        let api = Api::with_users().await;
        for (query, found) in [
            ("q=johndoe123", &["johndoe123"][..]),
            ("q=JOHN", &["johndoe123"]),
            ("q=joh+do", &["johndoe123"]),
            ("q=doe%20john", &["johndoe123"]),
            ("q=ohn", &[]),
            ("q=john+jane", &[]),
            ("expertise=designer", &["johndoe123"]),
            ("expertise=chef", &[]),
            ("q=doe&expertise=designer", &["johndoe123"]),
            ("q=jane&expertise=designer", &[]),
        ] {
            assert_eq!(api.finds(query).await, found, "{query}");
        }
    }

    #[tokio::test]
    async fn turkish_letters_fold() {
        let api = Api::start().await;
        let event = registered("ali", named("Işıl", "İSTANBUL"));
        api.append(JOHN, event).await;
        for text in [
            "istanbul",
            "ISTANBUL",
            "ıstanbul",
            "İstanbul",
            "isil",
            "IŞIL",
        ] {
            let encoded = percent(text);
            assert_eq!(api.finds(&format!("q={encoded}")).await, ["ali"], "{text}");
        }
    }

    #[tokio::test]
    async fn pages_follow_each_other_and_say_whether_there_are_more() {
        let api = Api::with_crowd(12).await;
        for (query, page, limit, first, count, has_more) in [
            ("q=crowd", 1, 5, "crowd001", 5, true),
            ("q=crowd&page=2", 2, 5, "crowd006", 5, true),
            ("q=crowd&page=3", 3, 5, "crowd011", 2, false),
            ("q=crowd&limit=12", 1, 12, "crowd001", 12, false),
            ("q=crowd&limit=11", 1, 11, "crowd001", 11, true),
            ("q=crowd&limit=100", 1, 100, "crowd001", 12, false),
            ("q=crowd&limit=1&page=12", 12, 1, "crowd012", 1, false),
        ] {
            let data = api.read(search(query)).await.data();
            let items = data["items"].as_array().unwrap();
            assert_eq!(items.len(), count, "{query}");
            assert_eq!(items[0]["username"], first, "{query}");
            assert_eq!(
                (&data["page"], &data["limit"], &data["hasMore"]),
                (&json!(page), &json!(limit), &json!(has_more)),
                "{query}"
            );
        }
        assert!(api.finds("q=crowd&page=1000").await.is_empty());
    }

    #[tokio::test]
    async fn every_bad_parameter_is_named_at_once() {
        let api = Api::with_users().await;
        let code = "VALIDATION_FAILED";
        let ask = search("q=%25%5f&page=0&limit=101&expertise=king&sort=name");
        let english = [
            "Validation failed",
            "q: must have at least 1 characters",
            "page: must be a whole number from 1 to 1000",
            "limit: must be a whole number from 1 to 100",
            "expertise: must be one of: musician, trainer, chef, photographer, designer, stylist, gamer, educator, coach, entertainer, developer, creator",
            "sort: is not a known field",
        ];
        let turkish = [
            "Doğrulama başarısız",
            "q: en az 1 karakter olmalıdır",
            "page: 1 ile 1000 arasında bir tam sayı olmalıdır",
            "limit: 1 ile 100 arasında bir tam sayı olmalıdır",
            "expertise: şunlardan biri olmalıdır: musician, trainer, chef, photographer, designer, stylist, gamer, educator, coach, entertainer, developer, creator",
            "sort: bilinen bir alan değil",
        ];
        refuses(&api.router, &ask, 400, code, &english, &turkish).await;
        let english = ["Validation failed", "q: is required"];
        let turkish = ["Doğrulama başarısız", "q: zorunludur"];
        refuses(&api.router, &search(""), 400, code, &english, &turkish).await;
        let ask = search(&format!("q={}", "x".repeat(101)));
        let english = ["Validation failed", "q: must have at most 100 characters"];
        let turkish = ["Doğrulama başarısız", "q: en fazla 100 karakter olmalıdır"];
        refuses(&api.router, &ask, 400, code, &english, &turkish).await;
        for bad in [
            "page=1001",
            "page=-1",
            "page=1.0",
            "page=",
            "page=%2b1",
            "limit=0",
            "limit=1e1",
            "limit=99999999999",
            "page=1&page=2",
            "q=a&q=b",
            "q=%ff",
            "q=%zz",
            "q=",
            "q=%00",
        ] {
            let query = if bad.starts_with("q=") {
                bad.to_owned()
            } else {
                format!("q=john&{bad}")
            };
            assert_eq!(api.send(search(&query)).await.status, 400, "{query}");
        }
    }

    #[tokio::test]
    async fn a_hostile_query_is_a_query_like_others() {
        let api = Api::with_users().await;
        for hostile in [
            "'; DROP TABLE users;--",
            "john' OR '1'='1",
            "john%",
            "john_",
            "\" OR \"\"=\"",
            "*john*",
            "NEAR(john doe)",
            "john\u{0}doe",
            "john\u{10ffff}",
            "#designer",
        ] {
            let encoded = percent(hostile);
            let answer = api.read(search(&format!("q={encoded}"))).await;
            assert_eq!(answer.status, 200, "{hostile}");
        }
        assert_eq!(api.finds("q=john").await, ["johndoe123"]);
    }

    proptest! {
        #[test]
        fn any_text_is_words_or_a_problem(text in ".{0,150}") {
            if let Ok(words) = super::sought(&text) {
                prop_assert!(!words.is_empty() && words.iter().all(|word| !word.is_empty()));
            }
        }
    }
}
