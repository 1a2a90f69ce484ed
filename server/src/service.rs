//! The service: its roles, in one process or in many.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use command_api::photo_sweep;
use command_api::{CommandApi, Committer, Randomness, Uploads};
use events::Time;
use http_kit::caller::Verifier;
use http_kit::clock::Clock;
use http_kit::keys::Keys;
use ledger::merkle::Integrator;
use ledger::photos::PhotoStore;
use ledger::store::EventStore;
use ledger::trail::AuditTrail;
use projector::projection::{self, Projection};
use query_api::{QueryApi, Streams};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{ApiServer, Config};
use crate::dev;
use crate::health::{self, Probes};
use crate::lifecycle::shutdown_signal;
use crate::log_key;
use crate::metrics;
use crate::openapi;
use crate::parts::{Parts, randomness};
use crate::playground;
use crate::roles::Roles;

/// The time for running requests after a signal.
const DEADLINE: Duration = Duration::from_secs(20);

/// The things that all roles of the process use.
struct Shared {
    clock: Clock,
    randomness: Randomness,
    verifier: Arc<Verifier>,
    public_url: Arc<str>,
    /// Ends streams, which never end by themselves.
    stopping: CancellationToken,
}

pub(crate) async fn run(config: Config, roles: Roles) -> anyhow::Result<ExitCode> {
    ApiServer::refuse_same(&config.api_servers)?;
    let clock = Clock::system();
    let randomness = randomness();
    let (keys, dev_secret) = keys(&config, &randomness).await?;
    let verifier = Arc::new(Verifier::new(
        keys,
        config.jwt_issuer.clone(),
        config.jwt_audience.clone(),
        clock.clone(),
    ));
    let parts = Parts::open(&config, roles).await?;

    // The process listens after it has the locks: a second process on the same data must not accept a request.
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.listen))?;
    let address = listener
        .local_addr()
        .context("the listening socket has no address")?;
    let url = format!("http://{address}");
    let shared = Shared {
        clock: clock.clone(),
        randomness,
        verifier,
        public_url: config.public_url.as_deref().unwrap_or(&url).into(),
        stopping: CancellationToken::new(),
    };

    let mut probes = Probes::new(Arc::clone(&parts.store) as _, clock.clone());
    let mut background = JoinSet::new();
    let mut router = Router::new();
    if roles.projection {
        probes.projection = Some(project(&parts, &shared, &mut background));
        probes.unsigned = sign(&config, &parts, &shared, &mut background).await?;
    }
    probes.broker.clone_from(&parts.broker);
    if let Some(trail) = &parts.trail {
        probes.documents = Some(Arc::clone(&parts.read_model) as _);
        router = router.merge(queries(&parts, trail, &shared));
        if let Some(secret) = &dev_secret {
            router = router.merge(dev::console(secret.clone(), clock.clone()));
        }
    }
    let mut commit_loop = None;
    if roles.commands {
        let (committer, committing) = Committer::new(
            Arc::clone(&parts.store),
            clock.clone(),
            shared.randomness.clone(),
        );
        commit_loop = Some(tokio::spawn(committing));
        if dev_secret.is_some() {
            dev::register_demo_user(&committer, &clock)
                .await
                .context("cannot register the demo user")?;
        }
        router = router.merge(commands(committer, &parts, &shared));
        if let Some((relay, health)) = parts.relay(&shared.randomness) {
            probes.relay = Some(health);
            // The relay logs a halt and reports it in its health. Commands still work.
            background.spawn(async { drop(relay.run().await) });
        }
        background.spawn(sweep(
            Arc::clone(&parts.store),
            parts.photos.clone(),
            clock.clone(),
        ));
    }
    let router = router
        .merge(health::router(probes.clone()))
        .merge(metrics::router(probes))
        .merge(description(&config, roles, dev_secret.as_deref(), &clock));
    let router = http_kit::serve::harden(router, clock.clone());

    greet(&config, &url, dev_secret.as_deref(), &clock)?;
    tracing::info!(url, ?roles, "Listening");

    let shutdown = async {
        if let Err(error) = shutdown_signal().await {
            tracing::error!(%error, "Signals cannot be received");
        }
        shared.stopping.cancel();
    };
    http_kit::serve::serve(listener, router, shutdown, DEADLINE)
        .await
        .context("cannot serve")?;

    // The routes are gone, and with them every sender of commands. The commands in the queue are decided and written
    // before the process ends.
    if let Some(commit_loop) = commit_loop
        && tokio::time::timeout(DEADLINE, commit_loop).await.is_err()
    {
        tracing::warn!(
            "Commands were still being written at the deadline; their clients got no answer"
        );
    }
    background.shutdown().await;
    tracing::info!("Stopped");
    Ok(ExitCode::SUCCESS)
}

