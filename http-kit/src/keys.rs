//! The keys that verify tokens. Each key has one algorithm, which is chosen here. The headers `alg`, `jku`, `x5u` and
//! `jwk` of a token have no influence.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    VerificationAlgorithm,
};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};

/// The shortest safe secret for HS256 (RFC 7518, 3.2).
const MIN_SECRET: usize = 32;
const MAX_JWKS: usize = 1024 * 1024;
const FETCH_TIME: Duration = Duration::from_secs(5);
/// The key set is read again after `FRESH`. For a key that is missing in it, it is read again after `AGAIN`.
const FRESH: SignedDuration = SignedDuration::from_mins(10);
const AGAIN: SignedDuration = SignedDuration::from_secs(30);

/// Keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The secret is too short and could be guessed.
    #[error("a secret needs at least {MIN_SECRET} bytes")]
    ShortSecret,
    /// The file does not contain a public key of a supported algorithm.
    #[error("not a PEM file with an RSA, P-256 or Ed25519 public key")]
    NotAPublicKey,
    /// The file contains a private key instead of a public one.
    #[error("this is a private key; give the service the public one only")]
    PrivateKey,
    /// The key set could not be read.
    #[error("the key set cannot be read")]
    Source(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The key set is not a JWKS (RFC 7517).
    #[error("not a JSON Web Key Set")]
    NotAKeySet(#[source] serde_json::Error),
    /// The set does not contain a usable key.
    #[error("the key set has no RSA, P-256 or Ed25519 key for signatures")]
    NoKey,
}

/// A key and its algorithm.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) id: Option<String>,
    pub(crate) algorithm: Algorithm,
    pub(crate) decoding: DecodingKey,
}

/// The keys of the token issuer.
#[derive(Debug)]
pub struct Keys(Source);

#[derive(Debug)]
enum Source {
    One(Arc<Key>),
    Set(KeySet),
}

#[derive(Debug)]
struct KeySet {
    location: Location,
    keys: RwLock<Vec<Arc<Key>>>,
    read_at: Mutex<Option<Timestamp>>,
    reading: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
enum Location {
    File(PathBuf),
    Url(reqwest::Client, String),
}

impl Keys {
    /// HS256 with a shared secret.
    pub fn secret(secret: &[u8]) -> Result<Self, Error> {
        if secret.len() < MIN_SECRET {
            return Err(Error::ShortSecret);
        }
        Ok(Self::one(
            Algorithm::HS256,
            DecodingKey::from_secret(secret),
        ))
    }

    /// RS256, ES256 or EdDSA, depending on the public key.
    pub fn public_key(pem: &[u8]) -> Result<Self, Error> {
        if String::from_utf8_lossy(pem).contains("PRIVATE KEY") {
            return Err(Error::PrivateKey);
        }
        let der = decode_pem(pem).ok_or(Error::NotAPublicKey)?;
        let is_for = |algorithm: &'static dyn VerificationAlgorithm| {
            ParsedPublicKey::new(algorithm, &der).is_ok()
        };
        let (algorithm, key) = if is_for(&RSA_PKCS1_2048_8192_SHA256) {
            (Algorithm::RS256, DecodingKey::from_rsa_der(&der))
        } else if is_for(&ECDSA_P256_SHA256_FIXED) {
            (Algorithm::ES256, DecodingKey::from_ec_der(&der))
        } else if is_for(&ED25519) {
            (Algorithm::EdDSA, DecodingKey::from_ed_der(&der))
        } else {
            return Err(Error::NotAPublicKey);
        };
        Ok(Self::one(algorithm, key))
    }

    /// A JSON Web Key Set from a file or an `http(s)://` URL. It is read now, and again when it is old or lacks the key
    /// of a token. If reading fails later, the former keys stay in use.
    pub async fn jwks(source: &str) -> Result<Self, Error> {
        let location = if source.starts_with("http://") || source.starts_with("https://") {
            let client = reqwest::Client::builder()
                .timeout(FETCH_TIME)
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .map_err(|error| Error::Source(error.into()))?;
            Location::Url(client, source.to_owned())
        } else {
            Location::File(source.into())
        };
        let keys = RwLock::new(location.read().await?);
        let reading = tokio::sync::Mutex::new(());
        Ok(Self(Source::Set(KeySet {
            location,
            keys,
            read_at: Mutex::new(None),
            reading,
        })))
    }

