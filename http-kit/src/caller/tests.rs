use proptest::prelude::*;
use serde_json::{Value, json};

use std::sync::atomic::{AtomicI64, Ordering};

use super::*;

const SECRET: &[u8] = b"a secret of a test, 32 bytes long";
const RSA: &[u8] = include_bytes!("../../tests/keys/rsa.pem");
const RSA_PUBLIC: &[u8] = include_bytes!("../../tests/keys/rsa.pub.pem");
const EC: &[u8] = include_bytes!("../../tests/keys/ec.pem");
const EC_PUBLIC: &[u8] = include_bytes!("../../tests/keys/ec.pub.pem");
const ED: &[u8] = include_bytes!("../../tests/keys/ed.pem");
const ED_PUBLIC: &[u8] = include_bytes!("../../tests/keys/ed.pub.pem");
const JWKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/jwks.json");
const NOW: i64 = 1_780_000_000;

fn verifier(keys: Keys) -> Verifier {
    let clock = Clock::fixed(Timestamp::from_second(NOW).unwrap());
    Verifier::new(keys, None, None, clock)
}

fn signing(algorithm: Algorithm) -> EncodingKey {
    match algorithm {
        Algorithm::RS256 | Algorithm::RS512 | Algorithm::PS256 => {
            EncodingKey::from_rsa_pem(RSA).unwrap()
        }
        Algorithm::ES256 => EncodingKey::from_ec_pem(EC).unwrap(),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(ED).unwrap(),
        _ => EncodingKey::from_secret(SECRET),
    }
}

fn token(algorithm: Algorithm, kid: Option<&str>, claims: &Value) -> String {
    let mut header = Header::new(algorithm);
    header.kid = kid.map(str::to_owned);
    jsonwebtoken::encode(&header, claims, &signing(algorithm)).unwrap()
}

fn good() -> Value {
    json!({"sub": "507f1f77bcf86cd799439011", "exp": NOW + 60})
}

/// Whether a verifier of HS256 tokens takes one with these claims.
async fn takes(claims: Value) -> bool {
    let verifier = verifier(Keys::secret(SECRET).unwrap());
    let token = token(Algorithm::HS256, None, &claims);
    verifier.verify(&token).await.is_some()
}

#[tokio::test]
async fn each_algorithm_works_with_its_own_key_only() {
    let kinds = [
        (Algorithm::HS256, Keys::secret(SECRET).unwrap()),
        (Algorithm::RS256, Keys::public_key(RSA_PUBLIC).unwrap()),
        (Algorithm::ES256, Keys::public_key(EC_PUBLIC).unwrap()),
        (Algorithm::EdDSA, Keys::public_key(ED_PUBLIC).unwrap()),
    ];
    for (expected, keys) in kinds {
        let verifier = verifier(keys);
        for algorithm in [
            Algorithm::HS256,
            Algorithm::HS384,
            Algorithm::HS512,
            Algorithm::RS256,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::ES256,
            Algorithm::EdDSA,
        ] {
            let token = token(algorithm, None, &good());
            let caller = verifier.verify(&token).await;
            assert_eq!(
                caller.is_some(),
                algorithm == expected,
                "a {algorithm:?} token and a key for {expected:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_public_key_is_no_secret() {
    // The classic attack: an HS256 token "signed" with the text of the RSA public key.
    let verifier = verifier(Keys::public_key(RSA_PUBLIC).unwrap());
    let forged = jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &good(),
        &EncodingKey::from_secret(RSA_PUBLIC),
    )
    .unwrap();
    assert_eq!(verifier.verify(&forged).await, None);
}

#[tokio::test]
async fn what_the_header_of_a_token_points_at_is_not_looked_at() {
    let verifier = verifier(Keys::public_key(RSA_PUBLIC).unwrap());
    let mut header = Header::new(Algorithm::HS256);
    header.jku = Some("http://127.0.0.1:1/keys".to_owned());
    header.x5u = Some("http://127.0.0.1:1/cert".to_owned());
    let forged =
        jsonwebtoken::encode(&header, &good(), &EncodingKey::from_secret(b"mine")).unwrap();
    assert_eq!(verifier.verify(&forged).await, None);
}

#[tokio::test]
async fn an_unsigned_or_changed_token_is_refused() {
    use base64_of as b64;
    let verifier = verifier(Keys::secret(SECRET).unwrap());
    let good_token = token(Algorithm::HS256, None, &good());
    assert!(verifier.verify(&good_token).await.is_some());
    let [header, claims, signature] = good_token.split('.').collect::<Vec<_>>()[..] else {
        panic!("three parts")
    };
    let other_claims = b64(&json!({"sub": "admin", "exp": NOW + 60}).to_string());
    let none = b64(r#"{"alg":"none","typ":"JWT"}"#);
    for forged in [
        format!("{none}.{claims}."),
        format!("{none}.{claims}.{signature}"),
        format!("{header}.{claims}."),
        format!("{header}.{claims}"),
        format!("{header}.{other_claims}.{signature}"),
        format!("{good_token}.x"),
        format!("{good_token}x"),
        String::new(),
        "..".to_owned(),
        "x".repeat(MAX_TOKEN + 1),
    ] {
        assert_eq!(verifier.verify(&forged).await, None, "{forged}");
    }
}

/// Base64url without padding (RFC 4648, 5), for the parts of forged tokens.
fn base64_of(text: &str) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut encoded = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bits = chunk
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            let index = bits >> (18 - 6 * digit) & 63;
            encoded.push(char::from(DIGITS[index as usize]));
        }
    }
    encoded
}

