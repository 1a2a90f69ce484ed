//! The metrics of a process: each has its name, its labels and its help text here and nowhere else.
//!
//! A route or a loop records into one of the constants, for example `COMMIT_SECONDS.record([], 0.004)`. [`render`] prints
//! all of them in the Prometheus text format. A metric that was never recorded is not printed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Upper bounds of times in seconds, from a memory hit to a slow upload.
const SECONDS: [f64; 14] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0,
];
/// Upper bounds of the size of a batch. The committer takes at most 512 commands.
const BATCH: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// Commands by operation and outcome.
pub static COMMANDS: Counter<2> = Counter(Family::new(
    "profile_ledger_commands_total",
    "Commands by operation and outcome",
    ["operation", "outcome"],
));
/// The time of a command in the queue and the commit loop.
pub static COMMAND_SECONDS: Histogram<0> = Histogram {
    family: Family::new(
        "profile_ledger_command_seconds",
        "Time of a command from the queue to the answer",
        [],
    ),
    bounds: &SECONDS,
};
/// The time of one append.
pub static COMMIT_SECONDS: Histogram<0> = Histogram {
    family: Family::new(
        "profile_ledger_commit_seconds",
        "Time of one append of the commit loop",
        [],
    ),
    bounds: &SECONDS,
};
/// The commands of one append.
pub static COMMIT_COMMANDS: Histogram<0> = Histogram {
    family: Family::new(
        "profile_ledger_commit_commands",
        "Commands decided in one batch",
        [],
    ),
    bounds: &BATCH,
};
/// Lost races between processes that append.
pub static COMMIT_RESYNCS: Counter<0> = Counter(Family::new(
    "profile_ledger_commit_resyncs_total",
    "Batches decided again because another process had appended",
    [],
));
/// The time of an upload by stage.
pub static PHOTO_SECONDS: Histogram<1> = Histogram {
    family: Family::new(
        "profile_ledger_photo_seconds",
        "Time of an upload by stage",
        ["stage"],
    ),
    bounds: &SECONDS,
};
/// The time of a request by route and status.
pub static HTTP_SECONDS: Histogram<2> = Histogram {
    family: Family::new(
        "profile_ledger_http_seconds",
        "Time of a request by route and status",
        ["route", "status"],
    ),
    bounds: &SECONDS,
};
/// The head of the ledger.
pub static HEAD_POSITION: Gauge = Gauge(Family::new(
    "profile_ledger_head_position",
    "The last position of the ledger",
    [],
));
/// The position of the user documents.
pub static PROJECTION_POSITION: Gauge = Gauge(Family::new(
    "profile_ledger_projection_position",
    "The position up to which the documents are folded",
    [],
));
/// The distance of the user documents from the head, in events.
pub static PROJECTION_LAG_EVENTS: Gauge = Gauge(Family::new(
    "profile_ledger_projection_lag_events",
    "Events that the documents are behind the ledger",
    [],
));
/// The distance of the user documents from the head, in time.
pub static PROJECTION_LAG_SECONDS: Gauge = Gauge(Family::new(
    "profile_ledger_projection_lag_seconds",
    "Age of the oldest event that is not folded yet",
    [],
));
/// The position of the stream.
pub static RELAY_POSITION: Gauge = Gauge(Family::new(
    "profile_ledger_relay_position",
    "The position up to which the ledger is published",
    [],
));
/// The distance of the stream from the head, in events.
pub static RELAY_LAG_EVENTS: Gauge = Gauge(Family::new(
    "profile_ledger_relay_lag_events",
    "Events that the stream is behind the ledger",
    [],
));
/// The distance of the stream from the head, in time.
pub static RELAY_LAG_SECONDS: Gauge = Gauge(Family::new(
    "profile_ledger_relay_lag_seconds",
    "Age of the oldest event that is not published yet",
    [],
));
/// Whether publishing has stopped.
pub static RELAY_HALTED: Gauge = Gauge(Family::new(
    "profile_ledger_relay_halted",
    "1 when the relay has found a divergence and stopped",
    [],
));
/// The number of parked users.
pub static PARKED_USERS: Gauge = Gauge(Family::new(
    "profile_ledger_parked_users",
    "Users whose events cannot be folded",
    [],
));

