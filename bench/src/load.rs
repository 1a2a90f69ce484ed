//! Load from clients with one connection each, in a closed or an open loop.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::bail;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::http::{Answer, Connection, Sent};
use crate::service::Service;
use crate::usage::Usage;

/// A histogram of nanoseconds with three exact digits.
pub(crate) type Latencies = Histogram<u64>;

/// The longest latency that is recorded.
const LONGEST: u64 = 3_600_000_000_000;

pub(crate) fn latencies() -> Latencies {
    Histogram::new_with_max(LONGEST, 3).expect("three digits are allowed")
}

pub(crate) fn record(latencies: &mut Latencies, time: Duration) {
    latencies.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
}

/// The requests that one client sends, one after the other.
pub(crate) trait Script: Send + 'static {
    fn next(&mut self) -> Sent;

    /// Whether an answer is expected.
    fn is_good(&self, answer: &Answer) -> bool {
        answer.status == 200
    }
}

impl<F: FnMut() -> Sent + Send + 'static> Script for F {
    fn next(&mut self) -> Sent {
        self()
    }
}

/// When requests are sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// Each client sends the next request when the last one is answered.
    Closed,
    /// A fixed number of requests per second, independent of the answers. The latency of a request counts from its due
    /// time, also if it has to wait for its connection.
    Open(f64),
}

/// The result of a load.
pub(crate) struct Outcome {
    pub(crate) latencies: Latencies,
    /// Good answers per second.
    pub(crate) rate: f64,
    /// The positions in good answers.
    pub(crate) positions: Vec<u64>,
    /// The result of [`Meter::read`].
    pub(crate) used: [f64; 4],
}

/// Drives a service with one client per script. Fails if a request fails or gets an unexpected answer.
pub(crate) async fn drive<S: Script>(
    service: &Service,
    scripts: Vec<S>,
    pace: Pace,
    time: Duration,
) -> anyhow::Result<Outcome> {
    let clients = scripts.len();
    let mut connections = Vec::with_capacity(clients);
    for _ in 0..clients {
        connections.push(Connection::open(&service.address).await?);
    }
    let meter = Meter::start(service);
    let began = Instant::now();
    let mut running = JoinSet::new();
    for (number, (connection, script)) in connections.into_iter().zip(scripts).enumerate() {
        let client = Client {
            connection,
            script,
            latencies: latencies(),
            positions: Vec::new(),
        };
        running.spawn(client.run(number, clients, pace, began, time));
    }
    let mut outcome = Outcome {
        latencies: latencies(),
        rate: 0.0,
        positions: Vec::new(),
        used: [0.0; 4],
    };
    while let Some(done) = running.join_next().await {
        let (latencies, positions) = done??;
        outcome.latencies.add(latencies)?;
        outcome.positions.extend(positions);
    }
    outcome.rate = count(outcome.latencies.len()) / began.elapsed().as_secs_f64();
    outcome.used = meter.read(service);
    Ok(outcome)
}

/// Measures the CPU time and memory of a service and of its clients, which are this process.
pub(crate) struct Meter {
    began: Instant,
    service: Usage,
    clients: Usage,
}

impl Meter {
    pub(crate) fn start(service: &Service) -> Self {
        service.forget_peak();
        Usage::forget_peak_of("self");
        Self {
            began: Instant::now(),
            service: service.usage(),
            clients: Usage::own(),
        }
    }

    /// The busy cores of the service and of its clients, then the peak memory of each in bytes.
    pub(crate) fn read(&self, service: &Service) -> [f64; 4] {
        let seconds = self.began.elapsed().as_secs_f64();
        let (service, clients) = (service.usage(), Usage::own());
        [
            (service.cpu - self.service.cpu) / seconds,
            (clients.cpu - self.clients.cpu) / seconds,
            count(service.peak),
            count(clients.peak),
        ]
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) fn count(number: u64) -> f64 {
    number as f64
}

struct Client<S> {
    connection: Connection,
    script: S,
    latencies: Latencies,
    positions: Vec<u64>,
}

impl<S: Script> Client<S> {
    async fn run(
        mut self,
        number: usize,
        clients: usize,
        pace: Pace,
        began: Instant,
        time: Duration,
    ) -> anyhow::Result<(Latencies, Vec<u64>)> {
        let end = began + time;
        let mut round = 0;
        loop {
            let from = match pace {
                Pace::Closed => Instant::now(),
                Pace::Open(rate) => {
                    let turn = count((number + round * clients) as u64);
                    let due = began + Duration::from_secs_f64(turn / rate);
                    if due > Instant::now() {
                        // A late timer is not a delay of the service.
                        tokio::time::sleep_until(due).await;
                        Instant::now()
                    } else {
                        due
                    }
                }
            };
            if from >= end {
                return Ok((self.latencies, self.positions));
            }
            let answer = self.connection.send(self.script.next()).await?;
            let taken = from.elapsed();
            if !self.script.is_good(&answer) {
                bail!(
                    "a request was answered with {}: {}",
                    answer.status,
                    String::from_utf8_lossy(&answer.body)
                )
            }
            // An expected refusal is not counted.
            if answer.status == 200 {
                record(&mut self.latencies, taken);
                self.positions.extend(answer.position);
            }
            round += 1;
        }
    }
}

/// The head after commands were acknowledged at these positions. Fails unless they are exactly the positions after the
/// old head.
pub(crate) fn follows(head: u64, positions: &[u64]) -> anyhow::Result<u64> {
    let distinct: HashSet<_> = positions.iter().collect();
    if distinct.len() != positions.len() {
        bail!("two commands were acknowledged at one position")
    }
    let last = positions.iter().max().copied().unwrap_or(head);
    let first = positions.iter().min().copied().unwrap_or(head + 1);
    if first != head + 1 || last != head + positions.len() as u64 {
        bail!(
            "{} commands were acknowledged after position {head}, from {first} to {last}",
            positions.len()
        )
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acknowledged_must_be_exactly_what_was_added() {
        assert_eq!(follows(5, &[8, 6, 7]).unwrap(), 8);
        assert_eq!(follows(5, &[]).unwrap(), 5);
        for lost_or_doubled in [&[7][..], &[6, 8], &[6, 6], &[5, 6], &[6, 7, 7, 9]] {
            assert!(follows(5, lost_or_doubled).is_err(), "{lost_or_doubled:?}");
        }
    }
}
