//! Compares with an independent implementation, the crate `signed_note`.

use proptest::prelude::*;
use signed_note::{Note, StandardVerifier, VerifierList};
use tlog_tiles::Checkpoint as Theirs;

use super::*;

const NAME: &str = "example.com/profiles";

fn signer() -> Signer {
    Signer::new(NAME, [7; 32]).unwrap()
}

#[test]
fn an_independent_implementation_opens_our_checkpoint() {
    let note = signer().sign(12_345, &[9; 32]);
    let key = signer().public_key().to_string();
    let theirs = Note::from_bytes(note.as_bytes()).unwrap();
    let verifier = StandardVerifier::new(&key).unwrap();
    let (verified, others) = theirs
        .verify(&VerifierList::new(vec![Box::new(verifier)]))
        .unwrap();
    assert_eq!((verified.len(), others.len()), (1, 0));
    let checkpoint = Theirs::from_bytes(theirs.text()).unwrap();
    assert_eq!(checkpoint.origin(), NAME);
    assert_eq!(checkpoint.size(), 12_345);
    assert_eq!(checkpoint.hash().0, [9; 32]);
}

#[test]
fn a_checkpoint_signed_by_an_independent_implementation_is_opened() {
    let skey = signer().to_secret_text();
    let theirs = signed_note::StandardSigner::new(&skey).unwrap();
    let text = Theirs::new(NAME, 3, tlog_tiles::Hash([1; 32]), "").unwrap();
    let mut note = Note::new(&text.to_bytes(), &[]).unwrap();
    note.add_sigs(&[&theirs]).unwrap();
    let note = String::from_utf8(note.to_bytes()).unwrap();
    let checkpoint = signer().public_key().open(&note).unwrap();
    assert_eq!((checkpoint.size, checkpoint.root), (3, [1; 32]));
    assert_eq!(note, signer().sign(3, &[1; 32]));
}

#[test]
fn keys_can_be_read_back() {
    let again = Signer::parse(&signer().to_secret_text()).unwrap();
    assert_eq!(again.public_key(), signer().public_key());
    let public = signer().public_key().to_string();
    assert_eq!(PublicKey::parse(&public), Ok(signer().public_key()));
    for bad in [
        "",
        "a+b",
        "a+00000000+AAAA",
        "PRIVATE+KEY+x+00000000+AA",
        &public[1..],
    ] {
        assert_eq!(PublicKey::parse(bad), Err(Error::PublicKey), "{bad:?}");
        assert_eq!(Signer::parse(bad).err(), Some(Error::PrivateKey), "{bad:?}");
    }
    assert!(Signer::new("with space", [0; 32]).is_err());
    assert!(Signer::new("with+plus", [0; 32]).is_err());
}

#[test]
fn a_checkpoint_of_another_key_is_not_opened() {
    let note = signer().sign(1, &[1; 32]);
    let other = Signer::new(NAME, [8; 32]).unwrap().public_key();
    assert_eq!(other.open(&note), Err(Error::Signature));
    let other = Signer::new("example.com/other", [7; 32]).unwrap();
    assert_eq!(other.public_key().open(&note), Err(Error::Signature));
}

#[test]
fn a_text_that_is_not_a_checkpoint_is_refused() {
    let key = signer().public_key();
    let long = format!("{}\n\n\u{2014} a b\n", "x".repeat(LONGEST));
    for bad in ["", "\n\n", "a\n1\nAAAA\n", "\n\n\u{2014} a AAAA\n", &long] {
        assert!(key.open(bad).is_err(), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn a_changed_checkpoint_is_not_opened(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let note = signer().sign(12_345, &[9; 32]);
        let mut bytes = note.clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(changed) = String::from_utf8(bytes) {
            prop_assert!(signer().public_key().open(&changed).is_err());
        }
    }

    #[test]
    fn any_text_is_a_checkpoint_or_an_error(text in "[\u{2014}a-z0-9+/= \n]{0,300}") {
        let _ = signer().public_key().open(&text);
        let _ = PublicKey::parse(&text);
        let _ = Signer::parse(&text);
    }
}

#[test]
fn a_public_key_is_read_in_one_form_only() {
    let key = Signer::new("example.com/log", [7; 32]).unwrap();
    let text = key.public_key().to_string();
    assert!(PublicKey::parse(&text).is_ok());
    let (name, rest) = text.split_once('+').unwrap();
    let (id, rest) = rest.split_once('+').unwrap();
    let loud = format!("{name}+{}+{rest}", id.to_uppercase());
    assert_ne!(loud, text);
    assert!(PublicKey::parse(&loud).is_err());
}
