//! The key that signs the checkpoints of the log.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use command_api::Randomness;
use ledger::merkle::note::Signer;

use crate::config::Config;
use crate::parts::Parts;

/// The beginning of the name of a key that this program made. The id of the ledger follows.
pub(crate) const NAME: &str = "profile-ledger/";

/// Reads the key, or makes the first one: it is named for its ledger and readable by its owner only. If several processes
/// start at once, one of them makes it. The inner `Err` is the reason why this process signs nothing although it works:
/// the log has another key, the key file is missing, or the key belongs to another ledger.
pub(crate) async fn open(
    config: &Config,
    parts: &Parts,
    randomness: &Randomness,
) -> anyhow::Result<Result<Signer, String>> {
    let path = if let Some(path) = &config.log_key {
        path.clone()
    } else {
        crate::parts::private_folder(&config.data_dir)?;
        config.data_dir.join("log.key")
    };
    let describe = || format!("cannot use the key of the log {}", path.display());
    let adopted = parts.log.key().await.context("the log cannot be read")?;
    let is_there = path.try_exists().with_context(describe)?;
    let mut name = None;
    if adopted.is_none() {
        let head = parts
            .store
            .head()
            .await
            .context("the ledger cannot be read")?;
        name = Some(format!("{NAME}{}", head.store_id));
    }
    if let Some(name) = &name
        && !is_there
    {
        let signer = Signer::new(name, randomness.bytes()).with_context(describe)?;
        let temporary = path.with_extension(hex::encode(randomness.bytes::<8>()));
        make(&temporary, &path, &signer.to_secret_text()).with_context(describe)?;
    }
    if let Some(adopted) = &adopted
        && !is_there
    {
        return Ok(Err(format!(
            "the key file {} does not exist, but the log is signed with {adopted}: copy the file from the process that made it",
            path.display()
        )));
    }
    let text = std::fs::read_to_string(&path).with_context(describe)?;
    let signer = Signer::parse(&text).with_context(describe)?;
    let key = signer.public_key();
    match adopted {
        // The signatures of two ledgers must not look alike.
        None if key.name().starts_with(NAME) && name.as_deref() != Some(key.name()) => {
            Ok(Err(format!(
                "the key {} was made for another ledger, {}: choose another file with --log-key",
                path.display(),
                key.name()
            )))
        }
        Some(adopted) if adopted != key.to_string() => Ok(Err(format!(
            "the key {} differs from {adopted}, which signs the log",
            path.display()
        ))),
        _ => Ok(Ok(signer)),
    }
}

/// Writes a file completely or not at all. An existing file stays.
fn make(temporary: &PathBuf, path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(temporary)?;
    let written = writeln!(file, "{text}").and_then(|()| file.sync_all());
    let linked = written.and_then(|()| match std::fs::hard_link(temporary, path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    });
    std::fs::remove_file(temporary)?;
    linked
}
