//! How processes find each other: all connect to rank 0, which tells each where the others listen.

use super::peer::Peer;
use crate::{Error, Result, World};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

/// What a process says first; its end is the version of what follows.
const MAGIC: [u8; 8] = *b"infomax1";

/// The longest text of a message here.
const LONGEST: usize = 1 << 20;

/// How long one that connects may take to say who it is.
const INTRODUCTION: Duration = Duration::from_secs(5);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Where another rank listens.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    /// `None` is the host of rank 0, by whatever address the reader reaches it.
    address: Option<IpAddr>,
    port: u16,
    host: String,
}

/// The connections with all ranks, in their order, by this time.
pub(super) fn meet(world: &World, host: &str, until: Instant) -> Result<Vec<Option<Peer>>> {
    let meeting = Meeting { world, until };
    let streams = match (world.size, world.rank) {
        (1, _) => vec![None],
        (_, 0) => meeting.lead(host)?,
        _ => meeting.join(host)?,
    };
    let peer = |(host, stream): (String, TcpStream), rank: usize| {
        Peer::new(format!("rank {rank} ({host})"), stream).map_err(|e| meeting.refuse(e.to_string()))
    };
    let peers = streams.into_iter().enumerate();
    peers.map(|(rank, with)| with.map(|with| peer(with, rank)).transpose()).collect()
}

/// A rank with the name of its host, and the connection with it.
type With = Option<(String, TcpStream)>;

struct Meeting<'a> {
    world: &'a World,
    until: Instant,
}

