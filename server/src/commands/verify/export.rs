//! Compares an export with a checkpoint. Only the public key is needed.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use events::message::structured;
use events::{LeafHash, Position, StoredEvent};
use ledger::merkle::note::Checkpoint;
use ledger::merkle::tree::{Hash, Hasher};
use ledger::merkle::verify::{Fault, Verifier};

use super::{Args, Report, checkpoint};

/// The longest line of an export.
const LONGEST: u64 = 1024 * 1024;

/// Hashes and compares every line of an export.
pub(super) fn verify(export: &Path, args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let (Some(key), Some(path)) = (&args.public_key, &args.checkpoint) else {
        bail!("an export is verified with --checkpoint FILE and --public-key KEY");
    };
    let signed = checkpoint(path, key)?;
    let describe = || format!("cannot read the export {}", export.display());
    let file = File::open(export).with_context(describe)?;
    let mut hashes = Hashes::beside(export, &signed)?;
    let mut verifier = Verifier::default();
    let mut lines = BufReader::new(file);
    let mut line = Vec::new();
    let looked = loop {
        line.clear();
        let read = (&mut lines).take(LONGEST).read_until(b'\n', &mut line);
        if read.with_context(describe)? == 0 || verifier.size() == signed.size {
            break Ok(());
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        let position = verifier.size() + 1;
        let taken = exported(&line, position, &mut hashes).and_then(|event| {
            verifier.event(&event)?;
            Ok(())
        });
        if taken.is_err() {
            break taken;
        }
    };
    report.events = verifier.size();
    report.root = hex::encode(verifier.root());
    looked?;
    if verifier.size() < signed.size {
        let what = format!("the event is missing: {} were signed", signed.size);
        return Err(Fault::at(verifier.size() + 1, what).into());
    }
    verifier.confirm(&signed)?;
    report.checkpoints = 1;
    report.confirmed = verifier.confirmed();
    if !line.is_empty() {
        return Err(Fault::at(signed.size + 1, "the event was not signed").into());
    }
    Ok(())
}

fn exported(line: &[u8], position: Position, hashes: &mut Hashes) -> anyhow::Result<StoredEvent> {
    let hash = LeafHash::of(line);
    if hashes.next()?.is_some_and(|signed| signed != hash.0) {
        let what = "the envelope differs from the signed one";
        return Err(Fault::at(position, what).into());
    }
    let event = structured(line.to_vec().into());
    event.map_err(|error| Fault::at(position, error.to_string()).into())
}

/// The hashes that may come with an export. They show which event is wrong; the root shows only that one is.
struct Hashes {
    path: PathBuf,
    file: Option<BufReader<File>>,
}

impl Hashes {
    /// Opens `<export>.hashes` if it exists, and compares it with the signed root.
    fn beside(export: &Path, signed: &Checkpoint) -> anyhow::Result<Self> {
        let mut path = OsString::from(export);
        path.push(".hashes");
        let mut hashes = Self {
            path: path.into(),
            file: None,
        };
        hashes.open()?;
        let mut hasher = Hasher::default();
        while let Some(hash) = hashes.next()? {
            hasher.push(hash);
        }
        let is_signed = hasher.size() == signed.size && hasher.root() == signed.root;
        if hashes.file.is_some() && !is_signed {
            return Err(hashes.are_others());
        }
        // The file is read again from the beginning, because it may be too large for memory.
        hashes.open()?;
        Ok(hashes)
    }

    fn open(&mut self) -> anyhow::Result<()> {
        self.file = match File::open(&self.path) {
            Ok(file) => Some(BufReader::new(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", self.path.display()));
            }
        };
        Ok(())
    }

    fn next(&mut self) -> anyhow::Result<Option<Hash>> {
        let Some(file) = &mut self.file else {
            return Ok(None);
        };
        let describe = || format!("cannot read {}", self.path.display());
        if file.fill_buf().with_context(describe)?.is_empty() {
            return Ok(None);
        }
        let mut hash = Hash::default();
        match file.read_exact(&mut hash) {
            Ok(()) => Ok(Some(hash)),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(self.are_others()),
            Err(error) => Err(error).with_context(describe),
        }
    }

    fn are_others(&self) -> anyhow::Error {
        anyhow::anyhow!(
            "{} contains other hashes than the signed ones; remove the file to verify the export without it",
            self.path.display()
        )
    }
}
