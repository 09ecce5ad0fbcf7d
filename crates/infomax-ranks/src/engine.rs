//! Exchanges between ranks: headers first, so that what does not fit is seen on every rank before anything waits for it.

use crate::header::{Call, Header, INLINE, LONGEST};
use crate::link::{Link, Request, Slice};
use crate::{Error, Limits, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Headers travel under this tag, payloads under those from [`PAYLOAD`] on.
const HEADER: i32 = 1;
pub(crate) const PAYLOAD: i32 = 16;

/// The longest part of a payload that is no sum: counts of MPI are 32 bits.
const PIECE: usize = 64 << 20;

/// Until when the present exchange may stay within the library, in milliseconds since the start; 0 between exchanges.
pub(crate) type Entered = AtomicU64;

/// What the watchdog gives beyond the limit, after which a rank ends by itself with a message.
const GRACE: Duration = Duration::from_secs(30);

pub(crate) struct Engine {
    pub(crate) link: Box<dyn Link>,
    pub(crate) hosts: Vec<String>,
    limits: Limits,
    /// Gradients were summed once: from now on the usual limit holds.
    warm: bool,
    number: u64,
    /// What went wrong for good.
    broken: Option<Error>,
    /// Ranks that said that they leave.
    gone: Vec<usize>,
    /// Headers that an exchange still waited for when a rank left.
    open: Vec<(usize, Box<dyn Request>)>,
    /// Buffers for what is received.
    pool: Vec<Vec<u8>>,
    start: Instant,
    entered: Arc<Entered>,
    /// What carries large tensors of cards, once there were any.
    #[cfg(feature = "nccl")]
    pub(crate) comm: Option<crate::nccl::Comm>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("link", &self.link)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// What a rank brings to an exchange.
pub(crate) struct Offer<'a> {
    pub(crate) call: Call,
    /// What must be equal on all ranks.
    pub(crate) equal: &'a str,
    /// What is said beside it.
    pub(crate) text: String,
    pub(crate) bytes: usize,
    /// The payload, where it is at most [`INLINE`].
    pub(crate) inline: Vec<u8>,
}

impl Engine {
    /// Joins the ranks: every one learns the hosts of all.
    pub(crate) fn new(
        link: Box<dyn Link>,
        limits: Limits,
        start: Instant,
        entered: Arc<Entered>,
    ) -> Result<Self> {
        let hosts = vec![String::new(); link.size()];
        let mut engine = Self {
            link,
            hosts,
            limits,
            warm: false,
            number: 0,
            broken: None,
            gone: Vec::new(),
            open: Vec::new(),
            pool: Vec::new(),
            start,
            entered,
            #[cfg(feature = "nccl")]
            comm: None,
        };
        let text = engine.link.host();
        let all =
            engine.exchange(Offer { call: Call::Hello, equal: "", text, bytes: 0, inline: Vec::new() })?;
        engine.hosts = all.into_iter().map(|header| header.text).collect();
        Ok(engine)
    }

    pub(crate) fn rank(&self) -> usize {
        self.link.rank()
    }

    pub(crate) fn size(&self) -> usize {
        self.link.size()
    }

    /// `rank 1 (node-7)`.
    pub(crate) fn who(&self, rank: usize) -> String {
        match self.hosts.get(rank).filter(|host| !host.is_empty()) {
            Some(host) => format!("rank {rank} ({host})"),
            None => format!("rank {rank}"),
        }
    }

    /// From the first sum of gradients on the usual limit holds.
    pub(crate) fn warmed(&mut self) {
        self.warm = true;
    }

    /// Runs one operation; what ends it in its midst ends all that follow.
    pub(crate) fn run<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        let result = f(self);
        if let Err(
            error @ (Error::Late { .. }
            | Error::Left { .. }
            | Error::Closed { .. }
            | Error::Engine { .. }
            | Error::Garbled { .. }),
        ) = &result
        {
            self.broken = Some(error.clone());
        }
        result
    }

    /// Every rank's header, in the order of ranks. All have called the same, of what is equal.
    pub(crate) fn exchange(&mut self, offer: Offer<'_>) -> Result<Vec<Header>> {
        self.number += 1;
        let Offer { call, equal, text, bytes, inline } = offer;
        let text = if text.is_empty() { equal.to_owned() } else { text };
        let own = Header {
            call,
            number: self.number,
            digest: crate::header::digest(equal),
            bytes: bytes as u64,
            text,
            inline,
        };
        let message = Slice::whole(own.encode());
        let (rank, size) = (self.rank(), self.size());
        let mut sent = Vec::with_capacity(size);
        let mut awaited = Vec::with_capacity(size);
        for peer in (0..size).filter(|peer| *peer != rank) {
            sent.push((peer, self.link.send(peer, HEADER, message.clone())?));
            let buffer = self.buffer(LONGEST);
            awaited.push((peer, self.link.receive(peer, HEADER, buffer)?));
        }
        let mut found: Vec<Option<Header>> = vec![None; size];
        found[rank] = Some(own);
        let mut wait = self.wait(call);
        while !awaited.is_empty() {
            let mut index = 0;
            while let Some((peer, request)) = awaited.get_mut(index) {
                match request.poll() {
                    Ok(true) => {}
                    Ok(false) => {
                        index += 1;
                        continue;
                    }
                    Err(error) => {
                        drop(awaited.swap_remove(index));
                        return Err(self.first_reason(awaited, error));
                    }
                }
                let (peer, bytes) = (*peer, request.take());
                drop(awaited.swap_remove(index));
                wait.progress();
                let header = Header::decode(&bytes).ok_or_else(|| Error::Garbled { who: self.who(peer) })?;
                self.recycle(bytes);
                if header.call == Call::Leave {
                    self.gone.push(peer);
                    self.open = awaited;
                    return Err(Error::Left { who: self.who(peer), reason: header.text });
                }
                found[peer] = Some(header);
            }
            wait.pause(|| self.named(awaited.iter().map(|(peer, _)| *peer)))?;
        }
        self.finish_sending(sent, &mut wait)?;
        let all: Vec<Header> = found.into_iter().flatten().collect();
        self.compare(call, &all)?;
        Ok(all)
    }

    /// A connection that has ended is often the echo of another rank's end, whose reason is on its way.
    fn first_reason(&mut self, mut awaited: Vec<(usize, Box<dyn Request>)>, error: Error) -> Error {
        const MOMENT: Duration = Duration::from_millis(500);
        let until = Instant::now() + MOMENT;
        while !awaited.is_empty() && Instant::now() < until {
            let mut index = 0;
            while let Some((peer, request)) = awaited.get_mut(index) {
                let peer = *peer;
                match request.poll() {
                    Ok(false) => index += 1,
                    Err(_) => drop(awaited.swap_remove(index)),
                    Ok(true) => {
                        let header = Header::decode(&request.take());
                        drop(awaited.swap_remove(index));
                        if let Some(header) = header.filter(|header| header.call == Call::Leave) {
                            self.gone.push(peer);
                            self.open = awaited;
                            return Error::Left { who: self.who(peer), reason: header.text };
                        }
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.open = awaited;
        error
    }

    /// That all ranks called the same, of the same: every rank compares the same headers, so that all see the error.
    fn compare(&self, call: Call, all: &[Header]) -> Result<()> {
        let differs = all.iter().position(|header| header.call != call || header.number != self.number);
        if let Some(other) = differs {
            return Err(Error::Calls {
                call: call.name(),
                number: self.number,
                who: self.who(other),
                other: all[other].call.name(),
                other_number: all[other].number,
            });
        }
        let Some(other) = all.iter().position(|header| header.digest != all[0].digest) else { return Ok(()) };
        let what = match call {
            Call::Sum => "the tensors that are summed differ".to_owned(),
            Call::Gather => "the tensors that are gathered differ beside their rows".to_owned(),
            Call::Broadcast => "the root of a broadcast differs".to_owned(),
            _ => "the ranks differ".to_owned(),
        };
        let (left, right) = difference(&all[0].text, &all[other].text);
        Err(Error::Unequal { what, first: self.who(0), left, second: self.who(other), right })
    }

    /// Sends and receives payloads, in pieces of a size that the library takes: what came, in the order of `from`.
    pub(crate) fn transfer(
        &mut self,
        call: Call,
        to: &[(usize, Slice)],
        from: &[(usize, usize)],
    ) -> Result<Vec<Vec<u8>>> {
        let pieces =
            |length: usize| (0..length.div_ceil(PIECE)).map(move |i| i * PIECE..length.min((i + 1) * PIECE));
        let mut awaited = Vec::new();
        for (place, (peer, length)) in from.iter().enumerate() {
            for (piece, range) in pieces(*length).enumerate() {
                let buffer = self.buffer(range.len());
                let request = self.link.receive(*peer, tag(piece, 0), buffer)?;
                awaited.push((place, range, request));
            }
        }
        let mut sent = Vec::new();
        for (peer, slice) in to {
            for (piece, range) in pieces(slice.range.len()).enumerate() {
                let range = slice.range.start + range.start..slice.range.start + range.end;
                let part = Slice { bytes: slice.bytes.clone(), range };
                sent.push((*peer, self.link.send(*peer, tag(piece, 0), part)?));
            }
        }
        let mut out: Vec<Vec<u8>> = from.iter().map(|(_, length)| vec![0; *length]).collect();
        let mut wait = self.wait(call);
        while !awaited.is_empty() {
            let mut index = 0;
            while let Some((place, range, request)) = awaited.get_mut(index) {
                if !request.poll()? {
                    index += 1;
                    continue;
                }
                let bytes = request.take();
                let (place, range) = (*place, range.clone());
                drop(awaited.swap_remove(index));
                wait.progress();
                let room = out.get_mut(place).and_then(|out| out.get_mut(range));
                match room.filter(|room| room.len() == bytes.len()) {
                    Some(room) => room.copy_from_slice(&bytes),
                    None => return Err(Error::Garbled { who: self.who(from[place].0) }),
                }
                self.recycle(bytes);
            }
            wait.pause(|| self.named(awaited.iter().map(|(place, _, _)| from[*place].0)))?;
        }
        self.finish_sending(sent, &mut wait)?;
        Ok(out)
    }

    /// Waits until everything is out of our memory.
    pub(crate) fn finish_sending(
        &self,
        mut sent: Vec<(usize, Box<dyn Request>)>,
        wait: &mut Wait,
    ) -> Result<()> {
        while !sent.is_empty() {
            let mut index = 0;
            while let Some((_, request)) = sent.get_mut(index) {
                if request.poll()? {
                    drop(sent.swap_remove(index));
                    wait.progress();
                } else {
                    index += 1;
                }
            }
            wait.pause(|| self.named(sent.iter().map(|(peer, _)| *peer)))?;
        }
        Ok(())
    }

    /// Tells the others why this rank ends, and waits for them to end too; true if all did within `grace`.
    pub(crate) fn leave(&mut self, reason: &str, grace: Duration) -> bool {
        let header = Header {
            call: Call::Leave,
            number: 0,
            digest: 0,
            bytes: 0,
            text: reason.to_owned(),
            inline: Vec::new(),
        };
        let message = Slice::whole(header.encode());
        let (rank, size, until) = (self.rank(), self.size(), Instant::now() + grace);
        let (mut sent, mut together) = (Vec::new(), true);
        // What an exchange waited for gets the next header of its rank.
        let mut awaited = std::mem::take(&mut self.open);
        for peer in (0..size).filter(|peer| *peer != rank) {
            sent.extend(self.link.send(peer, HEADER, message.clone()));
            if self.gone.contains(&peer) || awaited.iter().any(|(open, _)| *open == peer) {
                continue;
            }
            match self.link.receive(peer, HEADER, vec![0; LONGEST]) {
                Ok(request) => awaited.push((peer, request)),
                Err(_) => together = false,
            }
        }
        while !awaited.is_empty() || !sent.is_empty() {
            sent.retain_mut(|request| !request.poll().unwrap_or(true));
            let mut index = 0;
            while let Some((peer, request)) = awaited.get_mut(index) {
                match request.poll() {
                    Ok(false) => index += 1,
                    // It ended without a word; those that have one are waited for all the same.
                    Err(_) => {
                        drop(awaited.swap_remove(index));
                        together = false;
                    }
                    Ok(true) => {
                        let gone = Header::decode(&request.take()).is_some_and(|h| h.call == Call::Leave);
                        let peer = *peer;
                        drop(awaited.swap_remove(index));
                        // A header of an exchange that this rank does not come to: the next one says that it left.
                        if !gone {
                            match self.link.receive(peer, HEADER, vec![0; LONGEST]) {
                                Ok(request) => awaited.push((peer, request)),
                                Err(_) => together = false,
                            }
                        }
                    }
                }
            }
            if Instant::now() > until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        together
    }

    /// From now on nobody is waited for longer than this: the run is about to end.
    #[cfg(feature = "nccl")]
    pub(crate) fn limit(&mut self, limit: Duration) {
        self.limits = Limits { usual: limit, first: limit };
    }

    /// A wait under the limit of the moment.
    pub(crate) fn wait(&self, call: Call) -> Wait {
        let limit = if self.warm { self.limits.usual } else { self.limits.first.max(self.limits.usual) };
        let (now, entered) = (Instant::now(), Arc::clone(&self.entered));
        let wait =
            Wait { call, number: self.number, start: self.start, begun: now, moved: now, limit, entered };
        wait.alive();
        wait
    }

    /// A buffer of this length for a message.
    pub(crate) fn buffer(&mut self, length: usize) -> Vec<u8> {
        let fits = self
            .pool
            .iter()
            .position(|buffer| buffer.capacity() >= length && buffer.capacity() <= 2 * length);
        let mut buffer = fits.map(|at| self.pool.swap_remove(at)).unwrap_or_default();
        buffer.resize(length, 0);
        buffer
    }

    /// Keeps a buffer for later.
    pub(crate) fn recycle(&mut self, buffer: Vec<u8>) {
        const MOST: usize = 64;
        if self.pool.len() < MOST && buffer.capacity() <= PIECE {
            self.pool.push(buffer);
        }
    }

    /// `rank 1 (node-7), rank 3 (node-8)`, each once.
    pub(crate) fn named(&self, ranks: impl Iterator<Item = usize>) -> String {
        let ranks: std::collections::BTreeSet<usize> = ranks.collect();
        ranks.into_iter().map(|rank| self.who(rank)).collect::<Vec<_>>().join(", ")
    }
}

/// Of two lists of shapes in words, those where they begin to differ.
fn difference(left: &str, right: &str) -> (String, String) {
    const MOST: usize = 100;
    let common = left.bytes().zip(right.bytes()).take_while(|(a, b)| a == b).count();
    // Shapes end with their type: the last bracket opens the one that differs.
    let from = left.as_bytes()[..common].iter().rposition(|byte| *byte == b'[').unwrap_or(0);
    let cut = |text: &str| text.chars().skip(text[..from].chars().count()).take(MOST).collect::<String>();
    if left.is_char_boundary(from) && right.is_char_boundary(from) {
        (cut(left), cut(right))
    } else {
        (left.to_owned(), right.to_owned())
    }
}

/// The tag of a part of a payload, in one of two phases.
pub(crate) fn tag(part: usize, phase: i32) -> i32 {
    // MPI promises 15 bits; parts that share a tag are thousands apart.
    PAYLOAD + 2 * (part % 8192) as i32 + phase
}

/// One wait for other ranks.
pub(crate) struct Wait {
    call: Call,
    number: u64,
    start: Instant,
    begun: Instant,
    /// When something arrived last.
    moved: Instant,
    limit: Duration,
    entered: Arc<Entered>,
}

impl Wait {
    /// Something arrived.
    pub(crate) fn progress(&mut self) {
        self.moved = Instant::now();
    }

    /// Tells the watchdog until when the library may keep this thread.
    fn alive(&self) {
        let until = self.start.elapsed() + self.limit + GRACE;
        self.entered.store(until.as_millis() as u64 + 1, Ordering::Relaxed);
    }

    /// Lets others work; an error with the missing ranks once nothing has arrived for as long as the limit.
    pub(crate) fn pause(&self, missing: impl Fn() -> String) -> Result<()> {
        let idle = self.moved.elapsed();
        if idle > Duration::from_millis(5) {
            self.alive();
        }
        match idle {
            // As long as a message within a host takes.
            _ if idle < Duration::from_micros(100) => std::hint::spin_loop(),
            _ if idle < Duration::from_millis(5) => std::thread::yield_now(),
            _ if idle < self.limit => std::thread::sleep(Duration::from_micros(100)),
            _ => {
                // What is complete by now has nothing missing.
                let missing = missing();
                if !missing.is_empty() {
                    let (call, waited_s) = (self.call.name(), self.begun.elapsed().as_secs_f64());
                    return Err(Error::Late { call, number: self.number, missing, waited_s });
                }
            }
        }
        Ok(())
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.entered.store(0, Ordering::Relaxed);
    }
}

/// Whether a payload travels with its header.
pub(crate) fn is_inline(bytes: usize) -> bool {
    bytes <= INLINE
}