fn commands(committer: Committer, parts: &Parts, shared: &Shared) -> Router {
    command_api::router(CommandApi {
        committer,
        verifier: Arc::clone(&shared.verifier),
        clock: shared.clock.clone(),
        randomness: shared.randomness.clone(),
        photos: Arc::new(photo::Photos::new(cores())),
        photo_store: parts.photos.clone(),
        uploads: Uploads::default(),
        public_url: Arc::clone(&shared.public_url),
    })
}

fn queries(parts: &Parts, trail: &Arc<dyn AuditTrail>, shared: &Shared) -> Router {
    query_api::router(QueryApi {
        documents: Arc::clone(&parts.read_model) as _,
        history: Arc::clone(&parts.store) as _,
        trail: Arc::clone(trail),
        log: Arc::clone(&parts.log),
        streams: Streams::new(Arc::clone(&parts.store) as _, shared.stopping.clone()),
        photo_store: parts.photos.clone(),
        verifier: Arc::clone(&shared.verifier),
        clock: shared.clock.clone(),
        public_url: Arc::clone(&shared.public_url),
    })
}

/// The description of the process, and the page that tries it out.
fn description(config: &Config, roles: Roles, dev_secret: Option<&str>, clock: &Clock) -> Router {
    let router = openapi::router(roles, config.public_url.as_deref()).merge(playground::router(
        &config.api_servers,
        dev_secret.is_some(),
    ));
    match dev_secret {
        Some(secret) => router.merge(dev::playground(secret.to_owned(), clock.clone())),
        None => router,
    }
}

/// Starts the projection and returns its health.
fn project(
    parts: &Parts,
    shared: &Shared,
    background: &mut JoinSet<()>,
) -> watch::Receiver<projection::Health> {
    let (projection, health) = Projection::new(
        Arc::clone(&parts.read_model),
        Arc::clone(&parts.store) as _,
        hex::encode(shared.randomness.bytes::<16>()),
    );
    let feed_after = parts.feed();
    background.spawn(async move {
        // The projection has logged its end, and its health reports it.
        let _ = projection.run(feed_after).await;
    });
    health
}

/// Starts signing checkpoints. Returns the reason if this process cannot sign.
async fn sign(
    config: &Config,
    parts: &Parts,
    shared: &Shared,
    background: &mut JoinSet<()>,
) -> anyhow::Result<Option<String>> {
    match log_key::open(config, parts, &shared.randomness).await? {
        Ok(signer) => {
            let (history, log) = (Arc::clone(&parts.store) as _, Arc::clone(&parts.log));
            background.spawn(Integrator::new(history, log, signer).run());
            Ok(None)
        }
        Err(why) => {
            tracing::error!(why, "This process signs no checkpoints");
            Ok(Some(format!("log: {why}")))
        }
    }
}

/// Prints the URL of the service, and in development mode commands to paste.
fn greet(
    config: &Config,
    url: &str,
    dev_secret: Option<&str>,
    clock: &Clock,
) -> anyhow::Result<()> {
    let publishing = match &config.nats_url {
        Some(_) => "The ledger is published over NATS.",
        None => "Nothing is published: NATS_URL is not set.",
    };
    let greeting = match dev_secret {
        Some(secret) => {
            let photo = dev::write_demo_photo(&config.data_dir)?;
            dev::banner(url, secret, publishing, &photo, clock)
        }
        None => format!("Profile Ledger is running on {url}. {publishing}\n"),
    };
    // The service runs on if standard output is closed.
    let _ = std::io::stdout().write_all(greeting.as_bytes());
    Ok(())
}

/// The keys that verify tokens, and the secret of development mode if it is on.
async fn keys(config: &Config, randomness: &Randomness) -> anyhow::Result<(Keys, Option<String>)> {
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

/// Once an hour, removes what has expired: outcomes, held usernames, and photos that no event names.
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
                error = events::chain(&error),
                "Sweeping the ledger's side tables failed"
            );
        }
        match photo_sweep::sweep(&photos, &*store, now).await {
            Ok(0) => {}
            Ok(photos) => tracing::info!(photos, "Removed photos that no event names"),
            Err(error) => tracing::warn!(error = events::chain(&error), "Sweeping photos failed"),
        }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