#[tokio::test]
async fn a_token_is_good_until_30_seconds_after_it_expires() {
    for (exp, is_good) in [
        (NOW + 60, true),
        (NOW - 29, true),
        (NOW - 30, false),
        (0, false),
    ] {
        assert_eq!(
            takes(json!({"sub": "a", "exp": exp})).await,
            is_good,
            "{exp}"
        );
    }
    assert!(takes(json!({"sub": "a", "exp": 1_780_000_000.5})).await);
    for exp in [
        json!("soon"),
        json!(null),
        json!(-1),
        json!(1e308),
        json!([]),
    ] {
        let refused = !takes(json!({"sub": "a", "exp": exp})).await;
        assert!(refused || exp == json!(1e308), "{exp}");
    }
    assert!(!takes(json!({"sub": "a"})).await, "a token without end");
}

#[tokio::test]
async fn a_token_is_good_from_30_seconds_before_its_beginning() {
    for (nbf, is_good) in [(NOW, true), (NOW + 30, true), (NOW + 31, false)] {
        let claims = json!({"sub": "a", "exp": NOW + 60, "nbf": nbf});
        assert_eq!(takes(claims).await, is_good, "{nbf}");
    }
    assert!(!takes(json!({"sub": "a", "exp": NOW + 60, "nbf": "x"})).await);
}

#[tokio::test]
async fn a_token_names_its_subject() {
    assert!(!takes(json!({"exp": NOW + 60})).await);
    for (sub, is_good) in [
        (json!("a"), true),
        (json!("x".repeat(128)), true),
        (json!("x".repeat(129)), false),
        (json!(""), false),
        (json!("a\u{0}b"), false),
        (json!("a\nb"), false),
        (json!(7), false),
        (json!(null), false),
    ] {
        assert_eq!(
            takes(json!({"sub": sub, "exp": NOW + 60})).await,
            is_good,
            "{sub}"
        );
    }
}

#[tokio::test]
async fn issuer_and_audience_count_when_they_are_configured() {
    let verifier = Verifier {
        issuer: Some("https://id.example".to_owned()),
        audience: Some("profiles".to_owned()),
        ..verifier(Keys::secret(SECRET).unwrap())
    };
    for (iss, aud, is_good) in [
        (json!("https://id.example"), json!("profiles"), true),
        (
            json!("https://id.example"),
            json!(["other", "profiles"]),
            true,
        ),
        (json!("https://evil.example"), json!("profiles"), false),
        (json!("https://id.example"), json!("other"), false),
        (json!(null), json!("profiles"), false),
        (json!("https://id.example"), json!(null), false),
    ] {
        let mut claims = good();
        for (name, value) in [("iss", &iss), ("aud", &aud)] {
            if !value.is_null() {
                claims[name] = value.clone();
            }
        }
        let token = token(Algorithm::HS256, None, &claims);
        let is_taken = verifier.verify(&token).await.is_some();
        assert_eq!(is_taken, is_good, "{iss} {aud}");
    }
    // Not configured, they may be anything.
    assert!(takes(json!({"sub": "a", "exp": NOW + 60, "iss": "x", "aud": "y"})).await);
}

