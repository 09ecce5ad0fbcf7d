//! Sums in the order of ranks.
//!
//! MPI_Allreduce promises neither an order nor the same bits on every rank: the standard only recommends that the same
//! arguments give the same result. Here each rank sums its own part of every segment, rank 0 first, and sends the
//! result to the others, which therefore hold the same bits. Each rank sends and receives `2 (K - 1) / K` times the
//! bucket, as much as a ring does.

use crate::engine::{Engine, is_inline, tag};
use crate::header::Call;
use crate::link::{Request, Slice};
use crate::{Result, values};
use candle_core::DType;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of a segment: what is summed while it is in the cache.
const SEGMENT: usize = 4 << 20;
/// Segments on their way at a time: on a slow link the next ones travel while one is waited for.
const AHEAD: usize = 8;

/// A rank with its message on its way, and what came.
type Share = (usize, Box<dyn Request>, Option<Vec<u8>>);

/// A part of a bucket on its way.
struct Segment {
    number: usize,
    range: Range<usize>,
    /// The other ranks' share of the part that this rank sums.
    shares: Vec<Share>,
    /// The other parts, summed.
    parts: Vec<(usize, Box<dyn Request>)>,
    summed: bool,
}

impl Segment {
    /// The part of rank `rank` of `size`, at whole elements.
    fn part(range: &Range<usize>, rank: usize, size: usize, width: usize) -> Range<usize> {
        let elements = range.len() / width;
        let at = |rank: usize| range.start + elements * rank / size * width;
        at(rank)..at(rank + 1)
    }
}

/// The sum over ranks of these bytes, elements of `dtype`; `equal` describes what all ranks must have.
pub(crate) fn sum(
    engine: &mut Engine,
    bytes: Vec<u8>,
    dtype: DType,
    equal: &str,
) -> infomax_core::Result<Vec<u8>> {
    let offer = |inline: Vec<u8>| crate::engine::Offer {
        call: Call::Sum,
        equal,
        text: String::new(),
        bytes: bytes.len(),
        inline,
    };
    if is_inline(bytes.len()) {
        let all = engine.run(|engine| engine.exchange(offer(bytes.clone()))).map_err(|e| wrap(engine, e))?;
        let mut headers = all.into_iter();
        let mut total = headers.next().map(|header| header.inline).unwrap_or_default();
        for header in headers {
            values::add(&mut total, &header.inline, dtype)?;
        }
        return Ok(total);
    }
    engine.run(|engine| engine.exchange(offer(Vec::new()))).map_err(|e| wrap(engine, e))?;
    engine.run(|engine| segments(engine, Arc::new(bytes), dtype)).map_err(|e| wrap(engine, e))
}

/// An error with the rank that saw it.
pub(crate) fn wrap(engine: &Engine, error: crate::Error) -> infomax_core::Error {
    infomax_core::Error::other(engine.who(engine.rank()), error)
}

fn segments(engine: &mut Engine, data: Arc<Vec<u8>>, dtype: DType) -> Result<Vec<u8>> {
    let width = dtype.size_in_bytes();
    let (rank, size) = (engine.rank(), engine.size());
    let peers: Vec<usize> = (0..size).filter(|peer| *peer != rank).collect();
    let step = SEGMENT / width * width;
    let mut waiting = (0..data.len().div_ceil(step)).map(|i| (i, i * step..data.len().min((i + 1) * step)));
    let mut out = vec![0; data.len()];
    let mut sent: Vec<(usize, Box<dyn Request>)> = Vec::new();
    let mut under_way: Vec<Segment> = Vec::new();
    let mut moved = true;
    let mut wait: Option<crate::engine::Wait> = None;
    loop {
        while under_way.len() < AHEAD
            && let Some((number, range)) = waiting.next()
        {
            under_way.push(begin(engine, &data, number, range, &peers, width, &mut sent)?);
        }
        if under_way.is_empty() {
            break;
        }
        for segment in &mut under_way {
            moved |= collect(engine, segment, &data, dtype, &peers, &mut out, &mut sent)?;
        }
        under_way.retain(|segment| !(segment.summed && segment.parts.is_empty()));
        let mut index = 0;
        while let Some((_, request)) = sent.get_mut(index) {
            if request.poll()? {
                drop(sent.swap_remove(index));
            } else {
                index += 1;
            }
        }
        let wait = wait.get_or_insert_with(|| engine.wait(Call::Sum));
        if std::mem::take(&mut moved) {
            wait.progress();
        }
        wait.pause(|| {
            let shares = under_way.iter().flat_map(|s| s.shares.iter().filter(|(_, _, got)| got.is_none()));
            let parts = under_way.iter().flat_map(|s| s.parts.iter().map(|(peer, _)| *peer));
            engine.named(shares.map(|(peer, _, _)| *peer).chain(parts))
        })?;
    }
    let mut wait = wait.unwrap_or_else(|| engine.wait(Call::Sum));
    engine.finish_sending(sent, &mut wait)?;
    Ok(out)
}

