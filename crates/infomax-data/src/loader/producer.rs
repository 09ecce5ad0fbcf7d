//! The thread that keeps the queue of batches filled.

use super::batch::{Maker, RawBatch};
use crate::{Error, Result};
use infomax_core::Position;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

/// Makes batches from a position on until it is dropped. It ends with the first error.
#[derive(Debug)]
pub(super) struct Producer {
    /// `None` only while the producer is dropped.
    batches: Option<Receiver<Result<RawBatch>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Producer {
    pub(super) fn start(maker: Arc<Maker>, from: Position) -> Result<Self> {
        let (sender, batches) = sync_channel(maker.prefetch());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let work = move || {
            let mut at = from;
            let mut order = maker.order(at.epoch);
            loop {
                let made = match maker.make(&order, at, &stopped) {
                    Ok(Some(batch)) => Ok(batch),
                    Ok(None) => return,
                    Err(error) => Err(error),
                };
                let last = made.is_err();
                // Blocks while the queue is full; fails when the loader is gone.
                if sender.send(made).is_err() || last {
                    return;
                }
                let next = maker.after(at);
                if next.epoch != at.epoch {
                    order = maker.order(next.epoch);
                }
                at = next;
            }
        };
        let thread = std::thread::Builder::new()
            .name("loader".into())
            .spawn(work)
            .map_err(|e| Error::Worker(format!("it could not be started: {e}")))?;
        Ok(Self { batches: Some(batches), stop, thread: Some(thread) })
    }

    /// Waits for the next batch.
    pub(super) fn next(&mut self) -> Result<RawBatch> {
        let received = self.batches.as_ref().map(Receiver::recv);
        if let Some(Ok(batch)) = received {
            return batch;
        }
        // The thread is gone without a word: it panicked.
        let panic = self.thread.take().map(JoinHandle::join);
        let message = match panic {
            Some(Err(payload)) => payload
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                .unwrap_or_else(|| "a panic without a message".into()),
            _ => "it ended early".into(),
        };
        Err(Error::Worker(message))
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Frees a sender that waits for room in the queue.
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            // A panic was reported, or nobody waits for it any more.
            let _ = thread.join();
        }
    }
}
