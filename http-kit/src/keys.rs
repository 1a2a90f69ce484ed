//! What a token may be signed with. Each key has one algorithm, and that algorithm is chosen here:
//! the token's own `alg`, `jku`, `x5u` and `jwk` choose nothing.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};

/// The shortest secret that HS256 is safe with (RFC 7518, 3.2).
const MIN_SECRET: usize = 32;
const MAX_JWKS: usize = 1024 * 1024;
const FETCH_TIME: Duration = Duration::from_secs(5);
/// A key set is read again after so long, and no sooner than `AGAIN` for a key that is not in it.
const FRESH: SignedDuration = SignedDuration::from_mins(10);
const AGAIN: SignedDuration = SignedDuration::from_secs(30);

/// Why keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A secret that can be guessed.
    #[error("a secret needs at least {MIN_SECRET} bytes")]
    ShortSecret,
    /// Not a public key that a supported algorithm works with.
    #[error("not a PEM file with an RSA, P-256 or Ed25519 public key")]
    NotAPublicKey,
    /// A private key where a public one belongs.
    #[error("this is a private key; give the service the public one only")]
    PrivateKey,
    /// The key set could not be read.
    #[error("the key set cannot be read")]
    Source(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The key set is no JWKS (RFC 7517).
    #[error("not a JSON Web Key Set")]
    NotAKeySet(#[source] serde_json::Error),
    /// No key of the set can be used.
    #[error("the key set has no RSA, P-256 or Ed25519 key for signatures")]
    NoKey,
}

/// A key and the one algorithm it is for.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) id: Option<String>,
    pub(crate) algorithm: Algorithm,
    pub(crate) key: DecodingKey,
}

/// The keys of the issuer of tokens.
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

    /// RS256, ES256 or EdDSA, whichever the public key is for.
    pub fn public_key(pem: &[u8]) -> Result<Self, Error> {
        if String::from_utf8_lossy(pem).contains("PRIVATE KEY") {
            return Err(Error::PrivateKey);
        }
        let rsa = || DecodingKey::from_rsa_pem(pem).map(|key| (Algorithm::RS256, key));
        let ec = || DecodingKey::from_ec_pem(pem).map(|key| (Algorithm::ES256, key));
        let ed = || DecodingKey::from_ed_pem(pem).map(|key| (Algorithm::EdDSA, key));
        let (algorithm, key) = rsa()
            .or_else(|_| ec())
            .or_else(|_| ed())
            .map_err(|_| Error::NotAPublicKey)?;
        Ok(Self::one(algorithm, key))
    }

    /// A JSON Web Key Set from a file or an `http(s)://` URL, read now and again when it is old or lacks
    /// the key of a token. A set that cannot be read again stays as it was.
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
            key,
        })))
    }

    /// The key that a token names, or the only one.
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
        // One reads; others go on with the keys there are.
        let Ok(_reading) = self.reading.try_lock() else {
            return;
        };
        *self.read_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        match self.location.read().await {
            Ok(keys) => *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys,
            Err(error) => tracing::warn!(
                error = crate::error::chain(&error),
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

/// A key of a set that a supported algorithm works with. Symmetric keys have no place in a set that
/// is made to be published.
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
        key: DecodingKey::from_jwk(jwk).ok()?,
    })
}
