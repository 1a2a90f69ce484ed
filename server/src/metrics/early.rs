//! What is recorded before the exporter is there.
//!
//! The exporter first looks how fast the processor's counter runs (`quanta`), which takes a few milliseconds or 200,
//! depending on the machine. The start does not wait for that: what is recorded meanwhile is told to the exporter when
//! it is there.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Level, Metadata, Recorder,
    SharedString, Unit,
};
use metrics_exporter_prometheus::PrometheusRecorder;

/// Hands on to the exporter, from when that is there on.
#[derive(Clone)]
pub(super) struct Early(Arc<Inner>);

struct Inner {
    exporter: OnceLock<PrometheusRecorder>,
    waiting: Mutex<Vec<Recorded>>,
}

enum Recorded {
    Added(Key, u64),
    Raised(Key, u64),
    Seen(Key, f64),
}

/// The exporter does not look at it.
const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

impl Early {
    pub(super) fn new() -> Self {
        Self(Arc::new(Inner {
            exporter: OnceLock::new(),
            waiting: Mutex::default(),
        }))
    }

    /// The exporter is there. Only the first one counts.
    pub(super) fn hand_on_to(&self, exporter: PrometheusRecorder) {
        let mut waiting = self.waiting();
        let exporter = self.0.exporter.get_or_init(|| exporter);
        for recorded in waiting.drain(..) {
            tell(exporter, recorded);
        }
    }

    fn record(&self, recorded: Recorded) {
        let mut waiting = self.waiting();
        match self.0.exporter.get() {
            Some(exporter) => tell(exporter, recorded),
            None => waiting.push(recorded),
        }
    }

    fn of(&self, key: &Key) -> Arc<Of> {
        Arc::new(Of {
            early: self.clone(),
            key: key.clone(),
        })
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Recorded>> {
        let waiting = &self.0.waiting;
        waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell(exporter: &PrometheusRecorder, recorded: Recorded) {
    match recorded {
        Recorded::Added(key, value) => exporter.register_counter(&key, &METADATA).increment(value),
        Recorded::Raised(key, value) => exporter.register_counter(&key, &METADATA).absolute(value),
        Recorded::Seen(key, value) => exporter.register_histogram(&key, &METADATA).record(value),
    }
}

/// A metric of that name.
struct Of {
    early: Early,
    key: Key,
}

impl CounterFn for Of {
    fn increment(&self, value: u64) {
        self.early.record(Recorded::Added(self.key.clone(), value));
    }

    fn absolute(&self, value: u64) {
        self.early.record(Recorded::Raised(self.key.clone(), value));
    }
}

impl HistogramFn for Of {
    fn record(&self, value: f64) {
        self.early.record(Recorded::Seen(self.key.clone(), value));
    }
}

impl Recorder for Early {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        if let Some(exporter) = self.0.exporter.get() {
            exporter.describe_counter(key, unit, description);
        }
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        if let Some(exporter) = self.0.exporter.get() {
            exporter.describe_gauge(key, unit, description);
        }
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        if let Some(exporter) = self.0.exporter.get() {
            exporter.describe_histogram(key, unit, description);
        }
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        match self.0.exporter.get() {
            Some(exporter) => exporter.register_counter(key, metadata),
            None => Counter::from_arc(self.of(key)),
        }
    }

    /// Gauges are set when numbers are asked for, which waits for the exporter.
    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        match self.0.exporter.get() {
            Some(exporter) => exporter.register_gauge(key, metadata),
            None => Gauge::noop(),
        }
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        match self.0.exporter.get() {
            Some(exporter) => exporter.register_histogram(key, metadata),
            None => Histogram::from_arc(self.of(key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics::{counter, histogram, with_local_recorder};
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn what_is_recorded_before_the_exporter_is_there_is_told_to_it_once() {
        let early = Early::new();
        let exporter = PrometheusBuilder::new().build_recorder();
        let handle = exporter.handle();
        with_local_recorder(&early, || {
            let kept = counter!("kept", "a" => "b");
            kept.increment(2);
            counter!("raised").absolute(7);
            histogram!("seen").record(0.5);
            early.hand_on_to(exporter);
            kept.increment(3);
            counter!("kept", "a" => "b").increment(4);
            histogram!("seen").record(0.25);
        });
        let text = handle.render();
        for line in [
            "kept{a=\"b\"} 9",
            "raised 7",
            "seen_count 2",
            "seen_sum 0.75",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}: {text}");
        }
    }
}
