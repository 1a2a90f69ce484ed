//! `rebuild` and `parked`: the read model folded anew, and the users that wait.

use std::process::ExitCode;

use anyhow::Context as _;
use projector::projection::Projection;
use projector::read_model::Parked;
use projector::rebuild::{self, Difference, Digest, Report, rebuild, roll_back};
use serde_json::{Value, json};

use crate::config::{Config, ParkedArgs, RebuildArgs};
use crate::parts;
use crate::progress::Progress;

/// The exit code is 1 when the tables differ and nothing was swapped.
pub(crate) async fn run(config: &Config, args: &RebuildArgs) -> anyhow::Result<ExitCode> {
    let history = parts::history(config).await?;
    let read_model = parts::replaceable(config).await?;
    let run = hex::encode(parts::randomness().bytes::<8>());
    let progress = Progress::new();
    let tell = |come: rebuild::Progress| match come {
        rebuild::Progress::Folding(at, of) => {
            progress.begin("folding", of);
            progress.at(at);
        }
        rebuild::Progress::Completing => progress.begin("indexing", 0),
        rebuild::Progress::Comparing(users) => {
            progress.begin("comparing", users);
            progress.at(users);
        }
    };
    if args.rollback {
        let rolled_back = roll_back(history, &*read_model, &run, &tell).await;
        progress.finish();
        let position = rolled_back.context("the earlier documents were not brought back")?;
        if args.json {
            println!("{}", json!({"rolledBack": true, "swappedAt": position}));
        } else {
            println!(
                "The earlier documents are back, as of position {position}. The ones that they replaced are kept: \
                 --rollback again brings those back."
            );
        }
        return Ok(ExitCode::SUCCESS);
    }
    let rebuilt = rebuild(history, &*read_model, &run, args.accept_differences, &tell).await;
    progress.finish();
    let report = rebuilt.context("nothing was swapped; the live documents are as they were")?;
    if args.json {
        println!("{}", summary(&report));
    } else {
        print(&report);
    }
    Ok(match report.swapped_at {
        Some(_) => ExitCode::SUCCESS,
        None => ExitCode::from(1),
    })
}

fn print(report: &Report) {
    let of = |digest: &Digest| {
        format!(
            "{} users, digest {}",
            digest.users,
            hex::encode(digest.hash)
        )
    };
    println!("compared at position {}", report.compared_at);
    println!("live:    {}", of(&report.live));
    println!("rebuilt: {}", of(&report.rebuilt));
    if let Some(position) = report.was_ahead {
        println!("The live documents were at position {position}, which the ledger does not have.");
    }
    for parked in &report.unparked {
        println!("{} was parked and folds again", parked.user_id);
    }
    for parked in &report.parked {
        println!(
            "{} is parked from position {} on: {}",
            parked.user_id, parked.from, parked.error
        );
    }
    for difference in &report.differing {
        let at = |position: Option<_>| {
            position.map_or("absent".to_owned(), |position| {
                format!("at position {position}")
            })
        };
        println!(
            "{} differs: live {}, rebuilt {}",
            difference.user_id,
            at(difference.live),
            at(difference.rebuilt)
        );
    }
    let more = report
        .differences
        .saturating_sub(report.differing.len() as u64);
    if more > 0 {
        println!("{more} more users differ");
    }
    match report.swapped_at {
        Some(position) => println!(
            "The rebuilt documents are live, as of position {position}. The earlier ones are kept: --rollback brings them back."
        ),
        None => println!(
            "Nothing was swapped, as both differ. After a fold was corrected that is to be expected: \
             --accept-differences takes the rebuilt documents."
        ),
    }
}

fn summary(report: &Report) -> Value {
    let digest =
        |digest: &Digest| json!({"users": digest.users, "digest": hex::encode(digest.hash)});
    let difference = |difference: &Difference| json!({"userId": difference.user_id, "live": difference.live, "rebuilt": difference.rebuilt});
    json!({
        "comparedAt": report.compared_at,
        "live": digest(&report.live),
        "rebuilt": digest(&report.rebuilt),
        "differences": report.differences,
        "differing": report.differing.iter().map(difference).collect::<Vec<_>>(),
        "wasAhead": report.was_ahead,
        "unparked": report.unparked.iter().map(parked_json).collect::<Vec<_>>(),
        "parked": report.parked.iter().map(parked_json).collect::<Vec<_>>(),
        "swappedAt": report.swapped_at,
    })
}

fn parked_json(parked: &Parked) -> Value {
    json!({
        "userId": parked.user_id,
        "position": parked.from,
        "error": parked.error,
        "recordedAt": parked.recorded_at,
    })
}

/// Lists the users that wait. The exit code is 1 when there are any.
pub(crate) async fn parked(config: &Config, args: &ParkedArgs) -> anyhow::Result<ExitCode> {
    let read_model = if args.retry {
        parts::read_model(config).await?
    } else {
        parts::read_model_to_read(config).await?
    };
    let before = read_model.parked().await.context("cannot list who waits")?;
    let parked = if args.retry && !before.is_empty() {
        let history = parts::history(config).await?;
        let owner = hex::encode(parts::randomness().bytes::<16>());
        let (projection, _) = Projection::new(read_model, history, owner);
        projection
            .retry_parked()
            .await
            .context("cannot fold again")?
    } else {
        before.clone()
    };
    let is_waiting = |user| parked.iter().any(|parked| parked.user_id == user);
    let unparked: Vec<_> = before
        .iter()
        .filter(|user| !is_waiting(user.user_id))
        .collect();
    if args.json {
        let list = |parked: &[&Parked]| {
            parked
                .iter()
                .map(|parked| parked_json(parked))
                .collect::<Vec<_>>()
        };
        let waiting: Vec<_> = parked.iter().collect();
        println!(
            "{}",
            json!({"parked": list(&waiting), "unparked": list(&unparked)})
        );
    } else {
        for user in &unparked {
            println!("{} folds again", user.user_id);
        }
        for user in &parked {
            println!(
                "{} waits from position {} on: {}",
                user.user_id, user.from, user.error
            );
        }
        println!("{} users are parked", parked.len());
    }
    Ok(if parked.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}