    fn one(algorithm: Algorithm, key: DecodingKey) -> Self {
        Self(Source::One(Arc::new(Key {
            id: None,
            algorithm,
            decoding: key,
        })))
    }

    /// The key that a token names, or the only key.
    pub(crate) async fn find(&self, id: Option<&str>, now: Timestamp) -> Option<Arc<Key>> {
        match &self.0 {
            Source::One(key) => Some(Arc::clone(key)),
            Source::Set(set) => set.find(id, now).await,
        }
    }
}

impl KeySet {
    async fn find(&self, id: Option<&str>, now: Timestamp) -> Option<Arc<Key>> {
        let found = self.lookup(id);
        let limit = if found.is_some() { FRESH } else { AGAIN };
        if self.is_older(limit, now) {
            self.read_again(now).await;
            return self.lookup(id);
        }
        found
    }

    fn lookup(&self, id: Option<&str>) -> Option<Arc<Key>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        match id {
            Some(id) => keys
                .iter()
                .find(|key| key.id.as_deref() == Some(id))
                .cloned(),
            None if keys.len() == 1 => keys.first().cloned(),
            None => None,
        }
    }

    fn is_older(&self, limit: SignedDuration, now: Timestamp) -> bool {
        let mut read_at = self.read_at.lock().unwrap_or_else(PoisonError::into_inner);
        // The first token after the start begins the count.
        let read_at = *read_at.get_or_insert(now);
        now.duration_since(read_at) >= limit
    }

    async fn read_again(&self, now: Timestamp) {
        // One task reads; the others continue with the present keys.
        let Ok(_reading) = self.reading.try_lock() else {
            return;
        };
        *self.read_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        match self.location.read().await {
            Ok(keys) => *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys,
            Err(error) => tracing::warn!(
                error = events::chain(&error),
                "The key set could not be read again; its former keys stay in use"
            ),
        }
    }
}

impl Location {
    async fn read(&self) -> Result<Vec<Arc<Key>>, Error> {
        let bytes = match self {
            Self::File(path) => tokio::fs::read(path)
                .await
                .map_err(|error| Error::Source(error.into()))?,
            Self::Url(client, url) => fetch(client, url).await.map_err(Error::Source)?,
        };
        let set: JwkSet = serde_json::from_slice(&bytes).map_err(Error::NotAKeySet)?;
        let keys: Vec<_> = set.keys.iter().filter_map(key).map(Arc::new).collect();
        if keys.is_empty() {
            Err(Error::NoKey)
        } else {
            Ok(keys)
        }
    }
}

