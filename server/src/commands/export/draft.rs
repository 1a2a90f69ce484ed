//! A file that appears complete or not at all.

use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};
use tempfile::{Builder, NamedTempFile};

/// A file under a temporary name in the same folder. Dropping it removes it. Only its owner may read it.
pub(super) struct Draft {
    file: NamedTempFile,
    path: PathBuf,
    hash: Sha256,
}

impl Draft {
    /// Refuses a path that exists.
    pub(super) fn new(path: &Path) -> anyhow::Result<Self> {
        if path.symlink_metadata().is_ok() {
            bail!("{} exists already", path.display())
        }
        Ok(Self {
            file: Builder::new()
                .prefix(".profile-ledger-")
                .tempfile_in(folder(path))?,
            path: path.to_owned(),
            hash: Sha256::new(),
        })
    }

    /// SHA-256 of the written bytes, in hexadecimal digits.
    pub(super) fn sha256(&self) -> String {
        hex::encode(self.hash.clone().finalize())
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes every file to disk, and only then gives them their names, in order.
pub(super) fn finish(drafts: Vec<Draft>) -> anyhow::Result<()> {
    for draft in &drafts {
        draft.file.as_file().sync_all()?;
    }
    for Draft { file, path, .. } in drafts {
        if let Err(error) = file.persist_noclobber(&path) {
            if error.error.kind() == ErrorKind::AlreadyExists {
                bail!("{} exists already", path.display())
            }
            return Err(error.error).with_context(|| path.display().to_string());
        }
        std::fs::File::open(folder(&path))?.sync_all()?;
    }
    Ok(())
}

/// The folder of a file.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let name = |entry: io::Result<std::fs::DirEntry>| {
            entry.unwrap().file_name().into_string().unwrap()
        };
        let mut names: Vec<_> = entries.map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn files_appear_together_and_nothing_is_left_of_those_that_are_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        let [mut first, second] = [&one, &two].map(|path| Draft::new(path).unwrap());
        first.write_all(b"abc").unwrap();
        assert_eq!(
            first.sha256(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(!names(folder.path()).contains(&"one".to_owned()));
        drop(first);
        let mut first = Draft::new(&one).unwrap();
        first.write_all(b"abc").unwrap();
        finish(vec![first, second]).unwrap();
        assert_eq!(names(folder.path()), ["one", "two"]);
        assert_eq!(std::fs::read(&one).unwrap(), b"abc");
    }

    #[test]
    fn nothing_is_overwritten_not_even_what_came_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one");
        let draft = Draft::new(&path).unwrap();
        std::fs::write(&path, "somebody else's").unwrap();
        assert!(finish(vec![draft]).is_err());
        assert!(Draft::new(&path).is_err());
        assert_eq!(names(folder.path()), ["one"]);
        assert_eq!(std::fs::read(&path).unwrap(), b"somebody else's");
    }
}
