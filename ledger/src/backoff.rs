//! The waits of a loop that repeats what failed.

use std::time::Duration;

/// Waits between attempts. Each wait is twice as long as the one before, up to a limit.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    last: Duration,
    next: Duration,
    is_failing: bool,
}

impl Default for Backoff {
    /// From 100 ms to 5 s.
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(5))
    }
}

impl Backoff {
    /// Waits from `first` to `last`.
    pub fn new(first: Duration, last: Duration) -> Self {
        Self {
            first,
            last,
            next: first,
            is_failing: false,
        }
    }

    /// Waits that are all equally long.
    pub fn every(pause: Duration) -> Self {
        Self::new(pause, pause)
    }

    /// An attempt succeeded: the next wait is the first one again.
    pub fn succeeded(&mut self) {
        *self = Self::new(self.first, self.last);
    }

    /// An attempt failed. The answer is whether it is the first failure since a success, which is the one to log.
    pub fn failed(&mut self) -> bool {
        !std::mem::replace(&mut self.is_failing, true)
    }

    /// Waits before the next attempt.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.take()).await;
    }

    /// The length of the next wait.
    fn take(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.last);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_failure_after_a_success_is_to_be_logged() {
        let mut backoff = Backoff::default();
        assert_eq!([backoff.failed(), backoff.failed()], [true, false]);
        backoff.succeeded();
        assert!(backoff.failed());
    }

    #[test]
    fn waits_double_up_to_the_last_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(3));
        let waits = [(); 4].map(|()| backoff.take().as_secs());
        assert_eq!(waits, [1, 2, 3, 3]);
        backoff.succeeded();
        assert_eq!(backoff.take().as_secs(), 1);
    }
}