impl Meeting<'_> {
    fn refuse(&self, problem: String) -> Error {
        Error::Meeting { rank: self.world.rank, size: self.world.size, problem }
    }

    fn master(&self) -> Result<(&str, u16)> {
        let (host, port) = self.world.master.as_ref().ok_or_else(|| {
            self.refuse(format!(
                "{} starts no MPI, and MASTER_ADDR and MASTER_PORT, the host of rank 0 and a free port on it at which processes meet \
                 without MPI, are not set; or start them by the mpirun of a program that was built with mpi, or by `srun \
                 --mpi=pmix`",
                self.world.launcher
            ))
        })?;
        Ok((host, *port))
    }

    /// Rank 0: waits for all, and tells each where all are.
    fn lead(&self, host: &str) -> Result<Vec<With>> {
        let (name, port) = self.master()?;
        let listener = listen(name, port).map_err(|e| match e.kind() {
            ErrorKind::AddrInUse => self.refuse(format!(
                "port {port} of {host}, which MASTER_PORT names, is taken by another program, by a job that has \
                 not ended, or by another process with the number 0 of this one: choose another one"
            )),
            _ => self.refuse(format!("cannot listen on port {port} of {host} (MASTER_PORT): {e}")),
        })?;
        let mut came: Vec<Option<(Place, TcpStream)>> = (0..self.world.size).map(|_| None).collect();
        let result = self.wait_for(&listener, &mut came);
        let missing = |came: &[Option<_>]| {
            let missing = came.iter().enumerate().skip(1).filter(|(_, rank)| rank.is_none());
            missing.map(|(rank, _)| format!("rank {rank}")).collect::<Vec<_>>().join(", ")
        };
        let result = result.map_err(|problem| match problem {
            Some(problem) => self.refuse(problem),
            None => self.refuse(format!(
                "{} did not come to {name}:{port} in time; were all started, with the same MASTER_ADDR and MASTER_PORT?",
                missing(&came)
            )),
        });
        if let Err(error) = result {
            // Those who came learn why.
            for (_, stream) in came.iter_mut().flatten() {
                let _ = say(stream, false, &error.to_string());
            }
            return Err(error);
        }
        let own = Place { address: None, port, host: host.to_owned() };
        let places = came.iter().map(|with| with.as_ref().map_or(&own, |(place, _)| place));
        let nonce = RandomState::new().hash_one(std::process::id());
        let table = places.fold(format!("{nonce:016x}\n"), |table, place| table + &place.line() + "\n");
        for (place, stream) in came.iter_mut().flatten() {
            let said = say(stream, true, &table);
            said.map_err(|e| self.refuse(format!("a rank on {} was lost at the start: {e}", place.host)))?;
        }
        Ok(came.into_iter().map(|with| with.map(|(place, stream)| (place.host, stream))).collect())
    }

    /// Accepts ranks until all are there; `None` where they are not in time.
    fn wait_for(
        &self,
        listener: &TcpListener,
        came: &mut [Option<(Place, TcpStream)>],
    ) -> Result<(), Option<String>> {
        while came.iter().skip(1).any(Option::is_none) {
            let next = self.accept(listener, None).map_err(|e| Some(e.to_string()))?;
            let Some((mut stream, from)) = next else {
                return Err(None);
            };
            // Whatever else knocks at a port is no rank.
            let Ok(hello) = Hello::read(&mut stream) else { continue };
            let size = self.world.size;
            let problem = match came.get(hello.rank) {
                _ if hello.size != size => format!(
                    "a process on {} says that there are {} processes, rank 0 that there are {size}",
                    hello.host, hello.size
                ),
                Some(None) if hello.rank > 0 => {
                    let ip = from.ip().to_canonical();
                    let address = (!ip.is_loopback()).then_some(ip);
                    came[hello.rank] = Some((Place { address, port: hello.port, host: hello.host }, stream));
                    continue;
                }
                Some(Some((place, _))) => {
                    format!("two processes are rank {}, on {} and {}", hello.rank, place.host, hello.host)
                }
                _ => format!("a second process, on {}, is rank {} of {size}", hello.host, hello.rank),
            };
            let _ = say(&mut stream, false, &problem);
            return Err(Some(problem));
        }
        Ok(())
    }

    /// The next connection, `None` where none comes in time; an error where this one, with rank 0, ends meanwhile.
    fn accept(
        &self,
        listener: &TcpListener,
        first: Option<&TcpStream>,
    ) -> std::io::Result<Option<(TcpStream, SocketAddr)>> {
        listener.set_nonblocking(true)?;
        loop {
            match listener.accept() {
                Ok((stream, from)) => {
                    stream.set_nonblocking(false)?;
                    return Ok(Some((stream, from)));
                }
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                    ) => {}
                Err(e) => return Err(e),
            }
            if Instant::now() > self.until {
                return Ok(None);
            }
            if first.is_some_and(|first| matches!(first.peek(&mut [0]), Ok(0))) {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Any other rank: asks rank 0 where all are, connects with those before it, and waits for those behind it.
    fn join(&self, host: &str) -> Result<Vec<With>> {
        let (world, (name, port)) = (self.world, self.master()?);
        let mut first = self.reach_master(name, port)?;
        let io =
            |e: std::io::Error| self.refuse(format!("lost the connection with rank 0 at the start: {e}"));
        let master = first.peer_addr().map_err(io)?.ip();
        // Any free port.
        let listener = listen(name, 0).map_err(|e| self.refuse(format!("cannot listen on {host}: {e}")))?;
        let own = listener.local_addr().map_err(io)?.port();
        let hello = Hello { rank: world.rank, size: world.size, port: own, host: host.to_owned() };
        first.write_all(&hello.encode()).map_err(io)?;
        let left = self.until.saturating_duration_since(Instant::now()) + INTRODUCTION;
        first.set_read_timeout(Some(left)).map_err(io)?;
        let (welcome, text) = hear(&mut first).map_err(|e| {
            self.refuse(format!(
                "what listens at {name}:{port} (MASTER_ADDR, MASTER_PORT) did not answer as rank 0 of this job does: {e}"
            ))
        })?;
        if !welcome {
            // It is said as rank 0 says it, with this rank's number.
            return Err(self.refuse(format!("rank 0 ended the start: {text}")));
        }
        let (nonce, places) = read_table(&text, world.size)
            .ok_or_else(|| self.refuse("rank 0 is another version of this program".into()))?;
        // From here on it is only looked at.
        first.set_nonblocking(true).map_err(io)?;
        let mut all: Vec<With> = (0..world.size).map(|_| None).collect();
        for (rank, place) in places.iter().enumerate().take(world.rank).skip(1) {
            let to = SocketAddr::new(place.address.unwrap_or(master), place.port);
            let connect = || -> std::io::Result<TcpStream> {
                let mut stream = TcpStream::connect_timeout(&to, left.min(Duration::from_secs(30)))?;
                stream.write_all(&introduce(nonce, world.rank))?;
                Ok(stream)
            };
            let stream = connect().map_err(|e| {
                self.refuse(format!(
                    "cannot reach rank {rank} ({}) at {to}: {e}; all hosts must reach each other on all ports",
                    place.host
                ))
            })?;
            all[rank] = Some((place.host.clone(), stream));
        }
        while let Some(missing) = (world.rank + 1..world.size).find(|rank| all[*rank].is_none()) {
            let lost = || {
                let problem = format!("rank {missing} ({}) did not connect", places[missing].host);
                self.refuse(problem + " in time; all hosts must reach each other on all ports")
            };
            let (mut stream, _) = self.accept(&listener, Some(&first)).map_err(io)?.ok_or_else(lost)?;
            let mut said = [0; 16];
            stream.set_read_timeout(Some(INTRODUCTION)).map_err(io)?;
            if stream.read_exact(&mut said).is_err() {
                continue;
            }
            let behind = (world.rank + 1..world.size).find(|rank| said == introduce(nonce, *rank));
            if let Some(rank) = behind {
                all[rank] = Some((places[rank].host.clone(), stream));
            }
        }
        all[0] = Some((places[0].host.clone(), first));
        Ok(all)
    }

    /// A connection with rank 0, which may be started later.
    fn reach_master(&self, name: &str, port: u16) -> Result<TcpStream> {
        loop {
            let addresses = (name, port).to_socket_addrs();
            let mut problem = match &addresses {
                Ok(_) => "the name has no address".to_owned(),
                Err(e) => e.to_string(),
            };
            for address in addresses.into_iter().flatten() {
                match TcpStream::connect_timeout(&address, INTRODUCTION) {
                    Ok(stream) => return Ok(stream),
                    Err(e) => problem = e.to_string(),
                }
            }
            if Instant::now() > self.until {
                return Err(self.refuse(format!(
                    "rank 0 was not found at {name}:{port} (MASTER_ADDR, MASTER_PORT) in time: {problem}"
                )));
            }
            std::thread::sleep(20 * PAUSE);
        }
    }
}

/// Listens for all that may come: from this host only where the meeting is on it by name.
fn listen(master: &str, port: u16) -> std::io::Result<TcpListener> {
    let local = match master {
        "localhost" => Some(IpAddr::from(Ipv4Addr::LOCALHOST)),
        other => other.parse::<IpAddr>().ok().filter(IpAddr::is_loopback),
    };
    match local {
        // `localhost` may be either.
        Some(IpAddr::V4(v4)) if master == "localhost" => {
            TcpListener::bind((v4, port)).or_else(|e| match e.kind() {
                ErrorKind::AddrNotAvailable => TcpListener::bind((Ipv6Addr::LOCALHOST, port)),
                _ => Err(e),
            })
        }
        Some(local) => TcpListener::bind((local, port)),
        // Both kinds of addresses; a system without the newer one has the older.
        None => TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).or_else(|e| match e.kind() {
            ErrorKind::AddrInUse | ErrorKind::PermissionDenied => Err(e),
            _ => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)),
        }),
    }
}

