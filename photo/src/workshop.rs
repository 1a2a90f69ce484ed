//! Processes photos within a fixed budget of memory and threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::error::Error;
use crate::limits::BUDGET_MIB;
use crate::process::{Processed, process};
use crate::recognise::recognise;

/// The number of uploads that may wait for a permit. Each holds its bytes in memory.
const MAX_WAITING: usize = 8;

/// Processes photos within a fixed budget of memory and threads.
#[derive(Debug)]
pub struct Photos {
    /// One permit for each MiB of [`BUDGET_MIB`].
    memory: Arc<Semaphore>,
    cores: Arc<Semaphore>,
    /// One permit for each call of [`Self::process`], working or waiting.
    slots: Arc<Semaphore>,
    /// The queue of the decoding threads, one thread per core.
    jobs: Sender<Job>,
}

type Job = Box<dyn FnOnce() + Send>;

/// Starts threads that run jobs until the sender is dropped. An allocator keeps freed memory for the thread that freed it,
/// so photos must not be spread over the many threads of the blocking pool.
fn threads(count: usize) -> Sender<Job> {
    let (sender, jobs) = channel::<Job>();
    let jobs = Arc::new(Mutex::new(jobs));
    for _ in 0..count {
        let jobs = Arc::clone(&jobs);
        std::thread::spawn(move || {
            loop {
                // Jobs do not panic.
                let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
                match next {
                    Ok(job) => job(),
                    Err(_) => return,
                }
            }
        });
    }
    sender
}

impl Photos {
    /// Creates the threads for decoding at most `cores` photos at once.
    pub fn new(cores: usize) -> Self {
        let cores = cores.max(1);
        Self {
            memory: Arc::new(Semaphore::new(BUDGET_MIB as usize)),
            cores: Arc::new(Semaphore::new(cores)),
            slots: Arc::new(Semaphore::new(cores + MAX_WAITING)),
            jobs: threads(cores),
        }
    }

    /// Makes the renditions of a photo. Waits for free memory and a free core. Returns [`Error::Busy`] at once if too many
    /// photos are waiting.
    pub async fn process(&self, bytes: Bytes) -> Result<Processed, Error> {
        let source = recognise(&bytes)?;
        let permits = self.permits(source.peak_mib()).await?;
        self.work(permits, move || process(&bytes, &source)).await
    }

    async fn permits(&self, mib: u32) -> Result<[OwnedSemaphorePermit; 3], Error> {
        let slot = Arc::clone(&self.slots)
            .try_acquire_owned()
            .map_err(|_| Error::Busy)?;
        let core = Arc::clone(&self.cores)
            .acquire_owned()
            .await
            .map_err(|_| Error::Busy)?;
        // The largest decode takes the whole budget and runs alone.
        let memory = Arc::clone(&self.memory)
            .acquire_many_owned(mib.min(BUDGET_MIB))
            .await;
        Ok([slot, core, memory.map_err(|_| Error::Busy)?])
    }

    /// Runs `job` outside the async threads. The job holds the permits, not the caller: a client that disconnects cancels
    /// the future, but a running decode continues and still needs its memory.
    async fn work<T: Send + 'static>(
        &self,
        permits: [OwnedSemaphorePermit; 3],
        job: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (done, result) = oneshot::channel();
        let guarded = move || {
            let result = catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|_| {
                tracing::warn!("A decoder panicked; its photo is treated as damaged");
                Err(Error::Damaged)
            });
            drop(permits);
            // The caller may be gone.
            let _ = done.send(result);
        };
        self.jobs
            .send(Box::new(guarded))
            .map_err(|_| Error::Damaged)?;
        result.await.unwrap_or(Err(Error::Damaged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[tokio::test]
    async fn a_panicking_decoder_is_damage_and_the_workshop_goes_on() {
        let photos = Photos::new(1);
        let permits = photos.permits(1).await.expect("nobody else is here");
        let panicking = photos.work(permits, || -> Result<(), Error> {
            panic!("a decoder's bug")
        });
        assert_eq!(panicking.await, Err(Error::Damaged));
        assert!(photos.process(samples::png(100, 100).into()).await.is_ok());
        assert_eq!(photos.memory.available_permits(), BUDGET_MIB as usize);
    }

    #[tokio::test]
    async fn no_more_photos_are_decoded_at_once_than_there_are_cores() {
        use futures::FutureExt as _;

        let photos = Photos::new(2);
        let first = photos.permits(1).await.expect("a core");
        let _second = photos.permits(1).await.expect("another core");
        assert!(photos.permits(1).now_or_never().is_none());
        drop(first);
        assert!(photos.permits(1).now_or_never().is_some());
    }

    #[tokio::test]
    async fn photos_wait_for_memory_and_too_many_are_turned_away() {
        let photos = Arc::new(Photos::new(2));
        let large = photos
            .permits(BUDGET_MIB * 2)
            .await
            .expect("the largest goes alone");
        assert_eq!(photos.memory.available_permits(), 0);
        let bytes: Bytes = samples::png(100, 100).into();
        let waiting: Vec<_> = (0..=MAX_WAITING)
            .map(|_| {
                let (photos, bytes) = (Arc::clone(&photos), bytes.clone());
                tokio::spawn(async move { photos.process(bytes).await })
            })
            .collect();
        while photos.slots.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(photos.process(bytes.clone()).await, Err(Error::Busy));
        drop(large);
        for photo in waiting {
            assert!(photo.await.expect("no panic").is_ok());
        }
        assert!(photos.process(bytes).await.is_ok());
    }

    #[tokio::test]
    async fn a_decode_whose_caller_went_away_keeps_its_permits_until_it_ends() {
        let photos = Photos::new(1);
        let permits = photos.permits(100).await.expect("nobody else is here");
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let working = photos.work(permits, move || ended.recv().map_err(|_| Error::Damaged));
        let gone = tokio::time::timeout(std::time::Duration::ZERO, working).await;
        assert!(gone.is_err());
        assert_eq!(photos.memory.available_permits(), BUDGET_MIB as usize - 100);
        end.send(()).expect("the decode is still there");
        let all = photos.memory.acquire_many(BUDGET_MIB).await;
        assert!(all.is_ok());
    }
}