/// Sends the other ranks their parts of a segment, and asks for this one's.
fn begin(
    engine: &mut Engine,
    data: &Arc<Vec<u8>>,
    number: usize,
    range: Range<usize>,
    peers: &[usize],
    width: usize,
    sent: &mut Vec<(usize, Box<dyn Request>)>,
) -> Result<Segment> {
    let (rank, size) = (engine.rank(), engine.size());
    let own = Segment::part(&range, rank, size, width);
    let (mut shares, mut parts) = (Vec::with_capacity(peers.len()), Vec::with_capacity(peers.len()));
    for &peer in peers {
        let theirs = Segment::part(&range, peer, size, width);
        if !own.is_empty() {
            let buffer = engine.buffer(own.len());
            shares.push((peer, engine.link.receive(peer, tag(number, 0), buffer)?, None));
        }
        if !theirs.is_empty() {
            let buffer = engine.buffer(theirs.len());
            parts.push((peer, engine.link.receive(peer, tag(number, 1), buffer)?));
            let message = Slice { bytes: data.clone(), range: theirs };
            sent.push((peer, engine.link.send(peer, tag(number, 0), message)?));
        }
    }
    Ok(Segment { number, range, shares, parts, summed: false })
}

/// Takes what has arrived of a segment; whether anything has.
fn collect(
    engine: &mut Engine,
    segment: &mut Segment,
    data: &Arc<Vec<u8>>,
    dtype: DType,
    peers: &[usize],
    out: &mut [u8],
    sent: &mut Vec<(usize, Box<dyn Request>)>,
) -> Result<bool> {
    let (rank, size, width) = (engine.rank(), engine.size(), dtype.size_in_bytes());
    let mut moved = false;
    for (_, request, share) in &mut segment.shares {
        if share.is_none() && request.poll()? {
            (*share, moved) = (Some(request.take()), true);
        }
    }
    if !segment.summed && segment.shares.iter().all(|(_, _, share)| share.is_some()) {
        let own = Segment::part(&segment.range, rank, size, width);
        let mut total: Option<Vec<u8>> = None;
        // In the order of ranks, of which this is one.
        let mut shares = std::mem::take(&mut segment.shares).into_iter().peekable();
        for r in 0..size {
            let share = match shares.next_if(|(peer, _, _)| *peer == r) {
                Some((_, _, share)) => share,
                None => (r == rank).then(|| data[own.clone()].to_vec()),
            };
            let Some(share) = share else { continue };
            total = Some(match total {
                None => share,
                Some(mut total) => {
                    values::add(&mut total, &share, dtype)
                        .map_err(|e| crate::Error::Engine { call: "sum", problem: e.to_string() })?;
                    engine.recycle(share);
                    total
                }
            });
        }
        let total = total.unwrap_or_default();
        out[own].copy_from_slice(&total);
        let message = Slice::whole(total);
        if !message.range.is_empty() {
            for &peer in peers {
                sent.push((peer, engine.link.send(peer, tag(segment.number, 1), message.clone())?));
            }
        }
        (segment.summed, moved) = (true, true);
    }
    let mut index = 0;
    while let Some((peer, request)) = segment.parts.get_mut(index) {
        if !request.poll()? {
            index += 1;
            continue;
        }
        let (peer, bytes) = (*peer, request.take());
        drop(segment.parts.swap_remove(index));
        let room = &mut out[Segment::part(&segment.range, peer, size, width)];
        if room.len() != bytes.len() {
            return Err(crate::Error::Garbled { who: engine.who(peer) });
        }
        room.copy_from_slice(&bytes);
        engine.recycle(bytes);
        moved = true;
    }
    Ok(moved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_a_segment_at_whole_elements() {
        for (range, width) in [(0..40, 4), (8..8, 8), (16..40, 8), (0..4, 4)] {
            for size in 1..6 {
                let mut at = range.start;
                for rank in 0..size {
                    let part = Segment::part(&range, rank, size, width);
                    assert_eq!((part.start, part.len() % width), (at, 0), "{range:?} {size}");
                    at = part.end;
                }
                assert_eq!(at, range.end);
            }
        }
    }
}
