//! Downloads one file: resumable, of a known size and checksum, and there only when it is whole.

use anyhow::{Context as _, Result, bail};
use md5::{Digest as _, Md5};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::Agent;
use ureq::http::{Response, StatusCode};

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job<'a> {
    pub(super) url: &'a str,
    pub(super) to: &'a Path,
    pub(super) size: u64,
    pub(super) md5: &'a str,
}

/// How patient a download is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Connections in a row that may end without a new byte.
    pub(super) tries: u32,
    /// The pause before the second try; it grows with each one.
    pub(super) pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { tries: 6, pause: Duration::from_secs(1) }
    }
}

/// A connection is given up and taken up again after this time, so that one that hangs does not hang forever.
const MOST_PER_CONNECTION: Duration = Duration::from_secs(600);

pub(super) fn agent() -> Agent {
    Agent::config_builder()
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .http_status_as_error(false)
        .user_agent(concat!("infomax/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

/// Downloads a file, or what is missing of it. What was received lies beside it as `NAME.part` until size and
/// checksum are right. `progress` is told the number of bytes that are there.
pub(super) fn download(
    agent: &Agent,
    job: Job<'_>,
    patience: Patience,
    progress: &dyn Fn(u64),
) -> Result<()> {
    let Job { url, to, size, md5 } = job;
    if to.is_file() {
        if checksum(to)? == md5 {
            progress(size);
            return Ok(());
        }
        // Whoever put another file there shall not lose it.
        bail!("{} exists, but is not the file that is wanted (its MD5 differs); move it away", to.display());
    }
    let part = part_path(to);
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&part)
        .with_context(|| format!("cannot write {}", part.display()))?;
    if file.try_lock().is_err() {
        bail!("{} is being downloaded by another process", part.display());
    }
    let mut have = file.metadata()?.len();
    if have > size {
        restart(&mut file, &mut have)?;
    }
    file.seek(SeekFrom::Start(have))?;
    let (mut failures, mut ranges) = (0, true);
    while have < size {
        progress(have);
        let before = have;
        let ended = receive(agent, job, &mut file, &mut have, &mut ranges, progress);
        file.flush()?;
        match ended {
            Ok(()) if have == size => break,
            Err(Stop::Fatal(error)) => return Err(error),
            Ok(()) | Err(Stop::Again(_)) => {}
        }
        failures = if have > before { 0 } else { failures + 1 };
        if failures >= patience.tries {
            let why = match ended {
                Err(Stop::Again(why)) => why,
                _ => "the connection ended early".to_owned(),
            };
            bail!(
                "{url}: {why} ({failures} tries without a new byte); {have} of {size} bytes are kept in {}, run the \
                 command again to go on",
                part.display()
            );
        }
        std::thread::sleep(patience.pause * (failures + 1));
    }
    progress(have);
    file.sync_all().with_context(|| format!("cannot write {}", part.display()))?;
    let got = checksum(&part)?;
    if got != md5 {
        drop(file);
        std::fs::remove_file(&part).ok();
        bail!(
            "{url}: the MD5 of what came is {got}, not {md5}: it was damaged on the way or changed at the source. It was \
             removed; run the command again"
        );
    }
    drop(file);
    std::fs::rename(&part, to)
        .with_context(|| format!("cannot rename {} to {}", part.display(), to.display()))?;
    Ok(())
}

/// Why a connection ended.
enum Stop {
    /// Another one may do better.
    Again(String),
    /// It would be the same again.
    Fatal(anyhow::Error),
}

impl From<std::io::Error> for Stop {
    /// Of the disk; errors of the network are told apart where they occur.
    fn from(error: std::io::Error) -> Self {
        Self::Fatal(error.into())
    }
}

/// One connection: asks for what is missing and writes what comes.
fn receive(
    agent: &Agent,
    job: Job<'_>,
    file: &mut File,
    have: &mut u64,
    ranges: &mut bool,
    progress: &dyn Fn(u64),
) -> Result<(), Stop> {
    let Job { url, size, .. } = job;
    let mut request = agent.get(url);
    if *ranges {
        request = request.header("Range", format!("bytes={have}-"));
    }
    // Without ranges, a connection that is given up loses everything.
    let most = ranges.then_some(MOST_PER_CONNECTION);
    let request = request.config().timeout_recv_body(most).build();
    let response = request.call().map_err(|e| match e {
        ureq::Error::BadUri(_) | ureq::Error::Tls(_) => Stop::Fatal(anyhow::anyhow!("{url}: {e}")),
        other => Stop::Again(other.to_string()),
    })?;
    let wrong_size = |there: u64| {
        Stop::Fatal(anyhow::anyhow!(
            "{url}: the file has {there} bytes, not {size}; it was changed at the source"
        ))
    };
    match response.status() {
        StatusCode::OK => {
            *ranges = false;
            restart(file, have)?;
            if let Some(there) = number(&response, "content-length").filter(|there| *there != size) {
                return Err(wrong_size(there));
            }
        }
        StatusCode::PARTIAL_CONTENT => {
            let (start, total) = content_range(&response).unwrap_or((u64::MAX, None));
            if let Some(there) = total.filter(|total| *total != size) {
                return Err(wrong_size(there));
            }
            if start != *have {
                *ranges = false;
                restart(file, have)?;
                return Err(Stop::Again("the server sent another part than was asked for".into()));
            }
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            let there = content_range(&response).and_then(|(_, total)| total);
            if let Some(there) = there.filter(|there| *there != size) {
                return Err(wrong_size(there));
            }
            restart(file, have)?;
            *ranges = false;
            return Err(Stop::Again("the server does not have the part that was asked for".into()));
        }
        status if status.is_server_error() || status.as_u16() == 429 => {
            return Err(Stop::Again(format!("the server answered {status}")));
        }
        status => return Err(Stop::Fatal(anyhow::anyhow!("{url}: the server answered {status}"))),
    }
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = match body.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Stop::Again(e.to_string())),
        };
        if *have + n as u64 > size {
            restart(file, have)?;
            return Err(Stop::Fatal(anyhow::anyhow!("{url}: more than the expected {size} bytes came")));
        }
        file.write_all(&buffer[..n])?;
        *have += n as u64;
        progress(*have);
    }
}

fn restart(file: &mut File, have: &mut u64) -> std::io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    *have = 0;
    Ok(())
}

fn number<T>(response: &Response<T>, header: &str) -> Option<u64> {
    response.headers().get(header)?.to_str().ok()?.trim().parse().ok()
}

/// Start and total of `bytes 5-9/10`, or the total of `bytes */10`.
fn content_range<T>(response: &Response<T>) -> Option<(u64, Option<u64>)> {
    let text = response.headers().get("content-range")?.to_str().ok()?;
    let (range, total) = text.trim().strip_prefix("bytes")?.trim().split_once('/')?;
    let start = range.split('-').next()?.trim().parse().unwrap_or(u64::MAX);
    Some((start, total.trim().parse().ok()))
}

/// `NAME.part` beside a file.
pub(super) fn part_path(to: &Path) -> PathBuf {
    let mut name = to.file_name().unwrap_or_default().to_os_string();
    name.push(".part");
    to.with_file_name(name)
}

fn checksum(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (mut hash, mut buffer) = (Md5::new(), vec![0; 1 << 18]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect()),
            n => hash.update(&buffer[..n]),
        }
    }
}