async fn fetch(
    client: &reqwest::Client,
    url: &str,
) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let mut response = client.get(url).send().await?.error_for_status()?;
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if bytes.len() + chunk.len() > MAX_JWKS {
            return Err("the key set is larger than 1 MiB".into());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The bytes of the first public key in a PEM file (RFC 7468).
fn decode_pem(pem: &[u8]) -> Option<Vec<u8>> {
    let mut lines = std::str::from_utf8(pem).ok()?.lines().map(str::trim);
    let begins = |line: &str| line.starts_with("-----BEGIN ") && line.ends_with("PUBLIC KEY-----");
    lines.find(|line| begins(line))?;
    let base64: String = lines
        .take_while(|line| !line.starts_with("-----END "))
        .collect();
    BASE64_STANDARD.decode(base64).ok()
}

/// A key of a set, if its algorithm is supported. Symmetric keys are ignored, because key sets are published.
fn key(jwk: &Jwk) -> Option<Key> {
    if matches!(&jwk.common.public_key_use, Some(purpose) if *purpose != PublicKeyUse::Signature) {
        return None;
    }
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(parameters)
            if parameters.curve == EllipticCurve::P256 =>
        {
            Algorithm::ES256
        }
        AlgorithmParameters::OctetKeyPair(parameters)
            if parameters.curve == EllipticCurve::Ed25519 =>
        {
            Algorithm::EdDSA
        }
        _ => return None,
    };
    if jwk
        .common
        .key_algorithm
        .is_some_and(|named| named.to_string() != format!("{algorithm:?}"))
    {
        return None;
    }
    Some(Key {
        id: jwk.common.key_id.clone(),
        algorithm,
        decoding: DecodingKey::from_jwk(jwk).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys");

    fn key_file(name: &str) -> Vec<u8> {
        std::fs::read(format!("{KEYS}/{name}")).unwrap()
    }

    fn now(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_780_000_000 + seconds).unwrap()
    }

    async fn has(keys: &Keys, id: &str, seconds: i64) -> bool {
        keys.find(Some(id), now(seconds)).await.is_some()
    }

    #[test]
    fn a_secret_has_at_least_32_bytes() {
        assert!(matches!(Keys::secret(&[b'x'; 31]), Err(Error::ShortSecret)));
        assert!(Keys::secret(&[b'x'; 32]).is_ok());
    }

    #[test]
    fn only_public_keys_of_the_three_kinds_are_taken() {
        for good in ["rsa.pub.pem", "ec.pub.pem", "ed.pub.pem"] {
            assert!(Keys::public_key(&key_file(good)).is_ok(), "{good}");
        }
        for private in ["rsa.pem", "ec.pem", "ed.pem"] {
            let refused = Keys::public_key(&key_file(private));
            assert!(matches!(refused, Err(Error::PrivateKey)), "{private}");
        }
        let p384 = key_file("p384.pub.pem");
        for bad in [
            &p384[..],
            b"",
            b"\xff\xfe",
            b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        ] {
            assert!(matches!(Keys::public_key(bad), Err(Error::NotAPublicKey)));
        }
    }

    #[tokio::test]
    async fn a_key_set_that_cannot_be_used_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jwks.json");
        let source = path.to_str().unwrap();
        assert!(matches!(Keys::jwks(source).await, Err(Error::Source(_))));
        std::fs::write(&path, "nonsense").unwrap();
        assert!(matches!(
            Keys::jwks(source).await,
            Err(Error::NotAKeySet(_))
        ));
        std::fs::write(&path, r#"{"keys":[]}"#).unwrap();
        assert!(matches!(Keys::jwks(source).await, Err(Error::NoKey)));
        let away = Keys::jwks("http://127.0.0.1:1/jwks.json").await;
        assert!(matches!(away, Err(Error::Source(_))));
    }

    #[tokio::test]
    async fn a_new_key_is_found_and_a_revoked_one_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jwks.json");
        let all: serde_json::Value = serde_json::from_slice(&key_file("jwks.json")).unwrap();
        let write = |which: &[usize]| {
            let keys: Vec<_> = which.iter().map(|one| &all["keys"][*one]).collect();
            std::fs::write(&path, serde_json::json!({"keys": keys}).to_string()).unwrap();
        };
        write(&[0]);
        let keys = Keys::jwks(path.to_str().unwrap()).await.unwrap();
        assert!(has(&keys, "rsa-1", 0).await);
        assert!(!has(&keys, "ec-1", 0).await);

        write(&[1]);
        assert!(
            !has(&keys, "ec-1", 29).await,
            "the set was asked for a moment ago"
        );
        assert!(
            has(&keys, "ec-1", 30).await,
            "an unknown key makes the set be read again"
        );
        assert!(!has(&keys, "rsa-1", 30).await);

        write(&[0]);
        assert!(has(&keys, "ec-1", 30 + 599).await);
        assert!(
            !has(&keys, "ec-1", 30 + 600).await,
            "a set is read again every ten minutes"
        );

        std::fs::write(&path, "nonsense").unwrap();
        assert!(
            has(&keys, "rsa-1", 10_000).await,
            "a set that breaks stays as it was"
        );
    }

    #[tokio::test]
    async fn a_key_set_comes_from_a_url() {
        let jwks = key_file("jwks.json");
        let router = axum::Router::new()
            .route("/jwks.json", axum::routing::get(async move || jwks.clone()))
            .route(
                "/huge.json",
                axum::routing::get(async || vec![b' '; MAX_JWKS + 1]),
            )
            .route(
                "/elsewhere.json",
                axum::routing::get(async || axum::response::Redirect::to("/jwks.json")),
            );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        let keys = Keys::jwks(&format!("{url}/jwks.json")).await.unwrap();
        assert!(has(&keys, "ec-1", 0).await);
        for bad in ["huge.json", "elsewhere.json", "nothing.json"] {
            assert!(Keys::jwks(&format!("{url}/{bad}")).await.is_err(), "{bad}");
        }
        server.abort();
        // The issuer is away: the keys that are known stay in use.
        assert!(has(&keys, "ec-1", 10_000).await);
    }
}
