//! Uploads of photos, beside decoding the same bytes.

use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args as Arguments;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::Instant;

use crate::http::Sent;
use crate::installation::Installation;
use crate::load::{Pace, Script, count, drive, follows};
use crate::pictures::{jpeg, png};
use crate::report::{LOAD_COLUMNS, RATE, Rounds, Table, figures, load_cells, rate, ratio};
use crate::run::Run;
use crate::users::{self, Users};

/// Numbers of uploads at once: one, and the most that a process accepts.
const AT_ONCE: [u32; 2] = [1, 3];

#[derive(Debug, Clone, Arguments)]
pub(crate) struct Args {}

pub(crate) async fn run(run: &Run, _: &Args) -> anyhow::Result<()> {
    let mut columns = vec![
        "photo",
        "bytes",
        "at once",
        "time of an upload to that of decoding",
        "uploads/s",
        "decoded alone/s",
    ];
    columns.extend(LOAD_COLUMNS);
    let mut table = Table::new(&format!("Photos, {}", run.storage()), &columns);
    let samples = [
        ("JPEG, 1 MP", "image/jpeg", 1_155, 866),
        ("JPEG, 12 MP", "image/jpeg", 4_000, 3_000),
        ("JPEG, 48 MP", "image/jpeg", 8_000, 6_000),
        ("PNG, 2 MP", "image/png", 1_600, 1_250),
    ];
    for (name, media_type, width, height) in samples {
        let make = if media_type == "image/png" { png } else { jpeg };
        let photo = Arc::new(spawn_blocking(move || make(width, height)).await?);
        for at_once in AT_ONCE {
            // A separate installation, so that the memory is that of these uploads.
            let (uploads, decoded) = Installation::lend(&run.settings, async |installation| {
                measure(run, installation, media_type, &photo, at_once).await
            })
            .await
            .with_context(|| name.to_owned())?;
            let mut cells = vec![
                name.to_owned(),
                photo.len().to_string(),
                at_once.to_string(),
                ratio(decoded.median(0), uploads.median(RATE)),
                rate(uploads.median(RATE)),
                rate(decoded.median(0)),
            ];
            cells.extend(load_cells(&uploads));
            table.row(&cells);
            table.print();
        }
    }
    Ok(())
}

async fn measure(
    run: &Run,
    installation: &Installation,
    media_type: &'static str,
    photo: &Arc<Vec<u8>>,
    at_once: u32,
) -> anyhow::Result<(Rounds, Rounds)> {
    let users = Arc::new(Users::register(installation, 64).await?);
    let service = installation.start().await?;
    let (mut uploads, mut decoded) = <(Rounds, Rounds)>::default();
    let turns = Arc::new(AtomicU64::new(0));
    let mut head = users.count;
    for _ in 0..run.rounds {
        decoded.push([decode(photo, at_once, run.time()).await?]);
        let script = |_| Uploads {
            users: Arc::clone(&users),
            turns: Arc::clone(&turns),
            media_type,
            photo: Arc::clone(photo),
        };
        let scripts = (0..at_once).map(script).collect();
        let outcome = drive(&service, scripts, Pace::Closed, run.time()).await?;
        head = follows(head, &outcome.positions)?;
        uploads.push(figures(&outcome));
    }
    service.stop().await?;
    installation.verify().await?;
    Ok((uploads, decoded))
}

/// Uploads by users in turns, because a user may have only one upload at a time.
struct Uploads {
    users: Arc<Users>,
    turns: Arc<AtomicU64>,
    media_type: &'static str,
    photo: Arc<Vec<u8>>,
}

impl Script for Uploads {
    fn next(&mut self) -> Sent {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let token = self.users.token(turn % self.users.count);
        users::photo(&token, self.media_type, &self.photo, turn)
    }
}

/// Decodes the photo in several threads. Returns decoded photos per second.
async fn decode(photo: &Arc<Vec<u8>>, at_once: u32, time: Duration) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..at_once {
        let photo = Arc::clone(photo);
        running.spawn_blocking(move || {
            let mut decoded = 0;
            while began.elapsed() < time {
                let reader =
                    image::ImageReader::new(Cursor::new(&photo[..])).with_guessed_format()?;
                std::hint::black_box(reader.decode()?);
                decoded += 1;
            }
            anyhow::Ok(decoded)
        });
    }
    let mut all = 0;
    while let Some(decoded) = running.join_next().await {
        all += decoded??;
    }
    Ok(count(all) / began.elapsed().as_secs_f64())
}