/// What a rank says to rank 0.
struct Hello {
    rank: usize,
    size: usize,
    port: u16,
    host: String,
}

impl Hello {
    fn encode(&self) -> Vec<u8> {
        let text = format!("{} {} {} {}", self.rank, self.size, self.port, self.host);
        let mut out = MAGIC.to_vec();
        out.extend((text.len() as u32).to_le_bytes());
        out.extend(text.as_bytes());
        out
    }

    fn read(stream: &mut TcpStream) -> std::io::Result<Self> {
        stream.set_read_timeout(Some(INTRODUCTION))?;
        let mut magic = [0; MAGIC.len()];
        stream.read_exact(&mut magic)?;
        let text = if magic == MAGIC { read_text(stream)? } else { String::new() };
        let mut words = text.splitn(4, ' ');
        let mut number = || words.next()?.parse::<usize>().ok();
        let hello = number().zip(number()).zip(number().and_then(|port| u16::try_from(port).ok()));
        let host = words.next().map(|host| host.split_whitespace().collect::<Vec<_>>().join(" "));
        let hello = hello.zip(host).map(|(((rank, size), port), host)| Self { rank, size, port, host });
        hello.ok_or_else(|| ErrorKind::InvalidData.into())
    }
}

/// What a rank says to one before it.
fn introduce(nonce: u64, rank: usize) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&nonce.to_le_bytes());
    out[8..].copy_from_slice(&(rank as u64).to_le_bytes());
    out
}