/// Every metric, in the order of the output.
const METRICS: [&dyn Metric; 16] = [
    &COMMANDS,
    &COMMAND_SECONDS,
    &COMMIT_SECONDS,
    &COMMIT_COMMANDS,
    &COMMIT_RESYNCS,
    &PHOTO_SECONDS,
    &HTTP_SECONDS,
    &HEAD_POSITION,
    &PROJECTION_POSITION,
    &PROJECTION_LAG_EVENTS,
    &PROJECTION_LAG_SECONDS,
    &RELAY_POSITION,
    &RELAY_LAG_EVENTS,
    &RELAY_LAG_SECONDS,
    &RELAY_HALTED,
    &PARKED_USERS,
];

/// All metrics that were recorded, in the Prometheus text format.
pub fn render() -> String {
    let mut text = String::new();
    for metric in METRICS {
        metric.render(&mut text);
    }
    text
}

/// A metric that can be printed.
trait Metric: Sync {
    fn render(&self, text: &mut String);
}

/// The value of a label.
pub type Label = Cow<'static, str>;

/// A metric name with one value for each combination of labels.
struct Family<V, const LABELS: usize> {
    name: &'static str,
    help: &'static str,
    labels: [&'static str; LABELS],
    values: Mutex<BTreeMap<[Label; LABELS], V>>,
}

impl<V, const LABELS: usize> Family<V, LABELS> {
    const fn new(name: &'static str, help: &'static str, labels: [&'static str; LABELS]) -> Self {
        Self {
            name,
            help,
            labels,
            values: Mutex::new(BTreeMap::new()),
        }
    }

    fn values(&self) -> MutexGuard<'_, BTreeMap<[Label; LABELS], V>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prints the heading, then each value with its labels, such as `{route="/x",status="200"}`.
    fn render(&self, kind: &str, text: &mut String, value: impl Fn(&mut String, &str, &V)) {
        let Self {
            name, help, labels, ..
        } = self;
        let values = self.values();
        if values.is_empty() {
            return;
        }
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (of, recorded) in &*values {
            let pairs = labels.iter().zip(of);
            let pairs = pairs.map(|(label, of)| format!("{label}=\"{}\"", escaped(of)));
            value(text, &pairs.collect::<Vec<_>>().join(","), recorded);
        }
        text.push('\n');
    }
}

/// A label value as it stands between quotes.
fn escaped(value: &str) -> String {
    let value = value.replace('\\', r"\\").replace('"', "\\\"");
    value.replace('\n', r"\n")
}

/// Labels in braces, or nothing.
fn braced(labels: &str) -> String {
    if labels.is_empty() {
        String::new()
    } else {
        format!("{{{labels}}}")
    }
}

/// A number that only grows.
pub struct Counter<const LABELS: usize>(Family<u64, LABELS>);

impl<const LABELS: usize> Counter<LABELS> {
    /// Adds one.
    pub fn increment(&self, labels: [Label; LABELS]) {
        *self.0.values().entry(labels).or_default() += 1;
    }
}

impl<const LABELS: usize> Metric for Counter<LABELS> {
    fn render(&self, text: &mut String) {
        let name = self.0.name;
        self.0.render("counter", text, |text, labels, value| {
            let _ = writeln!(text, "{name}{} {value}", braced(labels));
        });
    }
}

/// A number that rises and falls.
pub struct Gauge(Family<f64, 0>);

impl Gauge {
    /// Replaces the value.
    pub fn set(&self, value: f64) {
        self.0.values().insert([], value);
    }
}

impl Metric for Gauge {
    fn render(&self, text: &mut String) {
        let name = self.0.name;
        self.0.render("gauge", text, |text, _, value| {
            let _ = writeln!(text, "{name} {value}");
        });
    }
}

/// The distribution of a number.
pub struct Histogram<const LABELS: usize> {
    family: Family<Distribution, LABELS>,
    bounds: &'static [f64],
}

#[derive(Default)]
struct Distribution {
    /// For each bound, the values up to it that are above the bound before.
    buckets: Vec<u64>,
    count: u64,
    sum: f64,
}

impl<const LABELS: usize> Histogram<LABELS> {
    /// Counts a value.
    pub fn record(&self, labels: [Label; LABELS], value: f64) {
        let mut values = self.family.values();
        let distribution = values.entry(labels).or_default();
        distribution.buckets.resize(self.bounds.len(), 0);
        if let Some(bucket) = self.bounds.iter().position(|bound| value <= *bound) {
            distribution.buckets[bucket] += 1;
        }
        distribution.count += 1;
        distribution.sum += value;
    }
}

impl<const LABELS: usize> Metric for Histogram<LABELS> {
    fn render(&self, text: &mut String) {
        let name = self.family.name;
        self.family
            .render("histogram", text, |text, labels, value| {
                let separator = if labels.is_empty() { "" } else { "," };
                let mut up_to = 0;
                for (bound, bucket) in self.bounds.iter().zip(&value.buckets) {
                    up_to += bucket;
                    let _ = writeln!(
                        text,
                        "{name}_bucket{{{labels}{separator}le=\"{bound}\"}} {up_to}"
                    );
                }
                let Distribution { count, sum, .. } = value;
                let _ = writeln!(
                    text,
                    "{name}_bucket{{{labels}{separator}le=\"+Inf\"}} {count}"
                );
                let labels = braced(labels);
                let _ = writeln!(text, "{name}_sum{labels} {sum}");
                let _ = writeln!(text, "{name}_count{labels} {count}");
            });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(metric: &dyn Metric) -> String {
        let mut text = String::new();
        metric.render(&mut text);
        text
    }

    #[test]
    fn a_counter_has_a_line_for_each_combination_of_labels() {
        let counter = Counter(Family::new("answers", "Answers by word", ["word"]));
        assert_eq!(rendered(&counter), "", "nothing was recorded");
        for word in ["yes", "no", "yes", "\"\\\n"] {
            counter.increment([word.into()]);
        }
        let expected = "# HELP answers Answers by word\n# TYPE answers counter\n\
                        answers{word=\"\\\"\\\\\\n\"} 1\nanswers{word=\"no\"} 1\nanswers{word=\"yes\"} 2\n\n";
        assert_eq!(rendered(&counter), expected);
    }

    #[test]
    fn a_gauge_has_its_last_value() {
        let gauge = Gauge(Family::new("head", "The head", []));
        gauge.set(7.0);
        gauge.set(0.5);
        let expected = "# HELP head The head\n# TYPE head gauge\nhead 0.5\n\n";
        assert_eq!(rendered(&gauge), expected);
    }

    #[test]
    fn a_histogram_counts_the_values_up_to_each_bound() {
        let histogram = Histogram {
            family: Family::new("time", "The time", ["of"]),
            bounds: &[0.25, 1.0],
        };
        for seconds in [0.25, 0.5, 1.0, 2.25] {
            histogram.record(["a".into()], seconds);
        }
        let expected = "# HELP time The time\n# TYPE time histogram\n\
                        time_bucket{of=\"a\",le=\"0.25\"} 1\ntime_bucket{of=\"a\",le=\"1\"} 3\n\
                        time_bucket{of=\"a\",le=\"+Inf\"} 4\ntime_sum{of=\"a\"} 4\ntime_count{of=\"a\"} 4\n\n";
        assert_eq!(rendered(&histogram), expected);
    }

    #[test]
    fn a_histogram_without_labels_has_only_the_bound() {
        let histogram = Histogram {
            family: Family::new("size", "The size", []),
            bounds: &[1.0],
        };
        histogram.record([], 3.0);
        let expected = "# HELP size The size\n# TYPE size histogram\nsize_bucket{le=\"1\"} 0\n\
                        size_bucket{le=\"+Inf\"} 1\nsize_sum 3\nsize_count 1\n\n";
        assert_eq!(rendered(&histogram), expected);
    }

    #[test]
    fn every_metric_is_in_the_manual() {
        let source = include_str!("metrics.rs");
        let manual = include_str!("../../docs/operate.md");
        let names = source
            .split('"')
            .filter(|part| part.starts_with("profile_ledger_"));
        let names: Vec<_> = names.filter(|name| !name.ends_with('_')).collect();
        assert_eq!(names.len(), METRICS.len(), "each metric is in METRICS");
        for name in names {
            assert!(
                manual.contains(&format!("`{name}`")),
                "{name} is not in docs/operate.md"
            );
        }
    }
}
