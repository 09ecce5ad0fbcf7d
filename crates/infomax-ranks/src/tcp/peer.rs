//! One connection: frames of a tag, a length and bytes in each direction, moved as far as the system takes them.

use crate::link::Slice;
use crate::{Error, Result};
use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

/// Bytes before each message: the tag and the length.
const HEAD: usize = 4 + 8;

/// A longer message is none of the engine's, which cuts them.
const LONGEST: u64 = 64 << 20;

/// The connection with another rank.
pub(super) struct Peer {
    /// `rank 1 (node-7)`.
    pub(super) who: String,
    stream: TcpStream,
    out: VecDeque<Outgoing>,
    /// The messages that were given to [`Peer::send`], and those of them that are with the system.
    given: u64,
    written: u64,
    head: [u8; HEAD],
    /// The bytes of the head that are there, or of the body once the head is.
    filled: usize,
    body: Option<(i32, Vec<u8>)>,
    mail: BTreeMap<i32, VecDeque<Vec<u8>>>,
    /// Why nothing comes any more.
    closed: Option<Closed>,
}

enum Closed {
    End(String),
    Garbled,
}

struct Outgoing {
    head: [u8; HEAD],
    message: Slice,
    written: usize,
}

impl Peer {
    /// # Errors
    /// What the system refuses.
    pub(super) fn new(who: String, stream: TcpStream) -> std::io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            who,
            stream,
            out: VecDeque::new(),
            given: 0,
            written: 0,
            head: [0; HEAD],
            filled: 0,
            body: None,
            mail: BTreeMap::new(),
            closed: None,
        })
    }

    /// Begins to send; the number of the message.
    pub(super) fn send(&mut self, tag: i32, message: Slice) -> u64 {
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&tag.to_le_bytes());
        head[4..].copy_from_slice(&(message.range.len() as u64).to_le_bytes());
        self.out.push_back(Outgoing { head, message, written: 0 });
        self.given += 1;
        self.write();
        self.given
    }

    /// Whether this message is with the system.
    ///
    /// # Errors
    /// A connection that has ended before.
    pub(super) fn is_sent(&self, number: u64) -> Result<bool> {
        if self.written >= number { Ok(true) } else { self.open().map(|()| false) }
    }

    /// The next message of this tag, if it is there.
    ///
    /// # Errors
    /// A connection that has ended, once all that came before is taken.
    pub(super) fn take(&mut self, tag: i32) -> Result<Option<Vec<u8>>> {
        match self.mail.get_mut(&tag).and_then(VecDeque::pop_front) {
            Some(bytes) => Ok(Some(bytes)),
            None => self.open().map(|()| None),
        }
    }

    fn open(&self) -> Result<()> {
        match &self.closed {
            None => Ok(()),
            Some(Closed::Garbled) => Err(Error::Garbled { who: self.who.clone() }),
            Some(Closed::End(problem)) => {
                Err(Error::Closed { who: self.who.clone(), problem: problem.clone() })
            }
        }
    }

    /// Moves bytes in both directions.
    pub(super) fn advance(&mut self) {
        self.write();
        self.read();
    }

    fn end(&mut self, problem: String) {
        // What came is still to be read, so that the first reason counts.
        self.closed.get_or_insert(Closed::End(problem));
    }

    fn write(&mut self) {
        while let Some(first) = self.out.front_mut() {
            let bytes = first.message.get();
            let rest = match first.head.get(first.written..) {
                Some(head) if !head.is_empty() => head,
                _ => &bytes[first.written - HEAD..],
            };
            if rest.is_empty() {
                self.out.pop_front();
                self.written += 1;
                continue;
            }
            match self.stream.write(rest) {
                Ok(0) => return self.end("it takes nothing more".into()),
                Ok(count) => first.written += count,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) => {
                    // What it said before it ended may still be on its way here.
                    self.out.clear();
                    self.read();
                    return self.end(e.to_string());
                }
            }
        }
    }

    fn read(&mut self) {
        while self.closed.is_none() {
            let room = match &mut self.body {
                Some((_, body)) => &mut body[self.filled..],
                None => &mut self.head[self.filled..],
            };
            if room.is_empty() {
                self.filled = 0;
                self.next();
                continue;
            }
            match self.stream.read(room) {
                Ok(0) => return self.end("end of the stream".into()),
                Ok(count) => self.filled += count,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) => return self.end(e.to_string()),
            }
        }
    }

    /// A head or a body is whole.
    fn next(&mut self) {
        if let Some((tag, body)) = self.body.take() {
            self.mail.entry(tag).or_default().push_back(body);
            return;
        }
        let [a, b, c, d, length @ ..] = self.head;
        match u64::from_le_bytes(length) {
            length if length > LONGEST => self.closed = Some(Closed::Garbled),
            length => self.body = Some((i32::from_le_bytes([a, b, c, d]), vec![0; length as usize])),
        }
    }
}