#[tokio::test]
async fn roles_are_those_of_the_token_or_user() {
    let verifier = verifier(Keys::secret(SECRET).unwrap());
    let roles = async |roles: Value| {
        let mut claims = good();
        claims["roles"] = roles;
        let caller = verifier
            .verify(&token(Algorithm::HS256, None, &claims))
            .await;
        caller.map(|caller| {
            caller
                .roles
                .iter()
                .map(|role| role.as_str())
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(roles(json!(null)).await, Some(vec!["user"]));
    assert_eq!(roles(json!([])).await, Some(vec![]));
    assert_eq!(
        roles(json!(["king", "admin", "user"])).await,
        Some(vec!["user", "admin"])
    );
    assert_eq!(roles(json!("admin")).await, None);
    assert_eq!(roles(json!([1])).await, None);
}

#[tokio::test]
async fn a_key_set_is_searched_by_key_id() {
    let verifier = verifier(Keys::jwks(JWKS).await.unwrap());
    for (algorithm, kid, is_good) in [
        (Algorithm::RS256, Some("rsa-1"), true),
        (Algorithm::ES256, Some("ec-1"), true),
        (Algorithm::EdDSA, Some("ed-1"), true),
        (Algorithm::ES256, Some("rsa-1"), false),
        (Algorithm::RS256, Some("nobody"), false),
        (Algorithm::RS256, None, false),
        (Algorithm::RS256, Some("for-encryption"), false),
        (Algorithm::RS512, Some("rsa-other-algorithm"), false),
        (Algorithm::RS256, Some("rsa-other-algorithm"), false),
        (Algorithm::HS256, Some("symmetric"), false),
    ] {
        let token = token(algorithm, kid, &good());
        let is_taken = verifier.verify(&token).await.is_some();
        assert_eq!(is_taken, is_good, "{algorithm:?} {kid:?}");
    }
}

/// A clock that a test moves on, by seconds.
fn moving() -> (Arc<AtomicI64>, Clock) {
    let seconds = Arc::new(AtomicI64::new(NOW));
    let read = Arc::clone(&seconds);
    let now = move || Timestamp::from_second(read.load(Ordering::Relaxed)).unwrap();
    (seconds, Clock::from_fn(now))
}

#[tokio::test]
async fn a_token_that_was_good_before_expires_all_the_same() {
    let (now, clock) = moving();
    let keys = Keys::secret(SECRET).unwrap();
    let verifier = Verifier::new(keys, None, None, clock);
    let token = token(Algorithm::HS256, None, &good());
    let first = verifier.verify(&token).await;
    assert!(first.is_some());
    assert_eq!(verifier.verify(&token).await, first);
    now.fetch_add(90, Ordering::Relaxed);
    assert_eq!(verifier.verify(&token).await, None);
}

#[tokio::test]
async fn a_token_that_was_good_before_is_refused_once_its_key_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    std::fs::copy(JWKS, &path).unwrap();
    let (now, clock) = moving();
    let keys = Keys::jwks(path.to_str().unwrap()).await.unwrap();
    let verifier = Verifier::new(keys, None, None, clock);
    let claims = json!({"sub": "507f1f77bcf86cd799439011", "exp": NOW + 100_000});
    let token = token(Algorithm::ES256, Some("ec-1"), &claims);
    for _ in 0..2 {
        assert!(verifier.verify(&token).await.is_some());
    }
    let mut set: Value = serde_json::from_slice(&std::fs::read(JWKS).unwrap()).unwrap();
    let keys = set["keys"].as_array_mut().unwrap();
    keys.retain(|key| key["kid"] != "ec-1");
    std::fs::write(&path, set.to_string()).unwrap();
    // By then the set is read again.
    now.fetch_add(600, Ordering::Relaxed);
    assert_eq!(verifier.verify(&token).await, None);
}

#[tokio::test]
async fn a_minted_token_is_good() {
    let verifier = verifier(Keys::secret(SECRET).unwrap());
    let grant = Grant {
        subject: "sign-up",
        roles: &[Role::Service, Role::Admin],
        issuer: None,
        audience: None,
        issued: Timestamp::from_second(NOW).unwrap(),
        expires: Timestamp::from_second(NOW + 60).unwrap(),
    };
    let caller = verifier.verify(&mint_hs256(SECRET, &grant)).await.unwrap();
    assert_eq!(caller.subject, "sign-up");
    assert_eq!(caller.roles, BTreeSet::from([Role::Service, Role::Admin]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_text_is_a_caller_or_none(text in "[A-Za-z0-9_.-]{0,200}") {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let verifier = verifier(Keys::secret(SECRET).unwrap());
        prop_assert_eq!(runtime.block_on(verifier.verify(&text)), None);
    }
}