impl Place {
    fn line(&self) -> String {
        let address = self.address.map_or_else(|| "-".to_owned(), |address| address.to_string());
        format!("{address} {} {}", self.port, self.host)
    }

    fn read(line: &str) -> Option<Self> {
        let mut words = line.splitn(3, ' ');
        let address = match words.next()? {
            "-" => None,
            address => Some(address.parse().ok()?),
        };
        Some(Self { address, port: words.next()?.parse().ok()?, host: words.next()?.to_owned() })
    }
}

/// The number of this job, and where its ranks are.
fn read_table(text: &str, size: usize) -> Option<(u64, Vec<Place>)> {
    let (nonce, lines) = text.split_once('\n')?;
    let places = lines.lines().map(Place::read).collect::<Option<Vec<_>>>()?;
    Some((u64::from_str_radix(nonce, 16).ok()?, places)).filter(|(_, places)| places.len() == size)
}

/// What rank 0 answers.
fn say(stream: &mut impl Write, welcome: bool, text: &str) -> std::io::Result<()> {
    let mut out = MAGIC.to_vec();
    out.push(u8::from(welcome));
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
    stream.write_all(&out)
}

fn hear(stream: &mut impl Read) -> std::io::Result<(bool, String)> {
    let mut head = [0; MAGIC.len() + 1];
    stream.read_exact(&mut head)?;
    match head.strip_prefix(&MAGIC) {
        Some([welcome]) => Ok((*welcome == 1, read_text(stream)?)),
        _ => Err(std::io::Error::new(ErrorKind::InvalidData, "it is another program or version")),
    }
}

fn read_text(stream: &mut impl Read) -> std::io::Result<String> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > LONGEST {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut text = vec![0; length];
    stream.read_exact(&mut text)?;
    String::from_utf8(text).map_err(|_| ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back_and_what_is_none_is_refused() {
        let place = |address: Option<&str>| Place {
            address: address.map(|address| address.parse().unwrap()),
            port: 7,
            host: "node 7".into(),
        };
        for place in [place(None), place(Some("10.0.0.1")), place(Some("fe80::1"))] {
            assert_eq!(Place::read(&place.line()), Some(place));
        }
        let table = format!("{:016x}\n{}\n{}\n", 255, place(None).line(), place(Some("10.0.0.1")).line());
        assert_eq!(read_table(&table, 2).map(|(nonce, places)| (nonce, places.len())), Some((255, 2)));
        assert_eq!(read_table(&table, 3), None);
        assert_eq!(read_table("x\n", 0), None);
        assert_eq!(Place::read("here 7 node"), None);
    }

    #[test]
    fn only_what_rank_0_says_is_heard() {
        let mut bytes = Vec::new();
        say(&mut bytes, false, "no").unwrap();
        assert_eq!(hear(&mut &bytes[..]).unwrap(), (false, "no".to_owned()));
        for bad in
            [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &bytes[..bytes.len() - 1], b"infomax1\x01\xff\xff\xff\xff"]
        {
            assert!(hear(&mut &bad[..]).is_err());
        }
    }
}
