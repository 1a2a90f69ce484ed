//! Signed checkpoints of the ledger's tree, in the public formats `c2sp.org/signed-note` and
//! `c2sp.org/tlog-checkpoint`, signed with Ed25519.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::tree::Hash;

/// The signature type in keys: Ed25519.
const ED25519_KIND: u8 = 1;
/// Longer than every checkpoint of this program. Longer texts are refused unread.
const LONGEST: usize = 16 * 1024;

/// A text that is not a key or not a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text does not have the form of a private key.
    #[error("the private key of the log is not of the form PRIVATE+KEY+<name>+<hash>+<key>")]
    PrivateKey,
    /// The text does not have the form of a public key.
    #[error("the public key of the log is not of the form <name>+<hash>+<key>")]
    PublicKey,
    /// The text does not have the form of a checkpoint.
    #[error("the checkpoint is malformed")]
    Form,
    /// The signature of the key is missing or wrong.
    #[error("the checkpoint is not signed by the log's key")]
    Signature,
}

/// A checkpoint: the size and the root of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The origin of the log: the name of its key.
    pub origin: String,
    /// The number of leaves.
    pub size: u64,
    /// The root over these leaves.
    pub root: Hash,
}

/// A key that signs checkpoints.
pub struct Signer {
    name: String,
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

impl Signer {
    /// A key from 32 random bytes. The name must not contain a plus sign or white space.
    pub fn new(name: &str, seed: [u8; 32]) -> Result<Self, Error> {
        if !is_name(name) {
            return Err(Error::PrivateKey);
        }
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| Error::PrivateKey)?;
        Ok(Self {
            name: name.to_owned(),
            seed,
            pair,
        })
    }

    /// Reads a key in the form of Go's package `note`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let rest = text
            .trim()
            .strip_prefix("PRIVATE+KEY+")
            .ok_or(Error::PrivateKey)?;
        let (name, id, key) = parts(rest).ok_or(Error::PrivateKey)?;
        let signer = Self::new(name, key)?;
        if signer.public_key().id() == id {
            Ok(signer)
        } else {
            Err(Error::PrivateKey)
        }
    }

    /// The key in the form that [`Signer::parse`] reads. Secret.
    pub fn to_secret_text(&self) -> String {
        let id = hex::encode(self.public_key().id());
        let mut key = vec![ED25519_KIND];
        key.extend(self.seed);
        format!("PRIVATE+KEY+{}+{id}+{}", self.name, STANDARD.encode(key))
    }

    /// The public key that verifies the signatures.
    pub fn public_key(&self) -> PublicKey {
        let key = self.pair.public_key().as_ref();
        PublicKey {
            name: self.name.clone(),
            key: key.try_into().expect("a key of Ed25519 has 32 bytes"),
        }
    }

    /// The signed checkpoint of a tree.
    pub fn sign(&self, size: u64, root: &Hash) -> String {
        let text = format!("{}\n{size}\n{}\n", self.name, STANDARD.encode(root));
        let mut signature = self.public_key().id().to_vec();
        signature.extend(self.pair.sign(text.as_bytes()).as_ref());
        format!(
            "{text}\n\u{2014} {} {}\n",
            self.name,
            STANDARD.encode(signature)
        )
    }
}

/// The public half of a log's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    name: String,
    key: [u8; 32],
}

impl PublicKey {
    /// Reads a key such as `example.com/log+1a2b3c4d+AW…`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (name, id, key) = parts(text.trim()).ok_or(Error::PublicKey)?;
        let public = Self {
            name: name.to_owned(),
            key,
        };
        // A key has one spelling: hexadecimal digits are lower-case.
        if is_name(name) && public.id() == id && public.to_string() == text.trim() {
            Ok(public)
        } else {
            Err(Error::PublicKey)
        }
    }

    /// The key's name, which is the origin of its log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key id in signatures.
    fn id(&self) -> [u8; 4] {
        let digest = Sha256::new()
            .chain_update(&self.name)
            .chain_update([b'\n', ED25519_KIND])
            .chain_update(self.key)
            .finalize();
        [digest[0], digest[1], digest[2], digest[3]]
    }

    /// The checkpoint in a note, if this key signed it. Other signatures are ignored.
    pub fn open(&self, note: &str) -> Result<Checkpoint, Error> {
        if note.len() > LONGEST {
            return Err(Error::Form);
        }
        let (text, signatures) = note.rsplit_once("\n\n").ok_or(Error::Form)?;
        let text = format!("{text}\n");
        let mut is_signed = false;
        let signatures = signatures.strip_suffix('\n').ok_or(Error::Form)?;
        for line in signatures.split('\n') {
            let signature = line.strip_prefix("\u{2014} ").ok_or(Error::Form)?;
            let (name, signature) = signature.split_once(' ').ok_or(Error::Form)?;
            let signature = STANDARD.decode(signature).map_err(|_| Error::Form)?;
            let (id, signature) = signature.split_at_checked(4).ok_or(Error::Form)?;
            if name == self.name && id == self.id() {
                UnparsedPublicKey::new(&ED25519, &self.key)
                    .verify(text.as_bytes(), signature)
                    .map_err(|_| Error::Signature)?;
                is_signed = true;
            }
        }
        if !is_signed {
            return Err(Error::Signature);
        }
        let mut lines = text.split('\n');
        let (origin, size, root) = (lines.next(), lines.next(), lines.next());
        let size = size.ok_or(Error::Form)?;
        let checkpoint = Checkpoint {
            origin: origin.unwrap_or_default().to_owned(),
            size: size.parse().map_err(|_| Error::Form)?,
            root: root
                .and_then(|root| STANDARD.decode(root).ok()?.try_into().ok())
                .ok_or(Error::Form)?,
        };
        // A number has one spelling.
        if checkpoint.size.to_string() != size || checkpoint.origin != self.name {
            return Err(Error::Form);
        }
        Ok(checkpoint)
    }
}

impl std::fmt::Display for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut key = vec![ED25519_KIND];
        key.extend(self.key);
        let id = hex::encode(self.id());
        write!(f, "{}+{id}+{}", self.name, STANDARD.encode(key))
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c == '+')
}

/// Name, id and key of a private or public key.
fn parts(text: &str) -> Option<(&str, [u8; 4], [u8; 32])> {
    let (name, rest) = text.split_once('+')?;
    let (id, key) = rest.split_once('+')?;
    let id = hex::decode(id).ok()?.try_into().ok()?;
    let key = STANDARD.decode(key).ok()?;
    match key.split_first()? {
        (&ED25519_KIND, key) => Some((name, id, key.try_into().ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
