//! The whole service in one process.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use command_api::photo_sweep;
use command_api::{CommandApi, Committer, Uploads};
use events::Time;
use events::feed::StoreFeed;
use events::photos::PhotoStore;
use events::store::EventStore;
use http_kit::caller::Verifier;
use http_kit::clock::Clock;
use http_kit::keys::Keys;
use projector::projection::Projection;
use query_api::QueryApi;
use tokio::net::TcpListener;

use crate::config::Config;
use crate::dev;
use crate::health::{self, Probes};
use crate::lifecycle::shutdown_signal;
use crate::parts::{Parts, randomness};

/// How long requests under way may take after a signal.
const DEADLINE: Duration = Duration::from_secs(20);
/// Events that the projection folds at once.
const FEED_BATCH: usize = 512;

pub(crate) async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let clock = Clock::system();
    let randomness = randomness();
    let (keys, dev_secret) = keys(&config, &randomness).await?;
    let verifier = Arc::new(Verifier::new(
        keys,
        config.jwt_issuer.clone(),
        config.jwt_audience.clone(),
        clock.clone(),
    ));

    let Parts {
        store,
        read_model,
        photos,
    } = Parts::embedded(&config.data_dir).await?;
    let (committer, commit_loop) =
        Committer::new(Arc::clone(&store), clock.clone(), randomness.clone());
    let commit_loop = tokio::spawn(commit_loop);

    // Listening comes after the locks: a second process on the same data must not take a single request.
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.listen))?;
    let url = format!(
        "http://{}",
        listener
            .local_addr()
            .context("the listening socket has no address")?
    );
    let public_url: Arc<str> = config
        .public_url
        .clone()
        .unwrap_or_else(|| url.clone())
        .into();

    let (projection, projection_health) =
        Projection::new(Arc::clone(&read_model), Arc::clone(&store) as _);
    let feed_source = Arc::clone(&store);
    let projection = tokio::spawn(projection.run(move |after| {
        Box::new(StoreFeed::new(
            Arc::clone(&feed_source) as _,
            after,
            FEED_BATCH,
        ))
    }));
    let sweeper = tokio::spawn(sweep(Arc::clone(&store), photos.clone(), clock.clone()));

    let api = CommandApi {
        committer: committer.clone(),
        verifier: Arc::clone(&verifier),
        clock: clock.clone(),
        randomness,
        photos: Arc::new(command_api::photo::Photos::new(cores())),
        photo_store: photos.clone(),
        uploads: Uploads::default(),
        public_url: Arc::clone(&public_url),
    };
    let queries = QueryApi {
        documents: Arc::clone(&read_model) as _,
        history: Arc::clone(&store) as _,
        photo_store: photos,
        verifier,
        clock: clock.clone(),
        public_url,
    };
    let probes = Probes {
        history: Arc::clone(&store) as _,
        documents: Arc::clone(&read_model) as _,
        projection: projection_health,
    };
    let router = command_api::router(api)
        .merge(query_api::router(queries))
        .merge(health::router(probes));
    let router = http_kit::serve::harden(router, clock.clone());

    if dev_secret.is_some() && store.head().await?.position == 0 {
        dev::register_demo_user(&committer, &clock)
            .await
            .context("cannot register the demo user")?;
    }
    greet(&config, &url, dev_secret.as_deref(), &clock)?;
    tracing::info!(url, "Listening");

    let shutdown = async {
        if let Err(error) = shutdown_signal().await {
            tracing::error!(%error, "Signals cannot be received");
        }
    };
    http_kit::serve::serve(listener, router, shutdown, DEADLINE)
        .await
        .context("cannot serve")?;

    // What was handed in is decided and written before the process ends.
    drop(committer);
    if tokio::time::timeout(DEADLINE, commit_loop).await.is_err() {
        tracing::warn!(
            "Commands were still being written at the deadline; their clients got no answer"
        );
    }
    projection.abort();
    sweeper.abort();
    tracing::info!("Stopped");
    Ok(ExitCode::SUCCESS)
}

/// Tells whoever started it where it is, and in development mode what to paste.
fn greet(
    config: &Config,
    url: &str,
    dev_secret: Option<&str>,
    clock: &Clock,
) -> anyhow::Result<()> {
    let greeting = match dev_secret {
        Some(secret) => {
            let photo = dev::write_demo_photo(&config.data_dir)?;
            dev::banner(url, secret, &photo, clock)
        }
        None => format!(
            "Profile Ledger is running on {url}. Nothing is published: no message broker is part of this run.\n"
        ),
    };
    // A closed standard output is no reason not to serve.
    let _ = std::io::stdout().write_all(greeting.as_bytes());
    Ok(())
}

/// The keys of tokens; in development mode also its secret.
async fn keys(
    config: &Config,
    randomness: &command_api::Randomness,
) -> anyhow::Result<(Keys, Option<String>)> {
    let secret = Config::jwt_secret();
    let given = [
        secret.is_some(),
        config.jwt_public_key.is_some(),
        config.jwt_jwks.is_some(),
    ];
    if given.iter().filter(|given| **given).count() > 1 {
        anyhow::bail!(
            "JWT_SECRET, JWT_PUBLIC_KEY and JWT_JWKS exclude each other: set one of them"
        );
    }
    if let Some(secret) = secret {
        return Ok((
            Keys::secret(secret.as_bytes()).context("JWT_SECRET cannot be used")?,
            None,
        ));
    }
    if let Some(path) = &config.jwt_public_key {
        let describe = || format!("JWT_PUBLIC_KEY {} cannot be used", path.display());
        let pem = std::fs::read(path).with_context(describe)?;
        return Ok((Keys::public_key(&pem).with_context(describe)?, None));
    }
    if let Some(source) = &config.jwt_jwks {
        let keys = Keys::jwks(source)
            .await
            .with_context(|| format!("JWT_JWKS {source} cannot be used"))?;
        return Ok((keys, None));
    }
    dev::refuse_other_than_loopback(config.listen)?;
    let secret = dev::secret(&config.data_dir, randomness)?;
    Ok((Keys::secret(secret.as_bytes())?, Some(secret)))
}

/// Once an hour, forgets what is past its time: outcomes, held names, and bytes that no event names.
async fn sweep(store: Arc<dyn EventStore>, photos: PhotoStore, clock: Clock) {
    let mut hours = tokio::time::interval(Duration::from_secs(3600));
    loop {
        hours.tick().await;
        let now = Time::from(clock.now());
        if let Err(error) = store
            .sweep(now, now.plus_days(-command_api::committer::OUTCOME_DAYS))
            .await
        {
            tracing::warn!(
                error = http_kit::error::chain(&error),
                "Sweeping the ledger's side tables failed"
            );
        }
        match photo_sweep::sweep(&photos, &*store, now).await {
            Ok(0) => {}
            Ok(photos) => tracing::info!(photos, "Removed photos that no event names"),
            Err(error) => tracing::warn!(
                error = http_kit::error::chain(&error),
                "Sweeping photos failed"
            ),
        }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
