//! What ranks need of a library that carries their messages: MPI, or another one that implements [`Link`].

use crate::Result;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of a message that several ranks may get.
#[derive(Clone, Debug)]
pub struct Slice {
    /// All bytes.
    pub bytes: Arc<Vec<u8>>,
    /// Those of the message.
    pub range: Range<usize>,
}

impl Slice {
    /// All of these bytes.
    pub fn whole(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { bytes: Arc::new(bytes), range }
    }

    /// The bytes of the message.
    pub fn get(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }
}

/// Messages between the ranks of a run. Those of one tag from one rank arrive in the order in which they were sent.
pub trait Link: std::fmt::Debug + Send {
    /// The number of this process.
    fn rank(&self) -> usize;

    /// The number of processes.
    fn size(&self) -> usize;

    /// The name of this host.
    fn host(&self) -> String;

    /// Begins to send.
    ///
    /// # Errors
    /// What the library refuses.
    fn send(&mut self, to: usize, tag: i32, message: Slice) -> Result<Box<dyn Request>>;

    /// Begins to receive a message that fits the buffer.
    ///
    /// # Errors
    /// What the library refuses.
    fn receive(&mut self, from: usize, tag: i32, buffer: Vec<u8>) -> Result<Box<dyn Request>>;

    /// Ends the part of this process in an orderly way, once all ranks do.
    ///
    /// # Errors
    /// What the library refuses.
    fn finish(&mut self) -> Result<()>;

    /// Ends the processes of all ranks.
    fn abort(&self, code: i32);
}

/// A message on its way. It owns its memory until it has arrived.
pub trait Request: Send {
    /// Whether the message has arrived, or is out of this memory.
    ///
    /// # Errors
    /// What the library refuses.
    fn poll(&mut self) -> Result<bool>;

    /// What was received, cut to the length of the message; empty for one that was sent. Once, after `poll` said true.
    fn take(&mut self) -> Vec<u8>;
}
